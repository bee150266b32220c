//! The statistics of one container.

use super::carried::Carried;
use super::sets::{FloatSet, NetworkSets, StorageSets};
use super::window::Window;
use ecs_core::model::usage::{Process, Reading, Statistics};
use ecs_core::model::{ContainerName, TaskArn};
use std::sync::Arc;

/// What a report has of a task.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskStats {
    /// ARN of the task.
    pub arn: TaskArn,
    /// Task definition family.
    pub family: String,
    /// Task definition revision.
    pub version: String,
    /// Its containers, those without figures left out.
    pub containers: Vec<ContainerStats>,
}

/// What a report has of a container. A set that is `None` is not reported.
#[derive(Clone, Debug, PartialEq)]
pub struct ContainerStats {
    /// The container's name in the task definition.
    pub name: ContainerName,
    /// The processors, in percent of all of the host's.
    pub cpu: FloatSet,
    /// Memory without the cache, in MiB.
    pub memory: FloatSet,
    /// Networks.
    pub network: Option<NetworkSets>,
    /// Block devices.
    pub storage: Option<StorageSets>,
    /// Restarts by the restart policy since the last report.
    pub restarts: Option<u32>,
}

/// The statistics of one container.
#[derive(Clone, Debug)]
pub(super) struct History {
    /// The first process of the run that the last reading is from; `None` before the first reading.
    run: Option<Process>,
    /// `None`: there was no run before this one.
    carried: Option<Arc<Carried>>,
    last: Option<Arc<Statistics>>,
    window: Window,
}

impl History {
    /// No readings yet. `carried`: what an earlier process of the agent has saved. `capacity`: how many readings are kept.
    pub(super) fn new(carried: Option<Arc<Carried>>, capacity: usize) -> Self {
        Self { run: None, carried, last: None, window: Window::new(capacity) }
    }

    /// Adds a reading of this run. `restarts`: the number of restarts; `None`: the container has no restart policy. Returns true if
    /// what is carried has changed, which is to be saved.
    ///
    /// Without a restart policy nobody expects the container to go on, and its counters begin again.
    pub(super) fn add(&mut self, mut reading: Reading, run: &Process, restarts: Option<u32>) -> bool {
        let is_another_run = self.run.as_ref().is_some_and(|before| before != run);
        let ended = self.last.as_ref().filter(|_| is_another_run && restarts.is_some());
        let has_changed = ended.is_some();
        if let Some(ended) = ended {
            self.carried = Some(Arc::new(Carried::new(&ended.usage)));
        }
        if self.run.as_ref() != Some(run) {
            self.run = Some(run.clone());
        }
        if let Some(carried) = self.carried.as_ref().filter(|_| restarts.is_some()) {
            carried.add_to(&mut reading.usage);
        }
        let point = self.window.add(&reading, restarts);
        let before = self.last.take();
        self.last = Some(Arc::new(Statistics {
            read: reading.read,
            previous_read: before.as_ref().map(|before| before.read),
            previous_cpu: before.map(|before| before.usage.cpu.clone()).unwrap_or_default(),
            usage: reading.usage,
            rate: point.rate,
        }));
        has_changed
    }

    /// The last statistics; `None`: there was no reading yet.
    pub(super) fn last(&self) -> Option<Arc<Statistics>> {
        self.last.clone()
    }

    pub(super) fn carried(&self) -> Option<&Arc<Carried>> {
        self.carried.as_ref()
    }

    /// What a report has of it; `None` if there is too little to report.
    pub(super) fn report(&self, name: &ContainerName) -> Option<ContainerStats> {
        let sets = self.window.sets();
        Some(ContainerStats {
            name: name.clone(),
            cpu: sets.cpu?,
            memory: sets.memory?,
            network: sets.network,
            storage: sets.storage,
            restarts: sets.restarts,
        })
    }

