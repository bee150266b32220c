//! ACS: the control plane's websocket (spec `acs.md`).
//!
//! Owns the wire format, its translation into the model, and the session: connect, heartbeats, acknowledgements, reconnect. It
//! decides nothing about tasks. The invariant: an acknowledgement leaves only when it was asked for through [`Outgoing`], except
//! for messages that change nothing here: heartbeats, updates, attachments.
//!
//! Reading order: this file (what goes in and out), [`session`] (when to connect), `conversation` (one connection), `timing`, `exchange`
//! (queues to the agent); then `decode` ([`frame`]), [`translate`], `unsupported`, `attachment`, `wire`, and `limits`.
//!
#![doc = include_str!("task_definition.md")]

mod attachment;
mod contact;
mod conversation;
#[cfg(test)]
#[path = "../../tests/corpus/cases.rs"]
pub(crate) mod corpus;
mod decode;
#[cfg(test)]
mod documented;
mod exchange;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod host;
mod limits;
pub mod session;
mod timing;
pub mod translate;
mod unsupported;
mod wire;

pub use contact::{Contact, Seen};
pub use decode::{Frame, frame};
pub use host::HostFacts;
pub use translate::{ReceivedTask, Refusal};

use crate::aws::roles::RoleCredentials;
use crate::model::{Ack, CredentialsAck, TaskArn};
use std::collections::BTreeSet;

/// The tasks of a payload as text, for tests of what becomes of them.
#[cfg(test)]
pub(crate) fn tasks_in(text: &str, host: &HostFacts) -> Vec<ReceivedTask> {
    match frame(text.as_bytes(), host, &mut || "id".to_owned()) {
        Frame::Deliver(Incoming::Payload { tasks, .. }, _) => tasks,
        _ => Vec::new(),
    }
}

/// What ACS said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incoming {
    /// Tasks to run and to stop: those to stop come first.
    Payload {
        /// The tasks.
        tasks: Vec<ReceivedTask>,
        /// Credentials that came with them. Store these before the core hears of the tasks.
        credentials: Vec<RoleCredentials>,
        /// The answer, once all of it is on disk.
        ack: Ack,
        /// Sequence number, compared with manifests' timelines.
        seq_num: i64,
        /// False if part of it could not be read or was more than is taken up: then nothing is acknowledged, as by the Go agent.
        intact: bool,
    },
    /// New credentials for a running task.
    Credentials {
        /// The message.
        message_id: String,
        /// The task.
        task: TaskArn,
        /// The credentials.
        credentials: Box<RoleCredentials>,
    },
    /// Every task ECS knows on this instance.
    Manifest {
        /// Its place in the order of manifests and payloads.
        timeline: i64,
        /// Tasks whose desired status is RUNNING.
        running: BTreeSet<TaskArn>,
        /// The answer, once it is taken as the newest manifest.
        ack: Ack,
    },
    /// ECS confirms that these tasks are to be stopped.
    StopVerificationAck {
        /// The manifest this belongs to.
        message_id: String,
        /// The tasks.
        tasks: Vec<TaskArn>,
    },
    /// The connection stands.
    Connected,
    /// The container instance is not registered any more (TCS should disconnect).
    Deregistered,
}

/// What is said to ACS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outgoing {
    /// A payload or manifest is dealt with; credentials are acknowledged beside it.
    Ack(Ack),
    /// Credentials of a known task are stored.
    CredentialsAck(CredentialsAck),
    /// Tasks that run here and are not in the manifest: shall they be stopped?
    StopVerification {
        /// The manifest.
        message_id: String,
        /// Its `clusterArn`.
        cluster: String,
        /// The tasks.
        candidates: Vec<TaskArn>,
    },
}
