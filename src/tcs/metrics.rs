//! The metrics of tasks for one interval (spec `tcs.md` §4).
//!
//! Plain data. A set of statistics summarises the samples of the interval; `None`: there is no such set.

use ecs_core::model::{ContainerName, TaskArn};

/// What was measured since the last time.
#[derive(Clone, Debug, PartialEq)]
pub enum Interval {
    /// No container is measured, or the operator has disabled metrics.
    Idle,
    /// Containers are measured, but there are not enough samples yet. Nothing is sent.
    TooLittle,
    /// The metrics of these tasks.
    Tasks(Vec<TaskMetrics>),
}

/// The metrics of one task.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TaskMetrics {
    /// The ARN of the task.
    pub arn: TaskArn,
    /// The family of the task definition.
    pub family: String,
    /// The revision of the task definition.
    pub version: String,
    /// The containers of the task.
    pub containers: Vec<ContainerMetrics>,
}

/// The metrics of one container.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ContainerMetrics {
    /// The name of the container in the task definition.
    pub name: ContainerName,
    /// CPU usage in percent of the whole host.
    pub cpu: Option<Summary>,
    /// Memory in MiB.
    pub memory: Option<Summary>,
    /// The traffic of the container's own networks.
    pub network: Option<Network>,
    /// Bytes read from and written to block devices since the start of the container.
    pub storage: Option<Storage>,
    /// The number of restarts by the restart policy within the interval.
    pub restarts: Option<u32>,
}

/// A summary of samples that are measured.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Summary {
    /// The smallest sample.
    pub min: f64,
    /// The largest sample.
    pub max: f64,
    /// The sum of all samples.
    pub sum: f64,
    /// The number of samples.
    pub count: u64,
}

/// A summary of samples of a counter. What exceeds the largest number that the protocol knows, 2^63 - 1, is in `overflow_…`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counter {
    /// The smallest sample.
    pub min: i64,
    /// What of it exceeds the largest number.
    pub overflow_min: i64,
    /// The largest sample.
    pub max: i64,
    /// What of it exceeds the largest number.
    pub overflow_max: i64,
    /// The sum of all samples.
    pub sum: i64,
    /// What of it exceeds the largest number.
    pub overflow_sum: i64,
    /// The number of samples.
    pub count: u64,
}

/// Bytes read and written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Storage {
    /// Bytes read.
    pub read: Counter,
    /// Bytes written.
    pub written: Counter,
}

/// Traffic in both directions.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Network {
    /// What the container received.
    pub received: Direction,
    /// What the container sent.
    pub sent: Direction,
}

/// Traffic in one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Direction {
    /// Bytes.
    pub bytes: Counter,
    /// Packets.
    pub packets: Counter,
    /// Packets that were dropped.
    pub dropped: Counter,
    /// Errors.
    pub errors: Counter,
    /// Bytes per second between two samples; `None`: there was no earlier sample.
    pub bytes_per_second: Option<Summary>,
}
