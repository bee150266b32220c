use crate::model::resource::CgroupSpec;
use crate::model::task::Condition;
use crate::model::view::RoleView;
use crate::model::{
    Ack, ContainerStatus, CredentialsAck, CredentialsId, Failure, Observation, OpError, OpId, ResourceKind,
    ResourceSpec, ResourceStatus, RoleKind, RunState, TaskArn, TaskSpec, TaskStatus,
};
use crate::policy::{Capacity, Policy};
use crate::sample::{NOW, container, done, seen, spec};
use crate::state::{HostState, OperationOwner, State, TaskState};
use crate::{Effect, Event, Message, Operation, Output, PayloadTask, Step, check, next_deadline, recover, step};
use std::collections::{BTreeMap, BTreeSet};

fn two(first_is_essential: bool) -> TaskSpec {
    let mut init = container("init", &[]);
    init.essential = first_is_essential;
    init.command = Some(vec!["only the payload knows".to_owned()]);
    init.endpoint_id = "endpoint".into();
    spec("task", vec![init, container("main", &[("init", Condition::Start)])])
}

fn found(spec: &TaskSpec, name: &str, run_state: RunState) -> Observation {
    Observation {
        runtime_name: spec.runtime_name(&name.into()),
        outline: Some(Box::new(spec.outline())),
        exit_code: (run_state == RunState::Exited).then_some(3),
        ..seen(&spec.arn.0, name, name, run_state)
    }
}

/// An agent that has lost its state, and the pending inventory.
fn lost() -> (State, crate::model::OpId) {
    let mut state = recover(Policy::default(), HostState { lost: true, ..HostState::default() }, []);
    let effects = step(&mut state, NOW, Event::Tick).effects;
    let [Effect::Do(op, Operation::Inventory)] = effects[..] else { panic!("{effects:?}") };
    (state, op)
}

fn after(containers: Vec<Observation>) -> (State, Step) {
    let (mut state, op) = lost();
    let out = step(&mut state, NOW, done(op, Output::Inventory(containers)));
    assert_eq!(check(&state), Ok(()));
    assert!(!state.host.lost);
    (state, out)
}

fn reported(out: &Step) -> Vec<(TaskStatus, Vec<Option<i32>>)> {
    let changes = out.effects.iter().filter_map(|effect| match effect {
        Effect::Do(_, Operation::Report(change)) => Some(change),
        _ => None,
    });
    changes
        .map(|change| (change.status, change.containers.iter().map(|container| container.exit_code).collect()))
        .collect()
}

fn touched(out: &Step) -> bool {
    out.effects.iter().any(|effect| {
        matches!(
            effect,
            Effect::Do(_, Operation::Create(_) | Operation::Start(_))
                | Effect::Do(_, Operation::Stop { .. })
                | Effect::Do(_, Operation::Remove(_))
        )
    })
}

#[test]
fn running_containers_go_on_and_their_end_is_reported() {
    let spec = two(true);
    let all = vec![found(&spec, "init", RunState::Running), found(&spec, "main", RunState::Running)];
    let (mut state, out) = after(all);
    assert_eq!(reported(&out), [(TaskStatus::Running, vec![None, None])]);
    assert!(!touched(&out), "{out:?}");
    let task = &state.tasks[&spec.arn];
    assert!(task.admitted && task.desired == TaskStatus::Running && task.ran, "{task:?}");
    let out = step(&mut state, NOW, Event::Observed(Box::new(found(&spec, "main", RunState::Exited))));
    let stops: Vec<_> =
        out.effects.iter().filter(|effect| matches!(effect, Effect::Do(_, Operation::Stop { .. }))).collect();
    assert_eq!(stops.len(), 1, "main was essential, so init stops: {out:?}");
    assert_eq!(state.tasks[&spec.arn].containers[1].state.exit_code, Some(3));
}

