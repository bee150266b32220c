//! What happens when the kernel refuses, when the agent is killed between two messages, and when things vanish meanwhile.

use super::super::{Network, NetworkError, Settings};
use super::rig::{Rig, Space, dual_stack, interface, request, text};
use ecs_core::model::interface::{NetworkRequest, Prefix, ProxyRules};
use ecs_netlink::{Errno, Fault, Moment};
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

/// Calls `act` at both moments of each change, with the number of the moment.
fn planted(
    act: impl Fn(usize, Moment) -> ecs_netlink::Result<()> + Send + Sync + 'static,
) -> (Fault, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    (Fault(Arc::new(move |moment| act(counted.fetch_add(1, Ordering::Relaxed), moment))), count)
}

/// A task with everything, on a host of its own.
struct Task {
    rig: Rig,
    pause: Space,
    request: NetworkRequest,
}

impl Task {
    fn new(test: &str) -> Option<Self> {
        let additional_routes = vec![Prefix { address: Ipv4Addr::new(10, 0, 15, 0), length: 24 }];
        let settings = Settings { block_metadata: true, additional_routes, ..Settings::default() };
        let rig = Rig::with(test, settings)?;
        rig.attach(1);
        rig.attach(2);
        let pause = rig.pause(true);
        let mut request = request(1, &pause, vec![dual_stack(1), interface(2)]);
        let rules = ProxyRules { egress_port: 15001, ignored_uid: Some(1337), ..ProxyRules::default() };
        request.proxy = Some(rules);
        Some(Self { rig, pause, request })
    }

    /// The state when all is set up: links, addresses, routes, rules.
    fn state(&self) -> String {
        let links = r"for which in '' up; do ip -br link show $which | sed -E 's/^([^@ ]*)[^ ]* +[^ ]+ +([^ ]+).*/\1 \2/'; done";
        let addresses =
            "ip -o addr | sed 's/.*\\(inet6*\\) \\([^ ]*\\).* \\(scope.*\\)\\\\.*/\\1 \\2 \\3/' | grep -v fe80 | sort";
        let routes = "(ip route; ip -6 route | grep -v fe80 || true) | sed 's/ linkdown//'";
        self.pause.shell(&format!("{links}; {addresses}; {routes}; nft list ruleset"))
    }

    /// Everything is back on the host, and nothing of the task is left.
    fn assert_nothing_left(&self, after: &str) {
        let left = self.pause.shell("ip -br link | grep -v ^lo || true; ip route; ip -6 route; nft list ruleset");
        assert_eq!(left, "", "{after}");
        let links = self.rig.host_links();
        let is_back = |number: usize| {
            let mac = format!("06:00:00:00:01:{number:02}");
            links.iter().any(|link| link.contains(&mac))
        };
        assert!(is_back(1) && is_back(2) && !links.iter().any(|link| link.contains("vetha9fe")), "{after}: {links:?}");
    }

    /// Removes the bridge, unless a task uses it: the next task makes it again.
    fn forget_bridge(&self) {
        self.rig.host.shell("[ -n \"$(ip link show master ecs-bridge 2>&1)\" ] || ip link del ecs-bridge");
    }

    /// The number of moments of a change; that of a set-up includes those of the bridge.
    async fn moments(&self, is_set_up: bool) -> usize {
        self.forget_bridge();
        let (fault, count) = planted(|_, _| Ok(()));
        let agent = self.rig.agent(Some(fault));
        let done = if is_set_up { agent.set_up(&self.request).await } else { agent.tear_down(&self.request).await };
        done.unwrap();
        count.load(Ordering::Relaxed)
    }
}

#[tokio::test]
async fn a_refused_change_is_undone_and_named() {
    let Some(task) = Task::new("a_refused_change_is_undone_and_named") else { return };
    let moments = task.moments(true).await;
    let whole = task.state();
    task.moments(false).await;
    task.assert_nothing_left("a whole life");
    // The interfaces have the names of their return now, and no address.
    assert!(moments >= 2 * 23, "{moments}");
    let mut steps = Vec::new();
    for number in 0..moments {
        task.forget_bridge();
        let (fault, _) = planted(move |at, _| if at == number { Err(Errno::IO.into()) } else { Ok(()) });
        let error = task.rig.agent(Some(fault)).set_up(&task.request).await.unwrap_err();
        let NetworkError::Step { failure, not_undone } = &error else { panic!("{number}: {error}") };
        assert!(failure.cause.ends_with("(EIO)") && not_undone.is_empty(), "{number}: {error}");
        task.assert_nothing_left(&format!("{number}: {error}"));
        steps.push(failure.step.clone());
    }
    steps.dedup();
    assert!(steps.contains(&"give eth0 the address 10.0.1.100/24".to_owned()) && steps.len() > 20, "{steps:#?}");
    task.moments(true).await;
    assert_eq!(task.state(), whole);
}

