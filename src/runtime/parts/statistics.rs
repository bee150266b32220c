//! Reads the counters of all running containers once a second, and keeps their statistics.
//!
//! Owns the timer, which is one for all containers, and the choice of the source: the kernel's own counters, or Docker for a
//! container whose counters this agent cannot see (Docker is on another host, or the agent in a container without the host's
//! processes and control groups). Invariants: a container is read by one source at a time, once at a time; what Docker does not
//! answer delays no other container (`asking`); no disk delays a reading (`saving`); and no error ends this part.

mod asking;
pub(super) mod saving;

use crate::cgroup::usage::{Outcome, Sampler, Target};
use crate::config::Config;
use crate::lane::{self, Lane};
use crate::runtime::execute::edges::Edges;
use crate::runtime::supervisor::PartResult;
use crate::stats::{Collection, Gathered, SavedFile, Tracked};
use asking::{Answer, Asking};
use ecs_core::model::usage::{LastStatistics, Process, Reading};
use ecs_core::model::view::{ContainerView, View};
use ecs_core::model::{ContainerStatus, RuntimeId, with_causes};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

/// The time between two readings.
const TICK: Duration = Duration::from_secs(1);
/// The interval between reports to ECS (spec `stats.md` §1).
const REPORT: Duration = Duration::from_secs(20);
/// How many intervals of reports the kept readings cover.
const REPORTS_KEPT: u32 = 4;
/// The threads that read counters. The kernel prints a container's in some microseconds, unless it is very busy.
const LANE: lane::Settings = lane::Settings { threads: 1, spare: 1, limit: Duration::from_secs(10) };

/// The settings of this part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    /// The operator wants no statistics.
    pub(crate) is_disabled: bool,
    /// The time between two readings, if the operator wants fewer than one in each second.
    pub(crate) poll: Option<Duration>,
}

impl Settings {
    /// The settings in the configuration.
    pub(crate) fn new(config: &Config) -> Self {
        let poll = config.poll_metrics.then(|| Duration::from(config.polling_metrics_wait));
        Self { is_disabled: config.metrics_disabled, poll }
    }

    /// How many readings are kept of each container.
    fn capacity(self) -> usize {
        let interval = self.poll.unwrap_or(TICK).max(TICK);
        (REPORT * REPORTS_KEPT).as_millis().checked_div(interval.as_millis()).unwrap_or_default() as usize
    }
}

/// The statistics of all containers, for those who read them.
#[derive(Debug)]
pub(crate) struct Statistics {
    collection: Mutex<Collection>,
    settings: Settings,
    file: SavedFile,
    /// How often what is to be saved has changed.
    changes: watch::Sender<u64>,
}

impl Statistics {
    /// Goes on with what an earlier process of the agent has saved.
    pub(crate) async fn restored(config: &Config) -> Self {
        let settings = Settings::new(config);
        let file = SavedFile::new(config.checkpoint.then_some(config.data_dir.as_path()));
        let saved = file.read().await;
        Self::new(Collection::new(saved, settings.capacity()), settings, file)
    }

    fn new(collection: Collection, settings: Settings, file: SavedFile) -> Self {
        Self { collection: Mutex::new(collection), settings, file, changes: watch::Sender::new(0) }
    }

    /// Tracks the containers of this view.
    fn track(&self, view: &View) -> Vec<Tracked> {
        self.change(|collection| collection.track(view))
    }

    fn add_answer(&self, answer: Answer) {
        if let Some(reading) = answer.reading {
            self.add(reading, &answer.tracked.process);
        }
    }

    fn add(&self, reading: Reading, process: &Process) {
        self.change(|collection| collection.add(reading, process));
    }

    fn change<T>(&self, change: impl FnOnce(&mut Collection) -> T) -> T {
        let (result, changes) = {
            let mut collection = self.lock();
            (change(&mut collection), collection.changes())
        };
        self.changes.send_if_modified(|before| std::mem::replace(before, changes) != changes);
        result
    }

    /// What is known of a container. The view may be newer than the last reading: a container that has just started has no
    /// statistics yet, and one that has ended has none any more.
    pub(crate) fn lookup(&self, container: &ContainerView) -> LastStatistics {
        let id = container.runtime_id.as_ref().filter(|_| container.known < ContainerStatus::Stopped);
        let Some(id) = id.filter(|_| !self.is_disabled()) else { return LastStatistics::Untracked };
        match self.lock().lookup(id) {
            LastStatistics::Untracked if container.process.is_some() => LastStatistics::Waiting,
            known => known,
        }
    }

