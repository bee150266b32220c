//! The limits, over real sockets on loopback. Peers on other hosts need other network namespaces: see `tests/agent/port.rs`. Limits of time
//! are tested beside the listener, without sockets.

use super::*;
use axum::Router;
use ecs_testing::wait::until;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// The limits of time of a server here, unless a test is about one: none of them passes while a test runs.
const LONG: Duration = Duration::from_secs(600);
/// Far more time than a loaded machine needs, and less than any limit of a server.
const QUICK: Duration = Duration::from_secs(30);
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
/// Afterwards the connection stays open.
const KEPT: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";

struct Running {
    address: SocketAddr,
    stop: CancellationToken,
    server: JoinSet<()>,
}

async fn start(router: Router, settings: Settings) -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, mut server) = (CancellationToken::new(), JoinSet::new());
    server.spawn(serve(Listener::Tcp(listener), settings, Audience::host_only(), router.into(), stop.clone()));
    Running { address, stop, server }
}

fn settings() -> Settings {
    patient(Address::Port(0))
}

fn patient(address: Address) -> Settings {
    let settings = Settings::new("test", address);
    Settings { head_timeout: LONG, answer_timeout: LONG, max_age: LONG, stop_grace: LONG, ..settings }
}

fn fine() -> Router {
    Router::new().fallback(async || "fine")
}

async fn from(ip: &str, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((ip.parse::<IpAddr>().unwrap(), 0).into()).unwrap();
    socket.connect(to).await.unwrap()
}

/// What the server sends until it closes; a reset counts as a close.
async fn rest(mut stream: impl AsyncRead + Unpin) -> String {
    let mut bytes = Vec::new();
    let _end_or_reset = stream.read_to_end(&mut bytes).await;
    String::from_utf8(bytes).unwrap()
}

