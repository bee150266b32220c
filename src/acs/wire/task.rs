//! A task and its containers in a payload (spec `acs.md` §6).
//!
//! Owns the names and types of their members, each of which may be missing. It does not interpret members. The invariant: a
//! member that only leads to a refusal is kept as a JSON value, so that its content cannot make decoding fail.

use super::{Attachment, NetworkInterface, ProxyConfiguration, RoleCredentials, Volume};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// A task. `cpu` is in vCPUs, `memory` in MiB; 0: no limit.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(in crate::acs) struct Task {
    pub(in crate::acs) arn: String,
    pub(in crate::acs) family: String,
    pub(in crate::acs) version: String,
    pub(in crate::acs) service_name: String,
    pub(in crate::acs) launch_type: String,
    pub(in crate::acs) containers: Vec<Container>,
    pub(in crate::acs) volumes: Vec<Volume>,
    pub(in crate::acs) cpu: f64,
    pub(in crate::acs) memory: i64,
    pub(in crate::acs) pid_mode: String,
    pub(in crate::acs) ipc_mode: String,
    pub(in crate::acs) network_mode: String,
    pub(in crate::acs) elastic_network_interfaces: Vec<NetworkInterface>,
    pub(in crate::acs) proxy_configuration: Option<ProxyConfiguration>,
    pub(in crate::acs) role_credentials: Option<RoleCredentials>,
    pub(in crate::acs) execution_role_credentials: Option<RoleCredentials>,
    pub(in crate::acs) associations: Vec<Association>,
    pub(in crate::acs) attachments: Vec<Attachment>,
    pub(in crate::acs) enable_fault_injection: bool,
}

/// A container. `cpu` is in CPU shares, `memory` in MiB, and the timeouts are in seconds; 0: not set.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(in crate::acs) struct Container {
    pub(in crate::acs) name: String,
    pub(in crate::acs) container_arn: String,
    pub(in crate::acs) image: String,
    pub(in crate::acs) command: Option<Vec<String>>,
    pub(in crate::acs) entry_point: Option<Vec<String>>,
    pub(in crate::acs) environment: BTreeMap<String, String>,
    pub(in crate::acs) environment_files: Vec<EnvironmentFile>,
    pub(in crate::acs) essential: bool,
    pub(in crate::acs) cpu: u32,
    pub(in crate::acs) memory: u32,
    pub(in crate::acs) links: Vec<String>,
    pub(in crate::acs) port_mappings: Vec<PortMapping>,
    pub(in crate::acs) mount_points: Vec<MountPoint>,
    pub(in crate::acs) volumes_from: Vec<VolumesFrom>,
    pub(in crate::acs) overrides: Option<Value>,
    pub(in crate::acs) docker_config: DockerConfig,
    pub(in crate::acs) registry_authentication: Option<RegistryAuthentication>,
    pub(in crate::acs) logs_auth_strategy: String,
    pub(in crate::acs) secrets: Vec<Secret>,
    pub(in crate::acs) depends_on: Vec<DependsOn>,
    pub(in crate::acs) start_timeout: u64,
    pub(in crate::acs) stop_timeout: u64,
    pub(in crate::acs) health_check_type: String,
    pub(in crate::acs) firelens_configuration: Option<FirelensConfiguration>,
    pub(in crate::acs) managed_agents: Vec<Value>,
    pub(in crate::acs) credential_specs: Vec<String>,
    pub(in crate::acs) restart_policy: RestartPolicy,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(in crate::acs) struct RestartPolicy {
    pub(in crate::acs) enabled: bool,
    pub(in crate::acs) ignored_exit_codes: Vec<i32>,
    /// Minimum running time of a container before a restart, in seconds; 0: the default.
    pub(in crate::acs) restart_attempt_period: u64,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(in crate::acs) struct EnvironmentFile {
    #[serde(rename = "type")]
    pub(in crate::acs) kind: String,
    pub(in crate::acs) value: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(in crate::acs) struct Secret {
    pub(in crate::acs) name: String,
    pub(in crate::acs) value_from: String,
    pub(in crate::acs) region: String,
    #[serde(rename = "type")]
    pub(in crate::acs) kind: String,
    pub(in crate::acs) provider: String,
    pub(in crate::acs) target: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(in crate::acs) struct FirelensConfiguration {
    #[serde(rename = "type")]
    pub(in crate::acs) kind: String,
    pub(in crate::acs) options: BTreeMap<String, String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(in crate::acs) struct PortMapping {
    pub(in crate::acs) container_port: u16,
    pub(in crate::acs) host_port: u16,
    pub(in crate::acs) container_port_range: String,
    pub(in crate::acs) protocol: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(in crate::acs) struct VolumesFrom {
    pub(in crate::acs) source_container: String,
    pub(in crate::acs) read_only: bool,
}

/// A device or another thing, and the containers that use it.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(in crate::acs) struct Association {
    pub(in crate::acs) name: String,
    #[serde(rename = "type")]
    pub(in crate::acs) kind: String,
    pub(in crate::acs) containers: Vec<String>,
    pub(in crate::acs) content: Content,
}

/// What a container learns about an association. The encoding is not read: ECS sends only `identity`.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(in crate::acs) struct Content {
    pub(in crate::acs) value: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(in crate::acs) struct MountPoint {
    pub(in crate::acs) source_volume: String,
    pub(in crate::acs) container_path: String,
    pub(in crate::acs) read_only: bool,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(in crate::acs) struct DockerConfig {
    pub(in crate::acs) version: String,
    pub(in crate::acs) config: String,
    pub(in crate::acs) host_config: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(in crate::acs) struct RegistryAuthentication {
    #[serde(rename = "type")]
    pub(in crate::acs) kind: String,
    pub(in crate::acs) ecr_auth_data: Option<EcrAuthData>,
    pub(in crate::acs) asm_auth_data: Option<AsmAuthData>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(in crate::acs) struct AsmAuthData {
    pub(in crate::acs) credentials_parameter: String,
    pub(in crate::acs) region: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(in crate::acs) struct EcrAuthData {
    pub(in crate::acs) registry_id: String,
    pub(in crate::acs) region: String,
    pub(in crate::acs) endpoint_override: String,
    pub(in crate::acs) use_execution_role: bool,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(in crate::acs) struct DependsOn {
    pub(in crate::acs) container_name: String,
    pub(in crate::acs) condition: String,
}
