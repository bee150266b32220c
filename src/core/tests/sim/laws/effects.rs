//! Safety of effects: each effect is judged when it is started, by what is true in the world and on disk.
//!
//! Invariant: nothing here changes the world. In a burst the state has changed since the effect was decided, so laws that
//! compare with the state check `burst` first.

use super::{Before, effort, images, is_known_stopped, networks, tickets};
use crate::control::{PAUSE, Reported};
use crate::docker::Container;
use crate::world::World;
use ecs_core::model::image::ImageWork;
use ecs_core::model::resource::Lifetime;
use ecs_core::model::task::{ContainerKind, Dependency, PAUSE_IMAGE, PAUSE_NAME};
use ecs_core::model::{
    Ack, ContainerName, ContainerSpec, ContainerStatus, CredentialsId, ResourceRequest, ResourceSpec, RunState, Span,
    StateChange, TaskArn, TaskStatus,
};
use ecs_core::state::{OperationOwner, TaskState};
use ecs_core::{Effect, Event, Message, Operation, Step};

/// After this many consecutive creates or starts of one container without an answer, there must be no further one.
const MAX_UNANSWERED: u32 = 3;

/// Judges an effect at the moment it is started.
pub(crate) fn before_effect(world: &mut World, effect: &Effect) {
    let broken = match effect {
        Effect::Do(_, Operation::ResolveDigest(image) | Operation::Pull(image)) if image.image == PAUSE_IMAGE => {
            Some(("the image of a pause container is never pulled", image.image.clone()))
        }
        Effect::Do(op, Operation::ResolveDigest(_)) => operation(world, op, None, None),
        Effect::Do(op, Operation::Pull(_)) => {
            operation(world, op, None, (!world.state.policy.pull_upfront).then_some("pull"))
        }
        Effect::Do(op, Operation::Create(request)) => operation(world, op, Some(&request.runtime_name), Some("create"))
            .or_else(|| tickets::created(world, request))
            .or_else(|| networks::joined(world, op, request)),
        Effect::Do(op, Operation::Start(target)) => {
            operation(world, op, Some(target), Some("start")).or_else(|| networks::used(world, op))
        }
        Effect::Do(op, Operation::Stop { target, .. }) => {
            let broken = operation(world, op, Some(target), None).or_else(|| stop(world, target));
            broken.or_else(|| networks::stopped(world, target))
        }
        Effect::Do(op, Operation::SetUpNetwork(request)) => networks::set_up(world, op, request),
        Effect::Do(op, Operation::TearDownNetwork(request)) => networks::tear_down(world, op, request),
        Effect::Do(op, Operation::ReportAttachment(change)) => networks::reported(world, op, change),
        Effect::Do(op, Operation::Inspect(target)) => operation(world, op, Some(target), None),
        Effect::Do(op, Operation::Remove(target)) => remove(world, op, target),
        Effect::Do(op, Operation::CreateResource(request)) => {
            let broken = resource(world, op, request).or_else(|| resource_creation(world, request));
            broken.or_else(|| networks::mounted(world, request))
        }
        Effect::Do(op, Operation::RenewResource(request)) => {
            resource(world, op, request).or_else(|| tickets::renewed(world, request))
        }
        Effect::Do(op, Operation::RemoveResource(request)) => resource(world, op, request)
            .or_else(|| resource_removal(world, request))
            .or_else(|| tickets::given_back(world, request)),
        Effect::Do(_, Operation::Inventory) => {
            let twice = world.pending.iter().any(|it| matches!(it.effect, Effect::Do(_, Operation::Inventory)));
            twice.then(|| ("one inventory at a time", String::new()))
        }
        Effect::Do(_, Operation::CleanImages(work)) => images::clean(world, work),
        Effect::Do(_, Operation::Report(change)) => report(world, change),
        Effect::Send(Message::Ack(ack)) => acknowledged(world, ack).or_else(|| networks::acknowledged(world, ack)),
        Effect::Send(Message::AckCredentials(_)) => None, // judged by the step, see `credentials_are_acknowledged`
        Effect::Send(Message::VerifyStop { tasks, .. }) => {
            let is_odd = |arn: &&TaskArn| world.disk.tasks.get(*arn).is_none_or(|it| it.known == TaskStatus::Stopped);
            let odd = tasks.iter().find(|arn| !world.burst && is_odd(arn));
            odd.map(|arn| ("ECS is asked only about tasks that are not stopped", arn.to_string()))
        }
        Effect::WriteMetadata(_) | Effect::RemoveMetadata(_) => None, // no container of this world has such a file
        Effect::ForgetCredentials(id) => {
            let user = world.state.tasks.values().find(|it| !world.burst && uses(it, id));
            user.map(|task| ("credentials in use are kept", task.spec.arn.to_string()))
        }
        Effect::Cancel(op) => {
            let is_there = world.pending.iter().any(|it| it.op == *op);
            (!is_there && !world.burst).then(|| ("only what is in flight is cancelled", op.to_string()))
        }
    };
    let broken = broken.or_else(|| images::wanted(world, effect));
    if let Some((law, what)) = broken.or_else(|| too_soon(world, effect)) {
        world.breaks(law, || what);
    }
}

