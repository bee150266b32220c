//! Binds with retries, accepts connections, and ends each of them.

use super::Settings;
use super::activity::{Activity, Answer, Watched};
use super::address::{Accepted, Address, Listener, bind};
use super::answers::Answers;
use super::peer::{Audience, Peer, PeerLocation};
use super::serving::Serving;
use super::slots::{Connection, FoundSlot, Slots};
use super::tally::Tally;
use crate::backoff::{Backoff, Shape};
use axum::body::Body;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

/// The pauses between two attempts to bind.
const BIND_RETRY: Shape =
    Shape { initial: Duration::from_secs(1), max: Duration::from_secs(60), factor: 2.0, jitter: 0.2 };
/// The pause after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// Serves until `stop` is cancelled. `bound` is the result of the first attempt to bind the address: a caller that needs the
/// address bound early makes this attempt itself. If the address is taken, binding is retried forever with growing pauses: the
/// agent works without this server, and operators want the server back as soon as the address is free. A port may be taken
/// without any server on it: the kernel may have given it to an outgoing connection, and keeps it for a minute after the close.
/// `serving` shows whether the address is bound.
pub async fn run(
    bound: io::Result<Listener>,
    settings: Settings,
    audience: Audience,
    answers: Answers,
    serving: Serving,
    stop: CancellationToken,
) {
    let retried = async {
        let (mut bound, mut backoff) = (bound, Backoff::new(BIND_RETRY));
        loop {
            let error = match bound {
                Ok(listener) => return listener,
                Err(error) => error,
            };
            let pause = backoff.pause();
            let Settings { name, address, .. } = settings;
            let (attempt, retry_in_s) = (backoff.attempt(), crate::backoff::seconds(pause));
            let holder = address.holder(&error).await;
            // A second agent may end soon, with the reason; until then the first one answers here.
            if matches!(address, Address::Socket(_)) && error.kind() == io::ErrorKind::AddrInUse {
                tracing::warn!(attempt, retry_in_s, "{address} is taken{holder}; trying again");
            } else {
                tracing::error!(
                    attempt,
                    retry_in_s,
                    "Error running {name} endpoint: {address}: {error}{holder}; trying again"
                );
            }
            tokio::time::sleep(pause).await;
            bound = bind(address);
        }
    };
    if let Some(listener) = stop.run_until_cancelled(retried).await {
        let _open = serving.open();
        serve(listener, settings, audience, answers, stop).await;
    }
}

