//! Tests of messages from ACS and observations of Docker.

use crate::model::{
    Ack, ContainerStatus, Failure, OpError, RunState, RuntimeId, TaskArn, TaskStatus, Timestamp, task::Condition,
};
use crate::policy::{Capacity, Policy};
use crate::sample::{NOW, container, done, run, seen, spec, state, task};
use crate::seen::observe;
use crate::state::{Key, State};
use crate::{Effect, Event, Message, Operation, Output, PayloadTask, Step, step};
use std::collections::BTreeSet;

/// A state with tasks that wait for their share for ever, so that nothing else happens to them. No inventory is due.
fn with_tasks(arns: &[&str]) -> State {
    let capacity = Capacity { cpu: 10, memory: 10, ..Capacity::default() };
    let mut state = state(Policy { capacity, ..Policy::default() });
    let inventory = *state.ops.keys().next().unwrap();
    step(&mut state, NOW, done(inventory, Output::Inventory(Vec::new())));
    let holder = task(vec![container("a", &[])]);
    let mut holder = super::super::TaskState { admitted: true, ..holder };
    (holder.spec.arn, holder.containers[0].spec.cpu) = ("holder".into(), 10);
    holder.containers[0].state.live.retry.not_before = Timestamp(u64::MAX);
    state.tasks.insert("holder".into(), Box::new(holder));
    for arn in arns {
        let mut spec = spec(arn, vec![container("a", &[])]);
        spec.containers[0].cpu = 1;
        step(&mut state, NOW, run(spec));
    }
    state.host.seq = 10;
    state
}

fn ack(message_id: &str) -> Ack {
    Ack {
        message_id: message_id.to_owned(),
        cluster: "cluster".to_owned(),
        container_instance: "instance".to_owned(),
        credentials: Vec::new(),
    }
}

fn manifest(timeline: i64, running: &[&str], message_id: &str) -> Event {
    let running = running.iter().chain(&["holder"]).map(|arn| TaskArn::from(*arn)).collect();
    Event::Manifest { timeline, running, ack: ack(message_id) }
}

fn confirmed(message_id: &str, arns: &[&str]) -> Event {
    Event::StopVerificationAck {
        message_id: message_id.to_owned(),
        tasks: arns.iter().map(|arn| TaskArn::from(*arn)).collect(),
    }
}

fn stop(arn: &str, seq: i64) -> Event {
    Event::Payload { tasks: vec![PayloadTask::Stop(arn.into(), Vec::new())], seq, ack: None }
}

fn desired(state: &State, arn: &str) -> TaskStatus {
    state.tasks[&TaskArn::from(arn)].desired
}

#[test]
fn ecs_is_asked_about_tasks_missing_in_a_manifest() {
    let mut state = with_tasks(&["a", "b", "c"]);
    step(&mut state, NOW, stop("c", 11));
    let out = step(&mut state, NOW, manifest(12, &["a"], "m"));
    let asks = Effect::Send(Message::VerifyStop {
        message_id: "m".to_owned(),
        cluster: "cluster".to_owned(),
        tasks: vec!["b".into()],
    });
    assert_eq!(out.effects, [Effect::Send(Message::Ack(ack("m"))), asks], "not about tasks that must stop anyway");
    assert_eq!((out.changed, state.host.seq), (BTreeSet::from([Key::Host]), 12));
    assert_eq!(desired(&state, "b"), TaskStatus::Running, "ECS has not confirmed it");
    let all_named = step(&mut state, NOW, manifest(13, &["a", "b"], "n"));
    assert_eq!(all_named.effects, [Effect::Send(Message::Ack(ack("n")))]);
}

#[test]
fn ecs_is_not_asked_about_a_task_that_stopped_by_itself() {
    let mut state = with_tasks(&["a"]);
    let task = state.tasks.get_mut(&"a".into()).unwrap();
    (task.known, task.containers[0].state.known) = (TaskStatus::Stopped, ContainerStatus::Stopped);
    assert_eq!(step(&mut state, NOW, manifest(12, &[], "m")).effects, [Effect::Send(Message::Ack(ack("m")))]);
}