/// Another inventory is requested, but only if a task was rebuilt.
#[test]
fn rebuilt_tasks_get_consecutive_arrivals() {
    let seen: Vec<Observation> =
        ["one", "two", "three"].map(|arn| found(&spec(arn, vec![container("a", &[])]), "a", RunState::Running)).into();
    let (state, out) = after(seen);
    let mut arrivals: Vec<u64> = state.tasks.values().map(|task| task.arrival).collect();
    arrivals.sort_unstable();
    assert_eq!((arrivals, state.host.arrivals), (vec![1, 2, 3], 3));
    let lists = |out: &Step| out.effects.iter().any(|effect| matches!(effect, Effect::Do(_, Operation::Inventory)));
    assert!(lists(&out), "their events since were ignored: {out:?}");
    let (_, out) = after(Vec::new());
    assert!(!lists(&out), "{out:?}");
}

#[test]
fn running_tasks_go_on_even_if_the_host_is_too_small() {
    let mut spec = two(true);
    spec.containers[1].cpu = 600;
    let capacity = Capacity { cpu: 500, memory: 9999, ..Capacity::default() };
    let mut state =
        recover(Policy { capacity, ..Policy::default() }, HostState { lost: true, ..HostState::default() }, []);
    let Some(Effect::Do(op, Operation::Inventory)) = step(&mut state, NOW, Event::Tick).effects.pop() else {
        panic!("lists")
    };
    let all = ["init", "main"].map(|name| found(&spec, name, RunState::Running)).into();
    let out = step(&mut state, NOW, done(op, Output::Inventory(all)));
    assert_eq!(check(&state), Ok(()));
    assert!(!touched(&out) && state.tasks[&spec.arn].admitted, "{out:?}");
}

#[test]
fn containers_that_ended_meanwhile_are_reported_stopped() {
    let spec = two(true);
    let (state, out) = after(vec![found(&spec, "init", RunState::Exited), found(&spec, "main", RunState::Exited)]);
    assert_eq!(reported(&out), [(TaskStatus::Stopped, vec![Some(3), Some(3)])]);
    assert_eq!(state.tasks[&spec.arn].known, TaskStatus::Stopped);
}

#[test]
fn an_end_listed_without_details_is_inspected() {
    let spec = two(true);
    let brief = Observation { started_at: None, ..found(&spec, "main", RunState::Exited) };
    let (mut state, out) = after(vec![found(&spec, "init", RunState::Running), brief]);
    assert!(reported(&out).is_empty() && !touched(&out), "{out:?}");
    // The second inventory, which the rebuilding requests, must be answered before.
    let listing = |effect: &Effect| if let Effect::Do(op, Operation::Inventory) = effect { Some(*op) } else { None };
    let op = out.effects.iter().find_map(listing).unwrap();
    let mut other = state.clone();
    let whole = vec![found(&spec, "init", RunState::Running), found(&spec, "main", RunState::Exited)];
    let out = step(&mut state, NOW, done(op, Output::Inventory(whole)));
    assert_eq!(reported(&out), [(TaskStatus::Running, vec![None, None, Some(3)])], "it ran, and is over since");
    // The container is gone meanwhile, and is not created again.
    let out = step(&mut other, NOW, done(op, Output::Inventory(vec![found(&spec, "init", RunState::Running)])));
    assert!(
        !out.effects
            .iter()
            .any(|effect| matches!(effect, Effect::Do(_, Operation::ResolveDigest(_) | Operation::Pull(_)))),
        "{out:?}"
    );
    let main = &other.tasks[&spec.arn].containers[1].state;
    assert!(main.is_stopped() && main.removed, "{main:?}");
    assert_eq!(check(&other), Ok(()));
}

#[test]
fn a_missing_container_stops_nothing_that_runs() {
    for (present, state_of_it) in [("init", RunState::Running), ("main", RunState::Running)] {
        let spec = two(true);
        let (state, out) = after(vec![found(&spec, present, state_of_it)]);
        assert!(!touched(&out), "{present}: {out:?}");
        assert_eq!(state.tasks[&spec.arn].known, TaskStatus::Running, "{present}");
    }
}

