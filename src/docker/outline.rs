//! This agent's own container labels: the owner of a container, and the facts about its task that Docker does not have. They
//! serve to rebuild a lost state.
//!
//! Owns their form. [`OWNER`] is the identity of the agent that created the container, and [`PLACE`] is where that agent keeps
//! its data. [`LABEL`] is a JSON object `{"version": 1, "task": {…}}` without the members that have their default value. It
//! contains nothing confidential: [`TaskSpec::outline`] has removed that. Invariant: a label that cannot be read, or has another
//! version, is ignored.

use ecs_core::model::{OwnerId, TaskSpec, text};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

pub(super) const LABEL: &str = "ecs-agent.task";
pub(super) const OWNER: &str = "ecs-agent.owner";
pub(super) const PLACE: &str = "ecs-agent.data-dir";
/// The longest identity that is read, in bytes; this agent's identities have 32.
const MAX_OWNER: usize = 64;
const VERSION: u64 = 1;

#[derive(Serialize, Deserialize)]
struct Label<'a> {
    version: u64,
    task: Cow<'a, TaskSpec>,
}

/// The identity in a label. An identity of another form belongs to another agent.
pub(super) fn owner(label: &str) -> OwnerId {
    text::cut(label, MAX_OWNER).into()
}

/// The text of the label for a task.
pub(super) fn write(task: &TaskSpec) -> String {
    // A task specification can always be written as JSON: the stored state contains it as well.
    serde_json::to_string(&Label { version: VERSION, task: Cow::Borrowed(task) }).unwrap_or_default()
}

/// The task in a label; `None` = the label cannot be read.
pub(super) fn read(label: &str) -> Option<TaskSpec> {
    let label: Label<'_> = serde_json::from_str(label).ok()?;
    (label.version == VERSION).then(|| label.task.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_outline_survives_its_label_and_has_nothing_confidential() {
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
    fn a_label_of_another_form_is_ignored() {
        for text in ["", "{}", "[1]", r#"{"version":2,"task":{}}"#, r#"{"version":1,"task":{}}"#, r#"{"version":1}"#] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
