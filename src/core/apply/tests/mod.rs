//! Tests of outcomes: of operations, of pulls, and without an owner. The tests of messages from ECS are in `messages.rs`.

mod late_starts;
mod messages;

use crate::model::task::Condition;
use crate::model::{ContainerStatus, Failure, FailureKind, OpError, OpId, RunState, Span, TaskStatus, Timestamp};
use crate::policy::{Policy, PullBehavior};
use crate::sample::{NOW, container, done, only, run, seen, spec, state};
use crate::state::State;
use crate::{Effect, Event, Operation, Output, PayloadTask, next_deadline, step};

/// A state whose only container has a pending create.
fn creating() -> (State, OpId) {
    let mut state = state(Policy::default());
    let inventory = *state.ops.keys().next().unwrap();
    step(&mut state, NOW, done(inventory, Output::Inventory(Vec::new())));
    let Effect::Do(op, Operation::Pull(_)) = only(step(&mut state, NOW, run(spec("task", vec![container("a", &[])]))))
    else {
        panic!("a task begins with its image")
    };
    let Effect::Do(op, Operation::Create(_)) = only(step(&mut state, NOW, done(op, Output::Nothing))) else {
        panic!("an image is there to create a container from")
    };
    (state, op)
}

fn timed_out(op: OpId) -> Event {
    let failure = Failure::permanent("DockerTimeoutError", "Could not transition to created; timed out");
    Event::Completed { op, outcome: Err(OpError::Unknown(failure)) }
}

/// Lets time pass until something is due, and returns the only effect then.
fn wait(state: &mut State, now: &mut Timestamp) -> Effect {
    for _ in 0..10 {
        *now = next_deadline(state).unwrap();
        let effects = step(state, *now, Event::Tick).effects;
        match effects.into_iter().next() {
            None | Some(Effect::Do(_, Operation::Inventory)) => {}
            Some(effect) => return effect,
        }
    }
    panic!("nothing comes of waiting")
}

/// The container is inspected after each try.
#[test]
fn a_create_without_an_answer_is_tried_three_times() {
    let (mut state, mut op) = creating();
    let mut now = NOW;
    for attempt in 1..=3 {
        assert!(step(&mut state, now, timed_out(op)).effects.is_empty(), "a timeout is not an answer");
        let Effect::Do(look, Operation::Inspect(_)) = wait(&mut state, &mut now) else { panic!("looks first") };
        let effect = only(step(&mut state, now, done(look, Output::Seen(None))));
        match effect {
            Effect::Do(again, Operation::Create(_)) if attempt < 3 => op = again,
            Effect::Do(_, Operation::Report(change)) if attempt == 3 => {
                assert_eq!(change.status, TaskStatus::Stopped);
                assert!(change.containers[0].reason.as_ref().unwrap().starts_with("DockerTimeoutError: "));
            }
            other => panic!("attempt {attempt}: {other:?}"),
        }
    }
}

#[test]
fn a_create_that_was_done_after_all_goes_on() {
    let (mut state, op) = creating();
    let mut now = NOW;
    step(&mut state, now, timed_out(op));
    let Effect::Do(op, Operation::Inspect(_)) = wait(&mut state, &mut now) else { panic!("looks first") };
    let there = Output::Seen(Some(Box::new(seen("task", "a", "id", RunState::Created))));
    let effect = only(step(&mut state, now, done(op, there)));
    assert!(matches!(&effect, Effect::Do(_, Operation::Start(target)) if target == "id"), "{effect:?}");
}

/// Without the delay, the operation would be repeated at once, for ever.
#[test]
fn an_operation_reported_done_but_without_effect_is_delayed() {
    let (mut state, op) = creating();
    let there = |run_state| Output::Seen(Some(Box::new(seen("task", "a", "id", run_state))));
    let Effect::Do(op, Operation::Start(_)) = only(step(&mut state, NOW, done(op, there(RunState::Created)))) else {
        panic!("what is created is started")
    };
    assert_eq!(step(&mut state, NOW, done(op, there(RunState::Created))).effects, []);
    let mut now = NOW;
    let Effect::Do(op, Operation::Start(_)) = wait(&mut state, &mut now) else { panic!("it is started again") };
    assert!(now > NOW);
    step(&mut state, now, done(op, there(RunState::Running)));
    let stop = Event::Payload { tasks: vec![PayloadTask::Stop("task".into(), Vec::new())], seq: 2, ack: None };
    let effects = step(&mut state, now, stop).effects;
    let Some(op) = effects
        .iter()
        .find_map(|effect| if let Effect::Do(op, Operation::Stop { .. }) = effect { Some(*op) } else { None })
    else {
        panic!("{effects:?}")
    };
    let again = step(&mut state, now, done(op, there(RunState::Running))).effects;
    assert!(!again.iter().any(|effect| matches!(effect, Effect::Do(_, Operation::Stop { .. }))), "{again:?}");
}