#[test]
fn a_created_container_starts_unless_a_dependency_is_missing() {
    let spec = two(false);
    let (_, out) = after(vec![found(&spec, "init", RunState::Running), found(&spec, "main", RunState::Created)]);
    assert!(
        out.effects.iter().any(|effect| matches!(effect, Effect::Do(_, Operation::Start(target)) if target == "main"))
    );
    let mut three = two(false);
    three.containers.push(container("side", &[]));
    let (state, out) = after(vec![found(&three, "side", RunState::Running), found(&three, "main", RunState::Created)]);
    assert!(!touched(&out), "{out:?}");
    let statuses: Vec<_> = state.tasks[&three.arn].states().map(|container| container.known).collect();
    assert_eq!(statuses, [ContainerStatus::Stopped, ContainerStatus::Stopped, ContainerStatus::Running]);
}

#[test]
fn foreign_and_never_started_containers_are_not_taken_over() {
    let spec = two(true);
    let renamed = Observation { runtime_name: "by-hand".to_owned(), ..found(&spec, "main", RunState::Running) };
    let unlabelled = Observation { outline: None, ..found(&spec, "main", RunState::Running) };
    for stranger in [renamed, unlabelled] {
        let (state, out) = after(vec![stranger]);
        assert!(state.tasks.is_empty() && state.orphans.is_empty() && out.effects.is_empty(), "{out:?}");
    }
    let (state, out) = after(vec![found(&spec, "main", RunState::Created)]);
    assert!(state.tasks.is_empty() && matches!(&out.effects[..], [Effect::Do(_, Operation::Remove(_))]), "{out:?}");
}

#[test]
fn containers_of_another_agent_are_not_taken_over() {
    let spec = two(true);
    let by = |owner: Option<&str>, state| Observation { owner: owner.map(Into::into), ..found(&spec, "main", state) };
    for (owner, is_ours) in
        [(None, true), (Some("us"), true), (Some("before"), true), (Some("them"), false), (Some(""), false)]
    {
        for run_state in [RunState::Running, RunState::Exited, RunState::Created] {
            let mut policy = Policy::default();
            policy.owners.own = "us".into();
            policy.owners.earlier.insert("before".into());
            let mut state = recover(policy, HostState { lost: true, ..HostState::default() }, []);
            let Some(Effect::Do(op, Operation::Inventory)) = step(&mut state, NOW, Event::Tick).effects.pop() else {
                panic!("lists")
            };
            let out = step(&mut state, NOW, done(op, Output::Inventory(vec![by(owner, run_state)])));
            let is_touched = !state.tasks.is_empty() || !state.orphans.is_empty() || touched(&out);
            assert_eq!(is_touched, is_ours, "{owner:?} {run_state:?}: {out:?}");
            assert_eq!(check(&state), Ok(()));
        }
    }
}

#[test]
fn a_renamed_container_of_a_rebuilt_task_is_left_alone() {
    let spec = two(true);
    let renamed = Observation { runtime_name: "by-hand".to_owned(), ..found(&spec, "init", RunState::Running) };
    let (mut state, out) = after(vec![found(&spec, "main", RunState::Running), renamed.clone()]);
    assert!(!touched(&out), "{out:?}");
    let payload = Event::Payload { tasks: vec![PayloadTask::Run(Box::new(spec.clone()))], seq: 9, ack: None };
    for event in [Event::Observed(Box::new(renamed.clone())), payload, Event::Observed(Box::new(renamed))] {
        let out = step(&mut state, NOW, event.clone());
        assert!(!touched(&out), "{event:?}: {out:?}");
    }
    let task = &state.tasks[&spec.arn];
    assert_eq!((task.known, task.containers[0].state.observed), (TaskStatus::Running, None));
    assert_eq!(check(&state), Ok(()));
}

