//! Messages that wait to be sent to one container instance over ACS. This module owns the order, delays, duplicates and
//! redelivery; it opens no socket. Invariant: a message that needs an acknowledgement stays here until it is acknowledged,
//! even if sockets close.

use super::faults::Delivery;
use serde_json::Value;
use std::collections::VecDeque;
use std::time::Duration;
use tokio::time::Instant;

/// Maximum number of messages that wait for one instance.
const MAX_WAITING: usize = 1000;
/// With [`Delivery::reorder`], how long a single payload waits for another one that is then sent first.
const REORDER_WAIT: Duration = Duration::from_secs(5);

/// A message in the queue.
#[derive(Debug)]
struct QueuedMessage {
    message_id: String,
    message: Value,
    /// The message is a payload.
    is_payload: bool,
    /// The message is repeated until the agent acknowledges it.
    needs_ack: bool,
    /// The earliest time of the first send.
    not_before: Instant,
    /// The time of the last send on this connection; `None`: not sent yet.
    sent: Option<Instant>,
}

/// The queue of one instance.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    waiting: VecDeque<QueuedMessage>,
}

impl Outbox {
    /// Queues a message. The error means that too many already wait.
    pub(super) fn push(&mut self, message: Value, needs_ack: bool, delivery: &Delivery) -> Result<(), String> {
        if self.waiting.len() >= MAX_WAITING {
            return Err(format!("{MAX_WAITING} messages already wait for this container instance"));
        }
        let is_payload = message["type"] == "PayloadMessage";
        let delay = if is_payload { delivery.delay } else { Duration::ZERO };
        let message_id = message["message"]["messageId"].as_str().unwrap_or_default().to_owned();
        let not_before = Instant::now() + delay;
        self.waiting.push_back(QueuedMessage { message_id, message, is_payload, needs_ack, not_before, sent: None });
        Ok(())
    }

    /// Prepares for a new connection, on which nothing was sent yet.
    pub(super) fn restart(&mut self) {
        self.waiting.iter_mut().for_each(|waiting| waiting.sent = None);
    }

    /// Removes a message that the agent has acknowledged.
    pub(super) fn acknowledge(&mut self, message_id: &str) {
        self.waiting.retain(|waiting| waiting.message_id != message_id || !waiting.needs_ack);
    }

    /// Removes payloads that hold only this task, because it has stopped.
    pub(super) fn forget_task(&mut self, arn: &str) {
        self.waiting.retain(|waiting| {
            let tasks = waiting.message["message"]["tasks"].as_array();
            !waiting.is_payload || tasks.is_none_or(|tasks| tasks.iter().any(|task| task["arn"] != arn))
        });
    }

    /// A payload with this id is in the queue.
    pub(super) fn holds_payload(&self, message_id: &str) -> bool {
        self.waiting.iter().any(|waiting| waiting.is_payload && waiting.message_id == message_id)
    }

    /// Number of messages that wait for an acknowledgement.
    pub(super) fn unacknowledged(&self) -> usize {
        self.waiting.iter().filter(|waiting| waiting.needs_ack).count()
    }

    /// Takes the messages that are to be sent now. Redelivery has no limit on purpose: ECS repeats a payload until it is
    /// acknowledged.
    pub(super) fn due(&mut self, now: Instant, redeliver: Duration, delivery: &Delivery) -> Vec<Value> {
        let mut due = Vec::new();
        let fresh = self.waiting.iter().filter(|waiting| waiting.is_payload && waiting.sent.is_none()).count();
        for waiting in &mut self.waiting {
            let wait = if delivery.reorder && waiting.is_payload && fresh == 1 { REORDER_WAIT } else { Duration::ZERO };
            let ready = match waiting.sent {
                Some(sent) => now >= sent + redeliver,
                None => now >= waiting.not_before + wait,
            };
            if ready {
                waiting.sent = Some(now);
                due.push(waiting.message.clone());
                if delivery.duplicate && waiting.is_payload {
                    due.push(waiting.message.clone());
                }
            }
        }
        self.waiting.retain(|waiting| waiting.needs_ack || waiting.sent.is_none());
        if delivery.reorder {
            due.reverse();
        }
        due
    }

