//! What agents published over TCS: the last messages, and the newest metrics and health of each task. This module owns the limits
//! and the form in which people see it; it does not judge the messages. Invariant: there are never more than [`MAX_MESSAGES`]
//! messages, [`MAX_BYTES`] of text, [`MAX_TASKS`] tasks and [`MAX_INSTANCES`] instances; the oldest are dropped first.

use serde_json::{Value, json};
use std::collections::{BTreeMap, VecDeque};

/// Maximum number of messages.
const MAX_MESSAGES: usize = 200;
/// Maximum size in bytes of the messages.
const MAX_BYTES: usize = 8 * 1024 * 1024;
/// Maximum number of tasks whose newest metrics are kept.
const MAX_TASKS: usize = 1000;
/// Maximum number of container instances whose last metrics are noted.
const MAX_INSTANCES: usize = 200;
/// Maximum number of texts and bytes that wait for TCS connections.
const MAX_EXTRAS: usize = 100;

/// What is sent to agents beside the answers to their messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Extra {
    /// A text message.
    Text(String),
    /// Bytes in the place of a frame.
    Bytes(Vec<u8>),
}

/// What agents published.
#[derive(Debug, Default)]
pub(super) struct Telemetry {
    /// The messages, oldest first, each with its size in bytes.
    messages: VecDeque<(Value, usize)>,
    /// The sum of these sizes.
    bytes: usize,
    received: u64,
    refused: u64,
    /// The newest metrics and health of each task, by its ARN.
    tasks: BTreeMap<String, Newest>,
    /// The last message with metrics of each container instance, by its ARN.
    instances: BTreeMap<String, LastMetrics>,
    /// What is sent over all connections beside the answers, each with its running number.
    extras: VecDeque<(u64, Extra)>,
    last_extra: u64,
}

/// The newest metrics and health of a task. Times are in seconds since the epoch.
#[derive(Debug, Default)]
struct Newest {
    /// When the last message about the task came.
    at: f64,
    /// When its metrics came, and the metrics of its containers.
    metrics: Option<(f64, Value)>,
    /// The health of its containers.
    health: Option<Value>,
    /// How often each container was restarted, since the first message about the task.
    restarts: BTreeMap<String, u64>,
}

impl Newest {
    fn show(&self) -> Value {
        let mut shown = json!({"at": self.at});
        if let Some((_, metrics)) = &self.metrics {
            shown["metrics"] = metrics.clone();
        }
        if let Some(health) = &self.health {
            shown["health"] = health.clone();
        }
        shown
    }
}

/// The last message of an instance with metrics.
#[derive(Clone, Copy, Debug)]
pub(super) struct LastMetrics {
    /// When it came, in seconds since the epoch.
    pub(super) at: f64,
    /// The agent measures no container, or metrics are disabled.
    pub(super) is_idle: bool,
}

/// The newest metrics of a container.
#[derive(Clone, Copy, Debug)]
pub(super) struct ContainerMetrics<'a> {
    /// When they came, in seconds since the epoch.
    pub(super) at: f64,
    /// The metrics as they were sent.
    pub(super) metrics: &'a Value,
    /// The number of restarts since the first message; `None`: the container has no restart policy.
    pub(super) restarts: Option<u64>,
}

impl Telemetry {
    /// Adds a message. `at` is in seconds since the epoch; `problem` says why it was refused.
    pub(super) fn add(&mut self, at: f64, kind: &str, problem: Option<&str>, message: Value) {
        self.received += 1;
        self.refused += u64::from(problem.is_some());
        if problem.is_none() {
            self.keep(at, &message);
        }
        let bytes = message.to_string().len();
        let mut shown = json!({"at": at, "type": kind, "message": message});
        if let Some(problem) = problem {
            shown["problem"] = json!(problem);
        }
        self.messages.push_back((shown, bytes));
        self.bytes += bytes;
        while self.messages.len() > MAX_MESSAGES || (self.bytes > MAX_BYTES && self.messages.len() > 1) {
            let Some((_, bytes)) = self.messages.pop_front() else { break };
            self.bytes -= bytes;
        }
    }

