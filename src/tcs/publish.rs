//! From what is published to the texts of messages (spec `tcs.md` §4 to §6).
//!
//! Owns the division into messages. Pure: the time and the id are arguments. The invariants: a message has at most ten tasks and,
//! unless a single task needs more, at most 1 MiB; all messages made from the same data share an id, and only the last one is
//! marked as the last (`fin`).

use super::Outgoing;
use super::health::TaskHealth;
use super::metrics::TaskMetrics;
use super::status::InstanceStatus;
use super::wire::{
    self, Envelope, HealthMetadata, HealthRequest, MetricsMetadata, MetricsRequest, Seconds, StatusMetadata,
    StatusRequest, TaskHealthForm,
};
use ecs_core::model::Timestamp;
use serde::Serialize;
use serde_json::value::RawValue;

/// Maximum number of tasks in a message.
const MAX_TASKS: usize = 10;
/// Maximum length of a message in bytes, without its envelope and its signature.
const MAX_BYTES: usize = 1024 * 1024;

/// The instance that publishes.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// The cluster: name or ARN.
    pub(super) cluster: String,
    /// The ARN of the container instance.
    pub(super) container_instance: String,
}

/// The texts to send, in order. `id` is random; `at` is the time of the data. None if a number cannot be written, which is logged.
pub(super) fn texts(place: &Place, outgoing: &Outgoing, id: &str, at: Timestamp) -> Vec<String> {
    let texts = match outgoing {
        Outgoing::Idle => metrics(place, &[], id, at),
        Outgoing::Metrics(tasks) => metrics(place, tasks, id, at),
        Outgoing::Health(tasks) => health(place, tasks, id, at),
        Outgoing::Status(status) => self::status(place, status, id, at).map(|text| vec![text]),
    };
    texts.unwrap_or_else(|error| {
        tracing::error!(%error, "a message to TCS cannot be written");
        Vec::new()
    })
}

/// No tasks: the instance is idle.
fn metrics(place: &Place, tasks: &[TaskMetrics], id: &str, at: Timestamp) -> serde_json::Result<Vec<String>> {
    let metadata = |fin| MetricsMetadata {
        cluster: &place.cluster,
        container_instance: &place.container_instance,
        fin,
        idle: tasks.is_empty(),
        message_id: id,
    };
    let request = |task_metrics, fin| MetricsRequest { metadata: metadata(fin), task_metrics, timestamp: Seconds(at) };
    // The length without tasks, and with the name and the brackets of their list.
    let empty = serde_json::to_string(&request(&[], false))?.len() + r#""taskMetrics":[],"#.len();
    let parts = parts(tasks, empty)?;
    let last = parts.len() - 1;
    let texts = parts.iter().enumerate().map(|(index, part)| {
        let message = request(part.as_slice(), index == last);
        encode("PublishMetricsRequest", message)
    });
    texts.collect()
}

/// The tasks of each message. `empty` is the length of a message with an empty list.
fn parts(tasks: &[TaskMetrics], empty: usize) -> serde_json::Result<Vec<Vec<Box<RawValue>>>> {
    let (mut parts, mut bytes) = (vec![Vec::new()], empty);
    for task in tasks {
        let task = wire::task_metrics(task)?;
        let added = task.get().len() + 1; // and a comma
        let is_full = parts
            .last()
            .is_some_and(|part: &Vec<_>| part.len() == MAX_TASKS || (!part.is_empty() && bytes + added > MAX_BYTES));
        if is_full {
            parts.push(Vec::new());
            bytes = empty;
        }
        bytes += added;
        if let Some(part) = parts.last_mut() {
            part.push(task);
        }
    }
    Ok(parts)
}

fn health(place: &Place, tasks: &[TaskHealth], id: &str, at: Timestamp) -> serde_json::Result<Vec<String>> {
    let parts = tasks.chunks(MAX_TASKS);
    let count = parts.len();
    let texts = parts.enumerate().map(|(index, part)| {
        encode(
            "PublishHealthRequest",
            HealthRequest {
                metadata: HealthMetadata {
                    cluster: &place.cluster,
                    container_instance: &place.container_instance,
                    fin: index + 1 == count,
                    message_id: id,
                },
                tasks: part.iter().map(|task| TaskHealthForm::new(task, at)).collect(),
                timestamp: Seconds(at),
            },
        )
    });
    texts.collect()
}

fn status(place: &Place, status: &InstanceStatus, id: &str, at: Timestamp) -> serde_json::Result<String> {
    let metadata =
        StatusMetadata { cluster: &place.cluster, container_instance: &place.container_instance, request_id: id };
    encode(
        "PublishInstanceStatusRequest",
        StatusRequest { metadata, statuses: [status.into()], timestamp: Seconds(at) },
    )
}

fn encode(kind: &'static str, message: impl Serialize) -> serde_json::Result<String> {
    serde_json::to_string(&Envelope { kind, message })
}

#[cfg(test)]
mod tests;
