//! What is said to ECS: state changes over the API, acknowledgements over ACS.

use super::{
    ContainerName, ContainerStatus, CredentialsId, PortBinding, RangeBinding, RuntimeId, TaskArn, TaskStatus, Timestamp,
};
use serde::{Deserialize, Serialize};

/// One SubmitTaskStateChange (spec `ecs-api.md` §4).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateChange {
    /// The task.
    pub task: TaskArn,
    /// The status said of the task; `TaskStatus::backend` is the word on the wire.
    pub status: TaskStatus,
    /// Why the task stopped; empty unless stopped.
    pub reason: String,
    /// First pull of the task began.
    pub pull_started_at: Option<Timestamp>,
    /// Last pull of the task ended.
    pub pull_stopped_at: Option<Timestamp>,
    /// The first essential container stopped.
    pub execution_stopped_at: Option<Timestamp>,
    /// Containers whose status changed since the last report.
    pub containers: Vec<ContainerChange>,
}

/// What is said of one container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerChange {
    /// Name in the task definition.
    pub container: ContainerName,
    /// The engine's id, when there is one.
    pub runtime_id: Option<RuntimeId>,
    /// Digest the image tag resolved to.
    pub image_digest: Option<String>,
    /// The status said of it; `ContainerStatus::backend` is the word on the wire.
    pub status: ContainerStatus,
    /// Exit code, if it ran and ended.
    pub exit_code: Option<i32>,
    /// Why it failed, as `Name: message`.
    pub reason: Option<String>,
    /// Published ports.
    pub bindings: Vec<PortBinding>,
    /// Published ranges of ports; none of their ports is in `bindings`.
    #[serde(default)]
    pub range_bindings: Vec<RangeBinding>,
}

/// The answer to a message of ACS that was handled and is on disk (spec `acs.md` §4).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ack {
    /// The message.
    pub message_id: String,
    /// `clusterArn` of the message, echoed.
    pub cluster: String,
    /// `containerInstanceArn` of the message, echoed.
    pub container_instance: String,
    /// Credentials that came with a payload, each acknowledged by itself, with its opaque expiration echoed.
    pub credentials: Vec<(CredentialsId, String)>,
}

/// The answer to new credentials for a task, once the task goes by them (spec `acs.md` §4.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CredentialsAck {
    /// The message.
    pub message_id: String,
    /// The credentials.
    pub id: CredentialsId,
    /// Their expiration, echoed.
    pub expiration: String,
}
