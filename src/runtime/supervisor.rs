//! The long-lived parts of the agent: named, watched, restarted or fatal.
//!
//! A part that panics or ends with an error is noticed at its join. `Restart` parts begin again after a backoff; the end of a
//! `Fatal` part ends the agent, which the service manager then restarts: recovery is the same code path as any start.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;
use tokio::task::{Id, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

/// How a part ended: `Ok` when it was told to stop.
pub(super) type PartResult = Result<(), String>;
type PartFuture = Pin<Box<dyn Future<Output = PartResult> + Send>>;

/// How patient the supervisor is.
#[derive(Clone, Copy, Debug)]
struct Patience {
    /// Wait before the first restart of a part; doubled each time.
    first: Duration,
    /// Longest wait before a restart.
    most: Duration,
    /// How long the parts may take to end when told to; longer than the core loop's own grace.
    grace: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { first: Duration::from_secs(1), most: Duration::from_secs(60), grace: Duration::from_secs(8) }
    }
}

/// What the end of a part means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Policy {
    /// It begins again.
    Restart,
    /// The agent ends.
    Fatal,
}

struct Part {
    name: &'static str,
    policy: Policy,
    begin: Box<dyn FnMut() -> PartFuture + Send>,
    failures: u32,
}

impl std::fmt::Debug for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({:?})", self.name, self.policy)
    }
}

/// Owns the parts.
#[derive(Debug, Default)]
pub(super) struct Supervisor {
    parts: Vec<Part>,
    running: JoinSet<(usize, PartResult)>,
    ids: std::collections::HashMap<Id, usize>,
    patience: Patience,
}

impl Supervisor {
    /// Adds a part and begins it.
    pub(super) fn part<F>(&mut self, name: &'static str, policy: Policy, mut begin: impl FnMut() -> F + Send + 'static)
    where
        F: Future<Output = PartResult> + Send + 'static,
    {
        let begin = Box::new(move || Box::pin(begin()) as PartFuture);
        self.parts.push(Part { name, policy, begin, failures: 0 });
        self.begin(self.parts.len() - 1, Duration::ZERO);
    }

    fn begin(&mut self, index: usize, wait: Duration) {
        let work = (self.parts[index].begin)();
        let handle = self.running.spawn(async move {
            tokio::time::sleep(wait).await;
            (index, work.await)
        });
        self.ids.insert(handle.id(), index);
    }

    /// Watches the parts until all have ended after `stop`, or a fatal one ended before.
    ///
    /// # Errors
    /// The name of the fatal part and why it ended.
    pub(super) async fn watch(mut self, stop: CancellationToken) -> PartResult {
        let mut fatal = Ok(());
        let grace = self.patience.grace;
        let overdue = async {
            stop.cancelled().await;
            tokio::time::sleep(grace).await;
        };
        tokio::pin!(overdue);
        loop {
            let joined = tokio::select! {
                joined = self.running.join_next_with_id() => joined,
                () = &mut overdue => None, // what did not end by now is aborted when `self` is dropped
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
            part.failures += 1;
            let wait = self.patience.first * 2u32.pow(part.failures.min(6) - 1);
            let wait = wait.min(self.patience.most);
            tracing::error!(
                part = part.name,
                why,
                wait_s = wait.as_secs(),
                "a part of the agent ended; it is restarted"
            );
            self.begin(index, wait);
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
    async fn a_part_that_panics_begins_again_and_a_fatal_one_ends_the_agent() {
        let short = Duration::from_millis(1);
        let patience = Patience { first: short, most: short, grace: short };
        let mut supervisor = Supervisor { patience, ..Supervisor::default() };
        let stop = CancellationToken::new();
        let begun = Arc::new(AtomicU32::new(0));
        let count = begun.clone();
        supervisor.part("shaky", Policy::Restart, move || {
            let nth = count.fetch_add(1, Ordering::SeqCst);
            async move {
                assert!(nth >= 2, "planned");
                std::future::pending().await
            }
        });
        let seen = begun.clone();
        supervisor.part("core", Policy::Fatal, move || {
            let seen = seen.clone();
            async move {
                while seen.load(Ordering::SeqCst) < 3 {
                    tokio::task::yield_now().await;
                }
                Err("the disk is full".to_owned())
            }
        });
        let result = tokio::time::timeout(Duration::from_secs(60), supervisor.watch(stop.clone())).await;
        // "shaky" does not listen to `stop`; it is aborted after the grace.
        assert_eq!(result, Ok(Err("core: the disk is full".to_owned())));
        assert!(stop.is_cancelled());
        assert_eq!(begun.load(Ordering::SeqCst), 3);
    }
}
