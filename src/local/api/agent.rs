//! The agent's calls: register, discover, report. This module owns what a registration changes in an instance, and which task a
//! report belongs to. Invariant: two registrations with the same client token make one instance.

use super::request::{Answer, cluster_of, required};
use crate::api_error::ApiError;
use crate::ids::new_id;
use crate::instances::{Instance, InstanceStatus, Resources, attributes};
use crate::outbox::Outbox;
use crate::state::{MAX_INSTANCES, State};
use crate::tasks::TaskStatus;
use crate::time::now;
use serde_json::{Value, json};

/// RegisterContainerInstance: registers a new instance, or a known one again (by its ARN, or by the client token of a repeated
/// call).
///
/// An unknown ARN is accepted: the server loses its state when it ends, the agent does not.
pub(super) fn register(state: &mut State, body: &Value) -> Answer {
    // Compat: this call reports a missing cluster as ClientException.
    let cluster = cluster_of(state, body).map_err(|error| ApiError::client(error.message))?;
    super::labels::check_attributes(&body["attributes"])?;
    let token = body["clientToken"].as_str().map(str::to_owned);
    let given = body["containerInstanceArn"].as_str().filter(|arn| !arn.is_empty());
    let repeated = state.instances.iter().find(|instance| token.is_some() && instance.client_token == token);
    let arn = match (given, repeated) {
        (Some(arn), _) => arn.to_owned(),
        (None, Some(instance)) => instance.arn.clone(),
        (None, None) => state.site.arn(&format!("container-instance/{cluster}/{}", new_id())),
    };
    if state.instance(&arn).is_none() {
        add_instance(state, &cluster, &arn)?;
    }
    let attributes = attributes(&state.site, &body["attributes"]);
    let resources = Resources::parse(&body["totalResources"], &body["platformDevices"]);
    let document: Value =
        serde_json::from_str(body["instanceIdentityDocument"].as_str().unwrap_or_default()).unwrap_or_default();
    if let Some(tags) = body["tags"].as_array() {
        state.tags.insert(arn.clone(), tags.clone());
    }
    let instance = state.instance_mut(&arn).ok_or_else(|| ApiError::client("Container instance not found."))?;
    if instance.status == InstanceStatus::Inactive {
        let id = arn.rsplit('/').next().unwrap_or(&arn);
        return Err(ApiError::client(format!("Container instance {id} is inactive.")));
    }
    instance.ec2_instance_id = document["instanceId"].as_str().unwrap_or_default().to_owned();
    // The agent sends custom attributes only with the first registration, so they stay.
    for known in std::mem::replace(&mut instance.attributes, attributes) {
        let capability = known.name.contains("ecs.capability.");
        if !capability && !instance.has_attribute(&known.name) {
            instance.attributes.push(known);
        }
    }
    instance.resources = resources;
    instance.client_token = token;
    instance.registrations += 1;
    Ok(json!({"containerInstance": super::instances::show(state, &arn)}))
}

fn add_instance(state: &mut State, cluster: &str, arn: &str) -> Result<(), ApiError> {
    if state.instances.len() >= MAX_INSTANCES {
        let gone = state.instances.iter().position(|instance| instance.status == InstanceStatus::Inactive);
        let index = gone
            .ok_or_else(|| ApiError::client(format!("{MAX_INSTANCES} container instances are registered already.")))?;
        state.instances.remove(index);
    }
    state.instances.push(Instance {
        arn: arn.to_owned(),
        cluster: cluster.to_owned(),
        ec2_instance_id: String::new(),
        status: InstanceStatus::Active,
        attributes: Vec::new(),
        registrations: 0,
        agent_version: None,
        docker_version: None,
        client_token: None,
        registered_at: now(),
        resources: Resources::default(),
        acs_connection: None,
        outbox: Outbox::default(),
    });
    Ok(())
}

/// DiscoverPollEndpoint: this server, over plain http.
pub(super) fn discover(state: &State) -> Value {
    let url = &state.site.url;
    json!({"endpoint": format!("{url}/acs"), "telemetryEndpoint": format!("{url}/tcs")})
}

/// SubmitTaskStateChange.
pub(super) fn submit_task(state: &mut State, body: &Value) -> Answer {
    cluster_of(state, body)?;
    let name = required(body, "task")?;
    let task = state.task_mut(name).ok_or_else(|| ApiError::invalid("The referenced task was not found."))?;
    // A report of attachments has no status.
    if !body["status"].is_null() {
        task.apply_task_report(body, now());
    }
    let (arn, instance, stopped) =
        (task.arn.clone(), task.instance_arn.clone(), task.last_status == TaskStatus::Stopped);
    state.attached(&arn, &body["attachments"]).map_err(ApiError::client)?;
    if stopped {
        state.interface_is_over(&arn);
    }
    if stopped && let Some(instance) = state.instance_mut(&instance) {
        instance.outbox.forget_task(&arn);
    }
    Ok(acknowledgment())
}