/// The task does not wait for the outcome of the cancelled pull.
#[test]
fn the_pull_of_a_stopping_task_is_cancelled() {
    let mut state = state(Policy::default());
    let Effect::Do(op, Operation::Pull(_)) = only(step(&mut state, NOW, run(spec("task", vec![container("a", &[])]))))
    else {
        panic!("a task begins with its image")
    };
    let stop = Event::Payload { tasks: vec![PayloadTask::Stop("task".into(), Vec::new())], seq: 2, ack: None };
    let effects = step(&mut state, NOW, stop).effects;
    let [Effect::Cancel(cancelled), Effect::Do(_, Operation::Report(change))] = &effects[..] else {
        panic!("{effects:?}")
    };
    assert_eq!((*cancelled, change.status), (op, TaskStatus::Stopped));
    assert!(!state.ops.contains_key(&op));
}

/// It is needed only if a cached image may be used and no later operation would show that it is missing.
#[test]
fn a_failed_pull_looks_for_a_cached_image_only_when_needed() {
    use PullBehavior::{Always, Default, Once, PreferCached};
    for (pull, pull_upfront, looks) in [
        (Default, true, true),
        (PreferCached, true, true),
        (Default, false, false),
        (Always, true, false),
        (Once, true, false),
    ] {
        let mut state = state(Policy { pull, pull_upfront, ..Policy::default() });
        let effect = only(step(&mut state, NOW, run(spec("task", vec![container("a", &[])]))));
        assert!(
            matches!(&effect, Effect::Do(_, Operation::Pull(image)) if image.checks_host_after_failure == looks),
            "{pull:?} {pull_upfront} {effect:?}"
        );
    }
}

#[test]
fn an_observation_older_than_the_state_changes_nothing() {
    let (mut state, op) = creating();
    let observed = |run_state| Event::Observed(Box::new(seen("task", "a", "id", run_state)));
    let created = Output::Seen(Some(Box::new(seen("task", "a", "id", RunState::Created))));
    step(&mut state, NOW, done(op, created));
    step(&mut state, NOW, observed(RunState::Running));
    step(&mut state, NOW, observed(RunState::Created));
    let container = &state.tasks[&"task".into()].containers[0].state;
    assert_eq!((container.known, container.observed), (ContainerStatus::Running, Some(RunState::Running)));
}

/// Found by the simulator (1 schedule in 70,000): the container stayed unseen until its task was forgotten.
#[test]
fn a_late_create_of_a_given_up_container_is_seen() {
    let (mut state, op) = creating();
    let failure = Failure::permanent("CannotCreateContainerError", "no");
    step(&mut state, NOW, Event::Completed { op, outcome: Err(OpError::Failed(failure)) });
    let task = state.tasks.get_mut(&"task".into()).unwrap();
    assert!(task.containers[0].state.is_stopped());
    crate::seen::removed(task, 0, NOW, 1);
    step(&mut state, NOW, Event::Observed(Box::new(seen("task", "a", "id", RunState::Created))));
    assert_eq!(state.tasks[&"task".into()].containers[0].state.observed, Some(RunState::Created));
}

#[test]
fn once_counts_only_what_came_from_the_registry() {
    let mut state = state(Policy { pull: PullBehavior::Once, ..Policy::default() });
    let mut pull = |arn: &str| match only(step(&mut state, NOW, run(spec(arn, vec![container("a", &[])])))) {
        Effect::Do(op, Operation::Pull(image)) => (op, image.asks_registry),
        other => panic!("{other:?}"),
    };
    let (first, second) = (pull("first"), pull("second"));
    assert!(first.1 && second.1, "never pulled on this host");
    step(&mut state, NOW, done(first.0, Output::Nothing));
    assert!(state.host.pulled_images.is_empty(), "the image was cached, not pulled");
    step(&mut state, NOW, done(second.0, Output::Pulled));
    let third = only(step(&mut state, NOW, run(spec("third", vec![container("a", &[])]))));
    assert!(matches!(third, Effect::Do(_, Operation::Pull(image)) if !image.asks_registry));
}

