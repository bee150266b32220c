//! What was asked for. Immutable after it arrived: progress lives in `core::state`.
//!
//! Most of what a task may say, most tasks do not: what has its default value is not written.

use super::resource::{LogRouting, ResourceSpec, SecretUse};
use super::{ContainerName, CredentialsId, Protocol, Span, TaskArn, is_default};
use serde::{Deserialize, Serialize};
use std::fmt;

/// One task as ECS sent it, reduced to what this agent runs.
///
/// Anything in a payload that has no place here was refused by `acs::translate` with a reason.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskSpec {
    /// Identity.
    pub arn: TaskArn,
    /// Task definition family.
    pub family: String,
    /// Task definition revision, as text.
    pub version: String,
    /// Name of the service that owns the task; empty for a standalone task.
    #[serde(default, skip_serializing_if = "is_default")]
    pub service_name: String,
    /// CPU for the task as a whole in millionths of a vCPU; 0 = the sum over its containers.
    #[serde(default, skip_serializing_if = "is_default")]
    pub cpu_micros: u64,
    /// Memory for the task as a whole in MiB; 0 = the sum over its containers.
    #[serde(default, skip_serializing_if = "is_default")]
    pub memory: u64,
    /// Containers in the order of the task definition; those the agent adds come last.
    pub containers: Vec<ContainerSpec>,
    /// What else it needs.
    #[serde(default, skip_serializing_if = "is_default")]
    pub resources: Vec<ResourceSpec>,
    /// Credentials of the task execution role, if the task has one (image pulls).
    #[serde(default, skip_serializing_if = "is_default")]
    pub execution_credentials: Option<CredentialsId>,
    /// Leases of its Kerberos tickets that are to be given back. In an outline only: the state holds them otherwise.
    #[serde(default, skip_serializing_if = "is_default")]
    pub leases: Vec<String>,
}

/// One container of a task.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerSpec {
    /// Name, unique in the task.
    pub name: ContainerName,
    /// Whose it is.
    #[serde(default, skip_serializing_if = "is_default")]
    pub kind: ContainerKind,
    /// Image reference as in the task definition.
    pub image: String,
    /// Its stop stops the task.
    pub essential: bool,
    /// Replaces the image's command.
    #[serde(default, skip_serializing_if = "is_default")]
    pub command: Option<Vec<String>>,
    /// Replaces the image's entry point.
    #[serde(default, skip_serializing_if = "is_default")]
    pub entry_point: Option<Vec<String>>,
    /// Plain environment. May hold what the customer considers secret: never logged.
    #[serde(default, skip_serializing_if = "is_default")]
    pub environment: Environment,
    /// CPU units (1024 = one vCPU).
    #[serde(default, skip_serializing_if = "is_default")]
    pub cpu: u32,
    /// Hard memory limit in MiB; 0 = none.
    #[serde(default, skip_serializing_if = "is_default")]
    pub memory: u32,
    /// Soft memory limit in MiB from the engine settings; counts instead of `memory` for admission when above 0.
    #[serde(default, skip_serializing_if = "is_default")]
    pub memory_reservation: u32,
    /// Docker links: the other container and its alias.
    #[serde(default, skip_serializing_if = "is_default")]
    pub links: Vec<Link>,
    /// Ports to publish.
    #[serde(default, skip_serializing_if = "is_default")]
    pub ports: Vec<PortMapping>,
    /// Ranges of ports to publish, each on as many free host ports in a row.
    #[serde(default, skip_serializing_if = "is_default")]
    pub port_ranges: Vec<PortRange>,
    /// Whose processes it sees.
    #[serde(default, skip_serializing_if = "is_default")]
    pub pid: Namespace,
    /// Whose shared memory, semaphores and queues it uses.
    #[serde(default, skip_serializing_if = "is_default")]
    pub ipc: Namespace,
    /// Ids of the GPUs that are its own.
    #[serde(default, skip_serializing_if = "is_default")]
    pub gpus: Vec<String>,
    /// Which runtime of the engine it needs.
    #[serde(default, skip_serializing_if = "is_default")]
    pub runtime: Runtime,
    /// Host directories and volumes to mount.
    #[serde(default, skip_serializing_if = "is_default")]
    pub mounts: Vec<Mount>,
    /// Containers whose volumes are mounted here too.
    #[serde(default, skip_serializing_if = "is_default")]
    pub volumes_from: Vec<VolumesFrom>,
    /// Secrets, which are known by name until the container is created.
    #[serde(default, skip_serializing_if = "is_default")]
    pub secrets: Vec<SecretUse>,
    /// The credential spec it gets a Kerberos ticket for, as the payload names it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub credential_spec: Option<String>,
    /// Its log goes to the task's log router.
    #[serde(default, skip_serializing_if = "is_default")]
    pub log_routing: Option<LogRouting>,
    /// Its log driver uses the task execution role (`logsAuthStrategy`).
    #[serde(default, skip_serializing_if = "is_default")]
    pub logs_with_execution_role: bool,
    /// Ordering: links are in here too, as `Start`, and `volumes_from`, as `Create`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub depends_on: Vec<Dependency>,
    /// How long others wait for this container to fulfil their dependency; none = for ever.
    #[serde(default, skip_serializing_if = "is_default")]
    pub start_timeout: Option<Span>,
    /// Grace between SIGTERM and SIGKILL; none = the agent's `ECS_CONTAINER_STOP_TIMEOUT`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub stop_timeout: Option<Span>,
    /// Start it again when it ends by itself.
    #[serde(default, skip_serializing_if = "is_default")]
    pub restart: Option<RestartPolicy>,
    /// The container has a health check whose result counts (`healthCheckType: docker`).
    #[serde(default, skip_serializing_if = "is_default")]
    pub health_check: bool,
    /// Where pull credentials come from.
    #[serde(default, skip_serializing_if = "is_default")]
    pub registry_auth: RegistryAuth,
    /// Settings in the engine's own words, to be laid over what the fields above say. Opaque to everyone but the engine's edge.
    #[serde(default, skip_serializing_if = "is_default")]
    pub engine_settings: EngineSettings,
    /// Random id in the container's metadata URLs; made when the payload arrived, kept across restarts.
    pub endpoint_id: String,
}

