//! What `up` cannot run in a task definition that ECS takes. This module owns the list, so that a person learns of everything at
//! once, before anything is started. Invariant: only members that no setting of `up` could allow are refused here.

use serde_json::Value;

/// The agent's setting with the log drivers that it offers.
pub(super) const DRIVERS: &str = "ECS_AVAILABLE_LOGGING_DRIVERS";

/// A member that is refused.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refused {
    /// The object that has the member, as a JSON pointer.
    parent: String,
    member: &'static str,
    /// The member's place and the remedy, in words.
    pub(super) text: String,
}

/// The refused members; empty if there are none. `drivers` is the agent's setting with the log drivers.
pub(super) fn refused(definition: &Value, drivers: &str) -> Vec<Refused> {
    let mut found = Vec::new();
    let launch_types = definition["requiresCompatibilities"].as_array();
    if launch_types.is_some_and(|list| is_elsewhere(list)) {
        found.push((
            "requiresCompatibilities",
            "requiresCompatibilities: tasks run on this machine, as on EC2: remove it, and use networkMode bridge",
        ));
    }
    if definition["networkMode"] == "awsvpc" {
        found.push(("networkMode", "networkMode awsvpc: use bridge, host or none"));
    }
    for (member, why) in [
        ("proxyConfiguration", "proxyConfiguration: there is no App Mesh: remove it"),
        ("ephemeralStorage", "ephemeralStorage: it is for tasks on Fargate: remove it"),
    ] {
        if !definition[member].is_null() {
            found.push((member, why));
        }
    }
    let refused = |(member, why): (&'static str, &str)| Refused { parent: String::new(), member, text: why.to_owned() };
    let mut found: Vec<Refused> = found.into_iter().map(refused).collect();
    let has_role = !definition["executionRoleArn"].is_null();
    for (at, container) in definition["containerDefinitions"].as_array().into_iter().flatten().enumerate() {
        let is_awslogs = container["logConfiguration"]["logDriver"] == "awslogs";
        if is_awslogs && (has_role || !drivers.contains("awslogs")) {
            found.push(Refused {
                parent: format!("/containerDefinitions/{at}"),
                member: "logConfiguration",
                text: format!(
                    "containerDefinitions[{at}].logConfiguration: remove `logConfiguration`: `up` shows the output itself"
                ),
            });
        }
    }
    found
}

/// The definition without what is refused.
pub(super) fn without(definition: &Value, refused: &[Refused]) -> Value {
    let mut rest = definition.clone();
    for Refused { parent, member, .. } in refused {
        if let Some(members) = rest.pointer_mut(parent).and_then(Value::as_object_mut) {
            members.remove(*member);
        }
    }
    rest
}

/// The launch types are known, and none of them exists on this machine. Wrong names are the API's to explain.
fn is_elsewhere(list: &[Value]) -> bool {
    !list.is_empty() && list.iter().all(|name| name == "FARGATE" || name == "MANAGED_INSTANCES")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::io::Write;
    use std::process::{Command, Stdio};

    /// A definition as a service on Fargate has it, in the form of DescribeTaskDefinition.
    fn described() -> Value {
        json!({"taskDefinition": {
            "family": "web", "revision": 7, "status": "ACTIVE", "networkMode": "awsvpc", "requiresCompatibilities": ["FARGATE"],
            "compatibilities": ["EC2", "FARGATE"], "cpu": "256", "memory": "512", "ephemeralStorage": {"sizeInGiB": 30},
            "taskRoleArn": "arn:aws:iam::123456789012:role/web", "executionRoleArn": "arn:aws:iam::123456789012:role/pull",
            "containerDefinitions": [
                {"name": "web", "image": "busybox", "logConfiguration": {"logDriver": "awslogs", "options": {"awslogs-group": "web"}}},
                {"name": "side", "image": "busybox", "logConfiguration": {"logDriver": "none"}},
                {"name": "plain", "image": "busybox"},
            ],
        }})
    }

    #[test]
    fn all_refused_members_are_named_at_once() {
        let definition = &described()["taskDefinition"];
        let found = refused(definition, "");
        assert_eq!(refused(&without(definition, &found), ""), []);
        let names: Vec<&str> = found.iter().filter_map(|refused| refused.text.split([':', ' ']).next()).collect();
        let wanted =
            ["requiresCompatibilities", "networkMode", "ephemeralStorage", "containerDefinitions[0].logConfiguration"];
        assert_eq!(names, wanted);
        assert!(found[3].text.ends_with("remove `logConfiguration`: `up` shows the output itself"), "{found:?}");
    }

    #[test]
    fn what_a_setting_or_another_launch_type_allows_passes() {
        let logs = json!({"containerDefinitions": [{"logConfiguration": {"logDriver": "awslogs"}}]});
        assert_eq!(refused(&logs, "").len(), 1);
        assert!(refused(&logs, r#"["json-file","awslogs"]"#).is_empty());
        let mut with_role = logs;
        with_role["executionRoleArn"] = json!("r");
        assert_eq!(refused(&with_role, r#"["json-file","awslogs"]"#).len(), 1, "no setting allows it");
        for list in [json!(["EC2", "FARGATE"]), json!([]), json!(["EC3"]), json!(null)] {
            assert!(refused(&json!({"requiresCompatibilities": list}), "").is_empty(), "{list}");
        }
    }

    #[test]
    fn the_filter_of_the_page_removes_what_is_refused() {
        let page = include_str!("../../../examples/ecs-local.md");
        let filter = page.split("jq '").nth(1).and_then(|rest| rest.split('\'').next()).unwrap();
        let Ok(mut jq) = Command::new("jq").arg(filter).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn() else {
            eprintln!("SKIPPED: jq is not installed");
            return;
        };
        jq.stdin.take().unwrap().write_all(described().to_string().as_bytes()).unwrap();
        let output = jq.wait_with_output().unwrap();
        let mut filtered: Value = serde_json::from_slice(&output.stdout).unwrap();
        let definition = filtered["taskDefinition"].take();
        assert_eq!(refused(&definition, ""), []);
        assert_eq!(
            definition["executionRoleArn"],
            described()["taskDefinition"]["executionRoleArn"],
            "secrets need it"
        );
        assert_eq!(definition["containerDefinitions"][1]["logConfiguration"]["logDriver"], "none");
    }
}