fn uses(task: &TaskState, id: &CredentialsId) -> bool {
    task.execution_credentials.as_ref() == Some(id) || task.role_credentials.as_ref() == Some(id)
}

/// Credentials are acknowledged if and only if their task is known before the step, even if the step forgets the task.
pub(crate) fn credentials_are_acknowledged(world: &mut World, before: &Before, event: &Event, step: &Step) {
    let Event::CredentialsArrived { task: Some((arn, _)), ack: Some(ack), .. } = event else { return };
    let is_acknowledged = step.effects.contains(&Effect::Send(Message::AckCredentials(ack.clone())));
    if is_acknowledged != before.knows(arn) {
        world.breaks("credentials are acknowledged if their task is known", || arn.to_string());
    }
}

/// There is a wait after a failure, and an end after some attempts without an answer.
fn too_soon(world: &mut World, effect: &Effect) -> Broken {
    let Effect::Do(op, operation) = effect else { return None };
    match operation {
        Operation::Create(_)
        | Operation::Start(_)
        | Operation::Stop { .. }
        | Operation::Inspect(_)
        | Operation::Remove(_)
        | Operation::CreateResource(_)
        | Operation::RenewResource(_)
        | Operation::RemoveResource(_)
        | Operation::Inventory
        | Operation::CleanImages(ImageWork::List { .. })
        | Operation::SetUpNetwork(_)
        | Operation::TearDownNetwork(_)
        | Operation::ReportAttachment(_)
        | Operation::Report(_) => {}
        Operation::ResolveDigest(_) | Operation::Pull(_) | Operation::CleanImages(_) => return None,
    }
    let owner = &world.state.ops.get(op)?.clone();
    let is_start = matches!(operation, Operation::Start(_));
    let is_begun = is_start || matches!(operation, Operation::Create(_));
    if is_begun && world.unanswered.iter().any(|it| it.0 == *owner && it.1 == is_start && it.2 >= MAX_UNANSWERED) {
        return Some(("an engine that never answers is given up", format!("{owner:?}")));
    }
    effort::again(world, owner, operation);
    // A stop does not wait because of earlier failures.
    let counts = |it: &&(OperationOwner, _, bool)| it.0 == *owner && it.2 == world.is_to_stop(owner);
    let failed = world.failed.iter().filter(counts).map(|it| it.1).max()?;
    (world.now < failed + Span::secs(1) && !world.burst)
        .then(|| ("there is a wait after a failure", format!("{owner:?}")))
}

