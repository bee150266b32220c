//! Which answers count. Sockets of other users need other processes, and are tested in `tests/agent/port.rs`.

use super::*;
use crate::http::{Audience, Listener, Settings, serve};
use ecs_core::model::agent_health::{AgentHealth, Check, Subject};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, UnixListener};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// A limit that is far longer than a loaded machine needs.
const ENOUGH: Duration = Duration::from_secs(20);

/// A name for a socket, and a port on which no process listens, as before a registration.
struct Place {
    name: String,
    port: u16,
    _reserved: TcpSocket,
}

impl Place {
    fn new() -> Self {
        let reserved = TcpSocket::new_v4().unwrap();
        reserved.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let port = reserved.local_addr().unwrap().port();
        let name = format!("ecs-agent/test-{}", uuid::Uuid::new_v4().simple());
        Self { name, port, _reserved: reserved }
    }

    fn agent(&self) -> Agent<'_> {
        let own = rustix::process::geteuid().as_raw();
        Agent { host: "127.0.0.1", port: self.port, socket: &self.name, trusted: [0, own], limit: ENOUGH }
    }

    fn listen(&self) -> UnixListener {
        UnixListener::bind(format!("\0{}", self.name)).unwrap()
    }

    /// An agent's own server on the socket.
    fn serve(&self, wrong: Vec<Check>) -> JoinSet<()> {
        let health = AgentHealth { stage: "waits for Docker to answer".to_owned(), checks: wrong };
        let routes = introspection::health_router(Arc::new(move || health.clone()));
        let settings = Settings::new("test", crate::http::Address::Socket("test"));
        let (listener, stop) = (Listener::Unix(self.listen()), CancellationToken::new());
        let mut serving = JoinSet::new();
        serving.spawn(serve(listener, settings, Audience::host_only(), routes.into(), stop));
        serving
    }

    /// Another program on the socket. Returns the number of bytes that it receives.
    fn serve_text(&self, answer: &'static str) -> (JoinSet<()>, Arc<AtomicUsize>) {
        let (listener, received) = (self.listen(), Arc::new(AtomicUsize::new(0)));
        let (count, mut serving) = (received.clone(), JoinSet::new());
        serving.spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let head = stream.read(&mut [0; 4096]).await.unwrap_or_default();
                count.fetch_add(head, Ordering::SeqCst);
                let _closed_already = stream.write_all(answer.as_bytes()).await;
            }
        });
        (serving, received)
    }
}

async fn refused(agent: Agent<'_>) -> String {
    check(agent).await.expect_err("not healthy").message
}

#[test]
fn requests_have_a_host_header_that_the_agent_accepts() {
    for (host, url) in [
        ("agent.example.com", "http://agent.example.com:51678/v1/metadata"),
        ("10.0.0.1", "http://10.0.0.1:51678/v1/metadata"),
        ("fe80::1", "http://[fe80::1]:51678/v1/metadata"),
    ] {
        let request = Agent::on(host).request(reqwest::Method::HEAD, "/v1/metadata").unwrap().build().unwrap();
        assert_eq!((request.url().as_str(), &request.headers()["host"]), (url, &"localhost".parse().unwrap()));
    }
}

#[tokio::test]
async fn before_the_registration_the_socket_answers() {
    let place = Place::new();
    let _agent = place.serve(Vec::new());
    assert_eq!(check(place.agent()).await.unwrap(), "waits for Docker to answer");
    let ill = Place::new();
    let _agent = ill.serve(vec![Check::unhealthy(Subject::Docker, "no answer for 61 s".to_owned())]);
    assert_eq!(refused(ill.agent()).await, "not healthy: Docker: no answer for 61 s");
}

