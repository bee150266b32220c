//! Tests of volumes that are mounted with the task role.

use super::*;
use crate::model::task::VolumesFrom;
use crate::state::Container;

/// A state with a task whose container `a` mounts a volume with the task role, and `b` has the volumes of `a`. The volume exists.
fn with_role_volume() -> State {
    let (mut state, _) = arrived(Vec::new());
    let kind = ResourceKind::Volume(VolumeSpec { with_role: true, scope: VolumeScope::Task, ..shared_volume() });
    let mut containers = ["a", "b", "c"].map(|name| container(name, &[]));
    containers[1].volumes_from = vec![VolumesFrom { container: "a".into(), read_only: false }];
    let spec = TaskSpec {
        resources: vec![resource("volume", kind, &["a"])],
        role_credentials: Some("role".into()),
        ..spec("roles", containers.to_vec())
    };
    let effects = step(&mut state, NOW, run(spec)).effects;
    let volume = effects.iter().find_map(|effect| match effect {
        Effect::Do(op, Operation::CreateResource(request)) => Some((*op, request.role_id.clone())),
        _ => None,
    });
    let (op, id) = volume.unwrap();
    assert_eq!(id, Some("role".into()), "the id in the path of the credentials");
    step(&mut state, NOW, done(op, Output::Nothing));
    state
}

/// The names of the containers that are created and started.
fn going_on(state: &State, effects: &[Effect]) -> Vec<String> {
    let task = &state.tasks[&"roles".into()];
    let name = |runtime_name: &str| task.specs().find(|spec| task.spec.runtime_name(&spec.name) == runtime_name);
    let started = effects.iter().filter_map(|effect| match effect {
        Effect::Do(_, Operation::Create(request)) if request.task == "roles".into() => {
            Some(request.spec.name.to_string())
        }
        Effect::Do(_, Operation::Start(target)) => {
            Some(name(target).map_or_else(|| target.clone(), |spec| spec.name.to_string()))
        }
        _ => None,
    });
    started.collect()
}

fn role_arrives(state: &mut State, id: &str) -> Vec<Effect> {
    let task = Some(("roles".into(), RoleKind::Task));
    step(state, NOW, Event::CredentialsArrived { task, ids: vec![id.into()], ack: None }).effects
}

#[test]
fn a_mount_with_the_task_role_waits_for_its_credentials() {
    let mut state = with_role_volume();
    let pulls: Vec<_> = state.ops.keys().copied().collect();
    let effects: Vec<_> =
        pulls.into_iter().flat_map(|op| step(&mut state, NOW, done(op, Output::Pulled)).effects).collect();
    assert_eq!(going_on(&state, &effects), ["c"], "the others would be refused the mount");
    let waits = crate::view::view(&state, NOW);
    let waits: Vec<_> = waits.tasks.iter().flat_map(|task| &task.waits).map(|wait| wait.blocker.to_string()).collect();
    let role = waits.iter().filter(|text| *text == "ECS to send the credentials of its task role").count();
    assert_eq!(role, 2, "{waits:?}");
    let other = Event::CredentialsArrived { task: None, ids: vec!["other".into()], ack: None };
    let effects = step(&mut state, NOW, other).effects;
    assert_eq!(going_on(&state, &effects), [""; 0]);
    let effects = role_arrives(&mut state, "newer");
    assert_eq!(going_on(&state, &effects), ["a", "b"]);
}

/// The volume keeps the path with the first id, as the containers do; new credentials are served there.
#[test]
fn a_volume_of_a_stored_task_waits_for_its_role_before_a_start() {
    let restarted = |change: fn(&mut TaskState)| {
        let stored = serde_json::to_string(&*with_role_volume().tasks[&"roles".into()]).unwrap();
        let mut task = serde_json::from_str(&stored).unwrap();
        change(&mut task);
        let mut state = recover(Policy::default(), crate::state::HostState::default(), [task]);
        let listing = step(&mut state, NOW, Event::Tick).effects;
        let listed = listing.iter().find_map(|effect| match effect {
            Effect::Do(op, Operation::Inventory) => Some(*op),
            _ => None,
        });
        let found = ["a", "b"].map(|name| crate::sample::seen("roles", name, name, RunState::Created));
        let effects = step(&mut state, NOW, done(listed.unwrap(), Output::Inventory(found.to_vec()))).effects;
        assert_eq!(going_on(&state, &effects), [""; 0], "{effects:?}");
        let effects = role_arrives(&mut state, "newer");
        assert_eq!(going_on(&state, &effects), ["a", "b"]);
        assert_eq!(state.tasks[&"roles".into()].spec.role_id, Some("role".into()));
    };
    let created = |task: &mut TaskState| {
        for Container { state, .. } in &mut task.containers {
            (state.known, state.observed) = (ContainerStatus::Created, Some(RunState::Created));
        }
        task.containers.truncate(2);
    };
    restarted(created);
    restarted(|task| {
        task.containers.truncate(2);
        for Container { spec, state } in &mut task.containers {
            spec.restart = Some(RestartPolicy { ignored_exit_codes: Vec::new(), attempt_period: Span::secs(60) });
            (state.known, state.observed, state.ran) = (ContainerStatus::Running, Some(RunState::Created), true);
            (state.restarts.due, state.restarts.run) = (true, Some(String::new()));
        }
    });
}

#[test]
fn the_outline_of_a_volume_keeps_that_it_needs_the_role() {
    let kind = ResourceKind::Volume(VolumeSpec { with_role: true, ..shared_volume() });
    let outline = resource("volume", kind, &["a"]).outline().unwrap();
    assert!(outline.kind.is_mounted_with_role() && outline.needed_by.is_empty());
    let mut state = with_role_volume();
    let task = state.tasks.get_mut(&"roles".into()).unwrap();
    let before: Vec<bool> = (0..3).map(|at| mounts_with_role(task, at)).collect();
    task.resources[0].spec = outline;
    let after: Vec<bool> = (0..3).map(|at| mounts_with_role(task, at)).collect();
    assert_eq!((before, after), (vec![true, true, false], vec![true; 3]));
    let plain = serde_json::to_string(&shared_volume()).unwrap();
    assert!(!plain.contains("with_role"), "{plain}");
}
