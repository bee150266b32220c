//! Which counters of a container need not be read, since they are as they were.
//!
//! Owns the rule. Most of the kernel's counters of a container change only while its processes run, and then its processor time grows.
//! So of a container that has not run for some readings, only what others can change is read: the memory in use, block devices,
//! the network. Everything is read again after [`ALL_AGAIN`]: limits, which an operator may have changed, and what the kernel does
//! with memory that stays in use, such as writing it to a disk.

use ecs_core::model::usage::{CpuUsage, MemoryUsage, Pids};
use std::time::Duration;

/// How many readings in a row show the same before some counters are not read. The periods of a CPU limit, which are a second at most,
/// are counted until two of them have passed.
const SETTLED: u32 = 3;
/// Everything is read if the last full reading is as old as this.
const ALL_AGAIN: Duration = Duration::from_secs(10);

/// What need not be read.
#[derive(Clone, Debug)]
pub(super) struct Settled {
    pub(super) cpu: CpuUsage,
    pub(super) memory: MemoryUsage,
    pub(super) pids: Pids,
}

/// What the last readings of a container have shown.
#[derive(Debug, Default)]
pub(super) struct Quiet {
    /// The processor time and the memory in use of the last reading.
    seen: Option<(u64, u64)>,
    /// How many readings in a row have shown the same.
    unchanged: u32,
    /// What the last full reading has shown, and when it was; `None` if the container is not quiet.
    settled: Option<(Box<Settled>, Duration)>,
}

impl Quiet {
    /// What is still as in the last full reading; `None`: everything is to be read. `total`: the processor time now. `memory`: the memory
    /// in use now. `now`: the time by a clock that is never set.
    pub(super) fn settled(&mut self, total: u64, memory: u64, now: Duration) -> Option<Settled> {
        let is_same = self.seen.replace((total, memory)) == Some((total, memory));
        self.unchanged = if is_same { self.unchanged.saturating_add(1) } else { 0 };
        let is_due = |at: &Duration| now.saturating_sub(*at) >= ALL_AGAIN;
        if self.unchanged < SETTLED || self.settled.as_ref().is_some_and(|(_, at)| is_due(at)) {
            self.settled = None;
        }
        self.settled.as_ref().map(|(settled, _)| (**settled).clone())
    }

    /// Keeps what a full reading has shown, if the next one need not be full.
    pub(super) fn keep(&mut self, cpu: &CpuUsage, memory: &MemoryUsage, pids: Pids, now: Duration) {
        if self.unchanged >= SETTLED {
            self.settled = Some((Box::new(Settled { cpu: cpu.clone(), memory: memory.clone(), pids }), now));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads as the files do, at this second. Returns whether everything was read, and the number of processes.
    fn read(quiet: &mut Quiet, second: u64, (total, memory, current): (u64, u64, u64)) -> (bool, u64) {
        let now = Duration::from_secs(second);
        if let Some(settled) = quiet.settled(total, memory, now) {
            return (false, settled.pids.current);
        }
        quiet.keep(&CpuUsage::default(), &MemoryUsage::default(), Pids { current, limit: 0 }, now);
        (true, current)
    }

    #[test]
    fn a_container_that_runs_is_always_read_in_full() {
        let mut quiet = Quiet::default();
        for second in 0..50 {
            // It runs once in three seconds.
            assert_eq!(read(&mut quiet, second, (second / 3, 7, second)), (true, second));
            assert!(quiet.settled.is_none(), "nothing is kept");
        }
    }

    #[test]
    fn a_quiet_container_is_read_in_full_every_ten_seconds() {
        let mut quiet = Quiet::default();
        let full: Vec<u64> = (0..35).filter(|second| read(&mut quiet, *second, (5, 7, *second)).0).collect();
        assert_eq!(full, [0, 1, 2, 3, 13, 23, 33]);
        assert_eq!(read(&mut quiet, 35, (5, 7, 99)), (false, 33));
        // It runs, and then its memory changes.
        (36..40).for_each(|second| assert_eq!(read(&mut quiet, second, (6, 7, second)), (true, second)));
        assert_eq!(read(&mut quiet, 40, (6, 7, 99)), (false, 39));
        assert_eq!(read(&mut quiet, 41, (6, 8, 41)), (true, 41));
    }

    #[test]
    fn rare_readings_are_full() {
        let mut quiet = Quiet::default();
        assert!((0..20).all(|at| read(&mut quiet, 15 * at, (5, 7, at)) == (true, at)));
    }
}
