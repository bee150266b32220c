//! Whether a server has its address, for the agent's health check.

use std::sync::{Arc, Mutex, PoisonError};
use tokio::time::Instant;

/// The state of a server; clones share it. It begins closed.
#[derive(Clone, Debug)]
pub struct Serving(Arc<Mutex<Option<Instant>>>);

impl Default for Serving {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Some(Instant::now()))))
    }
}

impl Serving {
    /// Since when the address is closed; `None`: it is open.
    pub fn closed_since(&self) -> Option<Instant> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that the address is open, until the result is dropped.
    pub(crate) fn open(&self) -> Open {
        self.set(None);
        Open(self.clone())
    }

    fn set(&self, closed_since: Option<Instant>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = closed_since;
    }
}

/// The address is open while this lives.
#[derive(Debug)]
pub(crate) struct Open(Serving);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.set(Some(Instant::now()));
    }
}
