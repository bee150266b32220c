//! The ACS session: connect, listen, answer, reconnect, for as long as the agent runs (spec `acs.md` §1, §2).
//!
//! Owns the timers and the rules of reconnecting. It understands no task. The invariant: the read loop waits for nobody. A slow
//! receiver of [`Incoming`] costs memory up to a limit, then messages (ACS sends them again), but never a heartbeat.

use super::decode::{self, Frame};
use super::{Incoming, Outgoing};
use crate::aws::backoff::{Backoff, Shape, uniform};
use crate::websocket::{self, Socket};
use aws_credential_types::provider::SharedCredentialsProvider;
use futures_util::{SinkExt, StreamExt};
use std::collections::VecDeque;
use std::future::Future;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error as SocketError, Message};
use tokio_util::sync::CancellationToken;
use url::Url;

/// One message must be written within this.
const WRITE: Duration = Duration::from_secs(180);
/// Saying goodbye may take this long.
const GOODBYE: Duration = Duration::from_secs(1);
/// Messages that wait for a slow receiver.
const MAX_WAITING: usize = 64;
/// A connection that ended sooner than this is not reconnected at once, whatever its close code: no tight loop.
const SHORT: Duration = Duration::from_secs(1);

/// Whom to speak as.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Cluster: name or ARN.
    pub cluster: String,
    /// ARN of the container instance.
    pub container_instance: String,
    /// Version of the agent.
    pub agent_version: String,
    /// Short hash of its source.
    pub agent_hash: String,
    /// Version of the Docker server, if it could be read.
    pub docker_version: Option<String>,
    /// How to connect.
    pub websocket: websocket::Settings,
    /// What to sign with.
    pub credentials: SharedCredentialsProvider,
    /// Timers.
    pub timing: Timing,
}

/// The timers; each pair is a length and the jitter added to it.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// Silence after which the connection is given up.
    pub inactivity: (Duration, Duration),
    /// Age at which the connection is renewed.
    pub lifetime: (Duration, Duration),
    /// Age from which on a connection counts as good: the back-off starts over.
    pub settled: (Duration, Duration),
    /// Pause after ECS said that the instance is not registered.
    pub inactive_instance: Duration,
    /// Pauses between failed attempts.
    pub backoff: Shape,
}

impl Default for Timing {
    fn default() -> Self {
        let minutes = |minutes: u64| Duration::from_secs(minutes * 60);
        Self {
            inactivity: (minutes(1), minutes(1)),
            lifetime: (minutes(30), minutes(5)),
            settled: (minutes(1), minutes(1)),
            inactive_instance: minutes(60),
            backoff: Shape { initial: Duration::from_millis(250), max: minutes(2), factor: 1.5, jitter: 0.2 },
        }
    }
}

/// What follows the end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Reconnect,
    ReconnectLater,
    WaitForRegistration,
    Stop,
}

/// Runs until cancelled, or until nobody listens or speaks any more. `discover` names the ACS endpoint.
pub async fn run<E, F>(
    settings: Settings,
    discover: E,
    inbox: mpsc::Sender<Incoming>,
    outbox: mpsc::Receiver<Outgoing>,
    cancel: CancellationToken,
) where
    E: Fn() -> F,
    F: Future<Output = Result<String, String>>,
{
    let backoff = Backoff::new(settings.timing.backoff);
    let mut session = Session { settings, inbox, outbox, cancel, waiting: VecDeque::new(), first: true, backoff };
    loop {
        let pause = match session.once(&discover).await {
            Next::Stop => return,
            Next::Reconnect => {
                session.backoff.reset();
                continue;
            }
            Next::ReconnectLater => session.backoff.pause(),
            Next::WaitForRegistration => {
                session.deliver(Incoming::Deregistered);
                session.settings.timing.inactive_instance
            }
        };
        if session.pause(pause).await == Next::Stop {
            return;
        }
    }
}

struct Session {
    settings: Settings,
    inbox: mpsc::Sender<Incoming>,
    outbox: mpsc::Receiver<Outgoing>,
    cancel: CancellationToken,
    waiting: VecDeque<Incoming>,
    /// No connection was made yet: ACS is asked to send all credentials.
    first: bool,
    backoff: Backoff,
}

