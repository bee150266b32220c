//! What is logged while the daemon cannot be reached: once that it is so, and once that it answers again.
//!
//! The stream of events is the only call that waits for the daemon at all times, so its attempts show the beginning and the end.
//! Owns the choice of the lines. Invariant: between two lines about an end there is one about the beginning.

use std::time::Duration;
use tokio::time::Instant;

/// The attempts to open the stream since it last was open.
#[derive(Debug, Default)]
pub(super) struct Outage {
    /// When the first attempt failed; `None`: the stream is open, or was never opened.
    since: Option<Instant>,
    /// It was logged that there is no connection.
    is_logged: bool,
}

/// The line for one failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// The stream ended, or could not be opened by a daemon that answers.
    Ended,
    /// There is no connection to the daemon.
    NoDaemon,
    /// The same as before: a detail for developers.
    Again,
}

impl Outage {
    /// Notes a failure, and returns its line. `is_unreachable`: there is no connection to the daemon.
    pub(super) fn failed(&mut self, is_unreachable: bool, now: Instant) -> Line {
        self.since.get_or_insert(now);
        match (is_unreachable, self.is_logged) {
            (true, false) => {
                self.is_logged = true;
                Line::NoDaemon
            }
            (true, true) => Line::Again,
            (false, _) => Line::Ended,
        }
    }

    /// Notes that the stream is open. Returns for how long there was no connection, if that was logged.
    pub(super) fn opened(&mut self, now: Instant) -> Option<Duration> {
        let Self { since, is_logged } = std::mem::take(self);
        since.filter(|_| is_logged).map(|since| now - since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_outage_is_logged_once_with_its_end() {
        let (mut outage, start) = (Outage::default(), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(outage.opened(start), None, "the first stream");
        assert_eq!(outage.failed(false, after(1)), Line::Ended);
        assert_eq!(outage.opened(after(2)), None, "it was open again at once");
        let lines: Vec<Line> = (3..9).map(|second| outage.failed(second > 3, after(second))).collect();
        assert_eq!(lines, [Line::Ended, Line::NoDaemon, Line::Again, Line::Again, Line::Again, Line::Again]);
        assert_eq!(outage.opened(after(63)), Some(Duration::from_secs(60)));
        assert_eq!(outage.opened(after(64)), None);
        assert_eq!(outage.failed(true, after(65)), Line::NoDaemon, "the next outage");
    }
}
