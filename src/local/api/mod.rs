//! The APIs of ECS and of the services beside it: functions from state, operation and request to an answer or an error, without
//! sockets. This module owns the list of operations of ECS; each group of operations has a file of its own. Invariant: a call that fails changes nothing that a later
//! call can see.

mod agent;
mod clusters;
mod definitions;
mod ecr;
mod instances;
mod labels;
mod members;
mod network;
mod protection;
mod request;
mod run;
mod secrets;
mod ssm;
mod tags;
mod tasks;

use super::api_error::ApiError;
use super::ecr::Principal;
use super::options::Options;
use super::shared::Shared;
use super::state::State;
use request::Answer;
use serde_json::Value;
use std::sync::Arc;

/// The operations of [`ecs`] that people use, for the answer to any other.
const OPERATIONS: [&str; 23] = [
    "CreateCluster",
    "DeleteCluster",
    "DeregisterContainerInstance",
    "DeregisterTaskDefinition",
    "DescribeClusters",
    "DescribeContainerInstances",
    "DescribeTaskDefinition",
    "DescribeTasks",
    "GetTaskProtection",
    "ListClusters",
    "ListContainerInstances",
    "ListTagsForResource",
    "ListTaskDefinitionFamilies",
    "ListTaskDefinitions",
    "ListTasks",
    "RegisterTaskDefinition",
    "RunTask",
    "StartTask",
    "StopTask",
    "TagResource",
    "UntagResource",
    "UpdateContainerInstancesState",
    "UpdateTaskProtection",
];

/// Answers one call of the ECS API.
pub(super) fn ecs(state: &mut State, operation: &str, body: &Value) -> Answer {
    members::check(operation, body)?;
    labels::check_tags(&body["tags"])?;
    match operation {
        "RegisterContainerInstance" => agent::register(state, body),
        "DiscoverPollEndpoint" => Ok(agent::discover(state)),
        "SubmitTaskStateChange" => agent::submit_task(state, body),
        "SubmitContainerStateChange" => agent::submit_container(state, body),
        "SubmitAttachmentStateChanges" => agent::submit_attachments(state, body),
        "CreateCluster" => clusters::create(state, body),
        "DeleteCluster" => clusters::delete(state, body),
        "DescribeClusters" => Ok(clusters::describe(state, body)),
        "ListClusters" => Ok(clusters::list(state)),
        "RegisterTaskDefinition" => definitions::register(state, body),
        "DeregisterTaskDefinition" => definitions::deregister(state, body),
        "DescribeTaskDefinition" => definitions::describe(state, body),
        "ListTaskDefinitions" => definitions::list(state, body),
        "ListTaskDefinitionFamilies" => definitions::families(state, body),
        "RunTask" => run::run(state, body),
        "StartTask" => run::start(state, body),
        "StopTask" => tasks::stop(state, body),
        "DescribeTasks" => tasks::describe(state, body),
        "ListTasks" => tasks::list(state, body),
        "ListContainerInstances" => instances::list(state, body),
        "DescribeContainerInstances" => instances::describe(state, body),
        "DeregisterContainerInstance" => instances::deregister(state, body),
        "UpdateContainerInstancesState" => instances::update_state(state, body),
        "GetTaskProtection" => protection::get(state, body),
        "UpdateTaskProtection" => protection::update(state, body),
        "ListTagsForResource" => tags::list(state, body),
        "TagResource" => tags::tag(state, body),
        "UntagResource" => tags::untag(state, body),
        other => Err(ApiError::unsupported("UnsupportedFeatureException", other, "ECS", &OPERATIONS)),
    }
}

/// Answers one call of the ECR API.
pub(super) fn ecr(state: &mut State, options: &Options, caller: &Principal, operation: &str, body: &Value) -> Answer {
    ecr::answer(state, options, caller, operation, body)
}

/// The operation of ECR waits for something other than the lock of the state: [`wait`] answers it, not [`ecr()`].
pub(super) fn waits(operation: &str) -> bool {
    ecr::waits(operation)
}