/// Whose a container is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ContainerKind {
    /// The customer's.
    #[default]
    Normal,
    /// The agent's own: it does nothing, and the others live in its namespaces. Its image is never pulled, and ECS never hears of it.
    Pause,
}

/// A namespace of a container, of processes or of interprocess communication (spec `docker-mapping.md` §4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Namespace {
    /// As the engine does by default.
    #[default]
    Own,
    /// The host's.
    Host,
    /// One that holds nothing.
    None,
    /// That of the task's pause container.
    Pause,
    /// Its own, which others may join.
    Shareable,
}

/// Runtimes of the engine a container may need (spec `docker-mapping.md` §4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Runtime {
    /// The engine's default.
    #[default]
    Default,
    /// The one that gives GPUs of NVIDIA (`ECS_NVIDIA_RUNTIME`).
    Nvidia,
    /// The one that gives AWS Inferentia and Trainium.
    Neuron,
}

/// Name of the pause container of a task whose containers share namespaces (spec `docker-mapping.md` §11).
pub const PAUSE_NAME: &str = "~internal~ecs~pause~namespace";

/// The image of pause containers. It is not pulled: the engine's edge makes it.
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
    /// The container linked to.
    pub container: ContainerName,
    /// The name it is reachable under.
    pub alias: String,
}

/// A port to publish.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortMapping {
    /// Port inside the container.
    pub container_port: u16,
    /// Port on the host; 0 = any free one.
    pub host_port: u16,
    /// Transport protocol.
    pub protocol: Protocol,
}

/// A range of ports to publish.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortRange {
    /// First port inside the container.
    pub first: u16,
    /// Last port inside the container.
    pub last: u16,
    /// Transport protocol.
    pub protocol: Protocol,
}

impl PortRange {
    /// How many ports; at least one.
    pub fn count(&self) -> u16 {
        self.last.saturating_sub(self.first).saturating_add(1)
    }
}

/// A host directory or volume mounted into a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Name of the volume in the task definition; empty for what the agent adds.
    #[serde(default)]
    pub volume: String,
    /// Absolute path on the host, or name of one of the engine's volumes.
    #[serde(alias = "host_path")]
    pub source: String,
    /// Path in the container.
    pub container_path: String,
    /// Mounted read-only.
    pub read_only: bool,
}

