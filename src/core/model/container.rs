//! The specification of one container of a task. It does not change after it has arrived.
//!
//! Most containers use few of the fields, so fields with their default value are not written to disk.

use super::port::{PortMapping, PortRange};
use super::registry::RegistryAuth;
use super::resource::{LogRouting, SecretUse};
use super::{ContainerName, EndpointId, Span, TextMap, is_default};
use serde::{Deserialize, Serialize};
use std::fmt;

/// The specification of one container of a task.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerSpec {
    /// Name of the container, unique in the task.
    pub name: ContainerName,
    /// ARN of the container; empty if ECS named none, and for a container of the agent.
    #[serde(default, skip_serializing_if = "is_default")]
    pub arn: String,
    /// Whether the container is the customer's or the agent's.
    #[serde(default, skip_serializing_if = "is_default")]
    pub kind: ContainerKind,
    /// Image reference from the task definition.
    pub image: String,
    /// The task stops when this container stops.
    pub essential: bool,
    /// Command that replaces the image's; `None`: the image's.
    #[serde(default, skip_serializing_if = "is_default")]
    pub command: Option<Vec<String>>,
    /// Entry point that replaces the image's; `None`: the image's.
    #[serde(default, skip_serializing_if = "is_default")]
    pub entry_point: Option<Vec<String>>,
    /// Plain environment variables. They may hold what the customer considers secret and are never logged.
    #[serde(default, skip_serializing_if = "is_default")]
    pub environment: Environment,
    /// CPU units (1024 = one vCPU).
    #[serde(default, skip_serializing_if = "is_default")]
    pub cpu: u32,
    /// Hard memory limit in MiB; 0: none.
    #[serde(default, skip_serializing_if = "is_default")]
    pub memory: u32,
    /// Soft memory limit in MiB from the Docker settings; 0: none. If there is one, admission counts it instead of `memory`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub memory_reservation: u32,
    /// Docker links to other containers.
    #[serde(default, skip_serializing_if = "is_default")]
    pub links: Vec<Link>,
    /// Ports to publish.
    #[serde(default, skip_serializing_if = "is_default")]
    pub ports: Vec<PortMapping>,
    /// Ranges of ports to publish, each on as many consecutive free host ports.
    #[serde(default, skip_serializing_if = "is_default")]
    pub port_ranges: Vec<PortRange>,
    /// The process namespace that the container lives in.
    #[serde(default, skip_serializing_if = "is_default")]
    pub pid: Namespace,
    /// The namespace for shared memory, semaphores and message queues that the container lives in.
    #[serde(default, skip_serializing_if = "is_default")]
    pub ipc: Namespace,
    /// Ids of the GPUs that the container uses alone.
    #[serde(default, skip_serializing_if = "is_default")]
    pub gpus: Vec<String>,
    /// The Docker runtime that the container needs.
    #[serde(default, skip_serializing_if = "is_default")]
    pub runtime: Runtime,
    /// Host directories and volumes to mount.
    #[serde(default, skip_serializing_if = "is_default")]
    pub mounts: Vec<Mount>,
    /// Containers whose volumes are also mounted in this one.
    #[serde(default, skip_serializing_if = "is_default")]
    pub volumes_from: Vec<VolumesFrom>,
    /// Secrets of the container. Their values are fetched only for its creation.
    #[serde(default, skip_serializing_if = "is_default")]
    pub secrets: Vec<SecretUse>,
    /// The credential spec of the container's Kerberos ticket, as the payload names it; `None`: no ticket.
    #[serde(default, skip_serializing_if = "is_default")]
    pub credential_spec: Option<String>,
    /// How the container sends its log to the task's log router; `None` if it does not.
    #[serde(default, skip_serializing_if = "is_default")]
    pub log_routing: Option<LogRouting>,
    /// The log driver as the task definition names it, for the task's metadata. The Docker edge reads `engine_settings`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub log: LogSettings,
    /// The log driver uses the task execution role (`logsAuthStrategy`).
    #[serde(default, skip_serializing_if = "is_default")]
    pub logs_with_execution_role: bool,
    /// Where the container finds its metadata file; `None` if it has none.
    #[serde(default, skip_serializing_if = "is_default")]
    pub metadata_file: Option<MetadataMount>,
    /// Containers that this one waits for. They include links, as `Start`, and `volumes_from`, as `Create`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub depends_on: Vec<Dependency>,
    /// How long containers that depend on this one wait for it to meet their condition; `None`: for ever.
    #[serde(default, skip_serializing_if = "is_default")]
    pub start_timeout: Option<Span>,
    /// Time between SIGTERM and SIGKILL; `None`: `ECS_CONTAINER_STOP_TIMEOUT`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub stop_timeout: Option<Span>,
    /// When the container is started again after it ended by itself; `None`: never.
    #[serde(default, skip_serializing_if = "is_default")]
    pub restart: Option<RestartPolicy>,
    /// The container has a health check whose result counts (`healthCheckType: docker`).
    #[serde(default, skip_serializing_if = "is_default")]
    pub health_check: bool,
    /// Where the credentials for the pull come from.
    #[serde(default, skip_serializing_if = "is_default")]
    pub registry_auth: RegistryAuth,
    /// Raw Docker settings, which override the fields above. Only the Docker edge reads them.
    #[serde(default, skip_serializing_if = "is_default")]
    pub engine_settings: EngineSettings,
    /// Random id in the URLs of the container's task metadata endpoint, drawn when the payload arrived and kept across restarts
    /// of the agent.
    pub endpoint_id: EndpointId,
}

