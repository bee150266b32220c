//! The table of everything that an operator can set: name, kind, default, limits, group, stage, one line of help.
//!
//! Parsing, `--help`, the reference page and the warning about unknown names all read it. A new variable is one row here and,
//! once something uses it, one field in [`Config`](super::Config). The same row has the name in the JSON file and in user data.
//! Invariant: names are unique; every default is written as an operator would write it, and parses; the rows at stage
//! [`Stage::Now`] are exactly the fields of `Config` (tested).
//! Values: spec `config.md` §2.

use super::kind::{Kind, Limit};
use super::problem::Severity;
use Group::{Aws, Document, Ecr, Images, Init, Logging, Network, Proxies, Resources, State, Timeouts, Traces};
use Kind::{
    AnyCase, Choice, Cidrs, Cluster, Decimal, DockerHost, Duration, Endpoint, Flag, Headers, HomePath, Host, Integer,
    List, LocalAddress, Map, Mirrors, Names, Pairs, Path, PlainEndpoint, PortRange, Ports, Proxy, Rates, Region,
    Secret, SecretJson, Switch, Text, TextOrEmpty, Trimmed, TrimmedChoice, TrimmedInteger, Unsigned16,
};
use Limit::{Any, AtLeast, DefaultBelow, DefaultOutside, Signed};

/// The headings of the help.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Group {
    /// Identity and registration of the instance.
    Identity,
    /// Registries that need a password.
    Ecr,
    /// AWS endpoints and keys.
    Aws,
    /// Files and life cycle of the agent.
    State,
    /// Logs.
    Logging,
    /// Ports, memory and features of tasks.
    Resources,
    /// Task networking.
    Network,
    /// Times and limits of Docker operations.
    Timeouts,
    /// Images and metrics.
    Images,
    /// Traces for OpenTelemetry.
    Traces,
    /// Proxies.
    Proxies,
    /// Fields that exist only in the JSON file and in user data.
    Document,
    /// Variables of ecs-init, which starts the Go agent; no agent reads them.
    Init,
}

/// How this agent uses a variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The variable works.
    Now,
    /// The variable is accepted and checked, but this version does not support its feature. A log line at the start names the
    /// variable.
    Later,
    /// The AWS SDK or the TLS library reads the variable from the process environment. If only `ecs.config` sets the variable,
    /// the agent adds it to that environment.
    Process,
    /// The variable names a file that is itself a source. It is read before all other variables, and never from that file.
    NamesFile,
    /// The variable is accepted, but has no meaning for this agent.
    Foreign,
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// The name in the environment and in `ecs.config`.
    pub name: &'static str,
    /// A second name, which is used if the source does not have the first one; `None`: there is none.
    pub alias: Option<&'static str>,
    /// The name in the JSON file and in user data; `None`: it cannot be set there.
    pub json: Option<&'static str>,
    /// The form of the value.
    pub kind: Kind,
    /// The default as an operator would write it; empty: none.
    pub default: &'static str,
    /// The heading in the help.
    pub group: Group,
    /// How this agent uses the variable.
    pub stage: Stage,
    /// The consequence of setting a variable without effect ([`Stage::Later`], [`Stage::Foreign`]); empty for the others.
    pub consequence: &'static str,
    /// How much such a setting matters. `Notice`: the operator gets what the setting asks for, or asks for nothing by it.
    pub severity: Severity,
    /// True: a value that cannot be used keeps the agent from starting.
    pub fatal: bool,
    /// True: a number below its limit is fatal in the JSON file and in user data (spec `config.md` §1.3); in the environment it
    /// is raised.
    pub strict: bool,
    /// One line of help.
    pub help: &'static str,
}

impl Group {
    /// The text of the heading.
    pub fn title(self) -> &'static str {
        match self {
            Self::Identity => "Identity and registration",
            Self::Ecr => "Private registries",
            Self::Aws => "AWS endpoints and credentials",
            Self::State => "State and process",
            Self::Logging => "Logging",
            Self::Resources => "Resources and task features",
            Self::Network => "Task networking",
            Self::Timeouts => "Timeouts",
            Self::Images => "Images, clean-up and metrics",
            Self::Traces => "Traces of tasks (OpenTelemetry)",
            Self::Proxies => "Proxies",
            Self::Document => "In the JSON file and in EC2 user data only",
            Self::Init => "Read by ecs-init only (accepted, without effect here)",
        }
    }
}

impl Key {
    /// The name is the variable's name or its alias.
    pub fn is_called(&self, name: &str) -> bool {
        self.name == name || self.alias == Some(name)
    }

    /// Only the JSON file and user data set this row, not an environment variable.
    pub fn is_only_json(&self) -> bool {
        self.group == Group::Document
    }

    const fn json(self, name: &'static str) -> Self {
        Self { json: Some(name), ..self }
    }

    const fn strict(self) -> Self {
        Self { strict: true, ..self }
    }

    const fn names_file(self) -> Self {
        Self { stage: Stage::NamesFile, ..self }
    }

    const fn alias(self, name: &'static str) -> Self {
        Self { alias: Some(name), ..self }
    }

    const fn later(self, consequence: &'static str) -> Self {
        Self { stage: Stage::Later, consequence, ..self }
    }

