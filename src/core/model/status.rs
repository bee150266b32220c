//! Statuses of tasks and containers, in the order of their progress. ECS and the core both compare statuses by this order.
//!
//! Source: spec `task-engine.md` §1.

use serde::{Deserialize, Serialize};
use std::fmt;

/// The status of a container. A status includes all earlier ones, except that `Stopped` can follow any status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ContainerStatus {
    /// Nothing has been done yet.
    #[default]
    None,
    /// The digest of the image is resolved, or is not needed.
    ManifestPulled,
    /// The image is on this host. After a failed pull it may be missing; the create then fails.
    Pulled,
    /// The container exists and has not been started.
    Created,
    /// The container runs.
    Running,
    /// The container will not run again.
    Stopped,
}

/// The status of a task, derived from its containers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum TaskStatus {
    /// Nothing has been done yet.
    #[default]
    None,
    /// Every container is at least `ManifestPulled`.
    ManifestPulled,
    /// Every container exists.
    Created,
    /// Every container runs or has run.
    Running,
    /// Every container is stopped.
    Stopped,
}

impl ContainerStatus {
    /// The name of this status in the ECS API: `PENDING`, `RUNNING` or `STOPPED`.
    pub fn backend(self) -> &'static str {
        match self {
            Self::Running => "RUNNING",
            Self::Stopped => "STOPPED",
            Self::None | Self::ManifestPulled | Self::Pulled | Self::Created => "PENDING",
        }
    }

    /// The name of this status.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "NONE",
            Self::ManifestPulled => "MANIFEST_PULLED",
            Self::Pulled => "PULLED",
            Self::Created => "CREATED",
            Self::Running => "RUNNING",
            Self::Stopped => "STOPPED",
        }
    }
}

impl TaskStatus {
    /// The name of this status in the ECS API: `PENDING`, `RUNNING` or `STOPPED`.
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
        f.write_str(self.name())
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