    fn keep(&mut self, at: f64, message: &Value) {
        self.keep_instance(at, &message["metadata"]);
        for task in message["taskMetrics"].as_array().into_iter().flatten() {
            let Some(kept) = self.task_mut(at, task) else { continue };
            let metrics = &task["containerMetrics"];
            for container in metrics.as_array().into_iter().flatten() {
                let restarts = container["restartStatsSet"]["restartCount"].as_u64();
                if let (Some(name), Some(restarts)) = (container["containerName"].as_str(), restarts) {
                    let all = kept.restarts.entry(name.to_owned()).or_default();
                    *all = all.saturating_add(restarts);
                }
            }
            kept.metrics = Some((at, metrics.clone()));
        }
        for task in message["tasks"].as_array().into_iter().flatten() {
            if let Some(kept) = self.task_mut(at, task) {
                kept.health = Some(task["containers"].clone());
            }
        }
    }

    /// Notes when an instance sent metrics: only such messages have the member `idle`.
    fn keep_instance(&mut self, at: f64, metadata: &Value) {
        let (Some(arn), Some(is_idle)) = (metadata["containerInstance"].as_str(), metadata["idle"].as_bool()) else {
            return;
        };
        if self.instances.len() >= MAX_INSTANCES && !self.instances.contains_key(arn) {
            let oldest = self.instances.iter().min_by(|(_, left), (_, right)| left.at.total_cmp(&right.at));
            if let Some(oldest) = oldest.map(|(arn, _)| arn.clone()) {
                self.instances.remove(&oldest);
            }
        }
        self.instances.insert(arn.to_owned(), LastMetrics { at, is_idle });
    }

    fn task_mut(&mut self, at: f64, task: &Value) -> Option<&mut Newest> {
        let arn = task["taskArn"].as_str()?;
        if self.tasks.len() >= MAX_TASKS && !self.tasks.contains_key(arn) {
            let oldest = self.tasks.iter().min_by(|(_, left), (_, right)| left.at.total_cmp(&right.at));
            if let Some(oldest) = oldest.map(|(arn, _)| arn.clone()) {
                self.tasks.remove(&oldest);
            }
        }
        let kept = self.tasks.entry(arn.to_owned()).or_default();
        kept.at = at;
        Some(kept)
    }

    /// The last message of an instance with metrics; `None`: there was none.
    pub(super) fn last_metrics(&self, instance: &str) -> Option<LastMetrics> {
        self.instances.get(instance).copied()
    }

