//! The messages of ACS as they are on the wire (spec `acs.md` §3 to §6).
//!
//! Owns the envelope and the shapes, tolerant in what it takes: member names in any case, `null` for "not given", unknown members.
//! It gives no message a meaning. The invariant: decoding never fails on something this agent does not read.

mod volume;

use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
pub(super) use volume::{DockerVolume, EfsVolume, Volume};

/// Every message type of the protocol.
const TYPES: [&str; 23] = [
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

/// The types that have nothing but a text, and may come as `{"InactiveInstanceException": "text"}`.
const TEXTS: [&str; 8] = [
    "AccessDeniedException",
    "BadRequestException",
    "CloseMessage",
    "ErrorMessage",
    "InactiveInstanceException",
    "InvalidClusterException",
    "InvalidInstanceException",
    "ServerException",
];

/// Every member name that is read, in byte order.
const NAMES: &[&str] = &[
    "accessKeyId",
    "accessPointId",
    "arn",
    "asmAuthData",
    "associations",
    "attachment",
    "attachmentArn",
    "attachmentProperties",
    "attachmentType",
    "attachments",
    "authorizationConfig",
    "autoprovision",
    "clusterArn",
    "command",
    "condition",
    "config",
    "containerInstanceArn",
    "containerName",
    "containerPath",
    "containerPort",
    "containerPortRange",
    "containers",
    "cpu",
    "credentialSpecs",
    "credentialsId",
    "credentialsParameter",
    "dependsOn",
    "desiredStatus",
    "dockerConfig",
    "dockerVolumeConfiguration",
    "driver",
    "driverOpts",
    "ec2Id",
    "ecrAuthData",
    "efsVolumeConfiguration",
    "elasticNetworkInterfaces",
    "enableFaultInjection",
    "enabled",
    "endpointOverride",
    "entryPoint",
    "environment",
    "environmentFiles",
    "essential",
    "executionRoleCredentials",
    "expiration",
    "family",
    "fileSystemId",
    "firelensConfiguration",
    "healthCheckType",
    "host",
    "hostConfig",
    "hostPort",
    "iam",
    "ignoredExitCodes",
    "image",
    "interfaceAssociationProtocol",
    "interfaceVlanProperties",
    "ipcMode",
    "ipv4Addresses",
    "ipv6Addresses",
    "labels",
    "links",
    "logsAuthStrategy",
    "macAddress",
    "managedAgents",
    "memory",
    "message",
    "messageId",
    "mountPoints",
    "name",
    "networkMode",
    "options",
    "overrides",
    "pidMode",
    "portMappings",
    "properties",
    "protocol",
    "provider",
    "proxyConfiguration",
    "readOnly",
    "region",
    "registryAuthentication",
    "registryId",
    "restartAttemptPeriod",
    "restartPolicy",
    "roleArn",
    "roleCredentials",
    "roleType",
    "rootDirectory",
    "scope",
    "secretAccessKey",
    "secrets",
    "seqNum",
    "serviceName",
    "sessionToken",
    "sourceContainer",
    "sourcePath",
    "sourceVolume",
    "startTimeout",
    "stopTasks",
    "stopTimeout",
    "subnetGatewayIpv4Address",
    "subnetGatewayIpv6Address",
    "target",
    "taskArn",
    "tasks",
    "timeline",
    "transitEncryption",
    "transitEncryptionPort",
    "trunkInterfaceMacAddress",
    "type",
    "useExecutionRole",
    "value",
    "valueFrom",
    "version",
    "vlanId",
    "volumes",
    "volumesFrom",
    "waitTimeoutMs",
];

/// Members whose own members are the customer's names and values, not the protocol's.
const OPAQUE: [&str; 5] = ["environment", "options", "properties", "driverOpts", "labels"];
/// Deeper nesting is no message of the protocol.
const MAX_DEPTH: u32 = 32;
/// As much of an unknown type as is worth a line in the log.
const SHOWN: usize = 64;

/// Type and body (always an object) of one message, or why it is no message of the protocol.
pub(super) fn envelope(text: &str) -> Result<(&'static str, Value), String> {
    // The error says where, never what stands there.
    let value = serde_json::from_str(text).map_err(|error| format!("it is not JSON: {error}"))?;
    let Value::Object(mut members) = normalise(value, 0) else { return Err("it is not a JSON object".to_owned()) };
    match members.remove("type") {
        Some(Value::String(kind)) if !kind.is_empty() => {
            let known = TYPES.iter().find(|known| **known == kind).ok_or_else(|| unknown(&kind))?;
            match members.remove("message").unwrap_or_else(|| Value::Object(Map::new())) {
                body @ Value::Object(_) => Ok((known, body)),
                _ => Err(format!("the body of {known} is not an object")),
            }
        }
        Some(kind) if !kind.is_string() => Err("its type is not a string".to_owned()),
        Some(_) | None => bare(members),
    }
}

/// `{"InactiveInstanceException": "text"}`, which is how some errors come.
fn bare(members: Map<String, Value>) -> Result<(&'static str, Value), String> {
    let mut each = members.into_iter();
    match (each.next(), each.next()) {
        (Some((name, text @ Value::String(_))), None) => {
            let known = TEXTS.iter().find(|known| **known == name).ok_or_else(|| unknown(&name))?;
            Ok((known, Value::Object([("message".to_owned(), text)].into_iter().collect())))
        }
        _ => Err("it has no type".to_owned()),
    }
}

fn unknown(kind: &str) -> String {
    format!("its type {:?} is unknown", kind.chars().take(SHOWN).collect::<String>())
}

/// Gives members their proper names and drops nulls, outside of opaque maps. Of two spellings of one name the proper one counts.
fn normalise(value: Value, depth: u32) -> Value {
    match value {
        Value::Object(members) if depth < MAX_DEPTH => {
            let mut proper = Map::new();
            for (name, value) in members.into_iter().filter(|(_, value)| !value.is_null()) {
                let known = known_name(&name);
                let is_opaque = OPAQUE.contains(&known.unwrap_or(&name));
                let value = if is_opaque { value } else { normalise(value, depth + 1) };
                match known.filter(|known| *known != name) {
                    Some(known) => drop(proper.entry(known).or_insert(value)),
                    None => drop(proper.insert(name, value)),
                }
            }
            Value::Object(proper)
        }
        Value::Array(list) if depth < MAX_DEPTH => {
            Value::Array(list.into_iter().map(|value| normalise(value, depth + 1)).collect())
        }
        other => other,
    }
}

fn known_name(name: &str) -> Option<&'static str> {
    match NAMES.binary_search(&name) {
        Ok(at) => Some(NAMES[at]),
        Err(_) => NAMES.iter().copied().find(|known| known.eq_ignore_ascii_case(name)),
    }
}

