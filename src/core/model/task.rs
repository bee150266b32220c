//! The specification of a task. It does not change after it has arrived; the progress of the task is in [`crate::state`].
//!
//! Most tasks use few of the fields, so fields with their default value are not written to disk.

use super::resource::ResourceSpec;
use super::{ContainerName, CredentialsId, Interface, ProxyRules, TaskArn, is_default};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::Ipv4Addr;

pub use super::container::{
    Condition, ContainerKind, ContainerSpec, Dependency, EngineSettings, Environment, Link, LogSettings, METADATA_FILE,
    MetadataMount, Mount, NETWORK_PAUSE_NAME, Namespace, PAUSE_IMAGE, PAUSE_NAME, RestartPolicy, Runtime, VolumesFrom,
};
pub use super::port::{PortMapping, PortRange};
pub use super::registry::{EcrAuth, RegistryAuth, SecretAuth};

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
    /// The task's own network interfaces, the primary one first; empty unless the network mode is `awsvpc`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub interfaces: Vec<Interface>,
    /// Redirects connections to the task's proxy (spec `networking.md` §10); `None`: the task has no proxy.
    #[serde(default, skip_serializing_if = "is_default")]
    pub proxy: Option<ProxyRules>,
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
    /// The task's address on the bridge between the host and its tasks. Filled only in an outline; otherwise the core's state
    /// holds it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub local_address: Option<Ipv4Addr>,
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
    /// The task's own network interfaces, the primary one first; empty unless the network mode is `awsvpc`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub interfaces: Vec<Interface>,
    /// Redirects connections to the task's proxy (App Mesh); `None`: the task has no proxy.
    #[serde(default, skip_serializing_if = "is_default")]
    pub proxy: Option<ProxyRules>,
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
    /// One network namespace for the whole task, with interfaces of its own. It belongs to the task's pause container.
    Awsvpc,
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
            interfaces: self.interfaces.clone(),
            proxy: self.proxy.clone(),
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
            interfaces: self.interfaces.clone(),
            proxy: self.proxy.clone(),
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