    /// What telemetry publishes of the time since the last call.
    pub(crate) fn gather(&self) -> Gathered {
        self.lock().gather()
    }

    /// True: there are no statistics of any container.
    pub(crate) fn is_disabled(&self) -> bool {
        self.settings.is_disabled
    }

    fn lock(&self) -> MutexGuard<'_, Collection> {
        self.collection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The part that reads.
#[derive(Clone, Debug)]
pub(crate) struct Watch {
    statistics: Arc<Statistics>,
    view: watch::Receiver<Arc<View>>,
    edges: Arc<Edges>,
}

/// What one run of the part knows.
struct Run {
    statistics: Arc<Statistics>,
    lane: Lane,
    /// `None` while the counters are being read, and after a reading that hung.
    sampler: Option<Sampler>,
    since: Instant,
    /// Containers may have ended whose files are open.
    may_close: bool,
    /// The view that `tracked` was made from.
    view: Option<Arc<View>>,
    tracked: Vec<Tracked>,
    /// The runs of which there was a reading, or an attempt.
    seen: BTreeMap<RuntimeId, Process>,
    /// When all containers are read again.
    next_for_all: Instant,
    /// The containers that Docker must be asked about.
    at_docker: BTreeSet<RuntimeId>,
    has_logged_docker: bool,
    /// The last reading did not end in time, and that is logged.
    is_hanging: bool,
    /// The last reading failed for some container for the moment, and that is logged.
    is_failing: bool,
}

impl Watch {
    pub(crate) fn new(statistics: Arc<Statistics>, view: watch::Receiver<Arc<View>>, edges: Arc<Edges>) -> Self {
        Self { statistics, view, edges }
    }

    /// The statistics that are kept.
    pub(super) fn statistics(&self) -> Arc<Statistics> {
        Arc::clone(&self.statistics)
    }

    /// Reads until `stop` is cancelled.
    pub(crate) async fn run(self, stop: CancellationToken) -> PartResult {
        let mut run = Run::new(&self);
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut asking = Asking::new(Arc::clone(&self.edges), run.since);
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                answer = asking.answer() => self.statistics.add_answer(answer),
                _ = tick.tick() => {
                    let due = run.due(Arc::clone(&self.view.borrow()));
                    let (at_docker, here) = due.into_iter().partition(|tracked| run.at_docker.contains(&tracked.id));
                    asking.keep_only(&run.at_docker);
                    asking.ask(at_docker);
                    let reading = run.read(here);
                    tokio::pin!(reading);
                    loop {
                        tokio::select! {
                            () = &mut reading => break,
                            answer = asking.answer() => self.statistics.add_answer(answer),
                        }
                    }
                }
            }
        }
    }
}

impl Run {
    fn new(watch: &Watch) -> Self {
        let since = Instant::now();
        Self {
            statistics: Arc::clone(&watch.statistics),
            lane: Lane::new("statistics", LANE),
            sampler: None,
            since,
            may_close: false,
            view: None,
            tracked: Vec::new(),
            seen: BTreeMap::new(),
            next_for_all: since,
            at_docker: BTreeSet::new(),
            has_logged_docker: false,
            is_hanging: false,
            is_failing: false,
        }
    }

    /// The containers whose turn it is: all of them, or while the operator wants fewer readings, those that have just started.
    fn due(&mut self, view: Arc<View>) -> Vec<Tracked> {
        if self.view.as_ref().is_none_or(|before| !Arc::ptr_eq(before, &view)) {
            self.tracked = self.statistics.track(&view);
            let processes: BTreeMap<_, _> =
                self.tracked.iter().map(|tracked| (&tracked.id, &tracked.process)).collect();
            self.seen.retain(|id, process| processes.get(id) == Some(&&*process));
            let seen = &self.seen;
            self.at_docker.retain(|id| seen.contains_key(id));
            (self.view, self.may_close) = (Some(view), true);
        }
        let now = Instant::now();
        let all_are_due = self.statistics.settings.poll.is_none_or(|interval| {
            let is_due = now >= self.next_for_all;
            if is_due {
                // Half a tick earlier: a tick that comes a moment too early would miss its turn by a second.
                self.next_for_all = now + interval.saturating_sub(TICK / 2);
            }
            is_due
        });
        let due = self.tracked.iter().filter(|tracked| all_are_due || !self.seen.contains_key(&tracked.id));
        let due: Vec<_> = due.cloned().collect();
        self.seen.extend(due.iter().map(|tracked| (tracked.id.clone(), tracked.process.clone())));
        due
    }

