//! The time of the last contact with the service, for the agent's health check.

use std::sync::{Arc, Mutex, PoisonError};
use tokio::time::Instant;

/// The state of the contact; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Contact(Arc<Mutex<Seen>>);

/// The moments of the last contact.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// When the service last sent a message or accepted a connection; `None` before the first connection.
    pub last_message: Option<Instant>,
    /// Since when the service has reported that this instance is not registered; `None` if it is registered, as far as known.
    pub deregistered: Option<Instant>,
}

impl Contact {
    /// The current state.
    pub fn seen(&self) -> Seen {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a connection is established.
    pub(crate) fn connected(&self) {
        self.change(|seen| *seen = Seen { last_message: Some(Instant::now()), deregistered: None });
    }

    /// Notes that the service has sent a message.
    pub(crate) fn message_received(&self) {
        self.change(|seen| seen.last_message = Some(Instant::now()));
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
