//! The bodies of requests, which may be of any length. Invariants: a body is read in pieces of bounded size; a client that sends
//! nothing for too long is given up; only a bounded number of large bodies is in memory at a time.

use axum::body::{Body, BodyDataStream};
use bytes::Bytes;
use futures_util::StreamExt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// Number of large bodies that are in memory at a time. Further ones wait. With 30 MiB each they take 240 MiB.
pub(super) const MAX_LARGE_BODIES: usize = 8;
/// The length from which a body is a large one, in bytes.
const LARGE: usize = 64 * 1024;
/// The time limit for a body that is read as a whole.
const WHOLE_LIMIT: Duration = Duration::from_secs(30);

/// How long a client may send nothing.
const SILENCE_LIMIT: Duration = Duration::from_secs(60);
/// How much of a body is read that nobody wants, and for how long. Without this, the client would see a broken connection in place of
/// the answer.
const MAX_DISCARDED: usize = 16 * 1024 * 1024;
const DISCARD_LIMIT: Duration = Duration::from_secs(5);

/// A body, read in pieces.
pub(crate) struct RequestBody(BodyDataStream);

/// Why a body ended early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    /// The connection ended, or what it sent is not HTTP.
    Cut,
    /// The client sent nothing for too long.
    TimedOut,
    /// It is longer than allowed.
    TooLong,
}

impl RequestBody {
    pub(crate) fn new(body: Body) -> Self {
        Self(body.into_data_stream())
    }

    /// The next piece; `None`: the body has ended.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Broken> {
        match timeout(SILENCE_LIMIT, self.0.next()).await {
            Err(_) => Err(Broken::TimedOut),
            Ok(Some(Err(_))) => Err(Broken::Cut),
            Ok(Some(Ok(piece))) => Ok(Some(piece)),
            Ok(None) => Ok(None),
        }
    }

    /// The whole body, of at most this many bytes. A large one takes one of the `turns`, which the caller keeps for as long as it has
    /// the body.
    pub(crate) async fn whole(
        &mut self,
        max: usize,
        turns: &Arc<Semaphore>,
    ) -> Result<(Bytes, Option<OwnedSemaphorePermit>), Broken> {
        let read = async {
            let (mut whole, mut turn) = (Vec::new(), None);
            while let Some(piece) = self.next().await? {
                let length = whole.len() + piece.len();
                if length > max {
                    return Err(Broken::TooLong);
                }
                if length > LARGE && turn.is_none() {
                    turn = Arc::clone(turns).acquire_owned().await.ok();
                }
                whole.extend_from_slice(&piece);
            }
            Ok((whole.into(), turn))
        };
        timeout(WHOLE_LIMIT, read).await.unwrap_or(Err(Broken::TimedOut))
    }

    /// Reads what is left of a body that is not too long.
    pub(crate) async fn discard(&mut self) {
        let mut read = 0;
        let rest = async {
            while let Ok(Some(piece)) = self.next().await
                && read < MAX_DISCARDED
            {
                read += piece.len();
            }
        };
        let _read = timeout(DISCARD_LIMIT, rest).await;
    }
}