#[test]
fn messages_of_ecs_wait_until_the_containers_are_known() {
    let spec = two(true);
    let ack = |id: &str| Ack {
        message_id: id.to_owned(),
        cluster: String::new(),
        container_instance: String::new(),
        credentials: Vec::new(),
    };
    let payload = |task| Event::Payload { tasks: vec![task], seq: 4, ack: Some(ack("payload")) };
    let messages: [(Event, bool); 3] = [
        (payload(PayloadTask::Stop(spec.arn.clone(), Vec::new())), true),
        (payload(PayloadTask::Run(Box::new(spec.clone()))), false),
        (Event::Manifest { timeline: 5, running: BTreeSet::new(), ack: ack("manifest") }, false),
    ];
    for (event, stops) in messages {
        let (mut state, op) = lost();
        let is_manifest = matches!(event, Event::Manifest { .. });
        assert_eq!(step(&mut state, NOW, event.clone()), Step::default(), "{event:?}");
        let all = vec![found(&spec, "init", RunState::Running), found(&spec, "main", RunState::Running)];
        let out = step(&mut state, NOW, done(op, Output::Inventory(all)));
        assert!(out.effects.iter().any(|effect| matches!(effect, Effect::Send(Message::Ack(_)))), "{out:?}");
        assert_eq!(touched(&out), stops, "{event:?}: {out:?}");
        let asks = out.effects.iter().any(
            |effect| matches!(effect, Effect::Send(Message::VerifyStop { tasks, .. }) if *tasks == [spec.arn.clone()]),
        );
        assert_eq!(asks, is_manifest);
        assert_eq!(state.held, []);
    }
}

/// The id in a container's environment leads to the credentials that ECS has sent meanwhile under another one.
#[test]
fn credentials_wait_until_the_containers_are_known() {
    let spec = TaskSpec { role_credentials: Some("old".into()), ..two(true) };
    let (mut state, op) = lost();
    let ack = CredentialsAck { message_id: "m".to_owned(), id: "new".into(), expiration: String::new() };
    let task = Some((spec.arn.clone(), RoleKind::Task));
    let arrived = Event::CredentialsArrived { task, ids: vec!["new".into()], ack: Some(ack.clone()) };
    assert_eq!(step(&mut state, NOW, arrived), Step::default());
    let mut main = found(&spec, "main", RunState::Running);
    main.ids.role = Some("old".into());
    let all = vec![found(&spec, "init", RunState::Running), main];
    let out = step(&mut state, NOW, done(op, Output::Inventory(all)));
    assert!(out.effects.contains(&Effect::Send(Message::AckCredentials(ack))), "{out:?}");
    let expected = RoleView { kind: RoleKind::Task, current: "new".into(), given: vec!["old".into()] };
    assert_eq!(crate::view(&state, NOW).tasks[0].roles, [expected]);
    assert_eq!(state.credentials, [CredentialsId::from("new")].into());
}

#[test]
fn the_messages_held_back_are_bounded() {
    let (mut state, _) = lost();
    for _ in 0..=super::MAX_HELD_EVENTS {
        let stop = PayloadTask::Stop(TaskArn::from("task"), Vec::new());
        step(&mut state, NOW, Event::Payload { tasks: vec![stop], seq: 4, ack: None });
    }
    assert_eq!(state.held.len(), super::MAX_HELD_EVENTS);
}

#[test]
fn leases_in_the_label_of_any_container_are_given_back() {
    let mut spec = two(true);
    let kind = crate::model::ResourceKind::CredentialSpecs(vec!["credentialspec:file://x".to_owned()]);
    spec.resources =
        vec![crate::model::ResourceSpec { name: "credentialspec".to_owned(), needed_by: Vec::new(), kind }];
    let (first, mut second) = (found(&spec, "init", RunState::Running), found(&spec, "main", RunState::Running));
    second.outline.as_mut().unwrap().leases = vec!["lease".to_owned()]; // made after the first container was
    let (state, _) = after(vec![first, second]);
    let task = &state.tasks[&spec.arn];
    let tickets = task.resources[0].state.tickets.as_ref().unwrap();
    assert_eq!(tickets.leases, ["lease".to_owned()]);
}

