use super::*;
use crate::model::task::RestartPolicy;
use crate::model::{ContainerStatus, OpError, OpId, Span, TaskStatus};
use crate::policy::Policy;
use crate::sample::{NOW, container, done, run, seen, spec, state};
use crate::state::{Restarts, Retry, State, TaskState};
use crate::{Effect, Event, Operation, Output, PayloadTask, check, recover, step};

const PERIOD: Span = Span::secs(60);

fn at(state: RunState, run: u32) -> Observation {
    Observation { started_at: Some(format!("2026-01-01T00:00:{run:02}Z")), ..seen("task", "a", "id", state) }
}

fn ended(run: u32, code: i32) -> Observation {
    Observation { exit_code: Some(code), ..at(RunState::Exited, run) }
}

fn observed(seen: Observation) -> Event {
    Event::Observed(Box::new(seen))
}

/// A task whose only container has run since `NOW`, for the first time.
fn running() -> State {
    let mut state = state(Policy::default());
    let listing = *state.ops.keys().next().unwrap();
    step(&mut state, NOW, done(listing, Output::Inventory(Vec::new())));
    let mut spec = spec("task", vec![container("a", &[])]);
    spec.containers[0].restart = Some(RestartPolicy { ignored_exit_codes: vec![0, 3], attempt_period: PERIOD });
    step(&mut state, NOW, run(spec));
    let only = |state: &mut State| {
        state.ops.clear();
        let entry = state.tasks.get_mut(&"task".into()).unwrap();
        (entry.live.report, entry.containers[0].state.live.operation) = (None, None);
    };
    only(&mut state);
    step(&mut state, NOW, observed(at(RunState::Running, 1)));
    only(&mut state);
    let entry = state.tasks.get_mut(&"task".into()).unwrap();
    (entry.sent, entry.containers[0].state.sent) = (TaskStatus::Running, ContainerStatus::Running);
    state
}

fn task(state: &State) -> &TaskState {
    &state.tasks[&"task".into()]
}

/// The requested start, if there is one. Any other effect is a failure.
fn start(effects: &[Effect]) -> Option<OpId> {
    match effects {
        [] => None,
        [Effect::Do(op, Operation::Start(target))] if target == "id" => Some(*op),
        other => panic!("{other:?}"),
    }
}

/// A container that ended after its attempt period, with a due restart.
fn due() -> (State, OpId) {
    let mut state = running();
    let effects = step(&mut state, NOW + PERIOD, observed(ended(1, 1))).effects;
    let op = start(&effects).unwrap();
    (state, op)
}

#[test]
fn an_ended_container_restarts_if_its_policy_says_so() {
    for (code, after, is_restarted) in
        [(1, 60_000, true), (1, 59_999, false), (0, 60_000, false), (3, 90_000, false), (137, 90_000, true)]
    {
        let mut state = running();
        let now = NOW + Span::millis(after);
        let effects = step(&mut state, now, observed(ended(1, code))).effects;
        let container = &task(&state).containers[0].state;
        assert_eq!(container.restarts.count == 1, is_restarted, "{code} {after}");
        assert_eq!(container.is_stopped(), !is_restarted, "{code} {after}");
        if is_restarted {
            assert!(start(&effects).is_some() && container.restarts.last == Some(now));
        }
        assert_eq!(check(&state), Ok(()));
    }
    let mut state = running();
    step(&mut state, NOW + PERIOD, observed(Observation { exit_code: None, ..ended(1, 1) }));
    assert!(task(&state).containers[0].state.is_stopped(), "its exit code is not known");
    let mut state = running();
    state.tasks.get_mut(&"task".into()).unwrap().desired = TaskStatus::Stopped;
    step(&mut state, NOW + PERIOD, observed(ended(1, 1)));
    assert!(task(&state).containers[0].state.is_stopped(), "it must stop");
}

#[test]
fn a_restart_is_not_reported_and_the_first_start_stays() {
    let (mut state, op) = due();
    let now = NOW + PERIOD;
    assert_eq!(task(&state).containers[0].state.exit_code, Some(1));
    let again = Output::Seen(Some(Box::new(at(RunState::Running, 61))));
    assert_eq!(step(&mut state, now, done(op, again)).effects, []);
    let container = &task(&state).containers[0].state;
    assert_eq!((container.known, container.restarts.due), (ContainerStatus::Running, false));
    assert_eq!(container.started_at.as_deref(), Some("2026-01-01T00:00:01Z"));
    assert_eq!(container.exit_code, None);
    // The period counts from the restart.
    step(&mut state, now + Span::secs(59), observed(ended(61, 2)));
    let container = &task(&state).containers[0].state;
    assert_eq!((container.known, container.exit_code), (ContainerStatus::Stopped, Some(2)));
    assert_eq!(container.restarts.count, 1);
}

