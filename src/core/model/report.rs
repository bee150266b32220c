//! Messages to ECS: state changes over the API, acknowledgements over ACS.

use super::{
    ContainerName, ContainerStatus, CredentialsId, PortBinding, RangeBinding, RuntimeId, TaskArn, TaskStatus, Timestamp,
};
use serde::{Deserialize, Serialize};

/// One SubmitTaskStateChange (spec `ecs-api.md` §4).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateChange {
    /// The task.
    pub task: TaskArn,
    /// The reported status of the task; `TaskStatus::backend` is its name in the API.
    pub status: TaskStatus,
    /// Why the task stopped; empty unless the status is `Stopped`.
    pub reason: String,
    /// When the first pull of the task began; `None` if there was none.
    pub pull_started_at: Option<Timestamp>,
    /// When the last pull of the task ended; `None` if none has ended.
    pub pull_stopped_at: Option<Timestamp>,
    /// When the first essential container stopped; `None` if none has.
    pub execution_stopped_at: Option<Timestamp>,
    /// Containers whose status changed since the last report.
    pub containers: Vec<ContainerChange>,
}

/// The reported change of one container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerChange {
    /// The container's name in the task definition.
    pub container: ContainerName,
    /// Docker's id of the container; `None` if it was never created.
    pub runtime_id: Option<RuntimeId>,
    /// Digest of the container's image; `None` if it is not known.
    pub image_digest: Option<String>,
    /// The reported status of the container; `ContainerStatus::backend` is its name in the API.
    pub status: ContainerStatus,
    /// Exit code; `None` unless the container ran and ended and the code is known.
    pub exit_code: Option<i32>,
    /// Why the container failed, as `Name: message`; `None` if it did not fail.
    pub reason: Option<String>,
    /// Published ports.
    pub bindings: Vec<PortBinding>,
    /// Published ranges of ports; none of their ports is in `bindings`.
    #[serde(default)]
    pub range_bindings: Vec<RangeBinding>,
}

/// The acknowledgement of a message from ACS whose changes are on disk (spec `acs.md` §4).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ack {
    /// Message id of the acknowledged message.
    pub message_id: String,
    /// `clusterArn` of the message, echoed.
    pub cluster: String,
    /// `containerInstanceArn` of the message, echoed.
    pub container_instance: String,
    /// The credentials that came with a payload: the id of each, and its expiration, echoed as the opaque text that it is. Each
    /// is acknowledged separately.
    pub credentials: Vec<(CredentialsId, String)>,
}

/// The acknowledgement of new credentials for a task, sent once the task uses them (spec `acs.md` §4.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CredentialsAck {
    /// Message id of the acknowledged message.
    pub message_id: String,
    /// The id of the credentials.
    pub id: CredentialsId,
    /// The expiration of the credentials, echoed as the opaque text that it is.
    pub expiration: String,
}
