//! The contact with the service, for the agent's health check and for metrics.

use std::sync::{Arc, Mutex, PoisonError};
use tokio::time::Instant;

/// The state of the contact; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Contact(Arc<Mutex<Seen>>);

/// What is known of the contact.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// When the service last sent a message or accepted a connection; `None` before the first connection.
    pub last_message: Option<Instant>,
    /// When the service last sent a message; `None` before the first one. A connection alone does not count.
    pub last_word: Option<Instant>,
    /// When the first connection was made; `None`: there was none.
    pub first_connection: Option<Instant>,
    /// Since when the service has reported that this instance is not registered; `None` if it is registered, as far as known.
    pub deregistered: Option<Instant>,
    /// A connection is open.
    pub is_connected: bool,
    /// The number of connections that were made.
    pub connections: u64,
}

impl Contact {
    /// The current state.
    pub fn seen(&self) -> Seen {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a connection is established. It is open until the result is dropped.
    pub(crate) fn connected(&self) -> Connection {
        self.change(|seen| {
            (seen.last_message, seen.deregistered) = (Some(Instant::now()), None);
            seen.first_connection.get_or_insert_with(Instant::now);
            (seen.is_connected, seen.connections) = (true, seen.connections.saturating_add(1));
        });
        Connection(self.clone())
    }

    /// Notes that the service has sent a message.
    pub(crate) fn message_received(&self) {
        let now = Some(Instant::now());
        self.change(|seen| (seen.last_message, seen.last_word) = (now, now));
    }

    /// Notes that the service reported this instance as not registered. The moment of the first such report is kept.
    pub(crate) fn deregistered(&self) {
        self.change(|seen| {
            seen.deregistered.get_or_insert_with(Instant::now);
        });
    }

    fn change(&self, how: impl FnOnce(&mut Seen)) {
        how(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// The connection is open while this lives.
#[derive(Debug)]
pub(crate) struct Connection(Contact);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.change(|seen| seen.is_connected = false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_open_until_it_is_dropped() {
        let contact = Contact::default();
        let first = contact.connected();
        assert!(contact.seen().is_connected);
        drop(first);
        assert!(!contact.seen().is_connected && contact.seen().last_message.is_some());
        let _second = contact.connected();
        assert_eq!((contact.seen().is_connected, contact.seen().connections), (true, 2));
    }
}