/// Answers one call of the ECR API that waits, for example for the bytes of a layer.
pub(super) async fn wait(shared: &Arc<Shared>, caller: &Principal, operation: &str, body: &Value) -> Answer {
    ecr::wait(shared, caller, operation, body).await
}

/// Answers one call of the Secrets Manager API.
pub(super) fn secrets_manager(state: &State, operation: &str, body: &Value) -> Answer {
    secrets::answer(state, operation, body)
}

/// The name of the secret that a request names by name or ARN; `None`: there is none.
pub(super) fn secret_name<'s>(state: &'s State, asked: &str) -> Option<&'s str> {
    secrets::name(state, asked)
}

/// The name of the parameter that a request names by name or ARN.
pub(super) fn parameter_name(asked: &str) -> &str {
    ssm::name(asked)
}

/// Answers one call of the SSM API.
pub(super) fn ssm(state: &State, operation: &str, body: &Value) -> Answer {
    ssm::answer(state, operation, body)
}

#[cfg(test)]
mod tests {
    use super::request::names;
    use super::*;
    use crate::instances::Instance;
    use crate::site::Site;
    use serde_json::json;

    fn state() -> State {
        let mut state = State::new(Site::example(), "default");
        let mut instance = Instance::example();
        instance.cluster = "default".to_owned();
        instance.connect(1);
        state.instances.push(instance);
        state
    }

    fn hello() -> Value {
        json!({"family": "hello", "containerDefinitions": [
            {"name": "main", "image": "busybox", "memory": 64, "environment": [{"name": "A", "value": "1"}]},
        ]})
    }

    #[test]
    fn a_task_runs_and_is_stopped_by_its_user() {
        let mut state = state();
        let definition = ecs(&mut state, "RegisterTaskDefinition", &hello()).unwrap();
        assert_eq!(definition["taskDefinition"]["revision"], 1);
        let run = json!({"taskDefinition": "hello", "overrides": {"containerOverrides": [
            {"name": "main", "command": ["x"], "environment": [{"name": "A", "value": "2"}], "memory": 32},
        ]}});
        let task = ecs(&mut state, "RunTask", &run).unwrap()["tasks"][0].clone();
        assert_eq!((&task["lastStatus"], &task["desiredStatus"]), (&json!("PENDING"), &json!("RUNNING")));
        let payload = &state.tasks[0].payload["containers"][0];
        assert_eq!(payload["environment"]["A"], "2");
        assert_eq!(payload["memory"], 32);
        let listed = ecs(&mut state, "ListTasks", &json!({"family": "hello"})).unwrap();
        assert_eq!(listed["taskArns"], json!([task["taskArn"]]));
        let stopped = ecs(&mut state, "StopTask", &json!({"task": task["taskArn"], "reason": "enough"})).unwrap();
        assert_eq!(stopped["task"]["desiredStatus"], "STOPPED");
        assert_eq!(stopped["task"]["stoppedReason"], "enough");
        assert_eq!(state.instances[0].unacknowledged(), 2);
    }

