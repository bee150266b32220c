//! The core loop, the only owner of the state: step, commit, publish, act. The order never changes.
//!
//! An effect starts only after the state it depends on is on disk. This holds for acknowledgements as well: they are effects,
//! too. The events of a burst are stepped one by one and committed together. The core marks changes that need not be on disk at
//! once ([`Step::may_wait`]): readers see them, no effect depends on them, and their commit is delayed a little to include
//! further changes.

use super::clock::Clock;
use super::execute::executor::Executor;
use super::parts::health::Health;
use super::timing::Timing;
use super::trace::Trace;
use crate::backoff::{Backoff, Shape};
use crate::store::{Store, StoreError};
use ecs_core::model::Span;
use ecs_core::model::view::View;
use ecs_core::{Effect, Event, Key, State, Step};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Upper limit of the events in one turn. It bounds the time between two commits.
const MAX_EVENTS_PER_TURN: usize = 64;
/// Delay of a commit that may wait. A task with many containers causes many such changes, and each commit flushes the disk while
/// Docker needs it.
const LINGER: Duration = Duration::from_millis(500);
/// Pauses between attempts to write the state. Each attempt writes everything that is pending, so there is no hurry.
const COMMIT_RETRY: Shape =
    Shape { initial: Duration::from_millis(250), max: Duration::from_secs(5), factor: 2.0, jitter: 0.2 };
/// Time that running operations have to end when the agent stops: the whole stop takes less than a second. The next start finds out
/// how the others ended.
const GRACE: Duration = Duration::from_millis(600);

/// The core loop, with everything it owns or calls.
#[derive(Debug)]
pub(crate) struct CoreLoop {
    /// The queue of all events.
    pub(crate) inbox: mpsc::Receiver<Event>,
    /// The agent's state. No other part has access to it.
    pub(crate) state: State,
    /// The state on disk.
    pub(crate) store: Store,
    /// Sends each new view of the state to its readers.
    pub(crate) view: watch::Sender<Arc<View>>,
    /// Turns effects into calls.
    pub(crate) executor: Executor,
    /// The source of the present time, and of wake-ups at deadlines.
    pub(crate) clock: Arc<Clock>,
    /// Logs the operations, and the status changes of tasks and containers.
    pub(crate) trace: Trace,
    /// Records when tasks and containers got how far.
    pub(crate) timing: Timing,
    /// The changes that are not committed yet.
    pub(crate) unwritten: Unwritten,
    /// Records each turn, and whether the state could be written.
    pub(crate) health: Health,
}

/// The changes of the steps since the last commit.
#[derive(Debug, Default)]
pub(crate) struct Unwritten {
    changed: BTreeSet<Key>,
    /// Latest time of their commit; `None` while there are none.
    until: Option<Instant>,
}

impl Unwritten {
    /// Adds the changes of a turn. Returns true if a commit is due now.
    fn add(&mut self, step: &Step, now: Instant) -> bool {
        self.changed.extend(step.changed.iter().cloned());
        if !step.may_wait {
            return true;
        }
        !self.changed.is_empty() && now >= *self.until.get_or_insert(now + LINGER)
    }
}

/// In debug builds, this file makes the core loop stand still while all other parts go on: `tests/host` tests the watchdog so.
#[cfg(debug_assertions)]
const STALL: &str = "/run/ecs-agent/stall-the-core-loop";

/// Stands still for ever if the test wants that, once.
#[cfg(debug_assertions)]
async fn stall_for_the_test() {
    if std::fs::remove_file(STALL).is_ok() {
        tracing::error!("the core loop stands still, as {STALL} asks for");
        std::future::pending::<()>().await;
    }
}