impl Session {
    /// One connection from discovery to its end.
    async fn once<E, F>(&mut self, discover: &E) -> Next
    where
        E: Fn() -> F,
        F: Future<Output = Result<String, String>>,
    {
        let cancel = self.cancel.clone();
        let socket = tokio::select! {
            () = cancel.cancelled() => return Next::Stop,
            result = self.connect(discover) => match result {
                Ok(socket) => socket,
                Err(next) => return next,
            },
        };
        self.first = false;
        tracing::info!("connected to ACS");
        self.deliver(Incoming::Connected);
        let since = Instant::now();
        let next = self.converse(socket).await;
        if since.elapsed() >= drawn(self.settings.timing.settled) {
            self.backoff.reset();
        }
        if next == Next::Reconnect && since.elapsed() < SHORT { Next::ReconnectLater } else { next }
    }

    async fn connect<E, F>(&self, discover: &E) -> Result<Socket, Next>
    where
        E: Fn() -> F,
        F: Future<Output = Result<String, String>>,
    {
        let endpoint = discover().await.map_err(|error| {
            tracing::warn!(%error, "no ACS endpoint");
            if error.contains("InactiveInstanceException") { Next::WaitForRegistration } else { Next::ReconnectLater }
        })?;
        let url = connect_url(&self.settings, &endpoint, self.first).map_err(|error| {
            tracing::warn!(%error, "the ACS endpoint is not a URL");
            Next::ReconnectLater
        })?;
        websocket::connect(&self.settings.websocket, &self.settings.credentials, &url).await.map_err(|error| {
            tracing::warn!(error = &error as &dyn std::error::Error, "no connection to ACS");
            if error.is_inactive_instance() { Next::WaitForRegistration } else { Next::ReconnectLater }
        })
    }

    async fn converse(&mut self, mut socket: Socket) -> Next {
        let timing = self.settings.timing;
        let expires = Instant::now() + drawn(timing.lifetime);
        let mut silent_at = Instant::now() + drawn(timing.inactivity);
        let mut closing = false;
        let (cancel, inbox) = (self.cancel.clone(), self.inbox.clone());
        loop {
            let next = tokio::select! {
                () = cancel.cancelled() => {
                    let _sent = tokio::time::timeout(GOODBYE, socket.close(None)).await;
                    return Next::Stop;
                }
                received = socket.next() => match self.received(&mut socket, received).await {
                    Received::Alive => {
                        silent_at = Instant::now() + drawn(timing.inactivity);
                        None
                    }
                    Received::Ignored => None,
                    Received::End(next) => Some(next),
                },
                outgoing = self.outbox.recv() => match outgoing {
                    Some(outgoing) => self.answer(&mut socket, &outgoing).await,
                    None => Some(Next::Stop),
                },
                permit = inbox.reserve(), if !self.waiting.is_empty() => match permit {
                    Ok(permit) => {
                        self.hand_on(permit);
                        None
                    }
                    Err(_closed) => Some(Next::Stop),
                },
                () = tokio::time::sleep_until(silent_at) => {
                    tracing::warn!("ACS is silent");
                    Some(Next::ReconnectLater)
                }
                () = tokio::time::sleep_until(expires), if !closing => {
                    closing = true;
                    let reason = "ConnectionExpired: Reconnect to continue".into();
                    let close = Message::Close(Some(CloseFrame { code: CloseCode::Normal, reason }));
                    write(&mut socket, close).await
                }
            };
            if let Some(next) = next {
                return next;
            }
        }
    }

    async fn received(&mut self, socket: &mut Socket, received: Option<Result<Message, SocketError>>) -> Received {
        let text = match received {
            Some(Ok(Message::Text(text))) => text.to_string(),
            Some(Ok(Message::Binary(bytes))) => String::from_utf8_lossy(&bytes).into_owned(),
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => return Received::Ignored,
            Some(Ok(Message::Close(frame))) => {
                let _echoed = tokio::time::timeout(GOODBYE, socket.close(None)).await;
                return Received::End(after_close(frame.as_ref()));
            }
            None => return Received::End(Next::Reconnect),
            Some(Err(error)) => return Received::End(after_error(&error)),
        };
        match decode::frame(&text, &mut || uuid::Uuid::new_v4().to_string()) {
            Frame::Answer(answer) => match write(socket, Message::text(answer)).await {
                None => Received::Alive,
                Some(next) => Received::End(next),
            },
            Frame::Deliver(message) => {
                self.deliver(message);
                Received::Alive
            }
            Frame::Note(note) => {
                tracing::warn!("{note}");
                Received::Alive
            }
            Frame::Drop(why) => {
                tracing::warn!(bytes = text.len(), "a message of ACS was dropped: {why}");
                Received::Ignored
            }
        }
    }