/// A task of two containers, the second waiting for the first to end, under this policy; the pulls that begin at once.
fn ordered(policy: Policy, essential: bool) -> (State, Vec<OpId>) {
    let mut state = state(policy);
    let inventory = *state.ops.keys().next().unwrap();
    step(&mut state, NOW, done(inventory, Output::Inventory(Vec::new())));
    let mut dependent = container("b", &[("a", Condition::Complete)]);
    dependent.essential = essential;
    let effects = step(&mut state, NOW, run(spec("task", vec![container("a", &[]), dependent]))).effects;
    let pulls = effects.into_iter().map(|effect| match effect {
        Effect::Do(op, Operation::Pull(_)) => op,
        other => panic!("{other:?}"),
    });
    let pulls = pulls.collect();
    (state, pulls)
}

fn failed_pull(op: OpId, kind: FailureKind) -> Event {
    let failure = Failure { kind, ..Failure::permanent("CannotPullContainerError", "no") };
    Event::Completed { op, outcome: Err(OpError::Failed(failure)) }
}

#[test]
fn waiting_containers_pull_upfront_only_if_configured() {
    for (pull_upfront, pulls) in [(false, 1), (true, 2)] {
        let (_, begun) = ordered(Policy { pull_upfront, ..Policy::default() }, true);
        assert_eq!(begun.len(), pulls);
    }
}

/// With upfront pulls, the task ends before the other images are pulled.
#[test]
fn a_missing_image_of_an_essential_container_ends_the_task() {
    use FailureKind::{ImageMissing, Retryable};
    let table = [
        (PullBehavior::Default, true, ImageMissing, true),
        (PullBehavior::PreferCached, true, ImageMissing, true),
        (PullBehavior::Default, false, ImageMissing, false),
        (PullBehavior::Default, true, Retryable, false),
        (PullBehavior::Always, false, Retryable, true),
        (PullBehavior::Once, false, Retryable, true),
    ];
    for (pull, essential, kind, stops) in table {
        let (mut state, pulls) = ordered(Policy { pull, pull_upfront: true, ..Policy::default() }, essential);
        step(&mut state, NOW, failed_pull(pulls[1], kind));
        let task = &state.tasks[&"task".into()];
        assert_eq!(task.desired == TaskStatus::Stopped, stops, "{pull:?} essential={essential} {kind:?}");
        assert_eq!(task.containers[1].state.failure.is_some(), stops);
    }
}

#[test]
fn a_container_from_a_local_image_hides_the_failed_pull() {
    let (mut state, pulls) = ordered(Policy { pull_upfront: true, ..Policy::default() }, true);
    let Effect::Do(op, Operation::Create(_)) = only(step(&mut state, NOW, done(pulls[0], Output::Cached))) else {
        panic!("the image is there")
    };
    assert!(state.host.pulled_images.is_empty(), "it did not come from the registry");
    let running = Output::Seen(Some(Box::new(seen("task", "a", "id", RunState::Running))));
    step(&mut state, NOW, done(op, running));
    let container = &state.tasks[&"task".into()].containers[0].state;
    assert_eq!((&container.failure, &container.pull_failure), (&None, &None));
    assert_eq!(container.known, ContainerStatus::Running);
}

#[test]
fn an_image_referenced_by_digest_needs_no_look_up() {
    let mut state = state(Policy::default());
    let effect = only(step(&mut state, NOW, run(spec("task", vec![container("a", &[])]))));
    assert!(
        matches!(&effect, Effect::Do(_, Operation::Pull(image)) if image.digest.as_deref() == Some("sha256:1")),
        "{effect:?}"
    );
    let task = &state.tasks[&"task".into()];
    assert_eq!((task.known, task.sent), (TaskStatus::ManifestPulled, TaskStatus::None), "nothing to report");
    assert_eq!(task.containers[0].state.digest.as_deref(), Some("sha256:1"));
}