    /// Reads the kernel's counters of these containers.
    async fn read(&mut self, due: Vec<Tracked>) {
        let has_files = self.sampler.as_ref().is_some_and(|sampler| !sampler.is_idle());
        let may_close = std::mem::take(&mut self.may_close) && has_files;
        if due.is_empty() && !may_close {
            return;
        }
        let mut sampler = match self.sampler.take() {
            Some(sampler) => sampler,
            None => Sampler::new(self.since),
        };
        let target = |tracked: &Tracked| Target {
            id: tracked.id.clone(),
            process: tracked.process.clone(),
            has_networks: tracked.has_networks,
        };
        let due: Vec<_> = due.iter().map(target).collect();
        let kept = may_close.then(|| self.tracked.iter().map(target).collect::<Vec<_>>());
        let work = move || {
            if let Some(kept) = kept {
                sampler.keep_only(&kept);
            }
            let outcomes = sampler.sample(&due);
            (sampler, due, outcomes)
        };
        match self.lane.run("the counters of containers", work).await {
            Ok((sampler, due, outcomes)) => {
                if std::mem::take(&mut self.is_hanging) {
                    tracing::info!("the counters of containers are read again");
                }
                self.sampler = Some(sampler);
                self.note_failures(&outcomes);
                due.iter().zip(outcomes).for_each(|(target, outcome)| self.add(target, outcome));
            }
            Err(error) if !std::mem::replace(&mut self.is_hanging, true) => {
                tracing::warn!(error = with_causes(&error), "the counters of containers are not read");
            }
            Err(_) => {}
        }
    }

    fn add(&mut self, target: &Target, outcome: Outcome) {
        match outcome {
            Outcome::Read(reading) => self.statistics.add(*reading, &target.process),
            // It is tried again in the next second, also while the operator wants fewer readings.
            Outcome::Missing | Outcome::Failed(_) => _ = self.seen.remove(&target.id),
            Outcome::Unreadable(why) => {
                if !std::mem::replace(&mut self.has_logged_docker, true) {
                    tracing::info!(
                        container = target.id.as_str(),
                        why,
                        "a container's counters cannot be read on this host; Docker is asked for those of such containers"
                    );
                }
                self.at_docker.insert(target.id.clone());
            }
        }
    }

    /// Logs when readings begin to fail for the moment, and when they work again.
    fn note_failures(&mut self, outcomes: &[Outcome]) {
        let failed = outcomes.iter().find_map(|outcome| match outcome {
            Outcome::Failed(why) => Some(why),
            Outcome::Read(_) | Outcome::Missing | Outcome::Unreadable(_) => None,
        });
        match failed {
            Some(error) if !self.is_failing => {
                tracing::warn!(
                    error,
                    "the counters of some containers cannot be read now; it is tried again each second"
                );
            }
            None if self.is_failing => tracing::info!("the counters of all containers are read again"),
            Some(_) | None => {}
        }
        self.is_failing = failed.is_some();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::Saved;
    use ecs_core::model::view::TaskView;

    #[test]
    fn what_is_known_follows_the_newest_view() {
        let statistics = |is_disabled| {
            let settings = Settings { is_disabled, poll: None };
            Statistics::new(Collection::new(Saved::default(), 80), settings, SavedFile::new(None))
        };
        let container = |known, process: Option<Process>| ContainerView {
            runtime_id: Some("id".into()),
            known,
            process,
            ..ContainerView::default()
        };
        let (on, off) = (statistics(false), statistics(true));
        let running = container(ContainerStatus::Running, Some(Process::default()));
        assert_eq!(on.lookup(&running), LastStatistics::Waiting, "it has just started");
        assert_eq!(off.lookup(&running), LastStatistics::Untracked);
        assert_eq!(on.lookup(&container(ContainerStatus::Created, None)), LastStatistics::Untracked);
        let task = TaskView { family: "family".to_owned(), containers: vec![running.clone()], ..TaskView::default() };
        on.track(&View { tasks: vec![Arc::new(task)], ..View::default() });
        on.add(Reading { id: "id".into(), ..Reading::default() }, &Process::default());
        assert!(matches!(on.lookup(&running), LastStatistics::Known(_)));
        assert_eq!(
            on.lookup(&container(ContainerStatus::Stopped, None)),
            LastStatistics::Untracked,
            "it has just ended"
        );
    }

    #[test]
    fn as_many_readings_are_kept_as_in_the_go_agent() {
        for (poll, expected) in [(None, 80), (Some(5), 16), (Some(10), 8), (Some(12), 6), (Some(20), 4)] {
            let settings = Settings { is_disabled: false, poll: poll.map(Duration::from_secs) };
            assert_eq!(settings.capacity(), expected, "{poll:?}");
        }
    }
}
