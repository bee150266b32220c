//! The one label of our own: what Docker cannot tell of a task, should the agent's state be lost.
//!
//! Owns its form, a JSON object `{"version": 1, "task": {…}}` in which what is empty is left out. It holds nothing confidential:
//! [`TaskSpec::outline`] has taken that out. Invariant: what cannot be read, or is of another version, is nobody's.

use crate::model::TaskSpec;
use serde_json::{Value, json};

pub(super) const LABEL: &str = "ecs-agent.task";
const VERSION: u64 = 1;
/// Members that are written whatever their value.
const NEEDED: [&str; 4] = ["name", "image", "essential", "endpoint_id"];

/// The label's text.
pub(super) fn write(task: &TaskSpec) -> String {
    let mut task = json!(task);
    for container in task["containers"].as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut) {
        container.retain(|name, value| NEEDED.contains(&name.as_str()) || !is_empty(value));
    }
    json!({"version": VERSION, "task": task}).to_string()
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Number(number) => number.as_u64() == Some(0),
        Value::Array(list) => list.is_empty(),
        Value::Object(members) => members.values().all(|value| is_empty(value) || value == ""),
        // The source of pull credentials, which an outline does not name.
        Value::String(text) => text == "Engine",
        Value::Bool(true) => false,
    }
}

/// The task a label tells of.
pub(super) fn read(label: &str) -> Option<TaskSpec> {
    let mut label: Value = serde_json::from_str(label).ok()?;
    if label["version"] != VERSION {
        return None;
    }
    serde_json::from_value(label["task"].take()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outline_comes_back_and_holds_nothing_confidential() {
        let spec: TaskSpec = serde_json::from_value(json!({
            "arn": "arn:aws:ecs:r:1:task/c/t", "family": "f", "version": "7", "execution_credentials": "id-secret",
            "containers": [
                {"name": "a", "image": "i", "essential": false, "endpoint_id": "e", "cpu": 128, "memory": 64,
                    "command": ["--token=secret"], "environment": {"KEY": "secret"}, "stop_timeout": 5000,
                    "ports": [{"container_port": 80, "host_port": 0, "protocol": "tcp"}], "health_check": true,
                    "engine_settings": {"config": "secret", "host_config": "secret"}},
                {"name": "b", "image": "i", "essential": true, "endpoint_id": "", "entry_point": ["secret"],
                    "depends_on": [{"container": "a", "condition": "HEALTHY"}]},
            ],
        }))
        .unwrap();
        let text = write(&spec.outline());
        assert!(!text.contains("secret"), "{text}");
        assert!(!text.contains("engine_settings") && !text.contains("registry_auth"), "{text}");
        assert_eq!(read(&text), Some(spec.outline()));
        assert_eq!(spec.outline().outline(), spec.outline());
    }

    #[test]
    fn what_is_not_our_label_is_nothing() {
        for text in ["", "{}", "[1]", r#"{"version":2,"task":{}}"#, r#"{"version":1,"task":{}}"#, r#"{"version":1}"#] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
