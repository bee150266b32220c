//! The host's ledger of CPU, memory and ports, and the queue of tasks that wait for their share.
//!
//! The ledger is not stored: it is the sum over the tasks that hold a share. Strictly first come, first served, as in the
//! reference (spec `task-engine.md` §6.3). A task that could never fit is told so instead of blocking all others for ever.

use super::state::{Capacity, State, TaskState};
use crate::model::{Protocol, TaskStatus};
use std::collections::BTreeSet;

/// A share of the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Share {
    cpu: u64,
    memory: u64,
    tcp: BTreeSet<u16>,
    udp: BTreeSet<u16>,
}

/// Does the task hold a share now?
pub(super) fn holds(task: &TaskState) -> bool {
    task.admitted && task.known != TaskStatus::Stopped
}

/// Does the task wait for one?
pub(super) fn waits(task: &TaskState) -> bool {
    !task.admitted && task.desired != TaskStatus::Stopped && task.known != TaskStatus::Stopped
}

/// May this task, which is not in `state` at the moment, be admitted now?
pub(super) fn may_admit(state: &State, task: &TaskState) -> bool {
    if state.host.lost {
        return false; // there may be more that holds a share than is known
    }
    let is_first = state.tasks.values().all(|other| !waits(other) || other.arrival > task.arrival);
    is_first && {
        let mut sum = share(task);
        let mut disjoint = true;
        for other in state.tasks.values().filter(|other| holds(other)) {
            disjoint &= sum.add(share(other));
        }
        disjoint && sum.fits(&state.policy.capacity)
    }
}

/// Why the task can never be admitted on this host, if so.
pub(super) fn impossible(capacity: &Capacity, task: &TaskState) -> Option<String> {
    let wanted = share(task);
    if wanted.fits(capacity) {
        return None;
    }
    Some(format!(
        "HostResourcesError: the task needs {} CPU units, {} MiB of memory and host ports {:?}; this container instance offers {} CPU units, {} MiB and reserves ports {:?}",
        wanted.cpu,
        wanted.memory,
        wanted.tcp.union(&wanted.udp).collect::<Vec<_>>(),
        capacity.cpu,
        capacity.memory,
        capacity.reserved_tcp.union(&capacity.reserved_udp).collect::<Vec<_>>(),
    ))
}

/// Invariant: what is given out is disjoint and within the host's capacity. What was given out before this process stays given
/// out even if the host has less to give now; but then nothing more is.
pub(super) fn ledger_holds(state: &State) -> bool {
    let mut holders = state.tasks.values().filter(|task| holds(task));
    if holders.clone().all(|task| task.inherited) {
        return true;
    }
    let mut sum = Share::default();
    holders.all(|task| sum.add(share(task))) && sum.fits(&state.policy.capacity)
}

/// What a task needs (spec `task-engine.md` §6.1).
fn share(task: &TaskState) -> Share {
    let mut share = Share::default();
    for container in &task.spec.containers {
        share.cpu += u64::from(container.cpu);
        let memory = if container.memory_reservation > 0 { container.memory_reservation } else { container.memory };
        share.memory += u64::from(memory);
        for port in container.ports.iter().filter(|port| port.host_port != 0) {
            match port.protocol {
                Protocol::Tcp => share.tcp.insert(port.host_port),
                Protocol::Udp => share.udp.insert(port.host_port),
            };
        }
    }
    share
}

impl Share {
    /// Adds another share; false if a port is in both.
    fn add(&mut self, other: Self) -> bool {
        self.cpu += other.cpu;
        self.memory += other.memory;
        let disjoint = self.tcp.is_disjoint(&other.tcp) && self.udp.is_disjoint(&other.udp);
        self.tcp.extend(other.tcp);
        self.udp.extend(other.udp);
        disjoint
    }

