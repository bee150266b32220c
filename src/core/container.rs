//! The next action for one container, or its reason to wait: [`next`] decides, [`advance`] carries the decision out.

use super::dependency::{self, NEVER_STARTED_EXIT_CODE, Readiness};
use super::effect::{ImageRequest, Operation};
use super::image;
use super::network;
use super::planning::Planning;
use super::policy::PullBehavior;
use super::resource;
use super::restart;
use super::state::{Container, OperationKind, PendingOperation, Retry, State, TaskState};
use crate::model::task::{ContainerKind, NetworkMode, RegistryAuth};
use crate::model::{
    ContainerStatus, CreateRequest, CredentialsId, Failure, ResourceKind, RoleKind, RunState, Timestamp,
};
use std::net::Ipv4Addr;

/// The next action for one container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Nothing: the container has reached the status that it should have.
    Nothing,
    /// The container waits.
    Wait(Wait),
    /// The pending operation is useless now, so it is cancelled.
    Cancel,
    /// The container reaches this status without any operation.
    Raise(ContainerStatus),
    /// The container can never go on.
    Fail(Failure),
    /// This operation must be started.
    Do(OperationKind),
}

/// The reason why a container waits. The details are in the state; `view` adds them for readers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// The task's share of the host.
    Admission,
    /// This pending operation on the container.
    Operation(PendingOperation),
    /// The next try after a failure, at this moment.
    NextTry(Timestamp),
    /// The inventory, which will show this container too.
    Inventory,
    /// Containers that depend on this one and must end first.
    Dependents,
    /// Containers that this one depends on, and essential containers that are unsettled. The wait is given up at this moment;
    /// `None`: never.
    Dependencies(Option<Timestamp>),
    /// The credentials of this role.
    Credentials(RoleKind),
    /// The resource of the task with this index.
    Resource(usize),
    /// The removal of the container's image by the image clean-up.
    ImageRemoval,
    /// The network of the task: to be set up, or torn down.
    Network,
    /// Room on the disk for a pull: the disk is being checked, or images are being removed.
    DiskSpace,
}

/// Decides the next action for a container. Planning carries the decision out, and readers see it.
///
/// At most one operation is pending for a container. An unsettled container is inspected before anything else is done to it.
pub(super) fn next(state: &State, task: &TaskState, index: usize, now: Timestamp) -> Next {
    let container = &task.containers[index].state;
    if let Some(operation) = container.live.operation {
        let is_useless = operation.kind.is_image_work() && task.must_stop(index);
        return if is_useless { Next::Cancel } else { Next::Wait(Wait::Operation(operation)) };
    }
    if container.live.retry.not_before > now {
        return Next::Wait(Wait::NextTry(container.live.retry.not_before));
    }
    if container.live.unsettled {
        // A pending inventory shows this container too. If it does not, the container is inspected afterwards.
        let is_listed = state.inventory.events_missed || state.inventory.pending.is_some();
        return if is_listed { Next::Wait(Wait::Inventory) } else { Next::Do(OperationKind::Inspect) };
    }
    if task.must_stop(index) { next_toward_stop(task, index) } else { next_toward_running(state, task, index, now) }
}

/// The next action for a container that must stop.
fn next_toward_stop(task: &TaskState, index: usize) -> Next {
    let container = &task.containers[index].state;
    if container.observed == Some(RunState::Running) {
        // If a stopped container runs again after a late start, its dependents have no use for it, so it need not wait for them.
        let may_stop = container.is_stopped() || dependency::may_stop(task, index);
        return match may_stop {
            true if network::delays_stop(task, index) => Next::Wait(Wait::Network),
            true => Next::Do(OperationKind::Stop),
            false => Next::Wait(Wait::Dependents),
        };
    }
    if container.is_stopped() {
        return Next::Nothing;
    }
    // A container with a due restart has ended already, so it does not wait for its dependents.
    let may_end = container.restarts.due || dependency::may_stop(task, index);
    match may_end {
        true if container.may_start_late() => Next::Do(OperationKind::Remove),
        true => Next::Raise(ContainerStatus::Stopped),
        false => Next::Wait(Wait::Dependents),
    }
}