    async fn answer(&self, socket: &mut Socket, outgoing: &Outgoing) -> Option<Next> {
        for frame in decode::encode(outgoing) {
            if let Some(next) = write(socket, Message::text(frame)).await {
                return Some(next);
            }
        }
        None
    }

    /// Queues a message for the receiver; drops it when too many wait, since ACS repeats what is not acknowledged.
    fn deliver(&mut self, message: Incoming) {
        if self.waiting.len() >= MAX_WAITING {
            tracing::warn!("a message of ACS was dropped: too many wait to be handled");
            return;
        }
        self.waiting.push_back(message);
    }

    fn hand_on(&mut self, permit: mpsc::Permit<'_, Incoming>) {
        if let Some(message) = self.waiting.pop_front() {
            permit.send(message);
        }
    }

    /// Waits, still handing on what arrived. Answers that come meanwhile have no connection to go to: ACS will ask again.
    async fn pause(&mut self, pause: Duration) -> Next {
        let until = Instant::now() + pause;
        let (cancel, inbox) = (self.cancel.clone(), self.inbox.clone());
        loop {
            tokio::select! {
                () = cancel.cancelled() => return Next::Stop,
                () = tokio::time::sleep_until(until) => return Next::Reconnect,
                outgoing = self.outbox.recv() => match outgoing {
                    Some(_) => tracing::debug!("an answer to ACS was dropped: not connected"),
                    None => return Next::Stop,
                },
                permit = inbox.reserve(), if !self.waiting.is_empty() => match permit {
                    Ok(permit) => self.hand_on(permit),
                    Err(_closed) => return Next::Stop,
                },
            }
        }
    }
}

enum Received {
    Alive,
    Ignored,
    End(Next),
}

async fn write(socket: &mut Socket, message: Message) -> Option<Next> {
    match tokio::time::timeout(WRITE, socket.send(message)).await {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(after_error(&error)),
        Err(_elapsed) => Some(Next::ReconnectLater),
    }
}

fn after_close(frame: Option<&CloseFrame>) -> Next {
    let Some(frame) = frame else { return Next::ReconnectLater };
    if frame.reason.contains("InactiveInstanceException") {
        return Next::WaitForRegistration;
    }
    match u16::from(frame.code) {
        1000 | 1001 | 1006 | 1011 => Next::Reconnect,
        _ => Next::ReconnectLater,
    }
}

/// A connection that ends without a close frame counts as code 1006.
fn after_error(error: &SocketError) -> Next {
    match error {
        SocketError::ConnectionClosed | SocketError::Protocol(ProtocolError::ResetWithoutClosingHandshake) => {
            Next::Reconnect
        }
        _ => Next::ReconnectLater,
    }
}

fn drawn((length, jitter): (Duration, Duration)) -> Duration {
    length + uniform(jitter)
}

/// The address of the websocket with its query.
fn connect_url(settings: &Settings, endpoint: &str, send_credentials: bool) -> Result<Url, url::ParseError> {
    let slash = if endpoint.ends_with('/') { "" } else { "/" };
    let mut url = Url::parse(&format!("{endpoint}{slash}ws"))?;
    let mut query = url.query_pairs_mut();
    query
        .append_pair("agentHash", &settings.agent_hash)
        .append_pair("agentVersion", &settings.agent_version)
        .append_pair("clusterArn", &settings.cluster)
        .append_pair("containerInstanceArn", &settings.container_instance);
    if let Some(version) = &settings.docker_version {
        query.append_pair("dockerVersion", &format!("DockerVersion: {version}"));
    }
    query
        .append_pair("protocolVersion", "2")
        .append_pair("sendCredentials", if send_credentials { "true" } else { "false" })
        .append_pair("seqNum", "1");
    drop(query);
    Ok(url)
}

#[cfg(test)]
mod tests;
