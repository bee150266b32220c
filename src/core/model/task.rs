//! The specification of a task. It does not change after it has arrived; the progress of the task is in [`crate::state`].
//!
//! Most tasks use few of the fields, so fields with their default value are not written to disk.

use super::resource::{LogRouting, ResourceSpec, SecretUse};
use super::{ContainerName, CredentialsId, EndpointId, Span, TaskArn, TextMap, is_default};
use serde::{Deserialize, Serialize};
use std::fmt;

pub use super::port::{PortMapping, PortRange};

/// One task as ECS sent it, reduced to what this agent supports.
///
/// `acs::translate` has refused, with a reason, anything in a payload that has no field here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskSpec {
    /// ARN of the task.
    pub arn: TaskArn,
    /// Task definition family.
    pub family: String,
    /// Task definition revision, as text.
    pub version: String,
    /// Name of the service that owns the task; empty for a standalone task.
    #[serde(default, skip_serializing_if = "is_default")]
    pub service_name: String,
    /// Launch type, such as `EC2` or `EXTERNAL`; empty if ECS named none.
    #[serde(default, skip_serializing_if = "is_default")]
    pub launch_type: String,
    /// The network mode of the task, as ECS named it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub network: NetworkMode,
    /// True: programs in the task may start network faults (`enableFaultInjection`).
    #[serde(default, skip_serializing_if = "is_default")]
    pub fault_injection: bool,
    /// CPU for the task as a whole in millionths of a vCPU; 0: the sum over its containers.
    #[serde(default, skip_serializing_if = "is_default")]
    pub cpu_micros: u64,
    /// Memory for the task as a whole in MiB; 0: the sum over its containers.
    #[serde(default, skip_serializing_if = "is_default")]
    pub memory: u64,
    /// Devices and other things that containers of the task may look up. None in an outline.
    #[serde(default, skip_serializing_if = "is_default")]
    pub associations: Vec<Association>,
    /// The containers, in the order of the task definition; those that the agent adds come last.
    pub containers: Vec<ContainerSpec>,
    /// What the task needs besides containers.
    #[serde(default, skip_serializing_if = "is_default")]
    pub resources: Vec<ResourceSpec>,
    /// Id of the credentials of the task execution role; `None` if the task has no such role.
    #[serde(default, skip_serializing_if = "is_default")]
    pub execution_credentials: Option<CredentialsId>,
    /// Id of the credentials of the task role, which the containers get in their environment; `None` if the task has no such
    /// role.
    #[serde(default, skip_serializing_if = "is_default")]
    pub role_credentials: Option<CredentialsId>,
    /// The task has a task role. Filled only in an outline, which does not contain the id.
    #[serde(default, skip_serializing_if = "is_default")]
    pub has_role: bool,
    /// Ids of the leases of the task's Kerberos tickets, which must be released ([`Tickets::leases`](super::Tickets::leases)).
    /// Filled only in an outline ([`TaskSpec::outline`]); otherwise the core's state holds them.
    #[serde(default, skip_serializing_if = "is_default")]
    pub leases: Vec<String>,
}

