//! The API versions used with the daemon, and those advertised to ECS (spec `docker-mapping.md` §9).
//!
//! Owns the choice of versions. The daemon's range is read from `/version` (lowest and highest) instead of being probed version
//! by version. Reads use the newest version that both sides support. Changes use the oldest one, as in the Go agent, since the
//! version determines Docker's defaults (shareable IPC namespaces below 1.40, recursive read-only mounts from 1.44). Invariant:
//! both versions lie within the daemon's range and within this agent's range.

use super::error::DockerError;
use ecs_core::model::text::cut;
use serde_json::Value;
use std::fmt;
use std::sync::{PoisonError, RwLock};

/// A Docker API version, ordered by number: 1.9 < 1.24.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ApiVersion {
    major: u16,
    minor: u16,
}

/// The oldest version that the agent supports.
const LOWEST: ApiVersion = ApiVersion { major: 1, minor: 21 };
/// The newest version that the agent was written for.
const NEWEST: ApiVersion = ApiVersion { major: 1, minor: 44 };
/// The newest version that the client library has types for. It is used only with daemons that refuse `NEWEST`.
const LIMIT: ApiVersion = ApiVersion { major: 1, minor: 53 };
/// The longest engine version that is kept, in bytes. A real one is a single word.
const MAX_SERVER_BYTES: usize = 128;
/// The minor versions that ECS has attributes for.
const ADVERTISED: std::ops::RangeInclusive<u16> = 17..=44;
/// From this version on registries are asked for digests: older daemons may still use v1 registries.
pub(crate) const DISTRIBUTION: ApiVersion = ApiVersion { major: 1, minor: 35 };

impl ApiVersion {
    fn parse(text: &str) -> Option<Self> {
        let (major, minor) = text.split_once('.')?;
        Some(Self { major: major.parse().ok()?, minor: minor.parse().ok()? })
    }
}

impl fmt::Display for ApiVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// The result of the version negotiation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Versions {
    /// The engine's own version, e.g. `20.10.24+dfsg1`.
    pub(crate) server: String,
    /// The API version for reads.
    pub(crate) reads: ApiVersion,
    /// The API version for changes.
    pub(crate) changes: ApiVersion,
    /// The API versions to advertise to ECS, in ascending order.
    pub(crate) supported: Vec<String>,
}

/// The versions in use now. They change when the daemon is replaced, as in an upgrade.
#[derive(Debug, Default)]
pub(crate) struct VersionsInUse(RwLock<Versions>);

impl VersionsInUse {
    /// The result of the last negotiation; the default before the first one.
    pub(crate) fn current(&self) -> Versions {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The version for reads, as in a path: `1.44`.
    pub(crate) fn reads(&self) -> String {
        self.current().reads.to_string()
    }

    /// The version for changes.
    pub(crate) fn changes(&self) -> String {
        self.current().changes.to_string()
    }

    /// The version for a create whose settings were written for `wanted`: that version, or the one for all changes if that is
    /// newer or if `wanted` is not a version. `None`: the daemon does not support it.
    pub(crate) fn create(&self, wanted: &str) -> Option<String> {
        let Versions { reads: newest, changes, .. } = self.current();
        let version = ApiVersion::parse(wanted).map_or(changes, |wanted| wanted.max(changes));
        (version <= newest).then(|| version.to_string())
    }

    /// Replaces the versions, and logs new ones.
    pub(crate) fn set(&self, versions: Versions) {
        let mut current = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if *current != versions {
            let Versions { server, reads, changes, .. } = &versions;
            tracing::info!(
                server,
                "Docker answers; the agent reads with version {reads} of its API and makes changes with version {changes}"
            );
            *current = versions;
        }
    }
}

/// Chooses the versions from the answer to `GET /version`.
pub(crate) fn negotiate(answer: &Value) -> Result<Versions, DockerError> {
    let text = |name: &str| answer.get(name).and_then(Value::as_str);
    let highest = text("ApiVersion")
        .and_then(ApiVersion::parse)
        .ok_or_else(|| DockerError::NoVersion("the Docker daemon does not report its API version".to_owned()))?;
    // Daemons before 1.25 do not report their lowest version.
    let lowest = text("MinAPIVersion").and_then(ApiVersion::parse).unwrap_or(ApiVersion { major: 1, minor: 12 });
    let (reads, changes) = (highest.min(NEWEST).max(lowest), LOWEST.max(lowest));
    if highest < LOWEST || reads > LIMIT {
        return Err(DockerError::NoVersion(format!(
            "the Docker daemon supports API versions {lowest} to {highest}, this agent {LOWEST} to {LIMIT}"
        )));
    }
    // A daemon whose lowest version is 1.24 or newer still has the features of all older versions.
    let extends = lowest >= ApiVersion { major: 1, minor: 24 };
    let supported = ADVERTISED
        .map(|minor| ApiVersion { major: 1, minor })
        .filter(|version| *version <= highest && (extends || *version >= lowest))
        .map(|version| version.to_string())
        .collect();
    Ok(Versions { server: cut(text("Version").unwrap_or_default(), MAX_SERVER_BYTES), reads, changes, supported })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn reads_use_the_newest_and_changes_the_oldest_version() {
        let table = [
            ("1.12", "1.41", ("1.41", "1.21"), "1.17", "1.41", 25),
            ("1.24", "1.44", ("1.44", "1.24"), "1.17", "1.44", 28),
            ("1.24", "1.47", ("1.44", "1.24"), "1.17", "1.44", 28),
            ("1.44", "1.52", ("1.44", "1.44"), "1.17", "1.44", 28),
            ("1.48", "1.53", ("1.48", "1.48"), "1.17", "1.44", 28),
            ("1.20", "1.22", ("1.22", "1.21"), "1.20", "1.22", 3),
        ];
        for (min, max, (reads, changes), first, last, count) in table {
            let found = negotiate(&json!({"Version": "v", "ApiVersion": max, "MinAPIVersion": min})).unwrap();
            assert_eq!(
                (found.reads.to_string(), found.changes.to_string()),
                (reads.into(), changes.into()),
                "{min} {max}"
            );
            assert_eq!(found.supported.first().map(String::as_str), Some(first));
            assert_eq!(found.supported.last().map(String::as_str), Some(last));
            assert_eq!(found.supported.len(), count);
        }
        assert_eq!(negotiate(&json!({"ApiVersion": "1.24"})).unwrap().reads.to_string(), "1.24");
    }

    #[test]
    fn a_create_uses_the_version_that_its_settings_were_written_for() {
        let versions = VersionsInUse::default();
        versions.set(negotiate(&json!({"ApiVersion": "1.41", "MinAPIVersion": "1.24"})).unwrap());
        let table = [
            ("", Some("1.24")),
            ("1.19", Some("1.24")),
            ("latest", Some("1.24")),
            ("1.30", Some("1.30")),
            ("1.41", Some("1.41")),
            ("1.42", None),
        ];
        for (wanted, version) in table {
            assert_eq!(versions.create(wanted).as_deref(), version, "{wanted}");
        }
    }

    #[test]
    fn no_common_version_is_an_error() {
        for answer in [
            json!({}),
            json!({"ApiVersion": "x"}),
            json!({"ApiVersion": "1.20"}),
            json!(null),
            json!({"ApiVersion": "1.60", "MinAPIVersion": "1.54"}),
        ] {
            assert!(matches!(negotiate(&answer), Err(DockerError::NoVersion(_))), "{answer}");
        }
    }
}
