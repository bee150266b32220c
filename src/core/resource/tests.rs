//! Tests of the resources of a task.

use super::*;
use crate::model::TaskSpec;
use crate::model::resource::{CgroupSpec, VolumeScope, VolumeSpec};
use crate::model::task::RestartPolicy;
use crate::model::{CreateRequest, CredentialsId, Failure, OpError, OpId, RoleKind, RunState, Span};
use crate::policy::Policy;
use crate::sample::{NOW, container, done, run, spec, state};
use crate::state::State;
use crate::{Event, Operation, next_deadline, recover, step};
use std::collections::BTreeMap;

mod roles;

fn volatile(needed_by: &[&str]) -> ResourceSpec {
    resource("ssmsecret", ResourceKind::Secrets(Vec::new()), needed_by)
}

fn durable(needed_by: &[&str]) -> ResourceSpec {
    resource("cgroup", ResourceKind::Cgroup(CgroupSpec::default()), needed_by)
}

fn resource(name: &str, kind: ResourceKind, needed_by: &[&str]) -> ResourceSpec {
    ResourceSpec { name: name.to_owned(), needed_by: needed_by.iter().map(|name| (*name).into()).collect(), kind }
}

/// A state in which a task of two containers with these resources has just arrived, and the effects of the arrival.
fn arrived(resources: Vec<ResourceSpec>) -> (State, Vec<Effect>) {
    let mut state = state(Policy { cleanup_wait: Span::secs(100), ..Policy::default() });
    let inventory = *state.ops.keys().next().unwrap();
    step(&mut state, NOW, done(inventory, Output::Inventory(Vec::new())));
    let spec = TaskSpec { resources, ..spec("task", vec![container("a", &[]), container("b", &[])]) };
    let effects = step(&mut state, NOW, run(spec)).effects;
    (state, effects)
}

fn making(effects: &[Effect]) -> Vec<(OpId, &str)> {
    let made = effects.iter().filter_map(|effect| match effect {
        Effect::Do(op, Operation::CreateResource(request)) => Some((*op, request.spec.name.as_str())),
        _ => None,
    });
    made.collect()
}

fn removing(effects: &[Effect]) -> Vec<(OpId, &str)> {
    let removed = effects.iter().filter_map(|effect| match effect {
        Effect::Do(op, Operation::RemoveResource(request)) => Some((*op, request.spec.name.as_str())),
        _ => None,
    });
    removed.collect()
}

fn ends(state: &mut State, now: Timestamp, op: OpId, failure: Failure) -> Vec<Effect> {
    step(state, now, Event::Completed { op, outcome: Err(OpError::Failed(failure)) }).effects
}

fn reason(state: &State) -> (TaskStatus, Option<&str>) {
    let task = &state.tasks[&"task".into()];
    (task.desired, task.reason.as_deref())
}

fn stop() -> Event {
    Event::Payload { tasks: vec![crate::PayloadTask::Stop("task".into(), Vec::new())], seq: 2, ack: None }
}

#[test]
fn a_container_is_created_when_its_resources_exist() {
    let (mut state, effects) = arrived(vec![durable(&["a"])]);
    let made = making(&effects)[0].0;
    let pulls: Vec<OpId> = effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Do(op, Operation::Pull(_)) => Some(*op),
            _ => None,
        })
        .collect();
    assert_eq!(pulls.len(), 2, "nobody waits with a pull");
    assert_eq!(step(&mut state, NOW, done(pulls[0], Output::Pulled)).effects, [], "a waits for the resource");
    let effects = step(&mut state, NOW, done(pulls[1], Output::Pulled)).effects;
    assert!(matches!(&effects[..], [Effect::Do(_, Operation::Create(request))] if request.spec.name.as_str() == "b"));
    let effects = step(&mut state, NOW, done(made, Output::Nothing)).effects;
    assert!(matches!(&effects[..], [Effect::Do(_, Operation::Create(request))] if request.in_task_cgroup));
}

#[test]
fn a_resource_without_users_is_not_created() {
    assert_eq!(making(&arrived(vec![durable(&[]), volatile(&["elsewhere"])]).1), []);
}

