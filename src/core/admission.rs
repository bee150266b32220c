//! Admission: which waiting tasks get their share of the host's CPU, memory, ports and GPUs.
//!
//! A task holds its share from its admission until it has stopped. The shares are not stored: they follow from the
//! specifications of the tasks that hold them. The rule: a task is admitted as soon as its share is free, unless it would take
//! something that an earlier task needs and has waited for at least as long as [`RESERVE_AFTER`]. So a task that does not fit
//! blocks no other at first, but after a long wait its share is reserved. (The Go agent admits strictly in the order of
//! arrival, spec `task-engine.md` §6.3: there, one task that waits for a port keeps all later ones waiting on an idle host.) A
//! task that can never fit is stopped with a reason.

use super::policy::Capacity;
use super::state::{State, TaskState};
use crate::model::task::NetworkMode;
use crate::model::waiting::Shortage;
use crate::model::{Protocol, Span, TaskArn, TaskStatus, Timestamp};
use std::collections::BTreeSet;

/// A task that has waited for this long is overtaken only by tasks that take nothing it needs. ECS counts the share of a task as
/// free when it requests the task's stop, so most waits are as long as a stop.
pub const RESERVE_AFTER: Span = Span::secs(120);

/// A share of the host: CPU units, MiB of memory, TCP and UDP host ports, and GPU ids.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Share {
    cpu: u64,
    memory: u64,
    tcp: BTreeSet<u16>,
    udp: BTreeSet<u16>,
    gpus: BTreeSet<String>,
}

/// The task holds a share of the host.
pub(super) fn holds(task: &TaskState) -> bool {
    task.admitted && task.known != TaskStatus::Stopped
}

/// The task waits for its share of the host.
pub(super) fn waits(task: &TaskState) -> bool {
    !task.admitted && task.desired != TaskStatus::Stopped && task.known != TaskStatus::Stopped
}

/// The waiting tasks that may be admitted now. All of them fit together.
pub(super) fn admissible(state: &State, now: Timestamp) -> BTreeSet<TaskArn> {
    let mut admissible = BTreeSet::new();
    if state.host.lost {
        return admissible; // lost tasks may hold shares too
    }
    let capacity = &state.policy.capacity;
    let waiting = state.tasks.values().filter(|task| waits(task)).map(|task| (task, share(task)));
    let mut waiting: Vec<_> = waiting.filter(|(_, wanted)| wanted.fits(capacity)).collect();
    if waiting.is_empty() {
        return admissible;
    }
    waiting.sort_by_key(|(task, _)| task.arrival);
    let mut granted = Share::default();
    for holder in state.tasks.values().filter(|task| holds(task)) {
        granted.add(share(holder));
    }
    // The shares that tasks hold, and the needs of earlier tasks that have waited long.
    let mut reserved = granted.clone();
    for (task, wanted) in waiting {
        if wanted.fits_beside(&granted, capacity) && wanted.leaves(&reserved, capacity) {
            granted.add(wanted.clone());
            reserved.add(wanted);
            admissible.insert(task.spec.arn.clone());
        } else if task.known_at + RESERVE_AFTER <= now {
            reserved.add(wanted);
        }
    }
    admissible
}

/// The shares that the tasks hold, for readers.
pub(super) struct Ledger<'a> {
    capacity: &'a Capacity,
    holders: Vec<(&'a TaskArn, Share)>,
}

/// The largest number of holders that a shortage names.
const MAX_HOLDERS: usize = 5;

impl<'a> Ledger<'a> {
    /// The ledger of a state. If no task waits, nobody needs it, so it is left empty.
    pub(super) fn new(state: &'a State) -> Self {
        let is_needed = state.tasks.values().any(|task| waits(task));
        let holders = state.tasks.values().filter(|task| is_needed && holds(task));
        let holders = holders.map(|task| (&task.spec.arn, share(task))).collect();
        Self { capacity: &state.policy.capacity, holders }
    }

    /// Everything that this task needs and of which too little is free.
    pub(super) fn shortages(&self, task: &TaskState) -> Vec<Shortage> {
        let wanted = share(task);
        let amount = |what, wanted: u64, all: u64, get: fn(&Share) -> u64| {
            let held = self.holders.iter().fold(0, |sum: u64, (_, share)| sum.saturating_add(get(share)));
            let free = all.saturating_sub(held);
            let held_by = || self.held_by(|share| get(share) > 0);
            (wanted > free).then(|| Shortage {
                what,
                wanted: wanted.to_string(),
                free: free.to_string(),
                held_by: held_by(),
            })
        };
        let cpu = amount("CPU units", wanted.cpu, self.capacity.cpu, |share| share.cpu);
        let memory = amount("MiB of memory", wanted.memory, self.capacity.memory, |share| share.memory);
        let ports = |share: &Share| share.tcp.iter().chain(&share.udp).map(u16::to_string).collect();
        let ports = self.names("host ports", &ports(&wanted), |share| {
            let tcp = share.tcp.intersection(&wanted.tcp);
            tcp.chain(share.udp.intersection(&wanted.udp)).map(u16::to_string).collect()
        });
        let gpus = self.names("GPUs", &wanted.gpus, |share| share.gpus.intersection(&wanted.gpus).cloned().collect());
        [cpu, memory, ports, gpus].into_iter().flatten().collect()
    }

