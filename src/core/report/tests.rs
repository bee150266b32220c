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
        container.bindings = vec![PortBinding { container_port: 80, host_port: 80, bind_ip, protocol: Protocol::Tcp }];
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
    assert_eq!((change.status, change.reason.as_str(), change.execution_stopped_at), (TaskStatus::Running, "", None));
    assert_eq!((change.pull_started_at, change.pull_stopped_at), (Some(Timestamp(1)), Some(Timestamp(2))));
    assert_eq!(statuses(&change), [("a", Running), ("b", Running)]);
    assert!(
        change.containers.iter().all(|container| container.exit_code.is_none()
            && container.reason.is_none()
            && container.bindings.len() == 1)
    );
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
    assert_eq!((change.status, change.execution_stopped_at), (TaskStatus::Running, Some(NOW)), "the rest still stops");
}

#[test]
fn a_container_that_ended_before_running_is_reported_has_both() {
    use ContainerStatus::{Running, Stopped};
    let mut task = running();
    end(&mut task, 0, 0);
    let mut state = with(task);
    let (op, change) = reported(&mut state, NOW).unwrap();
    assert_eq!(change.status, TaskStatus::Running);
    assert_eq!(statuses(&change), [("a", Running), ("a", Stopped), ("b", Running)]);
    let exit_codes: Vec<_> = change.containers.iter().map(|container| container.exit_code).collect();
    assert_eq!(exit_codes, [None, Some(0), None]);
    step(&mut state, NOW, done(op, Output::Nothing));
    let task = &state.tasks[&"task".into()];
    assert_eq!((task.containers[0].state.sent, task.live.report_containers_at), (Stopped, None), "nothing is left");
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
        pulled.states_mut().for_each(|container| (container.known, container.ran) = (ContainerStatus::Created, false));
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

#[test]
fn a_change_waits_since_it_happened_until_ecs_accepts_it() {
    let mut task = running();
    task.known_at = Timestamp(NOW.0 - 5);
    let mut state = with(task);
    let since = |state: &State| state.tasks[&"task".into()].live.unreported_since;
    let (op, _) = reported(&mut state, NOW).unwrap();
    assert_eq!(since(&state), Some(Timestamp(NOW.0 - 5)));
    step(&mut state, NOW, fails(op, Failure::retryable("SubmitTaskStateChange", "throttled")));
    let again = state.tasks[&"task".into()].live.report_retry.not_before;
    let (op, _) = reported(&mut state, again).unwrap();
    assert_eq!(since(&state), Some(Timestamp(NOW.0 - 5)), "as long as it fails");
    step(&mut state, again, done(op, Output::Nothing));
    assert_eq!(since(&state), None);
}
