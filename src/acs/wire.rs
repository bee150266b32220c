//! The messages of ACS as they are on the wire (spec `acs.md` §3 to §6).
//!
//! Owns the envelope and the shapes (a task's in [`task`] and [`volume`]), decoded by [`json`], which is tolerant. It gives no message
//! a meaning. The invariant: decoding never fails on something this agent does not read.

mod task;
mod volume;

use crate::model::json;
use serde::Deserialize;
use serde_json::{Map, Value};
pub(super) use task::{
    Association, Container, DependsOn, EnvironmentFile, FirelensConfiguration, MountPoint, PortMapping,
    RegistryAuthentication, RestartPolicy, Secret, Task, VolumesFrom,
};
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

/// As much of an unknown type as is worth a line in the log.
const SHOWN: usize = 64;

/// Type and body (always an object) of one message, or why it is no message of the protocol.
pub(super) fn envelope(text: &str) -> Result<(&'static str, Value), String> {
    // The error says where, never what stands there.
    let value = serde_json::from_str(text).map_err(|error| format!("it is not JSON: {error}"))?;
    let Value::Object(members) = value else { return Err("it is not a JSON object".to_owned()) };
    match json::member(&members, "type") {
        Some(Value::String(kind)) if !kind.is_empty() => {
            let known = TYPES.iter().find(|known| *known == kind).ok_or_else(|| unknown(kind))?;
            match json::member(&members, "message") {
                None => Ok((known, Value::Object(Map::new()))),
                Some(body @ Value::Object(_)) => Ok((known, body.clone())),
                Some(_) => Err(format!("the body of {known} is not an object")),
            }
        }
        Some(kind) if !kind.is_string() => Err("its type is not a string".to_owned()),
        Some(_) | None => bare(members),
    }
}

/// `{"InactiveInstanceException": "text"}`, which is how some errors come.
fn bare(members: Map<String, Value>) -> Result<(&'static str, Value), String> {
    let mut each = members.into_iter().filter(|(_, value)| !value.is_null());
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

/// Decodes a body. The error names the member and what was expected, without the value that was found.
pub(super) fn shape<'a, T: Deserialize<'a>>(body: &'a Value) -> Result<T, String> {
    json::decode(body).map_err(|error| error.to_string())
}

/// The member of an object, in any case.
pub(super) fn member<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
    json::member(value.as_object()?, name)
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
