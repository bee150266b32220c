//! The real clock: wall time that never goes back while the process lives.
//!
//! Deadlines of the core are wall times. If the wall clock is set back, deadlines would move into the future and the agent would
//! sleep; so time is counted on from the start, and the wall clock is believed again only when it is ahead.

use crate::model::Timestamp;
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The wall clock being ahead by more than this is a clock that was set, not scheduling noise.
const JUMP: Duration = Duration::from_secs(5);
/// Longest sleep: a bound on how late a jump of the clock is noticed, and on the silence the service manager's watchdog hears.
const LONGEST_SLEEP: Duration = Duration::from_secs(15);

/// Tells the time.
#[derive(Debug)]
pub(super) struct Clock {
    anchor: Mutex<(Instant, Duration)>,
}

impl Default for Clock {
    fn default() -> Self {
        Self { anchor: Mutex::new((Instant::now(), wall())) }
    }
}

impl Clock {
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
        let left = deadline.map_or(LONGEST_SLEEP, |deadline| deadline.since(self.now()).into());
        tokio::time::sleep(left.min(LONGEST_SLEEP)).await;
    }
}

fn wall() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
