//! [`Config`]: all settings, typed, complete, and unchanged for the life of the process.
//!
//! `envy` fills it from the canonical values of `resolve`, one field for each row of the table at stage `Now`. The name of a
//! field says what it means; serde finds it by the lower-case name of its variable. Invariant: no field has a default here
//! (defaults are in the table; a missing value means that the table has none), and its `Debug` may be logged. Values: spec
//! `config.md` §2.

use super::log::{LogFormat, LogLevel, Rollover};
use crate::input::prefix::prefix;
use ecs_core::model::{Prefix, Secret, Span};
use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;

/// The configuration of the agent.
#[derive(Clone, Debug, Deserialize)]
pub struct Config {
    /// The cluster to register into; `None`: `default`, created if absent.
    #[serde(rename = "ecs_cluster")]
    pub cluster: Option<String>,
    /// The AWS region; `None`: the metadata service is asked, and if it has no region, the agent refuses to start with
    /// [`super::region_missing`].
    #[serde(rename = "aws_default_region")]
    pub region: Option<String>,
    /// The endpoint of the ECS API, with scheme. It takes precedence over the two `aws_endpoint_url` fields.
    #[serde(rename = "ecs_backend_host")]
    pub backend_host: Option<String>,
    /// ECS Anywhere: there is no EC2 instance metadata and no identity document; the region is set.
    #[serde(rename = "ecs_external")]
    pub external: bool,
    /// The address of Docker: `unix:///path` or `tcp://host:port`.
    #[serde(rename = "docker_host")]
    pub docker_host: String,
    /// Attributes of the container instance, sent only with the first registration.
    #[serde(rename = "ecs_instance_attributes", default, deserialize_with = "from_json")]
    pub instance_attributes: BTreeMap<String, String>,
    /// Tags of the container instance.
    #[serde(rename = "ecs_container_instance_tags", default, deserialize_with = "from_json")]
    pub container_instance_tags: BTreeMap<String, String>,
    /// The source of further tags for the container instance.
    #[serde(rename = "ecs_container_instance_propagate_tags_from")]
    pub propagate_tags_from: TagSource,
    /// Registration waits until Auto Scaling takes the instance out of the warm pool.
    #[serde(rename = "ecs_warm_pools_check")]
    pub warm_pools_check: bool,
    /// The instance drains when a Spot interruption is announced.
    #[serde(rename = "ecs_enable_spot_instance_draining")]
    pub spot_draining: bool,
    /// The instance drains when EC2 recommends to replace it.
    #[serde(rename = "ecs_enable_rebalance_draining")]
    pub rebalance_draining: bool,
    /// The value of the attribute `ecs.os-type-detailed`; empty: it is not sent.
    #[serde(rename = "ecs_detailed_os_family")]
    pub detailed_os_family: String,
    /// No instance identity document is sent. Always true for external instances.
    #[serde(rename = "noiid")]
    pub no_identity_document: bool,

    /// The form of `engine_auth_data`: `docker` or `dockercfg`; `None`: not set.
    #[serde(rename = "ecs_engine_auth_type")]
    pub engine_auth_type: Option<String>,
    /// Registry credentials: a valid JSON document, verbatim. Its form is checked where it is used.
    #[serde(rename = "ecs_engine_auth_data", default, deserialize_with = "secret")]
    pub engine_auth_data: Option<Secret>,
    /// Mirrors, by the host of the registry that they mirror.
    #[serde(rename = "ecs_image_registry_mirrors", default, deserialize_with = "from_json")]
    pub image_registry_mirrors: BTreeMap<String, String>,

