//! The messages of ACS on the wire (spec `acs.md` §3 to §6).
//!
//! Owns the envelope (type and body) and the members of each message ([`task`], [`volume`] and [`interface`] have those of a task). Decoding,
//! by [`json`](crate::input::json), is tolerant: any member may be missing. It does not interpret messages. The invariants:
//! decoding never fails because of a member that this agent does not use, and the size of a text is checked against
//! [`limits`](super::limits) before anything is built from it.

mod interface;
mod task;
mod volume;

use super::limits::{MAX_ID, MAX_TEXT};
use crate::input::envelope::Types;
use crate::input::json::{DecodeError, Raw};
pub(super) use interface::{Ipv4Address, NetworkInterface, ProxyConfiguration, VlanProperties};
use serde::Deserialize;
use serde::de::DeserializeOwned;
pub(super) use task::{
    Association, Container, DependsOn, EnvironmentFile, FirelensConfiguration, MountPoint, PortMapping,
    RegistryAuthentication, RestartPolicy, Secret, Task, VolumesFrom,
};
pub(super) use volume::{DockerVolume, EfsVolume, Volume};

/// All message types of the protocol.
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

/// The types that consist of a text only, and may come in the bare form `{"InactiveInstanceException": "text"}`.
const TEXT_ONLY: [&str; 8] = [
    "AccessDeniedException",
    "BadRequestException",
    "CloseMessage",
    "ErrorMessage",
    "InactiveInstanceException",
    "InvalidClusterException",
    "InvalidInstanceException",
    "ServerException",
];

/// The type and the body of one message. The error says why `text` is not a message of the protocol.
pub(super) fn envelope(text: &str) -> Result<(&'static str, Raw<'_>), String> {
    Types { all: &TYPES, text_only: &TEXT_ONLY }.envelope(text)
}

/// Decodes a task or the body of a message. The error names the member and the expected type, never the value.
pub(super) fn decode<T: DeserializeOwned>(body: Raw<'_>) -> Result<T, String> {
    match body.text().len() {
        0..=MAX_TEXT => body.decode().map_err(|error| error.to_string()),
        bytes => Err(format!("it has {bytes} bytes, more than {MAX_TEXT}")),
    }
}

/// Decodes one member of a body; a missing member has its default.
pub(super) fn member<T: DeserializeOwned + Default>(body: Raw<'_>, name: &str) -> Result<T, String> {
    match body.member(name) {
        Some(value) => value.decode().map_err(|error| error.inside(name).to_string()),
        None => Ok(T::default()),
    }
}

/// Decodes an id, an ARN or the name of a cluster; empty if it is missing.
pub(super) fn id(body: Raw<'_>, name: &str) -> Result<String, String> {
    let text: String = member(body, name)?;
    if text.len() > MAX_ID { Err(format!("{name} has {} bytes, more than {MAX_ID}", text.len())) } else { Ok(text) }
}

/// The first items of a list, undecoded.
#[derive(Debug, Default)]
pub(super) struct List<'a> {
    pub(super) items: Vec<Raw<'a>>,
    /// Number of items after these, which are not kept.
    pub(super) omitted: usize,
}

/// The first `max` items of a member that is a list. The items are not decoded.
pub(super) fn list<'a>(body: Raw<'a>, name: &str, max: usize) -> Result<List<'a>, String> {
    let mut list = List::default();
    let Some(value) = body.member(name) else { return Ok(list) };
    let items = value.items().ok_or_else(|| DecodeError::kind(value.kind(), "an array"));
    for item in items.map_err(|error| error.inside(name).to_string())? {
        let item = item.map_err(|error| DecodeError::from(error).inside(name).to_string())?;
        if list.items.len() < max {
            list.items.push(item);
        } else {
            list.omitted += 1;
        }
    }
    Ok(list)
}

/// The members that most messages share.
#[derive(Clone, Debug, Default)]
pub(super) struct Header {
    pub(super) message_id: String,
    pub(super) cluster_arn: String,
    pub(super) container_instance_arn: String,
}

impl Header {
    /// Decodes these members only, so errors in other members of the message have no effect here.
    pub(super) fn read(body: Raw<'_>) -> Result<Self, String> {
        Ok(Self {
            message_id: id(body, "messageId")?,
            cluster_arn: id(body, "clusterArn")?,
            container_instance_arn: id(body, "containerInstanceArn")?,
        })
    }
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
pub(super) struct TaskIdentifier {
    pub(super) task_arn: String,
    pub(super) desired_status: String,
}

/// The network interfaces that ECS attaches to a task (`AttachTaskNetworkInterfacesMessage`) or to the instance (its trunk).
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct AttachInterfaces {
    pub(super) task_arn: String,
    pub(super) wait_timeout_ms: i64,
    pub(super) elastic_network_interfaces: Vec<NetworkInterface>,
}

/// A volume that ECS attaches to the instance.
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