#[test]
fn a_manifest_that_is_not_newer_is_not_even_acknowledged() {
    for timeline in [9, 10] {
        let mut state = with_tasks(&["a"]);
        assert_eq!(step(&mut state, NOW, manifest(timeline, &[], "m")), Step::default());
        step(&mut state, NOW, confirmed("m", &["a"]));
        assert_eq!(desired(&state, "a"), TaskStatus::Running);
    }
}

/// The answer stops tasks only once.
#[test]
fn only_the_answer_about_the_last_manifest_stops_tasks() {
    let mut state = with_tasks(&["a", "b"]);
    step(&mut state, NOW, confirmed("", &["a"]));
    step(&mut state, NOW, manifest(12, &[], ""));
    step(&mut state, NOW, confirmed("", &["a"]));
    step(&mut state, NOW, manifest(13, &[], "m"));
    step(&mut state, NOW, confirmed("other", &["a"]));
    assert_eq!(desired(&state, "a"), TaskStatus::Running);
    let out = step(&mut state, NOW, confirmed("m", &["a", "unknown"]));
    assert_eq!((desired(&state, "a"), desired(&state, "b")), (TaskStatus::Stopped, TaskStatus::Running));
    assert_eq!(out.changed, BTreeSet::from([Key::Task("a".into())]));
    step(&mut state, NOW, confirmed("m", &["b"]));
    assert_eq!(desired(&state, "b"), TaskStatus::Running);
}

#[test]
fn only_a_higher_sequence_number_is_stored() {
    let mut state = with_tasks(&["a"]);
    for (seq, bar, is_written) in [(9, 10, false), (10, 10, false), (11, 11, true)] {
        let changed = step(&mut state, NOW, stop("a", seq)).changed;
        assert_eq!((state.host.seq, changed.contains(&Key::Host)), (bar, is_written), "{seq}");
    }
    step(&mut state, NOW, stop("unknown", 11));
    let unknown = &state.tasks[&"unknown".into()];
    assert_eq!((unknown.known, unknown.desired, &unknown.reason), (TaskStatus::Stopped, TaskStatus::Stopped, &None));
    assert_eq!(unknown.arrival, 2);
    let refused = PayloadTask::Refused { arn: "refused".into(), reason: "not supported".to_owned() };
    step(&mut state, NOW, Event::Payload { tasks: vec![refused], seq: 12, ack: None });
    assert_eq!(state.tasks[&"refused".into()].reason.as_deref(), Some("not supported"));
}

#[test]
fn stopping_an_unknown_task_reports_all_its_containers_stopped() {
    let mut state = with_tasks(&[]);
    let stop = |arn: &str| PayloadTask::Stop(arn.into(), vec!["a".into(), "b".into()]);
    let effects = step(&mut state, NOW, Event::Payload { tasks: vec![stop("unknown")], seq: 11, ack: None }).effects;
    let [Effect::Do(op, Operation::Report(change))] = &effects[..] else { panic!("{effects:?}") };
    assert_eq!((change.status, change.reason.as_str(), change.execution_stopped_at), (TaskStatus::Stopped, "", None));
    let sent: Vec<_> = change
        .containers
        .iter()
        .map(|container| (container.container.as_str(), container.status, container.exit_code))
        .collect();
    assert_eq!(sent, [("a", ContainerStatus::Stopped, None), ("b", ContainerStatus::Stopped, None)]);
    step(&mut state, NOW, done(*op, Output::Nothing));
    let again = step(&mut state, NOW, Event::Payload { tasks: vec![stop("unknown")], seq: 12, ack: None });
    assert_eq!(again.effects, [], "it is reported already");
}

/// The credentials of the task are dropped with it.
#[test]
fn a_task_with_unsolvable_dependencies_is_stopped() {
    let mut state = with_tasks(&[]);
    let mut cyclic = spec("cyclic", vec![container("a", &[("a", Condition::Start)])]);
    cyclic.execution_credentials = Some("id".into());
    step(&mut state, NOW, run(cyclic));
    let task = &state.tasks[&"cyclic".into()];
    assert_eq!(task.known, TaskStatus::Stopped);
    assert_eq!(task.reason.as_deref(), Some("Task dependencies cannot be resolved, taskArn: cyclic"));
    assert_eq!(task.execution_credentials, Some("id".into()));
}

