//! Runs the long-lived parts of the agent, and handles the end of each by its policy.
//!
//! Joining a part's task shows that it panicked or ended with an error. A `Restart` part is started again after a back-off. The
//! end of a `Fatal` part ends the agent, which the service manager then restarts: recovery is the same code path as any start.

use crate::backoff::Shape;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;
use tokio::task::{Id, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

/// How a part ended: `Ok` if it was asked to stop, otherwise the reason.
pub(crate) type PartResult = Result<(), String>;
type PartFuture = Pin<Box<dyn Future<Output = PartResult> + Send>>;

/// How long the supervisor waits.
#[derive(Clone, Copy, Debug)]
struct Timing {
    /// The delays before restarts of a part.
    restart: Shape,
    /// Time that the parts have to end after a stop was requested.
    grace: Duration,
    /// The same for a fatal part: the core loop may wait for its disk.
    fatal_grace: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        let (initial, max) = (Duration::from_secs(1), Duration::from_secs(32));
        let (grace, fatal_grace) = (Duration::from_millis(700), Duration::from_secs(8));
        Self { restart: Shape { initial, max, factor: 2.0, jitter: 0.2 }, grace, fatal_grace }
    }
}

/// What happens when a part ends by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Policy {
    /// The part is started again.
    Restart,
    /// The agent ends.
    Fatal,
}

struct Part {
    name: &'static str,
    policy: Policy,
    start: Box<dyn FnMut() -> PartFuture + Send>,
    /// How often the part has ended by itself.
    failures: u32,
}

impl std::fmt::Debug for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({:?})", self.name, self.policy)
    }
}

/// Owns the parts of the agent and the tasks that run them.
#[derive(Debug, Default)]
pub(crate) struct Supervisor {
    parts: Vec<Part>,
    running: JoinSet<(usize, PartResult)>,
    /// Index in `parts` of the part that each running task belongs to.
    ids: std::collections::HashMap<Id, usize>,
    timing: Timing,
}

impl Supervisor {
    /// Adds a part and starts it. `start` is called once for each start of the part.
    pub(crate) fn add<F>(&mut self, name: &'static str, policy: Policy, mut start: impl FnMut() -> F + Send + 'static)
    where
        F: Future<Output = PartResult> + Send + 'static,
    {
        let start = Box::new(move || Box::pin(start()) as PartFuture);
        self.parts.push(Part { name, policy, start, failures: 0 });
        self.start(self.parts.len() - 1, Duration::ZERO);
    }

    fn start(&mut self, index: usize, delay: Duration) {
        let work = (self.parts[index].start)();
        let handle = self.running.spawn(async move {
            tokio::time::sleep(delay).await;
            (index, work.await)
        });
        self.ids.insert(handle.id(), index);
    }

    /// Watches the parts until all of them have ended, after `stop` is cancelled or a fatal part has ended.
    ///
    /// # Errors
    /// The name of the fatal part, and why it ended.
    pub(crate) async fn watch(mut self, stop: CancellationToken) -> PartResult {
        let mut fatal = Ok(());
        let after_stop = async |grace| {
            stop.cancelled().await;
            tokio::time::sleep(grace).await;
        };
        let (overdue, fatal_overdue) = (after_stop(self.timing.grace), after_stop(self.timing.fatal_grace));
        tokio::pin!(overdue, fatal_overdue);
        loop {
            let is_fatal_running = self.ids.values().any(|index| self.parts[*index].policy == Policy::Fatal);
            // Parts that still run then are aborted when `self` is dropped.
            let joined = tokio::select! {
                joined = self.running.join_next_with_id() => joined,
                () = &mut overdue, if !is_fatal_running => None,
                () = &mut fatal_overdue => None,
            };
            let Some(joined) = joined else { break };
            let (index, result) = self.outcome(joined);
            let part = &mut self.parts[index];
            if stop.is_cancelled() {
                if part.policy == Policy::Fatal && fatal.is_ok() {
                    fatal = result;
                }
                continue;
            }
            let why = result.err().unwrap_or_else(|| "it ended by itself".to_owned());
            if part.policy == Policy::Fatal {
                fatal = Err(format!("{}: {why}", part.name));
                stop.cancel();
                continue;
            }
            let delay = self.timing.restart.delay(part.failures);
            part.failures = part.failures.saturating_add(1);
            tracing::error!(
                part = part.name,
                error = why,
                attempt = part.failures,
                retry_in_s = crate::backoff::seconds(delay),
                "a part of the agent ended; it is restarted"
            );
            self.start(index, delay);
        }
        fatal
    }

    fn outcome(&mut self, joined: Result<(Id, (usize, PartResult)), JoinError>) -> (usize, PartResult) {
        match joined {
            Ok((id, (index, result))) => {
                self.ids.remove(&id);
                (index, result)
            }
            Err(error) => {
                let index = self.ids.remove(&error.id()).unwrap_or_default();
                (index, Err(if error.is_panic() { "it panicked".to_owned() } else { "it was aborted".to_owned() }))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[tokio::test]
    async fn a_panicking_part_restarts_and_a_fatal_one_ends_the_agent() {
        let short = Duration::from_millis(1);
        let restart = Shape { initial: short, max: short, factor: 1.0, jitter: 0.0 };
        let timing = Timing { restart, grace: short, fatal_grace: Duration::from_secs(60) };
        let mut supervisor = Supervisor { timing, ..Supervisor::default() };
        let stop = CancellationToken::new();
        let starts = Arc::new(AtomicU32::new(0));
        let count = starts.clone();
        supervisor.add("shaky", Policy::Restart, move || {
            let nth = count.fetch_add(1, Ordering::SeqCst);
            async move {
                assert!(nth >= 2, "planned");
                std::future::pending().await
            }
        });
        let seen = starts.clone();
        supervisor.add("core", Policy::Fatal, move || {
            let seen = seen.clone();
            async move {
                while seen.load(Ordering::SeqCst) < 3 {
                    tokio::task::yield_now().await;
                }
                Err("the disk is full".to_owned())
            }
        });
        let result = tokio::time::timeout(Duration::from_secs(60), supervisor.watch(stop.clone())).await;
        // "shaky" ignores `stop`; it is aborted after the grace.
        assert_eq!(result, Ok(Err("core: the disk is full".to_owned())));
        assert!(stop.is_cancelled());
        assert_eq!(starts.load(Ordering::SeqCst), 3);
    }
}
