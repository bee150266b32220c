//! The figures of one reading that telemetry reports (spec `stats.md` §4).

use ecs_core::model::usage::{NetworkRate, Reading, Traffic};

/// A mebibyte in bytes.
const MIB: u64 = 1024 * 1024;
/// A second in nanoseconds.
const SECOND: f32 = 1e9;

/// The figures of one reading.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Point {
    /// When, in nanoseconds of a clock that is never set.
    at: u64,
    /// The time of all processors, in nanoseconds.
    cpu_total: u64,
    /// The number of processors; 0 if it is not known.
    online: u32,
    /// The part of all processors that was used since the reading before, in percent; `None` if it is not known.
    pub(super) cpu_percent: Option<f32>,
    /// Memory without the cache, in whole MiB.
    pub(super) memory: u32,
    /// Bytes read from block devices.
    pub(super) read_bytes: u64,
    /// Bytes written to block devices.
    pub(super) written_bytes: u64,
    /// The counters of all networks together; `None` if the container has no networks.
    pub(super) traffic: Option<Traffic>,
    /// How fast these grow; `None` if it is not known.
    pub(super) rate: Option<NetworkRate>,
    /// The number of restarts; `None` without a restart policy.
    pub(super) restarts: Option<u32>,
}

impl Point {
    /// The figures of a reading, of which `before` is the one before; `None`: there is none.
    pub(super) fn new(reading: &Reading, restarts: Option<u32>, before: Option<&Self>) -> Self {
        let usage = &reading.usage;
        let networks = usage.networks.iter().map(|interface| interface.traffic);
        let point = Self {
            at: reading.at,
            cpu_total: usage.cpu.total,
            online: usage.cpu.online,
            cpu_percent: None,
            memory: u32::try_from(usage.memory.without_cache() / MIB).unwrap_or(u32::MAX),
            read_bytes: usage.block_io.bytes("read"),
            written_bytes: usage.block_io.bytes("write"),
            traffic: networks.reduce(Traffic::plus),
            rate: None,
            restarts,
        };
        before.map_or(point, |before| point.after(before))
    }

    /// With the figures that depend on the reading before. A counter that has fallen gives none: in the Go agent it gives an
    /// enormous one.
    fn after(self, before: &Self) -> Self {
        let Some(elapsed) = self.at.checked_sub(before.at).filter(|elapsed| *elapsed > 0) else {
            return Self { cpu_percent: before.cpu_percent, rate: before.rate, ..self };
        };
        let elapsed = elapsed as f32;
        // The difference is divided, not the totals: the number of processors may change.
        let used = self.cpu_total.checked_sub(before.cpu_total).filter(|_| self.online > 0);
        let used = used.map(|used| 100.0 * (used / u64::from(self.online)) as f32 / elapsed);
        let rate = self.traffic.zip(before.traffic).and_then(|(now, before)| {
            let per_second = |now: u64, before: u64| Some(SECOND * (now.checked_sub(before)? as f32 / elapsed));
            let rx_bytes = per_second(now.rx_bytes, before.rx_bytes)?;
            Some(NetworkRate { rx_bytes, tx_bytes: per_second(now.tx_bytes, before.tx_bytes)? })
        });
        Self { cpu_percent: used, rate, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ecs_core::model::usage::{BlockEntry, BlockIo, CpuUsage, Interface, MemoryUsage, Usage};

    const SECOND: u64 = 1_000_000_000;

    fn reading(at: u64, total: u64, rx_bytes: u64) -> Reading {
        let interface = |name: &str| Interface {
            name: name.to_owned(),
            traffic: Traffic { rx_bytes, tx_bytes: 2 * rx_bytes, ..Traffic::default() },
        };
        let usage = Usage {
            cpu: CpuUsage { total, online: 2, ..CpuUsage::default() },
            networks: vec![interface("eth0"), interface("eth1")],
            ..Usage::default()
        };
        Reading { at, usage, ..Reading::default() }
    }

    #[test]
    fn figures_follow_from_two_readings() {
        let first = Point::new(&reading(SECOND, 1_000, 100), None, None);
        assert_eq!((first.cpu_percent, first.rate), (None, None));
        let second = Point::new(&reading(3 * SECOND, 1_000 + 2 * SECOND, 600), Some(1), Some(&first));
        // A second of one of two processors in two seconds of time, twice.
        assert_eq!(second.cpu_percent, Some(50.0));
        assert_eq!(second.rate, Some(NetworkRate { rx_bytes: 500.0, tx_bytes: 1_000.0 }));
        assert_eq!(second.traffic.map(|traffic| traffic.rx_bytes), Some(1_200), "both interfaces");
        assert_eq!((second.restarts, second.memory), (Some(1), 0));
    }

    #[test]
    fn what_cannot_be_known_is_not_invented() {
        let before = Point::new(&reading(2 * SECOND, 2_000, 100), None, None);
        let before = Point { cpu_percent: Some(7.0), ..before };
        for (at, total, rx_bytes, percent, has_rate) in [
            (2 * SECOND, 3_000, 200, Some(7.0), false), // the same moment: as before
            (SECOND, 3_000, 200, Some(7.0), false),
            (3 * SECOND, 1_000, 200, None, true), // a counter that has begun again
            (3 * SECOND, 2_000, 50, Some(0.0), false),
        ] {
            let point = Point::new(&reading(at, total, rx_bytes), None, Some(&before));
            assert_eq!((point.cpu_percent, point.rate.is_some()), (percent, has_rate), "{at} {total} {rx_bytes}");
        }
        let mut fewer = reading(3 * SECOND, 2_000 + SECOND, 200);
        for (online, percent) in [(1, Some(100.0)), (0, None)] {
            fewer.usage.cpu.online = online;
            assert_eq!(Point::new(&fewer, None, Some(&before)).cpu_percent, percent, "{online} processors are left");
        }
        let quiet = Reading { at: 3 * SECOND, ..Reading::default() };
        assert_eq!(Point::new(&quiet, None, Some(&before)).traffic, None);
    }

    #[test]
    fn memory_and_block_devices_are_rounded_and_added() {
        let entry = |op: &str, value| BlockEntry { major: 8, minor: 0, op: op.into(), value };
        let usage = Usage {
            memory: MemoryUsage { usage: 3 * MIB - 1, ..MemoryUsage::default() },
            block_io: BlockIo { service_bytes: Some(vec![entry("Read", 5), entry("Write", 6)]), ..BlockIo::empty() },
            ..Usage::default()
        };
        let point = Point::new(&Reading { usage, ..Reading::default() }, None, None);
        assert_eq!((point.memory, point.read_bytes, point.written_bytes), (2, 5, 6));
    }
}