#[test]
fn only_the_known_incarnation_can_be_removed() {
    let gone = |was: RunState, id: &str| {
        let mut state = with_tasks(&[]);
        step(&mut state, NOW, Event::Observed(Box::new(seen("holder", "a", "id", was))));
        let (task, container) = ("holder".into(), "a".into());
        step(
            &mut state,
            NOW,
            Event::Removed { task, container, runtime_id: RuntimeId::from(id), exit_code: Some(137) },
        );
        let container = state.tasks[&"holder".into()].containers[0].state.clone();
        (container.observed, container.exit_code, container.failure.map(|failure| failure.name))
    };
    let missing = || Some("ContainerVanishedError".to_owned());
    assert_eq!(gone(RunState::Created, "other"), (Some(RunState::Created), None, None));
    assert_eq!(gone(RunState::Created, "id"), (None, None, missing()));
    assert_eq!(gone(RunState::Running, "id"), (None, Some(137), missing()), "it was killed, and removed at once");
    assert_eq!(gone(RunState::Exited, "id"), (None, Some(0), None), "how it ended was known");
}

#[test]
fn each_observation_changes_the_statuses() {
    let look = |state: RunState, change: fn(&mut crate::model::Observation)| {
        let mut task = task(vec![container("a", &[])]);
        let mut observation = seen("task", "a", "id", state);
        change(&mut observation);
        observe(&mut task, 0, &observation, NOW, 7);
        task.containers.remove(0).state
    };
    let created = look(RunState::Created, |_| {});
    assert_eq!((created.known, created.ran, created.live.touched), (ContainerStatus::Created, false, 7));
    let running = look(RunState::Running, |_| {});
    assert_eq!((running.known, running.ran, running.running_since), (ContainerStatus::Running, true, Some(NOW)));
    let ended = look(RunState::Exited, |observation| observation.exit_code = Some(3));
    assert_eq!((ended.known, ended.ran, ended.exit_code), (ContainerStatus::Stopped, true, Some(3)));
    let refused = look(RunState::Exited, |observation| {
        (observation.started_at, observation.exit_code) = (None, None);
        observation.error = Some(Failure::permanent("DockerStateError", "no such program"));
    });
    assert_eq!((refused.known, refused.ran, refused.exit_code), (ContainerStatus::Stopped, false, None));
    assert_eq!(refused.failure.unwrap().to_string(), "DockerStateError: no such program");
}

/// Observations from before the removal are ignored too.
#[test]
fn observations_of_another_incarnation_are_ignored() {
    let mut task = task(vec![container("a", &[])]);
    observe(&mut task, 0, &seen("task", "a", "one", RunState::Running), NOW, 1);
    observe(&mut task, 0, &seen("task", "a", "two", RunState::Exited), NOW, 2);
    assert_eq!(
        (task.containers[0].state.observed, task.containers[0].state.live.touched),
        (Some(RunState::Running), 1)
    );
    (task.containers[0].state.observed, task.containers[0].state.removed) = (None, true);
    observe(&mut task, 0, &seen("task", "a", "one", RunState::Exited), NOW, 3);
    assert_eq!((task.containers[0].state.observed, task.containers[0].state.removed), (None, true));
    observe(&mut task, 0, &seen("task", "a", "two", RunState::Created), NOW, 4);
    let container = &task.containers[0].state;
    assert_eq!((container.observed, container.removed), (Some(RunState::Created), false), "a create that came late");
}

/// After a refused create, the reason why the image is missing is reported.
#[test]
fn a_refused_start_is_inspected_before_it_counts() {
    use crate::model::FailureKind;
    use crate::state::OperationKind::{Create, Start};
    let refused = |kind, failure: Failure| {
        let mut task = task(vec![container("a", &[])]);
        task.containers[0].state.pull_failure = Some(Failure::permanent("CannotPullContainerError", "no route"));
        super::super::engine_completed(&mut task, 0, kind, Err(OpError::Failed(failure)), NOW, 1);
        let container = task.containers.remove(0).state;
        (container.failure.map(|failure| failure.name), container.live.unsettled)
    };
    let failure = |kind| Failure { name: "Refused".to_owned(), message: String::new(), kind };
    let name = |name: &str| Some(name.to_owned());
    assert_eq!(refused(Start, failure(FailureKind::Permanent)), (name("Refused"), true));
    assert_eq!(refused(Create, failure(FailureKind::Permanent)), (name("Refused"), false));
    assert_eq!(refused(Create, failure(FailureKind::ImageMissing)), (name("CannotPullContainerError"), false));
    assert_eq!(refused(Create, failure(FailureKind::Retryable)), (None, true));
}

