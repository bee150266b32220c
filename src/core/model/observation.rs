//! Observations of containers. Docker's event names and JSON do not appear here: `docker::observe` translates them.

use super::port::PortBinding;
use super::{ContainerName, CredentialsId, EndpointId, OwnerId, RuntimeId, TaskArn, TextMap};
use serde::{Deserialize, Serialize};
use std::fmt;

/// A container as Docker showed it at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observation {
    /// The task that the container was created for, from its label.
    pub task: TaskArn,
    /// The container's name in that task, from its label.
    pub container: ContainerName,
    /// The agent that created the container, from its label; `None` if it has no such label.
    #[serde(default)]
    pub owner: Option<OwnerId>,
    /// The name in Docker.
    pub runtime_name: String,
    /// Docker's id of the container.
    pub runtime_id: RuntimeId,
    /// The state of the container's process.
    pub state: RunState,
    /// The id of the container's first process; `None` unless the container runs and Docker has named it.
    #[serde(default)]
    pub pid: Option<u32>,
    /// Exit code; `None` unless the container has run and stopped.
    pub exit_code: Option<i32>,
    /// Docker's error for the container, or the failure that it ran out of memory; `None` if there is neither.
    pub error: Option<super::Failure>,
    /// The result of Docker's health check.
    pub health: Health,
    /// What the last failed health check printed, cleaned and cut; empty if the container is not unhealthy, or if the check
    /// printed nothing.
    #[serde(default)]
    pub health_output: String,
    /// The last health check; the default unless the container is healthy or unhealthy.
    #[serde(default)]
    pub last_check: LastCheck,
    /// RFC 3339 time of the creation, as Docker prints it; `None` if it is not known.
    pub created_at: Option<String>,
    /// RFC 3339 time of the last start, as Docker prints it; `None` if the container never started, or the time is not known.
    pub started_at: Option<String>,
    /// RFC 3339 time of the last end, as Docker prints it; `None` if the container never ended, or the time is not known.
    #[serde(default)]
    pub finished_at: Option<String>,
    /// Published ports.
    pub bindings: Vec<PortBinding>,
    /// Mounts, for the introspection endpoint.
    pub mounts: Vec<Mount>,
    /// The container's address in Docker's default network; `None` unless it runs there.
    #[serde(default)]
    pub address: Option<String>,
    /// Labels, without those that this agent uses for itself; empty if they are not known.
    #[serde(default)]
    pub labels: TextMap,
    /// The networks that the container is connected to, by name; empty if they are not known.
    #[serde(default)]
    pub networks: Vec<Network>,
    /// Id of the container's image (`sha256:…`).
    pub image_id: String,
    /// Digest of that image in the registry that its name refers to; `None` if this host does not know it. It is looked up only
    /// when the container is created.
    #[serde(default)]
    pub image_digest: Option<String>,
    /// The ids by which the container asks the task metadata endpoint.
    #[serde(default)]
    pub ids: GivenIds,
    /// The outline of the container's task ([`TaskSpec::outline`](super::TaskSpec::outline)), from the label of a container that
    /// this agent created. `None` outside an inventory.
    pub outline: Option<Box<super::TaskSpec>>,
}

/// The ids of the task metadata endpoint that a container was created with, from its environment and its log options.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GivenIds {
    /// The container's own id; `None`: it has none.
    pub endpoint: Option<EndpointId>,
    /// The id of the task role's credentials; `None`: the task has no such role.
    pub role: Option<CredentialsId>,
    /// The id of the task execution role's credentials; `None`: the container's log driver does not use that role.
    pub execution_role: Option<CredentialsId>,
}

/// The three states of a container that matter to the core.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum RunState {
    /// The container exists and was never started.
    Created,
    /// The container runs, or is paused or restarting.
    Running,
    /// The container has run, or failed to start, and does not run now.
    Exited,
}

impl fmt::Display for RunState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Exited => "exited",
        })
    }
}

/// The result of a container's health check.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Health {
    /// There is no health check, or no result yet.
    #[default]
    Unknown,
    /// The last check passed.
    Healthy,
    /// The check has failed as many times in a row as its `retries` say.
    Unhealthy,
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => "UNKNOWN",
            Self::Healthy => "HEALTHY",
            Self::Unhealthy => "UNHEALTHY",
        })
    }
}

/// The last run of a container's health check.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastCheck {
    /// Exit code of an unhealthy container's check; 0 for a healthy container.
    pub exit_code: i32,
    /// The beginning of what the check printed, as the container printed it. It is for the container's own task, not for logs.
    pub output: String,
}

/// A container's connection to a Docker network.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Network {
    /// Name of the network, such as `bridge` or `host`. For a container that shares another one's network: `container:<id>`.
    pub name: String,
    /// IPv4 address; empty if the container has none of its own there.
    pub ipv4: String,
    /// Global IPv6 address; empty if there is none.
    #[serde(default)]
    pub ipv6: String,
}

/// One mount of a container, as the introspection endpoint shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Name of the Docker volume; empty for a bind mount.
    pub volume: String,
    /// Path on the host.
    pub source: String,
    /// Path in the container.
    pub destination: String,
}
