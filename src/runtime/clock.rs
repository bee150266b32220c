//! The real clock: time that only goes on, evenly, while the process lives and from one process to the next.
//!
//! Deadlines of the core are moments of this clock. It starts at the wall clock's time and counts from there, so a wall clock that is
//! set (by an operator, by NTP after the start, by a host that was suspended) neither fires a clean-up early nor delays a retry. What
//! ECS is told of is wall time: [`Clock::wall`] translates. Invariant: `now` is never before a moment it gave, or a saved one.

use crate::model::Timestamp;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Clocks apart by more than this: one was set. Less is drift and scheduling noise.
const JUMP: u64 = 5_000;
/// Longest sleep: a bound on how late anything unforeseen is noticed.
const LONGEST_SLEEP: Duration = Duration::from_secs(15);

/// Tells the time.
#[derive(Debug)]
pub(super) struct Clock {
    started: Instant,
    started_at: Timestamp,
    longest_sleep: Duration,
}

impl Clock {
    /// Starts counting, not before `saved`: the last moment the process before this one wrote down. `watchdog` is the silence after
    /// which the service manager takes the agent for dead, if it watches.
    pub(super) fn started(saved: Timestamp, watchdog: Option<Duration>) -> Self {
        let started_at = wall_now().max(saved);
        Self { started: Instant::now(), started_at, longest_sleep: longest_sleep(watchdog) }
    }

    /// The current time.
    pub(super) fn now(&self) -> Timestamp {
        Timestamp(self.started_at.0.saturating_add(self.started.elapsed().as_millis() as u64))
    }

    /// What the wall clock showed at a moment of this clock, as far as is known now.
    pub(super) fn wall(&self, at: Timestamp) -> Timestamp {
        on_the_wall(at, self.started_at, self.now(), wall_now())
    }

    /// Returns at that moment or a little later; after a while also earlier, and for `None` too. The caller looks again.
    pub(super) async fn sleep_until(&self, deadline: Option<Timestamp>) {
        let left = deadline.map_or(self.longest_sleep, |deadline| deadline.since(self.now()).into());
        tokio::time::sleep(left.min(self.longest_sleep)).await;
    }
}

/// `at` by the wall clock, which shows `wall` where this clock shows `now`. A moment from before this process began (`started`) was
/// told by a clock nobody can ask any more; it is believed, unless it is to come.
fn on_the_wall(at: Timestamp, started: Timestamp, now: Timestamp, wall: Timestamp) -> Timestamp {
    if now.0.abs_diff(wall.0) <= JUMP {
        return at;
    }
    if at < started {
        return at.min(wall);
    }
    Timestamp(wall.0.saturating_sub(now.since(at).0))
}

/// A third of the watchdog's patience: one late turn is not yet a dead agent, whatever the operator set `WatchdogSec` to.
fn longest_sleep(watchdog: Option<Duration>) -> Duration {
    watchdog.map_or(LONGEST_SLEEP, |patience| LONGEST_SLEEP.min(patience / 3))
}

fn wall_now() -> Timestamp {
    Timestamp(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64)
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

    #[test]
    fn a_wall_clock_that_was_set_changes_what_is_said_and_not_what_is_done() {
        const HOUR: u64 = 3_600_000;
        let (started, now) = (10 * HOUR, 12 * HOUR);
        // (moment, wall clock now, what ECS is told)
        let table = [
            (11 * HOUR, now, 11 * HOUR),
            (11 * HOUR, now + JUMP, 11 * HOUR),     // drift
            (11 * HOUR, now + 9 * HOUR, 20 * HOUR), // set forward: an hour ago is an hour ago
            (11 * HOUR, now - 9 * HOUR, 2 * HOUR),  // set back
            (9 * HOUR, now + 9 * HOUR, 9 * HOUR),   // of the process before: believed
            (9 * HOUR, 2 * HOUR, 2 * HOUR),         // but not if it is to come
            (11 * HOUR, 0, 0),
        ];
        for (at, wall, wanted) in table {
            let shown = on_the_wall(Timestamp(at), Timestamp(started), Timestamp(now), Timestamp(wall));
            assert_eq!(shown, Timestamp(wanted), "{at} {wall}");
        }
    }

    #[test]
    fn time_goes_on_from_where_the_process_before_left_it() {
        // Its clock was a day ahead of this one.
        let saved = Timestamp(wall_now().0 + 86_400_000);
        let clock = Clock::started(saved, None);
        assert!(clock.now() >= saved);
        assert!(clock.wall(clock.now()) < saved, "ECS is told the wall clock's time");
        let clock = Clock::started(Timestamp::default(), None);
        assert!(clock.now() >= Timestamp(saved.0 - 86_400_000));
    }
}
