//! Statuses of tasks and containers. Ordered: the protocol compares them ("has progressed to"), and so do we.
//!
//! Source: spec `task-engine.md` §1.

use serde::{Deserialize, Serialize};
use std::fmt;

/// How far a container has come. A status includes all below it, except that `Stopped` can be reached from anywhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ContainerStatus {
    /// Nothing done yet.
    #[default]
    None,
    /// The digest of the image is known (or was not needed).
    ManifestPulled,
    /// The image is there, or creating the container will tell that it is not.
    Pulled,
    /// The container exists and was not started.
    Created,
    /// The container runs.
    Running,
    /// The container will not run again.
    Stopped,
}

/// How far a task has come: derived from its containers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum TaskStatus {
    /// Nothing done yet.
    #[default]
    None,
    /// Every container knows its digest.
    ManifestPulled,
    /// Every container exists.
    Created,
    /// Every container runs or has run.
    Running,
    /// Every container is stopped.
    Stopped,
}

impl ContainerStatus {
    /// The word ECS knows this status by: `PENDING`, `RUNNING` or `STOPPED`.
    pub fn backend(self) -> &'static str {
        match self {
            Self::Running => "RUNNING",
            Self::Stopped => "STOPPED",
            Self::None | Self::ManifestPulled | Self::Pulled | Self::Created => "PENDING",
        }
    }
}

impl TaskStatus {
    /// The word ECS knows this status by: `PENDING`, `RUNNING` or `STOPPED`.
    pub fn backend(self) -> &'static str {
        match self {
            Self::Running => "RUNNING",
            Self::Stopped => "STOPPED",
            Self::None | Self::ManifestPulled | Self::Created => "PENDING",
        }
    }
}

impl fmt::Display for ContainerStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "NONE",
            Self::ManifestPulled => "MANIFEST_PULLED",
            Self::Pulled => "PULLED",
            Self::Created => "CREATED",
            Self::Running => "RUNNING",
            Self::Stopped => "STOPPED",
        })
    }
}

impl fmt::Display for TaskStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "NONE",
            Self::ManifestPulled => "MANIFEST_PULLED",
            Self::Created => "CREATED",
            Self::Running => "RUNNING",
            Self::Stopped => "STOPPED",
        })
    }
}
