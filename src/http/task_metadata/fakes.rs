//! For tests: sources of answers whose work is scripted, and requests to them.

use super::{Audit, FaultInjector, PeerCheckMode, Rates, Sources, TaskProtection, Tasks, Work, answers};
use crate::http::{Answers, PeerLocation, RemoteAddress};
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode};
use ecs_core::model::fault::{FaultError, FaultNetwork, FaultOperation, FaultStatus, Interfaces};
use ecs_core::model::protection::{ProtectionAnswer, ProtectionCall, ProtectionError};
use ecs_core::model::task::NetworkMode;
use ecs_core::model::view::{ContainerView, RoleView, TaskView, View};
use ecs_core::model::{CredentialsId, RoleKind, TaskArn};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use std::io;
use std::sync::{Arc, Mutex};
use tokio::sync::watch;

pub(super) const ARN: &str = "arn:aws:ecs:us-west-2:123456789012:task/judge/319892675625455485f5c720b4cd7692";

/// What the fakes were asked, and what they answer.
#[derive(Debug)]
pub(super) struct Script {
    pub(super) protection: Result<ProtectionAnswer, ProtectionError>,
    pub(super) fault: Result<FaultStatus, FaultError>,
    pub(super) interfaces: Option<Interfaces>,
    pub(super) protection_calls: Vec<(TaskArn, CredentialsId, ProtectionCall)>,
    pub(super) fault_calls: Vec<(FaultNetwork, FaultOperation)>,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            protection: Ok(ProtectionAnswer::default()),
            fault: Ok(FaultStatus::Running),
            interfaces: None,
            protection_calls: Vec::new(),
            fault_calls: Vec::new(),
        }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Fake(pub(super) Arc<Mutex<Script>>);

impl TaskProtection for Fake {
    fn call(
        &self,
        task: TaskArn,
        role: CredentialsId,
        call: ProtectionCall,
    ) -> BoxFuture<'static, Result<ProtectionAnswer, ProtectionError>> {
        let mut script = self.0.lock().unwrap();
        script.protection_calls.push((task, role, call));
        let answer = script.protection.clone();
        async move { answer }.boxed()
    }
}

impl FaultInjector for Fake {
    fn host_interfaces(&self) -> io::Result<Interfaces> {
        self.0.lock().unwrap().interfaces.clone().ok_or_else(|| io::ErrorKind::PermissionDenied.into())
    }

    fn carry_out(
        &self,
        network: FaultNetwork,
        operation: FaultOperation,
    ) -> BoxFuture<'static, Result<FaultStatus, FaultError>> {
        let mut script = self.0.lock().unwrap();
        script.fault_calls.push((network, operation));
        let answer = script.fault;
        async move { answer }.boxed()
    }
}

/// Work by this script.
pub(super) fn work(script: &Arc<Mutex<Script>>) -> Work {
    let fake = Arc::new(Fake(script.clone()));
    Work { protection: fake.clone(), faults: fake }
}

/// The server with these tasks, whose containers have the ids `id-0`, `id-1` …
pub(super) struct Server {
    answers: Answers,
    pub(super) script: Arc<Mutex<Script>>,
}

/// A task with a role, whose programs may start faults in the host's network.
pub(super) fn task() -> TaskView {
    let role = RoleView { kind: RoleKind::Task, current: "newest".into(), given: vec!["first".into()] };
    TaskView {
        arn: ARN.into(),
        roles: vec![role],
        network: NetworkMode::Host,
        fault_injection: true,
        ..TaskView::default()
    }
}

impl Server {
    pub(super) fn with(tasks: Vec<TaskView>) -> Self {
        let interfaces = Some(Interfaces { names: vec!["eth0".to_owned()], ipv6_only: false });
        let script = Arc::new(Mutex::new(Script { interfaces, ..Script::default() }));
        let with_container = |(number, mut task): (usize, TaskView)| {
            let (endpoint_id, runtime_id) = (Some(format!("id-{number}").as_str().into()), Some("docker".into()));
            task.containers = vec![ContainerView { endpoint_id, runtime_id, ..ContainerView::default() }];
            Arc::new(task)
        };
        let tasks = tasks.into_iter().enumerate().map(with_container).collect();
        let view = watch::channel(Arc::new(View { tasks, ..View::default() })).1;
        let sources = Sources::new(
            Tasks::new(view),
            super::tests::metadata(),
            Arc::new(|_| None),
            work(&script),
            Audit { cluster: String::new(), container_instance: String::new(), sink: None },
            Rates { steady: 10_000, burst: 10_000 },
            PeerCheckMode::Off,
        );
        Self { answers: answers(sources), script }
    }

    /// Sends a request from this peer, and returns status, headers and body.
    pub(super) async fn ask(
        &self,
        peer: &str,
        method: &str,
        path: &str,
        body: &str,
    ) -> (StatusCode, HeaderMap, String) {
        let mut request = Request::builder().method(method).uri(path).body(Body::from(body.to_owned())).unwrap();
        request.extensions_mut().insert(RemoteAddress { address: peer.parse().unwrap(), location: PeerLocation::Host });
        let answer = self.answers.answer(request).await;
        let (head, body) = answer.into_parts();
        let body = to_bytes(body, 1 << 20).await.unwrap();
        (head.status, head.headers, String::from_utf8(body.to_vec()).unwrap())
    }
}
