//! What is in flight, and who waits for it.
//!
//! Owns no outcome: that is an [`Event`](crate::core::Event). The invariant: at most one operation for a container or a resource.

use crate::model::{OpId, TaskArn, Timestamp};

/// Something in flight for a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PendingResourceOperation {
    /// Its outcome carries the same id.
    pub id: OpId,
    /// What it is.
    pub kind: ResourceOperationKind,
    /// When it was asked for.
    pub since: Timestamp,
}

/// Operations on one resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResourceOperationKind {
    /// Making it.
    Create,
    /// Keeping it from ending.
    Renew,
    /// Removing it.
    Remove,
}

/// Something in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PendingOperation {
    /// Its outcome carries the same id.
    pub id: OpId,
    /// What it is.
    pub kind: OperationKind,
    /// When it was asked for.
    pub since: Timestamp,
    /// The step in which it was asked for: what was learnt since is newer than a look.
    pub asked: u64,
}

/// Who waits for an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    /// The container of that index.
    Container(TaskArn, usize),
    /// The resource of that name. Its index may change while the operation is in flight: a task that was rebuilt gets its whole
    /// specification later, in which resources may stand in another order.
    Resource(TaskArn, String),
    /// The task's report.
    Report(TaskArn),
    /// The inventory.
    Inventory,
    /// The removal of an orphan.
    Orphan(String),
    /// The clean-up of images.
    Images,
}

/// Operations on one container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OperationKind {
    /// Finding the digest.
    ResolveDigest,
    /// Pulling the image.
    Pull,
    /// Creating.
    Create,
    /// Starting.
    Start,
    /// Stopping.
    Stop,
    /// Looking.
    Inspect,
    /// Removing.
    Remove,
}

impl OperationKind {
    /// It concerns the image and not yet a container.
    pub fn is_image_work(self) -> bool {
        matches!(self, Self::ResolveDigest | Self::Pull)
    }
}
