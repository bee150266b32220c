use super::*;
use crate::effect::Effect;
use crate::model::{ContainerStatus, Failure, OpError, OpId, RoleKind, RuntimeId, Span, TaskStatus};
use crate::policy::Policy;
use crate::sample::{NOW, container, done, run, seen, spec, state, task};
use crate::state::TaskState;
use crate::{Event, next_deadline, step};

/// A task with an unsettled container, as after a restart or a lost answer, and the pending inventory.
fn unsettled_task(change: fn(&mut TaskState)) -> (State, OpId) {
    let mut state = state(Policy::default());
    let op = *state.ops.keys().next().unwrap();
    let mut task = task(vec![container("a", &[])]);
    (task.containers[0].state.create_asked, task.containers[0].state.live.unsettled) = (true, true);
    task.containers[0].state.known = ContainerStatus::Created;
    change(&mut task);
    state.tasks.insert(task.spec.arn.clone(), Box::new(task));
    (state, op)
}

fn listed(state: &mut State, op: OpId, seen: Vec<Observation>) -> Vec<Effect> {
    step(state, NOW, done(op, Output::Inventory(seen))).effects
}

fn first(state: &State) -> &crate::state::ContainerState {
    &state.tasks[&"task".into()].containers[0].state
}

#[test]
fn a_listing_shows_what_exists_and_what_is_missing() {
    let running: fn(&mut TaskState) = |task| {
        (task.containers[0].state.observed, task.containers[0].state.runtime_id) =
            (Some(RunState::Created), Some("id".into()));
    };
    // A container that was seen is inspected before it counts as removed.
    let (mut state, op) = unsettled_task(running);
    let effects = listed(&mut state, op, Vec::new());
    let [Effect::Do(op, Operation::Inspect(_))] = effects[..] else { panic!("{effects:?}") };
    assert_eq!((first(&state).known, &first(&state).failure), (ContainerStatus::Created, &None));
    step(&mut state, NOW, done(op, Output::Seen(None)));
    assert_eq!((first(&state).known, first(&state).removed), (ContainerStatus::Stopped, true));
    assert_eq!(first(&state).failure.as_ref().map(|failure| failure.name.as_str()), Some("ContainerVanishedError"));

    let (mut state, op) = unsettled_task(running);
    listed(&mut state, op, vec![seen("task", "a", "id", RunState::Running)]);
    assert_eq!((first(&state).known, first(&state).live.unsettled), (ContainerStatus::Running, false));

    // Another container has its name, but the one that was seen is inspected all the same.
    let (mut state, op) = unsettled_task(running);
    let effects = listed(&mut state, op, vec![seen("task", "a", "other", RunState::Created)]);
    assert!(matches!(&effects[..], [Effect::Do(_, Operation::Inspect(target))] if target == "id"), "{effects:?}");
}

/// Found by cutting the power of a host: the task stayed `RUNNING`, and no stop could end it.
#[test]
fn a_container_that_ran_and_is_listed_as_created_has_ended() {
    let ran: fn(&mut TaskState) = |task| {
        (task.known, task.sent) = (TaskStatus::Running, TaskStatus::Running);
        let container = &mut task.containers[0].state;
        (container.known, container.ran) = (ContainerStatus::Running, true);
        (container.observed, container.runtime_id) = (Some(RunState::Running), Some("id".into()));
        container.started_at = Some("then".to_owned());
    };
    let (mut state, op) = unsettled_task(ran);
    listed(&mut state, op, vec![seen("task", "a", "id", RunState::Created)]);
    assert_eq!((first(&state).known, first(&state).exit_code), (ContainerStatus::Stopped, None));
    assert_eq!(first(&state).started_at.as_deref(), Some("then"), "it was started once");
    assert_eq!(state.tasks[&"task".into()].known, TaskStatus::Stopped);

    // The listing is older than the start.
    let (mut state, op) = unsettled_task(ran);
    state.tasks.get_mut(&"task".into()).unwrap().containers[0].state.live.touched = u64::MAX;
    listed(&mut state, op, vec![seen("task", "a", "id", RunState::Created)]);
    assert_eq!(first(&state).known, ContainerStatus::Running);
}

