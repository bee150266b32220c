//! Which state change must be reported to ECS, and its content.
//!
//! A report is due when `sent` is behind `known`. Only one report of a task is pending at a time, so changes arrive in order. A
//! task that ran is reported as `RUNNING` even if it has stopped meanwhile; so is a container, unless the task has stopped. A
//! container that ended while its task goes on has both changes in the same report, as with the Go agent. If only containers
//! have changed, the report waits 10 to 30 s for a change of the task (spec `ecs-api.md` §3).

use super::backoff::{self, spread};
use super::effect::{Effect, Operation};
use super::event::Outcome;
use super::planning::Planning;
use super::ports;
use super::state::{ContainerState, OperationOwner, PendingReport, Retry, TaskState};
use crate::model::task::ContainerKind;
use crate::model::{
    ContainerChange, ContainerName, ContainerSpec, ContainerStatus, FailureKind, OpError, Span, StateChange,
    TaskStatus, Timestamp,
};

/// Starts a report if one is due.
pub(super) fn plan(task: &mut TaskState, planning: &mut Planning<'_>) {
    if task.live.report.is_some() {
        return;
    }
    let Some((status, containers)) = due(task, planning) else {
        task.live.unreported_since = None;
        return;
    };
    let changed_at = if status > task.sent { task.known_at } else { planning.now };
    task.live.unreported_since.get_or_insert(changed_at);
    if !planning.is_time(task.live.report_retry.not_before) {
        return;
    }
    let change = StateChange {
        task: task.spec.arn.clone(),
        status,
        reason: if status == TaskStatus::Stopped { task.reason.clone().unwrap_or_default() } else { String::new() },
        pull_started_at: task.pull_started_at,
        pull_stopped_at: task.pull_stopped_at,
        // A late report of an earlier status does not contain the end of the execution.
        execution_stopped_at: if status == task.known { task.execution_stopped_at } else { None },
        containers: containers
            .iter()
            .map(|(index, status)| {
                container_change(&task.containers[*index].spec, &task.containers[*index].state, *status)
            })
            .chain(task.never_known.iter().map(stopped_unseen))
            .collect(),
    };
    let op = planning.state.new_op(OperationOwner::Report(task.spec.arn.clone()));
    task.live.report = Some(PendingReport { op, status, containers });
    task.live.report_containers_at = None;
    planning.out.effects.push(Effect::Do(op, Operation::Report(Box::new(change))));
}

/// Writes the outcome of the pending report.
pub(super) fn completed(task: &mut TaskState, now: Timestamp, outcome: &Outcome) {
    let Some(report) = task.live.report.take() else { return };
    match outcome {
        // ECS will never accept a report that it found invalid, and repeating it would block all later reports. So it counts as
        // accepted. The Go agent drops such a report without marking it as sent, and then never cleans the task up.
        Ok(_) => accepted(task, &report),
        Err(OpError::Failed(failure)) if failure.kind != FailureKind::Retryable => accepted(task, &report),
        Err(_) => {
            backoff::REPORT.again(&mut task.live.report_retry, now, &task.spec.arn.0);
        }
    }
}

fn accepted(task: &mut TaskState, report: &PendingReport) {
    task.sent = task.sent.max(report.status);
    for (index, status) in &report.containers {
        let container = &mut task.containers[*index].state;
        container.sent = container.sent.max(*status);
    }
    task.live.report_retry = Retry::default();
    task.live.unreported_since = None;
}

/// The statuses of the task and of its containers to report now; `None` if no report is due.
fn due(task: &mut TaskState, planning: &mut Planning<'_>) -> Option<(TaskStatus, Vec<(usize, ContainerStatus)>)> {
    if let Some(status) = due_status(task) {
        return Some((status, due_containers(task, status)));
    }
    let containers = due_containers(task, task.known);
    if containers.is_empty() || task.known == TaskStatus::Stopped {
        return None;
    }
    let wait = Span::millis(10_000 + spread(20_000, &[&task.spec.arn.0, &planning.now.0.to_string()]));
    let report_containers_at = *task.live.report_containers_at.get_or_insert(planning.now + wait);
    planning.is_time(report_containers_at).then_some((task.known, containers))
}

/// The next status of the task that ECS has not accepted; `None` if there is none.
fn due_status(task: &TaskState) -> Option<TaskStatus> {
    if task.ran && task.sent < TaskStatus::Running {
        return Some(TaskStatus::Running);
    }
    if task.known == TaskStatus::Stopped {
        // A container that runs again is stopped before the task is reported as stopped.
        return (task.sent < TaskStatus::Stopped && !task.is_seen_running()).then_some(TaskStatus::Stopped);
    }
    let has_digest = task.pairs().any(|(spec, container)| digest_was_resolved(spec, container));
    let pending = task.known >= TaskStatus::ManifestPulled && task.sent < TaskStatus::ManifestPulled && has_digest;
    pending.then_some(TaskStatus::ManifestPulled)
}

/// The changes of containers to report with this status of the task. A container that ran and has ended has two: ECS is to know
/// that it ran. If the task has stopped too, its own report tells the end of the containers.
fn due_containers(task: &TaskState, status: TaskStatus) -> Vec<(usize, ContainerStatus)> {
    let reported = task.pairs().enumerate().filter(|(_, (spec, _))| spec.kind == ContainerKind::Normal);
    let due = reported.flat_map(|(index, (spec, container))| {
        let tells_the_run = container.ran && container.sent < ContainerStatus::Running && status != TaskStatus::Stopped;
        let ran = tells_the_run.then_some(ContainerStatus::Running);
        let reached = if tells_the_run && task.known == TaskStatus::Stopped {
            ContainerStatus::None
        } else if container.known >= ContainerStatus::Running {
            container.known
        } else if container.known >= ContainerStatus::ManifestPulled && digest_was_resolved(spec, container) {
            ContainerStatus::ManifestPulled
        } else {
            ContainerStatus::None
        };
        let reached = (reached > container.sent.max(ran.unwrap_or_default())).then_some(reached);
        ran.into_iter().chain(reached).map(move |status| (index, status))
    });
    due.collect()
}

/// The agent resolved the digest itself, so ECS needs it: a service then uses this digest for its other tasks too.
fn digest_was_resolved(spec: &ContainerSpec, container: &ContainerState) -> bool {
    container.digest.is_some() && !spec.image.contains('@')
}

/// The reported change of a container whose task ECS asked to stop and that was unknown here.
fn stopped_unseen(name: &ContainerName) -> ContainerChange {
    let (spec, container) =
        (ContainerSpec { name: name.clone(), ..ContainerSpec::default() }, ContainerState::default());
    container_change(&spec, &container, ContainerStatus::Stopped)
}

fn container_change(spec: &ContainerSpec, container: &ContainerState, status: ContainerStatus) -> ContainerChange {
    let is_over = status == ContainerStatus::Stopped;
    let bound = if status >= ContainerStatus::Running { container.bindings.as_slice() } else { &[] };
    ContainerChange {
        container: spec.name.clone(),
        runtime_id: container.runtime_id.clone(),
        image_digest: container.digest.clone().or_else(|| container.local_digest.clone()),
        status,
        exit_code: if is_over { container.exit_code } else { None },
        reason: if is_over { container.failure.as_ref().map(ToString::to_string) } else { None },
        bindings: ports::single(spec, bound),
        range_bindings: ports::ranges(spec, bound),
    }
}

#[cfg(test)]
mod tests;
