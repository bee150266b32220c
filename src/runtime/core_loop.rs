//! The one loop, and the only owner of the state: step, commit, publish, act. The order never changes.
//!
//! An effect starts only after the state it rests on is on disk; so does an acknowledgement, which is an effect like any other.
//! A burst of events is stepped through one by one and committed once. Of what need not be on disk first the core says so
//! ([`Step::may_wait`]): readers see it, nothing follows from it, and the commit waits a moment for more of its kind.

use super::clock::Clock;
use super::executor::Executor;
use super::health::Health;
use super::trace::Trace;
use crate::aws::backoff::{Backoff, Shape};
use crate::core::{self, Effect, Event, Key, State, Step};
use crate::model::Span;
use crate::model::view::View;
use crate::store::{Store, StoreError};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Most events taken into one turn; bounds the time between two commits.
const MOST_PER_TURN: usize = 64;
/// How long a commit that may wait does. A task of many containers brings much such news, and each commit has the disk flushed while
/// Docker needs it.
const LINGER: Duration = Duration::from_millis(500);
/// Between two tries to write the state; every try is a whole one, so there is no hurry.
const COMMIT_RETRY: Shape =
    Shape { initial: Duration::from_millis(250), max: Duration::from_secs(5), factor: 2.0, jitter: 0.2 };
/// How long operations in flight may take to end when the agent stops. What does not end is found by the next start.
const GRACE: Duration = Duration::from_secs(5);

/// The loop's parts.
#[derive(Debug)]
pub(super) struct CoreLoop {
    /// Every fact arrives here.
    pub(super) inbox: mpsc::Receiver<Event>,
    /// The state; nobody else has it.
    pub(super) state: State,
    /// Its home on disk.
    pub(super) store: Store,
    /// Readers look here.
    pub(super) view: watch::Sender<Arc<View>>,
    /// Turns effects into calls.
    pub(super) executor: Executor,
    /// The time.
    pub(super) clock: Arc<Clock>,
    /// Writes status changes to the log.
    pub(super) trace: Trace,
    /// What is to be committed, and when at the latest.
    pub(super) unwritten: Unwritten,
    /// Learns of each turn, and whether the state could be written.
    pub(super) health: Health,
}

/// What the steps since the last commit have changed.
#[derive(Debug, Default)]
pub(super) struct Unwritten {
    changed: BTreeSet<Key>,
    /// When it is committed at the latest; `None` while there is nothing.
    until: Option<Instant>,
}

impl Unwritten {
    /// Takes in what a turn has changed; true if it is to be committed now.
    fn add(&mut self, step: &Step, now: Instant) -> bool {
        self.changed.extend(step.changed.iter().cloned());
        if !step.may_wait {
            return true;
        }
        !self.changed.is_empty() && now >= *self.until.get_or_insert(now + LINGER)
    }
}

