//! The messages of ACS as they are on the wire (spec `acs.md` §3 to §6).
//!
//! Owns the envelope and the shapes, tolerant in what it takes: member names with a capital first letter, `null` for "not given",
//! unknown members. It gives no message a meaning. The invariant: decoding never fails on something this agent does not read.

use serde::Deserialize;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Every message type of the protocol.
pub(super) const KNOWN_TYPES: [&str; 23] = [
    "HeartbeatMessage",
    "HeartbeatAckRequest",
    "PayloadMessage",
    "CloseMessage",
    "AckRequest",
    "NackRequest",
    "PerformUpdateMessage",
    "StageUpdateMessage",
    "IAMRoleCredentialsMessage",
    "IAMRoleCredentialsAckRequest",
    "ServerException",
    "BadRequestException",
    "InvalidClusterException",
    "InvalidInstanceException",
    "AccessDeniedException",
    "InactiveInstanceException",
    "ErrorMessage",
    "AttachTaskNetworkInterfacesMessage",
    "AttachInstanceNetworkInterfacesMessage",
    "ConfirmAttachmentMessage",
    "TaskManifestMessage",
    "TaskStopVerificationAck",
    "TaskStopVerificationMessage",
];

/// Members whose own members are the customer's names and values, not the protocol's.
const OPAQUE: [&str; 5] = ["environment", "options", "properties", "driverOpts", "labels"];
/// Deeper nesting is no message of the protocol.
const MAX_DEPTH: u32 = 32;

/// Type and body of one message; `None` when it is no message of the protocol.
pub(super) fn envelope(text: &str) -> Option<(String, Value)> {
    let Value::Object(mut members) = normalise(serde_json::from_str(text).ok()?, 0) else { return None };
    if let Some(Value::String(kind)) = members.remove("type") {
        let body = members.remove("message").unwrap_or_else(|| Value::Object(Map::new()));
        return KNOWN_TYPES.contains(&kind.as_str()).then_some((kind, body));
    }
    // `{"InactiveInstanceException": "text"}`; the name lost its capital above.
    let (name, text) = members.into_iter().next()?;
    let kind = KNOWN_TYPES.iter().find(|kind| kind.eq_ignore_ascii_case(&name))?;
    Some(((*kind).to_owned(), text))
}

/// Lower-cases the first letter of member names and drops nulls, outside of opaque maps.
fn normalise(value: Value, depth: u32) -> Value {
    match value {
        Value::Object(members) if depth < MAX_DEPTH => {
            let kept = members.into_iter().filter(|(_, value)| !value.is_null());
            let lowered = kept.map(|(name, value)| {
                let name = lower_first(name);
                let value = if OPAQUE.contains(&name.as_str()) { value } else { normalise(value, depth + 1) };
                (name, value)
            });
            Value::Object(lowered.collect())
        }
        Value::Array(list) if depth < MAX_DEPTH => {
            Value::Array(list.into_iter().map(|value| normalise(value, depth + 1)).collect())
        }
        other => other,
    }
}

fn lower_first(mut name: String) -> String {
    if let Some(first) = name.get_mut(..1) {
        first.make_ascii_lowercase();
    }
    name
}

/// Members shared by most messages.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Header {
    pub(super) message_id: String,
    pub(super) cluster_arn: String,
    pub(super) container_instance_arn: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Payload {
    pub(super) seq_num: i64,
    /// Kept apart, so that one bad task does not spoil the others.
    pub(super) tasks: Vec<Value>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct RoleCredentials {
    pub(super) credentials_id: String,
    pub(super) role_arn: String,
    pub(super) access_key_id: String,
    pub(super) secret_access_key: String,
    pub(super) session_token: String,
    pub(super) expiration: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Credentials {
    pub(super) task_arn: String,
    pub(super) role_type: String,
    pub(super) role_credentials: RoleCredentials,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct TaskList {
    pub(super) timeline: i64,
    pub(super) tasks: Vec<TaskIdentifier>,
    pub(super) stop_tasks: Vec<TaskIdentifier>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct TaskIdentifier {
    pub(super) task_arn: String,
    pub(super) desired_status: String,
}

/// A task. Members that only lead to a refusal are kept as values.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Task {
    pub(super) arn: String,
    pub(super) family: String,
    pub(super) version: String,
    pub(super) service_name: String,
    pub(super) containers: Vec<Container>,
    pub(super) volumes: Vec<Volume>,
    pub(super) cpu: f64,
    pub(super) memory: i64,
    pub(super) pid_mode: String,
    pub(super) ipc_mode: String,
    pub(super) network_mode: String,
    pub(super) elastic_network_interfaces: Vec<Value>,
    pub(super) proxy_configuration: Option<Value>,
    pub(super) role_credentials: Option<RoleCredentials>,
    pub(super) execution_role_credentials: Option<RoleCredentials>,
    pub(super) associations: Vec<Value>,
    pub(super) attachments: Vec<Value>,
    pub(super) enable_fault_injection: bool,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Container {
    pub(super) name: String,
    pub(super) image: String,
    pub(super) command: Option<Vec<String>>,
    pub(super) entry_point: Option<Vec<String>>,
    pub(super) environment: BTreeMap<String, String>,
    pub(super) environment_files: Vec<Value>,
    pub(super) essential: bool,
    pub(super) cpu: u32,
    pub(super) memory: u32,
    pub(super) links: Vec<String>,
    pub(super) port_mappings: Vec<PortMapping>,
    pub(super) mount_points: Vec<MountPoint>,
    pub(super) volumes_from: Vec<Value>,
    pub(super) overrides: Option<Value>,
    pub(super) docker_config: DockerConfig,
    pub(super) registry_authentication: Option<RegistryAuthentication>,
    pub(super) logs_auth_strategy: String,
    pub(super) secrets: Vec<Value>,
    pub(super) depends_on: Vec<DependsOn>,
    pub(super) start_timeout: u64,
    pub(super) stop_timeout: u64,
    pub(super) health_check_type: String,
    pub(super) firelens_configuration: Option<Value>,
    pub(super) managed_agents: Vec<Value>,
    pub(super) credential_specs: Vec<Value>,
    pub(super) restart_policy: RestartPolicy,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct RestartPolicy {
    pub(super) enabled: bool,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct PortMapping {
    pub(super) container_port: u16,
    pub(super) host_port: u16,
    pub(super) container_port_range: String,
    pub(super) protocol: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct MountPoint {
    pub(super) source_volume: String,
    pub(super) container_path: String,
    pub(super) read_only: bool,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct DockerConfig {
    pub(super) version: String,
    pub(super) config: String,
    pub(super) host_config: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct RegistryAuthentication {
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) ecr_auth_data: Option<EcrAuthData>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct EcrAuthData {
    pub(super) registry_id: String,
    pub(super) region: String,
    pub(super) endpoint_override: String,
    pub(super) use_execution_role: bool,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct DependsOn {
    pub(super) container_name: String,
    pub(super) condition: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Volume {
    pub(super) name: String,
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) host: Option<HostVolume>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct HostVolume {
    pub(super) source_path: String,
}
