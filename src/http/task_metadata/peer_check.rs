//! Compares the address of a request for credentials with the addresses of the task (`ECS_CREDENTIALS_PEER_CHECK`).
//!
//! The Go agent has no such check. Owns the verdict, and the warning about wrong addresses. Requests from this host always pass:
//! tasks in network mode host, and Docker, which sends logs. A container may ask before Docker's answer to its start, with its
//! address, has reached the agent. So before a request is judged, the next views are awaited for a moment.

use super::tasks::{FoundRole, Tasks};
use crate::http::tally::Tally;
use crate::http::{PeerLocation, RemoteAddress};
use ecs_core::model::task::NetworkMode;
use ecs_core::model::view::{ContainerView, TaskView, View};
use ecs_core::model::{ContainerStatus, TaskArn};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// How long a request waits for the address of its container. The SDKs wait for an answer for one second or more.
const WAIT: Duration = Duration::from_millis(800);

/// What is done about a request from a wrong address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerCheckMode {
    /// Nothing.
    Off,
    /// It is logged.
    Log,
    /// It is refused.
    Enforce,
}

/// The origin of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The task itself, or this host; or nobody checks.
    Own,
    /// An address that is not the task's.
    Foreign,
    /// An address that may be the task's: one of its containers is starting.
    Unknown,
}

/// The check of one server.
#[derive(Debug)]
pub(super) struct PeerCheck {
    mode: PeerCheckMode,
    foreign: Mutex<Tally>,
}

impl PeerCheck {
    pub(super) fn new(mode: PeerCheckMode) -> Self {
        Self { mode, foreign: Mutex::default() }
    }

    /// Requests from wrong addresses are refused.
    pub(super) fn is_enforced(&self) -> bool {
        self.mode == PeerCheckMode::Enforce
    }

    /// Judges a request for the credentials of this task.
    pub(super) async fn judge(&self, tasks: &Tasks, task: &TaskArn, peer: Option<RemoteAddress>) -> Verdict {
        let Some(RemoteAddress { address, location }) = peer.filter(|_| self.mode != PeerCheckMode::Off) else {
            return Verdict::Own;
        };
        let peer = address.ip().to_canonical();
        if location == PeerLocation::Host {
            return Verdict::Own;
        }
        let is_own = |view: &View| find(view, task).is_some_and(|task| has_address(task, peer));
        let is_starting = |view: &View| find(view, task).is_some_and(is_starting);
        let view = tasks.view();
        if is_own(&view) {
            return Verdict::Own;
        }
        // A person may have restarted a container, which then has another address: only a refusal is worth the wait for that.
        if (self.is_enforced() || is_starting(&view)) && tasks.wait_for(WAIT, |view| is_own(view)).await {
            return Verdict::Own;
        }
        if is_starting(&tasks.view()) { Verdict::Unknown } else { Verdict::Foreign }
    }

    /// Logs a request from a wrong address, at most once a minute, with the number of such requests so far.
    pub(super) fn report(&self, role: Option<&FoundRole>, peer: Option<SocketAddr>) {
        let due = self.foreign.lock().unwrap_or_else(PoisonError::into_inner).add(Instant::now());
        let (Some(so_far), Some(role), Some(peer)) = (due, role, peer) else { return };
        let (task, done) = (role.task.arn.task_id(), if self.is_enforced() { "refused" } else { "answered" });
        tracing::warn!(
            task,
            %peer,
            so_far,
            "a request for the task's credentials came from an address that is not the task's, and was {done} \
             (ECS_CREDENTIALS_PEER_CHECK)"
        );
    }
}

fn find<'a>(view: &'a View, task: &TaskArn) -> Option<&'a TaskView> {
    view.tasks.iter().find(|known| known.arn == *task).map(|task| &**task)
}

fn has_address(task: &TaskView, peer: IpAddr) -> bool {
    let own = task.interfaces.iter().flat_map(|interface| {
        let ipv4 = interface.ipv4.iter().copied().map(IpAddr::from);
        ipv4.chain(interface.ipv6.iter().copied().map(IpAddr::from))
    });
    if own.chain(task.local_address.map(IpAddr::from)).any(|address| address == peer) {
        return true;
    }
    let networks = task.containers.iter().flat_map(|container| &container.networks);
    let mut addresses = networks.flat_map(|network| [&network.ipv4, &network.ipv6]);
    addresses.any(|address| address.parse::<IpAddr>().is_ok_and(|address| address.to_canonical() == peer))
}

/// A container of the task may get an address.
fn is_starting(task: &TaskView) -> bool {
    task.network == NetworkMode::Bridge && task.containers.iter().any(may_get_address)
}

