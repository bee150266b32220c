//! RunTask and StartTask: from a definition and overrides to a task on an instance. They own placement order (the instance with
//! the fewest tasks first) and overrides. Invariant: a task is only made when its payload is queued.

use super::{Answer, ApiError, cluster_of, names, required};
use crate::local::definition::{KeyValue, TaskDefinition};
use crate::local::instances::InstanceStatus;
use crate::local::payload::{self, Launch};
use crate::local::placement::{Misfit, Need, fits, free_gpus};
use crate::local::state::{Definition, State};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// A definition with its overrides, ready to be placed.
struct Request {
    cluster: String,
    definition: Definition,
    commands: BTreeMap<String, Vec<String>>,
}

/// RunTask: on any instance that fits.
pub(super) fn run(state: &mut State, body: &Value) -> Answer {
    let request = read(state, body)?;
    let count = body["count"].as_u64().unwrap_or(1);
    if !(1..=10).contains(&count) {
        return Err(ApiError::invalid("count must be 1 to 10."));
    }
    if body["launchType"].as_str().is_some_and(|kind| kind == "FARGATE") {
        return Err(ApiError::invalid("Tasks run on container instances here: use launch type EC2."));
    }
    let (mut tasks, mut failures) = (Vec::new(), Vec::new());
    for _ in 0..count {
        let mut candidates: Vec<String> = state
            .instances
            .iter()
            .filter(|instance| instance.cluster == request.cluster && instance.status != InstanceStatus::Inactive)
            .map(|instance| instance.arn.clone())
            .collect();
        if candidates.is_empty() {
            return Err(ApiError::invalid("No Container Instances were found in your cluster."));
        }
        candidates
            .sort_by_key(|arn| state.tasks.iter().filter(|t| &t.instance_arn == arn && t.stop_code.is_none()).count());
        let mut passed_over = Vec::new();
        let placed = candidates.iter().find(|arn| match check(state, &request, arn) {
            Ok(()) => true,
            Err(misfit) => {
                passed_over.push(json!({"arn": arn, "reason": misfit.reason, "detail": misfit.detail}));
                false
            }
        });
        match placed {
            Some(arn) => tasks.push(launch(state, body, &request, arn)?),
            None => failures.extend(passed_over),
        }
    }
    Ok(json!({"tasks": tasks, "failures": failures}))
}

/// StartTask: on the instances named.
pub(super) fn start(state: &mut State, body: &Value) -> Answer {
    let request = read(state, body)?;
    let (mut tasks, mut failures) = (Vec::new(), Vec::new());
    for name in names(body, "containerInstances") {
        let found = super::instances::find(state, &request.cluster, name).map(|instance| instance.arn.clone());
        match found {
            None => failures.push(super::missing(name)),
            Some(arn) => match check(state, &request, &arn) {
                Ok(()) => tasks.push(launch(state, body, &request, &arn)?),
                Err(misfit) => failures.push(json!({"arn": arn, "reason": misfit.reason, "detail": misfit.detail})),
            },
        }
    }
    Ok(json!({"tasks": tasks, "failures": failures}))
}

fn read(state: &State, body: &Value) -> Result<Request, ApiError> {
    let cluster = cluster_of(state, body)?;
    let found =
        state.definition(required(body, "taskDefinition")?).filter(|definition| definition.deregistered_at.is_none());
    let mut definition = found.cloned().ok_or_else(|| ApiError::client("TaskDefinition not found."))?;
    let overrides = &body["overrides"];
    let replace = |member: &str, target: &mut Option<String>| {
        if let Some(text) = overrides[member].as_str() {
            *target = Some(text.to_owned());
        }
    };
    replace("taskRoleArn", &mut definition.spec.task_role_arn);
    replace("executionRoleArn", &mut definition.spec.execution_role_arn);
    replace("cpu", &mut definition.spec.cpu);
    replace("memory", &mut definition.spec.memory);
    let mut commands = BTreeMap::new();
    for change in overrides["containerOverrides"].as_array().into_iter().flatten() {
        let name = change["name"].as_str().unwrap_or_default();
        override_container(&mut definition.spec, name, change)?;
        if change["command"].is_array() {
            commands.insert(name.to_owned(), names(change, "command").map(str::to_owned).collect());
        }
    }
    Ok(Request { cluster, definition, commands })
}

/// Environment and resources are laid over the definition; a command travels beside it, as ECS sends it.
fn override_container(definition: &mut TaskDefinition, name: &str, change: &Value) -> Result<(), ApiError> {
    let Some(container) = definition.container_definitions.iter_mut().find(|container| container.name == name) else {
        let message = format!("Override for container named {name} is not a container in the TaskDefinition.");
        return Err(ApiError::invalid(message));
    };
    let number = |member: &str| change[member].as_u64().and_then(|number| u32::try_from(number).ok());
    container.cpu = number("cpu").unwrap_or(container.cpu);
    container.memory = number("memory").or(container.memory);
    container.memory_reservation = number("memoryReservation").or(container.memory_reservation);
    for variable in change["environment"].as_array().into_iter().flatten() {
        let text = |member: &str| variable[member].as_str().unwrap_or_default().to_owned();
        container.environment.retain(|known| known.name != text("name"));
        container.environment.push(KeyValue { name: text("name"), value: text("value") });
    }
    Ok(())
}

fn check(state: &State, request: &Request, arn: &str) -> Result<(), Misfit> {
    let lost = || Misfit { reason: "MISSING".to_owned(), detail: "the container instance is gone".to_owned() };
    let instance = state.instance(arn).ok_or_else(lost)?;
    fits(instance, &state.held(arn), &Need::of(&request.definition.spec), &request.definition.required)
}

fn launch(state: &mut State, body: &Value, request: &Request, instance_arn: &str) -> Result<Value, ApiError> {
    let overrides = if body["overrides"].is_object() { body["overrides"].clone() } else { json!({}) };
    let gpus = state.instance(instance_arn).map(|it| free_gpus(it, &state.held(instance_arn))).unwrap_or_default();
    let task = payload::task(
        &state.site,
        &Launch {
            definition: &request.definition.spec,
            definition_arn: &request.definition.arn,
            revision: request.definition.revision,
            commands: &request.commands,
            cluster: &request.cluster,
            instance_arn,
            overrides,
            group: body["group"].as_str(),
            started_by: body["startedBy"].as_str(),
            gpus: &gpus,
        },
    );
    let (arn, payload) = (task.arn.clone(), task.payload.clone());
    state.add_task(task).map_err(ApiError::client)?;
    if let Err(problem) = state.queue_payload(instance_arn, &[payload]) {
        state.tasks.retain(|task| task.arn != arn);
        return Err(ApiError::client(problem));
    }
    if let Some(tags) = body["tags"].as_array().filter(|tags| !tags.is_empty()) {
        state.tags.insert(arn.clone(), tags.clone());
    }
    Ok(super::tasks::show(state, &arn))
}