    /// The endpoint of every AWS service that has no endpoint setting of its own, with scheme.
    #[serde(rename = "aws_endpoint_url")]
    pub aws_endpoint_url: Option<String>,
    /// Endpoint of the ECS API, with scheme.
    #[serde(rename = "aws_endpoint_url_ecs")]
    pub aws_endpoint_url_ecs: Option<String>,
    /// Endpoint of the EC2 API, with scheme.
    #[serde(rename = "aws_endpoint_url_ec2")]
    pub aws_endpoint_url_ec2: Option<String>,
    /// Endpoint of the ECR API, with scheme.
    #[serde(rename = "aws_endpoint_url_ecr")]
    pub aws_endpoint_url_ecr: Option<String>,
    /// Endpoint of Secrets Manager, with scheme.
    #[serde(rename = "aws_endpoint_url_secrets_manager")]
    pub aws_endpoint_url_secrets_manager: Option<String>,
    /// Endpoint of Systems Manager, with scheme.
    #[serde(rename = "aws_endpoint_url_ssm")]
    pub aws_endpoint_url_ssm: Option<String>,
    /// Endpoint of S3, with scheme.
    #[serde(rename = "aws_endpoint_url_s3")]
    pub aws_endpoint_url_s3: Option<String>,
    /// Instance metadata service, with scheme.
    #[serde(rename = "aws_ec2_metadata_service_endpoint")]
    pub imds_endpoint: String,
    /// The access key id. The SDK reads the environment itself, but not `ecs.config`, so the agent passes keys in the file on.
    #[serde(rename = "aws_access_key_id", default, deserialize_with = "secret")]
    pub access_key_id: Option<Secret>,
    /// Secret access key.
    #[serde(rename = "aws_secret_access_key", default, deserialize_with = "secret")]
    pub secret_access_key: Option<Secret>,
    /// Session token of temporary keys.
    #[serde(rename = "aws_session_token", default, deserialize_with = "secret")]
    pub session_token: Option<Secret>,

    /// The profile in the credentials file that a program outside the agent renews.
    #[serde(rename = "ecs_alternate_credential_profile")]
    pub alternate_credential_profile: String,
    /// FIPS endpoints are used.
    #[serde(rename = "aws_use_fips_endpoint")]
    pub fips: bool,
    /// Dual-stack endpoints are used.
    #[serde(rename = "aws_use_dualstack_endpoint")]
    pub dual_stack: bool,
    /// Maximum number of attempts for one call to AWS.
    #[serde(rename = "aws_max_attempts")]
    pub max_attempts: u32,
    /// How calls to AWS are retried.
    #[serde(rename = "aws_retry_mode")]
    pub retry_mode: RetryMode,

    /// Directory of the state store.
    #[serde(rename = "ecs_datadir")]
    pub data_dir: PathBuf,
    /// The state is kept across restarts. Also true if only the data directory was set.
    #[serde(rename = "ecs_checkpoint")]
    pub checkpoint: bool,
    /// The data directory's parent as the Docker daemon sees it.
    #[serde(rename = "ecs_host_data_dir")]
    pub host_data_dir: PathBuf,
    /// Containers get a metadata file.
    #[serde(rename = "ecs_enable_container_metadata")]
    pub container_metadata: bool,
    /// There are no statistics and no metrics of containers.
    #[serde(rename = "ecs_disable_metrics")]
    pub metrics_disabled: bool,
    /// Statistics are read every [`Self::polling_metrics_wait`] instead of once a second.
    #[serde(rename = "ecs_poll_metrics")]
    pub poll_metrics: bool,
    /// The time between two readings, if [`Self::poll_metrics`] is true.
    #[serde(rename = "ecs_polling_metrics_wait_duration")]
    pub polling_metrics_wait: Span,
    /// Task metadata names no availability zone.
    #[serde(rename = "ecs_disable_task_metadata_az")]
    pub task_metadata_without_zone: bool,
    /// Host that `-healthcheck` asks.
    #[serde(rename = "ecs_agent_healthcheck_host")]
    pub healthcheck_host: String,
    /// Port 51678 serves everybody, not only this host and containers on Docker's default bridge.
    #[serde(rename = "ecs_allow_offhost_introspection_access")]
    pub offhost_introspection: bool,
    /// The agent makes the firewall rules for 169.254.170.2; false: others make them.
    #[serde(rename = "ecs_manage_firewall")]
    pub manage_firewall: bool,
    /// Containers on Docker's bridges are kept from the instance metadata service.
    #[serde(rename = "ecs_bridge_block_imds")]
    pub bridge_block_imds: bool,
    /// Other hosts are not kept from programs on 127.0.0.1.
    #[serde(rename = "ecs_skip_localhost_traffic_filter")]
    pub skip_localhost_filter: bool,
    /// Port 51678 listens on 127.0.0.1 only.
    #[serde(rename = "ecs_introspection_loopback_only")]
    pub introspection_on_loopback: bool,
    /// Metrics are served on port 51680.
    #[serde(rename = "ecs_enable_prometheus_metrics")]
    pub prometheus_metrics: bool,
    /// Port 51680 serves other hosts, too.
    #[serde(rename = "ecs_allow_offhost_prometheus_access")]
    pub offhost_metrics: bool,
    /// The least severe messages that are logged; see [`super::LogSettings`] for the flags.
    #[serde(rename = "ecs_loglevel")]
    pub(super) log_level: LogLevel,
    /// The same for the log file; `None`: it follows from others.
    #[serde(rename = "ecs_loglevel_on_instance")]
    pub(super) log_level_on_instance: Option<LogLevel>,
    /// The log driver of the agent's container. Only its presence matters.
    #[serde(rename = "ecs_log_driver")]
    pub(super) log_driver: Option<String>,
    /// The format of log lines.
    #[serde(rename = "ecs_log_output_format")]
    pub(super) log_format: LogFormat,
    /// The log file; `None`: there is none.
    #[serde(rename = "ecs_logfile")]
    pub(super) log_file: Option<PathBuf>,
    /// When the log file is replaced by a new one.
    #[serde(rename = "ecs_log_rollover_type")]
    pub(super) log_rollover: Rollover,
    /// The size of a log file, in MB.
    #[serde(rename = "ecs_log_max_file_size_mb")]
    pub(super) log_max_file_size_mb: f64,
    /// Number of earlier log files that are kept; below 1: all.
    #[serde(rename = "ecs_log_max_roll_count")]
    pub(super) log_max_roll_count: i64,
    /// The log of requests for credentials.
    #[serde(rename = "ecs_audit_logfile")]
    pub(super) audit_file: PathBuf,
    /// There is no log of requests for credentials.
    #[serde(rename = "ecs_audit_logfile_disabled")]
    pub(super) audit_disabled: bool,
    /// Figures of the agent itself are written to a file.
    #[serde(rename = "ecs_enable_runtime_stats")]
    pub(super) runtime_stats: bool,
    /// This file.
    #[serde(rename = "runtimestatslogfile")]
    pub(super) runtime_stats_file: PathBuf,

