//! The real clock: wall time that never goes back while the process lives.
//!
//! Deadlines of the core are wall times. If the wall clock is set back, deadlines would move into the future and the agent would
//! sleep; so time is counted on from the start, and the wall clock is believed again only when it is ahead.

use crate::model::Timestamp;
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The wall clock being ahead by more than this is a clock that was set, not scheduling noise.
const JUMP: Duration = Duration::from_secs(5);
/// Longest sleep: a bound on how late a jump of the clock is noticed.
const LONGEST_SLEEP: Duration = Duration::from_secs(15);

/// Tells the time.
#[derive(Debug)]
pub(super) struct Clock {
    anchor: Mutex<(Instant, Duration)>,
    longest_sleep: Duration,
}

impl Clock {
    /// Starts counting. `watchdog` is the silence after which the service manager takes the agent for dead, if it watches.
    pub(super) fn started(watchdog: Option<Duration>) -> Self {
        Self { anchor: Mutex::new((Instant::now(), wall())), longest_sleep: longest_sleep(watchdog) }
    }

    /// The current time.
    pub(super) fn now(&self) -> Timestamp {
        let mut anchor = self.anchor.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let counted = anchor.1 + anchor.0.elapsed();
        let wall = wall();
        if wall > counted + JUMP {
            *anchor = (Instant::now(), wall);
            return Timestamp(wall.as_millis() as u64);
        }
        Timestamp(counted.as_millis() as u64)
    }

    /// Returns at that moment or a little later; after a while also earlier, and for `None` too. The caller looks again.
    pub(super) async fn sleep_until(&self, deadline: Option<Timestamp>) {
        let left = deadline.map_or(self.longest_sleep, |deadline| deadline.since(self.now()).into());
        tokio::time::sleep(left.min(self.longest_sleep)).await;
    }
}

/// A third of the watchdog's patience: one late turn is not yet a dead agent, whatever the operator set `WatchdogSec` to.
fn longest_sleep(watchdog: Option<Duration>) -> Duration {
    watchdog.map_or(LONGEST_SLEEP, |patience| LONGEST_SLEEP.min(patience / 3))
}

fn wall() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_agent_is_heard_in_time_by_any_watchdog() {
        for (watchdog_s, expected_s) in [(None, 15), (Some(60), 15), (Some(30), 10), (Some(3), 1)] {
            let slept = longest_sleep(watchdog_s.map(Duration::from_secs));
            assert_eq!(slept, Duration::from_secs(expected_s), "WatchdogSec={watchdog_s:?}");
        }
    }
}
