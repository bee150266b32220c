//! Tests of the session, and through it of [`crate::websocket`].

mod cuts;
mod flow;
mod peer;
mod timers;

use super::*;
use crate::aws::client::proxy::ProxySettings;
use crate::backoff::Shape;
use crate::websocket::tests::fake::{Peer, Refusal, Server, keys};
use crate::websocket::{Contact, Exchange, MAX_WAITING, Timing, session};
use ecs_core::model::TaskSpec;
use ecs_core::model::{Ack, CredentialsAck};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Message;

const ARN: &str = "arn:aws:ecs:us-west-2:123456789012:container-instance/judge/0123456789abcdef0123456789abcdef";
const LIMIT: Duration = Duration::from_secs(10);

fn golden(name: &str) -> Value {
    let path = format!("{}/tests/golden/{name}.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

pub(super) fn settings() -> Settings {
    let quick = Shape { initial: Duration::from_millis(10), max: Duration::from_millis(20), factor: 1.5, jitter: 0.2 };
    Settings {
        cluster: "judge".to_owned(),
        container_instance: ARN.to_owned(),
        agent_version: "1.105.1".to_owned(),
        agent_hash: "a8b3e7d3".to_owned(),
        docker_version: Some("20.10.24+dfsg1".to_owned()),
        host: HostFacts::default(),
        connection: session::Settings {
            websocket: crate::websocket::Settings {
                region: "us-west-2".to_owned(),
                proxy: ProxySettings::default(),
                signing: Default::default(),
                accept_insecure_cert: false,
            },
            credentials: keys(),
            timing: Timing { backoff: quick, ..Timing::default() },
            contact: Contact::default(),
        },
    }
}

pub(super) struct Running {
    pub(super) incoming: mpsc::Receiver<Incoming>,
    pub(super) outgoing: mpsc::Sender<Outgoing>,
    pub(super) cancel: CancellationToken,
    pub(super) task: JoinSet<()>,
}

pub(super) fn start(settings: Settings, port: u16) -> Running {
    let (inbox, incoming) = mpsc::channel(1);
    let (outgoing, outbox) = mpsc::channel(4);
    let cancel = CancellationToken::new();
    let mut task = JoinSet::new();
    let token = cancel.clone();
    let discover = move || std::future::ready(Ok(format!("http://127.0.0.1:{port}/acs")));
    task.spawn(run(settings, discover, inbox, outbox, token));
    Running { incoming, outgoing, cancel, task }
}

impl Running {
    async fn next(&mut self) -> Incoming {
        tokio::time::timeout(LIMIT, self.incoming.recv())
            .await
            .expect("no message came")
            .expect("the session has ended")
    }
}

async fn send(peer: &mut Peer, message: &Value) {
    peer.socket.send(Message::text(message.to_string())).await.unwrap();
}

async fn receive(peer: &mut Peer) -> Value {
    let message = tokio::time::timeout(LIMIT, peer.socket.next()).await.expect("nothing was sent").unwrap().unwrap();
    serde_json::from_str(message.to_text().unwrap()).unwrap()
}

#[tokio::test]
async fn the_connect_request_is_the_recorded_one() {
    let mut server = Server::start().await;
    let _running = start(settings(), server.port);
    let golden = golden("acs_connect");
    for first in [true, false] {
        let mut peer = server.next().await;
        let url = Url::parse(&format!("http://x{}", peer.uri)).unwrap();
        assert_eq!(url.path(), golden["path"]);
        let mut query: BTreeMap<String, String> = url.query_pairs().into_owned().collect();
        if !first {
            assert_eq!(query.insert("sendCredentials".to_owned(), "true".to_owned()).as_deref(), Some("false"));
        }
        assert_eq!(json!(query), golden["query"]);
        assert!(peer.uri.contains("dockerVersion=DockerVersion%3A+20.10.24%2Bdfsg1"), "{}", peer.uri);
        for name in ["Connection", "Upgrade", "Sec-WebSocket-Version"] {
            assert_eq!(peer.header(name), golden["headers"][name].as_str().unwrap(), "{name}");
        }
        // The recorded `User-Agent: Go-http-client/1.1` is Go's default; we send none.
        assert_eq!(peer.header("user-agent"), "");
        peer.socket.close(None).await.unwrap();
    }
}

#[tokio::test]
async fn heartbeats_are_answered_while_the_agent_takes_no_messages() {
    let mut server = Server::start().await;
    let running = start(settings(), server.port);
    let mut peer = server.next().await;
    let manifest = json!({"type": "TaskManifestMessage", "message": {"messageId": "m", "timeline": 1, "tasks": []}});
    for _ in 0..MAX_WAITING / 2 {
        send(&mut peer, &manifest).await;
    }
    send(&mut peer, &json!({"type": "Nonsense"})).await;
    peer.socket.send(Message::text("{not json")).await.unwrap();
    send(&mut peer, &json!({"type": "HeartbeatMessage", "message": {"messageId": "hb-1", "healthy": true}})).await;
    assert_eq!(
        receive(&mut peer).await,
        json!({"type": "HeartbeatAckRequest", "message": golden("acs_heartbeat_ack")})
    );
    let nack = golden("acs_update_nack");
    let update = json!({
        "clusterArn": nack["message"]["cluster"], "containerInstanceArn": nack["message"]["containerInstance"],
        "messageId": "up-1", "updateInfo": {"location": "x", "signature": "y"}
    });
    send(&mut peer, &json!({"type": "PerformUpdateMessage", "message": update})).await;
    assert_eq!(receive(&mut peer).await, nack);
    drop(running);
}

#[tokio::test]
async fn acs_gets_the_recorded_answers() {
    let mut server = Server::start().await;
    let mut running = start(settings(), server.port);
    let mut peer = server.next().await;
    assert_eq!(running.next().await, Incoming::Connected); // answers before this moment would be dropped
    let recorded = golden("acs_payload_acks");
    let cluster = recorded[1]["message"]["cluster"].as_str().unwrap().to_owned();
    let message_id = recorded[1]["message"]["messageId"].as_str().unwrap().to_owned();
    let credentials = [0, 2].map(|index| {
        let ack = &recorded[index]["message"];
        (ack["credentialsId"].as_str().unwrap().into(), ack["expiration"].as_str().unwrap().to_owned())
    });
    let ack = Ack {
        message_id,
        cluster: cluster.clone(),
        container_instance: ARN.to_owned(),
        credentials: credentials.to_vec(),
    };
    running.outgoing.send(Outgoing::Ack(ack)).await.unwrap();
    let mut received = Vec::new();
    for _ in 0..3 {
        received.push(receive(&mut peer).await);
    }
    // The recorded order is that of three goroutines; the protocol does not define one.
    for expected in recorded.as_array().unwrap() {
        assert!(received.contains(expected), "{expected}");
    }
    let recorded = golden("acs_task_manifest_answer");
    let candidate = recorded[1]["message"]["stopCandidates"][0]["taskArn"].as_str().unwrap().into();
    let question = Outgoing::StopVerification { message_id: "man-1".to_owned(), cluster, candidates: vec![candidate] };
    running.outgoing.send(question).await.unwrap();
    assert_eq!(receive(&mut peer).await, recorded[1]);
    let recorded = golden("acs_credentials_ack");
    let text = |name: &str| recorded[name].as_str().unwrap().to_owned();
    let (message_id, id, expiration) = (text("messageId"), text("credentialsId").into(), text("expiration"));
    let ack = Outgoing::CredentialsAck(CredentialsAck { message_id, id, expiration });
    running.outgoing.send(ack).await.unwrap();
    assert_eq!(receive(&mut peer).await["message"], recorded);
}

#[tokio::test]
async fn an_old_connection_gets_a_close_frame_and_a_silent_one_none() {
    let mut server = Server::start().await;
    let mut old = settings();
    old.connection.timing.lifetime = (Duration::from_millis(50), Duration::ZERO);
    let _running = start(old, server.port);
    let mut peer = server.next().await;
    let closed = tokio::time::timeout(LIMIT, peer.socket.next()).await.unwrap().unwrap().unwrap();
    let Message::Close(Some(frame)) = closed else { panic!("{closed:?}") };
    assert_eq!((u16::from(frame.code), frame.reason.as_str()), (1000, "ConnectionExpired: Reconnect to continue"));

    let mut server = Server::start().await;
    let mut silent = settings();
    silent.connection.timing.inactivity = (Duration::from_millis(50), Duration::ZERO);
    let _running = start(silent, server.port);
    let mut peer = server.next().await;
    assert!(!matches!(tokio::time::timeout(LIMIT, peer.socket.next()).await.unwrap(), Some(Ok(_))));
    server.next().await;
}

#[tokio::test]
async fn an_inactive_instance_is_reported_as_deregistered() {
    let body = r#"{"InactiveInstanceException":"gone"}"#.to_owned();
    let server = Server::refusing(Refusal { status: 400, body }).await;
    let mut running = start(settings(), server.port);
    assert_eq!(running.next().await, Incoming::Deregistered);
}

#[tokio::test]
async fn an_inactive_instance_without_endpoint_is_deregistered() {
    let (inbox, mut incoming) = mpsc::channel(1);
    let (_outgoing, outbox) = mpsc::channel(1);
    let discover = || std::future::ready(Err(EndpointError::InactiveInstance("gone".to_owned())));
    let mut session = JoinSet::new();
    session.spawn(run(settings(), discover, inbox, outbox, CancellationToken::new()));
    let first = tokio::time::timeout(LIMIT, incoming.recv()).await.expect("nothing came");
    assert_eq!(first, Some(Incoming::Deregistered));
}

#[tokio::test]
async fn cancelling_ends_the_session_with_a_close_frame() {
    let mut server = Server::start().await;
    let mut running = start(settings(), server.port);
    let mut peer = server.next().await;
    assert_eq!(running.next().await, Incoming::Connected);
    running.cancel.cancel();
    assert!(matches!(tokio::time::timeout(LIMIT, peer.socket.next()).await.unwrap(), Some(Ok(Message::Close(_)))));
    tokio::time::timeout(LIMIT, running.task.join_next()).await.unwrap().unwrap().unwrap();
}

#[test]
fn a_short_payload_with_many_containers_fills_the_queue() {
    let (inbox, _agent) = mpsc::channel(1);
    let (_core, outbox) = mpsc::channel(1);
    let mut exchange =
        Exchange::new(Acs { host: HostFacts::default() }, inbox, outbox, CancellationToken::new(), Contact::default());
    let spec = TaskSpec { containers: vec![ContainerSpec::default(); 5_000], ..TaskSpec::default() };
    let ack = Ack {
        message_id: String::new(),
        cluster: String::new(),
        container_instance: String::new(),
        credentials: Vec::new(),
    };
    let tasks = vec![ReceivedTask::Run(Box::new(spec))];
    let payload = Incoming::Payload { tasks, credentials: Vec::new(), ack, seq_num: 0, intact: true };
    let mut count = 0;
    while exchange.has_room() {
        exchange.push(payload.clone(), 100);
        count += 1;
    }
    assert!((1..5).contains(&count), "{count} messages with thousands of containers are queued");
}
