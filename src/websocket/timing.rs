//! The timers of a session. The defaults are those of ACS (spec `acs.md` §2).
//!
//! Owns their lengths and the jitter. `session` runs those between connections, `conversation` those of one connection.

use crate::backoff::{Shape, uniform};
use std::time::Duration;

/// The lengths of the timers. Each pair is a length and the maximum jitter that is added to it.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// The time without a message after which the connection is given up.
    pub inactivity: (Duration, Duration),
    /// The age at which a connection is replaced.
    pub lifetime: (Duration, Duration),
    /// The age from which a connection counts as good and resets the back-off.
    pub settled: (Duration, Duration),
    /// A connection that ended sooner than this is not replaced at once, whatever its close code. This prevents a tight loop.
    pub short_lived: Duration,
    /// The pause after ECS reported that the instance is not registered; `None`: that of any other failed attempt.
    pub inactive_instance: Option<Duration>,
    /// The pauses between failed attempts.
    pub backoff: Shape,
}

impl Default for Timing {
    fn default() -> Self {
        let minutes = |minutes: u64| Duration::from_secs(minutes * 60);
        Self {
            inactivity: (minutes(1), minutes(1)),
            lifetime: (minutes(30), minutes(5)),
            settled: (minutes(1), minutes(1)),
            short_lived: Duration::from_secs(1),
            inactive_instance: Some(minutes(60)),
            backoff: Shape { initial: Duration::from_millis(250), max: minutes(2), factor: 1.5, jitter: 0.2 },
        }
    }
}

/// The length, extended by a random part of its jitter.
pub(super) fn with_jitter((length, jitter): (Duration, Duration)) -> Duration {
    length + uniform(jitter)
}
