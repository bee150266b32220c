//! The members of a request that each operation of ECS reads. Invariant: a member that asks for something that is not done here is
//! refused by name, and never ignored.

use crate::api_error::ApiError;
use crate::suggestion::did_you_mean;
use ecs_core::model::text::{cleaned, cut};
use serde_json::Value;

/// Maximum length of a member's name in an error, in bytes.
const MAX_NAME: usize = 60;

/// Members that ask for nothing here: every list is complete, and a client repeats no call.
const ANYWHERE: [&str; 3] = ["maxResults", "nextToken", "clientToken"];

/// The members that each operation reads, and those that it refuses with a text of its own. `RegisterTaskDefinition` checks its own,
/// and those of the agent are not people's.
const MEMBERS: &[(&str, &[&str])] = &[
    (
        "RunTask",
        &[
            "cluster",
            "taskDefinition",
            "overrides",
            "count",
            "launchType",
            "group",
            "startedBy",
            "tags",
            "placementConstraints",
            "capacityProviderStrategy",
            "networkConfiguration",
            "volumeConfigurations",
        ],
    ),
    (
        "StartTask",
        &[
            "cluster",
            "taskDefinition",
            "overrides",
            "containerInstances",
            "group",
            "startedBy",
            "tags",
            "networkConfiguration",
        ],
    ),
    ("StopTask", &["cluster", "task", "reason"]),
    ("DescribeTasks", &["cluster", "tasks", "include"]),
    ("ListTasks", &["cluster", "containerInstance", "family", "startedBy", "serviceName", "desiredStatus"]),
    ("ListContainerInstances", &["cluster", "status"]),
    ("DescribeContainerInstances", &["cluster", "containerInstances", "include"]),
    ("DeregisterContainerInstance", &["cluster", "containerInstance", "force"]),
    ("UpdateContainerInstancesState", &["cluster", "containerInstances", "status"]),
    ("CreateCluster", &["clusterName"]),
    ("DeleteCluster", &["cluster"]),
    ("DescribeClusters", &["clusters", "include"]),
    ("ListClusters", &[]),
    ("DeregisterTaskDefinition", &["taskDefinition"]),
    ("DescribeTaskDefinition", &["taskDefinition", "include"]),
    ("ListTaskDefinitions", &["familyPrefix", "status", "sort"]),
    ("ListTaskDefinitionFamilies", &["familyPrefix", "status"]),
    ("GetTaskProtection", &["cluster", "tasks"]),
    ("UpdateTaskProtection", &["cluster", "tasks", "protectionEnabled", "expiresInMinutes"]),
    ("ListTagsForResource", &["resourceArn"]),
    ("TagResource", &["resourceArn", "tags"]),
    ("UntagResource", &["resourceArn", "tagKeys"]),
];

/// Refuses the first member that the operation would ignore.
pub(super) fn check(operation: &str, body: &Value) -> Result<(), ApiError> {
    let Some((_, known)) = MEMBERS.iter().find(|(name, _)| *name == operation) else { return Ok(()) };
    let is_ignored = |(name, value): &(&String, &Value)| {
        !known.contains(&name.as_str()) && !ANYWHERE.contains(&name.as_str()) && !asks_for_nothing(name, value)
    };
    match body.as_object().into_iter().flatten().find(is_ignored) {
        None => Ok(()),
        Some((name, _)) => {
            let meant = did_you_mean(name, known.iter().copied());
            let name = cut(&cleaned(name), MAX_NAME);
            Err(ApiError::invalid(format!("`{name}` of {operation} is not supported here: remove it.{meant}")))
        }
    }
}

/// A value that asks for what is the case here anyway.
fn asks_for_nothing(name: &str, value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => {
            text.is_empty()
                || (name, text.as_str()) == ("launchType", "EC2")
                || (name, text.as_str()) == ("propagateTags", "NONE")
        }
        Value::Array(list) => list.is_empty(),
        Value::Object(members) => members.is_empty(),
        Value::Bool(true) | Value::Number(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_member_that_would_be_ignored_is_refused_by_name() {
        for (operation, body, wanted) in [
            (
                "RunTask",
                json!({"enableExecuteCommand": true}),
                Some("`enableExecuteCommand` of RunTask is not supported"),
            ),
            ("RunTask", json!({"placementStrategy": [{"type": "random"}]}), Some("`placementStrategy` of RunTask")),
            ("RunTask", json!({"enableECSManagedTags": true}), Some("`enableECSManagedTags`")),
            ("RunTask", json!({"propagateTags": "TASK_DEFINITION"}), Some("`propagateTags`")),
            ("RunTask", json!({"cuont": 2}), Some("remove it. Did you mean `count`?")),
            ("StartTask", json!({"networkConfiguration": {"awsvpcConfiguration": {}}}), None),
            ("StopTask", json!({"networkConfiguration": {"awsvpcConfiguration": {}}}), Some("`networkConfiguration`")),
            (
                "CreateCluster",
                json!({"settings": [{"name": "containerInsights"}]}),
                Some("`settings` of CreateCluster"),
            ),
            ("ListTasks", json!({"launchType": "FARGATE"}), Some("`launchType` of ListTasks")),
            ("ListContainerInstances", json!({"filter": "x"}), Some("`filter`")),
            // What asks for nothing is no reason to refuse a call.
            ("RunTask", json!({"enableExecuteCommand": false, "clientToken": "t", "propagateTags": "NONE"}), None),
            ("RunTask", json!({"placementStrategy": [], "platformVersion": "", "referenceId": null}), None),
            ("ListTasks", json!({"launchType": "EC2", "maxResults": 5}), None),
            ("RegisterTaskDefinition", json!({"anything": true}), None),
        ] {
            let text = check(operation, &body).err().map(|error| error.message);
            assert_eq!(text.is_some(), wanted.is_some(), "{body}: {text:?}");
            assert!(text.unwrap_or_default().contains(wanted.unwrap_or_default()), "{body}");
        }
    }

    #[test]
    fn every_operation_of_people_has_its_members() {
        let named: Vec<&str> = MEMBERS.iter().map(|(name, _)| *name).collect();
        for operation in super::super::OPERATIONS {
            assert!(named.contains(&operation) || operation == "RegisterTaskDefinition", "{operation}");
        }
        assert_eq!(named.len() + 1, super::super::OPERATIONS.len());
    }
}
