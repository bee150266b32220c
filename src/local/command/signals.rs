//! The signals that end `ecs-local`: Ctrl-C, SIGTERM, and the end of its terminal (SIGHUP). This module owns their reception, and which
//! of them are one request. Invariant: SIGHUP is left ignored if it was ignored at the start, as under `nohup`.

use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;

/// A signal that comes this soon after a request belongs to it: `timeout` of coreutils sends one to its child and one to the group of its
/// child, and a terminal that closes sends SIGHUP beside the SIGTERM of others. Nobody presses Ctrl-C twice as fast on purpose.
const SAME_REQUEST: Duration = Duration::from_millis(500);

/// Received signals.
#[derive(Debug)]
pub(super) struct Interrupts {
    interrupt: Signal,
    terminate: Signal,
    hangup: Option<Signal>,
    requests: Requests,
}

/// Which signals are a new request.
#[derive(Debug, Default)]
struct Requests {
    /// When the last request came; `None`: there was none.
    last: Option<Instant>,
}

impl Requests {
    /// A signal at this moment is a request of its own.
    fn is_new(&mut self, now: Instant) -> bool {
        let is_new = self.last.is_none_or(|last| now.duration_since(last) >= SAME_REQUEST);
        if is_new {
            self.last = Some(now);
        }
        is_new
    }
}

impl Interrupts {
    /// Receives the signals from now on.
    pub(super) fn new() -> Result<Self, String> {
        let on = |kind| signal(kind).map_err(|error| error.to_string());
        // Before `on`, which changes it.
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let hangup = if ignores_hangup(&status) { None } else { Some(on(SignalKind::hangup())?) };
        let (interrupt, terminate) = (on(SignalKind::interrupt())?, on(SignalKind::terminate())?);
        Ok(Self { interrupt, terminate, hangup, requests: Requests::default() })
    }

    /// Waits for the next request to end.
    pub(super) async fn next(&mut self) {
        loop {
            self.signal().await;
            if self.requests.is_new(Instant::now()) {
                return;
            }
        }
    }

    /// Waits for the next signal.
    async fn signal(&mut self) {
        let hangup = async {
            match &mut self.hangup {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = hangup => {}
        }
    }
}

/// Whether SIGHUP, the first signal, is in the set of ignored signals of `/proc/self/status`.
fn ignores_hangup(status: &str) -> bool {
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    ignored.and_then(|set| u64::from_str_radix(set.trim(), 16).ok()).is_some_and(|set| set & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_signals_at_once_are_one_request() {
        let (mut requests, begin) = (Requests::default(), Instant::now());
        let mut is_new = |millis| requests.is_new(begin + Duration::from_millis(millis));
        assert_eq!([0, 1, 300, 499, 500, 900, 1100].map(&mut is_new), [true, false, false, false, true, false, true]);
    }

    #[test]
    fn nohup_is_seen() {
        assert!(ignores_hangup("SigBlk:\t0000000000000000\nSigIgn:\t0000000000001001\n"));
        assert!(!ignores_hangup("SigIgn:\t0000000000001000\n") && !ignores_hangup(""));
    }
}