/// The owner of a container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ContainerKind {
    /// A container of the customer.
    #[default]
    Normal,
    /// A container of the agent that does nothing: the others share its namespaces. Its image is never pulled, and it is never
    /// reported.
    Pause,
}

/// A log driver and its options, without secret ones.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogSettings {
    /// Name of the driver; empty: Docker's default.
    #[serde(default, skip_serializing_if = "is_default")]
    pub driver: String,
    /// Options of the driver.
    #[serde(default, skip_serializing_if = "is_default")]
    pub options: TextMap,
}

/// Name of a container's metadata file in its directory.
pub const METADATA_FILE: &str = "ecs-container-metadata.json";

/// The directory of a container's metadata file (spec `container-metadata-file.md`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetadataMount {
    /// Absolute path on the host.
    pub source: String,
    /// Absolute path in the container.
    pub target: String,
}

/// The process or IPC namespace that a container lives in (spec `docker-mapping.md` §4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Namespace {
    /// Docker's default: a namespace of its own.
    #[default]
    Own,
    /// The namespace of the host.
    Host,
    /// Docker's IPC mode `none`: a namespace of its own, without `/dev/shm`.
    None,
    /// The namespace of the task's pause container.
    Pause,
    /// A namespace of its own that other containers may join.
    Shareable,
}

/// Docker runtimes that a container may need (spec `docker-mapping.md` §4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Runtime {
    /// Docker's default runtime.
    #[default]
    Default,
    /// The runtime for NVIDIA GPUs (`ECS_NVIDIA_RUNTIME`).
    Nvidia,
    /// The runtime for AWS Inferentia and Trainium.
    Neuron,
}

/// Name of the pause container of a task whose containers share namespaces (spec `docker-mapping.md` §11).
pub const PAUSE_NAME: &str = "~internal~ecs~pause~namespace";

/// Name of the pause container of a task with interfaces of its own. Its containers share its namespaces too, if the task
/// definition asks for that: the Go agent makes a second pause container for them.
pub const NETWORK_PAUSE_NAME: &str = "~internal~ecs~pause";

/// The image of pause containers. It is not pulled: the Docker edge loads it.
pub const PAUSE_IMAGE: &str = "amazon/amazon-ecs-pause:0.1.0";

/// Environment variables. `Debug` shows the names only.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Environment(pub std::collections::BTreeMap<String, String>);

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// A Docker link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// The container that is linked to.
    pub container: ContainerName,
    /// The name under which that container is reachable.
    pub alias: String,
}

/// A host directory or volume mounted into a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Name of the volume in the task definition; empty for a mount that the agent adds.
    #[serde(default)]
    pub volume: String,
    /// Absolute path on the host, or name of a Docker volume.
    #[serde(alias = "host_path")]
    pub source: String,
    /// Path in the container.
    pub container_path: String,
    /// The mount is read-only.
    pub read_only: bool,
}

/// `volumesFrom`: the volumes of another container of the task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumesFrom {
    /// The other container.
    pub container: ContainerName,
    /// The mount is read-only.
    pub read_only: bool,
}

/// When a container that ended by itself is started again (spec `task-engine.md` §8).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestartPolicy {
    /// Exit codes after which the container is not started again.
    pub ignored_exit_codes: Vec<i32>,
    /// The container is started again only if at least this much time has passed since its last start.
    pub attempt_period: Span,
}

/// One entry of `dependsOn`: a condition on another container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dependency {
    /// The container that this one depends on.
    pub container: ContainerName,
    /// The condition that container must meet.
    pub condition: Condition,
}

/// Conditions of `dependsOn`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Condition {
    /// The container exists.
    Create,
    /// The container was started.
    Start,
    /// The container ran and ended, with any exit code.
    Complete,
    /// The container ran and ended with exit code 0.
    Success,
    /// The container's health check passed.
    Healthy,
}

impl fmt::Display for Condition {
    /// The name in `dependsOn`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Create => "CREATE",
            Self::Start => "START",
            Self::Complete => "COMPLETE",
            Self::Success => "SUCCESS",
            Self::Healthy => "HEALTHY",
        })
    }
}

/// Raw Docker settings: two JSON objects that override the create call (spec `docker-mapping.md` §3). `Debug` shows only their
/// sizes, since they may hold tokens of a log driver.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineSettings {
    /// The version of Docker's API that the settings are written for; empty: any.
    #[serde(default)]
    pub api_version: String,
    /// Members of Docker's `Config` (user, working directory, labels, health check …); empty: none.
    #[serde(default)]
    pub config: String,
    /// Members of Docker's `HostConfig`; empty: none.
    #[serde(default)]
    pub host_config: String,
}

impl fmt::Debug for EngineSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EngineSettings({} + {} bytes)", self.config.len(), self.host_config.len())
    }
}

impl ContainerSpec {
    /// See [`TaskSpec::outline`](super::TaskSpec::outline).
    pub fn outline(&self) -> Self {
        Self {
            command: None,
            entry_point: None,
            environment: Environment::default(),
            links: Vec::new(),
            mounts: Vec::new(),
            volumes_from: Vec::new(),
            pid: Namespace::default(),
            ipc: Namespace::default(),
            runtime: Runtime::default(),
            secrets: Vec::new(),
            credential_spec: None,
            log_routing: None,
            log: LogSettings::default(),
            registry_auth: RegistryAuth::default(),
            engine_settings: EngineSettings::default(),
            ..self.clone()
        }
    }
}
