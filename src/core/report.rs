//! Which state change must be reported to ECS, and its content.
//!
//! A report is due when `sent` is behind `known`. Only one report of a task is pending at a time, so changes arrive in order. A
//! task that ran is reported as `RUNNING` even if it has stopped meanwhile; so is a container, unless the task has stopped. If
//! only containers have changed, the report waits 10 to 30 s for a change of the task (spec `ecs-api.md` §3).

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
    let Some((status, containers)) = due(task, planning) else { return };
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

fn due_containers(task: &TaskState, status: TaskStatus) -> Vec<(usize, ContainerStatus)> {
    let reported = task.pairs().enumerate().filter(|(_, (spec, _))| spec.kind == ContainerKind::Normal);
    let due = reported.filter_map(|(index, (spec, container))| {
        let reached = if container.ran && container.sent < ContainerStatus::Running && status != TaskStatus::Stopped {
            ContainerStatus::Running
        } else if container.known >= ContainerStatus::Running {
            container.known
        } else if container.known >= ContainerStatus::ManifestPulled && digest_was_resolved(spec, container) {
            ContainerStatus::ManifestPulled
        } else {
            ContainerStatus::None
        };
        (reached > container.sent).then_some((index, reached))
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
mod tests {
    use super::*;
    use crate::model::task::PortMapping;
    use crate::model::{Failure, OpId, PortBinding, Protocol, RunState};
    use crate::policy::Policy;
    use crate::sample::{NOW, container, done, state, task};
    use crate::state::State;
    use crate::{Event, Output, next_deadline, step};

    /// A task with two running containers, of which nothing has been reported yet.
    fn running() -> TaskState {
        let mut task = task(vec![container("a", &[]), container("b", &[])]);
        (task.known, task.ran, task.admitted) = (TaskStatus::Running, true, true);
        (task.pull_started_at, task.pull_stopped_at) = (Some(Timestamp(1)), Some(Timestamp(2)));
        for crate::state::Container { spec, state: container } in &mut task.containers {
            spec.essential = false;
            spec.ports.push(PortMapping { container_port: 80, host_port: 80, protocol: Protocol::Tcp });
            (container.known, container.observed) = (ContainerStatus::Running, Some(RunState::Running));
            (container.create_asked, container.ran, container.running_since) = (true, true, Some(NOW));
            container.digest = Some("sha256:1".to_owned());
            let bind_ip = String::new();
            container.bindings =
                vec![PortBinding { container_port: 80, host_port: 80, bind_ip, protocol: Protocol::Tcp }];
        }
        task
    }

    fn all_sent(mut task: TaskState) -> TaskState {
        task.sent = task.known;
        task.states_mut().for_each(|container| container.sent = container.known);
        task
    }

    fn end(task: &mut TaskState, index: usize, code: i32) {
        let container = &mut task.containers[index].state;
        (container.known, container.observed) = (ContainerStatus::Stopped, Some(RunState::Exited));
        container.exit_code = Some(code);
    }

    fn with(mut task: TaskState) -> State {
        let mut state = state(Policy::default());
        let inventory = *state.ops.keys().next().expect("the inventory is in flight");
        step(&mut state, NOW, done(inventory, Output::Inventory(Vec::new())));
        (task.live.wake, state.wakes_from) = (Some(NOW), NOW);
        state.tasks.insert(task.spec.arn.clone(), Box::new(task));
        state
    }

    fn reported(state: &mut State, now: Timestamp) -> Option<(OpId, StateChange)> {
        step(state, now, Event::Tick).effects.into_iter().find_map(|effect| match effect {
            Effect::Do(op, Operation::Report(change)) => Some((op, *change)),
            _ => None,
        })
    }

    fn statuses(change: &StateChange) -> Vec<(&str, ContainerStatus)> {
        change.containers.iter().map(|container| (container.container.as_str(), container.status)).collect()
    }

    fn fails(op: OpId, failure: Failure) -> Event {
        Event::Completed { op, outcome: Err(OpError::Failed(failure)) }
    }

    #[test]
    fn the_content_of_a_report_fits_its_status() {
        use ContainerStatus::{Running, Stopped};
        let mut task = running();
        task.reason = Some("for this reason".to_owned());
        // The exit code of its first run and a failure are reported when the container has stopped, not before.
        task.containers[1].state.exit_code = Some(7);
        task.containers[1].state.fail(Failure::permanent("Name", "text"));
        task.containers[1].state.live.operation = None;
        let mut state = with(task);
        let (op, change) = reported(&mut state, NOW).unwrap();
        assert_eq!(
            (change.status, change.reason.as_str(), change.execution_stopped_at),
            (TaskStatus::Running, "", None)
        );
        assert_eq!((change.pull_started_at, change.pull_stopped_at), (Some(Timestamp(1)), Some(Timestamp(2))));
        assert_eq!(statuses(&change), [("a", Running), ("b", Running)]);
        assert!(change.containers.iter().all(|container| container.exit_code.is_none()
            && container.reason.is_none()
            && container.bindings.len() == 1));
        assert!(reported(&mut state, NOW).is_none(), "one at a time");
        step(&mut state, NOW, done(op, Output::Nothing));

        let task = state.tasks.get_mut(&"task".into()).unwrap();
        (0..2).for_each(|index| end(task, index, 7));
        (task.desired, task.execution_stopped_at) = (TaskStatus::Stopped, Some(Timestamp(3)));
        task.states_mut().for_each(|container| container.live.operation = None);
        (task.live.wake, state.wakes_from) = (Some(NOW), NOW);
        state.ops.clear();
        let (_, change) = reported(&mut state, NOW).unwrap();
        assert_eq!(change.status, TaskStatus::Stopped);
        assert_eq!((change.reason.as_str(), change.execution_stopped_at), ("for this reason", Some(Timestamp(3))));
        assert_eq!(statuses(&change), [("a", Stopped), ("b", Stopped)]);
        let details: Vec<_> =
            change.containers.iter().map(|container| (container.exit_code, container.reason.as_deref())).collect();
        assert_eq!(details, [(Some(7), None), (Some(7), Some("Name: text"))]);
    }

    #[test]
    fn the_end_of_execution_is_in_the_next_report() {
        let mut task = all_sent(running());
        task.containers[0].spec.essential = true;
        (task.desired, task.containers[1].spec.stop_timeout) = (TaskStatus::Stopped, Some(Span::secs(120)));
        end(&mut task, 0, 1);
        let mut state = with(task);
        assert!(reported(&mut state, NOW).is_none());
        let at = state.tasks[&"task".into()].live.report_containers_at.unwrap();
        let (_, change) = reported(&mut state, at).unwrap();
        assert_eq!(
            (change.status, change.execution_stopped_at),
            (TaskStatus::Running, Some(NOW)),
            "the rest still stops"
        );
    }

    #[test]
    fn the_end_of_a_container_alone_is_reported_after_10_to_30_s() {
        let mut task = all_sent(running());
        end(&mut task, 0, 0);
        let mut state = with(task);
        assert!(reported(&mut state, NOW).is_none());
        let at = state.tasks[&"task".into()].live.report_containers_at.unwrap();
        assert!((NOW + Span::secs(10)..=NOW + Span::secs(30)).contains(&at) && next_deadline(&state) == Some(at));
        assert!(reported(&mut state, Timestamp(at.0 - 1)).is_none());
        let (op, change) = reported(&mut state, at).unwrap();
        assert_eq!((change.status, statuses(&change)), (TaskStatus::Running, vec![("a", ContainerStatus::Stopped)]));
        step(&mut state, at, done(op, Output::Nothing));
        let task = &state.tasks[&"task".into()];
        assert_eq!((task.containers[0].state.sent, task.live.report_containers_at), (ContainerStatus::Stopped, None));
    }

    #[test]
    fn a_local_digest_is_reported_only_with_other_changes() {
        let table = [(None, "sha256:here"), (Some("sha256:1"), "sha256:1")];
        for (digest, wanted) in table {
            let mut running = running();
            running.states_mut().for_each(|container| container.digest = None);
            running.containers[0].state.local_digest = Some("sha256:here".to_owned());
            let mut pulled = running.clone();
            (pulled.known, pulled.ran) = (TaskStatus::ManifestPulled, false);
            pulled
                .states_mut()
                .for_each(|container| (container.known, container.ran) = (ContainerStatus::Created, false));
            assert!(reported(&mut with(pulled), NOW).is_none(), "it causes no report by itself");
            running.containers[0].state.digest = digest.map(str::to_owned);
            let (_, change) = reported(&mut with(running), NOW).unwrap();
            assert_eq!(change.containers[0].image_digest.as_deref(), Some(wanted));
        }
    }

    #[test]
    fn a_digest_is_reported_if_the_agent_resolved_it() {
        let pulled = |image: &str, digest: Option<&str>, sent: TaskStatus| {
            let mut task = task(vec![container("a", &[])]);
            task.containers[0].spec.image = image.to_owned();
            (task.known, task.sent, task.admitted) = (TaskStatus::ManifestPulled, sent, true);
            task.containers[0].state.known = ContainerStatus::Pulled;
            task.containers[0].state.digest = digest.map(str::to_owned);
            let mut state = with(task);
            let change = reported(&mut state, NOW);
            let is_pending = state.tasks[&"task".into()].live.report_containers_at.is_some();
            assert!(
                !is_pending || sent == TaskStatus::ManifestPulled,
                "a digest that causes no report does not wait for one either"
            );
            let change = change?.1;
            Some((change.status, statuses(&change).len(), change.containers[0].image_digest.clone()))
        };
        let expected = Some((TaskStatus::ManifestPulled, 1, Some("sha256:1".to_owned())));
        assert_eq!(pulled("image", Some("sha256:1"), TaskStatus::None), expected);
        assert_eq!(pulled("image", Some("sha256:1"), TaskStatus::ManifestPulled), None);
        assert_eq!(pulled("image", None, TaskStatus::None), None);
        assert_eq!(pulled("image@sha256:1", Some("sha256:1"), TaskStatus::None), None);
    }

    #[test]
    fn a_failed_report_is_repeated_unless_it_is_invalid() {
        let mut state = with(running());
        let (op, change) = reported(&mut state, NOW).unwrap();
        step(&mut state, NOW, fails(op, Failure::retryable("SubmitTaskStateChange", "throttled")));
        let again = state.tasks[&"task".into()].live.report_retry.not_before;
        assert!(reported(&mut state, Timestamp(again.0 - 1)).is_none());
        let (op, same) = reported(&mut state, again).unwrap();
        assert_eq!(same, change);
        step(&mut state, again, fails(op, Failure::permanent("InvalidParameterException", "no")));
        let task = &state.tasks[&"task".into()];
        assert_eq!(
            (task.sent, task.live.report_retry, task.live.report.is_none()),
            (TaskStatus::Running, Retry::default(), true)
        );
        assert!(task.states().all(|container| container.sent == ContainerStatus::Running));
    }

    #[test]
    fn running_is_reported_before_stopped_if_the_task_ran() {
        let mut task = running();
        (0..2).for_each(|index| end(&mut task, index, 0));
        (task.known, task.desired) = (TaskStatus::Stopped, TaskStatus::Stopped);
        task.execution_stopped_at = Some(Timestamp(3));
        let mut state = with(task);
        let (op, change) = reported(&mut state, NOW).unwrap();
        assert_eq!((change.status, change.execution_stopped_at), (TaskStatus::Running, None));
        assert_eq!(statuses(&change), [("a", ContainerStatus::Running), ("b", ContainerStatus::Running)]);
        let after = step(&mut state, NOW, done(op, Output::Nothing)).effects;
        let [Effect::Do(_, Operation::Report(change))] = &after[..] else { panic!("{after:?}") };
        assert_eq!((change.status, change.execution_stopped_at), (TaskStatus::Stopped, Some(Timestamp(3))));
    }
}