/// Such a container was once taken for one that never ran: it was not reported as out of memory, and not restarted by its
/// policy.
#[test]
fn an_end_listed_without_details_is_inspected_first() {
    let ran: fn(&mut TaskState) = |task| {
        let container = &mut task.containers[0].state;
        (container.known, container.ran, container.live.unsettled) = (ContainerStatus::Running, true, false);
        (container.observed, container.runtime_id) = (Some(RunState::Running), Some("id".into()));
        container.running_since = Some(NOW);
    };
    let brief = Observation { started_at: None, ..seen("task", "a", "id", RunState::Exited) };
    let (mut state, op) = unsettled_task(ran);
    let effects = listed(&mut state, op, vec![brief.clone()]);
    let looks = effects
        .iter()
        .find_map(|effect| if let Effect::Do(op, Operation::Inspect(_)) = effect { Some(*op) } else { None });
    let Some(op) = looks else { panic!("{effects:?}") };
    assert_eq!((first(&state).known, first(&state).exit_code), (ContainerStatus::Running, None));
    let killed = Failure::permanent("OutOfMemoryError", "Container killed due to memory usage");
    let whole = Observation { error: Some(killed.clone()), ..seen("task", "a", "id", RunState::Exited) };
    step(&mut state, NOW, done(op, Output::Seen(Some(Box::new(whole)))));
    assert_eq!((first(&state).known, &first(&state).failure), (ContainerStatus::Stopped, &Some(killed)));

    // A stopped container is not inspected any more, and neither is one that never started and has an error.
    let (mut state, op) = unsettled_task(ran);
    state.tasks.get_mut(&"task".into()).unwrap().containers[0].state.known = ContainerStatus::Stopped;
    let effects = listed(&mut state, op, vec![brief.clone()]);
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::Do(_, Operation::Inspect(_)))), "{effects:?}");
    let (mut state, op) = unsettled_task(|_| {});
    let error = Some(Failure::permanent("DockerStateError", "no such program"));
    listed(&mut state, op, vec![Observation { error, ..brief }]);
    assert_eq!(first(&state).known, ContainerStatus::Stopped);
}

#[test]
fn a_container_that_was_never_seen_is_known_by_its_name() {
    // The known id belongs to an earlier incarnation.
    let (mut state, op) = unsettled_task(|task| task.containers[0].state.runtime_id = Some("before".into()));
    listed(&mut state, op, vec![seen("task", "a", "id", RunState::Created)]);
    assert_eq!(first(&state).observed, Some(RunState::Created));
    assert_eq!((&first(&state).runtime_id, &first(&state).failure), (&Some(RuntimeId::from("id")), &None));
}

/// This also holds for containers whose creation was never requested.
#[test]
fn a_listing_leaves_containers_touched_since_alone() {
    type Case = (fn(&mut TaskState), bool);
    let cases: [Case; 4] = [
        (|task| task.containers[0].state.live.touched = 100, true),
        (|task| task.containers[0].state.create_asked = false, true),
        (
            |task| {
                task.containers[0].state.live.operation = Some(crate::state::PendingOperation {
                    id: OpId(50),
                    kind: crate::state::OperationKind::Inspect,
                    since: NOW,
                    asked_in_step: 0,
                });
            },
            true,
        ),
        (|_| {}, false),
    ];
    for (nth, (change, is_left_alone)) in cases.into_iter().enumerate() {
        let (mut state, op) = unsettled_task(change);
        let before = first(&state).clone();
        let task = state.tasks.get_mut(&"task".into()).unwrap();
        task.containers[0].state.live.retry.not_before = NOW + Span::secs(1);
        listed(&mut state, op, Vec::new());
        assert_eq!(first(&state).live.unsettled == before.live.unsettled, is_left_alone, "{nth}");

        let (mut state, op) = unsettled_task(change);
        state.tasks.get_mut(&"task".into()).unwrap().containers[0].state.live.retry.not_before = NOW + Span::secs(1);
        listed(&mut state, op, vec![seen("task", "a", "id", RunState::Created)]);
        let is_unseen = first(&state).observed.is_none();
        // A container that exists although its creation was never requested is ours.
        assert_eq!(is_unseen, is_left_alone && before.create_asked, "{nth}");
    }
}

#[test]
fn only_a_created_container_under_a_name_of_ours_is_an_orphan() {
    let removed = |run_state, name: &dyn Fn(&str) -> String| {
        let (mut state, op) = unsettled_task(|task| task.containers[0].state.create_asked = false);
        let mut orphan = seen("forgotten", "a", "id", run_state);
        orphan.runtime_name = name(&name_suffix(&orphan.task, &orphan.container));
        let effects = listed(&mut state, op, vec![orphan]);
        effects.iter().any(|effect| matches!(effect, Effect::Do(_, Operation::Remove(target)) if target == "id"))
    };
    let ours = |suffix: &str| format!("ecs-family-1-a-{suffix}");
    assert!(removed(RunState::Created, &ours));
    assert!(!removed(RunState::Exited, &ours) && !removed(RunState::Running, &ours));
    assert!(!removed(RunState::Created, &|_| "by-hand".to_owned()));
}

