//! The facts of a task that follow from its containers: its status, its desired status, and when it stopped executing.

use super::state::{ContainerState, TaskState};
use crate::model::text::cleaned;
use crate::model::{ContainerStatus, TaskStatus, Timestamp};

/// Updates the derived facts of a task; true if any changed. Source: spec `task-engine.md` §3.6.
pub(super) fn derive(task: &mut TaskState, now: Timestamp) -> bool {
    derive_to(task, now, TaskStatus::Stopped)
}

/// Updates the derived facts in the middle of a list of observations. Whether the task has stopped is not known before the last
/// of them.
pub(super) fn derive_midway(task: &mut TaskState, now: Timestamp) {
    derive_to(task, now, TaskStatus::Running);
}

fn derive_to(task: &mut TaskState, now: Timestamp, highest: TaskStatus) -> bool {
    let mut moved = clear_future_moments(task, now);
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
        // The rest of the task is about to stop, so the task is not reported as running.
        && !(status == TaskStatus::Running && essential_over)
        // A stopped container that runs again, after a late start, must be stopped first. The share of the task is not free
        // before.
        && !(status == TaskStatus::Stopped && task.is_seen_running())
    {
        task.known = status;
        task.known_at = now;
        task.ran |= status == TaskStatus::Running;
        moved = true;
    }
    moved
}

/// Ends the task, with this reason unless it has one already. Compat: single blanks between words and a capital first letter
/// (spec `task-engine.md` §14).
pub(super) fn end(task: &mut TaskState, reason: &str) {
    let mut reason = cleaned(&reason.split_whitespace().collect::<Vec<_>>().join(" "));
    if let Some(first) = reason.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    task.reason.get_or_insert(reason);
    task.desired = TaskStatus::Stopped;
}

/// Moves moments in the future back to now; true if there were any. The clock may have been set back while the agent was down,
/// and a wait that begins at such a moment could last for years.
fn clear_future_moments(task: &mut TaskState, now: Timestamp) -> bool {
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

/// The status of a task whose least advanced container has this status.
fn task_status(container: ContainerStatus) -> TaskStatus {
    match container {
        ContainerStatus::None => TaskStatus::None,
        ContainerStatus::ManifestPulled | ContainerStatus::Pulled => TaskStatus::ManifestPulled,
        ContainerStatus::Created => TaskStatus::Created,
        ContainerStatus::Running => TaskStatus::Running,
        ContainerStatus::Stopped => TaskStatus::Stopped,
    }
}