/// Decodes a body; the error names what was expected, without the value it found: that may be the customer's secret.
pub(super) fn shape<'a, T: Deserialize<'a>>(body: &'a Value) -> Result<T, String> {
    T::deserialize(body).map_err(|error: serde_json::Error| {
        let text = error.to_string();
        match (text.find("expected"), text.starts_with("invalid")) {
            (Some(at), true) => format!("a member has the wrong type or value: {}", &text[at..]),
            _ => "a member has the wrong type or value".to_owned(),
        }
    })
}

/// A `null` value of a map of texts is an empty text.
fn texts<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, String>, D::Error> {
    let map = BTreeMap::<String, Option<String>>::deserialize(deserializer)?;
    Ok(map.into_iter().map(|(name, text)| (name, text.unwrap_or_default())).collect())
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
    pub(super) associations: Vec<Association>,
    pub(super) attachments: Vec<Attachment>,
    pub(super) enable_fault_injection: bool,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Container {
    pub(super) name: String,
    pub(super) image: String,
    pub(super) command: Option<Vec<String>>,
    pub(super) entry_point: Option<Vec<String>>,
    #[serde(deserialize_with = "texts")]
    pub(super) environment: BTreeMap<String, String>,
    pub(super) environment_files: Vec<EnvironmentFile>,
    pub(super) essential: bool,
    pub(super) cpu: u32,
    pub(super) memory: u32,
    pub(super) links: Vec<String>,
    pub(super) port_mappings: Vec<PortMapping>,
    pub(super) mount_points: Vec<MountPoint>,
    pub(super) volumes_from: Vec<VolumesFrom>,
    pub(super) overrides: Option<Value>,
    pub(super) docker_config: DockerConfig,
    pub(super) registry_authentication: Option<RegistryAuthentication>,
    pub(super) logs_auth_strategy: String,
    pub(super) secrets: Vec<Secret>,
    pub(super) depends_on: Vec<DependsOn>,
    pub(super) start_timeout: u64,
    pub(super) stop_timeout: u64,
    pub(super) health_check_type: String,
    pub(super) firelens_configuration: Option<FirelensConfiguration>,
    pub(super) managed_agents: Vec<Value>,
    pub(super) credential_specs: Vec<String>,
    pub(super) restart_policy: RestartPolicy,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct RestartPolicy {
    pub(super) enabled: bool,
    pub(super) ignored_exit_codes: Vec<i32>,
    /// Seconds.
    pub(super) restart_attempt_period: u64,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct EnvironmentFile {
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) value: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Secret {
    pub(super) name: String,
    pub(super) value_from: String,
    pub(super) region: String,
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) provider: String,
    pub(super) target: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct FirelensConfiguration {
    #[serde(rename = "type")]
    pub(super) kind: String,
    #[serde(deserialize_with = "texts")]
    pub(super) options: BTreeMap<String, String>,
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
pub(super) struct VolumesFrom {
    pub(super) source_container: String,
    pub(super) read_only: bool,
}

/// A device of the host and the containers it is for. Its content is not read.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Association {
    pub(super) name: String,
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) containers: Vec<String>,
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
    pub(super) asm_auth_data: Option<AsmAuthData>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct AsmAuthData {
    pub(super) credentials_parameter: String,
    pub(super) region: String,
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

/// Network interfaces to expect: for a task (`AttachTaskNetworkInterfacesMessage`) or as a trunk for the instance.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct AttachInterfaces {
    pub(super) task_arn: String,
    pub(super) wait_timeout_ms: i64,
    pub(super) elastic_network_interfaces: Vec<NetworkInterface>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct NetworkInterface {
    pub(super) mac_address: String,
    pub(super) ec2_id: String,
    pub(super) interface_association_protocol: String,
    pub(super) interface_vlan_properties: VlanProperties,
    pub(super) ipv4_addresses: Vec<Value>,
    pub(super) ipv6_addresses: Vec<Value>,
    pub(super) subnet_gateway_ipv4_address: String,
    pub(super) subnet_gateway_ipv6_address: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct VlanProperties {
    pub(super) vlan_id: String,
    pub(super) trunk_interface_mac_address: String,
}

/// A volume that was attached to the instance.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ConfirmAttachment {
    pub(super) attachment: Option<Attachment>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Attachment {
    pub(super) attachment_arn: String,
    pub(super) attachment_type: String,
    pub(super) attachment_properties: Vec<Property>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Property {
    pub(super) name: String,
    pub(super) value: String,
}

#[cfg(test)]
mod tests;