/// The next action for a container that should run.
fn next_toward_running(state: &State, task: &TaskState, index: usize, now: Timestamp) -> Next {
    if !task.admitted {
        return Next::Wait(Wait::Admission);
    }
    if let Some(resource) = resource::missing_resource(task, index) {
        let is_in_network = task.resources[resource].spec.kind.is_mounted_in_network();
        if is_in_network && !network::is_ready_for(task, index) {
            return Next::Wait(Wait::Network);
        }
        let is_missing = resource::credentials_missing(task, resource, state);
        let (role, resource) = (Wait::Credentials(RoleKind::Execution), Wait::Resource(resource));
        return Next::Wait(if is_missing { role } else { resource });
    }
    let (spec, container) = (&task.containers[index].spec, &task.containers[index].state);
    let wanted = match container.known {
        // The image of a pause container is loaded when the container is created.
        ContainerStatus::None if spec.kind == ContainerKind::Pause => return Next::Raise(ContainerStatus::Pulled),
        // A reference by digest needs no look-up.
        ContainerStatus::None if spec.image.contains('@') => return Next::Raise(ContainerStatus::ManifestPulled),
        ContainerStatus::None => OperationKind::ResolveDigest,
        ContainerStatus::ManifestPulled => OperationKind::Pull,
        ContainerStatus::Pulled => OperationKind::Create,
        ContainerStatus::Created => OperationKind::Start,
        // The dependencies of this container were met before its first start.
        ContainerStatus::Running if container.restarts.due => {
            if dependency::unsettled_essentials(task).next().is_some() {
                return Next::Wait(Wait::Dependencies(None));
            }
            if !network::is_ready_for(task, index) {
                return Next::Wait(Wait::Network);
            }
            let role = missing_role(task, index, OperationKind::Start, state);
            return role.map_or(Next::Do(OperationKind::Start), |role| Next::Wait(Wait::Credentials(role)));
        }
        ContainerStatus::Running | ContainerStatus::Stopped => return Next::Nothing,
    };
    let needs_no_dependency =
        wanted == OperationKind::ResolveDigest || (wanted == OperationKind::Pull && state.policy.pull_upfront);
    let readiness = if needs_no_dependency { Readiness::Ready } else { dependency::may_start(task, index, now) };
    match readiness {
        Readiness::Never(failure) => Next::Fail(failure),
        Readiness::Waits(until) => Next::Wait(Wait::Dependencies(until)),
        Readiness::Ready if !needs_no_dependency && !network::is_ready_for(task, index) => Next::Wait(Wait::Network),
        Readiness::Ready => image_wait(state, task, index, wanted, now).map_or(Next::Do(wanted), Next::Wait),
    }
}

/// The container's wait that concerns its image or its credentials, before this operation; `None`: there is none.
fn image_wait(state: &State, task: &TaskState, index: usize, wanted: OperationKind, now: Timestamp) -> Option<Wait> {
    if wanted != OperationKind::Start && image::is_being_removed(state, &task.containers[index].spec.image) {
        return Some(Wait::ImageRemoval);
    }
    if let Some(role) = missing_role(task, index, wanted, state) {
        return Some(Wait::Credentials(role));
    }
    (wanted == OperationKind::Pull && image::lacks_room(state, now)).then_some(Wait::DiskSpace)
}

/// Carries out the next action for one container; true if the container's state changed so that other facts of the task may
/// follow.
pub(super) fn advance(task: &mut TaskState, index: usize, planning: &mut Planning<'_>) -> bool {
    if task.must_stop(index) && !std::mem::replace(&mut task.containers[index].state.live.stopping, true) {
        task.containers[index].state.live.retry = Retry::default(); // earlier failures do not delay the stop
    }
    let mut action = next(planning.state, task, index, planning.now);
    if action == Next::Cancel {
        planning.cancel(task, index);
        action = next(planning.state, task, index, planning.now);
    }
    match action {
        Next::Nothing | Next::Cancel => false,
        Next::Wait(wait) => {
            match wait {
                Wait::NextTry(at) | Wait::Dependencies(Some(at)) => {
                    planning.is_time(at);
                }
                Wait::DiskSpace => image::request_disk_check(planning.state, planning.now),
                _ => {}
            }
            false
        }
        Next::Raise(status) => {
            raise(task, index, status, planning.now);
            true
        }
        Next::Fail(failure) => {
            let container = &mut task.containers[index].state;
            container.fail(failure);
            container.exit_code.get_or_insert(NEVER_STARTED_EXIT_CODE);
            true
        }
        Next::Do(kind) => {
            begin(task, index, kind, planning);
            false
        }
    }
}

