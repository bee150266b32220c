//! ACS: the control plane's websocket (spec `acs.md`).
//!
//! Owns the wire format, its translation into the model, and the session's address and acknowledgements. It decides nothing
//! about tasks. The invariant: an acknowledgement is sent only when the agent requests it through [`Outgoing`], except for
//! messages that change nothing here (heartbeats, updates, attachments).
//!
//! Reading order: this file (messages in both directions), [`session`]; then `decode`, [`translate`], `host`,
//! `unsupported`, `attachment`, `wire`, and `limits`. The connection is a [`websocket`](crate::websocket).
//!
#![doc = include_str!("task_definition.md")]

mod attachment;
mod decode;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod host;
mod limits;
pub mod session;
#[cfg(test)]
mod tests;
pub mod translate;
mod unsupported;
mod wire;

pub use attachment::Announced;
pub use decode::{Frame, frame};
pub use host::HostFacts;
pub use translate::{ReceivedTask, Refusal};

use crate::aws::identity::roles::RoleCredentials;
use ecs_core::model::{Ack, CredentialsAck, TaskArn};
use std::collections::BTreeSet;

/// The tasks in the JSON text of a payload message; none if the text is not a valid payload message.
#[cfg(test)]
pub(crate) fn tasks_in(text: &str, host: &HostFacts) -> Vec<ReceivedTask> {
    match frame(text.as_bytes(), host, &mut || "id".to_owned()) {
        Frame::Deliver(Incoming::Payload { tasks, .. }, _) => tasks,
        _ => Vec::new(),
    }
}

/// A message of ACS, or a change of the connection, for the agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incoming {
    /// Tasks to run and to stop; those to stop come first.
    Payload {
        /// The tasks of the payload.
        tasks: Vec<ReceivedTask>,
        /// The role credentials of the tasks. They must be stored before the core receives the tasks.
        credentials: Vec<RoleCredentials>,
        /// The acknowledgement, to be sent once the whole payload is on disk.
        ack: Ack,
        /// The sequence number of the payload, comparable with `timeline` of manifests; 0 if the payload has no valid one.
        seq_num: i64,
        /// False if a part of the payload is malformed, or ignored because of a limit (`limits` says which). Such a payload is
        /// not acknowledged, as in the Go agent.
        intact: bool,
    },
    /// New credentials for a running task.
    Credentials {
        /// The id of the message.
        message_id: String,
        /// The task that the credentials are for.
        task: TaskArn,
        /// The new credentials.
        credentials: Box<RoleCredentials>,
    },
    /// All tasks that ECS knows on this instance.
    Manifest {
        /// The sequence number of the manifest, comparable with `seq_num` of payloads.
        timeline: i64,
        /// The tasks whose desired status is RUNNING.
        running: BTreeSet<TaskArn>,
        /// The acknowledgement, to be sent once this manifest is accepted as the newest one.
        ack: Ack,
    },
    /// ECS confirms that tasks missing from a manifest are to be stopped.
    StopVerificationAck {
        /// The message id of the manifest.
        message_id: String,
        /// The tasks to stop.
        tasks: Vec<TaskArn>,
    },
    /// ECS attaches network interfaces to a task, or to the instance.
    Attachments {
        /// The interfaces.
        announced: Vec<Announced>,
        /// The acknowledgement, to be sent once they are on disk.
        ack: Ack,
    },
    /// A heartbeat. It is answered already.
    Heartbeat,
    /// The connection is established.
    Connected,
    /// ECS reports that the container instance is not registered.
    Deregistered,
}

/// A message of the agent to ACS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outgoing {
    /// Acknowledges a payload or a manifest, and the credentials that came with it.
    Ack(Ack),
    /// Acknowledges credentials of a known task: they are stored.
    CredentialsAck(CredentialsAck),
    /// Asks whether tasks that run here and are missing from the manifest are to be stopped.
    StopVerification {
        /// The message id of the manifest.
        message_id: String,
        /// The `clusterArn` of the manifest.
        cluster: String,
        /// The tasks that are missing from the manifest.
        candidates: Vec<TaskArn>,
    },
}
