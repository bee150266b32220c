//! When the control plane was last there, for whoever judges the agent's health.

use std::sync::{Arc, Mutex, PoisonError};
use tokio::time::Instant;

/// What the session last knew of ACS; shared with its readers.
#[derive(Clone, Debug, Default)]
pub struct Contact(Arc<Mutex<Seen>>);

/// The moments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// When ACS said something last, or a connection was made; `None` before the first.
    pub last_message: Option<Instant>,
    /// When ECS said that this instance is not registered; `None` once a connection stands again.
    pub deregistered: Option<Instant>,
}

impl Contact {
    /// What is known now.
    pub fn seen(&self) -> Seen {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection stands.
    pub(crate) fn connected(&self) {
        self.change(|seen| *seen = Seen { last_message: Some(Instant::now()), deregistered: None });
    }

    /// ACS has said something.
    pub(crate) fn message_received(&self) {
        self.change(|seen| seen.last_message = Some(Instant::now()));
    }

    /// ECS says that this instance is not registered. What it said before counts still.
    pub(crate) fn deregistered(&self) {
        self.change(|seen| {
            seen.deregistered.get_or_insert_with(Instant::now);
        });
    }

    fn change(&self, how: impl FnOnce(&mut Seen)) {
        how(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}
