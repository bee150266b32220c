//! The registration of this instance in a file of its own, beside the state file.
//!
//! Owns that file. With it, an agent that lost its state renews its registration and rebuilds its tasks as the same container instance;
//! without it, ECS would get a second one, and tasks of the first would be reported by a stranger. Invariant: the form of the file does
//! not change with the schema of the state. Members are added and never renamed, removed or given another meaning, so that every version
//! of the agent, older or newer, reads what it needs.

use super::beside;
use super::identity::Identity;
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::time::{Duration, Instant};

/// The file's name in the data directory.
const FILE: &str = "ecs-agent.instance";
/// The manifest number alone is not worth a write each time it grows: a number that is a little too small only means that an old manifest
/// is looked at once more, and ECS is asked before anything is stopped.
const MIN_PAUSE: Duration = Duration::from_secs(60);

/// The content of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Registration {
    /// The registration.
    #[serde(flatten)]
    pub(super) identity: Identity,
    /// Highest sequence number seen in payloads and manifests; 0 if none was seen. The number of the last minute may be missing.
    #[serde(default)]
    pub(super) manifest_number: i64,
}

/// The file as it was written last.
#[derive(Debug, Default)]
pub(super) struct Copy {
    written: Option<(Registration, Instant)>,
}

impl Copy {
    /// Brings the file up to date; removes it if the instance is not registered.
    pub(super) fn update(&mut self, directory: &Path, identity: Option<&Identity>, manifest_number: i64) {
        let Some(identity) = identity else {
            self.written = None;
            if let Err(error) = beside::remove(directory, FILE) {
                tracing::warn!(%error, "the registration of another instance cannot be removed from ECS_DATADIR");
            }
            return;
        };
        let registration = Registration { identity: identity.clone(), manifest_number };
        let consequence = "if the state file is lost as well, the instance is registered anew";
        beside::write(directory, FILE, &registration, consequence);
        self.written = Some((registration, Instant::now()));
    }

    /// The manifest number has grown: brings the file up to date, once a minute.
    pub(super) fn number_grew(&mut self, directory: &Path, manifest_number: i64) {
        let Some((registration, at)) = &self.written else { return };
        if registration.manifest_number < manifest_number && at.elapsed() >= MIN_PAUSE {
            let identity = registration.identity.clone();
            self.update(directory, Some(&identity), manifest_number);
        }
    }
}

/// The registration that the file in that directory holds; `None` if there is none that can be read.
pub(super) fn read(directory: &Path) -> Option<Registration> {
    let found: Registration = beside::read(directory, FILE)?;
    let is_whole = !found.identity.cluster.is_empty() && !found.identity.container_instance_arn.is_empty();
    is_whole.then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// These texts were written by earlier versions, or may be written by later ones. They must be read for ever.
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
        // The names of the members are the form: a renamed field would be missing to every other version.
        let written = serde_json::to_value(serde_json::from_str::<Registration>(whole).unwrap()).unwrap();
        assert_eq!(written, serde_json::from_str::<serde_json::Value>(whole).unwrap());
    }
}
