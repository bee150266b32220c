//! Pending operations and their owners.
//!
//! Does not own outcomes: an outcome is an [`Event`](crate::Event). Invariant: at most one operation is pending for a
//! container or a resource.

use crate::model::{OpId, TaskArn, Timestamp};

/// A pending operation on a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PendingResourceOperation {
    /// The operation's id, which its outcome carries too.
    pub id: OpId,
    /// What the operation does.
    pub kind: ResourceOperationKind,
    /// When the operation was requested.
    pub since: Timestamp,
}

/// Operations on one resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResourceOperationKind {
    /// Create the resource.
    Create,
    /// Renew the resource before it expires.
    Renew,
    /// Remove the resource.
    Remove,
}

/// A pending operation on a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PendingOperation {
    /// The operation's id, which its outcome carries too.
    pub id: OpId,
    /// What the operation does.
    pub kind: OperationKind,
    /// When the operation was requested.
    pub since: Timestamp,
    /// The number of the step that requested the operation. If the operation is an inspection, everything learnt after that step
    /// is newer than its result.
    pub asked_in_step: u64,
}

/// The part of the state that waits for an operation, and that its outcome is written to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OperationOwner {
    /// The container with this index in the task.
    Container(TaskArn, usize),
    /// The resource with this name in the task. Its index may change while the operation is pending: a rebuilt task gets its
    /// whole specification later, with its resources perhaps in another order.
    Resource(TaskArn, String),
    /// The report of the task.
    Report(TaskArn),
    /// The network of the task.
    Network(TaskArn),
    /// The report of the attachment with this ARN.
    Attachment(String),
    /// The inventory.
    Inventory,
    /// The removal of the orphan with this id.
    Orphan(String),
    /// The image clean-up.
    Images,
}

/// Operations on one container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OperationKind {
    /// Resolve the digest of the image.
    ResolveDigest,
    /// Pull the image.
    Pull,
    /// Create the container.
    Create,
    /// Start the container.
    Start,
    /// Stop the container.
    Stop,
    /// Inspect the container.
    Inspect,
    /// Remove the container.
    Remove,
}

impl OperationKind {
    /// The operation works on the image, before there is a container.
    pub fn is_image_work(self) -> bool {
        matches!(self, Self::ResolveDigest | Self::Pull)
    }
}