    /// When the next message may become due; `None`: the queue is empty.
    pub(super) fn next(&self, redeliver: Duration, delivery: &Delivery) -> Option<Instant> {
        let wait = if delivery.reorder { REORDER_WAIT } else { Duration::ZERO };
        self.waiting.iter().map(|waiting| waiting.sent.map_or(waiting.not_before + wait, |sent| sent + redeliver)).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const AGAIN: Duration = Duration::from_secs(10);

    fn payload(id: &str) -> Value {
        json!({"type": "PayloadMessage", "message": {"messageId": id}})
    }

    fn ids(messages: &[Value]) -> Vec<&str> {
        messages.iter().filter_map(|message| message["message"]["messageId"].as_str()).collect()
    }

    /// A payload is also repeated on a new connection.
    #[test]
    fn a_payload_is_repeated_until_acknowledged() {
        let (mut outbox, delivery) = (Outbox::default(), Delivery::default());
        outbox.push(payload("a"), true, &delivery).unwrap();
        let now = Instant::now();
        assert_eq!(ids(&outbox.due(now, AGAIN, &delivery)), ["a"]);
        assert!(outbox.due(now, AGAIN, &delivery).is_empty());
        assert_eq!(ids(&outbox.due(now + AGAIN, AGAIN, &delivery)), ["a"]);
        outbox.restart();
        assert_eq!(ids(&outbox.due(now + AGAIN, AGAIN, &delivery)), ["a"]);
        outbox.acknowledge("a");
        assert!(outbox.due(now + AGAIN * 3, AGAIN, &delivery).is_empty());
        assert_eq!(outbox.next(AGAIN, &delivery), None);
    }

    #[test]
    fn a_message_without_acknowledgement_is_sent_once() {
        let (mut outbox, delivery) = (Outbox::default(), Delivery::default());
        outbox.push(json!({"type": "HeartbeatMessage", "message": {"messageId": "h"}}), false, &delivery).unwrap();
        let now = Instant::now();
        assert_eq!(outbox.due(now, AGAIN, &delivery).len(), 1);
        assert!(outbox.due(now + AGAIN, AGAIN, &delivery).is_empty());
    }

    #[test]
    fn faults_of_delivery() {
        let now = Instant::now();
        let late = Delivery { delay: Duration::from_secs(60), ..Delivery::default() };
        let mut outbox = Outbox::default();
        outbox.push(payload("a"), true, &late).unwrap();
        assert!(outbox.due(now, AGAIN, &late).is_empty());
        assert_eq!(outbox.due(now + Duration::from_secs(61), AGAIN, &late).len(), 1);

        let twice = Delivery { duplicate: true, ..Delivery::default() };
        let mut outbox = Outbox::default();
        outbox.push(payload("a"), true, &twice).unwrap();
        assert_eq!(ids(&outbox.due(Instant::now(), AGAIN, &twice)), ["a", "a"]);

        let mixed = Delivery { reorder: true, ..Delivery::default() };
        let mut outbox = Outbox::default();
        outbox.push(payload("a"), true, &mixed).unwrap();
        assert!(outbox.due(Instant::now(), AGAIN, &mixed).is_empty());
        outbox.push(payload("b"), true, &mixed).unwrap();
        assert_eq!(ids(&outbox.due(Instant::now(), AGAIN, &mixed)), ["b", "a"]);
    }

    #[test]
    fn a_stopped_task_is_not_sent_again() {
        let (mut outbox, delivery) = (Outbox::default(), Delivery::default());
        for tasks in [json!([{"arn": "a"}]), json!([{"arn": "a"}, {"arn": "b"}])] {
            let message = json!({"type": "PayloadMessage", "message": {"messageId": "m", "tasks": tasks}});
            outbox.push(message, true, &delivery).unwrap();
        }
        outbox.forget_task("a");
        assert_eq!(outbox.unacknowledged(), 1);
    }

    #[test]
    fn the_queue_is_bounded() {
        let (mut outbox, delivery) = (Outbox::default(), Delivery::default());
        for _ in 0..MAX_WAITING {
            outbox.push(payload("a"), true, &delivery).unwrap();
        }
        assert!(outbox.push(payload("b"), true, &delivery).unwrap_err().contains("already wait"));
    }
}
