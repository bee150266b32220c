//! Tests of the session, with a TCS on loopback and, for its timers, one in memory in paused time.

use super::*;
use crate::aws::client::clock::ServiceClock;
use crate::aws::client::proxy::ProxySettings;
use crate::tcs::Outgoing;
use crate::tcs::health::{ContainerHealth, TaskHealth};
use crate::tcs::status::{Condition, InstanceStatus};
use crate::websocket::session::keep_connected;
use crate::websocket::tests::fake::{Peer, Refusal, Server, keys};
use crate::websocket::{Contact, Exchange};
use futures_util::{FutureExt, SinkExt, StreamExt};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use tokio::io::{AsyncReadExt, DuplexStream, duplex};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

mod hostile;

const ARN: &str = "arn:aws:ecs:us-west-2:123456789012:container-instance/judge/0123456789abcdef0123456789abcdef";
const LIMIT: Duration = Duration::from_secs(10);

fn golden(name: &str) -> Value {
    let path = format!("{}/tests/golden/{name}.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn settings() -> Settings {
    let quick = Shape { initial: Duration::from_millis(10), max: Duration::from_millis(20), factor: 1.5, jitter: 0.2 };
    Settings {
        cluster: "judge".to_owned(),
        container_instance: ARN.to_owned(),
        agent_version: "1.105.1".to_owned(),
        agent_hash: "a8b3e7d3".to_owned(),
        docker_version: Some("20.10.24+dfsg1".to_owned()),
        connection: session::Settings {
            websocket: crate::websocket::Settings {
                region: "us-west-2".to_owned(),
                proxy: ProxySettings::default(),
                signing: Default::default(),
                accept_insecure_cert: false,
            },
            credentials: keys(),
            timing: Timing { backoff: quick, ..timing() },
            contact: Contact::default(),
        },
    }
}

struct Running {
    incoming: mpsc::Receiver<Incoming>,
    outgoing: mpsc::Sender<Dated>,
    cancel: CancellationToken,
    session: JoinSet<()>,
}

fn start(settings: Settings, port: u16) -> Running {
    let (inbox, incoming) = mpsc::channel(1);
    let (outgoing, outbox) = mpsc::channel(4);
    let (cancel, mut session) = (CancellationToken::new(), JoinSet::new());
    let discover = move || std::future::ready(Ok(format!("http://127.0.0.1:{port}/tcs")));
    session.spawn(run(settings, discover, inbox, outbox, cancel.clone()));
    Running { incoming, outgoing, cancel, session }
}

/// The lines before the next message of the agent, and the message.
async fn receive(peer: &mut Peer) -> (Vec<String>, Value) {
    let message = timeout(LIMIT, peer.socket.next()).await.expect("nothing was sent").unwrap().unwrap();
    let (head, body) = message.to_text().unwrap().split_once("\r\n\r\n").unwrap();
    (head.split("\r\n").map(str::to_owned).collect(), serde_json::from_str(body).unwrap())
}

#[tokio::test]
async fn the_connect_request_is_the_recorded_one() {
    let mut server = Server::start().await;
    let _running = start(settings(), server.port);
    let golden = golden("tcs_connect");
    let peer = server.next().await;
    let url = Url::parse(&format!("http://x{}", peer.uri)).unwrap();
    assert_eq!(url.path(), golden["path"]);
    let query: BTreeMap<String, String> = url.query_pairs().into_owned().collect();
    assert_eq!(json!(query), golden["query"]);
    assert!(peer.uri.contains("dockerVersion=20.10.24%2Bdfsg1"), "{}", peer.uri);
    for name in ["Connection", "Upgrade", "Sec-WebSocket-Version"] {
        assert_eq!(peer.header(name), golden["headers"][name].as_str().unwrap(), "{name}");
    }
    let without_docker = Settings { docker_version: None, ..settings() };
    let url = connect_url(&without_docker, "https://ecs-t-1.us-west-2.amazonaws.com").unwrap();
    let arn = ARN.replace(':', "%3A").replace('/', "%2F");
    let expected = format!(
        "https://ecs-t-1.us-west-2.amazonaws.com/ws?agentHash=a8b3e7d3&agentVersion=1.105.1&cluster=judge&containerInstance={arn}"
    );
    assert_eq!(url.as_str(), expected);
}

#[tokio::test]
async fn a_message_is_signed_for_its_own_connection() {
    let mut server = Server::start().await;
    let mut running = start(settings(), server.port);
    let mut peer = server.next().await;
    assert_eq!(timeout(LIMIT, running.incoming.recv()).await.unwrap(), Some(Incoming::Connected));
    let mut signatures = Vec::new();
    for _ in 0..2 {
        running.outgoing.send(Outgoing::Idle.into()).await.unwrap();
        let (lines, message) = receive(&mut peer).await;
        let names: Vec<&str> = lines.iter().map(|line| line.split_once(": ").unwrap().0).collect();
        assert_eq!(names, ["Authorization", "Host", "X-Amz-Date", "X-Amz-Security-Token"]);
        assert_eq!(lines[1], format!("Host: 127.0.0.1:{}", server.port));
        assert_eq!(
            (&message["type"], &message["message"]["metadata"]["idle"]),
            (&json!("PublishMetricsRequest"), &json!(true))
        );
        let seconds = message["message"]["timestamp"].as_f64().unwrap();
        assert!((timestamp(SystemTime::now()).as_secs_f64() - seconds).abs() < 60.0, "{seconds}");
        signatures.push(lines[0].clone());
    }
    assert_ne!(signatures[0], signatures[1], "the id of the message is signed too");
    running.cancel.cancel();
    timeout(LIMIT, running.session.join_next()).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn messages_wait_for_a_connection_in_order() {
    let status = |changed| {
        let (condition, previous_check) = (Condition::Ok, Timestamp(1_000));
        Outgoing::Status(InstanceStatus { condition, previous_check, changed: Timestamp(changed) })
    };
    let mut server = Server::start().await;
    let running = start(settings(), server.port);
    let peer = server.next().await;
    drop(peer);
    for changed in [2_000, 3_000, 4_000] {
        tokio::time::sleep(Duration::from_millis(20)).await;
        running.outgoing.send(status(changed).into()).await.unwrap();
    }
    // Some may have been written to the dead connection before its end was noticed: the last one was not.
    let mut seen = Vec::new();
    while seen.last() != Some(&json!(4)) {
        let mut peer = server.next().await;
        while let Ok(Some(Ok(Message::Text(text)))) = timeout(Duration::from_secs(1), peer.socket.next()).await {
            let (_, body) = text.as_str().split_once("\r\n\r\n").unwrap();
            let body: Value = serde_json::from_str(body).unwrap();
            seen.push(body["message"]["statuses"][0]["lastStatusChange"].clone());
            if seen.last() == Some(&json!(4)) {
                break;
            }
        }
    }
    let in_order: Vec<_> = seen.iter().map(|value| value.as_i64().unwrap()).collect();
    assert!(in_order.is_sorted(), "{in_order:?}");
}

#[tokio::test]
async fn without_credentials_a_message_is_dropped() {
    use aws_credential_types::provider::SharedCredentialsProvider;
    use aws_credential_types::provider::error::CredentialsError;
    use aws_credential_types::provider::future::ProvideCredentials as Provided;
    use std::sync::atomic::{AtomicU32, Ordering};

    /// Fails at the second question.
    #[derive(Debug)]
    struct Shaky(AtomicU32);
    impl aws_credential_types::provider::ProvideCredentials for Shaky {
        fn provide_credentials<'a>(&'a self) -> Provided<'a>
        where
            Self: 'a,
        {
            let count = self.0.fetch_add(1, Ordering::SeqCst);
            Provided::new(async move {
                match count {
                    1 => Err(CredentialsError::not_loaded("gone for a moment")),
                    _ => aws_credential_types::provider::ProvideCredentials::provide_credentials(&keys()).await,
                }
            })
        }
    }

    let mut server = Server::start().await;
    let mut shaky = settings();
    shaky.connection.credentials = SharedCredentialsProvider::new(Shaky(AtomicU32::new(0)));
    let running = start(shaky, server.port);
    let mut peer = server.next().await;
    running.outgoing.send(Outgoing::Metrics(Vec::new()).into()).await.unwrap();
    running.outgoing.send(Outgoing::Idle.into()).await.unwrap();
    let (_, message) = receive(&mut peer).await;
    assert_eq!(message["message"]["metadata"]["idle"], true);
    assert!(timeout(Duration::from_millis(200), peer.socket.next()).await.is_err(), "only one message comes");
}

#[tokio::test]
async fn a_refused_connection_is_tried_again() {
    for body in [r#"{"InactiveInstanceException":"gone"}"#, "<html>sign in</html>", r#"{"ThrottlingException":"slow"}"#]
    {
        let server = Server::refusing(Refusal { status: 400, body: body.to_owned() }).await;
        let impatient = settings();
        let contact = impatient.connection.contact.clone();
        let mut running = start(impatient, server.port);
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(contact.seen().last_message, None, "{body}");
        assert!(running.session.try_join_next().is_none(), "the session goes on: {body}");
    }
}

/// A session whose connections are in memory, and the peer's ends of them, each with the time of its connection.
struct InMemory {
    accepted: mpsc::UnboundedReceiver<(DuplexStream, Instant)>,
    contact: Contact,
    clock: ServiceClock,
    outgoing: mpsc::Sender<Dated>,
    _incoming: mpsc::Receiver<Incoming>,
    _session: JoinSet<()>,
}

/// The messages of TCS on a connection in memory.
fn tcs() -> Tcs {
    let place = Place { cluster: "c".to_owned(), container_instance: "i".to_owned() };
    let address = Arc::new(Mutex::new(Some(Url::parse("http://127.0.0.1/tcs/ws").unwrap())));
    Tcs { place, connection: settings().connection, address, is_unsigned: Arc::default() }
}

fn in_memory() -> InMemory {
    let (inbox, incoming) = mpsc::channel(64);
    let (outgoing, outbox) = mpsc::channel(4);
    let (accept, accepted) = mpsc::unbounded_channel();
    let contact = Contact::default();
    let tcs = tcs();
    let clock = tcs.connection.websocket.signing.clock().clone();
    let exchange = Exchange::new(tcs, inbox, outbox, CancellationToken::new(), contact.clone());
    let mut session = JoinSet::new();
    session.spawn(async move {
        let connect = |_first, _number| async {
            let (ours, line) = duplex(64 * 1024);
            accept.send((line, Instant::now())).unwrap();
            Ok(crate::websocket::over(ours).await)
        };
        keep_connected(timing(), connect, exchange).await;
    });
    InMemory { accepted, contact, clock, outgoing, _incoming: incoming, _session: session }
}

#[tokio::test(start_paused = true)]
async fn a_silent_tcs_is_closed_and_connected_again_at_once() {
    let mut rig = in_memory();
    for text in [
        r#"{"type":"ServerException","message":{"message":"no"}}"#,
        r#"{"type":"StopTelemetrySessionMessage","message":{"message":"stop"}}"#,
        "nonsense",
    ] {
        let (line, since) = rig.accepted.recv().await.unwrap();
        let mut socket = WebSocketStream::from_raw_socket(line, Role::Server, None).await;
        let frame = loop {
            tokio::select! {
                // Complaints and nonsense come all the time, but do not count.
                () = tokio::time::sleep(Duration::from_secs(7)) => {
                    assert_eq!(rig.contact.seen().last_message, Some(since), "only the connection counts: {text}");
                    socket.send(Message::text(text)).await.unwrap();
                }
                received = socket.next() => if let Message::Close(frame) = received.unwrap().unwrap() {
                    break frame.unwrap();
                }
            }
        };
        assert_eq!((u16::from(frame.code), frame.reason.as_str()), (1000, "ConnectionExpired: Reconnect to continue"));
        let lasted = since.elapsed();
        assert!(lasted >= Duration::from_secs(60) && lasted <= Duration::from_secs(121), "{text}: {lasted:?}");
    }
    let before = Instant::now();
    let (_line, at) = rig.accepted.recv().await.unwrap();
    assert!(at <= before + Duration::from_secs(2), "{:?}", at - before);
}

#[tokio::test(start_paused = true)]
async fn acknowledgements_keep_a_connection_for_half_an_hour() {
    let mut rig = in_memory();
    let (line, since) = rig.accepted.recv().await.unwrap();
    let mut socket = WebSocketStream::from_raw_socket(line, Role::Server, None).await;
    let kinds = ["AckPublishMetric", "AckPublishHealth", "AckPublishInstanceStatus", "HeartbeatMessage"];
    for kind in kinds.iter().cycle() {
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(55)) => {
                let text = json!({"type": kind, "message": {"message": "ok"}}).to_string();
                socket.send(Message::text(text)).await.unwrap();
            }
            received = socket.next() => if matches!(received, Some(Ok(Message::Close(_)))) { break },
        }
    }
    let age = since.elapsed();
    assert!(age >= Duration::from_secs(30 * 60) && age <= Duration::from_secs(35 * 60 + 1), "{age:?}");
    assert!(rig.contact.seen().last_message > Some(since + Duration::from_secs(29 * 60)));
}