pub(super) type Broken = Option<(&'static str, String)>;

/// An operation on one container: `after` names a step that must wait for the containers it depends on.
fn operation(world: &World, op: &ecs_core::model::OpId, target: Option<&String>, after: Option<&str>) -> Broken {
    let Some(OperationOwner::Container(arn, index)) = world.state.ops.get(op) else {
        // The operation was started and cancelled in the same burst.
        return None;
    };
    let unknown = || Some(("no effect for an unknown task", arn.to_string()));
    let Some(task) = world.state.tasks.get(arn) else { return unknown() };
    if !world.disk.tasks.contains_key(arn) {
        return unknown();
    }
    let spec = &task.containers[*index].spec;
    if let Some(target) = target {
        let is_name = *target == task.spec.runtime_name(&spec.name);
        let is_id = task.containers[*index].state.runtime_id.as_ref().is_some_and(|id| id.as_str() == target);
        // A create, an inspection or a removal may find a foreign container under its name.
        let is_its = |at: usize| {
            let hit = &world.docker.containers[at];
            (hit.task == *arn && !hit.foreign) || (hit.foreign && *target == hit.name && after != Some("start"))
        };
        let is_its = world.docker.find(target).is_none_or(is_its);
        if !(is_name || is_id || world.burst) || !is_its {
            return Some(("an operation hits its own container", format!("{target} for {arn} {}", spec.name)));
        }
    }
    let busy = world.pending.iter().any(|it| {
        !it.cancelled && matches!(&it.owner, Some(OperationOwner::Container(other, at)) if other == arn && at == index)
    });
    if busy {
        return Some(("one operation at a time on a container", format!("{arn} {}", spec.name)));
    }
    let step = after?;
    let was_stopped = world.ecs.tasks.get(arn).is_some_and(|task| task.stop_arrived);
    if was_stopped {
        return Some(("nothing is started for a task that must stop", format!("{step} {arn} {}", spec.name)));
    }
    if task.containers[*index].state.is_stopped() && !world.burst {
        return Some(("nothing is started for a stopped container", format!("{step} {arn} {}", spec.name)));
    }
    if let Some(broken) = unsettled(world, task, spec, step) {
        return Some(broken);
    }
    if step == "start" && task.containers[*index].state.ran && !world.burst {
        let is_ignored = |code: Option<i32>| match (&spec.restart, code) {
            (Some(policy), Some(code)) => policy.ignored_exit_codes.contains(&code),
            (Some(_) | None, _) => true,
        };
        let is_due = |task: &TaskState| {
            task.containers[*index].state.restarts.due && !is_ignored(task.containers[*index].state.exit_code)
        };
        if !world.disk.tasks.get(arn).is_some_and(is_due) {
            return Some((
                "a container is started once, and again if its policy says so",
                format!("{arn} {}", spec.name),
            ));
        }
    }
    // A container that was removed while the state was lost is unknown to the agent.
    let is_remembered = spec.restart.is_none() && !world.was_lost;
    if step == "start" && is_remembered && world.docker.truth_of(arn, &spec.name).starts > 0 {
        return Some(("a container that ran is not started again", format!("{arn} {}", spec.name)));
    }
    if let Some(missing) =
        resource_missing(world, task, &spec.name, step).or_else(|| role_missing(world, task, spec, step))
    {
        return Some(missing);
    }
    // The pause container of the task's network holds back only the start.
    let is_waited_for = |it: &&Dependency| step == "start" || it.container.as_str() != PAUSE;
    let mut waited_for = spec.depends_on.iter().filter(is_waited_for);
    let missing = waited_for.find(|it| !world.docker.fulfils(arn, &it.container, it.condition))?;
    Some(("dependencies hold before a container goes on", format!("{step} {arn} {} needs {missing:?}", spec.name)))
}

/// The other containers that must be settled before one goes on: essential ones and, before its first start, its dependencies.
fn unsettled(world: &World, task: &TaskState, spec: &ContainerSpec, step: &str) -> Broken {
    let is_first = task.pairs().any(|(it, container)| it.name == spec.name && !container.ran);
    let is_built_on = |it: &ContainerSpec| {
        it.essential || (is_first && spec.depends_on.iter().any(|dependency| dependency.container == it.name))
    };
    let mut unsettled = task.pairs().filter(|(other, container)| container.live.unsettled && is_built_on(other));
    let (other, _) = unsettled.next().filter(|_| !world.burst)?;
    let what = format!("{step} {} {} on {}", task.spec.arn, spec.name, other.name);
    Some(("nothing is started on unsettled containers", what))
}

/// A resource of the task that this step needs and that does not exist.
fn resource_missing(world: &World, task: &TaskState, container: &ContainerName, step: &str) -> Broken {
    let arn = &task.spec.arn;
    let is_there = |it: &ResourceSpec| {
        let key = (arn.clone(), it.name.clone());
        if it.kind.lifetime() == Lifetime::Process {
            world.memory.contains(&key)
        } else {
            world.docker.resources.contains(&key)
        }
    };
    let is_used = |it: &ResourceSpec| step == "create" || (step == "start" && it.kind.lifetime() != Lifetime::Process);
    let needed = |it: &&ResourceSpec| is_used(it) && it.needed_by.contains(container);
    let missing = task.resources.iter().map(|it| &it.spec).filter(needed).find(|it| !is_there(it))?;
    let what = format!("{arn} {container} needs {}", missing.name);
    Some(("resources exist before the containers that need them", what))
}

/// The create or start mounts a volume with the task role, and the role's credentials are not there.
fn role_missing(world: &World, task: &TaskState, spec: &ContainerSpec, step: &str) -> Broken {
    let mounts =
        task.resources.iter().any(|it| it.spec.kind.is_mounted_with_role() && it.spec.needed_by.contains(&spec.name));
    let is_missing = task.role_credentials.as_ref().is_some_and(|id| !world.credentials.contains(id));
    (["create", "start"].contains(&step) && mounts && is_missing && !world.burst)
        .then(|| ("credentials are there before they are used", format!("{step} {}", spec.name)))
}

/// An operation on a resource.
fn resource(world: &World, op: &ecs_core::model::OpId, request: &ResourceRequest) -> Broken {
    let what = || format!("{} {}", request.task, request.spec.name);
    if !world.disk.tasks.contains_key(&request.task) {
        return Some(("no effect for an unknown task", what()));
    }
    let is_same = |it: &ResourceRequest| it.task == request.task && it.spec.name == request.spec.name;
    let busy = world.pending.iter().any(|it| match &it.effect {
        Effect::Do(other, Operation::CreateResource(request) | Operation::RenewResource(request))
        | Effect::Do(other, Operation::RemoveResource(request)) => other != op && is_same(request),
        _ => false,
    });
    busy.then(|| ("one operation at a time on a resource", what()))
}

fn resource_creation(world: &World, request: &ResourceRequest) -> Broken {
    let what = || format!("{} {}", request.task, request.spec.name);
    if world.ecs.tasks.get(&request.task).is_some_and(|task| task.stop_arrived) {
        return Some(("nothing is started for a task that must stop", what()));
    }
    let task = &world.state.tasks[&request.task];
    if !task.admitted && !world.burst {
        return Some(("nothing is started for a task without a share of the host", what()));
    }
    let id = request.execution_credentials.as_ref();
    let is_missing = request.spec.kind.needs_execution_role() && id.is_some_and(|id| !world.credentials.contains(id));
    (is_missing && !world.burst).then(|| ("credentials are there before they are used", what()))
}

fn resource_removal(world: &World, request: &ResourceRequest) -> Broken {
    // The agent may not know a container that was created late, after its inspection. Such a container never ran.
    let needs = |it: &Container| it.task == request.task && it.started && !it.foreign && !it.renamed && !it.unsolicited;
    let user =
        world.docker.containers.iter().find(|it| needs(it) && request.spec.kind.lifetime() != Lifetime::Process)?;
    Some(("resources are removed after the containers that use them", format!("{} {}", request.spec.name, user.name)))
}

/// Only containers that must stop are stopped, each after those that depend on it.
fn stop(world: &World, target: &str) -> Broken {
    let container = &world.docker.containers[world.docker.find(target)?];
    let task = world.state.tasks.get(&container.task)?;
    let index = task.index_of(&container.container)?;
    if !task.must_stop(index) {
        return Some((
            "only containers that must stop are stopped",
            format!("{} {}", container.task, container.container),
        ));
    }
    let is_wanted = world.ecs.tasks.get(&container.task).is_some_and(|it| it.wants_stop);
    let has_reason = |(spec, it): (&ecs_core::model::ContainerSpec, &ecs_core::state::ContainerState)| {
        it.is_stopped() && !world.docker.truth_of(&container.task, &spec.name).exits.is_empty()
            || (spec.essential || spec.name == container.container)
                && it.failure.as_ref().is_some_and(|why| !why.message.contains("state was lost"))
    };
    let mut others = task.pairs().filter(|(spec, _)| spec.kind == ContainerKind::Normal);
    let is_left_alone = task.pause().is_some() && others.all(|(_, it)| it.is_stopped());
    if task.reduced && !is_wanted && !is_left_alone && !task.pairs().any(has_reason) {
        let what = format!("{} {}", container.task, container.container);
        return Some(("nothing that runs is stopped because the state was lost", what));
    }
    // A stopped container that runs again is stopped at once.
    if task.containers[index].state.is_stopped() {
        return None;
    }
    let dependent = task.specs().find(|it| {
        let depends = it.depends_on.iter().any(|on| on.container == container.container);
        let runs = |it: &Container| it.state == RunState::Running && !it.unsolicited;
        depends && world.docker.container_of(&container.task, &it.name).is_some_and(runs)
    })?;
    Some(("containers stop in the reverse order", format!("{} before {}", container.container, dependent.name)))
}

fn remove(world: &World, op: &ecs_core::model::OpId, target: &String) -> Broken {
    if let Some(OperationOwner::Container(arn, index)) = world.state.ops.get(op) {
        let broken = operation(world, op, Some(target), None);
        if broken.is_some() {
            return broken;
        }
        let task = &world.state.tasks[arn];
        let container = &task.containers[*index].state;
        if !container.is_stopped() {
            let cannot_run = task.must_stop(*index) && !container.ran && container.observed == Some(RunState::Created);
            let is_needed = cannot_run && container.live.start_may_follow;
            return (!is_needed)
                .then(|| ("only a container that may start late is removed before it has stopped", arn.to_string()));
        }
        let is_known_stopped = world.ecs.tasks.get(arn).is_none_or(|it| it.confirmed.status == TaskStatus::Stopped);
        if !is_known_stopped || task.known != TaskStatus::Stopped {
            return Some(("a task is removed only after ECS knows that it stopped", arn.to_string()));
        }
        let is_kept = world.now < task.known_at + world.state.policy.cleanup_wait;
        return is_kept.then(|| ("a stopped task is kept for the clean-up wait", arn.to_string()));
    }
    let container = &world.docker.containers[world.docker.find(target)?];
    // If ECS asked to stop the task after it was forgotten, only the names of the task and its containers are known.
    let known = world.state.tasks.get(&container.task).filter(|_| !world.burst);
    let is_orphan = !container.foreign && known.is_none_or(|it| it.index_of(&container.container).is_none());
    (!is_orphan || container.started).then(|| ("only our own orphans are removed", container.name.clone()))
}

fn acknowledged(world: &World, ack: &Ack) -> Broken {
    let law = "what is acknowledged is on disk";
    if let Some(timeline) = world.ecs.manifests.get(&ack.message_id) {
        if world.ecs.acknowledged.contains(&ack.message_id) {
            return Some(("an old manifest is ignored", ack.message_id.clone()));
        }
        return (world.disk.host.seq < *timeline).then(|| (law, ack.message_id.clone()));
    }
    let message = world.ecs.messages.iter().find(|it| it.ack.message_id == ack.message_id)?;
    let is_safe = |task: &ecs_core::PayloadTask| match task {
        ecs_core::PayloadTask::Run(spec) => {
            world.disk.tasks.contains_key(&spec.arn) || is_known_stopped(world, &spec.arn)
        }
        ecs_core::PayloadTask::Refused { arn, .. } => {
            world.disk.tasks.contains_key(arn) || is_known_stopped(world, arn)
        }
        ecs_core::PayloadTask::Stop(arn, _) => {
            world.disk.tasks.get(arn).map_or(is_known_stopped(world, arn), |it| it.desired == TaskStatus::Stopped)
        }
    };
    let is_safe = message.tasks.iter().all(is_safe) && world.disk.host.seq >= message.seq;
    (!is_safe).then(|| (law, ack.message_id.clone()))
}

fn report(world: &World, change: &StateChange) -> Broken {
    let arn = &change.task;
    let Some(task) = world.state.tasks.get(arn).filter(|_| world.disk.tasks.contains_key(arn)) else {
        return Some(("no effect for an unknown task", arn.to_string()));
    };
    let busy = world
        .pending
        .iter()
        .any(|it| matches!(&it.effect, Effect::Do(_, Operation::Report(change)) if change.task == *arn));
    if busy {
        return Some(("one report of a task at a time", arn.to_string()));
    }
    if change.containers.iter().any(|container| [PAUSE_NAME, PAUSE].contains(&container.container.as_str())) {
        return Some(("a pause container is never reported", arn.to_string()));
    }
    let reported = world.ecs.tasks.get(arn).map(|task| task.confirmed.clone()).unwrap_or_default();
    in_order(world, task, &reported, change).or_else(|| contents(world, task, change))
}

fn in_order(world: &World, task: &TaskState, reported: &Reported, change: &StateChange) -> Broken {
    let arn = &change.task;
    let is_old = |name: &ContainerName, status| reported.containers.get(name).is_some_and(|it| *it >= status);
    if change.status < reported.status {
        return Some(("reports come in order", format!("{} after {} of {arn}", change.status, reported.status)));
    }
    if change.containers.iter().any(|it| is_old(&it.container, it.status))
        || (change.status == reported.status && change.containers.is_empty())
    {
        return Some(("nothing is reported twice", format!("{change:?}")));
    }
    if let Some(broken) = containers_in_order(world, task, reported, change) {
        return Some(broken);
    }
    let stopped = change.status == TaskStatus::Stopped;
    // A late start of a stopped container does not make the task run.
    let only_one_ran = || {
        let spec = &task.containers[0].spec;
        task.containers[0].state.ran && world.docker.container_of(arn, &spec.name).is_some_and(|it| !it.unsolicited)
    };
    let has_run = task.ran || (task.containers.len() == 1 && only_one_ran());
    if stopped && has_run && reported.status < TaskStatus::Running {
        return Some(("a task that ran is reported as running", arn.to_string()));
    }
    if change.status == TaskStatus::Running && !task.ran {
        return Some(("only a task that ran is reported as running", arn.to_string()));
    }
    let is_reported = |name: &ContainerName| {
        let now = change.containers.iter().any(|it| it.container == *name && it.status == ContainerStatus::Stopped);
        now || is_old(name, ContainerStatus::Stopped)
    };
    // The report of a refused task has only the reason.
    let is_refused = task.containers.is_empty() && !change.reason.is_empty();
    let containers = world.ecs.tasks.get(arn).map(|it| it.containers.as_slice()).unwrap_or_default();
    let missing = containers.iter().find(|name| stopped && !is_refused && !is_reported(name))?;
    Some(("a stopped task has only stopped containers", format!("{arn} {missing}")))
}

/// The changes of a container rise, and a report leaves no end of a container out while the task goes on.
fn containers_in_order(world: &World, task: &TaskState, reported: &Reported, change: &StateChange) -> Broken {
    for (spec, container) in task.pairs() {
        let mut changes = change.containers.iter().filter(|it| it.container == spec.name).map(|it| it.status);
        if !changes.clone().is_sorted_by(|a, b| a < b) {
            return Some(("changes of a container come in order", format!("{change:?}")));
        }
        let has_ended = container.known == ContainerStatus::Stopped && spec.kind == ContainerKind::Normal;
        let was_reported = reported.containers.get(&spec.name) == Some(&ContainerStatus::Stopped);
        let goes_on = task.known != TaskStatus::Stopped && !world.burst;
        if has_ended && goes_on && !was_reported && changes.next_back() != Some(ContainerStatus::Stopped) {
            return Some(("a report has every end of a container", format!("{} of {}", spec.name, change.task)));
        }
    }
    None
}

/// A container in this report that has stopped and never ran, although Docker may still carry out its start. The agent does what it can:
/// it tries to remove such a container.
fn starts_late(world: &World, task: &TaskState, change: &StateChange) -> Option<ContainerName> {
    let mut stopped = change.containers.iter().filter(|it| it.status == ContainerStatus::Stopped);
    let starts = |target: &str| {
        let is_start = |effect: &Effect| matches!(effect, Effect::Do(_, Operation::Start(other)) if other == target);
        world.late.iter().any(is_start)
    };
    let found = stopped.find(|it| {
        let Some(index) = task.index_of(&it.container) else { return false };
        let known = &task.containers[index].state;
        let container = world.docker.container_of(&change.task, &it.container);
        let can_start = container.is_some_and(|it| it.state == RunState::Created && !it.renamed);
        can_start && starts(&task.target(index)) && known.live.failed_removals == 0 && !world.burst
    })?;
    Some(found.container.clone())
}

fn contents(world: &World, task: &TaskState, change: &StateChange) -> Broken {
    let arn = &change.task;
    for reported in &change.containers {
        let truth = world.docker.truth_of(arn, &reported.container);
        let index = task.index_of(&reported.container)?;
        let container = &task.containers[index].state;
        let is_true = match reported.exit_code {
            Some(143) if container.failure.is_some() => true,
            Some(code) => reported.status == ContainerStatus::Stopped && truth.exits.contains(&code),
            // The end was not seen: the container was removed, or never ran as far as the agent could know.
            None => {
                let had_not_run = !container.ran || world.burst; // it may have run since this was decided
                reported.status != ContainerStatus::Stopped || had_not_run || container.failure.is_some()
            }
        };
        if !is_true {
            return Some(("exit codes are true", format!("{reported:?}, truly {:?}", truth.exits)));
        }
        if reported.status == ContainerStatus::Running && !truth.started {
            return Some(("only a container that ran is reported as running", format!("{reported:?}")));
        }
    }
    if let Some(name) = starts_late(world, task, change) {
        return Some(("no container reported as stopped can start", format!("{name} of {arn}")));
    }
    if change.status != TaskStatus::Stopped {
        return None;
    }
    if task.specs().any(|it| it.essential) && change.execution_stopped_at.is_none() {
        return Some(("a report of a stop has the time when execution stopped", arn.to_string()));
    }
    let runs = |it: &&Container| it.task == *arn && it.state == RunState::Running && !it.unsolicited;
    if let Some(container) = world.docker.containers.iter().find(runs) {
        return Some(("no container of a task reported as stopped runs", format!("{arn} {}", container.container)));
    }
    let running = task.pairs().find(|(_, it)| it.observed == Some(RunState::Running) && !world.burst)?;
    Some(("no container of a task reported as stopped is seen running", format!("{arn} {}", running.0.name)))
}
