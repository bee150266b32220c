//! Calls about existing tasks. This module owns the filters of ListTasks and the stop of a task. Invariant: a task that is
//! stopped twice keeps the first reason.

use super::request::{Answer, cluster_of, missing, names, required};
use crate::api_error::ApiError;
use crate::ids::same_resource;
use crate::instances::InstanceStatus;
use crate::state::State;
use crate::tasks::TaskStatus;
use crate::time::now;
use serde_json::{Value, json};

/// The description of a task; null if it is unknown.
pub(super) fn show(state: &State, arn: &str) -> Value {
    let Some(task) = state.task(arn) else { return Value::Null };
    let connected = state.instance(&task.instance_arn).is_some_and(|instance| instance.connected());
    let mut shown = task.describe(&state.site, connected);
    shown["tags"] = json!(state.tags.get(&task.arn).cloned().unwrap_or_default());
    shown
}

/// DescribeTasks.
pub(super) fn describe(state: &State, body: &Value) -> Answer {
    let cluster = cluster_of(state, body)?;
    let (mut found, mut failures) = (Vec::new(), Vec::new());
    for name in names(body, "tasks") {
        match state.task(name).filter(|task| task.cluster == cluster) {
            Some(task) => found.push(show(state, &task.arn)),
            None if name.contains(':') => failures.push(missing(name)),
            None => failures.push(missing(&state.site.arn(&format!("task/{cluster}/{name}")))),
        }
    }
    Ok(json!({"tasks": found, "failures": failures}))
}

/// ListTasks, by desired status (default RUNNING), family, instance and starter.
pub(super) fn list(state: &State, body: &Value) -> Answer {
    let cluster = cluster_of(state, body)?;
    let desired = body["desiredStatus"].as_str().unwrap_or("RUNNING");
    if TaskStatus::parse(desired).is_none() {
        return Err(ApiError::invalid("desiredStatus should be one of [RUNNING,PENDING,STOPPED]."));
    }
    let instance = body["containerInstance"].as_str();
    let listed = state.tasks.iter().filter(|task| {
        task.cluster == cluster
            && task.desired_status.as_str() == desired
            && body["family"].as_str().is_none_or(|family| task.family == family)
            && instance.is_none_or(|name| same_resource(&task.instance_arn, name))
            && body["startedBy"].as_str().is_none_or(|by| task.started_by.as_deref() == Some(by))
            && body["serviceName"].is_null()
    });
    Ok(json!({"taskArns": listed.map(|task| &task.arn).collect::<Vec<_>>()}))
}

/// StopTask: sends the stop to the agent. If the instance is deregistered, the task counts as stopped.
pub(super) fn stop(state: &mut State, body: &Value) -> Answer {
    let cluster = cluster_of(state, body)?;
    let name = required(body, "task")?;
    let unknown = || ApiError::invalid("The referenced task was not found.");
    let task = state.task_mut(name).filter(|task| task.cluster == cluster).ok_or_else(unknown)?;
    let (arn, instance) = (task.arn.clone(), task.instance_arn.clone());
    if task.last_status != TaskStatus::Stopped {
        let is_reported = task.desired_status == TaskStatus::Stopped && task.payload["desiredStatus"] == "STOPPED";
        task.mark_stopping("UserInitiated", body["reason"].as_str().unwrap_or("Task stopped by user"), now());
        task.payload["desiredStatus"] = json!("STOPPED");
        let payload = task.payload.clone();
        let gone = state.instance(&instance).is_none_or(|instance| instance.status == InstanceStatus::Inactive);
        match state.task_mut(&arn).filter(|_| gone) {
            Some(task) => {
                task.mark_stopped("", now());
                state.interface_is_over(&arn);
            }
            None if !is_reported => {
                state.queue_payload(&instance, &[payload]).map_err(ApiError::client)?;
            }
            None => {}
        }
    }
    Ok(json!({"task": show(state, &arn)}))
}