    const fn process(self) -> Self {
        Self { stage: Stage::Process, ..self }
    }

    const fn foreign(self, consequence: &'static str) -> Self {
        Self { stage: Stage::Foreign, consequence, ..self }
    }

    const fn harmless(self) -> Self {
        Self { severity: Severity::Notice, ..self }
    }

    const fn fatal(self) -> Self {
        Self { fatal: true, ..self }
    }
}

const fn key(name: &'static str, kind: Kind, default: &'static str, group: Group, help: &'static str) -> Key {
    Key {
        name,
        alias: None,
        json: None,
        kind,
        default,
        group,
        stage: Stage::Now,
        consequence: "",
        severity: Severity::Changes,
        fatal: false,
        strict: false,
        help,
    }
}

/// A row that only the JSON file and user data set; its name is that of the JSON field.
const fn field(name: &'static str, kind: Kind, default: &'static str, help: &'static str) -> Key {
    key(name, kind, default, Document, help).json(name)
}

/// The log levels.
pub(super) const LEVELS: &[&str] = &["debug", "info", "warn", "error", "crit", "none"];
const ID: Group = Group::Identity;
/// A second in milliseconds, the unit of the limits of durations.
const SECOND: i64 = 1_000;
const MINUTE: i64 = 60 * SECOND;