#[test]
fn secrets_wait_for_the_credentials_of_the_execution_role() {
    let (mut state, _) = arrived(Vec::new());
    let id = CredentialsId::from("id");
    let other = TaskSpec {
        resources: vec![volatile(&["a"])],
        execution_credentials: Some(id.clone()),
        ..spec("other", vec![container("a", &[])])
    };
    assert_eq!(making(&step(&mut state, NOW, run(other)).effects), []);
    let effects = step(&mut state, NOW, Event::CredentialsArrived { task: None, ids: vec![id], ack: None }).effects;
    assert_eq!(making(&effects).len(), 1);
}

#[test]
fn a_failure_ends_the_task_with_its_text() {
    let (mut state, effects) = arrived(vec![volatile(&["a"])]);
    ends(&mut state, NOW, making(&effects)[0].0, Failure::ends_task("fetching  secret data"));
    assert_eq!(reason(&state), (TaskStatus::Stopped, Some("Fetching secret data")));
    let (mut state, effects) = arrived(vec![durable(&["a"])]);
    let text = "resource cannot be initialized";
    ends(&mut state, NOW, making(&effects)[0].0, Failure::permanent("ResourceInitializationError", text));
    assert_eq!(reason(&state), (TaskStatus::Stopped, Some(text)));
}

#[test]
fn a_temporary_failure_is_repeated_three_times() {
    let (mut state, effects) = arrived(vec![durable(&["a"])]);
    let (mut op, mut now) = (making(&effects)[0].0, NOW);
    for _ in 0..2 {
        assert_eq!(removing(&ends(&mut state, now, op, Failure::retryable("", "busy"))), []);
        assert_eq!(reason(&state).0, TaskStatus::Running);
        let at = state.tasks[&"task".into()].resources[0].state.live.retry.not_before;
        assert!(at > now && next_deadline(&state).is_some_and(|deadline| deadline <= at));
        assert_eq!(making(&step(&mut state, Timestamp(at.0 - 1), Event::Tick).effects), []);
        now = at;
        op = making(&step(&mut state, now, Event::Tick).effects)[0].0;
    }
    ends(&mut state, now, op, Failure::retryable("", "busy"));
    assert_eq!(reason(&state), (TaskStatus::Stopped, Some("Busy")));
}

/// A state with a running task that has this resource, and the effects on the way.
fn running(kind: ResourceSpec) -> (State, Vec<Effect>) {
    let (mut state, mut todo) = arrived(vec![kind]);
    let mut seen = Vec::new();
    while let Some(effect) = todo.pop() {
        let observed = |name: &str, run: RunState| {
            let mut seen = crate::sample::seen("task", name, name, run);
            seen.started_at = (run == RunState::Running).then(String::new);
            Output::Seen(Some(Box::new(seen)))
        };
        let (op, output) = match &effect {
            Effect::Do(op, Operation::Pull(_)) => (*op, Output::Pulled),
            Effect::Do(op, Operation::Create(request)) => {
                (*op, observed(request.spec.name.as_str(), RunState::Created))
            }
            Effect::Do(op, Operation::Start(target)) => (*op, observed(target, RunState::Running)),
            Effect::Do(op, Operation::CreateResource(_) | Operation::RemoveResource(_))
            | Effect::Do(op, Operation::Report(_)) => (*op, Output::Nothing),
            other => panic!("{other:?}"),
        };
        seen.push(effect);
        todo.extend(step(&mut state, NOW, done(op, output)).effects);
    }
    (state, seen)
}

/// The other resources are removed with the task.
#[test]
fn resources_in_memory_go_when_no_container_needs_them() {
    let (state, seen) = running(volatile(&["a"]));
    assert_eq!(state.tasks[&"task".into()].known, TaskStatus::Running);
    assert_eq!(removing(&seen).len(), 1);
    let (mut state, seen) = running(durable(&["a"]));
    assert_eq!(removing(&seen), []);
    let effects = step(&mut state, NOW, stop()).effects;
    assert!(
        effects.iter().all(|effect| matches!(effect, Effect::Do(_, Operation::Stop { .. }))) && effects.len() == 2,
        "{effects:?}"
    );
}