#[test]
fn pauses_are_those_of_the_go_agent() {
    let timing = timing();
    let pauses: Vec<u64> =
        (0..8).map(|attempt| Shape { jitter: 0.0, ..timing.backoff }.delay(attempt).as_secs()).collect();
    assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
    assert_eq!((timing.inactivity.0.as_secs(), timing.inactivity.1.as_secs()), (60, 60));
    assert_eq!((timing.lifetime.0.as_secs(), timing.lifetime.1.as_secs()), (1800, 300));
}

/// The next message of the agent on a connection in memory.
async fn next_text(socket: &mut WebSocketStream<DuplexStream>) -> Value {
    let message = timeout(LIMIT, socket.next()).await.expect("nothing was sent").unwrap().unwrap();
    serde_json::from_str(message.to_text().unwrap().split_once("\r\n\r\n").unwrap().1).unwrap()
}

/// The number of whole frames that are in the buffers of the connection, which is then cut. Each has between 126 and 65,535 bytes.
fn whole_frames(mut line: DuplexStream) -> u64 {
    let (mut bytes, mut part) = (Vec::new(), [0; 4096]);
    while let Some(Ok(count)) = line.read(&mut part).now_or_never() {
        bytes.extend_from_slice(&part[..count]);
    }
    let (mut rest, mut count) = (&bytes[..], 0);
    while let [_, _, high, low, ..] = *rest {
        // The head, the length, the key of the mask.
        let Some(after) = rest.get(8 + usize::from(u16::from_be_bytes([high, low]))..) else { break };
        (rest, count) = (after, count + 1);
    }
    count
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_takes_nothing_loses_one_message() {
    let status = |changed| {
        let (condition, previous_check) = (Condition::Ok, Timestamp(1_000));
        Outgoing::Status(InstanceStatus { condition, previous_check, changed: Timestamp(changed * 1000) })
    };
    let mut rig = in_memory();
    let (line, _) = rig.accepted.recv().await.unwrap();
    // Nobody reads on the first connection. What fits into its buffers counts as sent.
    let mut sent: u64 = 0;
    while timeout(Duration::from_secs(1), rig.outgoing.reserve()).await.is_ok() {
        sent += 1;
        rig.outgoing.try_send(status(sent).into()).unwrap();
        assert!(sent < 1000, "the queue is bounded");
    }
    let written = whole_frames(line);
    let (line, _) = rig.accepted.recv().await.unwrap();
    let mut socket = WebSocketStream::from_raw_socket(line, Role::Server, None).await;
    let first = next_text(&mut socket).await["message"]["statuses"][0]["lastStatusChange"].as_u64().unwrap();
    assert_eq!(first, written + 2, "of {sent}, one is lost: the one that was being written");
}

#[tokio::test(start_paused = true)]
async fn messages_have_the_time_of_their_data_by_the_clock_of_aws() {
    let mut rig = in_memory();
    let hour = 3600.0;
    rig.clock.learn(SystemTime::now(), 403, Some(&crate::aws::client::clock::tests::http_date(3600)));
    let (line, _) = rig.accepted.recv().await.unwrap();
    let mut socket = WebSocketStream::from_raw_socket(line, Role::Server, None).await;
    let containers = vec![ContainerHealth {
        name: "c".into(),
        health: ecs_core::model::Health::Healthy,
        since: Some(Timestamp(5_000)),
    }];
    let (family, version) = ("f".to_owned(), "1".to_owned());
    let health = Outgoing::Health(vec![TaskHealth { arn: "a".into(), family, version, containers }]);
    let status =
        InstanceStatus { condition: Condition::Ok, previous_check: Timestamp(6_000), changed: Timestamp(7_000) };
    for (outgoing, age) in [(health, 0), (Outgoing::Status(status), 100), (Outgoing::Idle, 279)] {
        let at = Instant::now() - Duration::from_secs(age);
        let expected = timestamp(SystemTime::now()).as_secs_f64() + hour - age as f64;
        rig.outgoing.send(Dated { at, outgoing }).await.unwrap();
        let message = next_text(&mut socket).await["message"].take();
        let found = message["timestamp"].as_f64().unwrap();
        assert!((found - expected).abs() < 30.0, "{age}: {found}, {expected}");
        let moments = ["/tasks/0/containers/0/statusSince", "/statuses/0/lastUpdated", "/statuses/0/lastStatusChange"];
        for (pointer, seconds) in moments.iter().zip([5.0, 6.0, 7.0]) {
            let off = message.pointer(pointer).map(|moment| moment.as_f64().unwrap() - hour - seconds);
            assert!(off.is_none_or(|off| off.abs() <= 2.0), "{message}");
        }
    }
    let too_old = Dated { at: Instant::now() - Duration::from_secs(281), outgoing: Outgoing::Status(status) };
    rig.outgoing.send(too_old).await.unwrap();
    rig.outgoing.send(Outgoing::Idle.into()).await.unwrap();
    assert_eq!(next_text(&mut socket).await["message"]["metadata"]["idle"], true);
}
