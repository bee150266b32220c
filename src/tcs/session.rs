//! The TCS session: the messages of TCS over a [`websocket`](crate::websocket) (spec `tcs.md` §1, §2).
//!
//! Owns the address with its query, the timers that differ from those of ACS, the dating and the signing of each message. Connecting
//! and reconnecting belong to the websocket. The invariants: a message is signed when the connection takes it, for the address of
//! that connection; all times in it are those of AWS's clock, if that of this host is known to be wrong.

use super::decode;
use super::frame::{self, FrameError};
use super::publish::{self, Place};
use super::{Dated, Incoming};
use crate::backoff::Shape;
use crate::websocket::session::{self, EndpointError};
use crate::websocket::{Change, Protocol, Read, Timing};
use ecs_core::model::Timestamp;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use url::Url;

/// The longest pause between two attempts to connect, without its jitter.
const MAX_PAUSE: Duration = Duration::from_secs(60);
/// A connection that lasted for a shorter time is replaced after a pause.
///
/// The Go agent connects again at once and for ever to a TCS that ends each connection with a usual close code.
const SHORT_LIVED: Duration = Duration::from_secs(60);
/// The maximum age of data that is sent. AWS refuses a signature that is five minutes old, and may treat the time in a message in the
/// same way.
const MAX_AGE: Duration = Duration::from_secs(280);

/// The settings of the session.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The cluster: name or ARN.
    pub cluster: String,
    /// The ARN of the container instance.
    pub container_instance: String,
    /// The version of the agent.
    pub agent_version: String,
    /// The short commit hash of the agent's source.
    pub agent_hash: String,
    /// The version of the Docker server; `None` if it is unknown.
    pub docker_version: Option<String>,
    /// The settings of the connection.
    pub connection: session::Settings,
}

/// The timers of this session: the pauses between attempts grow from one second to one minute. An instance that is not registered
/// is treated like any other error, since ACS reports it already.
pub fn timing() -> Timing {
    Timing {
        short_lived: SHORT_LIVED,
        inactive_instance: None,
        backoff: Shape { initial: Duration::from_secs(1), max: MAX_PAUSE, factor: 2.0, jitter: 0.2 },
        ..Timing::default()
    }
}

/// The messages of TCS.
#[derive(Debug)]
struct Tcs {
    place: Place,
    connection: session::Settings,
    /// The address of the current connection, or of the attempt in progress.
    address: Arc<Mutex<Option<Url>>>,
    /// The last message could not be signed, and that is logged.
    is_unsigned: Arc<AtomicBool>,
}

impl Protocol for Tcs {
    type Incoming = Incoming;
    type Outgoing = Dated;

    const PEER: &'static str = "TCS";
    const OUTGOING_WAITS: bool = true;
    const CLOSES_SILENT: bool = true;

    fn read(&self, bytes: &[u8]) -> Read<Incoming> {
        decode::frame(bytes)
    }

    /// Compat: in the Go agent, a message that waited has the time of sending. So after an outage, the values of five minutes get
    /// the same time. Here they have their own time.
    async fn write(&self, message: Dated) -> Vec<String> {
        let age = message.at.elapsed();
        if age > MAX_AGE {
            tracing::debug!(age_s = age.as_secs(), "a message to TCS is dropped: it is too old");
            return Vec::new();
        }
        let clock = self.connection.websocket.signing.clock();
        let at = clock.now().checked_sub(age).map_or(Timestamp::default(), timestamp);
        let outgoing = message.outgoing.with_moments(|moment| clock.corrected(moment));
        let id = uuid::Uuid::new_v4().to_string();
        let mut signed = Vec::new();
        for text in publish::texts(&self.place, &outgoing, &id, at) {
            match self.sign(&text).await {
                Ok(text) => {
                    self.is_unsigned.store(false, Ordering::Relaxed);
                    signed.push(text);
                }
                Err(error) => {
                    // The other parts of the message are of no use without this one.
                    if self.is_unsigned.swap(true, Ordering::Relaxed) {
                        tracing::debug!(%error, "a message to TCS is dropped: it cannot be signed");
                    } else {
                        tracing::warn!(%error, "messages to TCS are dropped from now on: they cannot be signed");
                    }
                    return Vec::new();
                }
            }
        }
        signed
    }

    fn decoded_size(&self, _: &Incoming) -> usize {
        0
    }

    fn notice(&self, change: Change) -> Option<Incoming> {
        (change == Change::Connected).then_some(Incoming::Connected)
    }
}

impl Tcs {
    async fn sign(&self, text: &str) -> Result<String, FrameError> {
        let address = self.address.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (url, websocket) = (&address.ok_or_else(FrameError::unconnected)?, &self.connection.websocket);
        let sign = |keys, at| std::future::ready(frame::signed(url, &websocket.region, keys, at, text));
        websocket.signing.call(&self.connection.credentials, sign).await
    }
}

/// Runs until it is cancelled, or until the other end of `inbox` is dropped. `discover` yields the TCS endpoint.
pub async fn run<E, F>(
    settings: Settings,
    discover: E,
    inbox: mpsc::Sender<Incoming>,
    outbox: mpsc::Receiver<Dated>,
    cancel: CancellationToken,
) where
    E: Fn() -> F,
    F: Future<Output = Result<String, EndpointError>>,
{
    let place = Place { cluster: settings.cluster.clone(), container_instance: settings.container_instance.clone() };
    let connected: Arc<Mutex<Option<Url>>> = Arc::default();
    let (connection, address) = (settings.connection.clone(), Arc::clone(&connected));
    let protocol = Tcs { place, connection, address, is_unsigned: Arc::default() };
    let address = |endpoint: &str, _first| {
        let url = connect_url(&settings, endpoint)?;
        *connected.lock().unwrap_or_else(PoisonError::into_inner) = Some(url.clone());
        Ok(url)
    };
    session::run(&settings.connection, protocol, discover, address, inbox, outbox, cancel).await;
}

/// The address of the websocket, with its query. The names differ from those of ACS, and the version of Docker has no prefix.
fn connect_url(settings: &Settings, endpoint: &str) -> Result<Url, url::ParseError> {
    let slash = if endpoint.ends_with('/') { "" } else { "/" };
    let mut url = Url::parse(&format!("{endpoint}{slash}ws"))?;
    let mut query = url.query_pairs_mut();
    query
        .append_pair("agentHash", &settings.agent_hash)
        .append_pair("agentVersion", &settings.agent_version)
        .append_pair("cluster", &settings.cluster)
        .append_pair("containerInstance", &settings.container_instance);
    if let Some(version) = &settings.docker_version {
        query.append_pair("dockerVersion", version);
    }
    drop(query);
    Ok(url)
}

fn timestamp(time: SystemTime) -> Timestamp {
    Timestamp(time.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64)
}

#[cfg(test)]
mod tests;
