//! The resources of a task: anything that it needs besides its containers, such as limits of the task as a whole, volumes,
//! secrets, environment files, the configuration of a log router, or Kerberos tickets.
//!
//! Plain data, complete enough that an edge can create each resource from its specification alone. All kinds have the same life
//! cycle (none, created, removed), so the core treats them alike. It only asks how long a kind lasts and whether it needs the
//! execution role. Source: spec `resources.md` §1.

use super::{ContainerName, TaskArn, is_default};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// One resource of a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceSpec {
    /// The name, unique in the task: `volume_<name>`, `cgroup`, `ssmsecret`, `asmsecret`, `envfile_<container>`, `firelens`,
    /// `credentialspec`.
    pub name: String,
    /// The containers that are not created before the resource exists.
    pub needed_by: Vec<ContainerName>,
    /// The kind of the resource, with its data.
    pub kind: ResourceKind,
}

impl ResourceSpec {
    /// The part of the specification that the removal needs, with an empty `needed_by`; `None` if there is never anything to
    /// remove.
    pub fn outline(&self) -> Option<Self> {
        Some(Self { name: self.name.clone(), needed_by: Vec::new(), kind: self.kind.outline()? })
    }
}

/// The kinds of resources.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ResourceKind {
    /// The control group that limits the task as a whole.
    Cgroup(CgroupSpec),
    /// A Docker volume.
    Volume(VolumeSpec),
    /// Values of SSM Parameter Store or of Secrets Manager.
    Secrets(Vec<SecretKey>),
    /// Environment files in S3, in the order of the task definition.
    EnvironmentFiles(Vec<EnvironmentFile>),
    /// The configuration of the task's log router (FireLens).
    LogRouter(LogRouterSpec),
    /// Kerberos tickets for group managed service accounts (gMSA): the credential specs as the containers name them, each once.
    CredentialSpecs(Vec<String>),
}

/// How long a resource lasts after its creation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    /// As long as the process: it exists only in the agent's memory, and is fetched again while a container still needs it.
    Process,
    /// Until the host reboots.
    Boot,
    /// Until it is removed.
    Task,
}

impl ResourceKind {
    /// How long a resource of this kind lasts.
    pub fn lifetime(&self) -> Lifetime {
        match self {
            Self::Secrets(_) | Self::EnvironmentFiles(_) => Lifetime::Process,
            Self::Cgroup(_) => Lifetime::Boot,
            Self::Volume(_) | Self::LogRouter(_) | Self::CredentialSpecs(_) => Lifetime::Task,
        }
    }

    /// The part of the data that the removal needs, without anything that may be confidential; `None` if there is never anything
    /// to remove.
    pub(super) fn outline(&self) -> Option<Self> {
        match self {
            Self::Cgroup(_) | Self::CredentialSpecs(_) => Some(self.clone()),
            Self::Volume(volume) => Some(Self::Volume(VolumeSpec {
                runtime_name: volume.runtime_name.clone(),
                driver: String::new(),
                options: BTreeMap::new(),
                labels: BTreeMap::new(),
                scope: volume.scope,
                with_role: volume.with_role,
                in_network: volume.in_network,
            })),
            Self::LogRouter(router) => {
                Some(Self::LogRouter(LogRouterSpec { external: None, outputs: Vec::new(), ..router.clone() }))
            }
            Self::Secrets(_) | Self::EnvironmentFiles(_) => None,
        }
    }

    /// The creation uses the task execution role, so it must wait until ECS has sent the role's credentials.
    pub fn needs_execution_role(&self) -> bool {
        match self {
            Self::Secrets(_) | Self::EnvironmentFiles(_) => true,
            Self::LogRouter(router) => matches!(router.external, Some(ExternalConfig::S3(_))),
            // The account of a domainless spec is in Secrets Manager. A document that is not a file on the host is in S3 or in
            // Parameter Store.
            Self::CredentialSpecs(specs) => {
                specs.iter().any(|spec| spec.starts_with(DOMAINLESS) || !spec.contains(":file://"))
            }
            Self::Cgroup(_) | Self::Volume(_) => false,
        }
    }

