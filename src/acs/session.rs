//! The ACS session: connects and reconnects for as long as the agent runs (spec `acs.md` §1, §2).
//!
//! Owns the address and the rules of reconnecting; `conversation` handles one connection. The invariant: a pause follows every
//! failed attempt and every short connection. Only a connection that lasted may be replaced at once.

use super::conversation::{NextStep, converse};
use super::exchange::Exchange;
use super::timing::with_jitter;
use super::{Contact, HostFacts, Incoming, Outgoing};
use crate::aws::backoff::Backoff;
use crate::websocket::{self, Socket};
use aws_credential_types::provider::SharedCredentialsProvider;
use std::future::Future;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_tungstenite::WebSocketStream;
use tokio_util::sync::CancellationToken;
use url::Url;

pub use super::timing::Timing;

/// A connection that ended sooner than this is not replaced at once, whatever its close code. This prevents a tight loop.
const SHORT_LIVED: Duration = Duration::from_secs(1);

/// Why the address of ACS is not known. The text of each variant is for the log.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// ECS does not know the container instance any more.
    #[error("{0}")]
    InactiveInstance(String),
    /// Any other cause; the next attempt may succeed.
    #[error("{0}")]
    Failed(String),
}

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
    pub websocket: websocket::Settings,
    /// The credentials that sign the connection.
    pub credentials: SharedCredentialsProvider,
    /// The timers of the session.
    pub timing: Timing,
    /// Facts of the host that affect the translation of tasks.
    pub host: HostFacts,
    /// Updated with every message of ACS.
    pub contact: Contact,
}

/// Runs until it is cancelled, or until the other end of `inbox` or `outbox` is dropped. `discover` yields the ACS endpoint.
pub async fn run<E, F>(
    settings: Settings,
    discover: E,
    inbox: mpsc::Sender<Incoming>,
    outbox: mpsc::Receiver<Outgoing>,
    cancel: CancellationToken,
) where
    E: Fn() -> F,
    F: Future<Output = Result<String, EndpointError>>,
{
    let (settings, discover) = (&settings, &discover);
    let connect = |first| connect(settings, discover, first);
    keep_connected(
        settings.timing,
        &settings.host,
        connect,
        Exchange::new(inbox, outbox, cancel, settings.contact.clone()),
    )
    .await;
}

/// Connects, and reconnects when a connection ends. The argument of `connect` is true until the first connection is made.
async fn keep_connected<C, F, S>(timing: Timing, host: &HostFacts, connect: C, mut exchange: Exchange)
where
    C: Fn(bool) -> F,
    F: Future<Output = Result<WebSocketStream<S>, NextStep>>,
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut backoff = Backoff::new(timing.backoff);
    let mut first = true;
    loop {
        let Some(connected) = exchange.while_disconnected(connect(first)).await else { return };
        let next = match connected {
            Err(next) => next,
            Ok(socket) => {
                first = false;
                exchange.contact.connected();
                exchange.notify(Incoming::Connected);
                let since = Instant::now();
                let next = converse(socket, &timing, host, &mut exchange).await;
                if since.elapsed() >= with_jitter(timing.settled) {
                    backoff.reset();
                }
                if next == NextStep::Reconnect && since.elapsed() < SHORT_LIVED {
                    NextStep::ReconnectLater
                } else {
                    next
                }
            }
        };
        let pause = match next {
            NextStep::Stop => return,
            NextStep::Reconnect => {
                backoff.reset();
                continue;
            }
            NextStep::ReconnectLater => backoff.pause(),
            NextStep::WaitForRegistration => {
                exchange.contact.deregistered();
                exchange.notify(Incoming::Deregistered);
                timing.inactive_instance
            }
        };
        tracing::debug!(?pause, "waiting before the next connection to ACS");
        if exchange.while_disconnected(tokio::time::sleep(pause)).await.is_none() {
            return;
        }
    }
}

/// One attempt to connect, from discovery to the open websocket. `first`: no attempt has succeeded yet.
async fn connect<E, F>(settings: &Settings, discover: &E, first: bool) -> Result<Socket, NextStep>
where
    E: Fn() -> F,
    F: Future<Output = Result<String, EndpointError>>,
{
    let endpoint = discover().await.map_err(|error| {
        tracing::warn!(%error, "no ACS endpoint");
        match error {
            EndpointError::InactiveInstance(_) => NextStep::WaitForRegistration,
            EndpointError::Failed(_) => NextStep::ReconnectLater,
        }
    })?;
    let url = connect_url(settings, &endpoint, first).map_err(|error| {
        tracing::warn!(%error, "the ACS endpoint is not a URL");
        NextStep::ReconnectLater
    })?;
    websocket::connect(&settings.websocket, &settings.credentials, &url).await.map_err(|error| {
        tracing::warn!(error = &error as &dyn std::error::Error, "no connection to ACS");
        if error.is_inactive_instance() { NextStep::WaitForRegistration } else { NextStep::ReconnectLater }
    })
}

/// The address of the websocket, with its query. With `send_credentials`, ACS sends the role credentials of all tasks again.
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
mod cuts;
#[cfg(test)]
mod flow;
#[cfg(test)]
mod peer;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod timers;