    /// TCP ports that tasks must not use.
    #[serde(rename = "ecs_reserved_ports")]
    pub reserved_ports: Vec<u16>,
    /// UDP ports that tasks must not use.
    #[serde(rename = "ecs_reserved_ports_udp")]
    pub reserved_ports_udp: Vec<u16>,
    /// Memory that tasks must not use, in MiB.
    #[serde(rename = "ecs_reserved_memory")]
    pub reserved_memory_mib: u16,
    /// Docker log drivers that tasks may use. ECS knows each of them.
    #[serde(rename = "ecs_available_logging_drivers", deserialize_with = "from_json")]
    pub logging_drivers: Vec<String>,
    /// Privileged containers are refused.
    #[serde(rename = "ecs_disable_privileged")]
    pub privileged_disabled: bool,
    /// SELinux labels may be used.
    #[serde(rename = "ecs_selinux_capable")]
    pub selinux_capable: bool,
    /// AppArmor profiles may be used.
    #[serde(rename = "ecs_apparmor_capable")]
    pub apparmor_capable: bool,
    /// Tasks may have GPUs.
    #[serde(rename = "ecs_enable_gpu_support")]
    pub gpus: bool,
    /// Docker runtime of containers that have GPUs.
    #[serde(rename = "ecs_nvidia_runtime")]
    pub nvidia_runtime: String,
    /// Tasks may have AWS Inferentia and Trainium.
    #[serde(rename = "ecs_enable_inf_support")]
    pub inferentia: bool,
    /// Tasks may have network interfaces of their own (network mode `awsvpc`).
    #[serde(rename = "ecs_enable_task_eni")]
    pub task_eni: bool,
    /// The interfaces of tasks may be VLANs of a trunk interface. Has no effect without `task_eni`.
    #[serde(rename = "ecs_enable_high_density_eni")]
    pub eni_trunking: bool,
    /// Tasks in network mode `awsvpc` do not reach the instance metadata service.
    #[serde(rename = "ecs_awsvpc_block_imds")]
    pub awsvpc_block_imds: bool,
    /// Ranges that tasks in network mode `awsvpc` reach over the instance.
    #[serde(rename = "ecs_awsvpc_additional_local_routes", deserialize_with = "ranges")]
    pub awsvpc_local_routes: Vec<Prefix<Ipv4Addr>>,
    /// The address of every task in network mode `awsvpc` on the link to its instance; `None`: each has an address of its own.
    #[serde(rename = "overrideawsvpclocalipv4address")]
    pub awsvpc_local_address: Option<Ipv4Addr>,
    /// Time between the end of a task in network mode `awsvpc` and that of its network.
    #[serde(rename = "enipausecontainercleanupdelayseconds", deserialize_with = "seconds")]
    pub pause_cleanup_delay: Span,
    /// Labels of pause containers.
    #[serde(rename = "ecs_pause_labels", default, deserialize_with = "from_json")]
    pub pause_labels: BTreeMap<String, String>,
    /// Archive of the pause container's image.
    #[serde(rename = "pausecontainertarballpath")]
    pub pause_archive: std::path::PathBuf,
    /// IPv6 port bindings are left out of reports.
    #[serde(rename = "ecs_exclude_ipv6_portbinding")]
    pub exclude_ipv6_port_binding: bool,
    /// Ports for dynamic mappings; `None`: the kernel's local port range.
    #[serde(rename = "ecs_dynamic_host_port_range")]
    pub dynamic_host_port_range: Option<PortRange>,

