//! TCS: the telemetry session, over which ECS gets metrics and health (spec `tcs.md`).
//!
//! Owns the wire format, the division of what was measured into messages, and the session's address, timers and signatures. It
//! measures nothing, and decides nothing about tasks. The invariants: each message is signed and dated when it is sent; a message
//! that was handed to the connection is never sent again; messages that wait for a connection are bounded.
//!
//! Reading order: this file (what is sent), [`metrics`], [`health`], [`status`] (the data of the three kinds of message),
//! [`waiting`] (messages that wait for the connection), `publish` (from data to texts), `wire` (their form), `decode` (the answers
//! of TCS), `frame` (the signature of a message), [`session`]. The connection is a [`websocket`](crate::websocket).
//!
//! Not sent: metrics of Service Connect and of EBS volumes, since such tasks do not run here yet.

mod decode;
mod frame;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
pub mod health;
pub mod metrics;
mod publish;
pub mod session;
pub mod status;
pub mod waiting;
mod wire;

use health::TaskHealth;
use metrics::TaskMetrics;
use status::InstanceStatus;

/// What the session tells the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Incoming {
    /// The connection is established.
    Connected,
}

/// What is published at one time.
#[derive(Clone, Debug, PartialEq)]
pub enum Outgoing {
    /// No container is measured: the instance is idle.
    Idle,
    /// Metrics of tasks.
    Metrics(Vec<TaskMetrics>),
    /// The health of containers.
    Health(Vec<TaskHealth>),
    /// The state of the instance itself.
    Status(InstanceStatus),
}