fn raise(task: &mut TaskState, index: usize, status: ContainerStatus, now: Timestamp) {
    let Container { spec, state: container } = &mut task.containers[index];
    if status == ContainerStatus::Stopped {
        restart::give_up(container);
    }
    // The digest of a reference is reported with other changes, but causes no report by itself.
    if let (ContainerStatus::ManifestPulled, Some((_, digest))) = (status, spec.image.split_once('@')) {
        container.digest.get_or_insert(digest.to_owned());
    }
    container.raise(status, now);
}

fn begin(task: &mut TaskState, index: usize, kind: OperationKind, planning: &mut Planning<'_>) {
    let operation = match kind {
        OperationKind::ResolveDigest => Operation::ResolveDigest(image_request(task, index, planning)),
        OperationKind::Pull => {
            let image = image_request(task, index, planning);
            // Otherwise the image may be cached, and then nothing is pulled. If it is pulled, `apply` sets the moment.
            if image.asks_registry {
                task.pull_started_at.get_or_insert(planning.now);
            }
            Operation::Pull(image)
        }
        OperationKind::Create => {
            task.containers[index].state.create_asked = true;
            Operation::Create(Box::new(create_request(task, index)))
        }
        OperationKind::Start => Operation::Start(task.target(index)),
        OperationKind::Stop => {
            let grace = task.containers[index].spec.stop_timeout;
            Operation::Stop { target: task.target(index), grace }
        }
        OperationKind::Inspect => Operation::Inspect(task.target(index)),
        OperationKind::Remove => Operation::Remove(task.target(index)),
    };
    planning.start(task, index, operation);
}

fn create_request(task: &TaskState, index: usize) -> CreateRequest {
    let spec = task.containers[index].spec.clone();
    let links = spec.links.iter().map(|link| (task.spec.runtime_name(&link.container), link.alias.clone())).collect();
    let volumes_from = spec.volumes_from.iter();
    let volumes_from = volumes_from.map(|other| (task.spec.runtime_name(&other.container), other.read_only)).collect();
    let resources = || task.resources.iter().map(|resource| &resource.spec);
    let ticket = spec.credential_spec.as_deref().and_then(|spec| resource::ticket(task, spec));
    let needed = resources().filter(|resource| resource.needed_by.contains(&spec.name));
    let router = spec.log_routing.as_ref().and_then(|routing| task.index_of(routing.router.as_ref()?));
    CreateRequest {
        task: task.spec.arn.clone(),
        family: task.spec.family.clone(),
        version: task.spec.version.clone(),
        runtime_name: task.spec.runtime_name(&spec.name),
        outline: task.outline(),
        role_id: task.spec.role_id.clone(),
        log_role_id: task.spec.execution_role_id.clone().filter(|_| spec.logs_with_execution_role),
        ticket,
        resources: needed.map(|resource| resource.name.clone()).collect(),
        spec,
        links,
        volumes_from,
        network: network::namespace(task, index),
        pause: task.pause().map(|pause| task.spec.runtime_name(&pause.name)),
        in_task_cgroup: resources().any(|resource| matches!(resource.kind, ResourceKind::Cgroup(_))),
        router_address: router.and_then(|router| router_address(task, router)),
    }
}

/// The address of the log router for other containers of its task. In network mode `awsvpc` they have the same network.
fn router_address(task: &TaskState, router: usize) -> Option<String> {
    match task.spec.network {
        NetworkMode::Awsvpc => Some(Ipv4Addr::LOCALHOST.to_string()),
        NetworkMode::Bridge | NetworkMode::Host | NetworkMode::None => task.containers[router].state.address.clone(),
    }
}