/// They are created again only if a container still needs them.
#[test]
fn resources_that_may_be_gone_are_made_again_on_restart() {
    let volume = resource("volume", ResourceKind::Volume(shared_volume()), &["a"]);
    let (mut state, effects) = arrived(vec![volatile(&["a"]), durable(&["a"]), volume]);
    for (op, _) in making(&effects) {
        step(&mut state, NOW, done(op, Output::Nothing));
    }
    let stored = serde_json::to_string(&*state.tasks[&"task".into()]).unwrap();
    let mut state = recover(Policy::default(), state.host.clone(), [serde_json::from_str(&stored).unwrap()]);
    let effects = step(&mut state, NOW, Event::Tick).effects;
    assert_eq!(making(&effects).iter().map(|(_, name)| *name).collect::<Vec<_>>(), ["ssmsecret", "cgroup"]);
    for kind in [volatile(&["a"]), durable(&["a"])] {
        let (state, _) = running(kind);
        let task = (*state.tasks[&"task".into()]).clone();
        let mut state = recover(Policy::default(), state.host.clone(), [task]);
        assert_eq!(making(&step(&mut state, NOW, Event::Tick).effects), []);
    }
}

fn shared_volume() -> VolumeSpec {
    let scope = VolumeScope::Shared { autoprovision: true };
    let (runtime_name, driver) = ("volume".to_owned(), String::new());
    VolumeSpec {
        runtime_name,
        driver,
        options: BTreeMap::new(),
        labels: BTreeMap::new(),
        scope,
        with_role: false,
        in_network: false,
    }
}

/// A reboot removes control groups, and Docker would start a container without the limits of its task.
#[test]
fn resources_lost_in_a_reboot_exist_before_a_start() {
    let restarted = |change: fn(&mut TaskState)| {
        let (state, _) = running(durable(&["a"]));
        let stored = serde_json::to_string(&*state.tasks[&"task".into()]).unwrap();
        let mut task = serde_json::from_str(&stored).unwrap();
        change(&mut task);
        let mut state = recover(Policy::default(), state.host.clone(), [task]);
        let listing = step(&mut state, NOW, Event::Tick).effects;
        let run = state.tasks[&"task".into()].containers[0].state.observed.unwrap();
        let [a, b] =
            [("a", run), ("b", RunState::Running)].map(|(name, run)| crate::sample::seen("task", name, name, run));
        let listed = listing.iter().find_map(|effect| match effect {
            Effect::Do(op, Operation::Inventory) => Some(done(*op, Output::Inventory(vec![a.clone(), b.clone()]))),
            _ => None,
        });
        let mut effects = listing;
        effects.extend(step(&mut state, NOW, listed.unwrap()).effects);
        let asked = making(&effects);
        let [(op, "cgroup")] = asked[..] else { panic!("{effects:?}") };
        assert!(!effects.iter().any(|effect| matches!(effect, Effect::Do(_, Operation::Start(_)))), "{effects:?}");
        let effects = step(&mut state, NOW, done(op, Output::Nothing)).effects;
        assert!(matches!(&effects[..], [Effect::Do(_, Operation::Start(target))] if target == "a"), "{effects:?}");
    };
    restarted(|task| {
        let container = &mut task.containers[0].state;
        (container.known, container.observed) = (ContainerStatus::Created, Some(RunState::Created));
        (container.ran, container.started_at) = (false, None);
    });
    restarted(|task| {
        task.containers[0].spec.restart =
            Some(RestartPolicy { ignored_exit_codes: Vec::new(), attempt_period: Span::secs(60) });
        let container = &mut task.containers[0].state;
        (container.observed, container.restarts.due, container.restarts.run) =
            (Some(RunState::Exited), true, Some(String::new()));
    });
}

fn tickets(lease: &str) -> Output {
    Output::Tickets(Box::new(Tickets {
        leases: vec![lease.to_owned()],
        paths: [("credentialspecdomainless:file://x".to_owned(), "/krb/x".to_owned())].into(),
        accounts: vec!["arn".to_owned()],
    }))
}

