//! TCS: the telemetry session, over which ECS gets metrics and health (spec `tcs.md`).
//!
//! Owns the wire format, the division of what was measured into messages, and the session's address, timers and signatures. It
//! measures nothing, and decides nothing about tasks. The invariants: each message is signed when it is sent, and has the time of
//! its data; a message that was handed to the connection is never sent again; messages that wait for a connection are bounded.
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

use ecs_core::model::Timestamp;
use health::TaskHealth;
use metrics::TaskMetrics;
use status::InstanceStatus;
use tokio::time::Instant;

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

/// What is published, with the time of its data.
#[derive(Clone, Debug, PartialEq)]
pub struct Dated {
    /// When the data was collected.
    pub at: Instant,
    /// The data.
    pub outgoing: Outgoing,
}

impl From<Outgoing> for Dated {
    /// Data that is collected now.
    fn from(outgoing: Outgoing) -> Self {
        Self { at: Instant::now(), outgoing }
    }
}

impl Outgoing {
    /// The same with each moment in it changed.
    fn with_moments(self, change: impl Fn(Timestamp) -> Timestamp) -> Self {
        match self {
            Self::Idle | Self::Metrics(_) => self,
            Self::Health(mut tasks) => {
                for container in tasks.iter_mut().flat_map(|task| &mut task.containers) {
                    container.since = container.since.map(&change);
                }
                Self::Health(tasks)
            }
            Self::Status(status) => Self::Status(InstanceStatus {
                previous_check: change(status.previous_check),
                changed: change(status.changed),
                ..status
            }),
        }
    }
}
