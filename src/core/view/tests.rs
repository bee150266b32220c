use super::super::policy::{Capacity, Policy};
use super::super::sample::{NOW, container, run, spec, state};
use super::super::{Output, sample, step};
use super::*;
use crate::model::task::Condition;
use crate::model::waiting::{Awaited, Requirement, Shortage};
use crate::model::{ContainerStatus, CredentialsId, Failure, Health, OpError, OpId, RunState, TaskSpec, TaskStatus};

fn waits_of(state: &State, task: &str) -> Vec<(Option<String>, Blocker)> {
    let view = view(state, NOW);
    let task = view.tasks.iter().find(|candidate| candidate.arn.as_str() == task).unwrap();
    let waits = task.waits.iter().cloned();
    waits.map(|waiting| (waiting.container.map(|name| name.to_string()), waiting.blocker)).collect()
}

/// An awaited container of which nothing is known yet.
fn awaited(name: &str, requirement: Requirement) -> Awaited {
    let known = ContainerStatus::ManifestPulled;
    Awaited {
        container: name.into(),
        requirement,
        known,
        health: Health::Unknown,
        health_output: String::new(),
        exit_code: None,
    }
}

#[test]
fn a_pending_task_says_what_each_container_waits_for() {
    let mut state = state(Policy::default());
    let dependent = container("b", &[("a", Condition::Start)]);
    step(&mut state, NOW, run(spec("task", vec![container("a", &[]), dependent])));
    let op = state.tasks[&"task".into()].containers[0].state.live.operation.unwrap().id;
    let wanted = [
        (Some("a".to_owned()), Blocker::Pull(op, "image@sha256:1".to_owned())),
        (Some("b".to_owned()), Blocker::Containers(vec![awaited("a", Requirement::Condition(Condition::Start))], None)),
    ];
    assert_eq!(waits_of(&state, "task"), wanted);
    step(&mut state, NOW, sample::done(op, Output::Pulled));
    let op = state.tasks[&"task".into()].containers[0].state.live.operation.unwrap().id;
    assert_eq!(waits_of(&state, "task")[0].1, Blocker::Docker(op, "create"));
    let unknown = Err(OpError::Unknown(Failure::permanent("DockerTimeoutError", "no answer")));
    step(&mut state, NOW, super::super::Event::Completed { op, outcome: unknown });
    assert!(matches!(waits_of(&state, "task")[0].1, Blocker::NextTry(at) if at > NOW));
}

/// The blocker of a running task of one container after a change.
fn blocked(change: impl FnOnce(&mut TaskState)) -> Option<Blocker> {
    let mut task = sample::task(vec![container("a", &[])]);
    (task.admitted, task.desired, task.known) = (true, TaskStatus::Stopped, TaskStatus::Running);
    let container = &mut task.containers[0].state;
    (container.known, container.observed, container.ran) = (ContainerStatus::Running, Some(RunState::Running), true);
    change(&mut task);
    let mut state = state(Policy::default());
    state.tasks.insert("task".into(), Box::new(task));
    let mut waits = waits_of(&state, "task");
    assert!(waits.len() < 2, "{waits:?}");
    waits.pop().map(|(_, blocker)| blocker)
}

fn doing(task: &mut TaskState, kind: OperationKind) {
    task.containers[0].state.live.operation =
        Some(PendingOperation { id: OpId(7), kind, since: NOW, asked_in_step: 0 });
}

#[test]
fn the_pending_operation_is_shown() {
    use OperationKind::{Create, Inspect, Pull, Remove, ResolveDigest, Start, Stop};
    let image = || "image@sha256:1".to_owned();
    let begins = |task: &mut TaskState, kind| {
        (task.desired, task.containers[0].state) = (TaskStatus::Running, ContainerState::default());
        doing(task, kind);
    };
    assert_eq!(blocked(|task| begins(task, ResolveDigest)), Some(Blocker::Digest(OpId(7), image())));
    assert_eq!(blocked(|task| begins(task, Pull)), Some(Blocker::Pull(OpId(7), image())));
    assert_eq!(blocked(|task| doing(task, Pull)), None, "a pull of what is to stop is cancelled");
    assert_eq!(blocked(|task| doing(task, Create)), Some(Blocker::Docker(OpId(7), "create")));
    assert_eq!(blocked(|task| doing(task, Start)), Some(Blocker::Docker(OpId(7), "start")));
    assert_eq!(blocked(|task| doing(task, Stop)), Some(Blocker::Docker(OpId(7), "stop")));
    assert_eq!(blocked(|task| doing(task, Inspect)), Some(Blocker::Docker(OpId(7), "describe")));
    assert_eq!(blocked(|task| doing(task, Remove)), Some(Blocker::Docker(OpId(7), "remove")));
}

