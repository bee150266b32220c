//! Counts requests, for metrics.

use crate::metrics::Counter;

/// How a request for credentials ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Served,
    NoId,
    UnknownId,
    NotReady,
    WrongAddress,
    Error,
}

impl Outcome {
    /// The labels, in the order of the variants.
    const LABELS: [&str; 6] = ["served", "no_id", "unknown_id", "not_ready", "wrong_address", "error"];
}

/// The requests since the start of the process.
#[derive(Debug, Default)]
pub struct Requests {
    /// All requests.
    pub all: Counter,
    /// Those that were answered with status 429, since their address asked too often.
    pub throttled: Counter,
    /// Requests for credentials that were not throttled, in the order of [`Outcome::LABELS`].
    credentials: [Counter; Outcome::LABELS.len()],
}

impl Requests {
    pub(super) fn credentials_asked(&self, outcome: Outcome) {
        self.credentials[outcome as usize].increment();
    }

    /// The number of requests for credentials that were not throttled, by their outcome.
    pub fn credentials(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Outcome::LABELS.into_iter().zip(&self.credentials).map(|(label, count)| (label, count.get()))
    }
}
