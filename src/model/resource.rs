//! What a task needs besides its containers: task limits, volumes, secrets, environment files, a log router's configuration.
//!
//! Plain data, as complete as the payload made it: an edge can create each from its description alone. All kinds have the same life
//! (none, created, removed), so the core treats them alike and knows of a kind only whether it lives in the agent's memory and
//! whether it is asked for with the execution role. Source: spec `resources.md` §1.

use super::{ContainerName, TaskArn};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// One resource of a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceSpec {
    /// Unique in the task: `volume_<name>`, `cgroup`, `ssmsecret`, `asmsecret`, `envfile_<container>`, `firelens`,
    /// `credentialspec`.
    pub name: String,
    /// These are not created before it is there.
    pub needed_by: Vec<ContainerName>,
    /// What it is.
    pub kind: ResourceKind,
}

impl ResourceSpec {
    /// What is needed to give it back; `None`: nothing. No container waits for it.
    pub fn outline(&self) -> Option<Self> {
        Some(Self { name: self.name.clone(), needed_by: Vec::new(), kind: self.kind.outline()? })
    }
}

/// The kinds of resources.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ResourceKind {
    /// The control group that limits the task as a whole.
    Cgroup(CgroupSpec),
    /// A volume of the container engine.
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

/// How long a resource lasts that was made once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    /// It is nowhere but in the agent's memory: gone with the process, and fetched again while a container still needs it.
    Process,
    /// A reboot of the host takes it.
    Boot,
    /// It is there until it is removed.
    Task,
}

impl ResourceKind {
    /// How long it lasts.
    pub fn lifetime(&self) -> Lifetime {
        match self {
            Self::Secrets(_) | Self::EnvironmentFiles(_) => Lifetime::Process,
            Self::Cgroup(_) => Lifetime::Boot,
            Self::Volume(_) | Self::LogRouter(_) | Self::CredentialSpecs(_) => Lifetime::Task,
        }
    }

    /// What is needed to remove it, without anything that may be confidential; `None` if there will be nothing to remove.
    pub(super) fn outline(&self) -> Option<Self> {
        match self {
            Self::Cgroup(_) | Self::CredentialSpecs(_) => Some(self.clone()),
            Self::Volume(volume) => Some(Self::Volume(VolumeSpec {
                runtime_name: volume.runtime_name.clone(),
                driver: String::new(),
                options: BTreeMap::new(),
                labels: BTreeMap::new(),
                scope: volume.scope,
            })),
            Self::LogRouter(router) => {
                Some(Self::LogRouter(LogRouterSpec { external: None, outputs: Vec::new(), ..router.clone() }))
            }
            Self::Secrets(_) | Self::EnvironmentFiles(_) => None,
        }
    }

    /// It cannot be created before ECS has sent the credentials of the task execution role.
    pub fn needs_execution_role(&self) -> bool {
        match self {
            Self::Secrets(_) | Self::EnvironmentFiles(_) => true,
            Self::LogRouter(router) => matches!(router.external, Some(ExternalConfig::S3(_))),
            // The account of a spec without a domain is a secret, wherever its document is.
            Self::CredentialSpecs(specs) => {
                specs.iter().any(|spec| spec.starts_with(DOMAINLESS) || !spec.contains(":file://"))
            }
            Self::Cgroup(_) | Self::Volume(_) => false,
        }
    }
}

/// How a credential spec begins whose account is kept in Secrets Manager; the host need not have joined a domain.
pub const DOMAINLESS: &str = "credentialspecdomainless:";
/// How one begins that is used by a host in the domain.
pub const DOMAIN_JOINED: &str = "credentialspec:";

/// The Kerberos tickets of a task, as the credentials fetcher made them (spec `resources.md` §7).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tickets {
    /// What it knows them by; each is to be given back.
    pub leases: Vec<String>,
    /// Where they are on the host, by credential spec.
    pub paths: BTreeMap<String, String>,
    /// ARNs of the secrets with the accounts they were made with: these tickets end unless they are renewed.
    pub accounts: Vec<String>,
}

/// Limits of a task as a whole (spec `docker-mapping.md` §5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupSpec {
    /// Limit in millionths of a vCPU; 0 = none, then `shares` counts.
    pub cpu_micros: u64,
    /// CPU shares of a task without limit: the sum over its containers.
    pub shares: u32,
    /// Memory limit in MiB; 0 = none.
    pub memory: u64,
}

