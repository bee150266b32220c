//! The messages to TCS on the wire (spec `tcs.md` §4 to §6).
//!
//! Owns the names of the members and the form of numbers: those of the Go agent, in the alphabetical order of the model. A member
//! that is not set is left out.

use super::health::{ContainerHealth, TaskHealth};
use super::metrics::{ContainerMetrics, Counter, Network, Storage, Summary, TaskMetrics};
use super::status::{Condition, InstanceStatus};
use ecs_core::model::Timestamp;
use serde::ser::Error;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

/// A message with its type.
#[derive(Serialize)]
pub(super) struct Envelope<T> {
    #[serde(rename = "type")]
    pub(super) kind: &'static str,
    pub(super) message: T,
}

/// `PublishMetricsRequest`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct MetricsRequest<'a> {
    pub(super) metadata: MetricsMetadata<'a>,
    /// The tasks, encoded by [`task_metrics`].
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub(super) task_metrics: &'a [Box<RawValue>],
    pub(super) timestamp: Seconds,
}

#[derive(Clone, Copy, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct MetricsMetadata<'a> {
    pub(super) cluster: &'a str,
    pub(super) container_instance: &'a str,
    pub(super) fin: bool,
    pub(super) idle: bool,
    pub(super) message_id: &'a str,
}

/// `PublishHealthRequest`.
#[derive(Serialize)]
pub(super) struct HealthRequest<'a> {
    pub(super) metadata: HealthMetadata<'a>,
    pub(super) tasks: Vec<TaskHealthForm<'a>>,
    pub(super) timestamp: Seconds,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct HealthMetadata<'a> {
    pub(super) cluster: &'a str,
    pub(super) container_instance: &'a str,
    pub(super) fin: bool,
    pub(super) message_id: &'a str,
}

/// `PublishInstanceStatusRequest`.
#[derive(Serialize)]
pub(super) struct StatusRequest<'a> {
    pub(super) metadata: StatusMetadata<'a>,
    pub(super) statuses: [StatusForm; 1],
    pub(super) timestamp: Seconds,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct StatusMetadata<'a> {
    pub(super) cluster: &'a str,
    pub(super) container_instance: &'a str,
    pub(super) request_id: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct StatusForm {
    last_status_change: Seconds,
    last_updated: Seconds,
    status: &'static str,
    r#type: &'static str,
}

