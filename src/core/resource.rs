//! The next action for one resource of a task. All kinds are treated alike.
//!
//! A resource is created as soon as the task holds its share of the host, in parallel with the pulls. A volume that is mounted in
//! the network of its task waits for that network. A resource exists before the containers that need it are created. A resource in the agent's memory is removed when no container needs it any more; the
//! others are removed with the task, after its containers. Creation and removal may be repeated: if there is nothing to do, that
//! is success. Tickets are the exception: each creation yields new ones, so the last ones are kept until the removal. A resource
//! that expires with the credentials that it was created with is renewed when new credentials arrive. Source: spec
//! `resources.md` §1. In the Go agent the pull waits for control groups and volumes, although it does not need them.

use super::backoff;
use super::desired;
use super::effect::{Effect, Operation};
use super::event::{Outcome, Output};
use super::network;
use super::planning::Planning;
use super::state::{
    ContainerState, OperationKind, OperationOwner, PendingOperation, PendingResourceOperation, Resource,
    ResourceOperationKind, ResourceState, Retry, State, TaskState,
};
use crate::model::resource::Lifetime;
use crate::model::{
    ContainerStatus, FailureKind, OpError, ResourceKind, ResourceRequest, ResourceSpec, ResourceStatus, TaskStatus,
    Tickets, Timestamp,
};
use std::collections::BTreeSet;

/// After this many consecutive unknown or temporary failures, a creation ends the task, and a removal or a renewal is given up.
const MAX_TRIES: u32 = 3;

/// Starts the creation, renewal or removal of each resource that is ready for it.
pub(super) fn plan(task: &mut TaskState, planning: &mut Planning<'_>) {
    for index in 0..task.resources.len() {
        if task.resources[index].state.live.operation.is_none() {
            advance(task, index, planning);
        }
    }
}

fn advance(task: &mut TaskState, index: usize, planning: &mut Planning<'_>) {
    let not_before = task.resources[index].state.live.retry.not_before;
    if task.resources[index].state.known == ResourceStatus::None && is_wanted(task, index) {
        if !credentials_missing(task, index, planning.state) && planning.is_time(not_before) {
            task.resources[index].state.create_asked = true;
            start(task, index, planning, ResourceOperationKind::Create);
        }
    } else if may_exist(&task.resources[index].state) && may_be_removed(task, index) && planning.is_time(not_before) {
        let resource = &mut task.resources[index].state;
        if !std::mem::replace(&mut resource.live.removing, true) {
            resource.live.retry = Retry::default(); // failures of the creation do not delay the removal
        }
        start(task, index, planning, ResourceOperationKind::Remove);
    } else if is_to_be_renewed(task, index) && planning.is_time(not_before) {
        task.resources[index].state.live.renewal_due = false; // credentials that arrive meanwhile make another renewal due
        start(task, index, planning, ResourceOperationKind::Renew);
    }
}

fn start(task: &mut TaskState, index: usize, planning: &mut Planning<'_>, kind: ResourceOperationKind) {
    let name = task.resources[index].spec.name.clone();
    let op = planning.state.new_op(OperationOwner::Resource(task.spec.arn.clone(), name));
    task.resources[index].state.live.operation = Some(PendingResourceOperation { id: op, kind, since: planning.now });
    let request = Box::new(ResourceRequest {
        task: task.spec.arn.clone(),
        family: task.spec.family.clone(),
        version: task.spec.version.clone(),
        spec: task.resources[index].spec.clone(),
        execution_credentials: task.execution_credentials.clone(),
        role_id: task.spec.role_id.clone(),
        pause_pid: network::pause_pid(task),
        tickets: task.resources[index].state.tickets.clone(),
    });
    planning.changed(task);
    let operation = match kind {
        ResourceOperationKind::Create => Operation::CreateResource(request),
        ResourceOperationKind::Renew => Operation::RenewResource(request),
        ResourceOperationKind::Remove => Operation::RemoveResource(request),
    };
    planning.out.effects.push(Effect::Do(op, operation));
}

/// The resource may exist: a creation that was requested may have been done, whatever its answer was.
pub(super) fn may_exist(resource: &ResourceState) -> bool {
    match resource.known {
        ResourceStatus::None => resource.create_asked,
        ResourceStatus::Created => true,
        ResourceStatus::Removed => false,
    }
}

