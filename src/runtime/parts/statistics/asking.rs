//! The calls to Docker about containers whose counters this agent cannot read.
//!
//! Owns which container Docker is asked about next. Invariants: a bounded number of calls is under way, at most one about each
//! container; each has its own time limit; and containers about which Docker answers late have only a part of the calls, so that
//! the others are read in time.

use crate::runtime::execute::edges::Edges;
use crate::stats::Tracked;
use ecs_core::model::RuntimeId;
use ecs_core::model::usage::{Moment, Reading};
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How many calls are under way at the same time.
const CALLS: usize = 8;
/// How many of them may be about containers whose last answer was late.
const LATE_CALLS: usize = 2;
/// An answer that takes longer than this is late.
const LATE: Duration = Duration::from_secs(3);

/// What Docker has answered about a container.
#[derive(Debug)]
pub(super) struct Answer {
    /// The container as it was when Docker was asked.
    pub(super) tracked: Tracked,
    /// `None`: there are no counters.
    pub(super) reading: Option<Reading>,
}

/// The calls that are under way, and those that wait.
pub(super) struct Asking {
    edges: Arc<Edges>,
    /// Times of readings are counted from here.
    since: Instant,
    turns: Turns,
    calls: FuturesUnordered<BoxFuture<'static, (Answer, bool)>>,
}

impl fmt::Debug for Asking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Asking").field("turns", &self.turns).finish_non_exhaustive()
    }
}

impl Asking {
    pub(super) fn new(edges: Arc<Edges>, since: Instant) -> Self {
        Self { edges, since, turns: Turns::default(), calls: FuturesUnordered::new() }
    }

    /// Asks about these containers as soon as there are calls for them.
    pub(super) fn ask(&mut self, due: Vec<Tracked>) {
        self.turns.add(due);
        self.begin();
    }

    /// Does not ask about other containers than these any more.
    pub(super) fn keep_only(&mut self, ids: &BTreeSet<RuntimeId>) {
        self.turns.keep_only(ids);
    }

    /// The next answer; never while no call is under way. It can be dropped at any time.
    pub(super) async fn answer(&mut self) -> Answer {
        let Some((answer, is_late)) = self.calls.next().await else { return std::future::pending().await };
        self.turns.end(&answer.tracked.id, is_late);
        self.begin();
        answer
    }

    fn begin(&mut self) {
        while let Some(tracked) = self.turns.begin() {
            let (edges, since) = (Arc::clone(&self.edges), self.since);
            self.calls.push(Box::pin(async move {
                let began = Instant::now();
                let usage = edges.docker.statistics(&tracked.id).await.unwrap_or_else(|error| {
                    tracing::debug!(container = tracked.id.as_str(), %error, "Docker gave no statistics");
                    None
                });
                let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
                let read = Moment(nanos(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()));
                let at = nanos(since.elapsed());
                let reading = usage.map(|usage| Reading { id: tracked.id.clone(), read, at, usage });
                (Answer { tracked, reading }, began.elapsed() > LATE)
            }));
        }
    }
}

/// Which containers are asked about, and which wait.
#[derive(Debug, Default)]
struct Turns {
    waiting: VecDeque<Tracked>,
    /// The containers about which a call is under way. True: the last answer about it was late.
    under_way: BTreeMap<RuntimeId, bool>,
    /// The containers about which the last answer was late.
    late: BTreeSet<RuntimeId>,
}

impl Turns {
    /// Adds containers. One that waits or is asked about already has had its turn.
    fn add(&mut self, due: Vec<Tracked>) {
        let waiting: BTreeSet<RuntimeId> = self.waiting.iter().map(|tracked| tracked.id.clone()).collect();
        let is_new = |tracked: &Tracked| !waiting.contains(&tracked.id) && !self.under_way.contains_key(&tracked.id);
        self.waiting.extend(due.into_iter().filter(is_new));
    }

    fn keep_only(&mut self, ids: &BTreeSet<RuntimeId>) {
        self.waiting.retain(|tracked| ids.contains(&tracked.id));
        self.late.retain(|id| ids.contains(id));
    }

    /// The next container to ask about; `None`: there is none, or no call is left for it.
    fn begin(&mut self) -> Option<Tracked> {
        if self.under_way.len() >= CALLS {
            return None;
        }
        let may_be_late = self.under_way.values().filter(|is_late| **is_late).count() < LATE_CALLS;
        let at = self.waiting.iter().position(|tracked| may_be_late || !self.late.contains(&tracked.id))?;
        let tracked = self.waiting.remove(at)?;
        self.under_way.insert(tracked.id.clone(), self.late.contains(&tracked.id));
        Some(tracked)
    }

    fn end(&mut self, id: &RuntimeId, is_late: bool) {
        self.under_way.remove(id);
        if is_late {
            self.late.insert(id.clone());
        } else {
            self.late.remove(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ecs_core::model::usage::Process;

    fn tracked(number: usize) -> Tracked {
        let id = format!("id-{number}");
        Tracked { id: id.as_str().into(), process: Process::default(), has_networks: true }
    }

    fn begun(turns: &mut Turns) -> Vec<String> {
        std::iter::from_fn(|| turns.begin()).map(|tracked| tracked.id.as_str().to_owned()).collect()
    }

    #[test]
    fn a_container_that_hangs_delays_no_other() {
        let (all, mut turns) = ((0..20).map(tracked).collect::<Vec<_>>(), Turns::default());
        turns.add(all.clone());
        assert_eq!(begun(&mut turns).len(), CALLS);
        // The first one hangs; the others answer at once, round after round.
        for round in 0..5 {
            let mut answered = BTreeSet::new();
            while answered.len() < 19 {
                let ended: Vec<_> = turns.under_way.keys().filter(|id| id.as_str() != "id-0").cloned().collect();
                assert!(!ended.is_empty(), "round {round}");
                ended.iter().for_each(|id| turns.end(id, false));
                answered.extend(ended);
                begun(&mut turns);
                assert!(turns.under_way.len() <= CALLS);
            }
            turns.add(all.clone());
            assert!(turns.waiting.iter().all(|waiting| waiting.id.as_str() != "id-0"), "it is asked about already");
            begun(&mut turns);
        }
    }

    #[test]
    fn containers_that_answer_late_have_a_part_of_the_calls() {
        let mut turns = Turns::default();
        turns.add((0..CALLS).map(tracked).collect());
        begun(&mut turns);
        let asked: Vec<_> = turns.under_way.keys().cloned().collect();
        asked.iter().for_each(|id| turns.end(id, true));
        turns.add((0..CALLS + 10).map(tracked).collect());
        let (late, others): (Vec<_>, Vec<_>) =
            begun(&mut turns).into_iter().partition(|id| asked.iter().any(|known| known.as_str() == id));
        assert_eq!((late.len(), others.len()), (LATE_CALLS, CALLS - LATE_CALLS));
        // Answered in time, it is like the others again.
        turns.end(&late[0].as_str().into(), false);
        assert_eq!(begun(&mut turns), [asked[LATE_CALLS].as_str()], "the next late one has its turn");
        turns.keep_only(&BTreeSet::from([late[1].as_str().into()]));
        assert_eq!((turns.waiting.len(), turns.late.len()), (0, 1), "what has ended is forgotten");
    }
}