/// The start is reported as done, but its answer still shows the end that caused the restart.
#[test]
fn a_restart_without_effect_is_not_repeated_at_once() {
    let shown = |seen: Observation| {
        let (mut state, op) = due();
        // The task goes on without the container: a stop would forget all earlier failures.
        let entry = state.tasks.get_mut(&"task".into()).unwrap();
        entry.containers[0].spec.essential = false;
        entry.containers.push(Container { spec: container("b", &[]), state: ContainerState::default() });
        let effects = step(&mut state, NOW + PERIOD, done(op, Output::Seen(Some(Box::new(seen))))).effects;
        assert!(!effects.iter().any(|effect| matches!(effect, Effect::Do(_, Operation::Start(_)))), "{effects:?}");
        task(&state).containers[0].state.clone()
    };
    let container = shown(ended(1, 1));
    assert!(container.restarts.due && container.live.retry.not_before > NOW + PERIOD);
    // The new run ended at once, too soon for another restart, so its exit code counts.
    let container = shown(ended(2, 5));
    assert_eq!((container.known, container.exit_code), (ContainerStatus::Stopped, Some(5)));
    assert_eq!(container.live.retry, Retry::default());
}

#[test]
fn outdated_observations_do_not_change_the_current_run() {
    let (mut state, op) = due();
    for old in [at(RunState::Running, 1), ended(1, 1)] {
        step(&mut state, NOW + PERIOD, observed(old));
        assert!(task(&state).containers[0].state.restarts.due);
    }
    let again = Output::Seen(Some(Box::new(at(RunState::Running, 61))));
    step(&mut state, NOW + PERIOD, done(op, again));
    for old in [at(RunState::Running, 1), ended(1, 1)] {
        step(&mut state, NOW + PERIOD + PERIOD, observed(old));
        let container = &task(&state).containers[0].state;
        assert_eq!((container.observed, container.restarts.count), (Some(RunState::Running), 1));
    }
    // Neither another incarnation nor a container without a policy is outdated.
    let other = Observation { runtime_id: "other".into(), ..ended(1, 1) };
    assert!(!is_outdated(task(&state), 0, &other));
    let mut plain = task(&state).clone();
    plain.containers[0].spec.restart = None;
    assert!(is_outdated(task(&state), 0, &ended(1, 1)) && !is_outdated(&plain, 0, &ended(1, 1)));
    // A fraction may end in zeros, which the engine leaves out.
    let with = |time: &str| Observation { started_at: Some(time.to_owned()), ..ended(1, 1) };
    let later = ["2026-01-01T00:01:01.1Z", "2026-01-01T00:01:01.12Z"];
    assert!(later.iter().all(|time| !is_outdated(task(&state), 0, &with(time))) && is_earlier(later[0], later[1]));
}

#[test]
fn a_kill_of_the_agent_neither_loses_nor_doubles_a_restart() {
    let (before, _) = due();
    let killed = |seen: Observation, later: Span| {
        let now = NOW + PERIOD + later;
        let mut state = recover(Policy::default(), before.host.clone(), [stored(task(&before))]);
        let effects = step(&mut state, now, Event::Tick).effects;
        let Some(Effect::Do(op, Operation::Inventory)) = effects.first() else { panic!("{effects:?}") };
        let effects = step(&mut state, now, done(*op, Output::Inventory(vec![seen]))).effects;
        let container = task(&state).containers[0].state.clone();
        (effects, container.restarts.count, container.known, container.restarts.due)
    };
    // The start was not done, so it is requested again and counted once.
    let (effects, count, known, is_due) = killed(ended(1, 1), Span::secs(500));
    assert!(start(&effects).is_some());
    assert_eq!((count, known, is_due), (1, ContainerStatus::Running, true));
    // The start was done.
    let after = killed(at(RunState::Running, 61), Span::default());
    assert_eq!(after, (Vec::new(), 1, ContainerStatus::Running, false));
    // The start was done, and the container ended again meanwhile: too soon, or late enough.
    let (_, count, known, _) = killed(ended(61, 1), Span::secs(59));
    assert_eq!((count, known), (1, ContainerStatus::Stopped));
    let (effects, count, known, _) = killed(ended(61, 1), PERIOD);
    assert!(start(&effects).is_some());
    assert_eq!((count, known), (2, ContainerStatus::Running));
}

/// The task as it is after it was written to disk and read again.
fn stored(task: &TaskState) -> TaskState {
    serde_json::from_str(&serde_json::to_string(task).unwrap()).unwrap()
}

#[test]
fn an_end_while_the_agent_was_away_is_restarted() {
    let before = running();
    let mut state = recover(Policy::default(), before.host.clone(), [stored(task(&before))]);
    let now = NOW + PERIOD;
    let effects = step(&mut state, now, Event::Tick).effects;
    let [Effect::Do(op, Operation::Inventory)] = effects[..] else { panic!("{effects:?}") };
    let effects = step(&mut state, now, done(op, Output::Inventory(vec![ended(1, 9)]))).effects;
    assert!(start(&effects).is_some());
    // A container that Docker lists as it was before its last start has ended unseen.
    let (mut state, op) = due();
    let again = Output::Seen(Some(Box::new(at(RunState::Running, 61))));
    step(&mut state, now, done(op, again));
    let later = now + PERIOD + PERIOD;
    let mut state = recover(Policy::default(), before.host, [stored(task(&state))]);
    let Some(Effect::Do(op, Operation::Inventory)) = step(&mut state, later, Event::Tick).effects.pop() else {
        panic!()
    };
    step(&mut state, later, done(op, Output::Inventory(vec![ended(1, 1)])));
    let container = &task(&state).containers[0].state;
    assert_eq!((container.known, container.exit_code), (ContainerStatus::Stopped, None));
}