/// A repeated payload starts nothing twice.
#[test]
fn a_repeated_payload_completes_the_specification() {
    let spec = two(true);
    let (mut state, _) = after(vec![found(&spec, "init", RunState::Running), found(&spec, "main", RunState::Running)]);
    assert_eq!(whole(&state.tasks[&spec.arn]), spec.outline());
    let mut again = spec.clone();
    again.containers[0].endpoint_id = "another".into();
    let event = Event::Payload { tasks: vec![PayloadTask::Run(Box::new(again))], seq: 9, ack: None };
    let out = step(&mut state, NOW, event);
    assert!(!touched(&out), "{out:?}");
    let task = &state.tasks[&spec.arn];
    assert_eq!(whole(task), spec, "and the endpoint in the containers' environment stays");
    assert!(!task.reduced && task.known == TaskStatus::Running);
}

/// The whole specification of a task.
fn whole(task: &TaskState) -> TaskSpec {
    let resources = task.resources.iter().map(|resource| resource.spec.clone()).collect();
    task.spec.with(task.specs().cloned().collect(), resources)
}

/// The task of two containers, with these resources.
fn with_resources(names: &[&str]) -> TaskSpec {
    let mut spec = two(true);
    let resource = |name: &&str| ResourceSpec {
        name: (*name).to_owned(),
        needed_by: vec!["main".into()],
        kind: ResourceKind::Cgroup(CgroupSpec::default()),
    };
    spec.resources = names.iter().map(resource).collect();
    spec
}

/// A rebuilt task that has ended, and the pending removals of its resources by their names.
fn removals(names: &[&str]) -> (State, BTreeMap<String, OpId>) {
    let spec = with_resources(names);
    let ended = ["init", "main"].map(|name| found(&spec, name, RunState::Exited));
    let (mut state, _) = after(ended.to_vec());
    let later = NOW + state.policy.cleanup_wait;
    let mut removals = BTreeMap::new();
    let mut waiting: Vec<OpId> = state.ops.keys().copied().collect();
    while let Some(op) = waiting.pop() {
        let list = ended.to_vec();
        let output =
            if state.ops[&op] == OperationOwner::Inventory { Output::Inventory(list) } else { Output::Nothing };
        let out = step(&mut state, later, done(op, output));
        removals.extend(out.effects.iter().filter_map(|effect| match effect {
            Effect::Do(op, Operation::RemoveResource(request)) => Some((request.spec.name.clone(), *op)),
            _ => None,
        }));
        waiting = state.ops.keys().filter(|op| !removals.values().any(|removal| removal == *op)).copied().collect();
    }
    assert_eq!(removals.len(), names.len(), "{state:?}");
    (state, removals)
}

fn again(names: &[&str]) -> Event {
    Event::Payload { tasks: vec![PayloadTask::Run(Box::new(with_resources(names)))], seq: 9, ack: None }
}

fn status(state: &State, name: &str) -> ResourceStatus {
    let task = &state.tasks[&TaskArn::from("task")];
    task.resources[task.resource_index(name).unwrap()].state.known
}

#[test]
fn an_outcome_reaches_its_resource_after_the_order_changed() {
    for first in ["x", "y"] {
        let second = if first == "x" { "y" } else { "x" };
        let (mut state, ops) = removals(&["x", "y"]);
        step(&mut state, NOW, again(&["y", "x"]));
        assert_eq!(check(&state), Ok(()));
        step(&mut state, NOW, done(ops[first], Output::Nothing));
        assert_eq!(status(&state, first), ResourceStatus::Removed, "{first}");
        assert_ne!(status(&state, second), ResourceStatus::Removed, "{second} is on its way");
        step(&mut state, NOW, done(ops[second], Output::Nothing));
        assert!(state.tasks.is_empty() && state.ops.is_empty(), "{state:?}");
    }
}

#[test]
fn a_pending_resource_that_is_not_named_any_more_is_kept() {
    let (mut state, ops) = removals(&["x", "y"]);
    step(&mut state, NOW, again(&["y"]));
    assert_eq!(check(&state), Ok(()));
    step(&mut state, NOW, done(ops["y"], Output::Nothing));
    assert!(!state.tasks.is_empty(), "the other resource is not gone yet");
    let failed = Err(OpError::Failed(Failure::retryable("CannotRemove", "busy")));
    step(&mut state, NOW, Event::Completed { op: ops["x"], outcome: failed });
    assert_eq!(check(&state), Ok(()));
    let later = next_deadline(&state).unwrap();
    let out = step(&mut state, later, Event::Tick);
    let [Effect::Do(op, Operation::RemoveResource(request))] = &out.effects[..] else { panic!("{out:?}") };
    assert_eq!(request.spec.name, "x");
    step(&mut state, later, done(*op, Output::Nothing));
    assert!(state.tasks.is_empty() && state.ops.is_empty(), "{state:?}");
}