/// The resource must be created, because a container that should run needs it.
fn is_wanted(task: &TaskState, index: usize) -> bool {
    let is_due = task.admitted && task.desired == TaskStatus::Running && is_needed(task, index);
    is_due && (!task.resources[index].spec.kind.is_mounted_in_network() || network::is_usable(task))
}

/// A container that should run still needs the resource, for its creation or its start.
fn is_needed(task: &TaskState, index: usize) -> bool {
    let resource = &task.resources[index].spec;
    let needs = |at: usize, container: &ContainerState| match resource.kind.lifetime() {
        Lifetime::Process => container.known < ContainerStatus::Created, // Docker keeps what it got at the creation
        Lifetime::Boot | Lifetime::Task => container.known <= ContainerStatus::Created || container.restarts.due,
    } && !task.must_stop(at);
    let mut pairs = task.pairs().enumerate();
    pairs.any(|(at, (spec, container))| needs(at, container) && resource.needed_by.contains(&spec.name))
}

/// No container uses the resource, and none will.
fn may_be_removed(task: &TaskState, index: usize) -> bool {
    if task.resources[index].spec.kind.lifetime() == Lifetime::Process {
        // A pending create may not have read the contents yet.
        let is_create = |operation: &PendingOperation| operation.kind == OperationKind::Create;
        let is_in_use = task.states().any(|container| container.live.operation.as_ref().is_some_and(is_create));
        return !is_needed(task, index) && !is_in_use;
    }
    task.live.removing && task.states().all(ContainerState::is_gone)
}

/// New credentials have arrived, and the resource expires without a renewal.
fn is_to_be_renewed(task: &TaskState, index: usize) -> bool {
    let resource = &task.resources[index].state;
    resource.live.renewal_due && resource.known == ResourceStatus::Created && task.known != TaskStatus::Stopped
}

/// Marks the resources that must be renewed, because the task has new credentials of the execution role.
pub(super) fn credentials_renewed(task: &mut TaskState) {
    for Resource { state, .. } in &mut task.resources {
        let is_renewed = |tickets: &Tickets| !tickets.accounts.is_empty();
        state.live.renewal_due = state.tickets.as_ref().is_some_and(is_renewed);
    }
}

/// The path on the host of the ticket for this credential spec; `None` if there is none.
pub(super) fn ticket(task: &TaskState, credential_spec: &str) -> Option<String> {
    task.tickets().filter_map(|tickets| tickets.paths.get(credential_spec)).next().cloned()
}

/// The index of the first missing resource that the container waits for; `None` if there is none. A container waits for its
/// resources before its creation, and again before its start unless the resource is kept in memory.
pub(super) fn missing_resource(task: &TaskState, container: usize) -> Option<usize> {
    let name = &task.containers[container].spec.name;
    let state = &task.containers[container].state;
    let is_ahead = |lifetime| match state.known {
        ContainerStatus::Pulled => true,
        ContainerStatus::Created => lifetime != Lifetime::Process,
        ContainerStatus::Running => lifetime != Lifetime::Process && state.restarts.due,
        ContainerStatus::None | ContainerStatus::ManifestPulled | ContainerStatus::Stopped => false,
    };
    task.resources.iter().position(|Resource { spec, state }| {
        state.known != ResourceStatus::Created && spec.needed_by.contains(name) && is_ahead(spec.kind.lifetime())
    })
}

/// The credentials that the resource needs are not in memory. After a restart of the agent they are missing until ECS sends them
/// again.
pub(super) fn credentials_missing(task: &TaskState, index: usize, state: &State) -> bool {
    let id = task.execution_credentials.as_ref();
    task.resources[index].spec.kind.needs_execution_role() && id.is_some_and(|id| !state.credentials.contains(id))
}

/// Whether the creation or start of the container mounts a volume with the task role: one of its own, or of a container whose
/// volumes it has too. Of a rebuilt task it is not known which containers mount a volume, so all count.
pub(super) fn mounts_with_role(task: &TaskState, container: usize) -> bool {
    let volumes = || task.resources.iter().map(|it| &it.spec).filter(|it| it.kind.is_mounted_with_role());
    if volumes().next().is_none() {
        return false;
    }
    let mut sources = vec![&task.containers[container].spec.name];
    let mut at = 0;
    while let Some(name) = sources.get(at).copied() {
        if volumes().any(|volume| volume.needed_by.is_empty() || volume.needed_by.contains(name)) {
            return true;
        }
        let more = task.specs().filter(|spec| spec.name == *name).flat_map(|spec| &spec.volumes_from);
        let new: Vec<_> = more.map(|other| &other.container).filter(|other| !sources.contains(other)).collect();
        sources.extend(new);
        at += 1;
    }
    false
}