    #[test]
    fn calls_are_refused_with_a_reason() {
        let mut state = state();
        ecs(&mut state, "RegisterTaskDefinition", &hello()).unwrap();
        for (operation, body, code, message) in [
            ("CreateService", json!({}), "UnsupportedFeatureException", "CreateService is not supported"),
            ("RunTasks", json!({}), "UnsupportedFeatureException", "Did you mean `RunTask`? Supported: CreateCluster,"),
            (
                "SubmitTasks",
                json!({}),
                "UnsupportedFeatureException",
                ", UntagResource, UpdateContainerInstancesState, UpdateTaskProtection.",
            ),
            (
                "RunTask",
                json!({"cluster": "none", "taskDefinition": "hello"}),
                "ClusterNotFoundException",
                "Cluster not found.",
            ),
            ("RunTask", json!({"taskDefinition": "none"}), "ClientException", "TaskDefinition not found."),
            (
                "RunTask",
                json!({"taskDefinition": "hello", "count": 11}),
                "InvalidParameterException",
                "count must be 1 to 10",
            ),
            (
                "RunTask",
                json!({"taskDefinition": "hello", "launchType": "FARGATE"}),
                "InvalidParameterException",
                "EC2",
            ),
            (
                "RunTask",
                json!({"taskDefinition": "hello", "overrides": {"containerOverrides": [{"name": "other"}]}}),
                "InvalidParameterException",
                "Override for container named other is not a container in the TaskDefinition.",
            ),
            ("StopTask", json!({"task": "none"}), "InvalidParameterException", "The referenced task was not found."),
            ("RegisterTaskDefinition", json!({"family": "x"}), "ClientException", "Container list cannot be empty."),
            (
                "RegisterTaskDefinition",
                json!({"famly": "x"}),
                "ClientException",
                "famly: there is no member `famly`. Did you mean `family`?",
            ),
            (
                "RegisterTaskDefinition",
                json!({"family": "x", "containerDefinitions": [{"memory": "expected hunter2"}]}),
                "ClientException",
                "cannot be read: containerDefinitions[0].memory: it must be a whole number",
            ),
        ] {
            let error = ecs(&mut state, operation, &body).unwrap_err();
            assert_eq!(error.code, code, "{operation} {body}");
            assert!(error.message.contains(message), "{operation}: {}", error.message);
        }
    }

    #[test]
    fn every_operation_that_is_listed_is_supported() {
        for operation in OPERATIONS {
            let code = ecs(&mut state(), operation, &json!({})).err().map(|error| error.code);
            assert_ne!(code.as_deref(), Some("UnsupportedFeatureException"), "{operation}");
        }
        let source = include_str!("mod.rs");
        let arms = source.lines().filter(|line| line.trim_start().starts_with('"') && line.contains("\" => "));
        let people_calls = arms.filter(|line| !line.contains(" agent::") && !line.contains("(agent::")).count();
        assert_eq!(people_calls, OPERATIONS.len(), "each operation of people is listed");
    }

    #[test]
    fn placement_fails_by_instance() {
        let mut state = state();
        let mut large = hello();
        large["containerDefinitions"][0]["memory"] = json!(2000);
        ecs(&mut state, "RegisterTaskDefinition", &large).unwrap();
        let answer = ecs(&mut state, "RunTask", &json!({"taskDefinition": "hello"})).unwrap();
        assert_eq!(answer["tasks"], json!([]));
        assert_eq!(answer["failures"][0]["reason"], "RESOURCE:MEMORY");
        state.instances.clear();
        let error = ecs(&mut state, "RunTask", &json!({"taskDefinition": "hello"})).unwrap_err();
        assert_eq!(error.message, "No Container Instances were found in your cluster.");
    }

    #[test]
    fn definitions_have_revisions() {
        let mut state = state();
        for _ in 0..2 {
            ecs(&mut state, "RegisterTaskDefinition", &hello()).unwrap();
        }
        ecs(&mut state, "DeregisterTaskDefinition", &json!({"taskDefinition": "hello:2"})).unwrap();
        let newest = ecs(&mut state, "DescribeTaskDefinition", &json!({"taskDefinition": "hello"})).unwrap();
        assert_eq!(newest["taskDefinition"]["revision"], 1);
        let third = ecs(&mut state, "RegisterTaskDefinition", &hello()).unwrap();
        assert_eq!(third["taskDefinition"]["revision"], 3);
        let all = ecs(&mut state, "ListTaskDefinitions", &json!({"sort": "DESC"})).unwrap();
        let ends: Vec<_> = names(&all, "taskDefinitionArns").map(|arn| arn.rsplit('/').next().unwrap()).collect();
        assert_eq!(ends, ["hello:3", "hello:1"]);
    }
}