#[test]
fn a_task_in_its_target_state_shows_no_wait() {
    assert_eq!(blocked(|_| {}), None, "it is about to be stopped, and nothing holds that up");
    assert_eq!(blocked(|task| task.containers[0].state.live.retry.not_before = NOW), None, "it is time");
    assert_eq!(
        blocked(|task| task.containers[0].state.live.retry.not_before = Timestamp(NOW.0 + 1)),
        Some(Blocker::NextTry(Timestamp(NOW.0 + 1)))
    );
    // The first inventory is pending.
    assert_eq!(blocked(|task| task.containers[0].state.live.unsettled = true), Some(Blocker::Inventory));
    assert_eq!(
        blocked(|task| (task.desired, task.containers[0].state.live.unsettled) = (TaskStatus::Running, true)),
        None,
        "it runs"
    );
    let over: fn(&mut TaskState) = |task| {
        task.containers[0].state.known = ContainerStatus::Stopped;
        task.containers[0].state.observed = Some(RunState::Exited);
    };
    assert_eq!(blocked(over), None);
}

#[test]
fn a_stopped_container_that_docker_shows_running_is_not_there() {
    let mut state = state(Policy::default());
    step(&mut state, NOW, run(spec("task", vec![container("a", &[])])));
    let task = state.tasks.get_mut(&"task".into()).unwrap();
    task.containers[0].state.raise(ContainerStatus::Stopped, NOW);
    for (observed, wanted) in [(None, true), (Some(RunState::Exited), true), (Some(RunState::Running), false)] {
        task.containers[0].state.observed = observed;
        assert_eq!(task.has_reached_target(0), wanted, "{observed:?}");
    }
}

/// Readers compare views by the views of tasks that they share.
#[test]
fn tasks_that_show_nothing_new_are_shared_with_the_last_view() {
    let mut state = state(Policy::default());
    for arn in ["a", "b", "c", "d"] {
        step(&mut state, NOW, run(spec(arn, vec![container("app", &[])])));
    }
    let last = view(&state, NOW);
    state.tasks.remove(&"b".into());
    let changed = BTreeSet::from([Key::Task("c".into())]);
    let next = view_after(&last, &state, &changed, NOW);
    let shared = |view: &Arc<TaskView>| last.tasks.iter().any(|shown| Arc::ptr_eq(shown, view));
    let found: Vec<(&str, bool)> = next.tasks.iter().map(|task| (task.arn.as_str(), shared(task))).collect();
    assert_eq!(found, [("a", true), ("c", false), ("d", true)]);
    assert!(!next.shows_the_same(&last) && view_after(&next, &state, &BTreeSet::new(), NOW).shows_the_same(&next));
}

#[test]
fn a_stopping_container_shows_what_must_stop_before_it() {
    let mut task = sample::task(vec![container("a", &[]), container("b", &[("a", Condition::Start)])]);
    (task.admitted, task.desired, task.known) = (true, TaskStatus::Stopped, TaskStatus::Running);
    for container in task.states_mut() {
        (container.known, container.observed, container.ran) =
            (ContainerStatus::Running, Some(RunState::Running), true);
    }
    let mut state = state(Policy::default());
    state.tasks.insert("task".into(), Box::new(task));
    let running = Awaited { known: ContainerStatus::Running, ..awaited("b", Requirement::End) };
    assert_eq!(waits_of(&state, "task"), [(Some("a".to_owned()), Blocker::Containers(vec![running], None))]);
    state.tasks.get_mut(&"task".into()).unwrap().containers[0].state.known = ContainerStatus::Stopped;
    assert_eq!(waits_of(&state, "task"), []);
    state.inventory.events_missed = true;
    state.tasks.get_mut(&"task".into()).unwrap().containers[1].state.live.unsettled = true;
    assert_eq!(waits_of(&state, "task"), [(Some("b".to_owned()), Blocker::Inventory)]);
}

#[test]
fn a_wait_began_with_the_operation_or_with_the_last_change() {
    let mut task = sample::task(vec![container("a", &[])]);
    (task.admitted, task.known_at) = (true, Timestamp(5));
    task.containers[0].state.changed_at = Timestamp(7);
    task.containers[0].state.live.unsettled = true;
    let mut state = state(Policy::default());
    state.inventory.events_missed = true;
    let since = |state: &State| view(state, NOW).tasks[0].waits[0].since;
    state.tasks.insert("task".into(), Box::new(task.clone()));
    assert_eq!(since(&state), Timestamp(7));
    task.known_at = Timestamp(9);
    state.tasks.insert("task".into(), Box::new(task.clone()));
    assert_eq!(since(&state), Timestamp(9));
    task.containers[0].state.live.operation =
        Some(PendingOperation { id: OpId(7), kind: OperationKind::Pull, since: Timestamp(8), asked_in_step: 0 });
    state.tasks.insert("task".into(), Box::new(task));
    assert_eq!(since(&state), Timestamp(8));
}