    /// The newest metrics of a container; `None`: there were none.
    pub(super) fn container(&self, task: &str, name: &str) -> Option<ContainerMetrics<'_>> {
        let kept = self.tasks.get(task)?;
        let (at, metrics) = kept.metrics.as_ref()?;
        let metrics = metrics.as_array()?.iter().find(|container| container["containerName"] == name)?;
        Some(ContainerMetrics { at: *at, metrics, restarts: kept.restarts.get(name).copied() })
    }

    /// The counts, the newest metrics and health by task, and the last messages, oldest first.
    pub(super) fn show(&self) -> Value {
        let messages: Vec<&Value> = self.messages.iter().map(|(message, _)| message).collect();
        let tasks: BTreeMap<&str, Value> = self.tasks.iter().map(|(arn, task)| (arn.as_str(), task.show())).collect();
        json!({"received": self.received, "refused": self.refused, "tasks": tasks, "messages": messages})
    }

    /// Adds a text or bytes for all TCS connections.
    pub(super) fn add_extra(&mut self, extra: Extra) {
        self.last_extra += 1;
        self.extras.push_back((self.last_extra, extra));
        if self.extras.len() > MAX_EXTRAS {
            self.extras.pop_front();
        }
    }

    /// The number of the last text or bytes.
    pub(super) fn last_extra(&self) -> u64 {
        self.last_extra
    }

    /// The texts and bytes after this number.
    pub(super) fn extras_after(&self, number: u64) -> Vec<Extra> {
        self.extras.iter().filter(|(each, _)| *each > number).map(|(_, extra)| extra.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_messages_and_the_newest_values_are_kept() {
        let mut telemetry = Telemetry::default();
        for at in 0..MAX_MESSAGES + 5 {
            let arn = format!("task-{}", at % 3);
            let message = json!({"taskMetrics": [{"taskArn": arn, "containerMetrics": [at]}]});
            telemetry.add(at as f64, "PublishMetricsRequest", None, message);
        }
        telemetry.add(
            900.0,
            "PublishHealthRequest",
            None,
            json!({"tasks": [{"taskArn": "task-0", "containers": ["h"]}]}),
        );
        telemetry.add(901.0, "x", Some("wrong"), json!({"tasks": [{"taskArn": "task-9", "containers": []}]}));
        let shown = telemetry.show();
        let messages = shown["messages"].as_array().unwrap();
        assert_eq!((messages.len(), &messages[0]["at"]), (MAX_MESSAGES, &json!(7.0)));
        assert_eq!(messages[MAX_MESSAGES - 1]["problem"], "wrong");
        assert_eq!((&shown["received"], &shown["refused"]), (&json!(MAX_MESSAGES + 7), &json!(1)));
        assert_eq!(shown["tasks"]["task-0"], json!({"at": 900.0, "metrics": [204], "health": ["h"]}));
        assert_eq!(shown["tasks"].as_object().unwrap().len(), 3, "a refused message has no values");
    }

    #[test]
    fn restarts_are_counted_over_the_messages() {
        let mut telemetry = Telemetry::default();
        let metrics = |restarts: u64| {
            let containers = json!([{"containerName": "web", "restartStatsSet": {"restartCount": restarts}}, {"containerName": "db"}]);
            json!({"metadata": {"containerInstance": "i", "idle": false}, "taskMetrics": [{"taskArn": "t", "containerMetrics": containers}]})
        };
        for (at, restarts) in [(1.0, 0), (2.0, 2), (3.0, 1)] {
            telemetry.add(at, "PublishMetricsRequest", None, metrics(restarts));
        }
        let web = telemetry.container("t", "web").unwrap();
        assert_eq!((web.at, web.restarts), (3.0, Some(3)));
        assert_eq!(telemetry.container("t", "db").unwrap().restarts, None);
        assert!(telemetry.container("t", "x").is_none() && telemetry.container("u", "web").is_none());
        let idle = json!({"metadata": {"containerInstance": "i", "idle": true}});
        telemetry.add(4.0, "PublishMetricsRequest", None, idle.clone());
        telemetry.add(5.0, "PublishHealthRequest", None, json!({"metadata": {"containerInstance": "i"}, "tasks": []}));
        let last = telemetry.last_metrics("i").unwrap();
        assert_eq!((last.at, last.is_idle), (4.0, true), "health is no metrics");
        telemetry.add(6.0, "PublishMetricsRequest", Some("wrong"), idle);
        assert_eq!(telemetry.last_metrics("i").unwrap().at, 4.0);
    }

    #[test]
    fn messages_tasks_and_extras_are_bounded() {
        let mut telemetry = Telemetry::default();
        for _ in 0..5 {
            telemetry.add(0.0, "x", None, json!("x".repeat(MAX_BYTES / 3)));
        }
        assert_eq!(telemetry.messages.len(), 2);
        for number in 0..MAX_TASKS + 5 {
            let message = json!({"tasks": [{"taskArn": number.to_string(), "containers": []}]});
            telemetry.add(number as f64, "x", None, message);
        }
        assert_eq!((telemetry.tasks.len(), telemetry.tasks.contains_key("4")), (MAX_TASKS, false));
        for number in 0..MAX_INSTANCES + 5 {
            let metadata = json!({"containerInstance": number.to_string(), "idle": true});
            telemetry.add(number as f64, "x", None, json!({"metadata": metadata}));
        }
        assert_eq!((telemetry.instances.len(), telemetry.last_metrics("4").is_none()), (MAX_INSTANCES, true));
        for number in 0..MAX_EXTRAS + 5 {
            telemetry.add_extra(Extra::Text(number.to_string()));
        }
        assert_eq!(telemetry.extras_after(0).len(), MAX_EXTRAS);
        assert_eq!(telemetry.extras_after(telemetry.last_extra() - 1), [Extra::Text("104".to_owned())]);
    }
}