/// A volume of the container engine (spec `resources.md` §3).
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeSpec {
    /// The name the engine knows it by.
    pub runtime_name: String,
    /// Driver; empty = the engine's default.
    pub driver: String,
    /// Options of the driver; some drivers take credentials here.
    pub options: BTreeMap<String, String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Whose it is.
    pub scope: VolumeScope,
}

/// `Debug` leaves out the values of options.
impl fmt::Debug for VolumeSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { runtime_name, driver, options, labels: _, scope } = self;
        write!(f, "VolumeSpec({runtime_name} {driver:?} {scope:?} {:?})", options.keys())
    }
}

/// Who owns a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum VolumeScope {
    /// The task: it is removed with the task.
    Task,
    /// The host: it stays.
    Shared {
        /// Create it if it is not there.
        autoprovision: bool,
    },
}

/// Where a secret is kept.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SecretKey {
    /// Which service.
    pub provider: SecretProvider,
    /// Name or ARN of the parameter; or ARN of the secret, with JSON key, version stage and version id behind it if wanted.
    pub value_from: String,
    /// Its region; empty = the instance's.
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
    /// Which secret.
    pub key: SecretKey,
    /// What it becomes.
    pub target: SecretTarget,
}

/// What a secret becomes.
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
    /// Which program.
    pub kind: LogRouterKind,
    /// The container that runs it.
    pub container: ContainerName,
    /// Its `user` setting, `uid[:gid]`; empty = none. The socket's directory is given to it.
    pub user: String,
    /// It listens on a port too, since the others cannot reach its socket by network: the task has a network of its own.
    pub listens: bool,
    /// `Mem_Buf_Limit` in MiB.
    pub buffer: u32,
    /// Adds what the record says of the task to each line.
    pub adds_metadata: bool,
    /// Adds the id of the EC2 instance to that.
    pub adds_instance: bool,
    /// The customer's own configuration.
    pub external: Option<ExternalConfig>,
    /// One for each container whose log goes to the router.
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

/// Where the customer's own configuration of the router is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExternalConfig {
    /// A path in the router's image.
    File(String),
    /// ARN of an object in S3.
    S3(String),
}

/// Where the log of one container goes.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogOutput {
    /// The container.
    pub container: ContainerName,
    /// Options of its output; a secret stands here as a placeholder the router fills from its environment.
    pub options: BTreeMap<String, String>,
}

/// `Debug` leaves out the values, which may be tokens.
impl fmt::Debug for LogOutput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LogOutput({} {:?})", self.container, self.options.keys())
    }
}

/// How a container hands its log to the router (spec `docker-mapping.md` §8.2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogRouting {
    /// The router, which is reachable under its address too; none if the container shares the host's network.
    pub router: Option<ContainerName>,
    /// The router's socket on the host.
    pub socket: String,
    /// Tag of every line.
    pub tag: String,
    /// `fluentd-buffer-limit`.
    pub buffer_limit: Option<String>,
}

/// A resource to create or remove.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResourceRequest {
    /// The task it belongs to.
    pub task: TaskArn,
    /// Task definition family.
    pub family: String,
    /// Task definition revision.
    pub version: String,
    /// What it is.
    pub spec: ResourceSpec,
    /// Credentials of the task execution role.
    pub execution_credentials: Option<super::CredentialsId>,
    /// What its making gave, if it is to be removed or renewed.
    pub tickets: Option<Tickets>,
}

/// How far a resource has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ResourceStatus {
    /// It is not there, as far as is known.
    #[default]
    None,
    /// It is there.
    Created,
    /// Nothing is left of it.
    Removed,
}

/// The name of a volume of one task: `ecs-<family>-<version>-<volume>-<20 hex>` (spec `resources.md` §3). The suffix is a hash, as
/// with containers, so the volume is found again after a crash.
pub fn volume_name(task: &TaskArn, family: &str, version: &str, volume: &str) -> String {
    let low = super::ids::stable_hash(&["volume-name", &task.0, volume]);
    let high = super::ids::stable_hash(&["volume-name-2", &task.0, volume]) & 0xffff;
    format!("ecs-{family}-{version}-{volume}-{low:016x}{high:04x}")
}
