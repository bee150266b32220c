//! The figures of a container since the last report (spec `stats.md` §5).
//!
//! Owns how many count. They are added up as they come, so that a container takes as little memory after an hour without
//! telemetry as after a second. Compat: the Go agent keeps each reading and drops the oldest one by one. Here half of them are
//! dropped at once, which shows only if nothing was reported for two intervals.

use super::point::Point;
use super::sets::{CounterTotals, FloatSet, NetworkSets, StorageSets};
use ecs_core::model::usage::{Reading, Traffic};

/// The figures of a container since the last report.
#[derive(Clone, Debug)]
pub(super) struct Window {
    /// The figures of the last reading, which those of the next are relative to; `None`: there was none yet.
    last: Option<Point>,
    /// The number of restarts at the last report; `None`: nothing was reported, or too long ago, or there is no restart policy.
    reported_restarts: Option<u32>,
    /// A reading before those that are added up below is known, because it was reported.
    is_continued: bool,
    /// The older half of the readings; `None`: all are in the newer one.
    older: Option<Box<Totals>>,
    /// The newer half.
    newer: Totals,
    /// Upper limit of the readings of one half.
    half: u64,
}

/// The figures of several readings, added up.
#[derive(Clone, Debug, Default)]
struct Totals {
    /// The number of readings.
    readings: u64,
    /// The processors, in percent of all of them.
    cpu: Option<FloatSet>,
    /// Memory in MiB.
    memory: Option<FloatSet>,
    /// Bytes read from block devices.
    read: CounterTotals,
    /// Bytes written to block devices.
    written: CounterTotals,
    /// The counters of the networks, in the order of [`counters`].
    traffic: [CounterTotals; 8],
    /// A reading had networks.
    has_networks: bool,
    /// Bytes received per second.
    rx_rate: Option<FloatSet>,
    /// Bytes sent per second.
    tx_rate: Option<FloatSet>,
    /// The first and the last number of restarts; `None` without a restart policy.
    restarts: Option<(u32, u32)>,
}

/// The counters of the networks in a fixed order.
fn counters(traffic: &Traffic) -> [u64; 8] {
    [
        traffic.rx_bytes,
        traffic.rx_dropped,
        traffic.rx_errors,
        traffic.rx_packets,
        traffic.tx_bytes,
        traffic.tx_dropped,
        traffic.tx_errors,
        traffic.tx_packets,
    ]
}

impl Totals {
    fn add(&mut self, point: &Point) {
        let add = |set: &mut Option<FloatSet>, figure: f32| *set = Some(FloatSet::with(*set, f64::from(figure)));
        self.readings += 1;
        if let Some(percent) = point.cpu_percent {
            add(&mut self.cpu, percent);
        }
        self.memory = Some(FloatSet::with(self.memory, f64::from(point.memory)));
        self.read.add(point.read_bytes);
        self.written.add(point.written_bytes);
        // Compat: a reading without networks counts as zero beside others.
        self.has_networks |= point.traffic.is_some();
        let values = point.traffic.as_ref().map(counters).unwrap_or_default();
        self.traffic.iter_mut().zip(values).for_each(|(totals, value)| totals.add(value));
        if let Some(rate) = point.rate {
            add(&mut self.rx_rate, rate.rx_bytes);
            add(&mut self.tx_rate, rate.tx_bytes);
        }
        if let Some(count) = point.restarts {
            self.restarts = Some((self.restarts.map_or(count, |(first, _)| first), count));
        }
    }