#[test]
fn an_inspection_ends_no_row_of_failures_but_success_does() {
    use crate::state::OperationKind::{Inspect, Start};
    let mut task = task(vec![container("a", &[])]);
    let timeout = Failure::permanent("DockerTimeoutError", "no answer");
    super::super::engine_completed(&mut task, 0, Start, Err(OpError::Unknown(timeout)), NOW, 1);
    let there = |state| Ok(Output::Seen(Some(Box::new(seen("task", "a", "id", state)))));
    super::super::engine_completed(&mut task, 0, Inspect, there(RunState::Created), NOW, 2);
    assert_eq!((task.containers[0].state.live.retry.attempts, task.containers[0].state.live.undone_operations), (1, 1));
    super::super::engine_completed(&mut task, 0, Start, there(RunState::Running), NOW, 3);
    assert_eq!(task.containers[0].state.live.retry, super::super::Retry::default());
}

#[test]
fn the_time_of_a_pull_is_recorded_but_not_of_a_resolution() {
    let mut state = state(Policy::default());
    let inventory = *state.ops.keys().next().unwrap();
    step(&mut state, NOW, done(inventory, Output::Inventory(Vec::new())));
    let mut spec = spec("task", vec![container("a", &[])]);
    spec.containers[0].image = "image".to_owned();
    let effects = step(&mut state, NOW, run(spec)).effects;
    let [Effect::Do(op, Operation::ResolveDigest(_))] = effects[..] else { panic!("{effects:?}") };
    let effects = step(&mut state, Timestamp(NOW.0 + 1), done(op, Output::Digest(Some("sha256:1".to_owned())))).effects;
    let Some(Effect::Do(op, Operation::Pull(image))) = effects.first() else { panic!("{effects:?}") };
    assert_eq!((image.digest.as_deref(), state.tasks[&"task".into()].pull_stopped_at), (Some("sha256:1"), None));
    step(&mut state, Timestamp(NOW.0 + 2), done(*op, Output::Pulled));
    let task = &state.tasks[&"task".into()];
    assert_eq!((task.pull_started_at, task.pull_stopped_at), (Some(Timestamp(NOW.0 + 1)), Some(Timestamp(NOW.0 + 2))));
}

#[test]
fn an_unsettled_container_waits_for_the_pending_inventory() {
    let mut state = state(Policy::default());
    let listing = *state.ops.keys().next().unwrap();
    let mut task = task(vec![container("a", &[])]);
    (task.admitted, task.live.wake, state.wakes_from) = (true, Some(NOW), NOW);
    (task.containers[0].state.live.unsettled, task.containers[0].state.live.touched) = (true, 100);
    state.tasks.insert(task.spec.arn.clone(), Box::new(task));
    assert_eq!(step(&mut state, NOW, Event::Tick).effects, []);
    let effects = step(&mut state, NOW, done(listing, Output::Inventory(Vec::new()))).effects;
    assert!(
        matches!(effects[..], [Effect::Do(_, Operation::Inspect(_))]),
        "the inventory did not cover this container: {effects:?}"
    );
}

#[test]
fn a_seen_container_is_the_target_by_its_id() {
    let mut task = task(vec![container("a", &[])]);
    let name = task.spec.runtime_name(&"a".into());
    let target = |task: &super::super::TaskState| task.target(0);
    assert_eq!(target(&task), name);
    observe(&mut task, 0, &seen("task", "a", "id", RunState::Created), NOW, 1);
    assert_eq!(target(&task), "id");
    crate::seen::removed(&mut task, 0, NOW, 2);
    assert_eq!(target(&task), name, "a create that came late has the name");
}
