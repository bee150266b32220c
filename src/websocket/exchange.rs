//! The channels between the session and the agent: queued messages in one direction, answers in the other.
//!
//! Owns the bounds of both. It opens no connection and knows no timer of the protocol. The invariant: the agent never waits for
//! the control plane. Messages wait here for the agent; an answer without a connection is dropped, or waits in the agent's queue.

use super::contact::{Connection, Contact};
use super::protocol::{Change, Protocol};
use std::collections::VecDeque;
use std::future::Future;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Maximum number of queued messages; above it, no more are read from the connection.
pub(crate) const MAX_WAITING: usize = 64;
/// Limit for the total size in bytes of the queued messages, on the wire and decoded together. The last message may exceed it.
pub(crate) const MAX_WAITING_BYTES: usize = 4 * 1024 * 1024;

/// The session's ends of the channels to and from the agent.
pub(crate) struct Exchange<P: Protocol> {
    /// Decodes and encodes the messages.
    pub(super) protocol: Arc<P>,
    /// Takes messages for the agent.
    pub(super) inbox: mpsc::Sender<P::Incoming>,
    /// Yields messages of the agent.
    pub(super) outbox: mpsc::Receiver<P::Outgoing>,
    /// Cancelled when the session is to end.
    pub(super) cancel: CancellationToken,
    /// The time of the last contact with the service.
    pub(super) contact: Contact,
    /// The queued messages, each with its size in bytes, on the wire and decoded together.
    waiting: VecDeque<(P::Incoming, usize)>,
    /// The sum of these sizes.
    bytes: usize,
    /// The number of connections since the service last sent a message that counts, the current one included.
    fruitless: u32,
}

impl<P: Protocol> Exchange<P> {
    pub(crate) fn new(
        protocol: P,
        inbox: mpsc::Sender<P::Incoming>,
        outbox: mpsc::Receiver<P::Outgoing>,
        cancel: CancellationToken,
        contact: Contact,
    ) -> Self {
        let protocol = Arc::new(protocol);
        Self { protocol, inbox, outbox, cancel, contact, waiting: VecDeque::new(), bytes: 0, fruitless: 0 }
    }

    /// Notes that a connection is made. It is open until the result is dropped.
    pub(super) fn connected(&mut self) -> Connection {
        let open = self.contact.connected();
        self.fruitless = self.fruitless.saturating_add(1);
        if self.is_logged() {
            self.notify(Change::Connected);
        }
        open
    }

    /// Notes that the service has sent a message that counts.
    pub(super) fn message_received(&mut self) {
        self.contact.message_received();
        self.fruitless = 0;
    }

    /// Whether what happens on this connection is logged. A peer that the agent can do without may be of no use for ever: of the
    /// connections on which it sends nothing that counts, the first ten are logged, later ones rarely.
    pub(super) fn is_logged(&self) -> bool {
        !P::CLOSES_SILENT || is_logged(self.fruitless)
    }

    /// Whether one more message may be read.
    pub(crate) fn has_room(&self) -> bool {
        self.waiting.len() < MAX_WAITING && self.bytes < MAX_WAITING_BYTES
    }

    /// Whether a message waits for the agent.
    pub(super) fn has_messages(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Queues a message; `wire_bytes` is its size on the wire.
    pub(crate) fn push(&mut self, message: P::Incoming, wire_bytes: usize) {
        let bytes = wire_bytes + self.protocol.decoded_size(&message);
        self.bytes += bytes;
        self.waiting.push_back((message, bytes));
    }

    /// Queues a message that is of use only to an agent that has nothing else to do.
    pub(super) fn push_if_idle(&mut self, message: P::Incoming) {
        if !self.has_messages() {
            self.push(message, 0);
        }
    }

    /// Queues a notice of the session itself, unless the agent is so far behind that the notice would be outdated.
    pub(super) fn notify(&mut self, change: Change) {
        if let Some(notice) = self.protocol.notice(change).filter(|_| self.has_room()) {
            self.push(notice, 0);
        }
    }

    /// Passes the oldest message to the agent.
    pub(super) fn deliver(&mut self, permit: mpsc::Permit<'_, P::Incoming>) {
        if let Some((message, bytes)) = self.waiting.pop_front() {
            self.bytes -= bytes;
            permit.send(message);
        }
    }

    /// Waits for `work` while there is no connection; `None` if the session is to end first.
    ///
    /// Messages of the agent are dropped meanwhile, unless [`Protocol::OUTGOING_WAITS`]. They belong to an earlier connection: the
    /// service resends unacknowledged messages on the next one. (The Go agent drops such answers too, since it answers on the
    /// connection of the message.)
    pub(super) async fn while_disconnected<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        tokio::pin!(work);
        let (cancel, inbox) = (self.cancel.clone(), self.inbox.clone());
        let mut dropped = 0_usize;
        let done = loop {
            tokio::select! {
                biased;
                () = cancel.cancelled() => return None,
                outgoing = self.outbox.recv(), if !P::OUTGOING_WAITS => match outgoing {
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
                "answers to {peer} were dropped without a connection; {peer} will send the messages again",
                peer = P::PEER
            );
        }
        Some(done)
    }
}

/// Whether the event with this number is logged: the first ten are, later ones rarely, so that an endless series does not fill the
/// disk.
pub(super) fn is_logged(number: u32) -> bool {
    number <= 10 || number.is_power_of_two()
}
