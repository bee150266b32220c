//! Attachments: devices that ECS attaches to the instance or to one of its tasks (spec `networking.md` §3).

use super::{MacAddress, TaskArn, Timestamp};
use serde::{Deserialize, Serialize};

/// An attachment as ECS announced it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// Its ARN, which identifies it.
    pub arn: String,
    /// What is attached, and to what.
    pub kind: AttachmentKind,
    /// How the device is recognized on the host.
    pub device: Device,
    /// When ECS stops waiting for the device, by the agent's clock.
    pub expires_at: Timestamp,
}

/// The kinds of attachments. The kind decides how the attachment is reported.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AttachmentKind {
    /// A network interface of this task that is a device of its own.
    TaskInterface(TaskArn),
    /// A network interface of this task that is a VLAN of the instance's trunk interface. No device appears for it.
    BranchInterface(TaskArn),
    /// A network interface of the instance: the trunk interface.
    InstanceInterface,
}

/// How a device is recognized on the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Device {
    /// The network interface with this hardware address.
    Interface(MacAddress),
}

/// The progress of an attachment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum AttachmentStatus {
    /// ECS has announced the attachment, and its device has not been seen.
    #[default]
    Announced,
    /// The device was seen in time, which must be reported.
    Seen,
    /// ECS has accepted the report, or has refused it for good.
    Reported,
}

impl AttachmentKind {
    /// The task that the device belongs to; `None`: it belongs to the instance.
    pub fn task(&self) -> Option<&TaskArn> {
        match self {
            Self::TaskInterface(task) | Self::BranchInterface(task) => Some(task),
            Self::InstanceInterface => None,
        }
    }
}

/// The report that the device of an attachment is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttachmentChange {
    /// ARN of the attachment.
    pub attachment: String,
    /// The task whose state change carries the attachment (SubmitTaskStateChange, without a status); `None`: it is reported by
    /// itself (SubmitAttachmentStateChanges).
    pub task: Option<TaskArn>,
}
