//! The figures of a container since the last report (spec `stats.md` §5).
//!
//! Owns how many are kept. Of those that a report has taken, only the last is kept: the figures after it are relative to it.

use super::point::Point;
use super::sets::{CounterSet, FloatSet, NetworkSets, StorageSets};
use ecs_core::model::usage::{Reading, Traffic};
use std::collections::VecDeque;

/// The figures of a container since the last report.
#[derive(Clone, Debug)]
pub(super) struct Window {
    /// The last figures that a report has taken; `None`: no report has taken any yet.
    taken: Option<Point>,
    /// The figures since then, the oldest first.
    waiting: VecDeque<Point>,
    /// Upper limit of all of them.
    capacity: usize,
}

impl Window {
    /// An empty window for this many readings, at least 2.
    pub(super) fn new(capacity: usize) -> Self {
        Self { taken: None, waiting: VecDeque::new(), capacity: capacity.max(2) }
    }

    /// Adds the figures of a reading. The oldest are dropped if there are too many.
    pub(super) fn add(&mut self, reading: &Reading, restarts: Option<u32>) -> Point {
        let point = Point::new(reading, restarts, self.last());
        let length = self.waiting.len();
        if length + usize::from(self.taken.is_some()) >= self.capacity {
            // The one that was taken is the oldest.
            if self.taken.take().is_none() {
                self.waiting.pop_front();
            }
        } else if length == self.waiting.capacity() {
            // Less than what the standard library would add: most windows have the readings of one interval.
            self.waiting.reserve_exact((self.capacity - length).min(16));
        }
        self.waiting.push_back(point);
        point
    }

    /// Marks all figures as taken by a report.
    pub(super) fn take(&mut self) {
        self.taken = self.waiting.back().copied().or(self.taken);
        self.waiting.clear();
    }

    fn last(&self) -> Option<&Point> {
        self.waiting.back().or(self.taken.as_ref())
    }

    /// The figures for a report; none if there is only one reading yet, since most figures need two.
    fn reported(&self) -> impl Iterator<Item = &Point> {
        let is_enough = self.waiting.len() + usize::from(self.taken.is_some()) >= 2;
        self.waiting.iter().filter(move |_| is_enough)
    }

    /// The processors, in percent of all of them.
    pub(super) fn cpu(&self) -> Option<FloatSet> {
        FloatSet::new(self.reported().filter_map(|point| point.cpu_percent).map(f64::from))
    }

    /// Memory in MiB.
    pub(super) fn memory(&self) -> Option<FloatSet> {
        FloatSet::new(self.reported().map(|point| f64::from(point.memory)))
    }

    /// Block devices.
    pub(super) fn storage(&self) -> Option<StorageSets> {
        let read = CounterSet::new(self.reported().map(|point| point.read_bytes))?;
        Some(StorageSets { read, written: CounterSet::new(self.reported().map(|point| point.written_bytes))? })
    }

    /// Networks; `None` if the container has none. Compat: a reading without networks counts as zero beside others.
    pub(super) fn network(&self) -> Option<NetworkSets> {
        self.reported().find(|point| point.traffic.is_some())?;
        let counters = |counter: fn(&Traffic) -> u64| {
            CounterSet::new(self.reported().map(|point| point.traffic.as_ref().map_or(0, counter)))
        };
        let rates = || self.reported().filter_map(|point| point.rate);
        Some(NetworkSets {
            rx_bytes: counters(|traffic| traffic.rx_bytes)?,
            rx_dropped: counters(|traffic| traffic.rx_dropped)?,
            rx_errors: counters(|traffic| traffic.rx_errors)?,
            rx_packets: counters(|traffic| traffic.rx_packets)?,
            tx_bytes: counters(|traffic| traffic.tx_bytes)?,
            tx_dropped: counters(|traffic| traffic.tx_dropped)?,
            tx_errors: counters(|traffic| traffic.tx_errors)?,
            tx_packets: counters(|traffic| traffic.tx_packets)?,
            rx_rate: FloatSet::new(rates().map(|rate| f64::from(rate.rx_bytes))),
            tx_rate: FloatSet::new(rates().map(|rate| f64::from(rate.tx_bytes))),
        })
    }

