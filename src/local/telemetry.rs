//! What agents published over TCS: the last messages, and the newest metrics and health of each task. This module owns the limits
//! and the form in which people see it; it does not judge the messages. Invariant: there are never more than [`MAX_MESSAGES`]
//! messages, [`MAX_BYTES`] of text and [`MAX_TASKS`] tasks; the oldest are dropped first.

use serde_json::{Value, json};
use std::collections::{BTreeMap, VecDeque};

/// Maximum number of messages.
const MAX_MESSAGES: usize = 200;
/// Maximum size in bytes of the messages.
const MAX_BYTES: usize = 8 * 1024 * 1024;
/// Maximum number of tasks whose newest metrics are kept.
const MAX_TASKS: usize = 1000;
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
    tasks: BTreeMap<String, Value>,
    /// What is sent over all connections beside the answers, each with its running number.
    extras: VecDeque<(u64, Extra)>,
    last_extra: u64,
}

impl Telemetry {
    /// Adds a message. `at` is in seconds since the epoch; `problem` says why it was refused.
    pub(super) fn add(&mut self, at: f64, kind: &str, problem: Option<&str>, message: Value) {
        self.received += 1;
        self.refused += u64::from(problem.is_some());
        if problem.is_none() {
            self.keep_tasks(at, &message);
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

    fn keep_tasks(&mut self, at: f64, message: &Value) {
        for (list, inner, name) in [("taskMetrics", "containerMetrics", "metrics"), ("tasks", "containers", "health")] {
            for task in message[list].as_array().into_iter().flatten() {
                let Some(arn) = task["taskArn"].as_str() else { continue };
                if self.tasks.len() >= MAX_TASKS && !self.tasks.contains_key(arn) {
                    self.drop_oldest_task();
                }
                let kept = self.tasks.entry(arn.to_owned()).or_insert_with(|| json!({}));
                kept["at"] = json!(at);
                kept[name] = task[inner].clone();
            }
        }
    }

    fn drop_oldest_task(&mut self) {
        let at = |task: &Value| task["at"].as_f64().unwrap_or_default();
        let oldest = self.tasks.iter().min_by(|(_, left), (_, right)| at(left).total_cmp(&at(right)));
        if let Some(arn) = oldest.map(|(arn, _)| arn.clone()) {
            self.tasks.remove(&arn);
        }
    }

    /// The counts, the newest metrics and health by task, and the last messages, oldest first.
    pub(super) fn show(&self) -> Value {
        let messages: Vec<&Value> = self.messages.iter().map(|(message, _)| message).collect();
        json!({"received": self.received, "refused": self.refused, "tasks": self.tasks, "messages": messages})
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
        for number in 0..MAX_EXTRAS + 5 {
            telemetry.add_extra(Extra::Text(number.to_string()));
        }
        assert_eq!(telemetry.extras_after(0).len(), MAX_EXTRAS);
        assert_eq!(telemetry.extras_after(telemetry.last_extra() - 1), [Extra::Text("104".to_owned())]);
    }
}