    /// Marks all readings as reported.
    pub(super) fn take(&mut self) {
        self.window.take();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ecs_core::model::usage::{CpuUsage, Interface, Moment, Traffic, Usage};
    use proptest::prelude::*;

    const SECOND: u64 = 1_000_000_000;

    fn run(pid: u32) -> Process {
        Process { pid, started_at: format!("start {pid}").into() }
    }

    fn reading(at: u64, total: u64) -> Reading {
        let traffic = Traffic { rx_bytes: total, ..Traffic::default() };
        let usage = Usage {
            cpu: CpuUsage { total, online: 1, ..CpuUsage::default() },
            networks: vec![Interface { name: "eth0".to_owned(), traffic }],
            ..Usage::default()
        };
        Reading { at: at * SECOND, read: Moment(at), usage, ..Reading::default() }
    }

    fn total(history: &History) -> u64 {
        history.last().unwrap().usage.cpu.total
    }

    #[test]
    fn counters_go_on_over_any_number_of_restarts() {
        let mut history = History::new(None, 80);
        assert!(!history.add(reading(1, 100), &run(1), Some(0)));
        assert!(!history.add(reading(2, 150), &run(1), Some(0)));
        assert!(history.add(reading(3, 10), &run(2), Some(1)), "to be saved");
        assert!(!history.add(reading(4, 20), &run(2), Some(1)));
        assert_eq!(total(&history), 170);
        assert!(history.add(reading(5, 1), &run(3), Some(2)));
        assert_eq!(total(&history), 171);
        let last = history.last().unwrap();
        assert_eq!((last.previous_cpu.total, last.previous_read), (170, Some(Moment(4))));
        // The next process of the agent knows only what was saved.
        let mut next = History::new(history.carried().cloned(), 80);
        next.add(reading(1, 5), &run(3), Some(2));
        assert_eq!(total(&next), 175);
        let first = next.last().unwrap();
        assert_eq!((first.previous_read, first.previous_cpu.total, first.rate), (None, 0, None));
    }

    #[test]
    fn without_a_restart_policy_counters_begin_again() {
        let mut history = History::new(None, 80);
        for (at, total, pid) in [(1, 100, 1), (2, 150, 1), (3, 10, 2), (4, 20, 2)] {
            assert!(!history.add(reading(at, total), &run(pid), None));
        }
        assert_eq!(total(&history), 20);
        let report = history.report(&"main".into()).unwrap();
        assert_eq!((report.cpu.count, report.memory.count, report.restarts), (2, 4, None));
        assert!(report.cpu.max < 1e-4, "the fall of the counter gave no figure: {:?}", report.cpu);
    }

    proptest! {
        /// Runs of any length, agents that start again, clocks that are set: what is shown never falls, and no figure is absurd.
        #[test]
        fn shown_counters_never_fall(steps in prop::collection::vec((0..20_u8, 0..1_000_u64, 0..4_u64), 1..200)) {
            let mut history = History::new(None, 10);
            let (mut pid, mut counter, mut at, mut restarts, mut shown) = (1, 0, 0, 0, 0);
            for (kind, used, gap) in steps {
                match kind {
                    0 => (pid, counter, restarts) = (pid + 1, 0, restarts + 1),
                    // Right after a restart that was not seen yet, the saved counters are those of the restart before.
                    1 => {
                        history = History::new(history.carried().cloned(), 10);
                        shown = 0;
                    }
                    2 => history.take(),
                    _ => {
                        (counter, at) = (counter + used, at + gap);
                        history.add(reading(at, counter), &run(pid), Some(restarts));
                        prop_assert!(total(&history) >= shown && total(&history) >= counter);
                        shown = total(&history);
                        if let Some(report) = history.report(&"main".into()) {
                            prop_assert!(report.cpu.min >= 0.0 && report.cpu.max <= 1.0, "{:?}", report.cpu);
                            prop_assert!(report.restarts.is_some_and(|count| count <= restarts));
                        }
                    }
                }
            }
        }
    }
}
