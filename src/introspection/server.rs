//! The listener of the introspection server: binding with retries, and bounded connections.
//!
//! Owns sockets and time limits; knows no route. Invariant: a connection holds memory for at most [`READ_TIMEOUT`] +
//! [`WRITE_TIMEOUT`], there are never more than [`MAX_CONNECTIONS`], and whatever happens on one, the next is accepted.

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// The port, not configurable: scripts and the health check of the container image know it.
pub const PORT: u16 = 51678;

/// For the request's head.
const READ_TIMEOUT: Duration = Duration::from_secs(5);
/// For the answer, counted from the end of the longest read.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// More wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 64;
/// Largest request head in bytes; the longest sensible query is a task ARN.
const MAX_HEAD: usize = 16 * 1024;

const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// Binds [`PORT`] on every address and serves until `stop`. A port that is taken is tried again for ever, with growing waits:
/// tasks run without this server, and operators want it back when the port is free again. It may be taken by no server at all: a
/// connection may have been given it for its own end, and holds it for a minute after it was closed.
pub async fn run(router: Router, stop: CancellationToken) {
    let bound = async {
        let mut wait = FIRST_WAIT;
        loop {
            let error = match bind(PORT).await {
                Ok(listener) => return listener,
                Err(error) => error,
            };
            let pause = jittered(wait, RandomState::new().hash_one(wait));
            tracing::error!("Error running introspection endpoint: port {PORT}: {error}; trying again in {pause:.1?}");
            tokio::time::sleep(pause).await;
            wait = longer(wait);
        }
    };
    if let Some(listener) = stop.run_until_cancelled(bound).await {
        serve(listener, router, stop).await;
    }
}

/// Serves an already bound listener until `stop`, then lets the open connections finish (bounded by their time limits).
pub async fn serve(listener: TcpListener, router: Router, stop: CancellationToken) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => match accepted {
                Ok((stream, from)) => {
                    connections.spawn(connection(stream, from, router.clone(), stop.clone()));
                }
                // Out of file descriptors, mostly: waiting is what helps, and the loop must not spin.
                Err(error) => {
                    tracing::error!("Error running introspection endpoint: {error}");
                    tokio::time::sleep(FIRST_WAIT).await;
                }
            },
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// One request, one answer, closed: with nothing kept open there is no idle connection to account for.
async fn connection(stream: TcpStream, from: SocketAddr, router: Router, stop: CancellationToken) {
    let router = router.layer(axum::middleware::map_request(move |request: axum::extract::Request| {
        tracing::debug!(method = %request.method(), %from, "Handling http request");
        std::future::ready(request)
    }));
    let http = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(READ_TIMEOUT)
        .max_buf_size(MAX_HEAD)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let exchange = async {
        tokio::pin!(http);
        tokio::select! {
            done = &mut http => done,
            () = stop.cancelled() => {
                http.as_mut().graceful_shutdown();
                http.await
            }
        }
    };
    match tokio::time::timeout(READ_TIMEOUT + WRITE_TIMEOUT, exchange).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%from, "introspection connection ended: {error}"),
        Err(_) => tracing::debug!(%from, "introspection connection was too slow"),
    }
}

/// Every address, IPv4 and IPv6 alike; IPv4 alone where the kernel has no IPv6.
async fn bind(port: u16) -> io::Result<TcpListener> {
    match TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).await {
        Err(error) if error.kind() != io::ErrorKind::AddrInUse => {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await
        }
        bound => bound,
    }
}

fn longer(wait: Duration) -> Duration {
    (wait * 2).min(LONGEST_WAIT)
}

/// Up to a fifth longer, so that restarted agents do not knock in step.
fn jittered(wait: Duration, random: u64) -> Duration {
    wait + wait.mul_f64(0.2 * (random as f64 / u64::MAX as f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_from_a_second_to_a_minute() {
        let waits: Vec<u64> = std::iter::successors(Some(FIRST_WAIT), |wait| Some(longer(*wait)))
            .take(8)
            .map(|wait| wait.as_secs())
            .collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(jittered(FIRST_WAIT, 0), FIRST_WAIT);
        assert_eq!(jittered(FIRST_WAIT, u64::MAX), Duration::from_millis(1200));
    }
}
