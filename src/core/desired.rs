//! What follows from the containers for the task: its status, what is wanted of it, and when it stopped executing.

use super::state::{ContainerState, TaskState};
use crate::model::text::cleaned;
use crate::model::{ContainerStatus, TaskStatus, Timestamp};

/// Brings the derived facts of a task up to date; true if any changed. Source: spec `task-engine.md` §3.6.
pub(super) fn derive(task: &mut TaskState, now: Timestamp) -> bool {
    derive_to(task, now, TaskStatus::Stopped)
}

/// The same in the middle of a list of news: whether the task is over is not known before the last of them.
pub(super) fn derive_midway(task: &mut TaskState, now: Timestamp) {
    derive_to(task, now, TaskStatus::Running);
}

fn derive_to(task: &mut TaskState, now: Timestamp, highest: TaskStatus) -> bool {
    let mut moved = no_moment_ahead(task, now);
    let essential_over = task.pairs().any(|(spec, container)| spec.essential && container.is_stopped());
    let essential_lost = task.pairs().any(|(spec, container)| spec.essential && container.failure.is_some());
    if (essential_over || essential_lost) && task.desired != TaskStatus::Stopped {
        task.desired = TaskStatus::Stopped;
        moved = true;
    }
    if essential_over && task.execution_stopped_at.is_none() {
        task.execution_stopped_at = Some(now);
        moved = true;
    }
    if let Some(status) = task.states().map(|container| task_status(container.known)).min()
        && status > task.known
        && status <= highest
        // The rest of the task is about to stop: it is not said to run.
        && !(status == TaskStatus::Running && essential_over)
        // A container that was stopped and runs again (a start that came late) is stopped first; its share is not free yet.
        && !(status == TaskStatus::Stopped && task.is_seen_running())
    {
        task.known = status;
        task.known_at = now;
        task.ran |= status == TaskStatus::Running;
        moved = true;
    }
    moved
}

/// The task must stop, for this reason unless it has one already. Compat: one blank between words, a capital first (spec
/// `task-engine.md` §14).
pub(super) fn end(task: &mut TaskState, reason: &str) {
    let mut reason = cleaned(&reason.split_whitespace().collect::<Vec<_>>().join(" "));
    if let Some(first) = reason.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    task.reason.get_or_insert(reason);
    task.desired = TaskStatus::Stopped;
}

/// The clock may have been set back while the agent was down. What waits for such a moment would wait for years.
fn no_moment_ahead(task: &mut TaskState, now: Timestamp) -> bool {
    let moments = |it| -> Vec<&mut Timestamp> {
        let container: &mut ContainerState = it;
        [&mut container.running_since, &mut container.restarts.last].into_iter().flatten().collect()
    };
    let since = task.containers.iter_mut().map(|container| &mut container.state).flat_map(moments);
    let mut moved = false;
    for moment in since.chain([&mut task.known_at]).filter(|moment| **moment > now) {
        *moment = now;
        moved = true;
    }
    moved
}

/// The status a task has when this is its least advanced container.
fn task_status(container: ContainerStatus) -> TaskStatus {
    match container {
        ContainerStatus::None => TaskStatus::None,
        ContainerStatus::ManifestPulled | ContainerStatus::Pulled => TaskStatus::ManifestPulled,
        ContainerStatus::Created => TaskStatus::Created,
        ContainerStatus::Running => TaskStatus::Running,
        ContainerStatus::Stopped => TaskStatus::Stopped,
    }
}
