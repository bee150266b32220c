//! The order of a task's containers: which of them may start, and which may stop. Pure predicates over the state.
//!
//! Source: spec `task-engine.md` §5.

use super::state::{ContainerState, TaskState};
use crate::model::task::{Condition, ContainerKind, Dependency, NetworkMode};
use crate::model::waiting::{Awaited, Requirement};
use crate::model::{
    ContainerName, ContainerSpec, ContainerStatus, Failure, Health, RunState, Span, TaskSpec, TaskStatus, Timestamp,
};

/// Whether a container may go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Readiness {
    /// The container may go on.
    Ready,
    /// The container must wait. That may change with the next event, or at this moment; `None`: only with an event.
    Waits(Option<Timestamp>),
    /// The container can never go on.
    Never(Failure),
}

/// The exit code reported for a container that was never started because of its dependencies.
pub(super) const NEVER_STARTED_EXIT_CODE: i32 = 143;

/// Whether this container may be pulled (unless images are pulled upfront), created and started.
pub(super) fn may_start(task: &TaskState, index: usize, now: Timestamp) -> Readiness {
    let mut verdict =
        if unsettled_essentials(task).next().is_none() { Readiness::Ready } else { Readiness::Waits(None) };
    for dependency in judged(task, index) {
        match judge(task, index, dependency, now) {
            Readiness::Ready => {}
            Readiness::Never(failure) => return Readiness::Never(failure),
            Readiness::Waits(until) => {
                verdict = match verdict {
                    Readiness::Waits(Some(other)) => Readiness::Waits(Some(until.map_or(other, |at| at.min(other)))),
                    Readiness::Ready | Readiness::Waits(None) | Readiness::Never(_) => Readiness::Waits(until),
                };
            }
        }
    }
    verdict
}

/// The dependencies that hold back a pull, a creation and a start. That on the pause container of the task's network holds back only the
/// start, and `network` judges it.
fn judged(task: &TaskState, index: usize) -> impl Iterator<Item = &Dependency> {
    let is_pause = |name: &ContainerName| task.specs().any(|it| it.name == *name && it.kind == ContainerKind::Pause);
    let has_network = task.spec.network == NetworkMode::Awsvpc;
    let all = task.containers[index].spec.depends_on.iter();
    all.filter(move |dependency| !(has_network && is_pause(&dependency.container)))
}

/// The containers that this one waits for, and what must happen to each of them first.
pub(super) fn awaited(task: &TaskState, index: usize, now: Timestamp) -> Vec<Awaited> {
    let mut awaited: Vec<Awaited> =
        unsettled_essentials(task).map(|name| entry(task, name, Requirement::Inspection)).collect();
    for dependency in judged(task, index) {
        let is_listed = awaited.iter().any(|other| other.container == dependency.container);
        if !is_listed && judge(task, index, dependency, now) != Readiness::Ready {
            awaited.push(entry(task, &dependency.container, Requirement::Condition(dependency.condition)));
        }
    }
    awaited
}

fn entry(task: &TaskState, name: &ContainerName, requirement: Requirement) -> Awaited {
    let container = task.index_of(name).map(|index| &task.containers[index].state);
    let is_unsettled = container.is_some_and(|container| container.live.unsettled);
    Awaited {
        container: name.clone(),
        requirement: if is_unsettled { Requirement::Inspection } else { requirement },
        known: container.map(|container| container.known).unwrap_or_default(),
        health: container.map(|container| container.health).unwrap_or_default(),
        health_output: container.map(|container| container.live.health_output.clone()).unwrap_or_default(),
        exit_code: container.and_then(|container| container.exit_code),
    }
}

/// The essential containers that are unsettled: they have not been inspected since the agent started, or since an operation got
/// no answer. One of them may have ended, and then the whole task must stop. So nothing of the task is started before they are
/// inspected.
pub(super) fn unsettled_essentials(task: &TaskState) -> impl Iterator<Item = &ContainerName> {
    task.pairs().filter(|(spec, container)| spec.essential && container.live.unsettled).map(|(spec, _)| &spec.name)
}

/// The containers that must end before this one may be stopped.
pub(super) fn dependents(task: &TaskState, index: usize) -> Vec<Awaited> {
    open_dependents(task, index).map(|name| entry(task, name, Requirement::End)).collect()
}

/// The containers that depend on this one and have not stopped.
fn open_dependents(task: &TaskState, index: usize) -> impl Iterator<Item = &ContainerName> {
    let name = &task.containers[index].spec.name;
    let dependents = task.pairs().filter(move |(spec, container)| {
        !container.is_stopped() && spec.depends_on.iter().any(|dependency| &dependency.container == name)
    });
    dependents.map(|(spec, _)| &spec.name)
}

/// Whether this container may be stopped: only after all containers that depend on it, which is the reverse of the start order.
pub(super) fn may_stop(task: &TaskState, index: usize) -> bool {
    open_dependents(task, index).next().is_none()
}

