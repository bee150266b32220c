//! The record of one attachment, and its pending report.

use super::retry::Retry;
use crate::model::attachment::{AttachmentKind, AttachmentStatus, Device};
use crate::model::{OpId, Timestamp};
use serde::{Deserialize, Serialize};

/// An attachment that ECS has announced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachmentRecord {
    /// What is attached, and to what.
    pub kind: AttachmentKind,
    /// How the device is recognized on the host.
    pub device: Device,
    /// When ECS last announced the attachment.
    pub announced_at: Timestamp,
    /// When ECS stops waiting for the device.
    pub expires_at: Timestamp,
    /// The attachment's progress.
    pub status: AttachmentStatus,
}

/// The report of one attachment. It is kept in memory only: after a restart of the agent, a report that is due is sent again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AttachmentReport {
    /// The pending report; `None` if there is none.
    pub op: Option<OpId>,
    /// Consecutive failed reports, and when to try again.
    pub retry: Retry,
}