    /// Limits of whole tasks are set; `None`: they are set if this host supports them.
    #[serde(rename = "ecs_enable_task_cpu_mem_limit")]
    pub task_limits: Option<bool>,
    /// Maximum number of processes in a task; `None`: no limit.
    #[serde(rename = "ecs_task_pids_limit")]
    pub task_pids_limit: Option<u32>,
    /// ECS may place tasks with a task role here, except in network mode host.
    #[serde(rename = "ecs_enable_task_iam_role")]
    pub task_roles: bool,
    /// ECS may place tasks with a task role in network mode host here.
    #[serde(rename = "ecs_enable_task_iam_role_network_host")]
    pub task_roles_in_host_network: bool,
    /// ECS may place tasks here whose awslogs driver uses the task execution role.
    #[serde(rename = "ecs_enable_awslogs_executionrole_override")]
    pub awslogs_with_execution_role: bool,
    /// What is done about a request for credentials from an address that is not the task's.
    #[serde(rename = "ecs_credentials_peer_check")]
    pub credentials_peer_check: PeerCheck,
    /// How often one address may request one path of the task metadata endpoint.
    #[serde(rename = "ecs_task_metadata_rps_limit")]
    pub task_metadata_rates: Rates,
    /// The mount point of the cgroup file system.
    #[serde(rename = "ecs_cgroup_path")]
    pub cgroup_path: PathBuf,
    /// The CFS period of task limits.
    #[serde(rename = "ecs_cgroup_cpu_period")]
    pub cgroup_cpu_period: Span,
    /// With cgroup v2, a container without a memory limit gets that of its task.
    #[serde(rename = "ecs_propagate_task_memory_limit_cgroupv2")]
    pub propagate_task_memory_limit: bool,
    /// Existing shared volumes must match the requested labels and options.
    #[serde(rename = "ecs_shared_volume_match_full_config")]
    pub shared_volume_match_full_config: bool,
    /// Capabilities of the volume plugin.
    #[serde(rename = "ecs_volume_plugin_capabilities", deserialize_with = "from_json")]
    pub volume_plugin_capabilities: Vec<String>,