/// Whether all containers can start at all. False for cycles, unknown names, and `HEALTHY` on a container without a health
/// check.
pub(super) fn is_solvable(spec: &TaskSpec) -> bool {
    let mut placed: Vec<&ContainerSpec> = Vec::new();
    while placed.len() < spec.containers.len() {
        let before = placed.len();
        for container in &spec.containers {
            let is_placed = placed.iter().any(|other| other.name == container.name);
            if !is_placed && container.depends_on.iter().all(|dependency| met_by(&placed, dependency)) {
                placed.push(container);
            }
        }
        if placed.len() == before {
            return false;
        }
    }
    true
}

/// Whether a container that is placed already can meet the dependency.
fn met_by(placed: &[&ContainerSpec], dependency: &Dependency) -> bool {
    placed.iter().any(|container| {
        container.name == dependency.container && (dependency.condition != Condition::Healthy || container.health_check)
    })
}

/// Whether this container may go on, as far as one of its dependencies is concerned.
fn judge(task: &TaskState, index: usize, dependency: &Dependency, now: Timestamp) -> Readiness {
    let Some(at) = task.index_of(&dependency.container) else {
        return never(task, index, &dependency.container.0, Unmeetable::Unknown);
    };
    let (spec, container) = (&task.containers[at].spec, &task.containers[at].state);
    let describe = || describe(task, at);
    if container.live.unsettled {
        return Readiness::Waits(None); // the facts about the container may be outdated
    }
    if !container.ran && (container.is_stopped() || container.failure.is_some()) && container.live.operation.is_none() {
        return never(task, index, &describe(), Unmeetable::NeverStarts);
    }
    // A stopped container that runs again must be stopped first. Until then it meets no dependency.
    let is_seen_running = container.observed == Some(RunState::Running);
    let settled = container.is_stopped() && container.live.operation.is_none() && !is_seen_running;
    let met = match dependency.condition {
        Condition::Create => container.known >= ContainerStatus::Created,
        Condition::Start => container.ran,
        Condition::Complete => settled && container.exit_code.is_some(),
        Condition::Success => settled && container.exit_code == Some(0),
        Condition::Healthy => spec.health_check && container.health == Health::Healthy && !container.is_stopped(),
    };
    if met {
        return Readiness::Ready;
    }
    // Compat, except for `HEALTHY` and `COMPLETE`: the Go agent waits for ever for a container that ended without meeting them.
    let ended = match dependency.condition {
        Condition::Success | Condition::Healthy => settled,
        Condition::Complete => settled && container.exit_code.is_none(),
        Condition::Create | Condition::Start => false,
    };
    if ended {
        return never(task, index, &describe(), Unmeetable::Ended);
    }
    match deadline(spec, container, dependency) {
        Some(deadline) if now > deadline && task.containers[index].state.known < ContainerStatus::Created => {
            never(task, index, &describe(), Unmeetable::TimedOut)
        }
        Some(deadline) if now <= deadline => Readiness::Waits(Some(deadline + Span::millis(1))),
        Some(_) | None => Readiness::Waits(None),
    }
}

/// The moment at which the wait for this dependency times out: `startTimeout` after the first start of the container; `None`:
/// never.
fn deadline(spec: &ContainerSpec, container: &ContainerState, dependency: &Dependency) -> Option<Timestamp> {
    let timed = matches!(dependency.condition, Condition::Complete | Condition::Success | Condition::Healthy);
    if !timed || container.is_stopped() {
        return None;
    }
    Some(container.running_since? + spec.start_timeout?)
}

/// Why a dependency can never be met.
#[derive(Clone, Copy, Debug)]
enum Unmeetable {
    /// The task has no such container.
    Unknown,
    /// The container will never start.
    NeverStarts,
    /// The container has ended without meeting the condition.
    Ended,
    /// The container's `startTimeout` is over.
    TimedOut,
}

/// The failure in the words of the Go agent, which operators search for.
fn never(task: &TaskState, index: usize, dependency: &str, why: Unmeetable) -> Readiness {
    let target = describe(task, index);
    let (failed, why) = match why {
        Unmeetable::Unknown => ("", "does not exist."),
        Unmeetable::TimedOut => ("", "has timed out."),
        Unmeetable::NeverStarts => ("failed to resolve ", "because dependency will never start"),
        Unmeetable::Ended => ("failed to resolve ", "as dependency did not exit successfully."),
    };
    let text =
        format!("dependency graph: {failed}container ordering dependency [{dependency}] for target [{target}] {why}");
    Readiness::Never(Failure::permanent("CannotStartContainerError", text))
}

/// Describes a container as the Go agent does: `name(image) (KNOWN->DESIRED)[ - Exit: n]`.
fn describe(task: &TaskState, index: usize) -> String {
    let (spec, container) = (&task.containers[index].spec, &task.containers[index].state);
    // A container that ended by itself was still desired to run.
    let is_to_stop = task.desired == TaskStatus::Stopped || container.failure.is_some();
    let desired = if is_to_stop { TaskStatus::Stopped } else { TaskStatus::Running };
    let exit = container.exit_code.map(|code| format!(" - Exit: {code}")).unwrap_or_default();
    format!("{}({}) ({}->{desired}){exit}", spec.name, spec.image, container.known)
}

#[cfg(test)]
mod tests;
