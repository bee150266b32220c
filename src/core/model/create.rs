//! Everything that Docker needs to create one container.

use super::{ContainerSpec, CredentialsId, Failure, Interface, OpError, RuntimeId, Secret, TaskArn, TaskSpec, text};
use std::collections::BTreeMap;
use zeroize::Zeroizing;

/// A request to create one container, with every name that Docker needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CreateRequest {
    /// The task that the container belongs to.
    pub task: TaskArn,
    /// Task definition family.
    pub family: String,
    /// Task definition revision.
    pub version: String,
    /// The name of the new container in Docker.
    pub runtime_name: String,
    /// The specification of the container.
    pub spec: ContainerSpec,
    /// Docker links: the name of the target in Docker, and the alias for it.
    pub links: Vec<(String, String)>,
    /// The containers whose volumes this one mounts: their names in Docker, and whether the mounts are read-only.
    pub volumes_from: Vec<(String, bool)>,
    /// The name in Docker of the task's pause container; `None` if the task has none.
    pub pause: Option<String>,
    /// The network namespace that the container lives in.
    pub network: ContainerNetwork,
    /// The container runs below the control group of the task.
    pub in_task_cgroup: bool,
    /// Address of the task's log router; `None` if the container uses none, or its address is not known.
    pub router_address: Option<String>,
    /// The id by which the container requests the credentials of the task role; `None`: the task has none.
    pub role_id: Option<CredentialsId>,
    /// The id by which Docker requests the credentials of the task execution role for the container's log; `None`: it does not.
    pub log_role_id: Option<CredentialsId>,
    /// Path on the host of the container's Kerberos ticket; `None` if it has no credential spec.
    pub ticket: Option<String>,
    /// Names of the task's resources that the container needs. All of them exist already.
    pub resources: Vec<String>,
    /// The outline of the task for the container's label, from which the task is rebuilt if the agent's state is lost.
    pub outline: TaskSpec,
}

/// The network namespace that a container lives in (spec `docker-mapping.md` §4).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ContainerNetwork {
    /// What the payload's own settings say. A pause container has a namespace of its own without an outside.
    #[default]
    Configured,
    /// The container is the pause container of a task with these interfaces, and has the task's namespace.
    Own(Vec<Interface>),
    /// The namespace of the pause container with this id.
    Joined(RuntimeId),
}

/// Secret values that a container is created with. No state holds them: they are looked up right before the create and dropped
/// after it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SecretValues {
    /// Environment variables that are secrets, by name.
    pub environment: BTreeMap<String, Secret>,
    /// Options of the log driver that are secrets, by name.
    pub log_options: BTreeMap<String, Secret>,
    /// The variables of each environment file, in the order of the task definition.
    pub environment_files: Vec<BTreeMap<String, Secret>>,
}

impl SecretValues {
    /// The length of the shortest value that is redacted, in bytes. A shorter text may be part of any word, and is hardly a
    /// secret.
    const MIN_REDACTED: usize = 4;

    /// The error with these values redacted, since Docker may quote them.
    pub fn hide(&self, error: OpError) -> OpError {
        let clean = |failure: Failure| {
            let message = self.hide_in(&failure.message);
            failure.with_message(message)
        };
        match error {
            OpError::Failed(failure) => OpError::Failed(clean(failure)),
            OpError::Unknown(failure) => OpError::Unknown(clean(failure)),
        }
    }

    /// The text with these values redacted. The text was cleaned before ([`text::cleaned`]), so it contains a value in its
    /// cleaned form, and the cut at its end may have left only the beginning of a value.
    fn hide_in(&self, text: &str) -> String {
        let files = self.environment_files.iter().flat_map(BTreeMap::values);
        let values = self.environment.values().chain(self.log_options.values()).chain(files);
        let cleaned = values.map(|value| Zeroizing::new(text::cut(value.expose(), usize::MAX)));
        let redacted: Vec<_> = cleaned.filter(|value| value.len() >= Self::MIN_REDACTED).collect();
        let hidden = redacted.iter().fold(text.to_owned(), |text, value| text.replace(value.as_str(), REDACTED));
        let Some(before_cut) = hidden.strip_suffix(text::CUT) else { return hidden };
        let length_at_end = |value: &str| {
            let lengths = (Self::MIN_REDACTED..=value.len().min(before_cut.len())).rev();
            let mut lengths = lengths.filter(|length| value.is_char_boundary(*length));
            lengths.find(|length| before_cut.ends_with(&value[..*length]))
        };
        match redacted.iter().filter_map(|value| length_at_end(value)).max() {
            Some(length) => format!("{}{REDACTED}{}", &before_cut[..before_cut.len() - length], text::CUT),
            None => hidden,
        }
    }
}

/// Replaces a redacted value.
const REDACTED: &str = "[redacted]";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_quotes_no_value() {
        let secrets = |value: &str| BTreeMap::from([("name".to_owned(), Secret::from(value))]);
        let values = SecretValues {
            environment: secrets("hunter2"),
            log_options: secrets("t0ken"),
            environment_files: vec![secrets("yes"), secrets("file")],
        };
        let error = values.hide(OpError::Failed(Failure::permanent("x", "bad option t0ken; hunter2, yes: file")));
        let OpError::Failed(failure) = error else { panic!("another kind") };
        assert_eq!(failure.message, "bad option [redacted]; [redacted], yes: [redacted]");
        assert!(!format!("{values:?}").contains("hunter2"));
    }

    #[test]
    fn a_value_is_hidden_in_every_form_that_an_error_can_have() {
        let message_of = |value: &str, answer: String| {
            let environment = BTreeMap::from([("name".to_owned(), Secret::from(value))]);
            let values = SecretValues { environment, ..SecretValues::default() };
            let OpError::Failed(failure) = values.hide(OpError::Failed(Failure::permanent("x", answer))) else {
                panic!()
            };
            failure.message
        };
        let lines = "-----BEGIN\nsecret\r\nline-----\n";
        assert_eq!(message_of(lines, format!("bad: {lines}.")), "bad: [redacted] .");
        assert_eq!(message_of(" padded\t", "bad:  padded\t!".to_owned()), "bad: [redacted] !");
        // An error is cut off within the value, or near its end.
        for before in (3000..4094).step_by(7) {
            for value in ["hunter2-hunter2-hunter3", &"long".repeat(2000)] {
                let message = message_of(value, format!("{}{value}{}", "-".repeat(before), "x".repeat(4096)));
                let rest = message.trim_start_matches('-');
                assert!(!rest.contains("hunt") && !rest.contains("long"), "{before}: {rest}");
            }
        }
    }
}
