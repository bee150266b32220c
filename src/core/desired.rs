//! The facts of a task that follow from its containers: its known status, its desired status, and when its execution stopped.

use super::state::{ContainerState, TaskState};
use crate::model::text::cleaned;
use crate::model::{ContainerStatus, TaskStatus, Timestamp};

/// Updates the derived facts of a task; true if any changed. Source: spec `task-engine.md` §3.6.
pub(super) fn derive(task: &mut TaskState, now: Timestamp) -> bool {
    derive_to(task, now, TaskStatus::Stopped)
}

/// Updates the derived facts in the middle of a list of observations. The task does not become `Stopped` here, since a later
/// observation of the list may show a running container.
pub(super) fn derive_midway(task: &mut TaskState, now: Timestamp) {
    derive_to(task, now, TaskStatus::Running);
}

fn derive_to(task: &mut TaskState, now: Timestamp, highest: TaskStatus) -> bool {
    let mut has_changed = clear_future_moments(task, now);
    let essential_over = task.pairs().any(|(spec, container)| spec.essential && container.is_stopped());
    let essential_lost = task.pairs().any(|(spec, container)| spec.essential && container.failure.is_some());
    if (essential_over || essential_lost) && task.desired != TaskStatus::Stopped {
        task.desired = TaskStatus::Stopped;
        has_changed = true;
    }
    if essential_over && task.execution_stopped_at.is_none() {
        task.execution_stopped_at = Some(now);
        has_changed = true;
    }
    if let Some(status) = task.states().map(|container| task_status(container.known)).min()
        && status > task.known
        && status <= highest
        // The other containers are about to stop, so the task is not reported as running.
        && !(status == TaskStatus::Running && essential_over)
        // A stopped container that runs again, after a late start, must be stopped first. Until then the task's share is not
        // free.
        && !(status == TaskStatus::Stopped && task.is_seen_running())
    {
        task.known = status;
        task.known_at = now;
        task.ran |= status == TaskStatus::Running;
        has_changed = true;
    }
    has_changed
}

/// Makes the task stop, with this reason unless it has one already. Compat: the reason has single blanks between words and a
/// capital first letter (spec `task-engine.md` §14).
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
    let moments = |container| -> Vec<&mut Timestamp> {
        let container: &mut ContainerState = container;
        [&mut container.running_since, &mut container.restarts.last].into_iter().flatten().collect()
    };
    let since = task.containers.iter_mut().map(|container| &mut container.state).flat_map(moments);
    let mut has_changed = false;
    for moment in since.chain([&mut task.known_at]).filter(|moment| **moment > now) {
        *moment = now;
        has_changed = true;
    }
    has_changed
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