/// `volumesFrom`: the volumes of another container of the task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumesFrom {
    /// The other container.
    pub container: ContainerName,
    /// Mounted read-only.
    pub read_only: bool,
}

/// When a container that ended by itself is started again (spec `task-engine.md` §8).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestartPolicy {
    /// Exit codes after which it is not.
    pub ignored_exit_codes: Vec<i32>,
    /// It must have run for this long, counted from its last start.
    pub attempt_period: Span,
}

/// "Do not go on before that container …"
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dependency {
    /// The container waited for.
    pub container: ContainerName,
    /// What it must have done.
    pub condition: Condition,
}

/// Conditions of `dependsOn`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Condition {
    /// It exists: its volumes are used.
    Create,
    /// It was started.
    Start,
    /// It ran and ended, with whatever exit code.
    Complete,
    /// It ran and ended with exit code 0.
    Success,
    /// Its health check passed.
    Healthy,
}

impl fmt::Display for Condition {
    /// As `dependsOn` writes it.
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
    /// User and password in a secret of Secrets Manager.
    Secret(SecretAuth),
}

/// Which secret holds the credentials (`asmAuthData`). It is read with the task execution role.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SecretAuth {
    /// ARN or name of the secret.
    pub secret: String,
    /// Its region; empty = the instance's.
    #[serde(default)]
    pub region: String,
}

/// Which ECR registry, and as whom.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct EcrAuth {
    /// Account id of the registry.
    pub registry_id: String,
    /// Its region.
    pub region: String,
    /// Replaces the service endpoint; empty = the region's.
    #[serde(default)]
    pub endpoint_override: String,
    /// Ask with the task execution role instead of the instance role.
    #[serde(default)]
    pub use_execution_role: bool,
}

/// Two JSON objects in Docker's own words, laid over the create call (spec `docker-mapping.md` §3). `Debug` shows only sizes,
/// since they may carry log-driver tokens.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineSettings {
    /// The version of the engine's API these settings were written for; empty = any.
    #[serde(default)]
    pub api_version: String,
    /// Members of Docker's `Config` (user, working directory, labels, health check …); empty = nothing.
    #[serde(default)]
    pub config: String,
    /// Members of Docker's `HostConfig`; empty = nothing.
    #[serde(default)]
    pub host_config: String,
}

impl std::fmt::Debug for EngineSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "EngineSettings({} + {} bytes)", self.config.len(), self.host_config.len())
    }
}

impl TaskSpec {
    /// The container of that name.
    pub fn container(&self, name: &ContainerName) -> Option<&ContainerSpec> {
        self.containers.iter().find(|container| &container.name == name)
    }

    /// The container in whose namespaces the others live, if there is one.
    pub fn pause(&self) -> Option<&ContainerSpec> {
        self.containers.iter().find(|container| container.kind == ContainerKind::Pause)
    }

    /// What is needed to go on with containers that exist: without anything that only their creation needs, some of which (commands,
    /// environment, log options) may be confidential.
    pub fn outline(&self) -> Self {
        let containers = self.containers.iter().map(|container| ContainerSpec {
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
            registry_auth: RegistryAuth::default(),
            engine_settings: EngineSettings::default(),
            ..container.clone()
        });
        let resources = self.resources.iter().filter_map(|resource| {
            Some(ResourceSpec { name: resource.name.clone(), needed_by: Vec::new(), kind: resource.kind.outline()? })
        });
        Self {
            containers: containers.collect(),
            resources: resources.collect(),
            execution_credentials: None,
            ..self.clone()
        }
    }

    /// The name a container is created under: `ecs-<family>-<version>-<name>-<20 hex>` (spec `docker-mapping.md` §2).
    ///
    /// The Go agent draws the suffix at random and may lose it in a crash; here it is a hash of task and container, so the name
    /// is known before create, after a crash, and without any state at all.
    pub fn runtime_name(&self, container: &ContainerName) -> String {
        let clean: String = container.0.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').collect();
        format!("ecs-{}-{}-{clean}-{}", self.family, self.version, name_suffix(&self.arn, container))
    }
}

/// The end of the name this agent, and nobody else, gives to that container of that task: 20 hex digits.
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
        assert_ne!(name("a"), name("_a"), "the end tells apart what looks the same");
    }
}