async fn get(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> String {
    let _closed_already = stream.write_all(REQUEST).await;
    timeout(QUICK, rest(stream)).await.expect("an answer or an end, quickly")
}

#[tokio::test]
async fn four_hundred_half_open_requests_shut_nobody_out() {
    let running = start(fine(), settings()).await;
    let mut half_open = Vec::new();
    for n in 0..400 {
        let mut stream = from(&format!("127.0.1.{}", n % 250 + 1), running.address).await;
        let _closed_already = stream.write_all(b"GET / HTTP/1.1\r\nHost: local").await;
        half_open.push(stream);
    }
    for ip in ["127.0.0.1", "127.0.1.7"] {
        assert!(get(from(ip, running.address).await).await.ends_with("fine"), "{ip}");
    }
    // The limit for one address.
    for _ in 0..400 {
        half_open.push(from("127.0.0.1", running.address).await);
    }
    assert!(get(from("127.0.0.1", running.address).await).await.ends_with("fine"));
    // The newest still has its slot, the oldest has lost its own.
    let newest = half_open.pop().unwrap();
    assert!(get(newest).await.ends_with("fine"));
    let oldest = half_open.swap_remove(0);
    assert_eq!(timeout(QUICK, rest(oldest)).await.expect("closed"), "");
}

/// A client may end its own half once it has sent its request.
#[tokio::test]
async fn a_half_closed_client_gets_a_late_answer() {
    let slow = Router::new().fallback(async || {
        tokio::time::sleep(Duration::from_millis(200)).await;
        "fine"
    });
    let running = start(slow, settings()).await;
    let mut stream = from("127.0.0.1", running.address).await;
    stream.write_all(KEPT).await.unwrap();
    stream.shutdown().await.unwrap();
    assert!(timeout(QUICK, rest(stream)).await.expect("an answer").ends_with("fine"));
}

#[tokio::test]
async fn a_stop_does_not_wait_for_half_open_requests() {
    let mut running = start(fine(), settings()).await;
    let mut half_open = Vec::new();
    for _ in 0..20 {
        let mut stream = from("127.0.0.1", running.address).await;
        stream.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
        half_open.push(stream);
    }
    // Connections are accepted in order, so all earlier ones are accepted too.
    assert!(get(from("127.0.0.1", running.address).await).await.ends_with("fine"));
    running.stop.cancel();
    timeout(QUICK, running.server.join_next()).await.expect("the server ends").unwrap().unwrap();
    // A program that another test starts at this moment has the socket until it runs.
    until("the port to close", QUICK, async || TcpStream::connect(running.address).await.err()).await;
}

#[tokio::test]
async fn a_stop_waits_for_an_answer_but_not_for_ever() {
    for (stop_grace, is_answered) in [(LONG, true), (Duration::from_millis(100), false)] {
        let (begun, go) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
        let (counted, gate) = (Arc::clone(&begun), Arc::clone(&go));
        let router = Router::new().fallback(async move || {
            counted.add_permits(1);
            gate.acquire().await.unwrap().forget();
            "late"
        });
        let mut running = start(router, Settings { stop_grace, ..settings() }).await;
        let mut stream = from("127.0.0.1", running.address).await;
        stream.write_all(REQUEST).await.unwrap();
        timeout(QUICK, begun.acquire()).await.expect("the request arrives").unwrap().forget();
        running.stop.cancel();
        if is_answered {
            // The stop has been noticed once the port is closed.
            until("the port to close", QUICK, async || TcpStream::connect(running.address).await.err()).await;
            go.add_permits(1);
        }
        let answer = timeout(QUICK, rest(stream)).await.expect("an end");
        assert!(answer.ends_with("late") == is_answered && answer.is_empty() != is_answered, "{answer}");
        timeout(QUICK, running.server.join_next()).await.expect("the server ends").unwrap().unwrap();
    }
}

#[tokio::test]
async fn an_answer_under_way_is_not_cut_off_for_a_new_peer() {
    let limits = Limits { total: 4, reserved_for_host: 2, reserved_for_others: 0, per_peer: 1 };
    let (begun, go) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let (counted, gate) = (Arc::clone(&begun), Arc::clone(&go));
    let router = Router::new().fallback(async move || {
        counted.add_permits(1);
        gate.acquire().await.unwrap().forget();
        "done"
    });
    let running = start(router, Settings { limits, ..settings() }).await;
    let mut served = Vec::new();
    for ip in ["127.0.0.1", "127.0.0.1", "127.0.0.2", "127.0.0.2"] {
        let mut stream = from(ip, running.address).await;
        stream.write_all(REQUEST).await.unwrap();
        served.push(stream);
    }
    timeout(QUICK, begun.acquire_many(4)).await.unwrap().unwrap().forget();
    assert_eq!(get(from("127.0.0.3", running.address).await).await, "", "there is no slot");
    go.add_permits(5);
    for stream in served {
        assert!(timeout(QUICK, rest(stream)).await.unwrap().ends_with("done"));
    }
    assert!(get(from("127.0.0.3", running.address).await).await.ends_with("done"), "the slots are given back");
}

#[tokio::test]
async fn the_port_is_served_on_ipv4_and_ipv6() {
    let bound = bind(Address::Port(0));
    let Ok(Listener::Tcp(listener)) = &bound else { panic!("{bound:?}") };
    let port = listener.local_addr().unwrap().port();
    let (stop, mut server) = (CancellationToken::new(), JoinSet::new());
    server.spawn(run(bound, settings(), Audience::host_only(), fine().into(), Serving::default(), stop.clone()));
    for address in [format!("127.0.0.1:{port}"), format!("[::1]:{port}")] {
        assert!(get(TcpStream::connect(&address).await.unwrap()).await.ends_with("fine"), "{address}");
    }
}

/// The address of an abstract socket that no other test uses, and the name with which clients connect.
fn socket() -> (Address, String) {
    let name: &'static str = format!("ecs-agent/test-{}", uuid::Uuid::new_v4().simple()).leak();
    (Address::Socket(name), format!("\0{name}"))
}

#[tokio::test]
async fn a_socket_has_the_limits_of_a_port() {
    let (address, name) = socket();
    let settings = Settings { head_timeout: Duration::from_millis(1500), ..patient(address) };
    let (stop, mut server) = (CancellationToken::new(), JoinSet::new());
    let serving = Serving::default();
    server.spawn(run(bind(address), settings, Audience::host_only(), fine().into(), serving.clone(), stop.clone()));
    let mut half_open = Vec::new();
    for _ in 0..400 {
        let mut stream = UnixStream::connect(&name).await.unwrap();
        let _closed_already = stream.write_all(b"GET / HTTP/1.1\r\nHost: local").await;
        half_open.push(stream);
    }
    assert!(get(UnixStream::connect(&name).await.unwrap()).await.ends_with("fine"));
    let oldest = half_open.swap_remove(0);
    assert_eq!(timeout(QUICK, rest(oldest)).await.expect("closed to free its slot"), "");
    let newest = half_open.pop().unwrap();
    timeout(QUICK, rest(newest)).await.expect("closed after the head timeout");
    let _silent = UnixStream::connect(&name).await.unwrap();
    stop.cancel();
    assert_eq!(serving.closed_since(), None);
    timeout(QUICK, server.join_next()).await.expect("the server ends").unwrap().unwrap();
    assert!(serving.closed_since().is_some());
    // A program that another test starts at this moment has the socket until it runs.
    let gone = until("the socket to close", QUICK, async || UnixStream::connect(&name).await.err()).await;
    assert_eq!(gone.kind(), std::io::ErrorKind::ConnectionRefused);
}

#[tokio::test]
async fn a_name_that_is_taken_is_tried_again_until_it_is_free() {
    let (address, name) = socket();
    let other = bind(address).unwrap();
    let (stop, mut server) = (CancellationToken::new(), JoinSet::new());
    let first = bind(address);
    assert_eq!(first.as_ref().unwrap_err().kind(), std::io::ErrorKind::AddrInUse);
    let serving = Serving::default();
    server.spawn(run(first, patient(address), Audience::host_only(), fine().into(), serving.clone(), stop.clone()));
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(serving.closed_since().is_some());
    drop(other);
    // A program that another test starts at this moment has the old socket until it runs: a connection to it is accepted by nobody and ends
    // without an answer. The pauses between attempts to bind grow.
    let is_served = async || match UnixStream::connect(&name).await {
        Ok(stream) => get(stream).await.ends_with("fine").then_some(()),
        Err(_) => None,
    };
    until("the socket to be bound and served", QUICK, is_served).await;
    assert_eq!(serving.closed_since(), None);
}

/// Reads one answer, whose body is `fine`.
async fn answer(stream: &mut TcpStream) {
    let mut seen = Vec::new();
    while !seen.ends_with(b"fine") {
        seen.push(timeout(QUICK, stream.read_u8()).await.expect("quickly").expect("an answer"));
    }
}

#[tokio::test]
async fn an_idle_connection_gives_way_to_a_new_one_and_to_a_stop() {
    let limits = Limits { total: 2, reserved_for_host: 0, reserved_for_others: 0, per_peer: 2 };
    let mut running = start(fine(), Settings { limits, ..settings() }).await;
    let mut kept = Vec::new();
    for _ in 0..2 {
        let mut stream = from("127.0.0.1", running.address).await;
        stream.write_all(KEPT).await.unwrap();
        answer(&mut stream).await;
        kept.push(stream);
    }
    assert!(get(from("127.0.0.1", running.address).await).await.ends_with("fine"));
    assert_eq!(timeout(QUICK, rest(kept.remove(0))).await.expect("the oldest is closed"), "");
    kept[0].write_all(KEPT).await.unwrap();
    answer(&mut kept[0]).await;
    running.stop.cancel();
    timeout(QUICK, running.server.join_next()).await.expect("the server ends").unwrap().unwrap();
}
