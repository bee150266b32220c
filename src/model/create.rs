//! Everything the container engine needs to create one container.

use super::{ContainerSpec, Failure, OpError, Secret, TaskArn, TaskSpec};
use std::collections::BTreeMap;

/// A container to create, with the names that were decided before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CreateRequest {
    /// The task it belongs to.
    pub task: TaskArn,
    /// Task definition family.
    pub family: String,
    /// Task definition revision.
    pub version: String,
    /// The name to create it under.
    pub runtime_name: String,
    /// What it is.
    pub spec: ContainerSpec,
    /// Links: name the target was created under, and the alias it is to be reachable by.
    pub links: Vec<(String, String)>,
    /// The containers whose volumes it mounts: name the other was created under, and whether read-only.
    pub volumes_from: Vec<(String, bool)>,
    /// Name of the task's pause container, if it has one.
    pub pause: Option<String>,
    /// It runs below the task's control group.
    pub in_task_cgroup: bool,
    /// Address of the task's log router, once it is known.
    pub router_address: Option<String>,
    /// Where its Kerberos ticket is on the host, if it has a credential spec.
    pub ticket: Option<String>,
    /// Names of the task's resources that it needs; they are there.
    pub resources: Vec<String>,
    /// What the container shall tell of its task if the agent's state is lost.
    pub outline: TaskSpec,
}

/// What a container is created with and what no state holds: looked up right before the create, and forgotten after it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Values {
    /// Variables that are secrets.
    pub environment: BTreeMap<String, Secret>,
    /// Options of the log driver that are secrets.
    pub log_options: BTreeMap<String, Secret>,
    /// Environment files, in the order of the task definition.
    pub environment_files: Vec<BTreeMap<String, Secret>>,
}

impl Values {
    /// A shorter text may be part of any word, and hides nothing worth hiding.
    const SHORTEST: usize = 4;

    /// An error of the engine may quote what it was given.
    pub fn hide(&self, error: OpError) -> OpError {
        let clean = |failure: Failure| Failure { message: self.hide_in(failure.message), ..failure };
        match error {
            OpError::Failed(failure) => OpError::Failed(clean(failure)),
            OpError::Unknown(failure) => OpError::Unknown(clean(failure)),
        }
    }

    fn hide_in(&self, text: String) -> String {
        let files = self.environment_files.iter().flat_map(BTreeMap::values);
        let values = self.environment.values().chain(self.log_options.values()).chain(files);
        let long = values.filter(|value| value.expose().len() >= Self::SHORTEST);
        long.fold(text, |text, value| text.replace(value.expose(), "[redacted]"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_quotes_no_value() {
        let of = |value: &str| BTreeMap::from([("name".to_owned(), Secret::from(value))]);
        let values = Values {
            environment: of("hunter2"),
            log_options: of("t0ken"),
            environment_files: vec![of("yes"), of("file")],
        };
        let error = values.hide(OpError::Failed(Failure::permanent("x", "bad option t0ken; hunter2, yes: file")));
        let OpError::Failed(failure) = error else { panic!("another kind") };
        assert_eq!(failure.message, "bad option [redacted]; [redacted], yes: [redacted]");
        assert!(!format!("{values:?}").contains("hunter2"));
    }
}