#[tokio::test]
async fn without_a_socket_no_agent_answers() {
    let place = Place::new();
    let text = refused(place.agent()).await;
    let expected = format!("not healthy: no agent answers here (port {} is closed, and none is starting)", place.port);
    assert!(text.starts_with(&expected) && text.contains("systemctl status ecs"), "{text}");
    assert!(!text.contains("error sending request") && !text.contains("socket"), "{text}");
    // The name is free as soon as its process has ended.
    drop(place.listen());
    assert_eq!(refused(place.agent()).await, text);
}

#[tokio::test]
async fn a_socket_of_another_user_gets_no_request_and_no_trust() {
    let place = Place::new();
    let healthy = "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{\"Agent\":\"ecs-agent\",\"Healthy\":true,\"Stage\":\"x\",\"Checks\":[]}";
    let (_other, received) = place.serve_text(healthy);
    let ours = rustix::process::geteuid().as_raw();
    let strangers = Agent { trusted: [ours + 1, ours + 2], ..place.agent() };
    let text = refused(strangers).await;
    let expected = format!(
        "@{} (for agents without the port): it belongs to user {ours}, who is neither root nor the user of this process",
        place.name
    );
    assert!(text.contains(&expected) && text.contains("does not count"), "{text}");
    assert_eq!(received.load(Ordering::SeqCst), 0);
    assert_eq!(check(place.agent()).await.unwrap(), "x", "the same answer from a trusted user");
    assert!(received.load(Ordering::SeqCst) > 0);
}

#[tokio::test]
async fn another_server_on_the_socket_is_no_healthy_agent() {
    for (answer, part) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK", "answered by something other than this agent (status 200)"),
        (
            "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
            "answered by something other than this agent (status 404)",
        ),
        ("SSH-2.0-OpenSSH_9.2\r\n", "nor on socket @ecs-agent/test-"),
        ("", "nor on socket @ecs-agent/test-"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{\"Agent\":", "the answer is cut off"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n", "the answer is cut off"),
    ] {
        let place = Place::new();
        let _other = place.serve_text(answer);
        let text = refused(place.agent()).await;
        assert!(text.starts_with("not healthy: ") && text.contains(part), "{answer}: {text}");
    }
}

#[tokio::test]
async fn a_silent_socket_is_not_waited_for_beyond_the_limit() {
    let short = Duration::from_millis(300);
    let place = Place::new();
    let _never_accepts = place.listen();
    let text = refused(Agent { limit: short, ..place.agent() }).await;
    assert!(text.contains("no answer within 0.3 s"), "{text}");

    // Nor one where a connection has to wait for its place.
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with};
    let open = || socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::NONBLOCK, None).unwrap();
    let (full, listener) = (Place::new(), open());
    let address = SocketAddrUnix::new_abstract_name(full.name.as_bytes()).unwrap();
    bind(&listener, &address).unwrap();
    listen(&listener, 0).unwrap();
    let waiting: Vec<_> = (0..8).map(|_| open()).collect();
    let no_room = waiting.iter().filter(|socket| connect(socket, &address).is_err()).count();
    assert!(no_room > 0, "the kernel has no room for one more");
    let text = refused(Agent { limit: short, ..full.agent() }).await;
    assert!(text.contains("no answer within 0.3 s"), "{text}");
}

#[tokio::test]
async fn the_socket_is_not_used_for_another_host() {
    let place = Place::new();
    let (_agent, received) = place.serve_text("HTTP/1.1 200 OK\r\n\r\n");
    // No connection can be made to this address.
    let text = refused(Agent { host: "255.255.255.255", ..place.agent() }).await;
    assert!(text.contains("no agent answers on port") && !text.contains("socket @"), "{text}");
    assert!(text.contains("of 255.255.255.255 (ECS_AGENT_HEALTHCHECK_HOST): "), "{text}");
    assert!(!text.contains("error sending request"), "the cause alone: {text}");
    assert_eq!(received.load(Ordering::SeqCst), 0);
    for (host, is_here) in [
        ("localhost", true),
        ("LOCALHOST.", true),
        ("127.0.0.1", true),
        ("127.8.9.1", true),
        ("::1", true),
        ("[::1]", true),
        ("::ffff:127.0.0.1", true),
        ("0.0.0.0", true),
        ("10.0.0.1", false),
        ("fe80::1", false),
        ("localhost.example.com", false),
        ("127.0.0.1.example.com", false),
        ("", false),
    ] {
        assert_eq!(is_this_machine(host), is_here, "{host}");
    }
}

