//! The counters of the runtime. Docker's calls, requests to the task metadata server and the links count for themselves.

use super::value::{Counter, Gauge, Histogram};
use std::time::Duration;

/// The phases of a task, in the order of its life.
pub const PHASES: [&str; 9] =
    ["received_to_admitted", "digest", "pull", "create", "start", "healthy", "received_to_running", "stop", "report"];

/// Upper bounds of the buckets for phases and pulls, in milliseconds: from a container that starts at once to a pull of an hour.
const LONG: &[u64] =
    &[10, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 30_000, 60_000, 120_000, 300_000, 600_000, 3_600_000];
/// The same for commits.
const COMMIT: &[u64] = &[1, 2, 5, 10, 25, 50, 100, 250, 500, 1_000, 5_000];

/// How a pull ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PullOutcome {
    /// The registry was asked, and the image is on this host.
    Pulled,
    /// The image was on this host already, and the registry was not asked.
    Present,
    /// The pull failed, and an older image on this host is used.
    Cached,
    /// There is no image.
    Failed,
}

impl PullOutcome {
    /// All outcomes, with their labels.
    pub const ALL: [(Self, &str); 4] =
        [(Self::Pulled, "pulled"), (Self::Present, "present"), (Self::Cached, "cached"), (Self::Failed, "failed")];
}

/// What became of a report of a state change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReportOutcome {
    /// ECS has accepted it.
    Accepted,
    /// ECS found it invalid. It is not repeated.
    Invalid,
    /// ECS could not be reached, or gave another error. The report is repeated.
    Failed,
}

impl ReportOutcome {
    /// All outcomes, with their labels.
    pub const ALL: [(Self, &str); 3] =
        [(Self::Accepted, "accepted"), (Self::Invalid, "invalid"), (Self::Failed, "failed")];
}

/// The counters of the runtime, shared by its parts. They count whether or not anybody scrapes them.
#[derive(Debug)]
pub struct Metrics {
    /// In the order of [`PHASES`].
    phases: [Histogram; PHASES.len()],
    /// In the order of [`PullOutcome::ALL`].
    pulls: [Counter; PullOutcome::ALL.len()],
    /// How long the pulls took for which the registry was asked, whatever their outcome.
    pub pull_seconds: Histogram,
    /// In the order of [`ReportOutcome::ALL`].
    reports: [Counter; ReportOutcome::ALL.len()],
    /// How long the commits took that succeeded.
    pub commit_seconds: Histogram,
    /// Commits that failed.
    pub commits_failed: Counter,
    /// The size of the state file in bytes after the last commit; 0: there is no file.
    pub store_bytes: Gauge,
    /// Messages that wait for TCS.
    pub telemetry_waiting: Gauge,
    /// Messages for TCS that were dropped because too many waited.
    pub telemetry_dropped: Counter,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            phases: std::array::from_fn(|_| Histogram::new(LONG)),
            pulls: Default::default(),
            pull_seconds: Histogram::new(LONG),
            reports: Default::default(),
            commit_seconds: Histogram::new(COMMIT),
            commits_failed: Counter::default(),
            store_bytes: Gauge::default(),
            telemetry_waiting: Gauge::default(),
            telemetry_dropped: Counter::default(),
        }
    }
}

impl Metrics {
    /// Notes that a phase of a task, one of [`PHASES`], took this long. Another name is left out.
    pub fn phase(&self, phase: &'static str, took: Duration) {
        let found = self.phases().find(|(name, _)| *name == phase);
        debug_assert!(found.is_some(), "{phase} is no phase of a task");
        if let Some((_, histogram)) = found {
            histogram.observe(took);
        }
    }

    /// The phases with their histograms.
    pub fn phases(&self) -> impl Iterator<Item = (&'static str, &Histogram)> {
        PHASES.into_iter().zip(&self.phases)
    }

    /// Notes the end of a pull. `took` counts if the registry was asked.
    pub fn pull_ended(&self, outcome: PullOutcome, took: Duration) {
        for ((known, _), counter) in PullOutcome::ALL.iter().zip(&self.pulls) {
            if *known == outcome {
                counter.increment();
            }
        }
        if outcome != PullOutcome::Present {
            self.pull_seconds.observe(took);
        }
    }

    /// The number of pulls by their outcome.
    pub fn pulls(&self) -> impl Iterator<Item = (&'static str, u64)> {
        PullOutcome::ALL.into_iter().zip(&self.pulls).map(|((_, label), counter)| (label, counter.get()))
    }

    /// Notes the end of an attempt to report a state change.
    pub fn report_ended(&self, outcome: ReportOutcome) {
        for ((known, _), counter) in ReportOutcome::ALL.iter().zip(&self.reports) {
            if *known == outcome {
                counter.increment();
            }
        }
    }

    /// The number of attempts to report a state change, by their outcome.
    pub fn reports(&self) -> impl Iterator<Item = (&'static str, u64)> {
        ReportOutcome::ALL.into_iter().zip(&self.reports).map(|((_, label), counter)| (label, counter.get()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pull_that_asked_no_registry_has_no_duration() {
        let metrics = Metrics::default();
        metrics.pull_ended(PullOutcome::Present, Duration::from_secs(1));
        assert_eq!(metrics.pull_seconds.observed().count, 0);
        metrics.pull_ended(PullOutcome::Failed, Duration::from_secs(1));
        assert_eq!(metrics.pull_seconds.observed().count, 1);
        let counts: Vec<_> = metrics.pulls().collect();
        assert_eq!(counts, [("pulled", 0), ("present", 1), ("cached", 0), ("failed", 1)]);
    }

    #[test]
    fn a_phase_is_observed_under_its_name() {
        let metrics = Metrics::default();
        metrics.phase("start", Duration::from_millis(20));
        let counts: Vec<_> = metrics.phases().filter(|(_, histogram)| histogram.observed().count == 1).collect();
        assert_eq!(counts.len(), 1);
        assert_eq!(counts[0].0, "start");
    }
}