    /// The resource is mounted in the network of the task, so its creation must wait for that network.
    pub fn is_mounted_in_network(&self) -> bool {
        matches!(self, Self::Volume(volume) if volume.in_network)
    }

    /// The task role is used whenever a container is created or started, because that mounts the resource.
    pub fn is_mounted_with_role(&self) -> bool {
        matches!(self, Self::Volume(volume) if volume.with_role)
    }
}

/// The prefix of a credential spec whose account is in Secrets Manager; the host need not have joined a domain.
pub const DOMAINLESS: &str = "credentialspecdomainless:";
/// The prefix of a credential spec for a host that has joined the domain.
pub const DOMAIN_JOINED: &str = "credentialspec:";

/// The Kerberos tickets of a task, as the credentials fetcher created them (spec `resources.md` §7).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tickets {
    /// Ids of the leases under which the credentials fetcher keeps the tickets. Each lease must be released, or its tickets stay
    /// on the host.
    pub leases: Vec<String>,
    /// Paths of the tickets on the host, by credential spec.
    pub paths: BTreeMap<String, String>,
    /// ARNs of the secrets with the accounts of domainless tickets. Such tickets expire unless they are renewed.
    pub accounts: Vec<String>,
}

/// Limits of a task as a whole (spec `docker-mapping.md` §5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupSpec {
    /// CPU limit in millionths of a vCPU; 0: no limit, and `shares` applies instead.
    pub cpu_micros: u64,
    /// CPU shares of a task without a CPU limit: the sum of the CPU units of its containers.
    pub shares: u32,
    /// Memory limit in MiB; 0: no limit.
    pub memory: u64,
}

/// A Docker volume (spec `resources.md` §3).
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeSpec {
    /// The name of the volume in Docker.
    pub runtime_name: String,
    /// Volume driver; empty: Docker's default.
    pub driver: String,
    /// Options of the driver, which may include credentials. If the volume is mounted with the task role, [`ROLE_PATH`] in a value
    /// stands for the path of the role's credentials; if it is mounted in the task's network, [`NAMESPACE_PATH`] for the path of that.
    pub options: BTreeMap<String, String>,
    /// Labels of the volume.
    pub labels: BTreeMap<String, String>,
    /// Whether the volume belongs to the task or to the host.
    pub scope: VolumeScope,
    /// True: the driver mounts the volume with the credentials of the task role.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub with_role: bool,
    /// True: the driver mounts the volume in the network namespace of the task.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub in_network: bool,
}

/// In options of a volume, the place of the path of the task role's credentials. The path has the id of the credentials, which
/// changes, so it is filled in when the volume is created.
pub const ROLE_PATH: &str = "{path of the credentials of the task role}";

/// In options of a volume, the place of the path of the task's network namespace. It is filled in when the volume is created.
pub const NAMESPACE_PATH: &str = "{path of the network namespace of the task}";

/// `Debug` leaves out the values of options.
impl fmt::Debug for VolumeSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { runtime_name, driver, options, labels: _, scope, with_role: _, in_network: _ } = self;
        write!(f, "VolumeSpec({runtime_name} {driver:?} {scope:?} {:?})", options.keys())
    }
}

/// The owner of a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum VolumeScope {
    /// The task: the volume is removed with the task.
    Task,
    /// The host: the volume stays.
    Shared {
        /// The volume is created if it does not exist.
        autoprovision: bool,
    },
}

/// Where a secret is kept.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SecretKey {
    /// The service that keeps the secret.
    pub provider: SecretProvider,
    /// Name or ARN of the parameter, or ARN of the secret, optionally with a JSON key, a version stage and a version id after
    /// it.
    pub value_from: String,
    /// Region of the secret; empty: the region of the instance.
    pub region: String,
}

/// Services that keep secrets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum SecretProvider {
    /// SSM Parameter Store.
    Ssm,
    /// Secrets Manager.
    SecretsManager,
}

/// A container's use of a secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretUse {
    /// Name of the variable or option.
    pub name: String,
    /// Where the secret is kept.
    pub key: SecretKey,
    /// What the secret becomes in the container.
    pub target: SecretTarget,
}

