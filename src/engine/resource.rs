//! The next thing to do for one resource of a task. All kinds alike.
//!
//! A resource is made as soon as the task has its share of the host, beside the pulls, and is there before the containers that need it
//! are created. What is only in the agent's memory goes when no container needs it any more; the rest goes with the task, after its
//! containers. Making and removing may be repeated: what is so already is success. Source: spec `resources.md` §1; the reference
//! has control groups and volumes wait in front of the pull, where nothing needs them.

use super::backoff;
use super::desired;
use super::effect::Effect;
use super::event::Outcome;
use super::plan::Planning;
use super::state::{
    Operation, OperationKind, Owner, ResourceOperation, ResourceOperationKind, ResourceState, Retry, State, TaskState,
};
use crate::model::{ContainerStatus, FailureKind, ResourceRequest, ResourceStatus, TaskStatus, Timestamp};

/// Unknown or passing failures in a row after which the task is given up, or the resource left behind.
const MOST_TRIES: u32 = 3;

/// Starts the making or removal of what can be.
pub(super) fn plan(task: &mut TaskState, planning: &mut Planning<'_>) {
    for index in 0..task.resources.len() {
        if task.resources[index].operation.is_none() {
            advance(task, index, planning);
        }
    }
}

fn advance(task: &mut TaskState, index: usize, planning: &mut Planning<'_>) {
    let not_before = task.resources[index].retry.not_before;
    if task.resources[index].known == ResourceStatus::None && is_wanted(task, index) {
        if !credentials_missing(task, index, planning.state) && planning.is_time(not_before) {
            task.resources[index].create_asked = true;
            start(task, index, planning, ResourceOperationKind::Create);
        }
    } else if may_be_there(task, index) && may_go(task, index) && planning.is_time(not_before) {
        let resource = &mut task.resources[index];
        if !std::mem::replace(&mut resource.removing, true) {
            resource.retry = Retry::default(); // these were failures to make it
        }
        start(task, index, planning, ResourceOperationKind::Remove);
    }
}

fn start(task: &mut TaskState, index: usize, planning: &mut Planning<'_>, kind: ResourceOperationKind) {
    let op = planning.state.new_op(Owner::Resource(task.spec.arn.clone(), index));
    task.resources[index].operation = Some(ResourceOperation { id: op, kind, since: planning.now });
    let request = Box::new(ResourceRequest {
        task: task.spec.arn.clone(),
        family: task.spec.family.clone(),
        version: task.spec.version.clone(),
        spec: task.spec.resources[index].clone(),
        execution_credentials: task.execution_credentials.clone(),
    });
    planning.changed(task);
    planning.out.effects.push(match kind {
        ResourceOperationKind::Create => Effect::CreateResource { op, request },
        ResourceOperationKind::Remove => Effect::RemoveResource { op, request },
    });
}

/// A create that was asked for may have been done, whatever was heard of it.
fn may_be_there(task: &TaskState, index: usize) -> bool {
    let resource = &task.resources[index];
    match resource.known {
        ResourceStatus::None => resource.create_asked,
        ResourceStatus::Created => true,
        ResourceStatus::Removed => false,
    }
}

/// Some container that is to run cannot be created without it.
fn is_wanted(task: &TaskState, index: usize) -> bool {
    task.admitted && task.desired == TaskStatus::Running && is_needed(task, index)
}

/// Some container that may still be created needs it.
fn is_needed(task: &TaskState, index: usize) -> bool {
    let needed_by = &task.spec.resources[index].needed_by;
    task.pairs().enumerate().any(|(at, (spec, container))| {
        container.known < ContainerStatus::Created && !task.wants_stop(at) && needed_by.contains(&spec.name)
    })
}

/// Nothing uses it, and nothing will.
fn may_go(task: &TaskState, index: usize) -> bool {
    if task.spec.resources[index].kind.is_in_memory() {
        // A create in flight has been given it already, or will be when its turn comes.
        let is_create = |operation: &Operation| operation.kind == OperationKind::Create;
        let is_in_use = task.containers.iter().any(|container| container.operation.as_ref().is_some_and(is_create));
        return !is_needed(task, index) && !is_in_use;
    }
    task.removing && task.containers.iter().all(super::cleanup::is_gone)
}

/// The first resource that is not there and must be before this container is created.
pub(super) fn holding_up(task: &TaskState, container: usize) -> Option<usize> {
    let name = &task.spec.containers[container].name;
    let mut resources = task.spec.resources.iter().zip(&task.resources);
    resources.position(|(spec, resource)| resource.known != ResourceStatus::Created && spec.needed_by.contains(name))
}

/// The credentials of the execution role come over ACS and are gone after a restart until ECS sends them again.
pub(super) fn credentials_missing(task: &TaskState, index: usize, state: &State) -> bool {
    let id = task.execution_credentials.as_ref();
    task.spec.resources[index].kind.needs_execution_role() && id.is_some_and(|id| !state.credentials.contains(id))
}

/// Writes the outcome of the operation in flight.
pub(super) fn completed(task: &mut TaskState, index: usize, now: Timestamp, outcome: Outcome) {
    let arn = task.spec.arn.0.clone();
    let resource = &mut task.resources[index];
    let Some(operation) = resource.operation.take() else { return };
    let is_unknown = matches!(outcome, Outcome::Unknown(_));
    let failure = match outcome {
        Outcome::Done(_) => {
            resource.known = match operation.kind {
                ResourceOperationKind::Create => ResourceStatus::Created,
                ResourceOperationKind::Remove => ResourceStatus::Removed,
            };
            resource.retry = Retry::default();
            return;
        }
        Outcome::Failed(failure) | Outcome::Unknown(failure) => failure,
    };
    backoff::ENGINE.again(&mut resource.retry, now, &arn);
    let is_given_up = resource.retry.attempts >= MOST_TRIES;
    match operation.kind {
        // Left behind; each failure was logged.
        ResourceOperationKind::Remove if is_given_up => resource.known = ResourceStatus::Removed,
        ResourceOperationKind::Remove => {}
        ResourceOperationKind::Create if is_unknown || failure.kind == FailureKind::Retryable => {
            if is_given_up {
                desired::end(task, &failure.message);
            }
        }
        // Compat: what the reference finds wrong before it takes the task up is told as it is.
        ResourceOperationKind::Create if failure.name == "ResourceInitializationError" => {
            task.reason.get_or_insert(failure.message);
            task.desired = TaskStatus::Stopped;
        }
        ResourceOperationKind::Create => desired::end(task, &failure.message),
    }
}

/// What is known of a resource whose task was rebuilt: it may be there.
pub(super) fn left_over() -> ResourceState {
    ResourceState { known: ResourceStatus::Created, create_asked: true, ..ResourceState::default() }
}

/// Nothing is left of any of them.
pub(super) fn nothing_is_left(task: &TaskState) -> bool {
    (0..task.resources.len()).all(|index| task.resources[index].operation.is_none() && !may_be_there(task, index))
}
