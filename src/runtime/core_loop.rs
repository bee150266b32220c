//! The one loop, and the only owner of the state: step, commit, publish, act. The order never changes.
//!
//! An effect starts only after the state it rests on is on disk; so does an acknowledgement, which is an effect like any other.
//! A burst of events is stepped through one by one and committed once. News of containers that are there still, from which nothing
//! follows, waits a moment for more of its kind: after a kill they are looked at anyway. Readers see what is committed.

use super::clock::Clock;
use super::executor::Executor;
use super::trace::Trace;
use crate::aws::backoff::{Backoff, Shape};
use crate::engine::{self, Effect, Event, Key, Outcome, Output, State};
use crate::model::view::View;
use crate::model::{RunState, Span};
use crate::store::{Store, StoreError};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Most events taken into one turn; bounds the time between two commits.
const MOST_PER_TURN: usize = 64;
/// How long such news may wait to be committed together. A task of many containers brings much of it, and each commit has the disk
/// flushed while Docker needs it.
const LINGER: Duration = Duration::from_millis(50);
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
    fn add(&mut self, changed: BTreeSet<Key>, may_wait: bool, now: Instant) -> bool {
        self.changed.extend(changed);
        if !may_wait || self.changed.is_empty() {
            return true;
        }
        now >= *self.until.get_or_insert(now + LINGER)
    }
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
            let (_, changed) = self.step(batch);
            self.unwritten.changed.extend(changed);
            self.commit()?;
            self.executor.reap();
        }
        Ok(())
    }

    /// Step, commit, publish, act; or step, and leave the rest to a later turn.
    async fn turn(
        &mut self,
        batch: Vec<Event>,
        stop: &CancellationToken,
        alive: &mut (impl FnMut() + Send),
    ) -> Result<(), StoreError> {
        let comes_again = batch.iter().all(comes_again);
        let (effects, changed) = self.step(batch);
        if !self.unwritten.add(changed, comes_again && effects.is_empty(), Instant::now()) {
            self.executor.reap();
            return Ok(());
        }
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
    fn commit(&mut self) -> Result<(), StoreError> {
        let changed = &self.unwritten.changed;
        if !changed.is_empty() {
            // redb blocks while it flushes; the other worker thread goes on meanwhile.
            tokio::task::block_in_place(|| self.store.commit(&self.state, changed))?;
            self.trace.note(&self.state, changed);
        }
        self.unwritten = Unwritten::default();
        self.view.send_replace(Arc::new(engine::view(&self.state, self.clock.now())));
        Ok(())
    }
}

/// A look at a container that has not ended: the next start of the agent begins with another, which tells all but the image's digest.
fn comes_again(event: &Event) -> bool {
    let seen = match event {
        Event::Observed(seen) | Event::Completed { outcome: Outcome::Done(Output::Seen(Some(seen))), .. } => seen,
        _ => return false,
    };
    matches!(seen.state, RunState::Created | RunState::Running) && seen.image_digest.is_none()
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
    use crate::model::{Observation, OpId};

    fn task(name: &str) -> BTreeSet<Key> {
        BTreeSet::from([Key::Task(name.into())])
    }

    #[tokio::test(start_paused = true)]
    async fn what_may_not_wait_is_committed_at_once_with_all_that_waited() {
        let now = Instant::now();
        let mut unwritten = Unwritten::default();
        assert!(!unwritten.add(task("a"), true, now));
        assert!(!unwritten.add(BTreeSet::new(), true, now + LINGER / 2), "what waits is not shown");
        assert!(unwritten.add(task("b"), false, now + LINGER / 2));
        assert_eq!(unwritten.changed.len(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn what_waits_is_committed_in_time_however_much_follows() {
        let now = Instant::now();
        let mut unwritten = Unwritten::default();
        assert!(!unwritten.add(task("a"), true, now));
        assert!(!unwritten.add(task("a"), true, now + LINGER * 9 / 10));
        assert!(unwritten.add(task("a"), true, now + LINGER));
        sleep_until(unwritten.until).await;
        assert_eq!(Instant::now(), now + LINGER);
    }

    #[tokio::test(start_paused = true)]
    async fn where_nothing_changed_readers_are_shown_the_time_that_passed() {
        let mut unwritten = Unwritten::default();
        assert!(unwritten.add(BTreeSet::new(), true, Instant::now()));
        assert_eq!(unwritten.until, None);
    }

    #[test]
    fn only_news_that_the_next_start_would_bring_again_may_wait() {
        let seen = |state: RunState| -> Box<Observation> {
            let seen = serde_json::json!({
                "task": "t", "container": "c", "runtime_name": "n", "runtime_id": "i", "state": state, "exit_code": null, "error": null,
                "health": "UNKNOWN", "created_at": null, "started_at": null, "bindings": [], "mounts": [], "image_id": "", "outline": null,
            });
            Box::new(serde_json::from_value(seen).unwrap())
        };
        let done = |output| Event::Completed { op: OpId(1), outcome: Outcome::Done(output) };
        for state in [RunState::Created, RunState::Running] {
            assert!(comes_again(&Event::Observed(seen(state))));
            assert!(comes_again(&done(Output::Seen(Some(seen(state))))));
        }
        assert!(!comes_again(&Event::Observed(seen(RunState::Exited))), "it may be removed before the next start");
        assert!(!comes_again(&done(Output::Seen(Some(seen(RunState::Exited))))));
        let created = Observation { image_digest: Some("sha256:1".into()), ..*seen(RunState::Created) };
        assert!(!comes_again(&done(Output::Seen(Some(Box::new(created))))), "only the create looks for the digest");
        for event in [done(Output::Seen(None)), done(Output::Nothing), Event::Tick, Event::ObservationsLost] {
            assert!(!comes_again(&event), "{event:?}");
        }
    }
}