/// What a secret becomes in a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SecretTarget {
    /// An environment variable.
    Environment,
    /// An option of the log driver.
    LogOption,
}

/// An environment file (spec `resources.md` §5).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnvironmentFile {
    /// ARN of the object in S3.
    pub arn: String,
}

/// The log router of a task (spec `resources.md` §6).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogRouterSpec {
    /// The program that routes the log.
    pub kind: LogRouterKind,
    /// The container that runs the program.
    pub container: ContainerName,
    /// The container's `user` setting, `uid[:gid]`, which gets the directory of the socket; empty: none.
    pub user: String,
    /// The router also listens on a port, because it is on Docker's bridge network, or in the network of its task.
    pub listens: bool,
    /// It listens on the loopback alone, because all containers of the task have the same network (`awsvpc`).
    #[serde(default, skip_serializing_if = "is_default")]
    pub is_local: bool,
    /// Memory buffer of the router in MiB (`Mem_Buf_Limit`).
    pub buffer: u32,
    /// The router adds metadata of the task to each record.
    pub adds_metadata: bool,
    /// The metadata includes the id of the EC2 instance.
    pub adds_instance: bool,
    /// The customer's own configuration; `None` if there is none.
    pub external: Option<ExternalConfig>,
    /// One output for each container whose log goes to the router.
    pub outputs: Vec<LogOutput>,
}

/// Programs that can be log routers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogRouterKind {
    /// Fluentd.
    Fluentd,
    /// Fluent Bit.
    Fluentbit,
}

/// The place of the customer's own configuration of the router.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExternalConfig {
    /// Path in the image of the router.
    File(String),
    /// ARN of an object in S3.
    S3(String),
}

/// The destination of the log of one container.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogOutput {
    /// The container whose log it is.
    pub container: ContainerName,
    /// Options of the output. In place of a secret there is a placeholder, which the router fills from its environment.
    pub options: BTreeMap<String, String>,
}

/// `Debug` leaves out the values, which may be tokens.
impl fmt::Debug for LogOutput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LogOutput({} {:?})", self.container, self.options.keys())
    }
}

/// How a container sends its log to the router (spec `docker-mapping.md` §8.2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogRouting {
    /// The container of the router, whose network address this container gets; `None` if this container shares the network of
    /// the host.
    pub router: Option<ContainerName>,
    /// Path on the host of the router's socket.
    pub socket: String,
    /// Tag of every record.
    pub tag: String,
    /// `fluentd-buffer-limit`; `None`: Docker's default.
    pub buffer_limit: Option<String>,
}

/// A resource to create, renew or remove.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResourceRequest {
    /// The task that the resource belongs to.
    pub task: TaskArn,
    /// Task definition family.
    pub family: String,
    /// Task definition revision.
    pub version: String,
    /// The specification of the resource.
    pub spec: ResourceSpec,
    /// Id of the credentials of the task execution role; `None` if the task has no such role.
    pub execution_credentials: Option<super::CredentialsId>,
    /// Id in the path of the task role's credentials, as in the task's containers; `None` if the task has no such role.
    pub role_id: Option<super::CredentialsId>,
    /// The process of the task's pause container in the host's process namespace, which leads to the task's network; 0: it is not
    /// known, or the task has no network of its own.
    pub pause_pid: u32,
    /// The tickets that the resource's creation yielded, for a renewal or a removal; `None` if there are none.
    pub tickets: Option<Tickets>,
}

/// The status of a resource.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ResourceStatus {
    /// The resource does not exist, as far as is known.
    #[default]
    None,
    /// The resource exists.
    Created,
    /// The resource is removed.
    Removed,
}

/// The name of a volume of one task: `ecs-<family>-<version>-<volume>-<20 hex>` (spec `resources.md` §3). The suffix is a hash,
/// as for containers, so the volume is found again after a crash.
pub fn volume_name(task: &TaskArn, family: &str, version: &str, volume: &str) -> String {
    let low = super::ids::stable_hash(&["volume-name", &task.0, volume]);
    let high = super::ids::stable_hash(&["volume-name-2", &task.0, volume]) & 0xffff;
    format!("ecs-{family}-{version}-{volume}-{low:016x}{high:04x}")
}