    /// The time before a stopped task's containers are removed.
    #[serde(rename = "ecs_engine_task_cleanup_wait_duration")]
    pub task_cleanup_wait: Span,
    /// Maximum random time that is added to [`Self::task_cleanup_wait`].
    #[serde(rename = "ecs_engine_task_cleanup_wait_duration_jitter")]
    pub task_cleanup_wait_jitter: Span,
    /// The time between asking a container to stop and killing it.
    #[serde(rename = "ecs_container_stop_timeout")]
    pub container_stop_timeout: Span,
    /// The time limit for starting a container.
    #[serde(rename = "ecs_container_start_timeout")]
    pub container_start_timeout: Span,
    /// The time limit for creating a container.
    #[serde(rename = "ecs_container_create_timeout")]
    pub container_create_timeout: Span,
    /// The time limit for asking a registry for a digest.
    #[serde(rename = "ecs_manifest_pull_timeout")]
    pub manifest_pull_timeout: Span,
    /// Maximum time that a pull may make no progress.
    #[serde(rename = "ecs_image_pull_inactivity_timeout")]
    pub image_pull_inactivity_timeout: Span,
    /// The time limit for a whole pull.
    #[serde(rename = "ecs_image_pull_timeout")]
    pub image_pull_timeout: Span,
    /// When an image is pulled, and whether a failed pull may use the local one.
    #[serde(rename = "ecs_image_pull_behavior")]
    pub image_pull_behavior: ImagePullBehavior,
    /// Images of containers that still wait for other containers are pulled early.
    #[serde(rename = "ecs_pull_dependent_containers_upfront")]
    pub pull_upfront: bool,
    /// Containers do not wait for a slow log router.
    #[serde(rename = "ecs_enable_firelens_async")]
    pub firelens_async: bool,
    /// Containers may have credential specs. If true, there is a credentials fetcher, unless the check was skipped.
    #[serde(rename = "ecs_gmsa_supported")]
    pub gmsa: bool,
    /// The socket of the credentials fetcher; empty: there is none.
    #[serde(rename = "credentials_fetcher_host_dir", default)]
    pub credentials_fetcher: PathBuf,
    /// The secret with which the credentials fetcher replaces a domain; `None`: not set.
    #[serde(rename = "credentials_fetcher_secret_name_for_domainless_gmsa")]
    pub(super) gmsa_secret: Option<String>,
    /// The instance has joined a domain.
    #[serde(rename = "ecs_domain_joined_linux_instance")]
    pub(super) is_domain_joined: bool,
    /// The domain and the fetcher are not checked (for tests).
    #[serde(rename = "zzz_skip_domain_join_check_not_supported_in_production")]
    pub(super) skips_domain_check: bool,
    /// Images are never deleted.
    #[serde(rename = "ecs_disable_image_cleanup")]
    pub image_cleanup_disabled: bool,
    /// The time between two image clean-ups.
    #[serde(rename = "ecs_image_cleanup_interval")]
    pub image_cleanup_interval: Span,
    /// The time since its pull after which an image of tasks may be deleted.
    #[serde(rename = "ecs_image_minimum_cleanup_age")]
    pub image_minimum_cleanup_age: Span,
    /// The time since its build after which another image may be deleted.
    #[serde(rename = "non_ecs_image_minimum_cleanup_age")]
    pub foreign_image_minimum_cleanup_age: Span,
    /// Maximum number of images that one clean-up deletes; above 0.
    #[serde(rename = "ecs_num_images_delete_per_cycle")]
    pub images_per_cleanup: i64,
    /// Maximum number of containers from outside ECS that one clean-up deletes; below 1: none.
    #[serde(rename = "nonecs_num_containers_delete_per_cycle")]
    pub containers_per_cleanup: i64,
    /// Images and containers that do not belong to tasks are deleted too.
    #[serde(rename = "ecs_enable_untracked_image_cleanup")]
    pub untracked_image_cleanup: bool,
    /// Images that are never deleted.
    #[serde(rename = "ecs_exclude_untracked_image", default, deserialize_with = "from_json")]
    pub exclude_untracked_images: Vec<String>,
    /// Disk usage, in percent, above which images are deleted before a pull; `None`: never.
    #[serde(rename = "ecs_image_disk_high_percent")]
    pub image_disk_high_percent: Option<u8>,
    /// Disk usage, in percent, down to which images are then deleted; `None`: down to [`Self::image_disk_high_percent`].
    #[serde(rename = "ecs_image_disk_low_percent")]
    pub image_disk_low_percent: Option<u8>,
    /// Container health checks are not offered to ECS.
    #[serde(rename = "ecs_disable_docker_health_check")]
    pub docker_health_check_disabled: bool,

    #[serde(rename = "otel_exporter_otlp_endpoint")]
    pub(super) otlp_endpoint: Option<String>,
    #[serde(rename = "otel_exporter_otlp_traces_endpoint")]
    pub(super) otlp_traces_endpoint: Option<String>,
    #[serde(rename = "otel_exporter_otlp_traces_headers", default, deserialize_with = "secret")]
    pub(super) otlp_headers: Option<Secret>,
    #[serde(rename = "otel_exporter_otlp_traces_timeout")]
    pub(super) otlp_timeout_ms: u64,
    /// The form of requests. There is only one.
    #[serde(rename = "otel_exporter_otlp_traces_protocol")]
    pub otlp_protocol: String,
    #[serde(rename = "otel_service_name")]
    pub(super) otel_service_name: Option<String>,
    #[serde(rename = "otel_resource_attributes", default, deserialize_with = "from_json")]
    pub(super) otel_resource_attributes: BTreeMap<String, String>,
    #[serde(rename = "otel_sdk_disabled")]
    pub(super) otel_disabled: bool,

