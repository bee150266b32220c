//! The limits of time of one connection, without a socket: the kernel would deliver at moments of its own, and a loaded machine would miss
//! limits that are short enough to wait for. Here, time passes only when both ends wait.

use super::super::Address;
use super::*;
use axum::Router;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
const PAUSE: Duration = Duration::from_millis(50);

/// Settings without a limit of time.
fn settings() -> Settings {
    let long = Duration::from_secs(24 * 3600);
    let settings = Settings::new("test", Address::Port(0));
    Settings { head_timeout: long, answer_timeout: long, max_age: long, ..settings }
}

/// The client's end of a connection, and what the server notes about it. The end of the work is the end of the connection.
fn connected(settings: Settings, answer: &'static str) -> (DuplexStream, Arc<Activity>, JoinSet<()>) {
    let (client, server) = duplex(4096);
    let activity = Activity::new();
    let router = Router::new().fallback(async move || answer);
    let peer = (Peer::User(None), PeerLocation::Host);
    let mut work = JoinSet::new();
    work.spawn(exchange(server, peer, router.into(), settings, Arc::clone(&activity), CancellationToken::new()));
    (client, activity, work)
}

/// Sends a request and reads its answer, whose body is `fine`. Returns false if the connection has ended instead.
async fn is_served(client: &mut DuplexStream) -> bool {
    if client.write_all(REQUEST).await.is_err() {
        return false;
    }
    let mut seen = Vec::new();
    while !seen.ends_with(b"fine") {
        match client.read_u8().await {
            Ok(byte) => seen.push(byte),
            Err(_end) => return false,
        }
    }
    true
}

/// The time until the connection ends, without a byte before.
async fn silence(client: &mut DuplexStream) -> Duration {
    let began = Instant::now();
    assert!(client.read_u8().await.is_err(), "the end");
    began.elapsed()
}

#[tokio::test(start_paused = true)]
async fn a_silent_client_is_dropped_after_the_head_timeout() {
    let settings = Settings { head_timeout: 4 * PAUSE, ..settings() };
    let (mut client, activity, _work) = connected(settings, "fine");
    client.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
    assert!(activity.waits_since().is_some());
    assert_eq!(silence(&mut client).await, settings.head_timeout);
}

#[tokio::test(start_paused = true)]
async fn a_connection_serves_many_requests_and_is_closed_when_idle() {
    let settings = Settings { head_timeout: 4 * PAUSE, answer_timeout: 2 * PAUSE, ..settings() };
    let (mut client, _activity, _work) = connected(settings, "fine");
    // Far longer than any limit of a single request.
    for _ in 0..100 {
        assert!(is_served(&mut client).await);
        tokio::time::sleep(PAUSE).await;
    }
    assert_eq!(silence(&mut client).await, settings.head_timeout - PAUSE);
}

/// A large answer is in the server's memory; the client takes none of it. While it is being answered, the connection keeps its slot.
#[tokio::test(start_paused = true)]
async fn an_answer_that_is_not_taken_keeps_its_slot_until_its_limit() {
    let large = "x".repeat(32 << 20).leak();
    let settings = Settings { head_timeout: PAUSE, answer_timeout: 8 * PAUSE, ..settings() };
    let (mut client, activity, mut work) = connected(settings, large);
    client.write_all(REQUEST).await.unwrap();
    let began = Instant::now();
    tokio::time::sleep(settings.answer_timeout - PAUSE / 2).await;
    assert!(activity.waits_since().is_none() && work.try_join_next().is_none());
    work.join_next().await.unwrap().unwrap();
    assert_eq!(began.elapsed(), settings.answer_timeout);
}

#[tokio::test(start_paused = true)]
async fn an_old_connection_serves_no_further_request() {
    let settings = Settings { max_age: 10 * PAUSE + PAUSE / 2, ..settings() };
    let (mut client, _activity, _work) = connected(settings, "fine");
    let began = Instant::now();
    while is_served(&mut client).await {
        tokio::time::sleep(PAUSE).await;
    }
    assert_eq!(began.elapsed(), 11 * PAUSE, "the next request after the age");
}