#[tokio::test]
async fn an_agent_that_was_killed_goes_on() {
    let Some(task) = Task::new("an_agent_that_was_killed_goes_on") else { return };
    let moments = task.moments(true).await;
    let whole = task.state();
    let moments_back = task.moments(false).await;
    for number in 0..moments {
        task.forget_bridge();
        // No message of a dead agent reaches the kernel, neither one that goes on nor one that undoes.
        let (fault, _) = planted(move |at, _| if at >= number { Err(Errno::IO.into()) } else { Ok(()) });
        let error = task.rig.agent(Some(fault)).set_up(&task.request).await.unwrap_err();
        task.rig.agent(None).set_up(&task.request).await.unwrap_or_else(|second| panic!("{number}: {error}: {second}"));
        assert_eq!(task.state(), whole, "{number}: {error}");
        // The same for the way back.
        let number = number % moments_back;
        let (fault, _) = planted(move |at, _| if at >= number { Err(Errno::IO.into()) } else { Ok(()) });
        task.rig.agent(Some(fault)).tear_down(&task.request).await.unwrap_err();
        task.rig.agent(None).tear_down(&task.request).await.unwrap();
        task.assert_nothing_left(&format!("tear-down {number}"));
    }
}

#[tokio::test]
async fn a_device_that_vanishes_is_named() {
    let Some(mut task) = Task::new("a_device_that_vanishes_is_named") else { return };
    let moments = task.moments(true).await;
    task.moments(false).await;
    task.request.interfaces.truncate(1);
    for number in (0..moments / 2).step_by(3) {
        let far = task.rig.subnet.namespace();
        let (fault, _) = planted(move |at, _| {
            if at == number {
                let socket = far.socket(ecs_netlink::Protocol::Route)?;
                let link = socket.link("far1")?.expect("it is there");
                socket.delete_link(link.index)?;
            }
            Ok(())
        });
        // Towards the end nothing is done with the device any more.
        if let Err(error) = task.rig.agent(Some(fault)).set_up(&task.request).await {
            let error = error.to_string();
            let is_named = ["eth0", "06:00:00:00:01:01", "ecs060000000101"].iter().any(|name| error.contains(name));
            assert!(is_named && !error.contains("not undone"), "{number}: {error}");
        }
        task.rig.agent(None).tear_down(&task.request).await.unwrap();
        let left = task.pause.shell("ip -br link | grep -v ^lo || true; ip route; nft list ruleset");
        assert_eq!(left, "", "{number}");
        task.rig.attach(1);
    }
}

#[tokio::test]
async fn a_pause_that_dies_meanwhile_leaves_nothing() {
    let Some(task) = Task::new("a_pause_that_dies_meanwhile_leaves_nothing") else { return };
    let Task { rig, pause, request } = task;
    let pause = Arc::new(Mutex::new(pause));
    let dying = Arc::clone(&pause);
    let (fault, _) = planted(move |at, _| {
        if at == 20 {
            dying.lock().unwrap().end();
        }
        Ok(())
    });
    // The namespace lives as long as the change.
    rig.agent(Some(fault)).set_up(&request).await.unwrap();
    let error = text(rig.agent(None).set_up(&request).await);
    let expected =
        format!("open the network namespace of the pause container: its process {} has ended", request.pause_pid);
    assert_eq!(error, expected);
    rig.network.tear_down(&request).await.unwrap();
}

#[tokio::test]
async fn a_process_of_the_host_is_not_the_pause() {
    let Some(task) = Task::new("a_process_of_the_host_is_not_the_pause") else { return };
    let mut request = task.request.clone();
    request.pause_pid = task.rig.host.id();
    let before = task.rig.host.shell("ip addr; ip route");
    let error = text(task.rig.network.set_up(&request).await);
    let end = format!("process {} is not that of the pause container, which has ended", request.pause_pid);
    assert!(error.ends_with(&end), "{error}");
    request.interfaces.clear();
    task.rig.network.tear_down(&request).await.unwrap();
    assert_eq!(task.rig.host.shell("ip addr; ip route"), before);
}

