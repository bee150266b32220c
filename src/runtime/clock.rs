//! The core's clock: it never jumps while the process runs, and never goes back from one process to the next.
//!
//! The core's deadlines are times of this clock. It starts at the wall clock's time and counts from there. So a wall clock
//! that is set (by an operator, by NTP after the start, by a suspended host) neither fires a clean-up early nor delays a
//! retry. Times in reports to ECS are wall time: [`Clock::wall`] converts them. Invariant: `now` is never earlier than a time
//! it has returned, or than a saved one.

use ecs_core::model::Timestamp;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// If the clocks differ by more than this, in milliseconds, the wall clock was set. Less is drift and scheduling noise.
const JUMP: u64 = 5_000;
/// Upper limit of a sleep, so that anything unforeseen is noticed after this time at the latest.
const MAX_SLEEP: Duration = Duration::from_secs(15);

/// The clock of the core.
#[derive(Debug)]
pub(crate) struct Clock {
    started: Instant,
    started_at: Timestamp,
    max_sleep: Duration,
}

impl Clock {
    /// Starts the clock at the wall clock's time, but not before `saved`, the last time that the previous process has saved.
    /// `watchdog` is the time of silence after which the service manager considers the agent dead; `None` without a watchdog.
    pub(crate) fn started(saved: Timestamp, watchdog: Option<Duration>) -> Self {
        let started_at = wall_now().max(saved);
        Self { started: Instant::now(), started_at, max_sleep: max_sleep(watchdog) }
    }

    /// The current time.
    pub(crate) fn now(&self) -> Timestamp {
        Timestamp(self.started_at.0.saturating_add(self.started.elapsed().as_millis() as u64))
    }

    /// The wall clock's time at the time `at` of this clock, as far as it can be known now.
    pub(crate) fn wall(&self, at: Timestamp) -> Timestamp {
        to_wall(at, self.started_at, self.now(), wall_now())
    }

    /// Sleeps until the deadline or a little longer, but never longer than the upper limit; `None` means no deadline. The caller
    /// checks its deadline again.
    pub(crate) async fn sleep_until(&self, deadline: Option<Timestamp>) {
        let left = deadline.map_or(self.max_sleep, |deadline| deadline.since(self.now()).into());
        tokio::time::sleep(left.min(self.max_sleep)).await;
    }
}

/// The wall time of `at`, given that the wall clock shows `wall` when this clock shows `now`. A time from before the start of
/// this process (`started`) comes from a clock that no longer exists: it is used as it is, unless it is in the future.
fn to_wall(at: Timestamp, started: Timestamp, now: Timestamp, wall: Timestamp) -> Timestamp {
    if now.0.abs_diff(wall.0) <= JUMP {
        return at;
    }
    if at < started {
        return at.min(wall);
    }
    Timestamp(wall.0.saturating_sub(now.since(at).0))
}

/// At most a third of the watchdog's limit, so that one late turn does not get the agent killed, whatever the value of
/// `WatchdogSec`.
fn max_sleep(watchdog: Option<Duration>) -> Duration {
    watchdog.map_or(MAX_SLEEP, |limit| MAX_SLEEP.min(limit / 3))
}

fn wall_now() -> Timestamp {
    Timestamp(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_agent_notifies_any_watchdog_in_time() {
        for (watchdog_s, expected_s) in [(None, 15), (Some(60), 15), (Some(30), 10), (Some(3), 1)] {
            let slept = max_sleep(watchdog_s.map(Duration::from_secs));
            assert_eq!(slept, Duration::from_secs(expected_s), "WatchdogSec={watchdog_s:?}");
        }
    }

    #[test]
    fn setting_the_wall_clock_changes_only_reported_times() {
        const HOUR: u64 = 3_600_000;
        let (started, now) = (10 * HOUR, 12 * HOUR);
        // (time of this clock, wall clock now, time reported to ECS)
        let table = [
            (11 * HOUR, now, 11 * HOUR),
            (11 * HOUR, now + JUMP, 11 * HOUR),     // drift
            (11 * HOUR, now + 9 * HOUR, 20 * HOUR), // set forward: an hour ago is an hour ago
            (11 * HOUR, now - 9 * HOUR, 2 * HOUR),  // set back
            (9 * HOUR, now + 9 * HOUR, 9 * HOUR),   // of the previous process: used as it is
            (9 * HOUR, 2 * HOUR, 2 * HOUR),         // unless it is in the future
            (11 * HOUR, 0, 0),
        ];
        for (at, wall, wanted) in table {
            let shown = to_wall(Timestamp(at), Timestamp(started), Timestamp(now), Timestamp(wall));
            assert_eq!(shown, Timestamp(wanted), "{at} {wall}");
        }
    }

    #[test]
    fn time_continues_from_the_previous_process() {
        // The previous process's clock was a day ahead of this one.
        let saved = Timestamp(wall_now().0 + 86_400_000);
        let clock = Clock::started(saved, None);
        assert!(clock.now() >= saved);
        assert!(clock.wall(clock.now()) < saved, "reports use the wall clock's time");
        let clock = Clock::started(Timestamp::default(), None);
        assert!(clock.now() >= Timestamp(saved.0 - 86_400_000));
    }
}