/// A state with a task whose container `a` has a ticket, and the request to create `a`.
fn with_ticket() -> (State, CreateRequest) {
    let (mut state, _) = arrived(Vec::new());
    let mut a = container("a", &[]);
    a.credential_spec = Some("credentialspecdomainless:file://x".to_owned());
    let kind = ResourceKind::CredentialSpecs(vec!["credentialspecdomainless:file://x".to_owned()]);
    let spec = TaskSpec {
        resources: vec![resource("credentialspec", kind, &["a"])],
        execution_credentials: Some("id".into()),
        ..spec("gmsa", vec![a])
    };
    assert_eq!(making(&step(&mut state, NOW, run(spec)).effects), [], "the account is a secret");
    let event = Event::CredentialsArrived { task: None, ids: vec!["id".into()], ack: None };
    let effects = step(&mut state, NOW, event).effects;
    let [Effect::Do(op, Operation::CreateResource(_))] = effects[..] else { panic!("{effects:?}") };
    step(&mut state, NOW, done(op, tickets("lease")));
    let pull = *state.ops.iter().find(|(_, owner)| **owner == OperationOwner::Container("gmsa".into(), 0)).unwrap().0;
    let effects = step(&mut state, NOW, done(pull, Output::Pulled)).effects;
    let [Effect::Do(_, Operation::Create(request))] = &effects[..] else { panic!("{effects:?}") };
    let request = (**request).clone();
    (state, request)
}

fn renewing(effects: &[Effect]) -> Option<(OpId, &ResourceRequest)> {
    effects.iter().find_map(|effect| match effect {
        Effect::Do(op, Operation::RenewResource(request)) => Some((*op, &**request)),
        _ => None,
    })
}

fn new_credentials(state: &mut State, now: Timestamp, id: &str) -> Vec<Effect> {
    let event =
        Event::CredentialsArrived { task: Some(("gmsa".into(), RoleKind::Execution)), ids: vec![id.into()], ack: None };
    step(state, now, event).effects
}

#[test]
fn a_container_gets_its_ticket_and_its_lease_outlives_the_agent() {
    let (state, request) = with_ticket();
    assert_eq!(request.ticket.as_deref(), Some("/krb/x"));
    assert_eq!(request.outline.leases, ["lease"], "the label names the lease if the state is lost");
    let stored = serde_json::to_string(&*state.tasks[&"gmsa".into()]).unwrap();
    let mut state = recover(Policy::default(), state.host.clone(), [serde_json::from_str(&stored).unwrap()]);
    assert_eq!(making(&step(&mut state, NOW, Event::Tick).effects), [], "the ticket is not created again");
    let task = state.tasks.get_mut(&"gmsa".into()).unwrap();
    (task.known, task.sent, task.desired) = (TaskStatus::Stopped, TaskStatus::Stopped, TaskStatus::Stopped);
    (task.containers[0].state.known, task.containers[0].state.sent) =
        (ContainerStatus::Stopped, ContainerStatus::Stopped);
    (task.containers[0].state.live.unsettled, task.containers[0].state.removed) = (false, true);
    (task.live.wake, state.wakes_from) = (Some(NOW), NOW);
    let (late, mut tries) = (NOW + Span::secs(1_000_000), Vec::new());
    for again in 0..3 {
        let effects = step(&mut state, late + Span::secs(again * 100), Event::Tick).effects;
        let found = effects.iter().find_map(|effect| match effect {
            Effect::Do(op, Operation::RemoveResource(request)) => Some((*op, request.tickets.clone())),
            _ => None,
        });
        let (op, tickets) = found.expect("the lease is released");
        tries.push(tickets.expect("with its lease").leases);
        ends(&mut state, late + Span::secs(again * 100), op, Failure::retryable("", "busy"));
    }
    assert_eq!(tries, [["lease"]; 3]);
}

/// Each renewal is tried three times.
#[test]
fn tickets_are_renewed_with_new_credentials() {
    let (mut state, _) = with_ticket();
    let (op, request) = {
        let effects = new_credentials(&mut state, NOW, "new");
        let (op, request) = renewing(&effects).expect("they end otherwise");
        (op, request.clone())
    };
    assert_eq!(request.execution_credentials, Some("new".into()));
    assert_eq!(request.tickets.unwrap().accounts, ["arn"]);
    // Other credentials arrive while the renewal is pending: it is repeated with them.
    assert_eq!(renewing(&new_credentials(&mut state, NOW, "newer")), None);
    let effects = step(&mut state, NOW, done(op, Output::Nothing)).effects;
    let (mut op, request) = renewing(&effects).expect("with the newer ones");
    assert_eq!(request.execution_credentials, Some("newer".into()));
    let mut now = NOW;
    for _ in 0..2 {
        assert_eq!(renewing(&ends(&mut state, now, op, Failure::permanent("", "no"))), None, "after a wait");
        now = now + Span::secs(100);
        op = renewing(&step(&mut state, now, Event::Tick).effects).expect("again").0;
    }
    ends(&mut state, now, op, Failure::permanent("", "no"));
    now = now + Span::secs(1000);
    assert_eq!(renewing(&step(&mut state, now, Event::Tick).effects), None, "until the next credentials");
    assert_eq!(state.tasks[&"gmsa".into()].desired, TaskStatus::Running, "the task goes on with what it has");
    assert!(renewing(&new_credentials(&mut state, now, "newest")).is_some());
}