#[test]
fn a_full_host_or_missing_credentials_are_shown() {
    let capacity = Capacity { cpu: 1024, memory: 10, ..Capacity::default() };
    let mut state = state(Policy { capacity, ..Policy::default() });
    let mut large = container("a", &[]);
    large.memory = 10;
    step(&mut state, NOW, run(spec("first", vec![large.clone()])));
    step(&mut state, NOW, run(spec("second", vec![large])));
    let short = Shortage {
        what: "MiB of memory",
        wanted: "10".to_owned(),
        free: "0".to_owned(),
        held_by: vec!["first".into()],
    };
    assert_eq!(short.to_string(), "10 MiB of memory (0 free; held by first)");
    assert_eq!(waits_of(&state, "second"), [(None, Blocker::HostResources(vec![short]))]);
    let mut private = container("a", &[]);
    private.memory = 0;
    private.registry_auth = crate::model::task::RegistryAuth::Ecr(crate::model::task::EcrAuth {
        use_execution_role: true,
        ..Default::default()
    });
    let id = CredentialsId::from("id");
    let spec = TaskSpec { execution_credentials: Some(id.clone()), ..spec("third", vec![private]) };
    let mut state = sample::state(Policy::default());
    step(&mut state, NOW, run(spec));
    assert_eq!(waits_of(&state, "third"), [(Some("a".to_owned()), Blocker::Credentials(RoleKind::Execution, id))]);
}

/// Readers see the same waits as planning. Neither of these two was shown at first.
#[test]
fn a_pull_that_waits_for_the_disk_or_for_a_removal_says_so() {
    use crate::model::image::ImageWork;
    use crate::policy::ImagePolicy;
    let images = ImagePolicy { disk: Some((80, 70)), ..ImagePolicy::default() };
    let mut full = state(Policy { images, ..Policy::default() });
    step(&mut full, NOW, run(spec("task", vec![container("a", &[])])));
    assert_eq!(waits_of(&full, "task"), [(Some("a".to_owned()), Blocker::DiskSpace)]);
    let mut going = state(Policy::default());
    let name = "image@sha256:1".to_owned();
    let work = ImageWork::RemoveImage { id: "id".to_owned(), names: vec![name.clone()] };
    going.images.operation = Some((OpId(0), work));
    step(&mut going, NOW, run(spec("task", vec![container("a", &[])])));
    assert_eq!(waits_of(&going, "task"), [(Some("a".to_owned()), Blocker::ImageRemoval(name))]);
}

/// The process is in no document, and nothing else of the container changes.
#[test]
fn another_first_process_is_shown_though_no_document_changed() {
    let mut task = sample::task(vec![container("a", &[])]);
    let state_of = |task: &crate::state::TaskState| {
        let mut state = state(Policy::default());
        state.tasks.insert("task".into(), Box::new(task.clone()));
        state
    };
    let seen = |state| crate::model::Observation { state, ..sample::seen("task", "a", "id", state) };
    let container = |task: &mut crate::state::TaskState, observed: RunState, pid| {
        let observation = crate::model::Observation { pid, ..seen(observed) };
        task.containers[0].state.remember(&observation, NOW);
    };
    let before = view(&state_of(&task), NOW);
    container(&mut task, RunState::Running, Some(7));
    let running = view_after(&before, &state_of(&task), &BTreeSet::new(), NOW);
    let process = |view: &View| view.tasks[0].containers[0].process.as_ref().map(|process| process.pid);
    assert_eq!((process(&before), process(&running)), (None, Some(7)));
    container(&mut task, RunState::Running, None);
    let listed = view_after(&running, &state_of(&task), &BTreeSet::new(), NOW);
    assert!(listed.shows_the_same(&running), "a list names no process");
    container(&mut task, RunState::Exited, None);
    assert_eq!(process(&view_after(&running, &state_of(&task), &BTreeSet::new(), NOW)), None);
}

/// That a report is due is in no document either.
#[test]
fn a_report_that_waits_is_shown_though_no_document_changed() {
    let mut state = state(Policy::default());
    step(&mut state, NOW, run(spec("task", vec![container("a", &[])])));
    let before = view(&state, NOW);
    state.tasks.get_mut(&"task".into()).unwrap().live.unreported_since = Some(NOW);
    let after = view_after(&before, &state, &BTreeSet::new(), NOW);
    assert_eq!((before.tasks[0].unreported_since, after.tasks[0].unreported_since), (None, Some(NOW)));
}
