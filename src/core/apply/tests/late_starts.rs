//! A start whose outcome is unknown may be carried out late. So its container is removed before it is reported as stopped.

use super::{creating, timed_out, wait};
use crate::model::{ContainerStatus, Failure, OpError, OpId, RunState, StateChange, TaskStatus, Timestamp};
use crate::policy::Policy;
use crate::sample::{NOW, done, only, seen};
use crate::state::{HostState, State, TaskState};
use crate::{Effect, Event, Operation, Output, PayloadTask, recover, step};

fn there(run_state: RunState) -> Output {
    Output::Seen(Some(Box::new(seen("task", "a", "id", run_state))))
}

fn stop() -> Event {
    Event::Payload { tasks: vec![PayloadTask::Stop("task".into(), Vec::new())], seq: 2, ack: None }
}

/// A start got no answer, ECS asks for the stop, and Docker shows a container that was not started. The effect that follows.
fn stopped_while_a_start_is_lost(now: &mut Timestamp) -> (State, Effect) {
    let (mut state, op) = creating();
    let Effect::Do(op, Operation::Start(_)) = only(step(&mut state, *now, done(op, there(RunState::Created)))) else {
        panic!("what is created is started")
    };
    step(&mut state, *now, timed_out(op));
    let effects = step(&mut state, *now, stop()).effects;
    let [Effect::Do(look, Operation::Inspect(_))] = &effects[..] else { panic!("{effects:?}") };
    let effect = only(step(&mut state, *now, done(*look, there(RunState::Created))));
    (state, effect)
}

fn removal(effect: &Effect) -> OpId {
    match effect {
        Effect::Do(op, Operation::Remove(target)) if target == "id" => *op,
        other => panic!("{other:?}"),
    }
}

fn report(effect: Effect) -> StateChange {
    match effect {
        Effect::Do(_, Operation::Report(change)) => *change,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_container_that_may_start_late_is_removed_first() {
    for event_comes_first in [false, true] {
        let (mut state, effect) = stopped_while_a_start_is_lost(&mut { NOW });
        let op = removal(&effect);
        let change = if event_comes_first {
            let (task, container) = ("task".into(), "a".into());
            let removed = Event::Removed { task, container, runtime_id: "id".into(), exit_code: None };
            report(only(step(&mut state, NOW, removed)))
        } else {
            report(only(step(&mut state, NOW, done(op, Output::Nothing))))
        };
        assert_eq!((change.status, change.containers.len()), (TaskStatus::Stopped, 1));
        let container = &change.containers[0];
        assert_eq!((container.status, container.exit_code), (ContainerStatus::Stopped, None));
        assert_eq!(container.reason, None, "nothing has vanished");
    }
}

#[test]
fn a_container_that_started_late_is_stopped_and_has_its_code() {
    let mut now = NOW;
    let (mut state, effect) = stopped_while_a_start_is_lost(&mut now);
    let runs = Err(OpError::Failed(Failure::permanent("CannotRemoveContainerError", "it runs")));
    step(&mut state, now, Event::Completed { op: removal(&effect), outcome: runs });
    let Effect::Do(op, Operation::Inspect(_)) = wait(&mut state, &mut now) else { panic!("looks first") };
    let effects = step(&mut state, now, done(op, there(RunState::Running))).effects;
    let stop = effects.iter().find_map(|effect| match effect {
        Effect::Do(op, Operation::Stop { .. }) => Some(*op),
        _ => None,
    });
    let effects = step(&mut state, now, done(stop.expect("it is stopped"), there(RunState::Exited))).effects;
    let stopped = effects.into_iter().map(report).next_back();
    let known = &state.tasks[&"task".into()].containers[0].state;
    assert_eq!((known.known, known.exit_code), (ContainerStatus::Stopped, Some(0)), "{stopped:?}");
}

/// Docker removes a container that has ended without a word about its exit code.
#[test]
fn a_container_that_ran_until_its_removal_is_missing() {
    let (mut state, effect) = stopped_while_a_start_is_lost(&mut { NOW });
    step(&mut state, NOW, Event::Observed(Box::new(seen("task", "a", "id", RunState::Running))));
    step(&mut state, NOW, done(removal(&effect), Output::Nothing));
    let known = &state.tasks[&"task".into()].containers[0].state;
    assert_eq!((known.known, known.exit_code), (ContainerStatus::Stopped, None));
    assert_eq!(known.failure.as_ref().unwrap().name, "ContainerVanishedError");
}

#[test]
fn a_removal_that_fails_delays_the_report_within_bounds() {
    let unknown = || OpError::Unknown(Failure::permanent("DockerTimeoutError", "no answer"));
    let busy = || OpError::Failed(Failure::retryable("CannotRemoveContainerError", "busy"));
    let refused = || OpError::Failed(Failure::permanent("CannotRemoveContainerError", "device or resource busy"));
    let table: [(&dyn Fn() -> OpError, usize); 3] = [(&unknown, 3), (&busy, 3), (&refused, 1)];
    for (failure, attempts) in table {
        let mut now = NOW;
        let (mut state, mut effect) = stopped_while_a_start_is_lost(&mut now);
        for _ in 0..attempts {
            let failed = Event::Completed { op: removal(&effect), outcome: Err(failure()) };
            assert_eq!(step(&mut state, now, failed).effects, []);
            let Effect::Do(op, Operation::Inspect(_)) = wait(&mut state, &mut now) else { panic!("looks first") };
            effect = only(step(&mut state, now, done(op, there(RunState::Created))));
        }
        assert_eq!(report(effect).status, TaskStatus::Stopped);
    }
}

/// The earlier process may have been killed while the start was pending. The agent knows that it asked for nothing of a container that
/// it has just created itself.
#[test]
fn only_a_start_that_was_requested_can_come_late() {
    let (mut state_before, op) = creating();
    step(&mut state_before, NOW, done(op, there(RunState::Created)));
    let tasks = state_before.tasks.values().map(|task| {
        let document = serde_json::to_string(task).unwrap();
        serde_json::from_str::<TaskState>(&document).unwrap()
    });
    let mut recovered = recover(Policy::default(), HostState::default(), tasks);
    let effects = step(&mut recovered, NOW, Event::Tick).effects;
    let Some(Effect::Do(listing, Operation::Inventory)) = effects.first() else { panic!("{effects:?}") };
    let (listing, list) = (*listing, vec![seen("task", "a", "id", RunState::Created)]);
    step(&mut recovered, NOW, stop());
    let effects = step(&mut recovered, NOW, done(listing, Output::Inventory(list))).effects;
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Do(_, Operation::Remove(_)))), "{effects:?}");

    let (mut fresh, op) = creating();
    step(&mut fresh, NOW, stop());
    let change = report(only(step(&mut fresh, NOW, done(op, there(RunState::Created)))));
    assert_eq!(change.status, TaskStatus::Stopped, "it was never to be started");
}
