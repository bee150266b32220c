//! RunTask and StartTask: place a task, made from a definition and overrides, on an instance. This module owns overrides and the
//! order of placement (the instance with the fewest tasks first). Invariant: a task exists only if its payload was queued, or waits for its interface.

use super::network;
use super::request::{Answer, cluster_of, missing, names, required};
use crate::api_error::ApiError;
use crate::definition::{self, TaskDefinition, TaskOverride, required_attributes, validate, without_nulls};
use crate::instances::InstanceStatus;
use crate::need::Need;
use crate::payload::{self, Launch};
use crate::placement::{Constraint, Misfit, fits, free_gpus, is_built_for};
use crate::state::{Definition, State};
use crate::tasks::Task;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// A task that is ready to be placed.
struct Request {
    cluster: String,
    /// The task's group; placement constraints refer to it.
    group: String,
    /// The definition with its overrides applied.
    definition: Definition,
    /// Commands from the overrides, by container name.
    commands: BTreeMap<String, Vec<String>>,
    /// The subnet for the task's interface; `None`: it has none.
    subnet: Option<String>,
}

/// RunTask: places tasks on any instances that fit.
pub(super) fn run(state: &mut State, body: &Value) -> Answer {
    let request = read(state, body)?;
    let constraints = constraints(body, &request.definition.spec)?;
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
        let can_run_on =
            |arn: &str| allows(state, &request, &constraints, arn).and_then(|()| check(state, &request, arn));
        let placed = candidates.iter().find(|arn| match can_run_on(arn) {
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

/// StartTask: places tasks on the named instances.
pub(super) fn start(state: &mut State, body: &Value) -> Answer {
    let request = read(state, body)?;
    let (mut tasks, mut failures) = (Vec::new(), Vec::new());
    for name in names(body, "containerInstances") {
        let found = super::instances::find(state, &request.cluster, name).map(|instance| instance.arn.clone());
        match found {
            None => failures.push(missing(name)),
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
    let given = Some(&body["overrides"]).filter(|given| !given.is_null());
    let overrides: TaskOverride = match given {
        Some(given) => definition::read("The overrides", given).map_err(ApiError::invalid)?,
        None => TaskOverride::default(),
    };
    let commands = apply_overrides(&mut definition.spec, overrides)?;
    validate(&definition.spec).map_err(ApiError::invalid)?;
    definition.required = required_attributes(&definition.spec, |image| state.site.is_ecr(image));
    let subnet = network::subnet(state, definition.spec.network_mode(), &body["networkConfiguration"])?;
    Ok(Request { cluster, group: group_of(body, &definition.spec), definition, commands, subnet })
}

fn group_of(body: &Value, spec: &TaskDefinition) -> String {
    body["group"].as_str().map_or_else(|| format!("family:{}", spec.family), str::to_owned)
}

/// Applies overrides to the definition. Returns the overriding commands, which ECS sends separately.
fn apply_overrides(spec: &mut TaskDefinition, given: TaskOverride) -> Result<BTreeMap<String, Vec<String>>, ApiError> {
    if given.ephemeral_storage.is_some() || !given.inference_accelerator_overrides.is_empty() {
        return Err(ApiError::invalid("ephemeralStorage and inferenceAcceleratorOverrides are not for tasks on EC2."));
    }
    let overridden = [
        (given.cpu, &mut spec.cpu),
        (given.memory, &mut spec.memory),
        (given.task_role_arn, &mut spec.task_role_arn),
        (given.execution_role_arn, &mut spec.execution_role_arn),
    ];
    for (given, target) in overridden {
        *target = given.or(target.take());
    }
    let mut commands = BTreeMap::new();
    for change in given.container_overrides {
        let name = change.name;
        let Some(container) = spec.container_definitions.iter_mut().find(|container| container.name == name) else {
            let message = format!("Override for container named {name} is not a container in the TaskDefinition.");
            return Err(ApiError::invalid(message));
        };
        container.cpu = change.cpu.unwrap_or(container.cpu);
        container.memory = change.memory.or(container.memory);
        container.memory_reservation = change.memory_reservation.or(container.memory_reservation);
        if let Some(files) = change.environment_files {
            container.environment_files = files;
        }
        if let Some(requirements) = change.resource_requirements {
            container.resource_requirements = requirements;
        }
        for variable in change.environment {
            container.environment.retain(|known| known.name != variable.name);
            container.environment.push(variable);
        }
        commands.extend(change.command.map(|command| (name, command)));
    }
    Ok(commands)
}

fn check(state: &State, request: &Request, arn: &str) -> Result<(), Misfit> {
    let lost = || Misfit { reason: "MISSING".to_owned(), detail: "the container instance is gone".to_owned() };
    let instance = state.instance(arn).ok_or_else(lost)?;
    is_built_for(instance, &request.definition.spec)?;
    fits(instance, &state.held(arn), &Need::from_definition(&request.definition.spec), &request.definition.required)
}

/// The placement constraints of the call and of the definition.
fn constraints(body: &Value, spec: &TaskDefinition) -> Result<Vec<Constraint>, ApiError> {
    for member in ["capacityProviderStrategy", "volumeConfigurations"] {
        if body[member].as_array().is_some_and(|list| !list.is_empty()) || body[member].is_object() {
            return Err(ApiError::invalid(format!("{member} is not supported here: remove it.")));
        }
    }
    let from_call = body["placementConstraints"].as_array().into_iter().flatten();
    let from_call = from_call
        .map(|constraint| (constraint["type"].as_str().unwrap_or_default(), constraint["expression"].as_str()));
    let from_spec = spec.placement_constraints.iter();
    let from_spec =
        from_spec.map(|constraint| (constraint.kind.as_deref().unwrap_or_default(), constraint.expression.as_deref()));
    from_call
        .chain(from_spec)
        .map(|(kind, expression)| Constraint::parse(kind, expression).map_err(ApiError::invalid))
        .collect()
}

fn allows(state: &State, request: &Request, constraints: &[Constraint], arn: &str) -> Result<(), Misfit> {
    let Some(instance) = state.instance(arn) else { return Ok(()) };
    let is_of_group =
        |task: &&Task| task.instance_arn == arn && task.stop_code.is_none() && task.group == request.group;
    let is_taken = state.tasks.iter().any(|task| is_of_group(&task));
    constraints.iter().try_for_each(|constraint| constraint.allows(instance, is_taken))
}

fn launch(state: &mut State, body: &Value, request: &Request, instance_arn: &str) -> Result<Value, ApiError> {
    let overrides = if body["overrides"].is_object() { without_nulls(body["overrides"].clone()) } else { json!({}) };
    let gpus =
        state.instance(instance_arn).map(|instance| free_gpus(instance, &state.held(instance_arn))).unwrap_or_default();
    let interface = match &request.subnet {
        Some(subnet) => Some(state.new_interface(subnet).ok_or_else(|| ApiError::client("No address is free."))?),
        None => None,
    };
    let mut task = payload::task(
        &state.site,
        &Launch {
            definition: &request.definition.spec,
            definition_arn: &request.definition.arn,
            revision: request.definition.revision,
            commands: &request.commands,
            cluster: &request.cluster,
            instance_arn,
            overrides,
            group: &request.group,
            started_by: body["startedBy"].as_str(),
            gpus: &gpus,
        },
    );
    if let Some(interface) = interface {
        task.payload["elasticNetworkInterfaces"] = json!([interface.sent(&state.site, &state.name_servers)]);
        task.interface = Some(interface);
    }
    let (arn, payload, waits) = (task.arn.clone(), task.payload.clone(), task.interface.is_some());
    state.add_task(task).map_err(ApiError::client)?;
    // A task with an interface is sent once the agent has reported the interface.
    let sent = if waits { state.make_interface(&arn) } else { state.queue_payload(instance_arn, &[payload]).map(drop) };
    if let Err(problem) = sent {
        state.tasks.retain(|task| task.arn != arn);
        return Err(ApiError::client(problem));
    }
    if let Some(tags) = body["tags"].as_array().filter(|tags| !tags.is_empty()) {
        state.tags.insert(arn.clone(), tags.clone());
    }
    Ok(super::tasks::show(state, &arn))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn overridden(overrides: Value) -> Result<(TaskDefinition, BTreeMap<String, Vec<String>>), String> {
        let mut spec: TaskDefinition = serde_json::from_value(json!({
            "family": "f", "executionRoleArn": "arn:aws:iam::1:role/r", "containerDefinitions": [{
                "name": "a", "image": "i", "memory": 8, "environment": [{"name": "A", "value": "1"}],
                "environmentFiles": [{"type": "s3", "value": "arn:aws:s3:::b/old.env"}],
            }],
        }))
        .unwrap();
        let given: TaskOverride = definition::read("The overrides", &overrides)?;
        let commands = apply_overrides(&mut spec, given).map_err(|error| format!("{error:?}"))?;
        validate(&spec)?;
        Ok((spec, commands))
    }

    #[test]
    fn overrides_are_applied_to_the_definition() {
        let (spec, commands) = overridden(json!({"cpu": "256", "containerOverrides": [{
            "name": "a", "command": ["x"], "memory": 16, "environment": [{"name": "A", "value": "2"}],
            "environmentFiles": [{"type": "s3", "value": "arn:aws:s3:::b/new.env"}],
            "resourceRequirements": [{"type": "GPU", "value": "1"}],
        }]}))
        .unwrap();
        let container = &spec.container_definitions[0];
        assert_eq!((spec.cpu_limit(), container.memory, container.gpu_count()), (Some(256), Some(16), 1));
        assert_eq!((container.environment.len(), container.environment[0].value.as_str()), (1, "2"));
        assert_eq!(container.environment_files[0].value, "arn:aws:s3:::b/new.env");
        assert_eq!(commands, BTreeMap::from([("a".to_owned(), vec!["x".to_owned()])]));
    }

    #[test]
    fn overrides_that_make_no_sense_are_refused() {
        for (overrides, wanted) in [
            (json!({"cpu": "banana"}), "Task `cpu` is invalid"),
            (
                json!({"taskRole": "r"}),
                "The overrides cannot be read: taskRole: there is no member `taskRole`. Did you mean `taskRoleArn`?",
            ),
            (
                json!({"containerOverrides": [{"name": "a", "cpu": "1"}]}),
                "containerOverrides[0].cpu: it must be a whole number",
            ),
            (json!({"environment": []}), "`environment` is a member of a container override: move it into one."),
            (json!({"containerOverrides": [{"taskRoleArn": "r"}]}), "is a member of the overrides: move it up."),
            (json!({"containerOverrides": [{"name": "b"}]}), "b is not a container in the TaskDefinition"),
            (json!({"ephemeralStorage": {"sizeInGiB": 21}}), "not for tasks on EC2"),
        ] {
            let text = overridden(overrides).unwrap_err();
            assert!(text.contains(wanted), "{text}");
        }
    }
}
