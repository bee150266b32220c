//! A counter that limits the log lines about its events.

use std::time::Duration;
use tokio::time::Instant;

/// Minimum time between two log lines of one tally.
const QUIET: Duration = Duration::from_secs(60);

/// Counts events. A log line is due at the first event, then at most once a minute.
#[derive(Debug, Default)]
pub(super) struct Tally {
    count: u64,
    /// When the last line was written; `None` before the first.
    last_line: Option<Instant>,
}

impl Tally {
    /// Counts one event. Returns the total so far if a log line is due.
    pub(super) fn add(&mut self, now: Instant) -> Option<u64> {
        self.count = self.count.saturating_add(1);
        if self.last_line.is_some_and(|last| now.duration_since(last) < QUIET) {
            return None;
        }
        self.last_line = Some(now);
        Some(self.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thousand_events_a_minute_are_one_line() {
        let (mut tally, start) = (Tally::default(), Instant::now());
        assert_eq!(tally.add(start), Some(1));
        let lines = (1..=1000).filter_map(|n| tally.add(start + Duration::from_millis(n)));
        assert_eq!(lines.count(), 0);
        assert_eq!(tally.add(start + QUIET), Some(1002));
        assert_eq!(tally.add(start + QUIET + Duration::from_secs(1)), None);
    }
}