impl CoreLoop {
    /// Runs until `stop` is cancelled. While the state cannot be written, the loop starts no effect and takes no further event;
    /// readers keep the view that was published last.
    ///
    /// # Errors
    /// The store's error, if the agent is stopped while the state cannot be written.
    pub(crate) async fn run(
        mut self,
        stop: CancellationToken,
        mut watchdog: impl FnMut() + Send,
    ) -> Result<(), StoreError> {
        let health = self.health.clone();
        let mut alive = move || {
            watchdog();
            health.core_turned();
        };
        let health = self.health.clone();
        self.turn(vec![Event::Tick], &stop, &mut || health.core_turned()).await?; // recovery: requests an inventory and plans
        alive();
        while !stop.is_cancelled() {
            let mut batch = Vec::new();
            let deadline = ecs_core::next_deadline(&self.state);
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                // Before the inbox: otherwise a steady stream of events could delay the commit for ever.
                () = sleep_until(self.unwritten.until) => {}
                received = self.inbox.recv_many(&mut batch, MAX_EVENTS_PER_TURN) => if received == 0 { break },
                () = self.clock.sleep_until(deadline) => batch.push(Event::Tick),
            }
            #[cfg(debug_assertions)]
            stall_for_the_test().await;
            self.turn(batch, &stop, &mut alive).await?;
            alive();
        }
        self.wind_down().await
    }

    /// Records the outcomes of the running operations, without starting new ones.
    async fn wind_down(mut self) -> Result<(), StoreError> {
        let deadline = Instant::now() + GRACE;
        self.executor.abort_repeatable();
        self.commit_last()?;
        // A call may have been reaped while its outcome still waits in the inbox.
        while self.executor.unfinished() > 0 || !self.inbox.is_empty() {
            let mut batch = Vec::new();
            tokio::select! {
                biased;
                received = self.inbox.recv_many(&mut batch, MAX_EVENTS_PER_TURN) => if received == 0 { break },
                () = self.executor.ended(), if self.executor.unfinished() > 0 => continue,
                () = tokio::time::sleep_until(deadline) => break,
            }
            let step = self.step(batch);
            self.unwritten.changed.extend(step.changed.iter().cloned());
            self.commit_last()?;
            self.publish(&step.changed);
            self.executor.reap();
        }
        Ok(())
    }

    /// Commits at the end. There is no time to try again: what is missing is found in Docker at the next start.
    fn commit_last(&mut self) -> Result<(), StoreError> {
        self.commit().inspect_err(|error| {
            tracing::error!(error = ecs_core::model::with_causes(error), "Error saving state before final shutdown");
        })
    }

    /// One turn: step, commit (or leave the commit to a later turn), publish, act.
    async fn turn(
        &mut self,
        batch: Vec<Event>,
        stop: &CancellationToken,
        alive: &mut (impl FnMut() + Send),
    ) -> Result<(), StoreError> {
        let step = self.step(batch);
        if self.unwritten.add(&step, Instant::now()) {
            self.commit_with_retries(stop, alive).await?;
        }
        self.publish(&step.changed);
        for effect in step.effects {
            let labels = self.trace.begin(&self.state, &effect);
            self.timing.begin(&self.state, &effect, self.clock.now());
            self.executor.start(effect, &labels);
        }
        self.executor.reap();
        Ok(())
    }

    /// Commits, and tries again until it succeeds or the agent is stopped.
    async fn commit_with_retries(
        &mut self,
        stop: &CancellationToken,
        alive: &mut (impl FnMut() + Send),
    ) -> Result<(), StoreError> {
        let mut pauses = Backoff::new(COMMIT_RETRY);
        while let Err(error) = self.commit() {
            let pause = pauses.pause();
            let attempt = pauses.attempt();
            let (error_text, retry_in_s) = (ecs_core::model::with_causes(&error), crate::backoff::seconds(pause));
            tracing::error!(
                error = error_text,
                attempt,
                retry_in_s,
                "the state cannot be written (ECS_DATADIR); the agent does nothing until it can"
            );
            let until = self.clock.now() + Span::millis(pause.as_millis() as u64);
            tokio::select! {
                () = stop.cancelled() => {
                    tracing::error!(error = ecs_core::model::with_causes(&error), "Error saving state before final shutdown");
                    return Err(error);
                }
                () = self.clock.sleep_until(Some(until)) => alive(),
            }
        }
        Ok(())
    }

    /// Steps through these events, one after the other, and combines their effects and changes.
    fn step(&mut self, batch: Vec<Event>) -> Step {
        let mut combined = Step { may_wait: true, ..Step::default() };
        let now = self.clock.now();
        for event in batch {
            let ended = self.trace.event(&event);
            self.timing.event(&event, now);
            let is_announcement = matches!(event, Event::Attachments { .. });
            let step = ecs_core::step(&mut self.state, now, event);
            if is_announcement && !self.state.host.lost {
                Trace::announced(&step.effects);
            }
            self.timing.note(&self.state, &step.changed, now);
            Trace::taken(ended, &self.state, now);
            combined.effects.extend(step.effects);
            combined.changed.extend(step.changed);
            combined.may_wait &= step.may_wait;
            if cfg!(debug_assertions)
                && let Err(broken) = ecs_core::check(&self.state)
            {
                tracing::error!(broken, "an invariant of the state is broken");
            }
        }
        // Credentials that a later event of this batch has brought again are kept.
        let state = &self.state;
        let is_in_use =
            |effect: &Effect| matches!(effect, Effect::ForgetCredentials(id) if state.credentials.contains(id));
        combined.effects.retain(|effect| !is_in_use(effect));
        combined
    }

    fn commit(&mut self) -> Result<(), StoreError> {
        let changed = &self.unwritten.changed;
        if !changed.is_empty() {
            // redb blocks while it flushes. Meanwhile the other worker thread runs the tasks.
            let began = Instant::now();
            let written = tokio::task::block_in_place(|| {
                let written = self.store.commit(&self.state, changed);
                self.executor.metrics().store_bytes.set(self.store.file_bytes().unwrap_or_default());
                written
            });
            self.health.state_written(written.is_ok());
            match written {
                Ok(()) => self.executor.metrics().commit_seconds.observe(began.elapsed()),
                Err(_) => self.executor.metrics().commits_failed.increment(),
            }
            written?;
        }
        self.unwritten = Unwritten::default();
        Ok(())
    }

    /// Updates the readers' view if it shows something new, and logs status changes.
    fn publish(&mut self, changed: &BTreeSet<Key>) {
        self.trace.note(&self.state, changed);
        let last = Arc::clone(&self.view.borrow());
        let next = ecs_core::view_after(&last, &self.state, changed, self.clock.now());
        if !next.shows_the_same(&last) {
            Trace::waits(&last, &next);
            self.view.send_replace(Arc::new(next));
        }
    }
}