/// The container has the labels and the name of one of ours, but another agent created it.
#[test]
fn another_agents_container_is_neither_seen_nor_taken_for_ours() {
    let unsettled_task = || {
        let (mut state, op) = unsettled_task(|task| task.containers[0].state.runtime_id = None);
        state.policy.owners.own = "us".into();
        (state, op)
    };
    let theirs = Observation { owner: Some("them".into()), ..seen("task", "a", "id", RunState::Running) };
    let (mut state, op) = unsettled_task();
    step(&mut state, NOW, Event::Observed(Box::new(theirs.clone())));
    assert_eq!((&first(&state).runtime_id, first(&state).observed), (&None, None), "an event");
    listed(&mut state, op, vec![theirs.clone()]);
    assert_eq!((&first(&state).runtime_id, first(&state).observed), (&None, None), "a list");
    let orphan =
        Observation { runtime_id: "orphan".into(), state: RunState::Created, task: "forgotten".into(), ..theirs };
    let suffix = name_suffix(&orphan.task, &orphan.container);
    let (mut state, op) = unsettled_task();
    listed(&mut state, op, vec![Observation { runtime_name: format!("ecs-f-1-a-{suffix}"), ..orphan }]);
    assert!(state.orphans.is_empty(), "{:?}", state.orphans);
}

#[test]
fn the_removal_of_an_orphan_is_repeated_after_a_wait() {
    let mut state = state(Policy::default());
    let op = *state.ops.keys().next().unwrap();
    step(&mut state, NOW, done(op, Output::Inventory(Vec::new())));
    state.orphans.insert("id".to_owned(), Orphan::from_observation(&seen("forgotten", "a", "id", RunState::Created)));
    let removal = |effects: Vec<Effect>| match effects[..] {
        [Effect::Do(op, Operation::Remove(_))] => Some(op),
        _ => None,
    };
    let op = removal(step(&mut state, NOW, Event::Tick).effects).unwrap();
    assert_eq!(step(&mut state, NOW, Event::Tick).effects, [], "one at a time");
    let failed = Err(OpError::Failed(Failure::retryable("CannotRemoveContainerError", "busy")));
    assert_eq!(step(&mut state, NOW, Event::Completed { op, outcome: failed }).effects, [], "not at once");
    let again = next_deadline(&state).unwrap();
    assert!((NOW + Span::millis(1_000)..=NOW + Span::millis(1_200)).contains(&again));
    let op = removal(step(&mut state, again, Event::Tick).effects).unwrap();
    step(&mut state, again, done(op, Output::Nothing));
    assert_eq!((state.orphans.len(), state.ops.len()), (0, 0));
}

#[test]
fn an_orphan_whose_task_is_asked_for_again_is_not_removed() {
    for (name, is_an_orphan) in [("a", false), ("b", true)] {
        let (mut state, op) = unsettled_task(|_| {});
        let mut orphan = seen("again", name, "id", RunState::Created);
        orphan.runtime_name = format!("ecs-family-1-{name}-{}", name_suffix(&orphan.task, &orphan.container));
        let effects = listed(&mut state, op, vec![orphan]);
        let Some(Effect::Do(op, Operation::Remove(_))) =
            effects.iter().find(|effect| matches!(effect, Effect::Do(_, Operation::Remove(_))))
        else {
            panic!("{effects:?}")
        };
        let failed = Err(OpError::Failed(Failure::retryable("CannotRemoveContainerError", "busy")));
        step(&mut state, NOW, Event::Completed { op: *op, outcome: failed });
        step(&mut state, NOW, run(spec("again", vec![container("a", &[])])));
        let later = step(&mut state, NOW + Span::secs(2), Event::Tick).effects;
        let is_removed =
            later.iter().any(|effect| matches!(effect, Effect::Do(_, Operation::Remove(target)) if target == "id"));
        assert_eq!((is_removed, state.orphans.is_empty()), (is_an_orphan, !is_an_orphan), "{name}");
    }
}

