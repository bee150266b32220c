//! The network of one task, which its containers share.

use super::retry::Retry;
use crate::model::{OpId, Timestamp};
use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;

/// The network of a task with interfaces of its own. For all other tasks it keeps its default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkState {
    /// How far the network is.
    pub status: NetworkStatus,
    /// The task's address on the bridge between the host and its tasks. It belongs to no other task until the network is over.
    /// `None` before the task is admitted, and afterwards.
    pub local_address: Option<Ipv4Addr>,
    /// The start of the pause container's run that the network was set up in, as Docker writes it; `None` if it is not known. A
    /// later run has another namespace, without a network.
    pub run: Option<String>,
}

/// The progress of a task's network. It never goes back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum NetworkStatus {
    /// Nothing has been requested.
    #[default]
    None,
    /// The set-up has been requested, so everything, a part or nothing may be there.
    Requested,
    /// The network is set up, and the containers of the task may start.
    Up,
    /// The network was torn down, and its pause container has not ended yet.
    TornDown,
    /// The task has ended, and nothing of the network is left.
    Over,
}

/// The part of a network's state that is kept in memory only. After a restart of the agent it is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LiveNetwork {
    /// The pending operation; `None` if there is none.
    pub operation: Option<PendingNetworkOperation>,
    /// The kind of the last operation; `None` before the first. `retry` counts its failures only.
    pub last: Option<NetworkOperationKind>,
    /// When the first operation of this kind was requested.
    pub since: Timestamp,
    /// Consecutive failures, and when to try again.
    pub retry: Retry,
    /// The pause container was inspected because its process was not known.
    pub inspected: bool,
    /// When the network may be torn down, after all other containers have ended; `None` before that.
    pub torn_down_from: Option<Timestamp>,
}

/// A pending operation on a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingNetworkOperation {
    /// The operation's id, which its outcome carries too.
    pub id: OpId,
    /// What the operation does.
    pub kind: NetworkOperationKind,
    /// When the operation was requested.
    pub since: Timestamp,
    /// The start of the pause container's run that the operation works in; `None` if it is not known.
    pub run: Option<String>,
}

/// Operations on one network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetworkOperationKind {
    /// Set the network up.
    SetUp,
    /// Tear the network down before the pause container is stopped.
    TearDown,
    /// Tear down what is left of the network after the task has ended.
    CleanUp,
}

impl NetworkStatus {
    /// A part of the network may be there.
    pub fn may_exist(self) -> bool {
        matches!(self, Self::Requested | Self::Up)
    }
}