    /// The figures of both, of which `later` are the later ones.
    fn joined(mut self, later: &Self) -> Self {
        self.traffic.iter_mut().zip(later.traffic).for_each(|(totals, value)| *totals = totals.joined(value));
        let first = self.restarts.or(later.restarts).map(|(first, _)| first);
        let last = later.restarts.or(self.restarts).map(|(_, last)| last);
        Self {
            readings: self.readings + later.readings,
            cpu: FloatSet::joined(self.cpu, later.cpu),
            memory: FloatSet::joined(self.memory, later.memory),
            read: self.read.joined(later.read),
            written: self.written.joined(later.written),
            traffic: self.traffic,
            has_networks: self.has_networks || later.has_networks,
            rx_rate: FloatSet::joined(self.rx_rate, later.rx_rate),
            tx_rate: FloatSet::joined(self.tx_rate, later.tx_rate),
            restarts: first.zip(last),
        }
    }

    fn storage(&self) -> Option<StorageSets> {
        Some(StorageSets { read: self.read.set(self.readings)?, written: self.written.set(self.readings)? })
    }

    fn network(&self) -> Option<NetworkSets> {
        let [rx_bytes, rx_dropped, rx_errors, rx_packets, tx_bytes, tx_dropped, tx_errors, tx_packets] =
            self.traffic.map(|totals| totals.set(self.readings).filter(|_| self.has_networks));
        Some(NetworkSets {
            rx_bytes: rx_bytes?,
            rx_dropped: rx_dropped?,
            rx_errors: rx_errors?,
            rx_packets: rx_packets?,
            tx_bytes: tx_bytes?,
            tx_dropped: tx_dropped?,
            tx_errors: tx_errors?,
            tx_packets: tx_packets?,
            rx_rate: self.rx_rate,
            tx_rate: self.tx_rate,
        })
    }
}

/// What a report has of a window.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Sets {
    /// The processors, in percent of all of them; `None`: there is too little to report.
    pub(super) cpu: Option<FloatSet>,
    /// Memory in MiB; `None`: there is too little to report.
    pub(super) memory: Option<FloatSet>,
    /// Networks; `None` if the container has none.
    pub(super) network: Option<NetworkSets>,
    /// Block devices; `None`: there is too little to report.
    pub(super) storage: Option<StorageSets>,
    /// The restarts since the last report; `None` without a restart policy.
    pub(super) restarts: Option<u32>,
}

impl Window {
    /// An empty window for this many readings, at least 2.
    pub(super) fn new(capacity: usize) -> Self {
        let half = (capacity / 2).max(1) as u64;
        let (last, older, newer) = (None, None, Totals::default());
        Self { last, reported_restarts: None, is_continued: false, older, newer, half }
    }

    /// Adds the figures of a reading. The older half of the readings is dropped if there are too many.
    pub(super) fn add(&mut self, reading: &Reading, restarts: Option<u32>) -> Point {
        let point = Point::new(reading, restarts, self.last.as_ref());
        self.last = Some(point);
        if self.newer.readings >= self.half && self.older.replace(Box::new(std::mem::take(&mut self.newer))).is_some() {
            (self.reported_restarts, self.is_continued) = (None, false);
        }
        self.newer.add(&point);
        point
    }

    /// Marks all figures as taken by a report.
    pub(super) fn take(&mut self) {
        self.reported_restarts = self.all().restarts.map(|(_, last)| last).or(self.reported_restarts);
        self.is_continued = self.last.is_some();
        (self.older, self.newer) = (None, Totals::default());
    }

    fn all(&self) -> Totals {
        self.older.as_deref().cloned().unwrap_or_default().joined(&self.newer)
    }