/// Every variable, grouped for reading.
#[rustfmt::skip] // one row, one line: it is read as a table
pub const KEYS: &[Key] = &[
    // An endpoint, Docker address or proxy that cannot be used is fatal: the agent must not use another one than the operator
    // named.
    key("ECS_CONFIG_FILE", Path, "/etc/ecs/ecs.config", State, "File of NAME=value lines, read at the start; the environment takes precedence. This variable itself is read from the environment only.").names_file(),

    key("ECS_CLUSTER", Cluster, "", ID, "Cluster to register into; none: `default`, created if absent.").json("Cluster").fatal(),
    key("AWS_DEFAULT_REGION", Region, "", ID, "Region; none: asked from the instance metadata service.").json("AWSRegion"),
    key("ECS_BACKEND_HOST", Endpoint, "", ID, "ECS API endpoint to use instead of the region's.").json("APIEndpoint").fatal(),
    key("ECS_EXTERNAL", Switch, "false", ID, "ECS Anywhere: not an EC2 instance. Needs AWS_DEFAULT_REGION. The installation of ECS Anywhere is not part of this agent.").json("External"),
    key("DOCKER_HOST", DockerHost, "unix:///var/run/docker.sock", ID, "Address of the Docker Engine API.").json("DockerEndpoint").fatal(),
    key("ECS_INSTANCE_ATTRIBUTES", Map, "", ID, "Attributes of the container instance, sent at the first registration.").json("InstanceAttributes").fatal(),
    key("ECS_CONTAINER_INSTANCE_TAGS", Map, "", ID, "Tags of the container instance.").json("ContainerInstanceTags").fatal(),
    key("ECS_CONTAINER_INSTANCE_PROPAGATE_TAGS_FROM", Choice(&["none", "ec2_instance"]), "none", ID, "Source of further tags: ec2_instance needs ec2:DescribeTags.").json("ContainerInstancePropagateTagsFrom"),
    key("ECS_WARM_POOLS_CHECK", Switch, "false", ID, "Wait for the Auto Scaling warm pool before registering.").json("WarmPoolsSupport"),
    key("ECS_ENABLE_SPOT_INSTANCE_DRAINING", Switch, "false", ID, "Drain when a Spot interruption is announced.").json("SpotInstanceDrainingEnabled"),
    key("ECS_ENABLE_REBALANCE_DRAINING", Switch, "false", ID, "Drain when EC2 recommends to replace this Spot instance (rebalance recommendation); false: it is only logged and shown, since Auto Scaling may act on it itself. The Go agent has no such setting."),
    key("ECS_INSTANCE_IP_COMPATIBILITY", AnyCase(&["ipv4", "ipv6"]), "", ID, "IP versions of the instance; none: found from its default routes.").later("the agent uses IPv4"),
    key("ECS_DETAILED_OS_FAMILY", TextOrEmpty, "LINUX", ID, "Value of the attribute ecs.os-type-detailed; set but empty: not sent."),

    key("ECS_ENGINE_AUTH_TYPE", TrimmedChoice(&["docker", "dockercfg"]), "", Ecr, "Format of ECS_ENGINE_AUTH_DATA.").json("EngineAuthType"),
    key("ECS_ENGINE_AUTH_DATA", SecretJson, "", Ecr, "Registry credentials as JSON, or credHelpers and credsStore; never shown.").json("EngineAuthData"),
    key("ECS_IMAGE_REGISTRY_MIRRORS", Mirrors, "", Ecr, "Mirrors from which images of a registry are pulled first; image names stay. Not for images with credentials of their own."),

    key("AWS_ENDPOINT_URL", Endpoint, "", Aws, "Endpoint of every AWS service without one of its own.").fatal(),
    key("AWS_ENDPOINT_URL_ECS", Endpoint, "", Aws, "Endpoint of the ECS API; ECS_BACKEND_HOST takes precedence.").fatal(),
    key("AWS_ENDPOINT_URL_ECR", Endpoint, "", Aws, "Endpoint of the ECR API.").fatal(),
    key("AWS_EC2_METADATA_SERVICE_ENDPOINT", PlainEndpoint, "http://169.254.169.254", Aws, "Instance metadata service.").fatal(),
    key("AWS_ENDPOINT_URL_EC2", Endpoint, "", Aws, "Endpoint of the EC2 API (tags).").fatal(),
    key("AWS_ENDPOINT_URL_S3", Endpoint, "", Aws, "Endpoint of S3 (environment files, log routers).").fatal(),
    key("AWS_ENDPOINT_URL_SSM", Endpoint, "", Aws, "Endpoint of Systems Manager (secrets).").fatal(),
    key("AWS_ENDPOINT_URL_SECRETS_MANAGER", Endpoint, "", Aws, "Endpoint of Secrets Manager.").fatal(),
    key("AWS_ACCESS_KEY_ID", Secret, "", Aws, "Access key; none: the SDK's chain (profile, web identity, container, instance role)."),
    key("AWS_SECRET_ACCESS_KEY", Secret, "", Aws, "Secret access key."),
    key("AWS_SESSION_TOKEN", Secret, "", Aws, "Session token of temporary keys."),
    key("ECS_ALTERNATE_CREDENTIAL_PROFILE", Text, "default", Aws, "Profile in /rotatingcreds/credentials (/root/.aws/credentials with -service)."),
    key("AWS_PROFILE", Text, "", Aws, "Profile in the shared files.").process(),
    key("AWS_SHARED_CREDENTIALS_FILE", HomePath, "", Aws, "Shared credentials file.").process(),
    key("AWS_CONFIG_FILE", HomePath, "", Aws, "Shared configuration file.").process(),
    key("AWS_ROLE_ARN", Text, "", Aws, "Role for a web identity.").process(),
    key("AWS_ROLE_SESSION_NAME", Text, "", Aws, "Session name for a web identity.").process(),
    key("AWS_WEB_IDENTITY_TOKEN_FILE", Path, "", Aws, "Token file of a web identity.").process(),
    key("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", Text, "", Aws, "Container credentials, path.").process(),
    key("AWS_CONTAINER_CREDENTIALS_FULL_URI", Text, "", Aws, "Container credentials, URL.").process(),
    key("AWS_CONTAINER_AUTHORIZATION_TOKEN", Secret, "", Aws, "Token for container credentials.").process(),
    key("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", Path, "", Aws, "File of that token.").process(),
    key("AWS_USE_FIPS_ENDPOINT", AnyCase(&["true", "false"]), "false", Aws, "FIPS endpoints. S3's also without this on a host in FIPS mode; S3 has them in 8 regions."),
    key("AWS_USE_DUALSTACK_ENDPOINT", AnyCase(&["true", "false"]), "false", Aws, "Dual-stack endpoints."),
    key("AWS_MAX_ATTEMPTS", Integer(DefaultOutside(1, 100)), "3", Aws, "Maximum number of attempts for one call to AWS."),
    key("AWS_RETRY_MODE", AnyCase(&["standard", "adaptive"]), "standard", Aws, "Mode of retries of calls to AWS."),
    key("SSL_CERT_FILE", Path, "", Aws, "File of trusted certificates.").process(),
    key("SSL_CERT_DIR", Path, "", Aws, "Directory of trusted certificates.").process(),

    key("ECS_DATADIR", Path, "/data/", State, "Directory of the state; setting it turns ECS_CHECKPOINT on.").json("DataDir"),
    key("ECS_CHECKPOINT", Switch, "false", State, "Keep state over restarts; default true when ECS_DATADIR is set.").json("Checkpoint"),
    key("ECS_HOST_DATA_DIR", Path, "/var/lib/ecs", State, "Parent of the data directory as Docker sees it, for volumes that the agent makes.").json("DataDirOnHost"),
    key("ECS_AGENT_CONFIG_FILE_PATH", Path, "/etc/ecs_container_agent/config.json", State, "JSON configuration file; ecs.config takes precedence.").names_file(),
    key("ECS_AGENT_HEALTHCHECK_HOST", Host, "localhost", State, "Host that -healthcheck asks."),
    key("ECS_ALLOW_OFFHOST_INTROSPECTION_ACCESS", Switch, "false", State, "Port 51678 serves everybody, not only this host and containers on Docker's default bridge."),
    key("ECS_INTROSPECTION_LOOPBACK_ONLY", Switch, "false", State, "Port 51678 listens on 127.0.0.1 only. The Go agent has no such setting."),
    key("ECS_UPDATES_ENABLED", Switch, "false", State, "Take part in updates requested by ECS.").json("UpdatesEnabled").later("ECS cannot update this agent: install the new version"),
    key("ECS_UPDATE_DOWNLOAD_DIR", Path, "", State, "Directory for updates.").json("UpdateDownloadDir").later("nothing is downloaded").harmless(),
    key("ECS_ENABLE_RUNTIME_STATS", Switch, "false", State, "A line about the agent's own memory, threads and CPU time every two minutes, in /log/agent-runtime-stats.log (with -service in /var/log/ecs). There is no pprof.").json("EnableRuntimeStats"),
    key("ECS_ENABLE_PROMETHEUS_METRICS", Flag, "false", State, "Metrics of the agent for Prometheus, at /metrics on port 51680 of 127.0.0.1; no task gets this port. The Go agent serves nothing there."),
    key("ECS_ALLOW_OFFHOST_PROMETHEUS_ACCESS", Switch, "false", State, "Port 51680 serves every host and container, not only 127.0.0.1. The Go agent has no such setting."),

    key("ECS_LOGLEVEL", AnyCase(LEVELS), "info", Logging, "Least severe messages to log. The flag -loglevel takes precedence. After a change, SIGHUP applies this and ECS_LOGLEVEL_ON_INSTANCE."),
    key("ECS_LOGFILE", Path, "", Logging, "File to log to besides standard output."),
    key("ECS_LOGLEVEL_ON_INSTANCE", AnyCase(LEVELS), "", Logging, "As ECS_LOGLEVEL, for the log file; not set: ECS_LOGLEVEL. The flag -loglevel-on-instance takes precedence."),
    key("ECS_LOG_ROLLOVER_TYPE", Choice(&["size", "hourly", "none"]), "size", Logging, "When the log file is rolled over."),
    key("ECS_LOG_OUTPUT_FORMAT", Choice(&["logfmt", "json"]), "logfmt", Logging, "Format of log lines."),
    key("ECS_LOG_MAX_FILE_SIZE_MB", Decimal, "5", Logging, "Size of a log file before it is rolled over, in MB."),
    key("ECS_LOG_MAX_ROLL_COUNT", Integer(Signed), "24", Logging, "Rolled-over log files to keep; below 1: all."),
    key("ECS_LOG_DRIVER", Text, "", Logging, "Log driver of the agent's own container, which this agent does not use; set: no log file, unless ECS_LOGLEVEL_ON_INSTANCE is set."),
    key("ECS_AUDIT_LOGFILE", Path, "/log/audit.log", Logging, "Log of requests for credentials of tasks' roles; replaced by a new one as the log file is, with `none` hourly.").json("CredentialsAuditLogFile"),
    key("ECS_AUDIT_LOGFILE_DISABLED", Flag, "false", Logging, "No audit log.").json("CredentialsAuditLogDisabled"),

    key("ECS_RESERVED_PORTS", Ports, "[22,2375,2376,51678,51679]", Resources, "TCP ports that tasks must not use.").json("ReservedPorts"),
    key("ECS_RESERVED_PORTS_UDP", Ports, "[]", Resources, "UDP ports that tasks must not use.").json("ReservedPortsUDP"),
    key("ECS_RESERVED_MEMORY", Unsigned16, "0", Resources, "Memory that tasks must not use, in MiB.").json("ReservedMemory"),
    key("ECS_AVAILABLE_LOGGING_DRIVERS", Names, "[\"json-file\",\"none\"]", Resources, "Docker log drivers that tasks may use.").json("AvailableLoggingDrivers"),
    key("ECS_DISABLE_PRIVILEGED", Switch, "false", Resources, "No privileged containers.").json("PrivilegedDisabled"),
    key("ECS_SELINUX_CAPABLE", Switch, "false", Resources, "SELinux labels may be used.").json("SELinuxCapable"),
    key("ECS_APPARMOR_CAPABLE", Switch, "false", Resources, "AppArmor profiles may be used.").json("AppArmorCapable"),
    key("ECS_EXCLUDE_IPV6_PORTBINDING", Switch, "true", Resources, "Leave IPv6 port bindings out of what is reported.").json("ShouldExcludeIPv6PortBinding"),
    key("ECS_DYNAMIC_HOST_PORT_RANGE", PortRange, "", Resources, "Ports for dynamic mappings; none: the kernel's local port range, else 49153-65535."),
    key("ECS_ENABLE_TASK_IAM_ROLE", Switch, "false", Resources, "Offer IAM roles for tasks to ECS, except in network mode host.").json("TaskIAMRoleEnabled"),
    key("ECS_ENABLE_TASK_IAM_ROLE_NETWORK_HOST", Flag, "false", Resources, "Offer IAM roles for tasks in network mode host to ECS.").json("TaskIAMRoleEnabledForNetworkHost"),
    key("ECS_CREDENTIALS_PEER_CHECK", Choice(&["off", "log", "enforce"]), "log", Resources, "When credentials of a role are requested from an address that is neither the task's nor this host's: off: nothing; log: the audit log and a warning; enforce: they are refused. The Go agent has no such setting."),
    key("ECS_ENABLE_TASK_CPU_MEM_LIMIT", Switch, "", Resources, "CPU and memory limits of whole tasks; none: if this host supports them; true: the agent does not start without them.").json("TaskCPUMemLimit"),
    key("ECS_TASK_PIDS_LIMIT", TrimmedInteger(DefaultOutside(1, 4_194_304)), "", Resources, "Maximum number of processes in a task; none: no limit. Needs limits of whole tasks.").json("TaskPidsLimit"),
    key("ECS_CGROUP_PATH", Path, "/sys/fs/cgroup", Resources, "Mount point of the cgroup file system.").json("CgroupPath"),
    key("ECS_CGROUP_CPU_PERIOD", Duration(DefaultOutside(8, 100)), "100ms", Resources, "CFS period of task limits."),
    key("ECS_PROPAGATE_TASK_MEMORY_LIMIT_CGROUPV2", Switch, "false", Resources, "With cgroup v2: a container without memory limit gets its task's.").json("PropagateTaskMemoryLimitCgroupV2"),
    key("ECS_SHARED_VOLUME_MATCH_FULL_CONFIG", Switch, "false", Resources, "Compare options and labels of shared volumes too.").json("SharedVolumeMatchFullConfig"),
    key("ECS_VOLUME_PLUGIN_CAPABILITIES", Names, "[]", Resources, "Capabilities of amazon-ecs-volume-plugin, if it is installed: efsAuth.").json("VolumePluginCapabilities"),
    key("ECS_ENABLE_CONTAINER_METADATA", Switch, "false", Resources, "Metadata file in each container.").json("ContainerMetadataEnabled"),
    key("ECS_ENABLE_AWSLOGS_EXECUTIONROLE_OVERRIDE", Switch, "false", Resources, "Offer the awslogs driver with the task execution role to ECS.").json("OverrideAWSLogsExecutionRole"),
    key("ECS_TASK_METADATA_RPS_LIMIT", Rates, "40,60", Resources, "Requests a second to the task metadata endpoint, steady and at once, from one address for one path; in JSON two fields.").json("TaskMetadataSteadyStateRate"),
    key("ECS_DISABLE_TASK_METADATA_AZ", Flag, "false", Resources, "No availability zone in task metadata.").json("TaskMetadataAZDisabled"),
    key("ECS_ENABLE_GPU_SUPPORT", Flag, "false", Resources, "Give NVIDIA GPUs to tasks; their ids are read from /var/lib/ecs/gpu/nvidia-gpu-info.json.").json("GPUSupportEnabled"),
    key("ECS_NVIDIA_RUNTIME", Trimmed, "nvidia", Resources, "Docker runtime of containers that have GPUs.").json("NvidiaRuntime"),
    key("ECS_ENABLE_INF_SUPPORT", Flag, "false", Resources, "AWS Inferentia and Trainium: the Docker runtime `neuron` for containers that name its devices.").json("InferentiaSupportEnabled"),
    key("ECS_EBSTA_SUPPORTED", Flag, "true", Resources, "EBS volumes of tasks.").json("EBSTASupportEnabled").later("tasks with EBS volumes will not be placed here"),
    key("ECS_ENABLE_FIRELENS_ASYNC", Switch, "true", Resources, "Containers do not wait for a slow FireLens.").json("FirelensAsyncEnabled"),
    key("ECS_GMSA_SUPPORTED", Switch, "false", Resources, "Group managed service accounts (gMSA) for containers, through the credentials fetcher."),
    key("CREDENTIALS_FETCHER_HOST_DIR", Path, "", Resources, "Socket of the credentials fetcher; without it there is no gMSA."),
    key("CREDENTIALS_FETCHER_SECRET_NAME_FOR_DOMAINLESS_GMSA", Text, "", Resources, "Secret of the credentials fetcher, in place of a domain that the instance has not joined."),
    key("ECS_DOMAIN_JOINED_LINUX_INSTANCE", Switch, "false", Resources, "The instance has joined a domain; without that and the secret above, gMSA is for domainless credential specs only."),
    key("ZZZ_SKIP_DOMAIN_JOIN_CHECK_NOT_SUPPORTED_IN_PRODUCTION", Switch, "false", Resources, "For tests of gMSA."),
    key("ECS_FSX_WINDOWS_FILE_SERVER_SUPPORTED", Text, "", Resources, "Always off on Linux.").foreign("it is always off on Linux").harmless(),
    key("ECS_ENABLE_CPU_UNBOUNDED_WINDOWS_WORKAROUND", Text, "", Resources, "Windows only.").foreign("this is not Windows").harmless(),
    key("ECS_ENABLE_MEMORY_UNBOUNDED_WINDOWS_WORKAROUND", Text, "", Resources, "Windows only.").foreign("this is not Windows").harmless(),

    key("ECS_ENABLE_TASK_ENI", Switch, "false", Network, "Tasks may have network interfaces of their own (network mode awsvpc).").json("TaskENIEnabled"),
    key("ECS_ENABLE_HIGH_DENSITY_ENI", Switch, "true", Network, "With ECS_ENABLE_TASK_ENI: these may also be VLANs of a trunk interface, which are more."),
    key("ECS_CNI_PLUGINS_PATH", Path, "/amazon-ecs-cni-plugins", Network, "Directory of the CNI plugins.").json("CNIPluginsPath").foreign("the agent sets up the networks of tasks itself, without plugins").harmless(),
    key("ECS_AWSVPC_BLOCK_IMDS", Switch, "false", Network, "No instance metadata for tasks in network mode awsvpc, and so no credentials of the instance.").json("AWSVPCBlockInstanceMetdata"),
    key("ECS_AWSVPC_ADDITIONAL_LOCAL_ROUTES", Cidrs, "[]", Network, "IPv4 ranges that tasks in network mode awsvpc reach over the instance instead of their interface.").json("AWSVPCAdditionalLocalRoutes").fatal(),
    key("ECS_MANAGE_FIREWALL", Switch, "true", Network, "Make the firewall rules that lead containers to the agent at 169.254.170.2 and guard it, as ecs-init does; false: others make them. `ecs-agent host-setup -print` shows them."),
    key("ECS_BRIDGE_BLOCK_IMDS", Switch, "false", Network, "Firewall rules that keep containers on Docker's bridges from the instance metadata service, and so from the credentials of the instance. Tasks in network mode host reach it all the same."),
    key("ECS_SKIP_LOCALHOST_TRAFFIC_FILTER", Switch, "false", Network, "No firewall rule that keeps other hosts from programs on 127.0.0.1, except from the agent's port 51679."),
    key("ECS_PAUSE_LABELS", Map, "", Network, "Labels of pause containers, which hold the namespaces that the containers of a task share."),

    key("ECS_ENGINE_TASK_CLEANUP_WAIT_DURATION", Duration(DefaultBelow(SECOND)), "3h", Timeouts, "Time before a stopped task's containers are removed.").json("TaskCleanupWaitDuration"),
    key("ECS_ENGINE_TASK_CLEANUP_WAIT_DURATION_JITTER", Duration(Any), "0s", Timeouts, "Maximum random time that is added to ECS_ENGINE_TASK_CLEANUP_WAIT_DURATION.").json("TaskCleanupWaitDurationJitter"),
    key("ECS_CONTAINER_STOP_TIMEOUT", Duration(AtLeast(SECOND)), "30s", Timeouts, "Time between asking a container to stop and killing it.").json("DockerStopTimeout").strict(),
    key("ECS_CONTAINER_START_TIMEOUT", Duration(AtLeast(45 * SECOND)), "3m", Timeouts, "Time limit for starting a container.").json("ContainerStartTimeout").strict(),
    key("ECS_CONTAINER_CREATE_TIMEOUT", Duration(AtLeast(MINUTE)), "4m", Timeouts, "Time limit for creating a container.").json("ContainerCreateTimeout"),
    key("ECS_MANIFEST_PULL_TIMEOUT", Duration(AtLeast(30 * SECOND)), "1m", Timeouts, "Time limit for asking a registry for a digest.").json("ManifestPullTimeout"),
    key("ECS_IMAGE_PULL_INACTIVITY_TIMEOUT", Duration(AtLeast(MINUTE)), "1m", Timeouts, "How long a pull may make no progress.").json("ImagePullInactivityTimeout"),
    key("ECS_IMAGE_PULL_TIMEOUT", Duration(Any), "2h", Timeouts, "Time limit for a whole pull.").json("ImagePullTimeout"),

    key("ECS_IMAGE_PULL_BEHAVIOR", Choice(&["default", "always", "once", "prefer-cached"]), "default", Images, "When an image is pulled, and whether a failed pull may use the local one.").json("ImagePullBehavior"),
    key("ECS_PULL_DEPENDENT_CONTAINERS_UPFRONT", Switch, "false", Images, "Pull images before the containers they wait for have started; a failed pull then looks for the image on this host at once.").json("DependentContainersPullUpfront"),
    key("ECS_DISABLE_IMAGE_CLEANUP", Switch, "false", Images, "No clean-ups of images. Images may still be deleted before a pull: see ECS_IMAGE_DISK_HIGH_PERCENT.").json("ImageCleanupDisabled"),
    key("ECS_IMAGE_CLEANUP_INTERVAL", Duration(DefaultBelow(10 * MINUTE)), "30m", Images, "Time between image clean-ups.").json("ImageCleanupInterval"),
    key("ECS_IMAGE_MINIMUM_CLEANUP_AGE", Duration(Any), "1h", Images, "Age before an image may be deleted.").json("MinimumImageDeletionAge"),
    key("NON_ECS_IMAGE_MINIMUM_CLEANUP_AGE", Duration(Any), "1h", Images, "The same for images that tasks did not pull.").json("NonECSMinimumImageDeletionAge"),
    key("ECS_NUM_IMAGES_DELETE_PER_CYCLE", Integer(DefaultBelow(1)), "5", Images, "Images deleted in one clean-up.").json("NumImagesToDeletePerCycle"),
    key("NONECS_NUM_CONTAINERS_DELETE_PER_CYCLE", Integer(Signed), "5", Images, "Foreign containers deleted in one clean-up.").json("NumNonECSContainersToDeletePerCycle"),
    key("ECS_ENABLE_UNTRACKED_IMAGE_CLEANUP", Switch, "false", Images, "Delete images and containers that are not from tasks.").json("DeleteNonECSImagesEnabled"),
    key("ECS_EXCLUDE_UNTRACKED_IMAGE", List, "", Images, "Images never to delete.").json("ImageCleanupExclusionList"),
    key("ECS_IMAGE_DISK_HIGH_PERCENT", Integer(DefaultOutside(1, 100)), "", Images, "Usage of the disk with Docker's images, in percent, above which unused images are deleted before a pull, the least recently used first, whatever their age."),
    key("ECS_IMAGE_DISK_LOW_PERCENT", Integer(DefaultOutside(1, 100)), "", Images, "Disk usage, in percent, down to which they are deleted; none: down to ECS_IMAGE_DISK_HIGH_PERCENT."),
    key("ECS_DISABLE_DOCKER_HEALTH_CHECK", Switch, "false", Images, "Do not offer container health checks to ECS.").json("DisableDockerHealthCheck"),
    key("ECS_DISABLE_METRICS", Switch, "false", Images, "No statistics of containers, and no metrics to ECS.").json("DisableMetrics"),
    key("ECS_POLL_METRICS", Switch, "false", Images, "Read statistics of containers every ECS_POLLING_METRICS_WAIT_DURATION instead of once a second.").json("PollMetrics"),
    key("ECS_POLLING_METRICS_WAIT_DURATION", Duration(Any), "10s", Images, "Time between two readings of statistics, from 5s to 20s, if ECS_POLL_METRICS is true.").json("PollingMetricsWaitDuration"),

    key("OTEL_EXPORTER_OTLP_ENDPOINT", Endpoint, "", Traces, "Collector of traces, such as http://collector:4318: requests go to /v1/traces below it. None: no traces. The Go agent has no traces."),
    key("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", Endpoint, "", Traces, "The whole URL for traces, used as it is; it takes precedence over OTEL_EXPORTER_OTLP_ENDPOINT."),
    key("OTEL_EXPORTER_OTLP_TRACES_HEADERS", Headers, "", Traces, "Headers of requests to the collector, such as an API key; never shown. OTEL_EXPORTER_OTLP_HEADERS is the common name.").alias("OTEL_EXPORTER_OTLP_HEADERS"),
    key("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", TrimmedInteger(DefaultOutside(1, 600_000)), "10000", Traces, "Time limit of a request to the collector, in milliseconds. OTEL_EXPORTER_OTLP_TIMEOUT is the common name.").alias("OTEL_EXPORTER_OTLP_TIMEOUT"),
    key("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", AnyCase(&["http/json"]), "http/json", Traces, "Form of requests. Only http/json is supported; it is used in place of any other. OTEL_EXPORTER_OTLP_PROTOCOL is the common name.").alias("OTEL_EXPORTER_OTLP_PROTOCOL"),
    key("OTEL_SERVICE_NAME", Trimmed, "", Traces, "The attribute service.name of traces; none: that of OTEL_RESOURCE_ATTRIBUTES, or ecs-agent."),
    key("OTEL_RESOURCE_ATTRIBUTES", Pairs, "", Traces, "Further attributes of the agent in traces."),
    key("OTEL_SDK_DISABLED", AnyCase(&["true", "false"]), "false", Traces, "No traces, whatever the other settings say."),

    key("HTTP_PROXY", Proxy, "", Proxies, "Proxy for http, and for https without HTTPS_PROXY.").alias("http_proxy").fatal(),
    key("HTTPS_PROXY", Proxy, "", Proxies, "Proxy for https and for the connections to ECS.").alias("https_proxy").fatal(),
    key("NO_PROXY", Text, "", Proxies, "Hosts, domains, addresses and ranges reached without a proxy; none: 169.254.169.254,169.254.170.2 and Docker. The instance metadata service and Docker are never asked through a proxy, whatever the list says.").alias("no_proxy"),

    field("NoIID", Flag, "false", "Register without the instance identity document; always so with ECS_EXTERNAL."),
    field("RuntimeStatsLogFile", Path, "/log/agent-runtime-stats.log", "File of the statistics of the agent itself (ECS_ENABLE_RUNTIME_STATS)."),
    field("PauseContainerTarballPath", Path, "/images/amazon-ecs-pause.tar", "Archive of the pause container's image; if it is missing, the agent makes the image."),
    field("PauseContainerImageName", Text, "amazon/amazon-ecs-pause", "Name of that image; another name than the default is not loaded from the archive.").later("the agent uses its own image for pause containers"),
    field("PauseContainerTag", Text, "0.1.0", "Tag of that image; an image with another tag than the default is not loaded from the archive.").later("the agent uses its own image for pause containers"),
    field("OverrideAWSVPCLocalIPv4Address", LocalAddress, "", "Address of every task in network mode awsvpc on the link to its instance; only one such task can run then. None: each task gets an address of its own."),
    field("ENIPauseContainerCleanupDelaySeconds", Integer(Signed), "0", "Seconds between the end of a task in network mode awsvpc and that of its network; 0 or below: none."),
    field("CSIDriverSocketPath", Path, "/var/run/ecs/ebs-csi-driver/csi-driver.sock", "Socket of the EBS driver.").later("no task with EBS volumes runs here, so it is not needed").harmless(),
    field("NodeStageTimeout", Duration(Any), "2s", "Time limit for staging an EBS volume.").later("no task with EBS volumes runs here, so it is not needed").harmless(),
    field("NodeUnstageTimeout", Duration(Any), "30s", "Time limit for unstaging an EBS volume.").later("no task with EBS volumes runs here, so it is not needed").harmless(),
    field("IMDSIAMRolesEnabled", Flag, "false", "Roles from the instance metadata service.").later("tasks get no roles from the instance metadata service"),
    field("InstanceENIDNSServerList", Text, "", "Windows only.").foreign("this is not Windows").harmless(),
    field("PlatformVariables", Text, "", "Without effect on Linux.").foreign("it has no effect on Linux").harmless(),

    key("ECS_INIT_DOCKER_LOG_FILE_SIZE", Text, "", Init, "Log size of the agent's container.").foreign("the log belongs to journald or Docker").harmless(),
    key("ECS_INIT_DOCKER_LOG_FILE_NUM", Text, "", Init, "Log files of the agent's container.").foreign("the log belongs to journald or Docker").harmless(),
    key("ECS_LOG_OPTS", Text, "", Init, "Log options of the agent's container.").foreign("the log belongs to journald or Docker").harmless(),
    key("ECS_AGENT_LABELS", Text, "", Init, "Labels of the agent's container.").foreign("ecs-init sets it for its agent's container; here nothing has these labels").harmless(),
    key("ECS_AGENT_RUN_PRIVILEGED", Text, "", Init, "Privileged agent container.").foreign("ecs-init sets it for its agent's container").harmless(),
    key("ECS_AGENT_APPARMOR_PROFILE", Text, "", Init, "AppArmor profile of the agent's container.").foreign("ecs-init sets it for its agent's container").harmless(),
    key("ECS_AGENT_PID_NAMESPACE_HOST", Text, "", Init, "Agent container in the host's pid namespace.").foreign("ecs-init sets it for its agent's container").harmless(),
    key("ECS_OFFHOST_INTROSPECTION_INTERFACE_NAME", Text, "", Init, "ecs-init closed port 51678 on this interface by a firewall rule; not needed here. To open the port, see ECS_ALLOW_OFFHOST_INTROSPECTION_ACCESS.").foreign("this agent checks each client itself; to open the port, see ECS_ALLOW_OFFHOST_INTROSPECTION_ACCESS").harmless(),
    key("CREDENTIALS_FETCHER_HOST", Text, "", Init, "Socket of the credentials fetcher.").foreign("the socket of the credentials fetcher is that of CREDENTIALS_FETCHER_HOST_DIR"),
];