#[test]
fn a_resource_is_left_behind_after_three_failed_removals() {
    let (mut state, effects) = arrived(vec![durable(&["a"])]);
    // The creation fails temporarily, and then the resource is not needed any more. The removal starts without failures.
    ends(&mut state, NOW, making(&effects)[0].0, Failure::retryable("", "busy"));
    let effects = step(&mut state, NOW, stop()).effects;
    let report = effects.iter().find_map(|effect| match effect {
        Effect::Do(op, Operation::Report(_)) => Some(*op),
        _ => None,
    });
    step(&mut state, NOW, done(report.expect("nothing was created"), Output::Nothing));
    let mut now = NOW + Span::secs(100);
    for attempt in 0..3 {
        let effects = step(&mut state, now, Event::Tick).effects;
        let (op, name) = removing(&effects)[0];
        assert_eq!(name, "cgroup");
        assert!(state.tasks.contains_key(&"task".into()), "{attempt}");
        ends(&mut state, now, op, Failure::permanent("", "busy"));
        now = now + Span::secs(60);
    }
    assert!(!state.tasks.contains_key(&"task".into()));
}

/// A task whose container has reached this status and needs a missing resource of this kind.
fn so_far(known: ContainerStatus, due: bool, kind: ResourceSpec) -> TaskState {
    let spec = TaskSpec { resources: vec![kind], ..spec("task", vec![container("a", &[])]) };
    let mut task = TaskState::new(spec, 1, NOW);
    (task.containers[0].state.known, task.containers[0].state.restarts.due) = (known, due);
    task
}

#[test]
fn resources_in_memory_serve_creates_and_others_every_start() {
    let table = [
        (ContainerStatus::Pulled, false, true, true),
        (ContainerStatus::Created, false, false, true),
        (ContainerStatus::Running, false, false, false),
        (ContainerStatus::Running, true, false, true),
    ];
    for (known, due, in_memory, durably) in table {
        for (kind, wanted) in [(volatile(&["a"]), in_memory), (durable(&["a"]), durably)] {
            let task = so_far(known, due, kind);
            assert_eq!(is_needed(&task, 0), wanted, "{known:?} {due}");
            assert_eq!(missing_resource(&task, 0), wanted.then_some(0), "{known:?} {due}");
        }
    }
}

#[test]
fn resources_in_memory_stay_while_a_create_may_use_them() {
    let mut task = so_far(ContainerStatus::Pulled, false, volatile(&["a"]));
    task.desired = TaskStatus::Stopped;
    for (kind, goes) in [(OperationKind::Create, false), (OperationKind::Pull, true), (OperationKind::Stop, true)] {
        task.containers[0].state.live.operation =
            Some(PendingOperation { id: OpId(1), kind, since: NOW, asked_in_step: 0 });
        assert_eq!(may_be_removed(&task, 0), goes, "{kind:?}");
    }
}

#[test]
fn only_tickets_have_leases_to_give_back() {
    let lease = "lease".to_owned();
    let specs = resource("credentialspec", ResourceKind::CredentialSpecs(Vec::new()), &["a"]);
    let tickets = |spec, leases: &[&String]| rebuilt(spec, &leases.iter().copied().collect()).tickets;
    assert_eq!(tickets(&specs, &[&lease]), Some(Tickets { leases: vec![lease.clone()], ..Tickets::default() }));
    assert_eq!((tickets(&specs, &[]), tickets(&durable(&["a"]), &[&lease])), (None, None));
}