/// Writes the outcome of the pending operation on the resource with this name.
pub(super) fn completed(task: &mut TaskState, name: &str, now: Timestamp, outcome: Outcome) {
    let arn = task.spec.arn.0.clone();
    let Some(index) = task.resource_index(name) else { return };
    let resource = &mut task.resources[index].state;
    let Some(operation) = resource.live.operation.take() else { return };
    let is_unknown = matches!(outcome, Err(OpError::Unknown(_)));
    let failure = match outcome {
        Ok(output) => {
            done(resource, operation.kind, output);
            return;
        }
        Err(error) => error.into_failure(),
    };
    backoff::ENGINE.again(&mut resource.live.retry, now, &arn);
    let is_given_up = resource.live.retry.attempts >= MAX_TRIES;
    match operation.kind {
        // The resource counts as removed, although it may still exist. Each failure was logged.
        ResourceOperationKind::Remove if is_given_up => {
            resource.live.retry = Retry::default();
            removed(resource);
        }
        ResourceOperationKind::Remove => {}
        // The next renewal comes with the next credentials. They may have arrived during this attempt, and the wait holds for them, too.
        ResourceOperationKind::Renew if is_given_up => resource.live.retry.attempts = 0,
        ResourceOperationKind::Renew => resource.live.renewal_due = true,
        ResourceOperationKind::Create if is_unknown || failure.kind == FailureKind::Retryable => {
            if is_given_up {
                desired::end(task, &failure.message);
            }
        }
        // Compat: a failure that the Go agent finds before it accepts the task is reported with its text unchanged.
        ResourceOperationKind::Create if failure.name == "ResourceInitializationError" => {
            task.reason.get_or_insert(failure.message);
            task.desired = TaskStatus::Stopped;
        }
        ResourceOperationKind::Create => desired::end(task, &failure.message),
    }
}

fn done(resource: &mut ResourceState, kind: ResourceOperationKind, output: Output) {
    resource.live.retry = Retry::default();
    match kind {
        ResourceOperationKind::Create => {
            resource.known = ResourceStatus::Created;
            if let Output::Tickets(tickets) = output {
                resource.tickets = Some(*tickets);
            }
        }
        ResourceOperationKind::Renew => {}
        ResourceOperationKind::Remove => removed(resource),
    }
}

fn removed(resource: &mut ResourceState) {
    (resource.known, resource.tickets) = (ResourceStatus::Removed, None);
}

/// The state of a resource of a rebuilt task. It may exist, and if it has tickets, the leases in the labels of the containers
/// must be released.
pub(super) fn rebuilt(spec: &ResourceSpec, leases: &BTreeSet<&String>) -> ResourceState {
    let is_ours = matches!(spec.kind, ResourceKind::CredentialSpecs(_)) && !leases.is_empty();
    let leases = leases.iter().map(|lease| (*lease).clone()).collect();
    let tickets = is_ours.then(|| Tickets { leases, ..Tickets::default() });
    let mut resource =
        ResourceState { known: ResourceStatus::Created, create_asked: true, tickets, ..ResourceState::default() };
    recover(&mut resource, spec.kind.lifetime());
    resource
}

/// Adapts the state of a resource at a start of the agent. A resource that may be gone meanwhile counts as missing, so it is
/// created once more as soon as a container needs it. That is safe even if it still exists.
pub(super) fn recover(resource: &mut ResourceState, lifetime: Lifetime) {
    match (lifetime, resource.known) {
        (Lifetime::Process, ResourceStatus::None | ResourceStatus::Created) => *resource = ResourceState::default(),
        (Lifetime::Boot, ResourceStatus::Created) => resource.known = ResourceStatus::None,
        (Lifetime::Task, _) | (_, ResourceStatus::Removed) | (Lifetime::Boot, ResourceStatus::None) => {}
    }
}

/// All resources of the task are removed.
pub(super) fn all_are_removed(task: &TaskState) -> bool {
    (0..task.resources.len())
        .all(|index| task.resources[index].state.live.operation.is_none() && !may_exist(&task.resources[index].state))
}

#[cfg(test)]
mod tests;
