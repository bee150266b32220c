//! What the container engine was seen to do. Our own type: Docker's event names and JSON stay in `docker::observe`.

use super::port::PortBinding;
use super::{ContainerName, OwnerId, RuntimeId, TaskArn};
use serde::{Deserialize, Serialize};

/// A container as seen at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observation {
    /// The task it was created for, from its label.
    pub task: TaskArn,
    /// Its name in that task, from its label.
    pub container: ContainerName,
    /// The agent that made it, from its label; `None` if it has no such label.
    #[serde(default)]
    pub owner: Option<OwnerId>,
    /// The name it was created under.
    pub runtime_name: String,
    /// The engine's id.
    pub runtime_id: RuntimeId,
    /// What it does.
    pub state: RunState,
    /// Exit code; only of a container that has run and stopped.
    pub exit_code: Option<i32>,
    /// The engine's own error, or the out-of-memory mark, as `(name, message)` of the catalogue.
    pub error: Option<super::Failure>,
    /// Health as the engine's health check sees it.
    pub health: Health,
    /// RFC 3339 time of creation, as the engine prints it.
    pub created_at: Option<String>,
    /// RFC 3339 time of the start, as the engine prints it.
    pub started_at: Option<String>,
    /// Published ports.
    pub bindings: Vec<PortBinding>,
    /// Mounts, for the introspection endpoint.
    pub mounts: Vec<Mount>,
    /// Its address in the engine's default network, while it runs there.
    #[serde(default)]
    pub address: Option<String>,
    /// Id of the image it runs (`sha256:…`).
    pub image_id: String,
    /// Digest of that image in the registry of its name, as far as this host knows; looked for only when the container is created.
    #[serde(default)]
    pub image_digest: Option<String>,
    /// What it tells of its task ([`TaskSpec::outline`](super::TaskSpec::outline)), if this agent made it. In an inventory only.
    pub outline: Option<Box<super::TaskSpec>>,
}

/// The three states of a container that matter to the planner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum RunState {
    /// Exists, was never started.
    Created,
    /// Runs (or is paused or restarting: the process is there).
    Running,
    /// Has run, or failed to start, and does not run now.
    Exited,
}

/// Outcome of the container's health check.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Health {
    /// No check, or no result yet.
    #[default]
    Unknown,
    /// The last check passed.
    Healthy,
    /// The check failed often enough.
    Unhealthy,
}

/// One mount of a container, as the introspection endpoint shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Name of the engine's volume; empty for a bind mount.
    pub volume: String,
    /// Path on the host.
    pub source: String,
    /// Path in the container.
    pub destination: String,
}