#[test]
fn pull_times_are_those_of_pulls() {
    let later = NOW + Span::secs(5);
    let table = [
        (PullBehavior::PreferCached, Output::Nothing, None),
        (PullBehavior::PreferCached, Output::Pulled, Some((NOW, later))),
        (PullBehavior::Default, Output::Pulled, Some((NOW, later))),
        (PullBehavior::Default, Output::Cached, Some((NOW, later))),
    ];
    for (pull, output, wanted) in table {
        let (mut state, pulls) = ordered(Policy { pull, ..Policy::default() }, true);
        step(&mut state, later, done(pulls[0], output.clone()));
        let task = &state.tasks[&"task".into()];
        assert_eq!(task.pull_started_at.zip(task.pull_stopped_at), wanted, "{pull:?} {output:?}");
    }
}

#[test]
fn a_failure_that_ends_the_task_counts_despite_a_cached_image() {
    let mut state = state(Policy::default());
    let task = spec("task", vec![container("a", &[])]);
    let Effect::Do(op, Operation::Pull(_)) = only(step(&mut state, NOW, run(task))) else {
        panic!("begins with its image")
    };
    let failure = Failure::ends_task("asm fetching\n secret");
    let effect = only(step(&mut state, NOW, Event::Completed { op, outcome: Err(OpError::Failed(failure)) }));
    let Effect::Do(_, Operation::Report(change)) = effect else { panic!("{effect:?}") };
    assert_eq!((change.status, change.reason.as_str()), (TaskStatus::Stopped, "Asm fetching secret"));
    assert_eq!(change.containers[0].reason, None, "the failure is the reason of the task");
}

#[test]
fn an_outcome_without_an_owner_is_ignored() {
    let (mut state, op) = creating();
    let before = state.tasks.clone();
    assert!(step(&mut state, NOW, done(OpId(op.0 + 100), Output::Nothing)).changed.is_empty());
    assert_eq!(state.tasks, before);
}

/// A fact that was learnt after the inspection was requested is newer than its answer.
#[test]
fn an_overtaken_inspection_is_repeated() {
    let mut state = state(Policy::default());
    let listing = *state.ops.keys().next().unwrap();
    step(&mut state, NOW, done(listing, Output::Inventory(Vec::new())));
    let mut task = crate::sample::task(vec![container("a", &[])]);
    (task.admitted, task.live.wake, state.wakes_from) = (true, Some(NOW), NOW);
    (task.containers[0].state.live.unsettled, task.containers[0].state.create_asked) = (true, true);
    state.tasks.insert(task.spec.arn.clone(), Box::new(task));
    let effects = step(&mut state, NOW, Event::Tick).effects;
    let [Effect::Do(op, Operation::Inspect(_))] = effects[..] else { panic!("{effects:?}") };
    step(&mut state, NOW, Event::Observed(Box::new(seen("task", "a", "id", RunState::Created))));
    let effects = step(&mut state, NOW, done(op, Output::Seen(None))).effects;
    assert!(matches!(effects[..], [Effect::Do(_, Operation::Inspect(_))]), "it is inspected again: {effects:?}");
    assert_eq!(state.tasks[&"task".into()].containers[0].state.observed, Some(RunState::Created));
}

/// Otherwise both would wait for ever: one for its dependent to end, the other for its dependency. Found by the simulator (1
/// schedule in 10,000).
#[test]
fn a_revived_container_is_stopped_before_its_dependents() {
    let mut state = state(Policy::default());
    let listing = *state.ops.keys().next().unwrap();
    step(&mut state, NOW, done(listing, Output::Inventory(Vec::new())));
    let mut first = container("a", &[]);
    first.essential = false;
    let dependent = container("b", &[("a", Condition::Complete)]);
    let Effect::Do(op, Operation::Pull(_)) = only(step(&mut state, NOW, run(spec("task", vec![first, dependent]))))
    else {
        panic!("a task begins with its image")
    };
    let Effect::Do(op, Operation::Create(_)) = only(step(&mut state, NOW, done(op, Output::Nothing))) else {
        panic!("an image is there to create a container from")
    };
    let first = |run_state| Box::new(seen("task", "a", "id", run_state));
    let effects = step(&mut state, NOW, done(op, Output::Seen(Some(first(RunState::Exited))))).effects;
    assert!(
        effects.iter().any(|effect| matches!(effect, Effect::Do(_, Operation::Pull(_)))),
        "the dependent's turn: {effects:?}"
    );
    let effects = step(&mut state, NOW, Event::Observed(first(RunState::Running))).effects;
    assert!(matches!(&effects[..], [Effect::Do(_, Operation::Stop { target, .. })] if target == "id"), "{effects:?}");
}