/// A task with `NET_ADMIN` makes links with the hardware address of its interface, and gives the interface another one.
#[tokio::test]
async fn links_of_a_task_do_not_get_to_the_host() {
    let Some(rig) = Rig::new("links_of_a_task_do_not_get_to_the_host") else { return };
    // The device gets a higher number than the task's own link, which so comes first in the list.
    rig.host.shell("ip link add f1 type veth peer name f2; ip link del f1");
    rig.attach(1);
    let back = "ecs060000000101 DOWN 06:00:00:00:01:01 <BROADCAST,MULTICAST>";
    let hide = "ip link set eth0 down; ip link set eth0 address 02:00:00:00:00:07";
    for (kind, hide, expected) in [
        ("dummy", "true", vec![back]),
        ("veth peer name other", "true", vec![back]),
        ("veth peer name other", hide, vec![]),
    ] {
        let pause = rig.pause(false);
        if pause.shell(&format!("ip link add own type {kind} && ip link del own && echo yes || true")).is_empty() {
            continue; // the kernel of the emulated machine has no `dummy`
        }
        let request = request(1, &pause, vec![interface(1)]);
        rig.network.set_up(&request).await.unwrap();
        pause.shell(&format!("{hide}; ip link add own index 2 address 06:00:00:00:01:01 type {kind}"));
        rig.network.tear_down(&request).await.unwrap();
        assert_eq!(rig.host_links(), expected, "{kind}");
        assert!(pause.shell("ip -br link").contains("own"), "{kind}");
    }
}

/// The kernel's lock of the network configuration may be held for long.
#[tokio::test]
async fn a_step_without_an_answer_is_given_up() {
    let Some(task) = Task::new("a_step_without_an_answer_is_given_up") else { return };
    let (release, held) = mpsc::channel::<()>();
    let held = Mutex::new(held);
    let (fault, _) = planted(move |at, _| {
        if at == 30 {
            let _ = held.lock().unwrap().recv();
        }
        Ok(())
    });
    let agent = Network { step_limit: Duration::from_secs(2), ..task.rig.agent(Some(fault)) };
    let error = agent.set_up(&task.request).await.unwrap_err();
    let NetworkError::Hangs { step, .. } = &error else { panic!("{error}") };
    assert!(error.to_string().starts_with(&format!("{step}: no answer from the kernel for ")), "{error}");
    let second = agent.tear_down(&task.request).await.unwrap_err().to_string();
    assert!(second.starts_with("an earlier change of the task's network has not ended: "), "{second}");
    release.send(()).unwrap();
    // The thread undoes what it did.
    while !agent.changes.lock().unwrap().is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    task.assert_nothing_left("the end of the thread");
}

/// Four tasks wait for the kernel. A fifth one waits for its turn, without being given up, and goes on after them.
#[tokio::test]
async fn a_task_waits_for_its_turn() {
    let Some(rig) = Rig::new("a_task_waits_for_its_turn") else { return };
    let held = Arc::new(Mutex::new(()));
    let gate = Arc::clone(&held);
    let (fault, _) = planted(move |_, _| {
        drop(gate.lock());
        Ok(())
    });
    let agent = Network { step_limit: Duration::from_secs(1), ..rig.agent(Some(fault)) };
    let pauses: Vec<Space> = (0..5).map(|_| rig.pause(false)).collect();
    let tasks: Vec<_> = (1..).zip(&pauses).map(|(number, pause)| request(number, pause, Vec::new())).collect();
    let guard = held.lock().unwrap();
    let four = futures_util::future::join_all(tasks[..4].iter().map(|task| agent.set_up(task))).await;
    assert!(four.iter().all(|done| matches!(done, Err(NetworkError::Hangs { .. }))), "{four:?}");
    let mut fifth = std::pin::pin!(agent.set_up(&tasks[4]));
    assert!(tokio::time::timeout(Duration::from_secs(2), &mut fifth).await.is_err());
    drop(guard);
    fifth.await.unwrap();
    assert_eq!(pauses[4].ask("169.254.170.2:80"), "agent");
}