impl From<&InstanceStatus> for StatusForm {
    fn from(status: &InstanceStatus) -> Self {
        Self {
            last_status_change: Seconds(status.changed),
            last_updated: Seconds(status.previous_check),
            status: match status.condition {
                Condition::Initializing => "INITIALIZING",
                Condition::Ok => "OK",
                Condition::Impaired => "IMPAIRED",
            },
            r#type: "ContainerRuntime",
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct TaskHealthForm<'a> {
    containers: Vec<ContainerHealthForm<'a>>,
    task_arn: &'a str,
    task_definition_family: &'a str,
    task_definition_version: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ContainerHealthForm<'a> {
    container_name: &'a str,
    health_status: String,
    status_since: Seconds,
}

impl<'a> TaskHealthForm<'a> {
    /// `at` stands for the time of a result that does not exist yet.
    pub(super) fn new(task: &'a TaskHealth, at: Timestamp) -> Self {
        let form = |container: &'a ContainerHealth| ContainerHealthForm {
            container_name: container.name.as_str(),
            health_status: container.health.to_string(),
            status_since: Seconds(container.since.unwrap_or(at)),
        };
        Self {
            containers: task.containers.iter().map(form).collect(),
            task_arn: task.arn.as_str(),
            task_definition_family: &task.family,
            task_definition_version: &task.version,
        }
    }
}

/// The JSON of one task's metrics.
pub(super) fn task_metrics(task: &TaskMetrics) -> serde_json::Result<Box<RawValue>> {
    serde_json::value::to_raw_value(&TaskForm {
        container_metrics: task.containers.iter().map(ContainerForm::from).collect(),
        task_arn: task.arn.as_str(),
        task_definition_family: &task.family,
        task_definition_version: &task.version,
    })
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TaskForm<'a> {
    container_metrics: Vec<ContainerForm<'a>>,
    task_arn: &'a str,
    task_definition_family: &'a str,
    task_definition_version: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ContainerForm<'a> {
    container_name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    cpu_stats_set: Option<SummaryForm>,
    #[serde(skip_serializing_if = "Option::is_none")]
    memory_stats_set: Option<SummaryForm>,
    #[serde(skip_serializing_if = "Option::is_none")]
    network_stats_set: Option<NetworkForm>,
    #[serde(skip_serializing_if = "Option::is_none")]
    restart_stats_set: Option<RestartForm>,
    #[serde(skip_serializing_if = "Option::is_none")]
    storage_stats_set: Option<StorageForm>,
}

impl<'a> From<&'a ContainerMetrics> for ContainerForm<'a> {
    fn from(container: &'a ContainerMetrics) -> Self {
        Self {
            container_name: container.name.as_str(),
            cpu_stats_set: container.cpu.map(SummaryForm::from),
            memory_stats_set: container.memory.map(SummaryForm::from),
            network_stats_set: container.network.map(NetworkForm::from),
            restart_stats_set: container.restarts.map(|restart_count| RestartForm { restart_count }),
            storage_stats_set: container.storage.map(StorageForm::from),
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RestartForm {
    restart_count: u32,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct StorageForm {
    read_size_bytes: CounterForm,
    write_size_bytes: CounterForm,
}

impl From<Storage> for StorageForm {
    fn from(storage: Storage) -> Self {
        Self { read_size_bytes: storage.read.into(), write_size_bytes: storage.written.into() }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct NetworkForm {
    rx_bytes: CounterForm,
    #[serde(skip_serializing_if = "Option::is_none")]
    rx_bytes_per_second: Option<SummaryForm>,
    rx_dropped: CounterForm,
    rx_errors: CounterForm,
    rx_packets: CounterForm,
    tx_bytes: CounterForm,
    #[serde(skip_serializing_if = "Option::is_none")]
    tx_bytes_per_second: Option<SummaryForm>,
    tx_dropped: CounterForm,
    tx_errors: CounterForm,
    tx_packets: CounterForm,
}

impl From<Network> for NetworkForm {
    fn from(Network { received: rx, sent: tx }: Network) -> Self {
        Self {
            rx_bytes: rx.bytes.into(),
            rx_bytes_per_second: rx.bytes_per_second.map(SummaryForm::from),
            rx_dropped: rx.dropped.into(),
            rx_errors: rx.errors.into(),
            rx_packets: rx.packets.into(),
            tx_bytes: tx.bytes.into(),
            tx_bytes_per_second: tx.bytes_per_second.map(SummaryForm::from),
            tx_dropped: tx.dropped.into(),
            tx_errors: tx.errors.into(),
            tx_packets: tx.packets.into(),
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SummaryForm {
    max: Real,
    min: Real,
    sample_count: u64,
    sum: Real,
}

impl From<Summary> for SummaryForm {
    fn from(summary: Summary) -> Self {
        let Summary { min, max, sum, count } = summary;
        Self { max: Real(max), min: Real(min), sample_count: count, sum: Real(sum) }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CounterForm {
    max: i64,
    min: i64,
    overflow_max: i64,
    overflow_min: i64,
    overflow_sum: i64,
    sample_count: u64,
    sum: i64,
}

impl From<Counter> for CounterForm {
    fn from(counter: Counter) -> Self {
        let Counter { min, overflow_min, max, overflow_max, sum, overflow_sum, count } = counter;
        Self { max, min, overflow_max, overflow_min, overflow_sum, sample_count: count, sum }
    }
}

/// A moment, in seconds since the epoch with at most three decimals.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seconds(pub(super) Timestamp);

impl Serialize for Seconds {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Real(self.0.as_secs_f64()).serialize(serializer)
    }
}

/// A number as Go writes it: without an exponent, and without a fraction if it is whole.
#[derive(Clone, Copy)]
struct Real(f64);

impl Serialize for Real {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if !self.0.is_finite() {
            return Err(S::Error::custom("a number is infinite or not a number"));
        }
        // Minus zero would be written with its sign.
        let text = (self.0 + 0.0).to_string();
        RawValue::from_string(text).map_err(S::Error::custom)?.serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_in_go() {
        let table = [
            (0.0, "0"),
            (-0.0, "0"),
            (100.0, "100"),
            (1.0327889919281006, "1.0327889919281006"),
            (1e-7, "0.0000001"),
            (1e21, "1000000000000000000000"),
        ];
        for (number, text) in table {
            assert_eq!(serde_json::to_string(&Real(number)).unwrap(), text);
        }
        for (millis, text) in
            [(1_746_802_078_031, "1746802078.031"), (1_746_802_078_500, "1746802078.5"), (1_000, "1"), (0, "0")]
        {
            assert_eq!(serde_json::to_string(&Seconds(Timestamp(millis))).unwrap(), text);
        }
        for number in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert!(serde_json::to_string(&Real(number)).is_err(), "{number}");
        }
    }
}