/// The part of a task's specification that concerns the task as a whole: everything but its containers and resources.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskInfo {
    /// ARN of the task.
    pub arn: TaskArn,
    /// Task definition family.
    pub family: String,
    /// Task definition revision, as text.
    pub version: String,
    /// Name of the service that owns the task; empty for a standalone task.
    #[serde(default, skip_serializing_if = "is_default")]
    pub service_name: String,
    /// Launch type, such as `EC2` or `EXTERNAL`; empty if ECS named none.
    #[serde(default, skip_serializing_if = "is_default")]
    pub launch_type: String,
    /// The network mode of the task, as ECS named it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub network: NetworkMode,
    /// True: programs in the task may start network faults (`enableFaultInjection`).
    #[serde(default, skip_serializing_if = "is_default")]
    pub fault_injection: bool,
    /// CPU for the task as a whole in millionths of a vCPU; 0: the sum over its containers.
    #[serde(default, skip_serializing_if = "is_default")]
    pub cpu_micros: u64,
    /// Memory for the task as a whole in MiB; 0: the sum over its containers.
    #[serde(default, skip_serializing_if = "is_default")]
    pub memory: u64,
    /// Devices and other things that containers of the task may look up.
    #[serde(default, skip_serializing_if = "is_default")]
    pub associations: Vec<Association>,
    /// The id by which the task's containers request the credentials of the task role; `None` if it has none. It is in their
    /// environment, so it stays the same even if later credentials have another id.
    #[serde(default, skip_serializing_if = "is_default")]
    pub role_id: Option<CredentialsId>,
    /// The same for the task execution role. Only log drivers know this id.
    #[serde(default, skip_serializing_if = "is_default")]
    pub execution_role_id: Option<CredentialsId>,
    /// See [`TaskSpec::has_role`].
    #[serde(default, skip_serializing_if = "is_default")]
    pub has_role: bool,
}

/// A device or another thing that ECS associates with containers of a task.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Association {
    /// Type, such as `gpu` or `elastic-inference`.
    pub kind: String,
    /// Name, unique in the task among those of the same type.
    pub name: String,
    /// The containers that may use it.
    pub containers: Vec<ContainerName>,
    /// What a container learns about it: a text of ECS, which should be JSON.
    #[serde(default, skip_serializing_if = "is_default")]
    pub content: String,
}

/// `Debug` leaves out the content.
impl fmt::Debug for Association {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, name, containers, content: _ } = self;
        f.debug_struct("Association").field("kind", kind).field("name", name).field("containers", containers).finish()
    }
}

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

/// The network that the containers of a task are in (`networkMode`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum NetworkMode {
    /// Docker's default: each container has a network namespace of its own, on a bridge.
    #[default]
    Bridge,
    /// The network namespace of the host.
    Host,
    /// Network namespaces without an outside.
    None,
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

/// The image of pause containers. It is not pulled: the Docker edge loads it.
pub const PAUSE_IMAGE: &str = "amazon/amazon-ecs-pause:0.1.0";

/// Environment variables. `Debug` shows the names only.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Environment(pub std::collections::BTreeMap<String, String>);

impl std::fmt::Debug for Environment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
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

/// Where the credentials for pulling an image come from (payload `registryAuthentication`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum RegistryAuth {
    /// The operator's `ECS_ENGINE_AUTH_DATA`, or none.
    #[default]
    Engine,
    /// A token of Amazon ECR.
    Ecr(EcrAuth),
    /// A user and a password in a secret of Secrets Manager.
    Secret(SecretAuth),
}

/// The secret with the credentials (`asmAuthData`). It is read with the task execution role.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SecretAuth {
    /// ARN or name of the secret.
    pub secret: String,
    /// Region of the secret; empty: the region of the instance.
    #[serde(default)]
    pub region: String,
}

/// An ECR registry, and the role for it.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct EcrAuth {
    /// Account id of the registry.
    pub registry_id: String,
    /// Region of the registry.
    pub region: String,
    /// Endpoint of ECR that replaces the regional one; empty: the regional one.
    #[serde(default)]
    pub endpoint_override: String,
    /// The token is requested with the task execution role instead of the instance role.
    #[serde(default)]
    pub use_execution_role: bool,
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

impl std::fmt::Debug for EngineSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "EngineSettings({} + {} bytes)", self.config.len(), self.host_config.len())
    }
}

impl TaskSpec {
    /// The container with this name.
    pub fn container(&self, name: &ContainerName) -> Option<&ContainerSpec> {
        self.containers.iter().find(|container| &container.name == name)
    }

    /// The pause container, whose namespaces the others share; `None` if the task has none.
    pub fn pause(&self) -> Option<&ContainerSpec> {
        self.containers.iter().find(|container| container.kind == ContainerKind::Pause)
    }

