//! The timers of the ACS session (spec `acs.md` §2).
//!
//! Owns how long each of them is, and the jitter. When they run is the matter of `session` (pauses between connections) and
//! `conversation` (one connection).

use crate::aws::backoff::{Shape, uniform};
use std::time::Duration;

/// The timers; each pair is a length and the jitter added to it.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// Silence after which the connection is given up.
    pub inactivity: (Duration, Duration),
    /// Age at which the connection is renewed.
    pub lifetime: (Duration, Duration),
    /// Age from which on a connection counts as good: the back-off starts over.
    pub settled: (Duration, Duration),
    /// Pause after ECS said that the instance is not registered.
    pub inactive_instance: Duration,
    /// Pauses between failed attempts.
    pub backoff: Shape,
}

impl Default for Timing {
    fn default() -> Self {
        let minutes = |minutes: u64| Duration::from_secs(minutes * 60);
        Self {
            inactivity: (minutes(1), minutes(1)),
            lifetime: (minutes(30), minutes(5)),
            settled: (minutes(1), minutes(1)),
            inactive_instance: minutes(60),
            backoff: Shape { initial: Duration::from_millis(250), max: minutes(2), factor: 1.5, jitter: 0.2 },
        }
    }
}

/// A length with its jitter.
pub(super) fn drawn((length, jitter): (Duration, Duration)) -> Duration {
    length + uniform(jitter)
}