/// The container exists, and the address that it has or will have when it runs is not known yet.
fn may_get_address(container: &ContainerView) -> bool {
    let exists = container.runtime_id.is_some() && container.known < ContainerStatus::Stopped;
    let has_address = container.networks.iter().any(|network| !network.ipv4.is_empty() || !network.ipv6.is_empty());
    exists && (container.known < ContainerStatus::Running || !has_address)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ecs_core::model::Interface;
    use ecs_core::model::observation::Network;
    use std::sync::Arc;
    use tokio::sync::watch;

    /// A task of one container with this address, if it is known.
    fn view(known: ContainerStatus, address: &str, network: NetworkMode) -> Arc<View> {
        let shown = Network { name: "bridge".to_owned(), ipv4: address.to_owned(), ipv6: String::new() };
        let container =
            ContainerView { runtime_id: Some("id".into()), known, networks: vec![shown], ..ContainerView::default() };
        let task = TaskView { arn: "task".into(), network, containers: vec![container], ..TaskView::default() };
        Arc::new(View { tasks: vec![Arc::new(task)], ..View::default() })
    }

    async fn judged(mode: PeerCheckMode, view: Arc<View>, address: &str, location: PeerLocation) -> Verdict {
        let (_views, receiver) = watch::channel(view);
        let peer = RemoteAddress { address: address.parse().unwrap(), location };
        PeerCheck::new(mode).judge(&Tasks::new(receiver), &"task".into(), Some(peer)).await
    }

    #[tokio::test(start_paused = true)]
    async fn the_task_and_this_host_pass_and_others_do_not() {
        use PeerCheckMode::{Enforce, Log, Off};
        use PeerLocation::{Bridge, Host};
        let running = || view(ContainerStatus::Running, "172.17.0.2", NetworkMode::Bridge);
        for (mode, address, location, expected) in [
            (Enforce, "172.17.0.2:9", Bridge, Verdict::Own),
            (Log, "[::ffff:172.17.0.2]:9", Bridge, Verdict::Own),
            (Enforce, "172.17.0.22:9", Bridge, Verdict::Foreign),
            (Log, "172.17.0.3:9", Bridge, Verdict::Foreign),
            (Off, "172.17.0.3:9", Bridge, Verdict::Own),
            (Enforce, "127.0.0.1:9", Host, Verdict::Own),
            (Enforce, "172.17.0.1:9", Host, Verdict::Own),
        ] {
            assert_eq!(judged(mode, running(), address, location).await, expected, "{mode:?} {address}");
        }
        let on_host = view(ContainerStatus::Running, "", NetworkMode::Host);
        assert_eq!(judged(Log, on_host, "172.17.0.3:9", Bridge).await, Verdict::Foreign);
        assert_eq!(judged(Log, Arc::default(), "172.17.0.3:9", Bridge).await, Verdict::Foreign, "no task any more");
        let mut own = TaskView { arn: "task".into(), network: NetworkMode::Awsvpc, ..TaskView::default() };
        own.local_address = Some([169, 254, 172, 2].into());
        own.interfaces = vec![Interface { ipv4: vec![[10, 0, 1, 100].into()], ..Interface::default() }];
        let own = Arc::new(View { tasks: vec![Arc::new(own)], ..View::default() });
        for (address, expected) in
            [("169.254.172.2:9", Verdict::Own), ("10.0.1.100:9", Verdict::Own), ("169.254.172.3:9", Verdict::Foreign)]
        {
            assert_eq!(judged(Enforce, own.clone(), address, Bridge).await, expected, "{address}");
        }
        let starting = view(ContainerStatus::Created, "", NetworkMode::Bridge);
        assert_eq!(judged(Log, starting, "172.17.0.3:9", Bridge).await, Verdict::Unknown);
    }

    #[tokio::test(start_paused = true)]
    async fn a_container_may_ask_before_its_address_is_known() {
        for mode in [PeerCheckMode::Log, PeerCheckMode::Enforce] {
            let (views, receiver) = watch::channel(view(ContainerStatus::Created, "", NetworkMode::Bridge));
            let (check, tasks, task) = (PeerCheck::new(mode), Tasks::new(receiver), TaskArn::from("task"));
            let peer = RemoteAddress { address: "172.17.0.2:9".parse().unwrap(), location: PeerLocation::Bridge };
            let judged = check.judge(&tasks, &task, Some(peer));
            let starts = async {
                tokio::time::sleep(WAIT / 2).await;
                views.send_replace(view(ContainerStatus::Running, "172.17.0.2", NetworkMode::Bridge));
            };
            let (verdict, ()) = tokio::join!(judged, starts);
            assert_eq!(verdict, Verdict::Own, "{mode:?}");
        }
    }
}
