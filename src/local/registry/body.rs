//! The bodies of requests, which may be of any length. Invariants: a body is read in pieces of bounded size; a client that sends
//! nothing for too long is given up.

use super::error::RegistryError;
use axum::body::{Body, BodyDataStream};
use bytes::Bytes;
use futures_util::StreamExt;
use http::StatusCode;
use std::time::Duration;
use tokio::time::timeout;

/// How long a client may send nothing.
const SILENCE_LIMIT: Duration = Duration::from_secs(60);
/// How much of a body is read that nobody wants, and for how long. Without this, the client would see a broken connection in place of
/// the answer.
const MAX_DISCARDED: usize = 16 * 1024 * 1024;
const DISCARD_LIMIT: Duration = Duration::from_secs(5);

/// A body, read in pieces.
pub(super) struct RequestBody(BodyDataStream);

/// Why a body ended early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Broken {
    /// The connection ended, or what it sent is not HTTP.
    Cut,
    /// The client sent nothing for too long.
    TimedOut,
    /// It is longer than allowed.
    TooLong,
}

impl RequestBody {
    pub(super) fn new(body: Body) -> Self {
        Self(body.into_data_stream())
    }

    /// The next piece; `None`: the body has ended.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Broken> {
        match timeout(SILENCE_LIMIT, self.0.next()).await {
            Err(_) => Err(Broken::TimedOut),
            Ok(Some(Err(_))) => Err(Broken::Cut),
            Ok(Some(Ok(piece))) => Ok(Some(piece)),
            Ok(None) => Ok(None),
        }
    }

    /// The whole body, of at most this many bytes.
    pub(super) async fn whole(&mut self, max: usize) -> Result<Bytes, Broken> {
        let mut whole = Vec::new();
        while let Some(piece) = self.next().await? {
            if whole.len() + piece.len() > max {
                return Err(Broken::TooLong);
            }
            whole.extend_from_slice(&piece);
        }
        Ok(whole.into())
    }

    /// Reads what is left of a body that is not too long.
    pub(super) async fn discard(&mut self) {
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

impl From<Broken> for RegistryError {
    fn from(broken: Broken) -> Self {
        match broken {
            Broken::Cut => Self::bad_upload("The body ended early"),
            Broken::TimedOut => Self::new(
                StatusCode::REQUEST_TIMEOUT,
                "BLOB_UPLOAD_INVALID",
                format!("Nothing came for {} seconds", SILENCE_LIMIT.as_secs()),
            ),
            Broken::TooLong => Self::new(StatusCode::PAYLOAD_TOO_LARGE, "SIZE_INVALID", "The body is too long"),
        }
    }
}