    #[serde(rename = "http_proxy", default, deserialize_with = "secret")]
    pub(super) http_proxy: Option<Secret>,
    #[serde(rename = "https_proxy", default, deserialize_with = "secret")]
    pub(super) https_proxy: Option<Secret>,
    #[serde(rename = "no_proxy")]
    pub(super) no_proxy: Option<String>,
}

impl Config {
    /// Credential specs that need a domain can be used. Those without a domain only need a credentials fetcher.
    pub fn gmsa_in_domain(&self) -> bool {
        let has_secret = self.gmsa_secret.as_ref().is_some_and(|name| !name.is_empty());
        self.gmsa && (has_secret || self.is_domain_joined || self.skips_domain_check)
    }

    /// The proxies in effect (spec `config.md` §2.6). https falls back to the http proxy. The metadata addresses and Docker are
    /// reached without a proxy, unless the operator set the list.
    pub fn proxy(&self) -> ProxySettings {
        ProxySettings {
            http: self.http_proxy.clone(),
            https: self.https_proxy.clone(),
            no_proxy: self.no_proxy.clone().unwrap_or_default(),
        }
    }
}

/// The proxies by scheme. The URL of a proxy may hold a password. Loopback and `localhost` are always reached without a proxy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProxySettings {
    /// The proxy for `http` URLs; `None`: no proxy.
    pub http: Option<Secret>,
    /// The proxy for `https` and `wss` URLs; `None`: no proxy.
    pub https: Option<Secret>,
    /// Comma list of hosts, domains, addresses and ranges that are reached without a proxy.
    pub no_proxy: String,
}

/// The source of tags of the container instance besides the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TagSource {
    /// No further tags.
    None,
    /// The tags of the EC2 instance.
    Ec2Instance,
}

/// How calls to AWS are retried; the names are the SDK's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RetryMode {
    /// Retries with back-off.
    Standard,
    /// Like `Standard`, with a limit of calls a second once calls are throttled.
    Adaptive,
}

/// The rule by which images are pulled (spec `images.md`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ImagePullBehavior {
    /// Pull; if that fails, use the local image.
    Default,
    /// Pull; if that fails, the task fails.
    Always,
    /// Pull only images that this agent has never pulled before.
    Once,
    /// Pull only images that are not on this host.
    PreferCached,
}

/// What is done about a request for credentials of a role from an address that is neither the task's nor this host's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PeerCheck {
    /// Nothing.
    Off,
    /// It is logged.
    Log,
    /// It is refused.
    Enforce,
}

/// How many requests are answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Vec<u64>")]
pub struct Rates {
    /// Requests a second on average; above 0.
    pub steady: u64,
    /// Requests at once after a pause; above 0.
    pub burst: u64,
}

impl TryFrom<Vec<u64>> for Rates {
    type Error = &'static str;

    fn try_from(rates: Vec<u64>) -> Result<Self, Self::Error> {
        match rates[..] {
            [steady, burst] if steady > 0 && burst > 0 => Ok(Self { steady, burst }),
            _ => Err("two rates above 0"),
        }
    }
}

/// A range of ports, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Vec<u16>")]
pub struct PortRange {
    /// Lowest port.
    pub first: u16,
    /// Highest port.
    pub last: u16,
}

impl TryFrom<Vec<u16>> for PortRange {
    type Error = &'static str;

    fn try_from(ports: Vec<u16>) -> Result<Self, Self::Error> {
        match ports[..] {
            [first, last] if first <= last => Ok(Self { first, last }),
            _ => Err("a port range has two ends"),
        }
    }
}

/// Reads lists and maps, which are passed as JSON: envy would split a list at each comma.
fn from_json<'de, D: Deserializer<'de>, T: DeserializeOwned>(deserializer: D) -> Result<T, D::Error> {
    let text = String::deserialize(deserializer)?;
    serde_json::from_str(&text).map_err(serde::de::Error::custom)
}

/// Reads network ranges.
fn ranges<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Prefix<Ipv4Addr>>, D::Error> {
    let texts: Vec<String> = from_json(deserializer)?;
    let ranges = texts.iter().map(|text| prefix(text)).collect::<Option<_>>();
    ranges.ok_or_else(|| serde::de::Error::custom("a network range is malformed"))
}

/// Reads a number of seconds; a negative one counts as 0.
fn seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Span, D::Error> {
    let number: i64 = from_json(deserializer)?;
    Ok(Span::secs(u64::try_from(number).unwrap_or(0)))
}

fn secret<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Secret>, D::Error> {
    String::deserialize(deserializer).map(|text| Some(Secret::new(text)))
}