async fn sleep_until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(changed: &[&str], may_wait: bool) -> Step {
        let changed = changed.iter().map(|name| Key::Task((*name).into())).collect();
        Step { changed, may_wait, ..Step::default() }
    }

    #[tokio::test(start_paused = true)]
    async fn an_urgent_change_is_committed_at_once_with_all_pending_ones() {
        let now = Instant::now();
        let mut unwritten = Unwritten::default();
        assert!(!unwritten.add(&step(&["a"], true), now));
        assert!(!unwritten.add(&step(&[], true), now + LINGER / 2), "the first change waits on");
        assert!(unwritten.add(&step(&["b"], false), now + LINGER / 2));
        assert_eq!(unwritten.changed.len(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn later_changes_do_not_delay_a_commit_further() {
        let now = Instant::now();
        let mut unwritten = Unwritten::default();
        assert!(!unwritten.add(&step(&["a"], true), now));
        assert!(!unwritten.add(&step(&["a"], true), now + LINGER * 9 / 10));
        assert!(unwritten.add(&step(&["a"], true), now + LINGER));
        sleep_until(unwritten.until).await;
        assert_eq!(Instant::now(), now + LINGER);
    }

    #[tokio::test(start_paused = true)]
    async fn without_changes_no_commit_is_due() {
        let mut unwritten = Unwritten::default();
        assert!(!unwritten.add(&step(&[], true), Instant::now()));
        assert_eq!(unwritten.until, None);
    }
}
