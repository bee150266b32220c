//! The one loop, and the only owner of the state: step, commit, publish, act. The order never changes.
//!
//! An effect starts only after the state it rests on is on disk; so does an acknowledgement, which is an effect like any other.
//! A burst of events is stepped through one by one and committed once.

use super::clock::Clock;
use super::executor::Executor;
use super::trace::Trace;
use crate::engine::{self, Effect, Event, Key, State};
use crate::model::view::View;
use crate::store::{Store, StoreError};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

/// Most events taken into one turn; bounds the time between two commits.
const MOST_PER_TURN: usize = 64;
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
    /// Runs until told to stop, or until the state cannot be written.
    ///
    /// # Errors
    /// The store's: the agent may not act on what is not on disk, so it ends and is restarted.
    pub(super) async fn run(mut self, stop: CancellationToken, mut alive: impl FnMut()) -> Result<(), StoreError> {
        self.turn(vec![Event::Tick])?; // recovery: asks for an inventory and plans
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
            self.turn(batch)?;
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
            self.settle(batch)?;
            self.executor.reap();
        }
        Ok(())
    }

    fn turn(&mut self, batch: Vec<Event>) -> Result<(), StoreError> {
        let effects = self.settle(batch)?;
        for effect in effects {
            self.executor.start(effect);
        }
        self.executor.reap();
        Ok(())
    }

    /// Step, commit, publish.
    fn settle(&mut self, batch: Vec<Event>) -> Result<Vec<Effect>, StoreError> {
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
        if !changed.is_empty() {
            // redb blocks while it flushes; the other worker thread goes on meanwhile.
            tokio::task::block_in_place(|| self.store.commit(&self.state, &changed))?;
            self.trace.note(&self.state, &changed);
        }
        // Credentials that came again within this burst are not forgotten.
        let state = &self.state;
        effects.retain(|effect| !matches!(effect, Effect::ForgetCredentials { id } if state.credentials.contains(id)));
        self.view.send_replace(Arc::new(engine::view(&self.state, now)));
        Ok(effects)
    }
}