/// Fields of the Go agent's configuration that its JSON documents cannot set, because the environment or a flag always sets them,
/// each with the variable or flag to use.
pub(super) const ENVIRONMENT_ONLY: &[(&str, &str)] = &[
    ("AcceptInsecureCert", "the flag -k"),
    ("CgroupCPUPeriod", "ECS_CGROUP_CPU_PERIOD"),
    ("DynamicHostPortRange", "ECS_DYNAMIC_HOST_PORT_RANGE"),
    ("ENITrunkingEnabled", "ECS_ENABLE_HIGH_DENSITY_ENI"),
    ("FSxWindowsFileServerCapable", "ECS_FSX_WINDOWS_FILE_SERVER_SUPPORTED"),
    ("GMSACapable", "ECS_GMSA_SUPPORTED"),
    ("GMSADomainlessCapable", "ECS_GMSA_SUPPORTED"),
    ("InstanceIPCompatibility", "ECS_INSTANCE_IP_COMPATIBILITY"),
    ("PrometheusMetricsEnabled", "ECS_ENABLE_PROMETHEUS_METRICS"),
];

/// The row of a variable.
pub fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.is_called(name))
}

/// The row of a field of a JSON document. Case does not matter, as in Go.
pub(super) fn find_json(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.json.is_some_and(|json| json.eq_ignore_ascii_case(name)))
}