#[test]
fn a_restart_that_fails_or_is_not_wanted_any_more_is_the_end() {
    let (mut state, op) = due();
    let failure = Failure::permanent("CannotStartContainerError", "no");
    step(&mut state, NOW + PERIOD, Event::Completed { op, outcome: Err(OpError::Failed(failure)) });
    let [(look, _)] = state.ops.iter().collect::<Vec<_>>()[..] else { panic!("{:?}", state.ops) };
    let look = *look;
    let effects = step(&mut state, NOW + PERIOD, done(look, Output::Seen(Some(Box::new(ended(1, 1)))))).effects;
    let [Effect::Do(_, Operation::Report(change))] = &effects[..] else { panic!("{effects:?}") };
    assert_eq!(change.containers[0].reason.as_deref(), Some("CannotStartContainerError: no"));
    assert_eq!((change.status, change.containers[0].exit_code), (TaskStatus::Stopped, Some(1)));
    assert_eq!(check(&state), Ok(()));

    let mut state = running();
    let killed = Failure::permanent("OutOfMemoryError", "too much");
    let out_of_memory = Observation { error: Some(killed), ..ended(1, 137) };
    let effects = step(&mut state, NOW + PERIOD, observed(out_of_memory)).effects;
    let op = start(&effects).unwrap();
    let stop = Event::Payload { tasks: vec![PayloadTask::Stop("task".into(), Vec::new())], seq: 2, ack: None };
    step(&mut state, NOW + PERIOD, stop);
    let outcome = Err(OpError::Failed(Failure::retryable("DockerTimeoutError", "not now")));
    step(&mut state, NOW + PERIOD, Event::Completed { op, outcome });
    let later = NOW + PERIOD + PERIOD;
    let Some(Effect::Do(op, Operation::Inspect(_))) = step(&mut state, later, Event::Tick).effects.pop() else {
        panic!()
    };
    step(&mut state, later, done(op, Output::Seen(Some(Box::new(ended(1, 137))))));
    let container = &task(&state).containers[0].state;
    assert_eq!(container.failure.as_ref().map(|failure| failure.name.as_str()), Some("OutOfMemoryError"));
    assert!(container.is_stopped() && !container.restarts.due);
}

#[test]
fn a_failed_restart_also_ends_the_containers_that_wait() {
    let (mut state, op) = due();
    let entry = state.tasks.get_mut(&"task".into()).unwrap();
    entry.containers[0].spec.essential = false;
    let waits = container("b", &[("a", crate::model::task::Condition::Success)]);
    entry.containers.push(Container { spec: waits, state: ContainerState::default() });
    let failure = Failure::permanent("CannotStartContainerError", "no");
    step(&mut state, NOW + PERIOD, Event::Completed { op, outcome: Err(OpError::Failed(failure)) });
    let look = *state.ops.keys().last().unwrap();
    step(&mut state, NOW + PERIOD, done(look, Output::Seen(Some(Box::new(ended(1, 1))))));
    assert!(task(&state).states().all(crate::state::ContainerState::is_stopped), "{:?}", task(&state));
}

#[test]
fn another_or_a_continuing_run_fulfils_the_due_restart() {
    for (seen, is_fulfilled) in
        [(ended(1, 1), false), (ended(2, 1), true), (at(RunState::Running, 1), true), (at(RunState::Running, 2), true)]
    {
        let (state, _) = due();
        let mut task = task(&state).clone();
        assert!(task.containers[0].state.restarts.due);
        remember(&mut task, 0, &seen);
        assert_eq!(task.containers[0].state.restarts.due, !is_fulfilled, "{seen:?}");
    }
}

#[test]
fn a_policy_that_does_not_apply_says_why() {
    for (ran, code, why) in [
        (PERIOD, Some(1), None),
        (PERIOD, Some(3), Some("the policy ignores exit code 3")),
        (PERIOD, None, Some("its exit code is not known")),
        (Span(59_500), Some(1), Some("it ran for 59.5 s, and the policy wants 60 s")),
    ] {
        let mut state = running();
        step(&mut state, NOW + ran, observed(Observation { exit_code: code, ..at(RunState::Exited, 1) }));
        let found = task(&state).containers[0].state.live.no_restart.map(|why| why.to_string());
        assert_eq!(found.as_deref(), why, "{ran:?} {code:?}");
    }
}

#[test]
fn runs_are_recorded_only_with_a_restart_policy() {
    let mut state = running();
    let entry = state.tasks.get_mut(&"task".into()).unwrap();
    (entry.containers[0].spec.restart, entry.containers[0].state.restarts) = (None, Restarts::default());
    step(&mut state, NOW, observed(at(RunState::Running, 2)));
    assert_eq!(task(&state).containers[0].state.restarts, Restarts::default());
}
