//! Calls about container instances. This module owns draining and deregistration. Invariant: a deregistered instance gets no
//! task and no connection.

use super::request::{Answer, cluster_of, missing, names, required};
use crate::api_error::ApiError;
use crate::ids::same_resource;
use crate::instances::{Disconnect, Instance, InstanceStatus};
use crate::state::State;
use crate::tasks::{Task, TaskStatus};
use crate::time::now;
use serde_json::{Value, json};

/// The instance with this ARN or id in a cluster.
pub(super) fn find<'a>(state: &'a State, cluster: &str, name: &str) -> Option<&'a Instance> {
    state.instances.iter().find(|instance| instance.cluster == cluster && same_resource(&instance.arn, name))
}

/// The description of an instance; null if it is unknown.
pub(super) fn show(state: &State, arn: &str) -> Value {
    let Some(instance) = state.instance(arn) else { return Value::Null };
    let count = |status| state.count(status, |task| task.instance_arn == instance.arn);
    let tags = state.tags.get(&instance.arn).map(Vec::as_slice).unwrap_or_default();
    instance.describe(&state.held(&instance.arn), count(TaskStatus::Running), count(TaskStatus::Pending), tags)
}

/// ListContainerInstances, by status.
pub(super) fn list(state: &State, body: &Value) -> Answer {
    let cluster = cluster_of(state, body)?;
    let status = body["status"].as_str();
    let listed =
        state.instances.iter().filter(|instance| instance.cluster == cluster).filter(|instance| match status {
            Some(status) => instance.status.as_str() == status,
            None => instance.status != InstanceStatus::Inactive,
        });
    Ok(json!({"containerInstanceArns": listed.map(|instance| &instance.arn).collect::<Vec<_>>()}))
}

/// DescribeContainerInstances.
pub(super) fn describe(state: &State, body: &Value) -> Answer {
    let cluster = cluster_of(state, body)?;
    let (mut found, mut failures) = (Vec::new(), Vec::new());
    for name in names(body, "containerInstances") {
        match find(state, &cluster, name) {
            Some(instance) => found.push(show(state, &instance.arn)),
            None => failures.push(missing(&full_arn(state, &cluster, name))),
        }
    }
    Ok(json!({"containerInstances": found, "failures": failures}))
}

/// DeregisterContainerInstance. With `force`, its tasks count as stopped.
pub(super) fn deregister(state: &mut State, body: &Value) -> Answer {
    let cluster = cluster_of(state, body)?;
    let name = required(body, "containerInstance")?;
    let unknown = || ApiError::invalid("Container instance not found.");
    let arn = find(state, &cluster, name).map(|instance| instance.arn.clone()).ok_or_else(unknown)?;
    let living = |task: &Task| task.instance_arn == arn && task.last_status != TaskStatus::Stopped;
    if body["force"] != true && state.tasks.iter().any(living) {
        return Err(ApiError::invalid("Found running tasks on the instance. Stop them, or deregister with force."));
    }
    let tasks: Vec<String> = state.tasks.iter().filter(|task| living(task)).map(|task| task.arn.clone()).collect();
    for task in &tasks {
        if let Some(task) = state.task_mut(task) {
            task.mark_stopped("The container instance was deregistered", now());
        }
        state.interface_is_over(task);
    }
    let instance = state.instance_mut(&arn).ok_or_else(unknown)?;
    instance.status = InstanceStatus::Inactive;
    if let Some(connection) = &mut instance.acs_connection {
        connection.disconnect = Some(Disconnect::Close(1000, "InactiveInstance".to_owned()));
    }
    Ok(json!({"containerInstance": show(state, &arn)}))
}

/// UpdateContainerInstancesState: ACTIVE or DRAINING.
pub(super) fn update_state(state: &mut State, body: &Value) -> Answer {
    let cluster = cluster_of(state, body)?;
    let status = match body["status"].as_str() {
        Some("ACTIVE") => InstanceStatus::Active,
        Some("DRAINING") => InstanceStatus::Draining,
        _ => return Err(ApiError::invalid("Container instance status should be one of [ACTIVE,DRAINING].")),
    };
    let (mut found, mut failures) = (Vec::new(), Vec::new());
    for name in names(body, "containerInstances") {
        let known = find(state, &cluster, name).filter(|instance| instance.status != InstanceStatus::Inactive);
        let Some(arn) = known.map(|instance| instance.arn.clone()) else {
            failures.push(missing(&full_arn(state, &cluster, name)));
            continue;
        };
        if let Some(instance) = state.instance_mut(&arn) {
            instance.status = status;
        }
        found.push(show(state, &arn));
    }
    Ok(json!({"containerInstances": found, "failures": failures}))
}

fn full_arn(state: &State, cluster: &str, name: &str) -> String {
    if name.contains(':') { name.to_owned() } else { state.site.arn(&format!("container-instance/{cluster}/{name}")) }
}
