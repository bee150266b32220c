//! The queue of tasks that wait for their share of the host, judged by their specifications and by the shares that tasks hold.
//!
//! Invariant: the shares are computed here, not by the core.

use super::Before;
use crate::world::World;
use ecs_core::model::task::NetworkMode;
use ecs_core::model::{Protocol, TaskArn, TaskStatus};
use ecs_core::{RESERVE_AFTER, state::TaskState};
use std::collections::BTreeSet;

/// The needs of one task, or of several together.
#[derive(Clone, Debug, Default)]
struct Needs {
    cpu: u64,
    memory: u64,
    /// Ports and GPUs, which only one task can have.
    single: BTreeSet<String>,
    /// Two tasks need the same port or GPU.
    twice: bool,
}

impl Needs {
    fn for_task(task: &TaskState) -> Self {
        let containers = || task.specs();
        let memory = |reserved: u32, hard: u32| u64::from(if reserved > 0 { reserved } else { hard });
        let ports = containers().flat_map(|it| &it.ports).filter(|port| port.host_port > 0);
        // A task with interfaces of its own publishes no ports of the host.
        let ports = ports.filter(|_| task.spec.network != NetworkMode::Awsvpc);
        let gpus = containers().flat_map(|it| &it.gpus).cloned();
        let whole = task.spec.cpu_micros * 1024 / 1_000_000;
        let sum = containers().map(|it| u64::from(it.cpu)).sum();
        let reserved = containers().map(|it| memory(it.memory_reservation, it.memory)).sum();
        Self {
            cpu: if task.spec.cpu_micros > 0 { whole } else { sum },
            memory: if task.spec.memory > 0 { task.spec.memory } else { reserved },
            single: ports.map(|port| named(port.protocol, port.host_port)).chain(gpus).collect(),
            twice: false,
        }
    }

    fn all<'a>(tasks: impl Iterator<Item = &'a TaskState>) -> Self {
        tasks.fold(Self::default(), |mut sum, task| {
            sum.add(Self::for_task(task));
            sum
        })
    }

    fn add(&mut self, other: Self) {
        self.twice |= other.twice || !self.single.is_disjoint(&other.single);
        (self.cpu, self.memory) = (self.cpu + other.cpu, self.memory + other.memory);
        self.single.extend(other.single);
    }

    fn fit(&self, world: &World) -> bool {
        let host = &world.state.policy.capacity;
        let reserved = host.reserved_tcp.iter().map(|port| named(Protocol::Tcp, *port));
        let mut reserved = reserved.chain(host.reserved_udp.iter().map(|port| named(Protocol::Udp, *port)));
        let is_there = |it: &String| !it.starts_with("gpu") || host.gpus.contains(it);
        let fits = self.cpu <= host.cpu && self.memory <= host.memory && self.single.iter().all(is_there);
        fits && !self.twice && !reserved.any(|port| self.single.contains(&port))
    }

    /// The host has enough for these needs beside the others.
    fn take_nothing_from(&self, others: &Self, world: &World) -> bool {
        let host = &world.state.policy.capacity;
        self.single.is_disjoint(&others.single)
            && (self.cpu == 0 || self.cpu + others.cpu <= host.cpu)
            && (self.memory == 0 || self.memory + others.memory <= host.memory)
    }
}

fn named(protocol: Protocol, port: u16) -> String {
    format!("{}/{port}", protocol.as_str())
}

fn holds(task: &TaskState) -> bool {
    task.admitted && task.known != TaskStatus::Stopped
}

fn waits(task: &TaskState) -> bool {
    !task.admitted && task.known != TaskStatus::Stopped && task.desired == TaskStatus::Running
}

/// A task that waits for its share, if there is one.
pub(crate) fn waiting(world: &World) -> Option<&TaskState> {
    world.state.tasks.values().map(|it| &**it).find(|it| waits(it))
}

/// Whether all these tasks fit the host together.
pub(super) fn fits(world: &World, arns: &BTreeSet<&TaskArn>) -> bool {
    Needs::all(arns.iter().filter_map(|arn| world.state.tasks.get(*arn)).map(|it| &**it)).fit(world)
}

/// The shares that tasks hold, and the needs of earlier tasks that have waited long.
fn taken_or_reserved(world: &World, task: &TaskState, is_counted: impl Fn(&TaskState) -> bool) -> Needs {
    let is_patient =
        |it: &TaskState| waits(it) && it.arrival < task.arrival && it.known_at + RESERVE_AFTER <= world.now;
    let tasks = world.state.tasks.values().map(|it| &**it).filter(|it| it.spec.arn != task.spec.arn);
    Needs::all(tasks.filter(|it| is_patient(it) || (holds(it) && is_counted(it))))
}

/// An admitted task takes nothing that an earlier task needs which has waited long.
pub(super) fn patient_tasks_are_not_overtaken(world: &mut World, before: &Before) {
    let was_admitted = |arn: &TaskArn| before.tasks.get(arn).is_some_and(|old| old.admitted);
    let is_new = |task: &TaskState| task.admitted && !task.live.inherited && !was_admitted(&task.spec.arn);
    let new = world.state.tasks.values().filter(|task| is_new(task) && holds(task));
    let put_off = new.map(|new| {
        // Of the tasks admitted in the same step, only the earlier ones count.
        let others = taken_or_reserved(world, new, |it| !is_new(it) || it.arrival < new.arrival);
        (new, Needs::for_task(new).take_nothing_from(&others, world))
    });
    let broken = put_off.filter(|it| !it.1).map(|it| it.0.spec.arn.to_string()).next();
    if let Some(arn) = broken {
        world.breaks("a task that has waited long is not overtaken", || arn);
    }
}

/// No task that fits waits behind one that does not fit.
pub(super) fn tasks_that_fit_are_admitted(world: &mut World) {
    if world.state.host.lost {
        return; // lost tasks may hold shares
    }
    let given = Needs::all(world.state.tasks.values().map(|it| &**it).filter(|it| holds(it)));
    let fits = |task: &TaskState| {
        let mut sum = given.clone();
        sum.add(Needs::for_task(task));
        sum.fit(world) && Needs::for_task(task).take_nothing_from(&taken_or_reserved(world, task, |_| true), world)
    };
    let idle = world.state.tasks.values().find(|task| waits(task) && fits(task)).map(|it| it.spec.arn.to_string());
    if let Some(arn) = idle {
        world.breaks("a task that fits does not wait", || arn);
    }
}