    /// The figures for a report; none if there is only one reading yet, since most figures need two.
    pub(super) fn sets(&self) -> Sets {
        let all = self.all();
        if all.readings + u64::from(self.is_continued) < 2 {
            return Sets::default();
        }
        let restarts = all.restarts.and_then(|(first, last)| last.checked_sub(self.reported_restarts.unwrap_or(first)));
        Sets { cpu: all.cpu, memory: all.memory, network: all.network(), storage: all.storage(), restarts }
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
        assert_eq!(window.sets(), Sets::default());
        window.add(&reading(1, 0), Some(0));
        assert_eq!(window.sets(), Sets::default());
        for second in 2..=20 {
            window.add(&reading(second, (second - 1) * SECOND / 2), Some(0));
        }
        // The first reading has no percentage, as in the recording of the Go agent.
        let sets = window.sets();
        assert_eq!(sets.cpu, Some(FloatSet { min: 50.0, max: 50.0, sum: 950.0, count: 19 }));
        assert_eq!(sets.memory.map(|set| set.count), Some(20));
        let network = sets.network.unwrap();
        assert_eq!((network.rx_bytes.count, network.rx_rate.map(|set| set.count)), (20, Some(19)));
        window.take();
        assert_eq!((window.sets().cpu, window.sets().restarts), (None, None));
        window.add(&reading(21, 10 * SECOND), Some(2));
        let sets = window.sets();
        assert_eq!(sets.cpu.map(|set| set.count), Some(1), "relative to the last one that was taken");
        assert_eq!((sets.memory.map(|set| set.count), sets.restarts), (Some(1), Some(2)));
    }

    #[test]
    fn a_container_without_networks_or_policy_has_no_such_sets() {
        let mut window = Window::new(80);
        for second in 1..5 {
            let mut quiet = reading(second, 0);
            quiet.usage.networks.clear();
            window.add(&quiet, None);
        }
        let sets = window.sets();
        assert_eq!((sets.network, sets.restarts), (None, None));
        assert!(sets.storage.is_some());
    }

    /// The sets of these points, by the definition.
    fn expected(points: &[Point], reported_restarts: Option<u32>) -> (Option<FloatSet>, u64, u64, u64, Option<u32>) {
        let cpu = points.iter().filter_map(|point| point.cpu_percent);
        let cpu = cpu.fold(None, |set, percent| Some(FloatSet::with(set, f64::from(percent))));
        let received = || points.iter().map(|point| point.traffic.map_or(0, |traffic| traffic.rx_bytes));
        let counts = || points.iter().filter_map(|point| point.restarts);
        let first = reported_restarts.or_else(|| counts().next());
        let restarts = counts().next_back().zip(first).and_then(|(last, first)| last.checked_sub(first));
        (cpu, received().min().unwrap_or_default(), received().sum(), points.len() as u64, restarts)
    }

    proptest! {
        #[test]
        fn a_window_has_the_newest_readings(
            capacity in 0..90_usize,
            steps in prop::collection::vec((0..40_u8, 0..3_u64), 1..300),
        ) {
            let mut window = Window::new(capacity);
            let half = capacity / 2;
            let (mut second, mut points, mut reported, mut restarts, mut is_continued) = (0, Vec::new(), None, 0, false);
            for (kind, gap) in steps {
                match kind {
                    0 => {
                        window.take();
                        reported = points.last().map_or(reported, |point: &Point| point.restarts);
                        is_continued |= !points.is_empty();
                        points.clear();
                        continue;
                    }
                    1 => restarts += 1,
                    _ => {}
                }
                second += gap;
                points.push(window.add(&reading(second, second * SECOND), Some(restarts)));
                let sets = window.sets();
                let count = sets.memory.map_or(0, |set| set.count);
                if points.len() + usize::from(is_continued) < 2 {
                    prop_assert_eq!(sets, Sets::default());
                    continue;
                }
                // All of them, or at least half of what there is room for, and never more.
                prop_assert!(count <= (2 * half.max(1)) as u64 && count >= points.len().min(half) as u64, "{count} of {}", points.len());
                let kept = &points[points.len() - count as usize..];
                if kept.len() < points.len() {
                    // Too long ago: those that are kept are compared with each other.
                    (reported, is_continued) = (None, true);
                }
                let network = sets.network.unwrap();
                let (min, sum) = (network.rx_bytes.min.unsigned_abs(), network.rx_bytes.sum.unsigned_abs());
                prop_assert_eq!((sets.cpu, min, sum, count, sets.restarts), expected(kept, reported));
            }
        }
    }
}
