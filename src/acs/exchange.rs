//! The channels between the session and the agent: queued messages in one direction, answers in the other.
//!
//! Owns the bounds of both. It opens no connection and knows no timer of the protocol. The invariant: the agent never waits for
//! the control plane. Messages wait here for the agent; an answer without a connection is dropped.

use super::{Contact, Incoming, Outgoing, ReceivedTask};
use crate::model::ContainerSpec;
use std::collections::VecDeque;
use std::future::Future;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Maximum number of queued messages; above it, no more are read from the connection.
pub(super) const MAX_WAITING: usize = 64;
/// Limit for the total size in bytes of the queued messages, on the wire and decoded together. The last message may exceed it.
pub(super) const MAX_WAITING_BYTES: usize = 4 * 1024 * 1024;

/// The session's ends of the channels to and from the agent.
pub(super) struct Exchange {
    /// Takes messages for the agent.
    pub(super) inbox: mpsc::Sender<Incoming>,
    /// Yields answers for ACS.
    pub(super) outbox: mpsc::Receiver<Outgoing>,
    /// Cancelled when the session is to end.
    pub(super) cancel: CancellationToken,
    /// The time of the last contact with ACS.
    pub(super) contact: Contact,
    /// The queued messages, each with its size in bytes, on the wire and decoded together.
    waiting: VecDeque<(Incoming, usize)>,
    /// The sum of these sizes.
    bytes: usize,
}

/// Size in bytes of the decoded tasks of a payload, without their texts: a container takes far more memory than its JSON.
fn decoded_size(message: &Incoming) -> usize {
    let Incoming::Payload { tasks, .. } = message else { return 0 };
    let containers = tasks.iter().map(|task| match task {
        ReceivedTask::Run(spec) => spec.containers.len(),
        _ => 0,
    });
    tasks.len() * size_of::<ReceivedTask>() + containers.sum::<usize>() * size_of::<ContainerSpec>()
}

impl Exchange {
    pub(super) fn new(
        inbox: mpsc::Sender<Incoming>,
        outbox: mpsc::Receiver<Outgoing>,
        cancel: CancellationToken,
        contact: Contact,
    ) -> Self {
        Self { inbox, outbox, cancel, contact, waiting: VecDeque::new(), bytes: 0 }
    }

    /// Whether one more message may be read.
    pub(super) fn has_room(&self) -> bool {
        self.waiting.len() < MAX_WAITING && self.bytes < MAX_WAITING_BYTES
    }

    /// Whether a message waits for the agent.
    pub(super) fn has_messages(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Queues a message; `wire_bytes` is its size on the wire.
    pub(super) fn push(&mut self, message: Incoming, wire_bytes: usize) {
        let bytes = wire_bytes + decoded_size(&message);
        self.bytes += bytes;
        self.waiting.push_back((message, bytes));
    }

    /// Queues a notice of the session itself, unless the agent is so far behind that the notice would be outdated.
    pub(super) fn notify(&mut self, notice: Incoming) {
        if self.has_room() {
            self.push(notice, 0);
        }
    }

    /// Passes the oldest message to the agent.
    pub(super) fn deliver(&mut self, permit: mpsc::Permit<'_, Incoming>) {
        if let Some((message, bytes)) = self.waiting.pop_front() {
            self.bytes -= bytes;
            permit.send(message);
        }
    }

    /// Waits for `work` while there is no connection; `None` if the session is to end first.
    ///
    /// Answers are dropped meanwhile. They belong to messages of an earlier connection, and ACS resends unacknowledged messages
    /// on the next one. (The Go agent drops such answers too, since it answers on the connection of the message.)
    pub(super) async fn while_disconnected<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        tokio::pin!(work);
        let (cancel, inbox) = (self.cancel.clone(), self.inbox.clone());
        let mut dropped = 0_usize;
        let done = loop {
            tokio::select! {
                biased;
                () = cancel.cancelled() => return None,
                outgoing = self.outbox.recv() => match outgoing {
                    Some(_) => dropped += 1,
                    None => return None,
                },
                permit = inbox.reserve(), if self.has_messages() => match permit {
                    Ok(permit) => self.deliver(permit),
                    Err(_closed) => return None,
                },
                done = &mut work => break done,
            }
        };
        if dropped > 0 {
            tracing::warn!(
                dropped,
                "answers to ACS were dropped without a connection; ACS will send the messages again"
            );
        }
        Some(done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Ack, TaskSpec};

    #[test]
    fn a_short_payload_with_many_containers_fills_the_queue() {
        let (inbox, _agent) = mpsc::channel(1);
        let (_core, outbox) = mpsc::channel(1);
        let mut exchange = Exchange::new(inbox, outbox, CancellationToken::new(), Contact::default());
        let spec = TaskSpec { containers: vec![ContainerSpec::default(); 5_000], ..TaskSpec::default() };
        let ack = Ack {
            message_id: String::new(),
            cluster: String::new(),
            container_instance: String::new(),
            credentials: Vec::new(),
        };
        let tasks = vec![ReceivedTask::Run(Box::new(spec))];
        let payload = Incoming::Payload { tasks, credentials: Vec::new(), ack, seq_num: 0, intact: true };
        let mut count = 0;
        while exchange.has_room() {
            exchange.push(payload.clone(), 100);
            count += 1;
        }
        assert!((1..5).contains(&count), "{count} messages with thousands of containers are queued");
    }
}
