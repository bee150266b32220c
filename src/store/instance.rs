//! The copy of the instance's registration in a file beside the state file.
//!
//! Owns this file. With it, an agent that has lost its state renews its registration, and rebuilds its tasks as the same
//! container instance. Without it, the agent would register a second container instance, and report tasks of the first one.
//! Invariant: the form of the file does not change with the schema of the state. Members may be added, but never renamed,
//! removed or changed in their meaning, so that any older or newer version of the agent can read the members that it needs.

use super::identity::Identity;
use super::side_file;
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::time::{Duration, Instant};

/// The file's name in the data directory.
const FILE: &str = "ecs-agent.instance";
/// Minimum time between two writes only because of a higher sequence number. If the number in the file is too low, the only
/// effect is that an old manifest is handled again, and ECS is asked before any task is stopped.
const MIN_PAUSE: Duration = Duration::from_secs(60);

/// The content of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Registration {
    /// The registration itself.
    #[serde(flatten)]
    pub(super) identity: Identity,
    /// Highest sequence number seen in payloads and manifests; 0 if none was seen. Numbers of the last minute may be missing.
    #[serde(default)]
    pub(super) manifest_number: i64,
}

/// Writes the file.
#[derive(Debug, Default)]
pub(super) struct Copy {
    /// The content that was last written and the time of that; `None` if the file was not written yet, or was removed.
    written: Option<(Registration, Instant)>,
}

impl Copy {
    /// Updates the file. `identity` is `None` if the instance is not registered: then the file is removed.
    pub(super) fn update(&mut self, directory: &Path, identity: Option<&Identity>, manifest_number: i64) {
        let Some(identity) = identity else {
            self.written = None;
            if let Err(error) = side_file::remove(directory, FILE) {
                tracing::warn!(%error, "the registration of another instance cannot be removed from ECS_DATADIR");
            }
            return;
        };
        let registration = Registration { identity: identity.clone(), manifest_number };
        let consequence = "if the state file is lost as well, the instance is registered anew";
        side_file::write(directory, FILE, &registration, consequence);
        self.written = Some((registration, Instant::now()));
    }

    /// Updates the file if its sequence number is lower than this one, but at most once a minute.
    pub(super) fn update_number(&mut self, directory: &Path, manifest_number: i64) {
        let Some((registration, at)) = &self.written else { return };
        if registration.manifest_number < manifest_number && at.elapsed() >= MIN_PAUSE {
            let identity = registration.identity.clone();
            self.update(directory, Some(&identity), manifest_number);
        }
    }
}

/// The registration in the file in `directory`; `None` if it has none that can be read, or an incomplete one.
pub(super) fn read(directory: &Path) -> Option<Registration> {
    let found: Registration = side_file::read(directory, FILE)?;
    let is_complete = !found.identity.cluster.is_empty() && !found.identity.container_instance_arn.is_empty();
    is_complete.then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Earlier versions wrote such texts, or later ones may write them. Every version must be able to read them.
    #[test]
    fn every_form_of_the_registration_is_read() {
        let whole = r#"{"cluster":"c","container_instance_arn":"arn:i","ec2_instance_id":"i-1","availability_zone":"eu-1a",
            "agent_version":"0.1.0","manifest_number":42}"#;
        let registration: Registration = serde_json::from_str(whole).unwrap();
        assert_eq!((registration.identity.ec2_instance_id.as_str(), registration.manifest_number), ("i-1", 42));
        let first = r#"{"cluster":"c","container_instance_arn":"arn:i"}"#;
        let later = r#"{"cluster":"c","container_instance_arn":"arn:i","a_member_of_later":{"x":[1]}}"#;
        for text in [first, later] {
            let registration: Registration = serde_json::from_str(text).unwrap();
            assert_eq!(registration.identity.container_instance_arn, "arn:i");
            assert_eq!(registration.manifest_number, 0);
        }
        // If a field is renamed, all other versions lack its member.
        let written = serde_json::to_value(serde_json::from_str::<Registration>(whole).unwrap()).unwrap();
        assert_eq!(written, serde_json::from_str::<serde_json::Value>(whole).unwrap());
    }
}