    fn fits(&self, capacity: &Capacity) -> bool {
        self.cpu <= capacity.cpu
            && self.memory <= capacity.memory
            && self.tcp.is_disjoint(&capacity.reserved_tcp)
            && self.udp.is_disjoint(&capacity.reserved_udp)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::sample::{NOW, container, run, seen, spec, state, task};
    use crate::engine::{Effect, Event, PayloadTask, Policy, step};
    use crate::model::task::PortMapping;
    use crate::model::{ContainerSpec, RunState, TaskSpec};

    fn wanting(arn: &str, cpu: u32) -> TaskSpec {
        let mut container = container("a", &[]);
        container.cpu = cpu;
        spec(arn, vec![container])
    }

    #[test]
    fn a_small_task_does_not_overtake_a_large_one_that_waits() {
        let capacity = Capacity { cpu: 1024, memory: 1024, ..Capacity::default() };
        let mut state = state(Policy { capacity, ..Policy::default() });
        for (arn, cpu) in [("first", 600), ("large", 900), ("small", 100)] {
            step(&mut state, NOW, run(wanting(arn, cpu)));
        }
        let admitted = |state: &State| {
            state.tasks.values().filter(|it| holds(it)).map(|it| it.spec.arn.0.clone()).collect::<Vec<_>>()
        };
        assert_eq!(admitted(&state), ["first"]);
        // The one that blocks the queue is stopped: the next one gets its turn at once.
        let stop = Event::Payload { tasks: vec![PayloadTask::Stop("large".into())], seq: 2, ack: None };
        step(&mut state, NOW, stop);
        assert_eq!(admitted(&state), ["first", "small"]);
    }

    #[test]
    fn the_share_of_a_task_that_is_seen_to_have_ended_goes_to_the_next_at_once() {
        let capacity = Capacity { cpu: 1024, memory: 1024, ..Capacity::default() };
        let mut state = state(Policy { capacity, ..Policy::default() });
        step(&mut state, NOW, run(wanting("first", 1000)));
        step(&mut state, NOW, run(wanting("next", 1000)));
        let first = state.tasks.get_mut(&"first".into()).unwrap();
        (first.known, first.ran, first.containers[0].operation) = (TaskStatus::Running, true, None);
        state.ops.clear();
        let news = |run_state| Event::Observed(Box::new(seen("first", "a", "id", run_state)));
        step(&mut state, NOW, news(RunState::Running));
        assert!(!holds(&state.tasks[&"next".into()]));
        step(&mut state, NOW, news(RunState::Exited));
        assert!(holds(&state.tasks[&"next".into()]));
    }

    #[test]
    fn ports_and_reserved_memory_are_counted_and_a_share_may_be_the_whole_host() {
        let port = |host_port, protocol| PortMapping { container_port: 80, host_port, protocol };
        let reserved = |ports: &[u16]| ports.iter().copied().collect::<BTreeSet<u16>>();
        let capacity = Capacity {
            cpu: 10,
            memory: 20,
            reserved_tcp: reserved(&[22]),
            reserved_udp: reserved(&[53]),
            ..Capacity::default()
        };
        let fits = |change: &dyn Fn(&mut ContainerSpec)| {
            let mut container = container("a", &[]);
            (container.cpu, container.memory) = (10, 20);
            change(&mut container);
            impossible(&capacity, &task(vec![container])).is_none()
        };
        assert!(fits(&|_| {}), "all there is");
        assert!(!fits(&|it| it.cpu = 11) && !fits(&|it| it.memory = 21));
        assert!(fits(&|it| (it.memory, it.memory_reservation) = (21, 1)), "the reservation counts");
        assert!(!fits(&|it| (it.memory, it.memory_reservation) = (1, 21)));
        for (host_port, protocol, does_fit) in [
            (22, Protocol::Tcp, false),
            (22, Protocol::Udp, true),
            (53, Protocol::Udp, false),
            (53, Protocol::Tcp, true),
            (0, Protocol::Tcp, true),
        ] {
            assert_eq!(fits(&|it| it.ports.push(port(host_port, protocol))), does_fit, "{host_port} {protocol:?}");
        }
        let two = |one, other| share(&task(vec![one])).add(share(&task(vec![other])));
        let with = |host_port, protocol| {
            let mut container = container("a", &[]);
            container.ports.push(port(host_port, protocol));
            container
        };
        assert!(!two(with(80, Protocol::Tcp), with(80, Protocol::Tcp)));
        assert!(!two(with(80, Protocol::Udp), with(80, Protocol::Udp)));
        assert!(
            two(with(80, Protocol::Tcp), with(80, Protocol::Udp))
                && two(with(0, Protocol::Tcp), with(0, Protocol::Tcp))
        );
    }

    #[test]
    fn a_task_that_never_fits_is_told_so_and_blocks_nobody() {
        let capacity = Capacity { cpu: 1024, memory: 1024, ..Capacity::default() };
        let mut state = state(Policy { capacity, ..Policy::default() });
        let effects = step(&mut state, NOW, run(wanting("huge", 2048))).effects;
        assert!(
            matches!(&effects[..], [Effect::Report { change, .. }] if change.reason.starts_with("HostResourcesError: the task needs 2048 CPU")),
            "{effects:?}"
        );
        step(&mut state, NOW, run(wanting("next", 1024)));
        assert!(holds(&state.tasks[&"next".into()]));
    }
}