/// A server on a port of its own, which gives this text to every request; `None`: it never answers.
async fn other_on_port(answer: Option<&'static str>) -> (JoinSet<()>, u16) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (port, mut other) = (listener.local_addr().unwrap().port(), JoinSet::new());
    other.spawn(async move {
        let mut held = Vec::new();
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _head = stream.read(&mut [0; 4096]).await.unwrap();
            if let Some(answer) = answer {
                let _closed_already = stream.write_all(answer.as_bytes()).await;
            } else {
                held.push(stream);
            }
        }
    });
    (other, port)
}

#[tokio::test]
async fn an_agent_without_its_port_is_found_on_its_socket() {
    let ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nOK";
    for (answer, note) in [
        (Some(ok), "is taken by another program"),
        (Some("SSH-2.0-OpenSSH_9.2\r\n"), "gives no answer: another program may have it"),
        (None, "gives no answer: another program may have it"),
    ] {
        let place = Place::new();
        let (_other, port) = other_on_port(answer).await;
        let limit = if answer.is_some() { ENOUGH } else { Duration::from_secs(6) };
        let agent = Agent { port, limit, ..place.agent() };
        let text = refused(agent).await;
        assert!(text.starts_with("not healthy: ") && text.contains(&port.to_string()), "no agent at all: {text}");
        let _agent = place.serve(Vec::new());
        let text = check(agent).await.unwrap();
        assert_eq!(text, format!("waits for Docker to answer; port {port} {note}"));
    }
    let ill = Place::new();
    let (_other, port) = other_on_port(Some(ok)).await;
    let _agent = ill.serve(vec![Check::unhealthy(Subject::Docker, "no answer for 61 s".to_owned())]);
    let text = refused(Agent { port, ..ill.agent() }).await;
    assert_eq!(text, format!("not healthy: Docker: no answer for 61 s; port {port} is taken by another program"));
}

#[tokio::test]
async fn the_check_of_the_go_agent_accepts_any_answer() {
    let place = Place::new();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let agent = Agent { port: listener.local_addr().unwrap().port(), ..place.agent() };
    let answers = ["200 OK", "301 Moved\r\nLocation: http://127.0.0.1:1/", "404 Not Found", "500 Broken"];
    let mut server = JoinSet::new();
    server.spawn(async move {
        for answer in answers {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _head = stream.read(&mut [0; 4096]).await.unwrap();
            let text = format!("HTTP/1.1 {answer}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            stream.write_all(text.as_bytes()).await.unwrap();
        }
    });
    for answer in answers {
        let text = any_answer(agent).await.unwrap();
        assert!(text.ends_with(&format!("status {}", &answer[..3])), "{text}");
    }
    server.join_all().await;
    let error = any_answer(agent).await.unwrap_err();
    assert!(error.message.contains("no agent answers on port"), "{error}");
}

#[tokio::test]
async fn a_host_with_a_scheme_or_a_port_is_named_as_the_error() {
    for host in ["http://localhost", "localhost:51678", "[::1]:51678", "me:hunter2@localhost", "\"localhost\"", ""] {
        let expected =
            "not healthy: ECS_AGENT_HEALTHCHECK_HOST: expected a host name or address, without scheme and port";
        assert_eq!(healthcheck(host).await.unwrap_err().message, expected, "{host}");
        assert_eq!(healthcheck_http(host).await.unwrap_err().message, expected, "{host}");
    }
}
