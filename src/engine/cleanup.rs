//! When a stopped task may be removed from the engine and forgotten.
//!
//! Only after ECS has accepted `STOPPED`, and after the operator's wait: people look at stopped containers. A task is forgotten
//! when nothing is left of it in the engine, so no container is leaked.

use super::backoff::spread;
use super::container::target;
use super::effect::Effect;
use super::plan::Planning;
use super::state::{OperationKind, State, TaskState};
use super::{Key, Step, credentials};
use crate::model::{RunState, Span, TaskStatus};

/// Starts the removal of what can be removed.
pub(super) fn plan(task: &mut TaskState, planning: &mut Planning<'_>) {
    if task.known != TaskStatus::Stopped || task.sent != TaskStatus::Stopped || task.report.is_some() {
        return;
    }
    let policy = &planning.state.policy;
    let jitter = Span::millis(spread(policy.cleanup_jitter.0, &["cleanup", &task.spec.arn.0]));
    let due = task.known_at + policy.cleanup_wait + jitter;
    if !planning.is_time(due) {
        return;
    }
    for index in 0..task.containers.len() {
        let container = &task.containers[index];
        let is_busy =
            container.operation.is_some() || container.unsettled || container.observed == Some(RunState::Running);
        let not_before = container.retry.not_before;
        if !container.create_asked || container.removed || is_busy || !planning.is_time(not_before) {
            continue;
        }
        let target = target(task, index);
        planning.start(task, index, OperationKind::Remove, |op| Effect::Remove { op, target });
    }
    task.removing = true;
}

/// Nothing is left of the task.
pub(super) fn is_over(task: &TaskState) -> bool {
    task.removing
        && task.containers.iter().all(|container| {
            container.operation.is_none() && !container.unsettled && (container.removed || !container.create_asked)
        })
}

/// Drops what the agent remembers of it. The task is no longer in the state.
pub(super) fn forget(state: &mut State, task: &TaskState, out: &mut Step) {
    out.changed.insert(Key::Task(task.spec.arn.clone()));
    credentials::forget(state, task, &mut out.effects);
}