#[test]
fn a_resource_without_a_name_now_is_kept_if_it_may_exist() {
    for (known, wanted) in
        [(ResourceStatus::None, vec![]), (ResourceStatus::Created, vec!["x"]), (ResourceStatus::Removed, vec![])]
    {
        let spec = with_resources(&["x"]);
        let (mut state, _) = after(["init", "main"].map(|name| found(&spec, name, RunState::Running)).to_vec());
        let task = state.tasks.get_mut(&spec.arn).unwrap();
        let resource = &mut task.resources[0].state;
        (resource.known, resource.create_asked, resource.live.operation) = (known, false, None);
        super::complete(task, with_resources(&[]));
        let kept: Vec<&str> = task.resources.iter().map(|resource| resource.spec.name.as_str()).collect();
        assert_eq!(kept, wanted, "{known:?}");
    }
}

#[test]
fn a_new_resource_takes_no_outcome_of_another() {
    let (mut state, ops) = removals(&["x", "y"]);
    step(&mut state, NOW, again(&["z", "y", "x"]));
    step(&mut state, NOW, done(ops["x"], Output::Nothing));
    let known = ["x", "y", "z"].map(|name| status(&state, name));
    assert_eq!((known[0], known[2]), (ResourceStatus::Removed, ResourceStatus::None));
    assert_ne!(known[1], ResourceStatus::Removed);
    step(&mut state, NOW, done(ops["y"], Output::Nothing));
    assert!(state.tasks.is_empty(), "what was never asked for need not be removed: {state:?}");
}

#[test]
fn only_a_matching_specification_completes_a_reduced_task() {
    let spec = two(true);
    let runs = || vec![found(&spec, "init", RunState::Running), found(&spec, "main", RunState::Running)];
    let mut other = spec.clone();
    other.containers.swap(0, 1);
    let (mut state, _) = after(runs());
    let task = state.tasks.get_mut(&spec.arn).unwrap();
    super::complete(task, other.clone());
    assert_eq!((whole(task), task.reduced), (spec.outline(), true));
    super::complete(task, spec.clone());
    let mut changed = spec.clone();
    changed.containers[0].image = "another".to_owned();
    super::complete(task, changed);
    assert_eq!((whole(task), task.reduced), (spec, false));
}

#[test]
fn a_smaller_host_keeps_its_tasks_and_admits_no_more() {
    let policy = |cpu| Policy { capacity: Capacity { cpu, memory: 9999, ..Capacity::default() }, ..Policy::default() };
    let wanting = |arn: &str| {
        let mut container = container("a", &[]);
        container.cpu = 600;
        spec(arn, vec![container])
    };
    let mut old = recover(policy(2048), HostState::default(), []);
    for arn in ["one", "two"] {
        step(&mut old, NOW, crate::sample::run(wanting(arn)));
    }
    let tasks: Vec<TaskState> = old.tasks.values().map(|task| (**task).clone()).collect();
    let stored: Vec<TaskState> = serde_json::from_str(&serde_json::to_string(&tasks).unwrap()).unwrap();
    let mut state = recover(policy(1024), HostState::default(), stored);
    step(&mut state, NOW, Event::Tick);
    step(&mut state, NOW, crate::sample::run(wanting("three")));
    assert_eq!(check(&state), Ok(()));
    let admitted = |arn: &str| state.tasks[&TaskArn::from(arn)].admitted;
    assert_eq!([admitted("one"), admitted("two"), admitted("three")], [true, true, false]);
    assert_eq!(state.host.arrivals, 3, "counted on, though the host's document was lost");
}
