//! The one loop, and the only owner of the state: step, commit, publish, act. The order never changes.
//!
//! An effect starts only after the state it rests on is on disk; so does an acknowledgement, which is an effect like any other.
//! A burst of events is stepped through one by one and committed once.

use super::clock::Clock;
use super::executor::Executor;
use super::trace::Trace;
use crate::aws::backoff::{Backoff, Shape};
use crate::engine::{self, Effect, Event, Key, State};
use crate::model::Span;
use crate::model::view::View;
use crate::store::{Store, StoreError};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

/// Most events taken into one turn; bounds the time between two commits.
const MOST_PER_TURN: usize = 64;
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
}

impl CoreLoop {
    /// Runs until told to stop. While the state cannot be written nothing is acted upon and no further event is taken in; readers
    /// see what was written last.
    ///
    /// # Errors
    /// The store's, if the agent is told to stop while it waits for the disk.
    pub(super) async fn run(
        mut self,
        stop: CancellationToken,
        mut alive: impl FnMut() + Send,
    ) -> Result<(), StoreError> {
        self.turn(vec![Event::Tick], &stop, &mut || ()).await?; // recovery: asks for an inventory and plans
        alive();
        while !stop.is_cancelled() {
            let mut batch = Vec::new();
            let deadline = engine::next_deadline(&self.state);
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
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
        let deadline = tokio::time::Instant::now() + GRACE;
        // A call may have been reaped while its outcome still waits in the inbox.
        while self.executor.in_flight() > 0 || !self.inbox.is_empty() {
            let mut batch = Vec::new();
            tokio::select! {
                received = self.inbox.recv_many(&mut batch, MOST_PER_TURN) => if received == 0 { break },
                () = tokio::time::sleep_until(deadline) => break,
            }
            let (_, changed) = self.step(batch);
            self.commit(&changed)?;
            self.executor.reap();
        }
        Ok(())
    }

    /// Step, commit, publish, act.
    async fn turn(
        &mut self,
        batch: Vec<Event>,
        stop: &CancellationToken,
        alive: &mut (impl FnMut() + Send),
    ) -> Result<(), StoreError> {
        let (effects, changed) = self.step(batch);
        let mut pauses = Backoff::new(COMMIT_RETRY);
        while let Err(error) = self.commit(&changed) {
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
        for effect in effects {
            self.executor.start(effect);
        }
        self.executor.reap();
        Ok(())
    }

    /// What follows from these events, and which documents it changes.
    fn step(&mut self, batch: Vec<Event>) -> (Vec<Effect>, BTreeSet<Key>) {
        let mut effects = Vec::new();
        let mut changed: BTreeSet<Key> = BTreeSet::new();
        let now = self.clock.now();
        for event in batch {
            tracing::debug!(?event, "event");
            let step = engine::step(&mut self.state, now, event);
            effects.extend(step.effects);
            changed.extend(step.changed);
            if cfg!(debug_assertions)
                && let Err(broken) = engine::check(&self.state)
            {
                tracing::error!(broken, "an invariant of the state is broken");
            }
        }
        // Credentials that came again within this burst are not forgotten.
        let state = &self.state;
        effects.retain(|effect| !matches!(effect, Effect::ForgetCredentials { id } if state.credentials.contains(id)));
        (effects, changed)
    }

    /// Commit, publish.
    fn commit(&mut self, changed: &BTreeSet<Key>) -> Result<(), StoreError> {
        if !changed.is_empty() {
            // redb blocks while it flushes; the other worker thread goes on meanwhile.
            tokio::task::block_in_place(|| self.store.commit(&self.state, changed))?;
            self.trace.note(&self.state, changed);
        }
        self.view.send_replace(Arc::new(engine::view(&self.state, self.clock.now())));
        Ok(())
    }
}