/// SubmitContainerStateChange.
pub(super) fn submit_container(state: &mut State, body: &Value) -> Answer {
    cluster_of(state, body)?;
    let name = required(body, "task")?;
    let task = state.task_mut(name).ok_or_else(|| ApiError::invalid("The referenced task was not found."))?;
    task.apply_container_report(body, now());
    Ok(acknowledgment())
}

/// SubmitAttachmentStateChanges: the call is recorded and has no other effect.
pub(super) fn submit_attachments(state: &State, body: &Value) -> Answer {
    cluster_of(state, body)?;
    Ok(acknowledgment())
}

fn acknowledgment() -> Value {
    json!({"acknowledgment": new_id()})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::site::Site;

    fn golden(name: &str) -> Value {
        let path = format!("{}/../../tests/golden/{name}", env!("CARGO_MANIFEST_DIR"));
        serde_json::from_str::<Value>(&std::fs::read_to_string(path).unwrap()).unwrap()["body"].clone()
    }

    #[test]
    fn the_recorded_registrations_make_one_instance() {
        let mut state = State::new(Site::example(), "judge");
        let first = golden("register_container_instance.json");
        let answer = register(&mut state, &first).unwrap();
        let arn = answer["containerInstance"]["containerInstanceArn"].as_str().unwrap().to_owned();
        for attribute in first["attributes"].as_array().unwrap() {
            assert!(answer["containerInstance"]["attributes"].as_array().unwrap().contains(attribute), "{attribute}");
        }
        register(&mut state, &first).unwrap();
        let mut again = golden("reregister_container_instance.json");
        again["containerInstanceArn"] = json!(arn);
        register(&mut state, &again).unwrap();
        assert_eq!(state.instances().len(), 1);
        let instance = state.instance(&arn).unwrap();
        assert_eq!(instance.registrations, 3);
        assert!(instance.has_attribute("rack"), "custom attributes stay");
    }

    #[test]
    fn a_renewal_shows_the_attributes_that_came_with_it() {
        let mut state = State::new(Site::example(), "default");
        let mut arn = Value::Null;
        for version in ["0.1.0", "0.2.0"] {
            let attributes = json!([{"name": "ecs-agent.version", "value": version}]);
            let mut body = json!({"cluster": "default", "attributes": attributes});
            if !arn.is_null() {
                body["containerInstanceArn"] = arn.clone();
            }
            arn = register(&mut state, &body).unwrap()["containerInstance"]["containerInstanceArn"].clone();
            let described = json!({"cluster": "default", "containerInstances": [arn]});
            let shown = super::super::instances::describe(&state, &described).unwrap();
            let shown = shown["containerInstances"][0]["attributes"].as_array().unwrap();
            let versions: Vec<_> = shown.iter().filter(|attribute| attribute["name"] == "ecs-agent.version").collect();
            assert_eq!(versions, [&attributes[0]]);
        }
    }

    #[test]
    fn tasks_get_the_gpus_that_the_agent_offers() {
        let mut state = State::new(Site::example(), "judge");
        let mut registration = golden("register_container_instance.json");
        registration["platformDevices"] = json!([{"id": "GPU-1", "type": "GPU"}, {"id": "other", "type": "FPGA"}]);
        let shown = register(&mut state, &registration).unwrap();
        let arn = shown["containerInstance"]["containerInstanceArn"].as_str().unwrap().to_owned();
        let gpus = |shown: &Value, member: &str| {
            let listed = shown["containerInstance"][member].as_array().unwrap().clone();
            listed.iter().find(|resource| resource["name"] == "GPU").map(|gpu| gpu["stringSetValue"].clone())
        };
        assert_eq!(gpus(&shown, "registeredResources"), Some(json!(["GPU-1"])));
        state.instance_mut(&arn).unwrap().connect(1);
        let definition = json!({"family": "f", "containerDefinitions": [
            {"name": "a", "image": "i", "memory": 8, "resourceRequirements": [{"type": "GPU", "value": "1"}]},
        ]});
        let mut call = |operation: &str, body: &Value| super::super::ecs(&mut state, operation, body).unwrap();
        call("RegisterTaskDefinition", &definition);
        let run = json!({"cluster": "judge", "taskDefinition": "f", "count": 2});
        let answer = call("RunTask", &run);
        assert_eq!(
            (answer["tasks"].as_array().unwrap().len(), &answer["failures"][0]["reason"]),
            (1, &json!("RESOURCE:GPU"))
        );
        assert!(answer["failures"][0]["detail"].as_str().unwrap().contains("fewer GPUs"), "{answer}");
        assert_eq!(state.tasks[0].payload["associations"][0]["name"], "GPU-1");
        let left = json!({"containerInstance": super::super::instances::show(&state, &arn)});
        assert_eq!(gpus(&left, "remainingResources"), None);
    }

    #[test]
    fn a_missing_cluster_is_a_client_exception() {
        let mut state = State::new(Site::example(), "default");
        let error = register(&mut state, &json!({"cluster": "none"})).unwrap_err();
        assert_eq!((error.code.as_str(), error.message.as_str()), ("ClientException", "Cluster not found."));
    }
}