    /// The restarts since the last report; `None` without a restart policy.
    pub(super) fn restarts(&self) -> Option<u32> {
        let counts = || self.reported().filter_map(|point| point.restarts);
        let first = self.taken.as_ref().and_then(|point| point.restarts).or_else(|| counts().next())?;
        counts().last()?.checked_sub(first)
    }

    /// The number of readings that are kept.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.waiting.len() + usize::from(self.taken.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ecs_core::model::usage::{CpuUsage, Interface, Usage};
    use proptest::prelude::*;

    const SECOND: u64 = 1_000_000_000;

    fn reading(second: u64, total: u64) -> Reading {
        let traffic = Traffic { rx_bytes: 10 * second, ..Traffic::default() };
        let usage = Usage {
            cpu: CpuUsage { total, online: 1, ..CpuUsage::default() },
            networks: vec![Interface { name: "eth0".to_owned(), traffic }],
            ..Usage::default()
        };
        Reading { at: second * SECOND, usage, ..Reading::default() }
    }

    #[test]
    fn each_report_has_the_readings_since_the_last_one() {
        let mut window = Window::new(80);
        assert_eq!(window.cpu(), None);
        window.add(&reading(1, 0), Some(0));
        assert_eq!((window.cpu(), window.memory(), window.storage(), window.restarts()), (None, None, None, None));
        for second in 2..=20 {
            window.add(&reading(second, (second - 1) * SECOND / 2), Some(0));
        }
        // The first reading has no percentage, as in the recording of the Go agent.
        assert_eq!(window.cpu(), Some(FloatSet { min: 50.0, max: 50.0, sum: 950.0, count: 19 }));
        assert_eq!(window.memory().map(|set| set.count), Some(20));
        let network = window.network().unwrap();
        assert_eq!((network.rx_bytes.count, network.rx_rate.map(|set| set.count)), (20, Some(19)));
        window.take();
        assert_eq!((window.cpu(), window.restarts(), window.len()), (None, None, 1));
        window.add(&reading(21, 10 * SECOND), Some(2));
        assert_eq!(window.cpu().map(|set| set.count), Some(1), "relative to the last one that was taken");
        assert_eq!((window.memory().map(|set| set.count), window.restarts()), (Some(1), Some(2)));
    }

    #[test]
    fn a_container_without_networks_or_policy_has_no_such_sets() {
        let mut window = Window::new(80);
        for second in 1..5 {
            let mut quiet = reading(second, 0);
            quiet.usage.networks.clear();
            window.add(&quiet, None);
        }
        assert_eq!((window.network(), window.restarts()), (None, None));
        assert!(window.storage().is_some());
    }

    proptest! {
        #[test]
        fn a_window_is_bounded_and_has_the_newest(
            capacity in 0..90_usize,
            steps in prop::collection::vec((0..4_u8, 0..3_u64), 1..300),
        ) {
            let mut window = Window::new(capacity);
            let (mut second, mut since) = (0, 0_usize);
            for (kind, gap) in steps {
                if kind == 0 {
                    window.take();
                    since = 0;
                    continue;
                }
                second += gap;
                window.add(&reading(second, second * SECOND), None);
                since += 1;
                prop_assert!(window.len() <= capacity.max(2));
                prop_assert_eq!(window.waiting.len(), since.min(capacity.max(2)));
                prop_assert_eq!(window.last().map(|point| point.traffic.unwrap().rx_bytes), Some(10 * second));
                prop_assert!(window.cpu().is_none_or(|set| set.min >= 0.0 && set.max < 101.0));
            }
        }
    }
}