/// A role whose credentials the operation needs, and which are not in memory: after a restart they are missing until ECS sends
/// them again. A start needs those of the execution role for the log driver, without which Docker starts no container. A create
/// and a start need those of the task role if they mount a volume with them. (The Go agent starts the container, and the start
/// fails.)
fn missing_role(task: &TaskState, index: usize, operation: OperationKind, state: &State) -> Option<RoleKind> {
    let is_missing = |id: &Option<CredentialsId>| id.as_ref().is_some_and(|id| !state.credentials.contains(id));
    let spec = &task.containers[index].spec;
    let by_registry = match &spec.registry_auth {
        RegistryAuth::Ecr(auth) => auth.use_execution_role,
        RegistryAuth::Secret(_) => true,
        RegistryAuth::Engine => false,
    };
    let is_needed = (operation.is_image_work() && by_registry)
        || (operation == OperationKind::Start && spec.logs_with_execution_role);
    if is_needed && is_missing(&task.execution_credentials) {
        return Some(RoleKind::Execution);
    }
    let mounts = matches!(operation, OperationKind::Create | OperationKind::Start);
    let is_missing = mounts && is_missing(&task.role_credentials) && resource::mounts_with_role(task, index);
    is_missing.then_some(RoleKind::Task)
}

fn image_request(task: &TaskState, index: usize, planning: &Planning<'_>) -> ImageRequest {
    let spec = &task.containers[index].spec;
    let policy = &planning.state.policy;
    let (asks_registry, accepts_cached) = match policy.pull {
        PullBehavior::Default => (true, true),
        PullBehavior::Always => (true, false),
        PullBehavior::Once => (!planning.state.host.pulled_images.contains(&spec.image), false),
        PullBehavior::PreferCached => (false, true),
    };
    ImageRequest {
        image: spec.image.clone(),
        digest: task.containers[index].state.digest.clone(),
        auth: spec.registry_auth.clone(),
        execution_credentials: task.execution_credentials.clone(),
        asks_registry,
        accepts_cached,
        checks_host_after_failure: accepts_cached && policy.pull_upfront,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::resource::{EnvironmentFile, LogRouting, ResourceSpec};
    use crate::model::task::Condition;
    use crate::model::{Failure, OpError, OpId, Span, TaskStatus};
    use crate::sample::{NOW, container, done, only, run, seen, spec, state, task};
    use crate::{Effect, Event, Output, PayloadTask, Policy, step};

    /// The pause container is never reported, and the other containers are created with a reference to it.
    #[test]
    fn a_pause_container_is_created_first_and_never_pulled() {
        let mut state = state(Policy::default());
        let mut pause = container("~pause", &[]);
        (pause.kind, pause.image) = (ContainerKind::Pause, "no reference by digest".to_owned());
        let spec = spec("task", vec![container("main", &[("~pause", Condition::Start)]), pause]);
        let name = spec.runtime_name(&"~pause".into());
        let Effect::Do(op, Operation::Create(request)) = only(step(&mut state, NOW, run(spec))) else {
            panic!("not created first")
        };
        assert_eq!((request.spec.name.as_str(), request.pause.as_deref()), ("~pause", Some(name.as_str())));
        let there = |run_state| Output::Seen(Some(Box::new(seen("task", "~pause", "id", run_state))));
        let Effect::Do(op, Operation::Start(_)) = only(step(&mut state, NOW, done(op, there(RunState::Created))))
        else {
            panic!("not started")
        };
        let Effect::Do(op, Operation::Pull(_)) = only(step(&mut state, NOW, done(op, there(RunState::Running)))) else {
            panic!("the other one is not pulled, or something was reported")
        };
        let Effect::Do(op, Operation::Create(request)) = only(step(&mut state, NOW, done(op, Output::Pulled))) else {
            panic!("the other one is not created")
        };
        assert_eq!(request.pause.as_deref(), Some(name.as_str()));
        let main = |run_state| Output::Seen(Some(Box::new(seen("task", "main", "id2", run_state))));
        let Effect::Do(op, Operation::Start(_)) = only(step(&mut state, NOW, done(op, main(RunState::Created)))) else {
            panic!("not started")
        };
        let Effect::Do(_, Operation::Report(change)) = only(step(&mut state, NOW, done(op, main(RunState::Running))))
        else {
            panic!("not reported")
        };
        let reported: Vec<_> = change.containers.iter().map(|container| container.container.as_str()).collect();
        assert_eq!(reported, ["main"]);
    }

    /// Docker did not answer for a while, so the next inspection is due in a minute. A stop does not wait for that.
    #[test]
    fn a_stop_does_not_wait_for_earlier_failures() {
        let mut state = state(Policy::default());
        let mut task = task(vec![container("main", &[])]);
        (task.sent, task.known) = (TaskStatus::Running, TaskStatus::Running);
        let later = NOW + Span::secs(60);
        let main = &mut task.containers[0].state;
        (main.known, main.observed, main.create_asked) = (ContainerStatus::Running, Some(RunState::Running), true);
        (main.ran, main.runtime_id, main.sent) = (true, Some("id".into()), main.known);
        main.live.retry = Retry { attempts: 5, not_before: later };
        state.tasks.insert(task.spec.arn.clone(), Box::new(task));
        let stop = |effects: &[Effect]| match effects {
            [Effect::Do(op, Operation::Stop { .. })] => Some(*op),
            [] => None,
            other => panic!("{other:?}"),
        };
        let wish = Event::Payload { tasks: vec![PayloadTask::Stop("task".into(), Vec::new())], seq: 2, ack: None };
        let op = stop(&step(&mut state, NOW, wish).effects).expect("it is stopped at once");
        // After a stop that failed there is a wait.
        let failed = Event::Completed { op, outcome: Err(OpError::Failed(Failure::retryable("", "busy"))) };
        let effects = step(&mut state, NOW, failed).effects;
        assert_eq!(stop(&effects), None);
        assert!(state.tasks[&"task".into()].containers[0].state.live.retry.not_before > NOW);
    }

    /// Answers every operation with success until the creation of the container with this name is requested.
    fn request_of(wanted: &str, state: &mut State, first: Event) -> CreateRequest {
        let mut effects = step(state, NOW, first).effects;
        let ok = |op: OpId, output: Output| done(op, output);
        while let Some(effect) = effects.pop() {
            let event = match effect {
                Effect::Do(_, Operation::Create(request)) if request.spec.name.as_str() == wanted => return *request,
                Effect::Do(op, Operation::Create(request)) => ok(
                    op,
                    Output::Seen(Some(Box::new(seen("task", request.spec.name.as_str(), "id", RunState::Created)))),
                ),
                Effect::Do(op, Operation::Start(_)) => {
                    let mut running = seen("task", "router", "id", RunState::Running);
                    running.address = Some("172.17.0.9".to_owned());
                    ok(op, Output::Seen(Some(Box::new(running))))
                }
                Effect::Do(op, Operation::Inventory) => ok(op, Output::Inventory(Vec::new())),
                Effect::Do(op, Operation::Pull(_) | Operation::CreateResource(_))
                | Effect::Do(op, Operation::Report(_)) => Event::Completed { op, outcome: Ok(Output::Nothing) },
                _ => continue,
            };
            effects.extend(step(state, NOW, event).effects);
        }
        panic!("{wanted} is never created")
    }

    #[test]
    fn a_create_request_names_the_router_and_the_resources() {
        let mut app = container("app", &[("router", Condition::Start)]);
        app.log_routing = Some(LogRouting {
            router: Some("router".into()),
            socket: String::new(),
            tag: String::new(),
            buffer_limit: None,
        });
        let mut task = spec("task", vec![app, container("router", &[])]);
        let files = |name: &str, container: &str| ResourceSpec {
            name: name.to_owned(),
            needed_by: vec![container.into()],
            kind: ResourceKind::EnvironmentFiles(vec![EnvironmentFile { arn: String::new() }]),
        };
        task.resources = vec![files("envfile_app", "app"), files("envfile_router", "router")];
        let mut state = state(Policy::default());
        let request = request_of("app", &mut state, run(task));
        assert_eq!(request.router_address.as_deref(), Some("172.17.0.9"));
        assert_eq!(request.resources, ["envfile_app"]);
        let mut task = state.tasks.remove(&"task".into()).unwrap();
        task.spec.network = NetworkMode::Awsvpc;
        assert_eq!(router_address(&task, 1).as_deref(), Some("127.0.0.1"));
    }
}