impl CoreLoop {
    /// Runs until told to stop. While the state cannot be written nothing is acted upon and no further event is taken in; readers
    /// see what was published last.
    ///
    /// # Errors
    /// The store's, if the agent is told to stop while it waits for the disk.
    pub(super) async fn run(
        mut self,
        stop: CancellationToken,
        mut watchdog: impl FnMut() + Send,
    ) -> Result<(), StoreError> {
        let health = self.health.clone();
        let mut alive = move || {
            watchdog();
            health.core_turned();
        };
        let tried = self.health.clone();
        self.turn(vec![Event::Tick], &stop, &mut || tried.core_turned()).await?; // recovery: asks for an inventory and plans
        alive();
        while !stop.is_cancelled() {
            let mut batch = Vec::new();
            let deadline = core::next_deadline(&self.state);
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                // Before the inbox, or a steady stream of events could keep it from its turn.
                () = sleep_until(self.unwritten.until) => {}
                received = self.inbox.recv_many(&mut batch, MOST_PER_TURN) => if received == 0 { break },
                () = self.clock.sleep_until(deadline) => batch.push(Event::Tick),
            }
            self.turn(batch, &stop, &mut alive).await?;
            alive();
        }
        self.wind_down().await
    }

    /// Writes down how the operations in flight end, without starting new ones.
    async fn wind_down(mut self) -> Result<(), StoreError> {
        let deadline = Instant::now() + GRACE;
        self.commit()?;
        // A call may have been reaped while its outcome still waits in the inbox.
        while self.executor.in_flight() > 0 || !self.inbox.is_empty() {
            let mut batch = Vec::new();
            tokio::select! {
                received = self.inbox.recv_many(&mut batch, MOST_PER_TURN) => if received == 0 { break },
                () = tokio::time::sleep_until(deadline) => break,
            }
            let step = self.step(batch);
            self.unwritten.changed.extend(step.changed.iter().cloned());
            self.commit()?;
            self.publish(&step.changed);
            self.executor.reap();
        }
        Ok(())
    }

    /// Step, commit (or leave that to a later turn), publish, act.
    async fn turn(
        &mut self,
        batch: Vec<Event>,
        stop: &CancellationToken,
        alive: &mut (impl FnMut() + Send),
    ) -> Result<(), StoreError> {
        let step = self.step(batch);
        if self.unwritten.add(&step, Instant::now()) {
            self.commit_surely(stop, alive).await?;
        }
        self.publish(&step.changed);
        for effect in step.effects {
            self.executor.start(effect);
        }
        self.executor.reap();
        Ok(())
    }

    /// Commits, however often that has to be tried.
    async fn commit_surely(
        &mut self,
        stop: &CancellationToken,
        alive: &mut (impl FnMut() + Send),
    ) -> Result<(), StoreError> {
        let mut pauses = Backoff::new(COMMIT_RETRY);
        while let Err(error) = self.commit() {
            let pause = pauses.pause();
            let (why, pause_ms) = (crate::model::with_causes(&error), pause.as_millis());
            tracing::error!(
                why,
                pause_ms,
                "the state cannot be written (ECS_DATADIR); the agent does nothing until it can"
            );
            let until = self.clock.now() + Span::millis(pause.as_millis() as u64);
            tokio::select! {
                () = stop.cancelled() => return Err(error),
                () = self.clock.sleep_until(Some(until)) => alive(),
            }
        }
        Ok(())
    }

    /// What follows from these events together.
    fn step(&mut self, batch: Vec<Event>) -> Step {
        let mut whole = Step { may_wait: true, ..Step::default() };
        let now = self.clock.now();
        for event in batch {
            tracing::debug!(?event, "event");
            let step = core::step(&mut self.state, now, event);
            whole.effects.extend(step.effects);
            whole.changed.extend(step.changed);
            whole.may_wait &= step.may_wait;
            if cfg!(debug_assertions)
                && let Err(broken) = core::check(&self.state)
            {
                tracing::error!(broken, "an invariant of the state is broken");
            }
        }
        // Credentials that came again within this burst are not forgotten.
        let state = &self.state;
        let is_in_use =
            |effect: &Effect| matches!(effect, Effect::ForgetCredentials(id) if state.credentials.contains(id));
        whole.effects.retain(|effect| !is_in_use(effect));
        whole
    }

    fn commit(&mut self) -> Result<(), StoreError> {
        let changed = &self.unwritten.changed;
        if !changed.is_empty() {
            // redb blocks while it flushes; the other worker thread goes on meanwhile.
            let written = tokio::task::block_in_place(|| self.store.commit(&self.state, changed));
            self.health.state_written(written.is_ok());
            written?;
        }
        self.unwritten = Unwritten::default();
        Ok(())
    }

    /// Readers and the log are told.
    fn publish(&mut self, changed: &BTreeSet<Key>) {
        self.trace.note(&self.state, changed);
        self.view.send_replace(Arc::new(core::view(&self.state, self.clock.now())));
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
    async fn what_may_not_wait_is_committed_at_once_with_all_that_waited() {
        let now = Instant::now();
        let mut unwritten = Unwritten::default();
        assert!(!unwritten.add(&step(&["a"], true), now));
        assert!(!unwritten.add(&step(&[], true), now + LINGER / 2), "the other waits on");
        assert!(unwritten.add(&step(&["b"], false), now + LINGER / 2));
        assert_eq!(unwritten.changed.len(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn what_waits_is_committed_in_time_however_much_follows() {
        let now = Instant::now();
        let mut unwritten = Unwritten::default();
        assert!(!unwritten.add(&step(&["a"], true), now));
        assert!(!unwritten.add(&step(&["a"], true), now + LINGER * 9 / 10));
        assert!(unwritten.add(&step(&["a"], true), now + LINGER));
        sleep_until(unwritten.until).await;
        assert_eq!(Instant::now(), now + LINGER);
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_not_waited_for() {
        let mut unwritten = Unwritten::default();
        assert!(!unwritten.add(&step(&[], true), Instant::now()));
        assert_eq!(unwritten.until, None);
    }
}