    /// A shortage of ports or GPUs, each of which only one task can hold; `None` if everything wanted is free. `taken` yields
    /// the part of a share that is wanted too.
    fn names(
        &self,
        what: &'static str,
        wanted: &BTreeSet<String>,
        taken: impl Fn(&Share) -> BTreeSet<String>,
    ) -> Option<Shortage> {
        let all_taken: BTreeSet<String> = self.holders.iter().flat_map(|(_, share)| taken(share)).collect();
        if all_taken.is_empty() {
            return None;
        }
        let free = wanted.difference(&all_taken).cloned().collect::<Vec<_>>();
        let free = if free.is_empty() { "none".to_owned() } else { free.join(" ") };
        let wanted = wanted.iter().cloned().collect::<Vec<_>>().join(" ");
        Some(Shortage { what, wanted, free, held_by: self.held_by(|share| !taken(share).is_empty()) })
    }

    fn held_by(&self, has: impl Fn(&Share) -> bool) -> Vec<TaskArn> {
        let holders = self.holders.iter().filter(|(_, share)| has(share));
        holders.map(|(arn, _)| (*arn).clone()).take(MAX_HOLDERS).collect()
    }
}

/// Why the task can never be admitted on this host; `None` if it can.
pub(super) fn impossible(capacity: &Capacity, task: &TaskState) -> Option<String> {
    let wanted = share(task);
    if wanted.fits(capacity) {
        return None;
    }
    let list = |tcp: &BTreeSet<u16>, udp: &BTreeSet<u16>| {
        let ports: Vec<String> = tcp.union(udp).map(u16::to_string).collect();
        if ports.is_empty() { "none".to_owned() } else { ports.join(", ") }
    };
    let mut reason = format!(
        "HostResourcesError: the task needs {} CPU units, {} MiB of memory and host ports: {}; this container instance offers {} CPU units, {} MiB and reserves ports: {}",
        wanted.cpu,
        wanted.memory,
        list(&wanted.tcp, &wanted.udp),
        capacity.cpu,
        capacity.memory,
        list(&capacity.reserved_tcp, &capacity.reserved_udp),
    );
    if let Some(gpu) = wanted.gpus.difference(&capacity.gpus).next() {
        reason.push_str(&format!("; it has no GPU {gpu}"));
    }
    Some(reason)
}

/// Invariant: the shares that tasks hold are disjoint and within the host's capacity. Tasks that were admitted before this
/// process started keep their shares even if the host is smaller now, but then no other task is admitted.
pub(super) fn ledger_holds(state: &State) -> bool {
    let mut holders = state.tasks.values().filter(|task| holds(task));
    if holders.clone().all(|task| task.live.inherited) {
        return true;
    }
    let mut sum = Share::default();
    holders.all(|task| sum.add(share(task))) && sum.fits(&state.policy.capacity)
}

/// The share that a task needs (spec `task-engine.md` §6.1).
fn share(task: &TaskState) -> Share {
    let mut share = Share::default();
    for container in task.specs() {
        share.gpus.extend(container.gpus.iter().cloned());
        share.cpu += u64::from(container.cpu);
        let memory = if container.memory_reservation > 0 { container.memory_reservation } else { container.memory };
        share.memory += u64::from(memory);
        // A task with interfaces of its own publishes no ports of the host.
        let is_own = task.spec.network == NetworkMode::Awsvpc;
        for port in container.ports.iter().filter(|port| port.host_port != 0 && !is_own) {
            match port.protocol {
                Protocol::Tcp => share.tcp.insert(port.host_port),
                Protocol::Udp => share.udp.insert(port.host_port),
            };
        }
    }
    // Limits of the task as a whole replace the sums over its containers.
    let cpu = u128::from(task.spec.cpu_micros) * 1024 / 1_000_000;
    if task.spec.cpu_micros > 0 {
        share.cpu = u64::try_from(cpu).unwrap_or(u64::MAX);
    }
    if task.spec.memory > 0 {
        share.memory = task.spec.memory;
    }
    share
}

impl Share {
    /// Adds another share; false if a port or a GPU is in both.
    fn add(&mut self, other: Self) -> bool {
        let disjoint = self.is_disjoint(&other);
        self.cpu = self.cpu.saturating_add(other.cpu);
        self.memory = self.memory.saturating_add(other.memory);
        self.tcp.extend(other.tcp);
        self.udp.extend(other.udp);
        self.gpus.extend(other.gpus);
        disjoint
    }

    fn is_disjoint(&self, other: &Self) -> bool {
        self.tcp.is_disjoint(&other.tcp) && self.udp.is_disjoint(&other.udp) && self.gpus.is_disjoint(&other.gpus)
    }

    fn fits(&self, capacity: &Capacity) -> bool {
        self.cpu <= capacity.cpu
            && self.memory <= capacity.memory
            && self.tcp.is_disjoint(&capacity.reserved_tcp)
            && self.udp.is_disjoint(&capacity.reserved_udp)
            && self.gpus.is_subset(&capacity.gpus)
    }

    fn fits_beside(&self, granted: &Self, capacity: &Capacity) -> bool {
        let mut sum = granted.clone();
        sum.add(self.clone()) && sum.fits(capacity)
    }

    /// True if this share takes nothing that is reserved. An amount that it does not take at all may be overcommitted already.
    fn leaves(&self, reserved: &Self, capacity: &Capacity) -> bool {
        let leaves = |wanted: u64, reserved: u64, all: u64| wanted == 0 || reserved.saturating_add(wanted) <= all;
        self.is_disjoint(reserved)
            && leaves(self.cpu, reserved.cpu, capacity.cpu)
            && leaves(self.memory, reserved.memory, capacity.memory)
    }
}

#[cfg(test)]
mod tests;