    /// The outline of the task: the part of the specification that the agent needs to manage containers that exist already. It
    /// leaves out everything that only a creation needs, since commands, environment and log options may be confidential.
    pub fn outline(&self) -> Self {
        let resources = self.resources.iter().filter_map(ResourceSpec::outline);
        Self {
            containers: self.containers.iter().map(ContainerSpec::outline).collect(),
            resources: resources.collect(),
            execution_credentials: None,
            associations: Vec::new(),
            role_credentials: None,
            has_role: self.has_role || self.role_credentials.is_some(),
            ..self.clone()
        }
    }

    /// See [`TaskInfo::runtime_name`].
    pub fn runtime_name(&self, container: &ContainerName) -> String {
        runtime_name(&self.family, &self.version, &self.arn, container)
    }

    /// The part of the specification that concerns the task as a whole.
    pub fn info(&self) -> TaskInfo {
        TaskInfo {
            arn: self.arn.clone(),
            family: self.family.clone(),
            version: self.version.clone(),
            service_name: self.service_name.clone(),
            launch_type: self.launch_type.clone(),
            network: self.network,
            fault_injection: self.fault_injection,
            cpu_micros: self.cpu_micros,
            memory: self.memory,
            associations: self.associations.clone(),
            role_id: self.role_credentials.clone(),
            execution_role_id: self.execution_credentials.clone(),
            has_role: self.has_role,
        }
    }
}

impl ContainerSpec {
    /// See [`TaskSpec::outline`].
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

impl TaskInfo {
    /// The name of a container in Docker: `ecs-<family>-<version>-<name>-<20 hex>` (spec `docker-mapping.md` §2).
    ///
    /// The Go agent draws the suffix at random and may lose it in a crash. Here the suffix is a hash of the task and the
    /// container, so the name is known before the create, after a crash, and even without any state.
    pub fn runtime_name(&self, container: &ContainerName) -> String {
        runtime_name(&self.family, &self.version, &self.arn, container)
    }

    /// The specification of a task with these containers and resources, and without credentials.
    pub fn with(&self, containers: Vec<ContainerSpec>, resources: Vec<ResourceSpec>) -> TaskSpec {
        TaskSpec {
            arn: self.arn.clone(),
            family: self.family.clone(),
            version: self.version.clone(),
            service_name: self.service_name.clone(),
            launch_type: self.launch_type.clone(),
            network: self.network,
            fault_injection: self.fault_injection,
            cpu_micros: self.cpu_micros,
            memory: self.memory,
            associations: self.associations.clone(),
            has_role: self.has_role || self.role_id.is_some(),
            containers,
            resources,
            ..TaskSpec::default()
        }
    }
}

fn runtime_name(family: &str, version: &str, task: &TaskArn, container: &ContainerName) -> String {
    let clean: String = container.0.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').collect();
    format!("ecs-{family}-{version}-{clean}-{}", name_suffix(task, container))
}

/// The suffix of the container's name in Docker, which only this agent gives to this container of this task: 20 hexadecimal
/// digits.
pub fn name_suffix(task: &TaskArn, container: &ContainerName) -> String {
    let low = super::ids::stable_hash(&["runtime-name", &task.0, &container.0]);
    let high = super::ids::stable_hash(&["runtime-name-2", &task.0, &container.0]) & 0xffff;
    format!("{low:016x}{high:04x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_containers_hold_family_revision_and_name() {
        let task = TaskSpec { family: "web-app".to_owned(), version: "12".to_owned(), ..TaskSpec::default() };
        let name = |container: &str| task.runtime_name(&container.into());
        let suffix = name("si_de.1-x").strip_prefix("ecs-web-app-12-side1-x-").map(str::to_owned).unwrap_or_default();
        assert!(suffix.len() == 20 && suffix.bytes().all(|byte| byte.is_ascii_hexdigit()), "{}", name("si_de.1-x"));
        assert_ne!(name("a"), name("_a"), "the suffix differs if the cleaned names are equal");
    }
}