/// Serves a bound listener until `stop` is cancelled. After that, requests in progress get [`Settings::stop_grace`] to finish;
/// connections without a request are closed at once.
pub async fn serve(
    listener: Listener,
    settings: Settings,
    audience: Audience,
    answers: Answers,
    stop: CancellationToken,
) {
    let mut server = Server {
        settings,
        audience,
        answers,
        stop: stop.clone(),
        slots: Slots::new(settings.limits),
        connections: JoinSet::new(),
        refused: Tally::default(),
        overloaded: Tally::default(),
    };
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(ended) = server.connections.join_next_with_id() => server.free_slot(ended),
            accepted = listener.accept() => match accepted {
                Ok(accepted) => server.accept(accepted),
                // The usual cause is a lack of file descriptors. Waiting helps, and the loop must not spin.
                Err(error) => {
                    tracing::error!("Error running {} endpoint: {error}", settings.name);
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    let all = async { while server.connections.join_next().await.is_some() {} };
    let _late_answers_are_cut_off = timeout(settings.stop_grace, all).await;
}

/// The peer of a connection to a port. Each request carries it as an extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RemoteAddress {
    /// The address of the peer.
    pub address: SocketAddr,
    /// The location of the peer when it connected.
    pub location: PeerLocation,
}

/// The data about an open connection that its slot holds.
#[derive(Debug)]
struct OpenConnection {
    task: AbortHandle,
    activity: Arc<Activity>,
}

impl Connection for OpenConnection {
    fn waits_since(&self) -> Option<Instant> {
        self.activity.waits_since()
    }
}

struct Server {
    settings: Settings,
    audience: Audience,
    answers: Answers,
    stop: CancellationToken,
    slots: Slots<OpenConnection>,
    connections: JoinSet<()>,
    /// Connections from peers that are not served.
    refused: Tally,
    /// Connections that came when no slot was free.
    overloaded: Tally,
}

impl Server {
    /// Frees the slot of a connection.
    fn free_slot(&mut self, ended: Result<(Id, ()), JoinError>) {
        let id = ended.map_or_else(|error| error.id(), |(id, ())| id);
        self.slots.leave(|connection| connection.task.id() == id);
    }

    fn accept(&mut self, accepted: Accepted) {
        while let Some(ended) = self.connections.try_join_next_with_id() {
            self.free_slot(ended);
        }
        match accepted {
            Accepted::Tcp(stream, from) => {
                let location = self.location(&stream, from);
                // Otherwise an answer may wait for the acknowledgement of the one before.
                let _best_effort = stream.set_nodelay(true);
                self.admit(stream, Peer::Address(from), location, reset);
            }
            Accepted::Unix(stream, peer) => self.admit(stream, peer, Ok(PeerLocation::Host), drop),
        }
    }

    /// Serves the peer, or closes its connection.
    fn admit<S>(&mut self, stream: S, peer: Peer, location: Result<PeerLocation, String>, close: fn(S))
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Settings { name, address, .. } = self.settings;
        let location = match location {
            Ok(location) => location,
            Err(why) => {
                if let Some(so_far) = self.refused.add(Instant::now()) {
                    tracing::warn!(%peer, at = %address, so_far, reason = why, "{name}: a peer is not served");
                }
                return close(stream);
            }
        };
        match self.slots.find_slot(peer, location) {
            FoundSlot::Free => {}
            FoundSlot::Evicted(oldest) => {
                oldest.task.abort();
                if oldest.activity.has_served() {
                    tracing::debug!(%peer, "{name}: an idle connection was closed for a new one");
                } else {
                    self.log_overload(peer, "the connection that waited longest for a request was closed");
                }
            }
            FoundSlot::None => {
                self.log_overload(peer, "a new connection was closed");
                return close(stream);
            }
        }
        let activity = Activity::new();
        let work = exchange(
            stream,
            (peer, location),
            self.answers.clone(),
            self.settings,
            activity.clone(),
            self.stop.clone(),
        );
        let task = self.connections.spawn(work);
        self.slots.enter(peer, location, OpenConnection { task, activity });
    }

    fn location(&self, stream: &TcpStream, from: SocketAddr) -> Result<PeerLocation, String> {
        let local = stream.local_addr().map_err(|error| error.to_string())?;
        self.audience.check(local.ip(), from).map_err(|refused| refused.to_string())
    }

    fn log_overload(&mut self, peer: Peer, done: &str) {
        let Settings { name, address, .. } = self.settings;
        if let Some(so_far) = self.overloaded.add(Instant::now()) {
            let open = self.slots.len();
            tracing::warn!(%peer, at = %address, open, so_far, "{name}: too many connections at once: {done}");
        }
    }
}

/// Closes with a reset, so that the kernel keeps no state of the connection.
fn reset(stream: TcpStream) {
    let _ = stream.set_zero_linger();
}

/// Answers requests until the client closes the connection, sends none for too long, or does not take an answer.
pub(super) async fn exchange<S>(
    stream: S,
    (from, location): (Peer, PeerLocation),
    answers: Answers,
    settings: Settings,
    activity: Arc<Activity>,
    stop: CancellationToken,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let stream = Watched { stream, activity: Arc::clone(&activity) };
    let noted = Arc::clone(&activity);
    let service = service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
        noted.asked();
        if let Peer::Address(address) = from {
            request.extensions_mut().insert(RemoteAddress { address, location });
        }
        tracing::debug!(method = %request.method(), %from, "Handling http request");
        let (answer, activity) = (answers.answer(request.map(Body::new)), Arc::clone(&noted));
        async move { Ok::<_, Infallible>(answer.await.map(|body| Answer { body, activity })) }
    });
    let http = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(settings.head_timeout)
        .max_buf_size(settings.max_head)
        // A client such as `nc` ends its own half once it has sent the request, and gets its answer, as from the Go agent.
        .half_close(true)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(http);
    let oldest = Instant::now() + settings.max_age;
    let mut is_last = false;
    loop {
        // A phase may be shorter than the one in which this is set.
        let next = Instant::now() + settings.head_timeout.min(settings.answer_timeout);
        tokio::select! {
            biased; // A request that has arrived counts, however late this runs.
            done = &mut http => {
                if let Err(error) = done {
                    tracing::debug!(%from, "a connection to {} ended: {error}", settings.name);
                }
                return;
            }
            () = stop.cancelled(), if !is_last => {
                if activity.waits_since().is_some() {
                    return; // a client that has sent no request waits for no answer
                }
                http.as_mut().graceful_shutdown();
                is_last = true;
            }
            // Whether a peer is served is judged once for each connection.
            () = sleep_until(oldest), if !is_last => {
                http.as_mut().graceful_shutdown();
                is_last = true;
            }
            () = sleep_until(activity.deadline(&settings).min(next)) => {
                // Meanwhile there may have been another request.
                if activity.deadline(&settings) <= Instant::now() {
                    tracing::debug!(%from, "a connection to {} was idle, or too slow", settings.name);
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
