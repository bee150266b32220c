//! `networkConfiguration` of RunTask and StartTask. This module owns which one belongs to which network mode.

use crate::api_error::ApiError;
use crate::state::State;
use serde_json::Value;

/// The texts are those of ECS.
const MISSING: &str = "Network Configuration must be provided when networkMode 'awsvpc' is specified.";
const WITHOUT_USE: &str = "Network Configuration is not valid for the given networkMode of this task definition.";
/// The members of `awsvpcConfiguration`.
const MEMBERS: [&str; 3] = ["subnets", "securityGroups", "assignPublicIp"];
/// How many subnets a call may name, as in ECS.
const MAX_SUBNETS: usize = 16;

/// The subnet for the interface of a task; `None`: a task in this network mode has none.
pub(super) fn subnet(state: &State, mode: &str, configuration: &Value) -> Result<Option<String>, ApiError> {
    let given = &configuration["awsvpcConfiguration"];
    let is_given = !configuration.is_null();
    match (mode == "awsvpc", is_given) {
        (false, false) => return Ok(None),
        (false, true) => return Err(ApiError::invalid(WITHOUT_USE)),
        (true, false) => return Err(ApiError::invalid(MISSING)),
        (true, true) => {}
    }
    let Some(members) = given.as_object() else { return Err(ApiError::invalid(MISSING)) };
    if let Some(name) = members.keys().find(|name| !MEMBERS.contains(&name.as_str())) {
        return Err(ApiError::invalid(format!("awsvpcConfiguration has no member `{name}`.")));
    }
    if given["assignPublicIp"] == "ENABLED" {
        return Err(ApiError::invalid("Assign public IP is not supported for this launch type."));
    }
    let subnets: Vec<&str> = given["subnets"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let subnet = match subnets.first() {
        None => return Err(ApiError::invalid("subnets can not be empty.")),
        Some(_) if subnets.len() > MAX_SUBNETS => {
            return Err(ApiError::invalid(format!("subnets can have at most {MAX_SUBNETS} items.")));
        }
        Some(subnet) => *subnet,
    };
    if !subnet.starts_with("subnet-") {
        return Err(ApiError::invalid(format!("The subnet ID '{subnet}' is not valid: any `subnet-...` is, here.")));
    }
    match state.why_no_links() {
        None => Ok(Some(subnet.to_owned())),
        Some(why) => Err(ApiError::client(format!("ecs-local cannot make network interfaces here: {why}."))),
    }
}

#[cfg(test)]
mod tests {
    use super::super::ecs;
    use super::*;
    use crate::instances::{Attribute, Instance};
    use crate::interfaces::Work;
    use crate::site::Site;
    use serde_json::json;
    use std::sync::mpsc::{Receiver, sync_channel};

    /// A state with an instance that offers interfaces, and the work that it gives.
    fn state() -> (State, Receiver<Work>) {
        let mut state = State::new(Site::example(), "default");
        let mut instance = Instance::example();
        instance.cluster = "default".to_owned();
        instance.attributes = vec![Attribute { name: "ecs.capability.task-eni".to_owned(), value: None }];
        instance.connect(1);
        state.instances.push(instance);
        let (sender, work) = sync_channel(2);
        (state.links, state.name_servers) = (Ok(sender), vec!["10.0.0.2".to_owned()]);
        let definition = json!({"family": "f", "networkMode": "awsvpc", "containerDefinitions": [
            {"name": "a", "image": "i", "memory": 8},
        ]});
        ecs(&mut state, "RegisterTaskDefinition", &definition).unwrap();
        (state, work)
    }

    fn run(state: &mut State, configuration: &Value) -> Result<Value, ApiError> {
        let body = json!({"taskDefinition": "f", "networkConfiguration": configuration});
        ecs(state, "RunTask", &body).map(|answer| answer["tasks"][0].clone())
    }

    fn described(state: &mut State, task: &str) -> Value {
        ecs(state, "DescribeTasks", &json!({"tasks": [task]})).unwrap()["tasks"][0].clone()
    }

    fn sent(state: &mut State) -> Vec<(String, Value)> {
        let instance = state.instances[0].arn.clone();
        let outbox = &mut state.instance_mut(&instance).unwrap().outbox;
        let due = outbox.due(tokio::time::Instant::now(), std::time::Duration::from_secs(60), &Default::default());
        let message = |sent: Value| (sent["type"].as_str().unwrap().to_owned(), sent["message"].clone());
        due.into_iter().map(message).collect()
    }

    #[tokio::test]
    async fn a_task_is_sent_when_its_interface_is_attached() {
        let (mut state, work) = state();
        let configuration = json!({"awsvpcConfiguration": {"subnets": ["subnet-1"], "securityGroups": ["sg-1"]}});
        let task = run(&mut state, &configuration).unwrap();
        let arn = task["taskArn"].as_str().unwrap().to_owned();
        assert_eq!(
            (&task["lastStatus"], &task["attachments"][0]["status"]),
            (&json!("PROVISIONING"), &json!("PRECREATED"))
        );
        let Ok(Work::Make(made_for, link)) = work.try_recv() else { panic!("no link is made") };
        assert_eq!((made_for.as_str(), sent(&mut state).len()), (arn.as_str(), 0));
        state.interface_made(&arn, Ok(()));
        let [(kind, message)] = &sent(&mut state)[..] else { panic!("one message") };
        assert_eq!((kind.as_str(), &message["taskArn"]), ("AttachTaskNetworkInterfacesMessage", &json!(arn)));
        let interface = &message["elasticNetworkInterfaces"][0];
        assert_eq!(interface["ipv4Addresses"][0]["privateAddress"], json!(link.address.to_string()));
        let report = |attachment: &str| json!({"task": arn, "attachments": [{"attachmentArn": attachment, "status": "ATTACHED"}]});
        ecs(&mut state, "SubmitTaskStateChange", &report("another")).unwrap();
        assert!(sent(&mut state).is_empty());
        ecs(&mut state, "SubmitTaskStateChange", &report(interface["attachmentArn"].as_str().unwrap())).unwrap();
        let [(kind, payload)] = &sent(&mut state)[..] else { panic!("one message") };
        assert_eq!((kind.as_str(), &payload["tasks"][0]["elasticNetworkInterfaces"][0]), ("PayloadMessage", interface));
        let shown = described(&mut state, &arn);
        assert_eq!((&shown["lastStatus"], &shown["attachments"][0]["status"]), (&json!("PENDING"), &json!("ATTACHED")));
        let for_container = &shown["containers"][0]["networkInterfaces"][0];
        assert_eq!(for_container["privateIpv4Address"], json!(link.address.to_string()));
        assert_eq!(for_container["attachmentId"], shown["attachments"][0]["id"]);
        ecs(&mut state, "SubmitTaskStateChange", &json!({"task": arn, "status": "STOPPED"})).unwrap();
        assert!(matches!(work.try_recv(), Ok(Work::Remove(removed)) if removed == link));
        assert_eq!(described(&mut state, &arn)["attachments"][0]["status"], "DELETED");
    }

    #[tokio::test]
    async fn an_interface_that_cannot_be_made_ends_its_task() {
        let (mut state, _work) = state();
        let configuration = json!({"awsvpcConfiguration": {"subnets": ["subnet-1"]}});
        let task = run(&mut state, &configuration).unwrap()["taskArn"].as_str().unwrap().to_owned();
        state.interface_made(&task, Err("no room".to_owned()));
        let shown = described(&mut state, &task);
        assert_eq!((&shown["lastStatus"], &shown["stopCode"]), (&json!("STOPPED"), &json!("TaskFailedToStart")));
        assert_eq!(shown["stoppedReason"], "The network interface cannot be made: no room");
        assert!(sent(&mut state).is_empty());
    }

    #[tokio::test]
    async fn ecs_gives_up_an_interface_that_is_not_reported() {
        let (mut state, work) = state();
        let configuration = json!({"awsvpcConfiguration": {"subnets": ["subnet-1"]}});
        let task = run(&mut state, &configuration).unwrap()["taskArn"].as_str().unwrap().to_owned();
        let Ok(Work::Make(_, link)) = work.try_recv() else { panic!("no link is made") };
        state.interface_made(&task, Ok(()));
        let announced = sent(&mut state);
        assert_eq!(described(&mut state, &task)["lastStatus"], "PROVISIONING");
        state.interface_expired(&task);
        let shown = described(&mut state, &task);
        let reason = "Timeout waiting for network interface provisioning to complete.";
        assert_eq!((&shown["lastStatus"], &shown["stoppedReason"]), (&json!("STOPPED"), &json!(reason)));
        assert!(matches!(work.try_recv(), Ok(Work::Remove(removed)) if removed == link));
        let late = json!({"task": task, "attachments": [
            {"attachmentArn": announced[0].1["elasticNetworkInterfaces"][0]["attachmentArn"], "status": "ATTACHED"},
        ]});
        ecs(&mut state, "SubmitTaskStateChange", &late).unwrap();
        assert!(sent(&mut state).is_empty(), "a late report starts nothing");

        // A reported interface is not given up, and work that nobody does is not collected without end.
        let task = run(&mut state, &configuration).unwrap()["taskArn"].as_str().unwrap().to_owned();
        state.interface_made(&task, Ok(()));
        let arn = sent(&mut state)[0].1["elasticNetworkInterfaces"][0]["attachmentArn"].clone();
        let report = json!({"task": task, "attachments": [{"attachmentArn": arn, "status": "ATTACHED"}]});
        ecs(&mut state, "SubmitTaskStateChange", &report).unwrap();
        state.interface_expired(&task);
        assert_eq!(described(&mut state, &task)["lastStatus"], "PENDING");
        run(&mut state, &configuration).unwrap();
        let text = run(&mut state, &configuration).unwrap_err().message;
        assert_eq!(text, "too many network interfaces wait to be made");
    }

    #[test]
    fn the_configuration_belongs_to_the_mode() {
        let (mut state, _work) = state();
        for (configuration, wanted) in [
            (json!(null), MISSING),
            (json!({}), MISSING),
            (json!({"awsvpcConfiguration": {"subnets": []}}), "subnets can not be empty."),
            (json!({"awsvpcConfiguration": {"subnets": ["net"]}}), "The subnet ID 'net' is not valid"),
            (json!({"awsvpcConfiguration": {"subnets": ["subnet-1"], "assignPublicIp": "ENABLED"}}), "public IP"),
            (json!({"awsvpcConfiguration": {"subnets": ["subnet-1"], "subnet": "x"}}), "no member `subnet`"),
        ] {
            let text = run(&mut state, &configuration).unwrap_err().message;
            assert!(text.contains(wanted), "{configuration}: {text}");
        }
        state.links = Err("it needs root".to_owned());
        let configuration = json!({"awsvpcConfiguration": {"subnets": ["subnet-1"]}});
        let text = run(&mut state, &configuration).unwrap_err().message;
        assert_eq!(text, "ecs-local cannot make network interfaces here: it needs root.");
        assert_eq!(subnet(&state, "bridge", &json!(null)).unwrap(), None);
        assert_eq!(subnet(&state, "bridge", &configuration).unwrap_err().message, WITHOUT_USE);
    }
}
