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
    use crate::engine::sample::{NOW, container, run, spec, state};
    use crate::engine::{Effect, Event, PayloadTask, Policy, step};
    use crate::model::TaskSpec;

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