#[cfg(test)]
mod tests {
    use super::super::parsed::Parsed;
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_name_is_there_once() {
        let mut seen = BTreeSet::new();
        let mut json = BTreeSet::new();
        for key in KEYS {
            for name in [Some(key.name), key.alias].into_iter().flatten() {
                assert!(seen.insert(name), "{name} twice");
            }
            if let Some(name) = key.json {
                assert!(json.insert(name.to_ascii_lowercase()), "{name} twice");
            }
        }
        for (name, instead) in ENVIRONMENT_ONLY {
            assert!(json.insert(name.to_ascii_lowercase()), "{name} twice");
            assert!(instead.starts_with("the flag") || find(instead).is_some(), "{instead}");
        }
        assert!(seen.len() > 120, "the table lost rows: {}", seen.len());
    }

    #[test]
    fn every_default_is_one_an_operator_could_write() {
        for key in KEYS.iter().filter(|key| !key.default.is_empty()) {
            let parsed = key.kind.parse(key.default, key.default);
            assert!(matches!(parsed, Parsed::Value(_) | Parsed::Unset), "{}: {parsed:?}", key.name);
        }
    }

    #[test]
    fn every_row_without_effect_has_a_consequence() {
        for key in KEYS {
            let is_unused = matches!(key.stage, Stage::Later | Stage::Foreign);
            assert_eq!(key.consequence.len() > 8, is_unused, "{}", key.name);
            assert!(!key.consequence.ends_with('.') && key.severity < Severity::Fatal, "{}", key.name);
            assert!(is_unused || key.severity == Severity::Changes, "{}", key.name);
        }
    }

    #[test]
    fn every_row_has_a_sentence_of_help() {
        for key in KEYS {
            assert!(key.help.ends_with('.') && key.help.len() > 4, "{}", key.name);
        }
    }
}
