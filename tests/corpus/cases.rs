//! The cases of the corpus (`acs/README.md`), each with its whole message.

use serde_json::{Value, json};

const ARN: &str = "arn:aws:ecs:us-west-2:123456789012";

pub fn cases() -> Vec<Value> {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/../corpus/acs");
    let mut files: Vec<_> = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|it| it == "json"));
    files.sort();
    let read = |path: &std::path::PathBuf| -> Vec<Value> {
        serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
    };
    files.iter().flat_map(read).map(complete).collect()
}

/// Completes a case that has only the odd members of a task or its container.
fn complete(mut case: Value) -> Value {
    let Some(name) = case["name"].as_str() else { return case };
    let mut container = json!({
        "name": "main", "image": "IMAGE", "command": ["sh", "-c", "exit 0"], "cpu": 0, "memory": 32, "essential": true,
        "overrides": "{}", "dockerConfig": {"config": "{}", "hostConfig": "{}"},
    });
    merge(&mut container, &case["container"]);
    let mut task = json!({
        "arn": format!("{ARN}:task/judge/{name}"), "family": "corpus", "version": "1", "desiredStatus": "RUNNING",
        "overrides": "{}", "containers": [container],
    });
    merge(&mut task, &case["task"]);
    case["message"] = json!({"type": "PayloadMessage", "message": {
        "messageId": name, "clusterArn": format!("{ARN}:cluster/judge"),
        "containerInstanceArn": format!("{ARN}:container-instance/judge/0123456789abcdef0123456789abcdef"), "tasks": [task],
    }});
    case["outcome"] = json!("deliver");
    case
}

fn merge(plain: &mut Value, odd: &Value) {
    for (name, value) in odd.as_object().into_iter().flatten() {
        plain[name] = value.clone();
    }
}
