//! Connects and reconnects for as long as the agent runs (spec `acs.md` §1, §2).
//!
//! Owns the rules of reconnecting; `conversation` handles one connection. The invariant: a pause follows every failed attempt
//! and every short connection. Only a connection that lasted may be replaced at once.

use super::connect::{self, Socket};
use super::contact::Contact;
use super::conversation::converse;
use super::ending::NextStep;
use super::exchange::{Exchange, is_logged};
use super::protocol::{Change, Protocol};
use super::timing::{Timing, with_jitter};
use crate::backoff::Backoff;
use aws_credential_types::provider::SharedCredentialsProvider;
use ecs_core::model::with_causes;
use std::future::Future;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_tungstenite::WebSocketStream;
use tokio_util::sync::CancellationToken;
use url::Url;

/// Why the address of the service is not known. The text of each variant is for the log.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// ECS does not know the container instance any more.
    #[error("{0}")]
    InactiveInstance(String),
    /// Any other cause; the next attempt may succeed.
    #[error("{0}")]
    Failed(String),
}

/// The settings of a session.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The settings of the connection.
    pub websocket: connect::Settings,
    /// The credentials that sign the connection.
    pub credentials: SharedCredentialsProvider,
    /// The timers of the session.
    pub timing: Timing,
    /// Updated with every message of the service.
    pub contact: Contact,
}

/// Runs until it is cancelled, or until the other end of `inbox` or `outbox` is dropped. `discover` yields the endpoint of the
/// service, and `address` makes the address of the websocket from it; its second argument is true until the first connection is
/// made.
pub async fn run<P, E, F, A>(
    settings: &Settings,
    protocol: P,
    discover: E,
    address: A,
    inbox: mpsc::Sender<P::Incoming>,
    outbox: mpsc::Receiver<P::Outgoing>,
    cancel: CancellationToken,
) where
    P: Protocol,
    E: Fn() -> F,
    F: Future<Output = Result<String, EndpointError>>,
    A: Fn(&str, bool) -> Result<Url, url::ParseError>,
{
    let (discover, address) = (&discover, &address);
    let connect = |first, number| attempt(P::PEER, settings, discover, address, first, Attempt::new::<P>(number));
    let exchange = Exchange::new(protocol, inbox, outbox, cancel, settings.contact.clone());
    keep_connected(settings.timing, connect, exchange).await;
}

/// Connects, and reconnects when a connection ends. The first argument of `connect` is true until the first connection is made;
/// the second is the number of the attempt since the last connection that lasted, counted from 1.
pub(crate) async fn keep_connected<P, C, F, S>(timing: Timing, connect: C, mut exchange: Exchange<P>)
where
    P: Protocol,
    C: Fn(bool, u32) -> F,
    F: Future<Output = Result<WebSocketStream<S>, NextStep>>,
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut backoff = Backoff::new(timing.backoff);
    let mut first = true;
    loop {
        let connecting = connect(first, backoff.attempt() + 1);
        let Some(connected) = exchange.while_disconnected(connecting).await else { return };
        let next = match connected {
            Err(next) => next,
            Ok(socket) => {
                first = false;
                let _open = exchange.connected();
                let since = Instant::now();
                let next = converse(socket, &timing, &mut exchange).await;
                if since.elapsed() >= with_jitter(timing.settled) {
                    backoff.reset();
                }
                if next == NextStep::Reconnect && since.elapsed() < timing.short_lived {
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
                exchange.notify(Change::Deregistered);
                timing.inactive_instance.unwrap_or_else(|| backoff.pause())
            }
        };
        if Attempt::new::<P>(backoff.attempt()).is_logged {
            tracing::info!(retry_in_s = crate::backoff::seconds(pause), "Waiting before reconnecting to {}", P::PEER);
        }
        if exchange.while_disconnected(tokio::time::sleep(pause)).await.is_none() {
            return;
        }
    }
}

/// An attempt to connect, for the log.
#[derive(Clone, Copy)]
struct Attempt {
    /// Its number since the last connection that lasted, counted from 1.
    number: u32,
    /// Its failure is a warning; otherwise a line at level debug.
    is_logged: bool,
}

impl Attempt {
    /// A peer that the agent can do without may be missing for ever: of its failures, the first ten are logged, later ones rarely.
    fn new<P: Protocol>(number: u32) -> Self {
        Self { number, is_logged: !P::CLOSES_SILENT || is_logged(number) }
    }

    fn failed(self, error: &dyn std::fmt::Display, text: std::fmt::Arguments<'_>) {
        if self.is_logged {
            tracing::warn!(%error, attempt = self.number, "{text}");
        } else {
            tracing::debug!(%error, attempt = self.number, "{text}");
        }
    }
}

/// One attempt to connect, from discovery to the open websocket. `first`: no attempt has succeeded yet.
async fn attempt<E, F, A>(
    peer: &str,
    settings: &Settings,
    discover: &E,
    address: &A,
    first: bool,
    attempt: Attempt,
) -> Result<Socket, NextStep>
where
    A: Fn(&str, bool) -> Result<Url, url::ParseError>,
    E: Fn() -> F,
    F: Future<Output = Result<String, EndpointError>>,
{
    let endpoint = discover().await.map_err(|error| {
        attempt.failed(&error, format_args!("{peer}: Unable to discover poll endpoint"));
        match error {
            EndpointError::InactiveInstance(_) => NextStep::WaitForRegistration,
            EndpointError::Failed(_) => NextStep::ReconnectLater,
        }
    })?;
    let url = address(&endpoint, first).map_err(|error| {
        attempt.failed(&error, format_args!("the {peer} endpoint is not a URL"));
        NextStep::ReconnectLater
    })?;
    connect::connect(&settings.websocket, &settings.credentials, &url).await.map_err(|error| {
        attempt.failed(&with_causes(&error), format_args!("Failed to connect to {peer}"));
        if error.is_inactive_instance() { NextStep::WaitForRegistration } else { NextStep::ReconnectLater }
    })
}
