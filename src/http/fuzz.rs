//! The fuzz target for whole requests: the bytes of a connection to the task metadata server.

use super::activity::Activity;
use super::listener::exchange;
use super::peer::{Peer, PeerLocation};
use super::task_metadata::{
    self, Audit, Credentials, FaultInjector, Metadata, PeerCheckMode, Place, Rates, Sources, TaskProtection, Tasks,
    Work,
};
use super::{Address, Answers};
use ecs_core::model::fault::{FaultError, FaultNetwork, FaultOperation, FaultStatus, Interfaces};
use ecs_core::model::protection::{ProtectionAnswer, ProtectionCall, ProtectionError};
use ecs_core::model::task::NetworkMode;
use ecs_core::model::usage::LastStatistics;
use ecs_core::model::view::{ContainerView, RoleView, TaskView, View};
use ecs_core::model::{CredentialsId, RoleKind, TaskArn};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// The id of the only container.
const CONTAINER: &str = "0123456789";
/// The id of its credentials, and their key.
const ROLE: &str = "abcdefghij";
const KEY: &str = "key-of-the-role";
const PEER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(172, 17, 0, 2)), 40_000);

/// Sends these bytes over a connection, and ends it.
///
/// # Panics
/// The server sends anything but answers, too many bytes, or a key to a client that has not sent the id of its credentials.
pub fn http_request(data: &[u8]) {
    let answer = SERVER.with(|server| server.exchange(data));
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1."), "no answer: {:?}", String::from_utf8_lossy(&answer));
    // Answers repeat parts of a request, at most with each byte as an escape.
    let lines = data.iter().filter(|byte| **byte == b'\n').count();
    assert!(answer.len() <= 2048 * (lines + 1) + 16 * data.len(), "{} bytes for {}", answer.len(), data.len());
    let has = |bytes: &[u8], text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
    if has(&answer, KEY) {
        let sent: Vec<u8> = percent_encoding::percent_decode(data).collect();
        assert!(has(&sent, ROLE), "a key without its id");
    }
}

thread_local! {
    static SERVER: Server = Server::new();
}

struct Server {
    runtime: Runtime,
    answers: Answers,
}

impl Server {
    fn new() -> Self {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        // The clock stands still while there is something to do, and no wait takes time.
        let runtime = builder.enable_time().start_paused(true).build().expect("a runtime");
        Self { runtime, answers: task_metadata::answers(sources()) }
    }

    /// Everything that the server sends until it ends the connection.
    fn exchange(&self, data: &[u8]) -> Vec<u8> {
        self.runtime.block_on(async {
            // Otherwise the limits on guesses would refuse most requests.
            tokio::time::advance(Duration::from_secs(60)).await;
            let (client, server) = tokio::io::duplex(4096);
            let settings = task_metadata::settings(Address::Port(0));
            let (activity, stop) = (Activity::new(), CancellationToken::new());
            let peer = (Peer::Address(PEER), PeerLocation::Bridge);
            let served = exchange(server, peer, self.answers.clone(), settings, activity, stop);
            let (mut reader, mut writer) = tokio::io::split(client);
            let sent = async {
                // The server may refuse the rest.
                let _ = writer.write_all(data).await;
                let _ = writer.shutdown().await;
            };
            let mut answer = Vec::new();
            let _ = tokio::join!(served, sent, reader.read_to_end(&mut answer));
            answer
        })
    }
}

/// One task with a role, and all work done at once.
fn sources() -> Sources {
    let container = ContainerView {
        endpoint_id: Some(CONTAINER.into()),
        runtime_id: Some("docker".into()),
        ..ContainerView::default()
    };
    let task = TaskView {
        arn: "arn:aws:ecs:us-west-2:123456789012:task/c/t".into(),
        roles: vec![RoleView { kind: RoleKind::Task, current: ROLE.into(), given: Vec::new() }],
        network: NetworkMode::Host,
        fault_injection: true,
        containers: vec![container],
        ..TaskView::default()
    };
    let view = View { tasks: vec![Arc::new(task)], ..View::default() };
    let metadata = Metadata {
        place: Place::default(),
        wall: Arc::new(|at| at),
        tags: Arc::new(|_| async { Ok(BTreeMap::new()) }.boxed()),
        stats: Arc::new(|_| LastStatistics::Waiting),
    };
    let credentials = |_: &CredentialsId| {
        Some(Credentials {
            role_arn: "role".to_owned(),
            access_key_id: "id".into(),
            secret_access_key: KEY.into(),
            session_token: "token".into(),
            expiration: String::new(),
        })
    };
    let done = Arc::new(Done);
    let work = Work { protection: done.clone(), faults: done };
    let audit = Audit { cluster: String::new(), container_instance: String::new(), sink: Some(Arc::new(assert_line)) };
    let rates = Rates { steady: 1_000_000, burst: 1_000_000 };
    let tasks = Tasks::new(watch::channel(Arc::new(view)).1);
    Sources::new(tasks, metadata, Arc::new(credentials), work, audit, rates, PeerCheckMode::Log)
}

/// A line of the audit log has ten columns and no id.
fn assert_line(line: String) {
    let outside_quotes: String = line.split('"').step_by(2).collect();
    assert_eq!(outside_quotes.split_whitespace().count(), 8, "{line}");
    assert_eq!(line.matches('"').count(), 4, "{line}");
    assert!(!line.chars().any(char::is_control), "{line}");
}

#[derive(Debug)]
struct Done;

impl TaskProtection for Done {
    fn call(
        &self,
        _task: TaskArn,
        _role: CredentialsId,
        _call: ProtectionCall,
    ) -> BoxFuture<'static, Result<ProtectionAnswer, ProtectionError>> {
        async { Ok(ProtectionAnswer::default()) }.boxed()
    }
}

impl FaultInjector for Done {
    fn host_interfaces(&self) -> std::io::Result<Interfaces> {
        Ok(Interfaces { names: vec!["eth0".to_owned()], ipv6_only: false })
    }

    fn carry_out(
        &self,
        _network: FaultNetwork,
        _operation: FaultOperation,
    ) -> BoxFuture<'static, Result<FaultStatus, FaultError>> {
        async { Ok(FaultStatus::Running) }.boxed()
    }
}