#[test]
fn a_listing_is_made_when_due_and_again_after_a_failure() {
    let mut state = state(Policy::default());
    let op = *state.ops.keys().next().unwrap();
    let failed = Err(OpError::Failed(Failure::retryable("CannotListContainersError", "no")));
    step(&mut state, NOW, Event::Completed { op, outcome: failed });
    let again = next_deadline(&state).unwrap();
    assert!((NOW + Span::millis(1_000)..=NOW + Span::millis(1_200)).contains(&again));
    let [Effect::Do(op, Operation::Inventory)] = step(&mut state, again, Event::Tick).effects[..] else {
        panic!("again")
    };
    step(&mut state, again, done(op, Output::Inventory(Vec::new())));
    assert_eq!(next_deadline(&state), Some(again + state.policy.inventory_every));
    let lost = step(&mut state, again, Event::EventsMissed).effects;
    assert!(matches!(lost[..], [Effect::Do(_, Operation::Inventory)]), "wanted now");
    assert_eq!(step(&mut state, again + Span::secs(400), Event::EventsMissed).effects, [], "one at a time");
}

/// Two tasks whose containers run, and a pending inventory that was requested afterwards.
fn two_running() -> (State, OpId) {
    let mut state = state(Policy::default());
    let first = *state.ops.keys().next().unwrap();
    step(&mut state, NOW, done(first, Output::Inventory(Vec::new())));
    for arn in ["a", "b"] {
        step(&mut state, NOW, run(spec(arn, vec![container("c", &[])])));
        // Every operation succeeds: pull, create, start, report.
        while let Some(op) = state.ops.keys().next().copied() {
            let output = match state.tasks[&TaskArn::from(arn)].containers[0].state.create_asked {
                true => Output::Seen(Some(Box::new(seen(arn, "c", arn, RunState::Running)))),
                false => Output::Nothing,
            };
            step(&mut state, NOW, done(op, output));
        }
    }
    let effects = step(&mut state, NOW, Event::EventsMissed).effects;
    let [Effect::Do(op, Operation::Inventory)] = effects[..] else { panic!("{effects:?}") };
    (state, op)
}

/// Found by the simulator (1 schedule in 1,000,000): of two stopped containers, one ran again, then the other. At the end of
/// the first the task was reported as stopped.
#[test]
fn a_task_is_not_over_in_the_middle_of_a_list() {
    let (mut state, op) = unsettled_task(|task| {
        *task = TaskState::new(spec("task", vec![container("a", &[]), container("b", &[])]), 1, NOW);
        for (container, observed) in task.states_mut().zip([RunState::Running, RunState::Exited]) {
            (container.known, container.observed) = (ContainerStatus::Stopped, Some(observed));
            (container.create_asked, container.ran) = (true, true);
        }
        (task.containers[0].state.runtime_id, task.containers[1].state.runtime_id) =
            (Some("a".into()), Some("b".into()));
    });
    let both = vec![seen("task", "a", "a", RunState::Exited), seen("task", "b", "b", RunState::Running)];
    let effects = listed(&mut state, op, both);
    assert_ne!(state.tasks[&TaskArn::from("task")].known, TaskStatus::Stopped);
    assert!(matches!(&effects[..], [Effect::Do(_, Operation::Stop { target, .. })] if target == "b"), "{effects:?}");
}

#[test]
fn unchanged_facts_are_not_written_again() {
    let (mut state, op) = two_running();
    let both = vec![seen("a", "c", "a", RunState::Running), seen("b", "c", "b", RunState::Running)];
    assert_eq!(step(&mut state, NOW, done(op, Output::Inventory(both))).changed, BTreeSet::new());
    let (mut state, op) = two_running();
    let changed_one = vec![seen("a", "c", "a", RunState::Running), seen("b", "c", "b", RunState::Exited)];
    let changed = step(&mut state, NOW, done(op, Output::Inventory(changed_one))).changed;
    assert_eq!(changed, BTreeSet::from([Key::Task("b".into())]));
}

#[test]
fn credentials_change_the_task_they_are_for() {
    let (mut state, _) = two_running();
    for task in state.tasks.values_mut() {
        task.execution_credentials = Some("old".into());
    }
    let arrived = |task: Option<&str>| Event::CredentialsArrived {
        task: task.map(|task| (task.into(), RoleKind::Execution)),
        ids: vec!["new".into()],
        ack: None,
    };
    assert_eq!(step(&mut state, NOW, arrived(None)).changed, BTreeSet::new());
    assert_eq!(step(&mut state, NOW, arrived(Some("b"))).changed, BTreeSet::from([Key::Task("b".into())]));
}
