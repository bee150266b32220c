//! Which state change ECS must hear of, and its content.
//!
//! A change is due when `sent` is behind `known`. One report of a task is in flight at a time, so changes arrive in order. A task
//! that ran is said to be `RUNNING` even if it has stopped meanwhile; so is a container, unless the task is over. Changes of
//! containers alone wait 10 to 30 s for a change of the task to travel with (spec `ecs-api.md` §3).

use super::backoff::{self, spread};
use super::effect::Effect;
use super::event::Outcome;
use super::plan::Planning;
use super::state::{ContainerState, Owner, ReportInFlight, Retry, TaskState};
use crate::model::{
    ContainerChange, ContainerSpec, ContainerStatus, FailureKind, Span, StateChange, TaskStatus, Timestamp,
};

/// Emits the report that is due, if any.
pub(super) fn plan(task: &mut TaskState, planning: &mut Planning<'_>) {
    if task.report.is_some() {
        return;
    }
    let Some((status, containers)) = due(task, planning) else { return };
    if !planning.is_time(task.report_retry.not_before) {
        return;
    }
    let change = StateChange {
        task: task.spec.arn.clone(),
        status,
        reason: if status == TaskStatus::Stopped { task.reason.clone().unwrap_or_default() } else { String::new() },
        pull_started_at: task.pull_started_at,
        pull_stopped_at: task.pull_stopped_at,
        execution_stopped_at: if status == TaskStatus::Stopped { task.execution_stopped_at } else { None },
        containers: containers
            .iter()
            .map(|(index, status)| container_change(&task.spec.containers[*index], &task.containers[*index], *status))
            .collect(),
    };
    let op = planning.state.new_op(Owner::Report(task.spec.arn.clone()));
    task.report = Some(ReportInFlight { op, status, containers });
    task.drain_at = None;
    planning.out.effects.push(Effect::Report { op, change: Box::new(change) });
}

/// Writes the outcome of the report in flight.
pub(super) fn completed(task: &mut TaskState, now: Timestamp, outcome: &Outcome) {
    let Some(report) = task.report.take() else { return };
    match outcome {
        // ECS will never accept a report it found invalid, and repeating it would hold up all that follow.
        // The reference drops such a report without marking it sent and then never cleans the task up.
        Outcome::Done(_) => accepted(task, &report),
        Outcome::Failed(failure) if failure.kind != FailureKind::Retryable => accepted(task, &report),
        Outcome::Failed(_) | Outcome::Unknown(_) => {
            backoff::REPORT.again(&mut task.report_retry, now, &task.spec.arn.0);
        }
    }
}

fn accepted(task: &mut TaskState, report: &ReportInFlight) {
    task.sent = task.sent.max(report.status);
    for (index, status) in &report.containers {
        let container = &mut task.containers[*index];
        container.sent = container.sent.max(*status);
    }
    task.report_retry = Retry::default();
}

/// The status to say of the task and the containers to speak of.
fn due(task: &mut TaskState, planning: &mut Planning<'_>) -> Option<(TaskStatus, Vec<(usize, ContainerStatus)>)> {
    if let Some(status) = due_status(task) {
        return Some((status, due_containers(task, status)));
    }
    let containers = due_containers(task, task.known);
    if containers.is_empty() || task.known == TaskStatus::Stopped {
        return None;
    }
    let wait = Span::millis(10_000 + spread(20_000, &[&task.spec.arn.0, &planning.now.0.to_string()]));
    let drain_at = *task.drain_at.get_or_insert(planning.now + wait);
    planning.is_time(drain_at).then_some((task.known, containers))
}

/// The next status of the task that ECS has not heard of.
fn due_status(task: &TaskState) -> Option<TaskStatus> {
    if task.ran && task.sent < TaskStatus::Running {
        return Some(TaskStatus::Running);
    }
    if task.known == TaskStatus::Stopped {
        // What was revived meanwhile is stopped before it is said that nothing runs.
        return (task.sent < TaskStatus::Stopped && !task.is_seen_running()).then_some(TaskStatus::Stopped);
    }
    let has_digest = task.pairs().any(|(spec, container)| digest_is_news(spec, container));
    let pending = task.known >= TaskStatus::ManifestPulled && task.sent < TaskStatus::ManifestPulled && has_digest;
    pending.then_some(TaskStatus::ManifestPulled)
}

fn due_containers(task: &TaskState, status: TaskStatus) -> Vec<(usize, ContainerStatus)> {
    let due = task.pairs().enumerate().filter_map(|(index, (spec, container))| {
        let rung = if container.ran && container.sent < ContainerStatus::Running && status != TaskStatus::Stopped {
            ContainerStatus::Running
        } else if container.known >= ContainerStatus::Running {
            container.known
        } else if container.known >= ContainerStatus::ManifestPulled && digest_is_news(spec, container) {
            ContainerStatus::ManifestPulled
        } else {
            ContainerStatus::None
        };
        (rung > container.sent).then_some((index, rung))
    });
    due.collect()
}

/// The agent found the digest out itself, so ECS wants to know it (services pin it).
fn digest_is_news(spec: &ContainerSpec, container: &ContainerState) -> bool {
    container.digest.is_some() && !spec.image.contains('@')
}

fn container_change(spec: &ContainerSpec, container: &ContainerState, status: ContainerStatus) -> ContainerChange {
    let is_over = status == ContainerStatus::Stopped;
    ContainerChange {
        container: spec.name.clone(),
        runtime_id: container.runtime_id.clone(),
        image_digest: container.digest.clone(),
        status,
        exit_code: if is_over { container.exit_code } else { None },
        reason: if is_over { container.failure.as_ref().map(ToString::to_string) } else { None },
        bindings: if status >= ContainerStatus::Running { container.bindings.clone() } else { Vec::new() },
    }
}
