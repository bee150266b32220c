//! What a container uses of this host: the counters that Docker's statistics show, and the figures made from them.
//!
//! The parts that read counters (control groups, Docker) and those that show them (task metadata, telemetry) share these types.
//! Counters only grow while a container runs; a container that is started again begins at zero.

mod block_io;

pub use block_io::{BlockEntry, BlockIo, BlockOp};

use super::RuntimeId;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;

/// The first process of a running container. Another run of the same container has another process, or another time.
/// A clone shares the text instead of copying it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Process {
    /// Its id, as the host sees it.
    pub pid: u32,
    /// RFC 3339 time of the start, as Docker prints it; empty if it is not known.
    pub started_at: Arc<str>,
}

/// All counters of one container at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Time of the processors.
    pub cpu: CpuUsage,
    /// Memory.
    pub memory: MemoryUsage,
    /// Block devices.
    pub block_io: BlockIo,
    /// Processes and threads.
    pub pids: Pids,
    /// The container's own network interfaces, in the order of their names; empty if it has none, such as in network mode `host`.
    pub networks: Vec<Interface>,
}

/// Time of the processors, in nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuUsage {
    /// All time that the container used.
    pub total: u64,
    /// The same for each processor; empty if the kernel does not count that.
    pub per_cpu: Vec<u64>,
    /// The part in the kernel.
    pub kernel: u64,
    /// The part outside the kernel.
    pub user: u64,
    /// The time that all processors of the host have existed for, busy or not; 0 if it is not known.
    pub system: u64,
    /// The number of processors of the host; 0 if it is not known.
    pub online: u32,
    /// How often and how long the container was held back by its limit.
    pub throttling: Throttling,
}

/// How often and how long a container was held back by its CPU limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Throttling {
    /// The number of periods of the limit.
    pub periods: u64,
    /// In how many of them the container was held back.
    pub throttled_periods: u64,
    /// For how long, in nanoseconds.
    pub throttled_time: u64,
}

/// Memory, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemoryUsage {
    /// What the container uses, with the page cache.
    pub usage: u64,
    /// The most that it used; 0 if the kernel does not count that.
    pub max_usage: u64,
    /// How often the limit was reached.
    pub failures: u64,
    /// The limit, or the memory of the host if there is none or a higher one.
    pub limit: u64,
    /// What the memory is used for.
    pub details: MemoryDetails,
}

/// What memory is used for: the values of the names in [`MEMORY_V1`] or [`MEMORY_V2`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemoryDetails {
    /// The version of the control groups; `None`: there are no details.
    pub version: Option<CgroupVersion>,
    /// The values, in the order of the names of that version.
    pub values: Vec<u64>,
}

/// The version of the control groups that the values come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CgroupVersion {
    /// One hierarchy for each controller.
    V1,
    /// One hierarchy for all controllers.
    V2,
}

/// The names that Docker shows with control groups of version 1, in alphabetical order.
pub const MEMORY_V1: &[&str] = &[
    "active_anon",
    "active_file",
    "cache",
    "dirty",
    "hierarchical_memory_limit",
    "hierarchical_memsw_limit",
    "inactive_anon",
    "inactive_file",
    "mapped_file",
    "pgfault",
    "pgmajfault",
    "pgpgin",
    "pgpgout",
    "rss",
    "rss_huge",
    "total_active_anon",
    "total_active_file",
    "total_cache",
    "total_dirty",
    "total_inactive_anon",
    "total_inactive_file",
    "total_mapped_file",
    "total_pgfault",
    "total_pgmajfault",
    "total_pgpgin",
    "total_pgpgout",
    "total_rss",
    "total_rss_huge",
    "total_unevictable",
    "total_writeback",
    "unevictable",
    "writeback",
];

/// The same with version 2.
pub const MEMORY_V2: &[&str] = &[
    "active_anon",
    "active_file",
    "anon",
    "anon_thp",
    "file",
    "file_dirty",
    "file_mapped",
    "file_writeback",
    "inactive_anon",
    "inactive_file",
    "kernel_stack",
    "pgactivate",
    "pgdeactivate",
    "pgfault",
    "pglazyfree",
    "pglazyfreed",
    "pgmajfault",
    "pgrefill",
    "pgscan",
    "pgsteal",
    "shmem",
    "slab",
    "slab_reclaimable",
    "slab_unreclaimable",
    "sock",
    "thp_collapse_alloc",
    "thp_fault_alloc",
    "unevictable",
    "workingset_activate",
    "workingset_nodereclaim",
    "workingset_refault",
];

impl CgroupVersion {
    /// The names of the details of memory.
    pub fn memory_names(self) -> &'static [&'static str] {
        match self {
            Self::V1 => MEMORY_V1,
            Self::V2 => MEMORY_V2,
        }
    }
}

impl MemoryDetails {
    /// Details of this version, all zero.
    pub fn zero(version: CgroupVersion) -> Self {
        Self { version: Some(version), values: vec![0; version.memory_names().len()] }
    }

    /// Sets the value of this name. A name that Docker does not show is ignored.
    pub fn set(&mut self, name: &str, value: u64) {
        let names = self.version.map_or(&[][..], CgroupVersion::memory_names);
        if let Ok(index) = names.binary_search(&name)
            && let Some(place) = self.values.get_mut(index)
        {
            *place = value;
        }
    }

    /// The value of this name; `None` if there is none.
    pub fn get(&self, name: &str) -> Option<u64> {
        let index = self.version?.memory_names().binary_search(&name).ok()?;
        self.values.get(index).copied()
    }

    /// All names with their values, in alphabetical order.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        let names = self.version.map_or(&[][..], CgroupVersion::memory_names);
        names.iter().copied().zip(self.values.iter().copied())
    }
}

impl MemoryUsage {
    /// The memory in use without the part of the page cache that can be given up at once: what Docker's and the Go agent's figures
    /// count (spec `stats.md` §4).
    pub fn without_cache(&self) -> u64 {
        let name = match self.details.version {
            Some(CgroupVersion::V2) => "inactive_file",
            Some(CgroupVersion::V1) | None => "cache",
        };
        let cache = self.details.get(name).filter(|cache| *cache < self.usage).unwrap_or_default();
        self.usage - cache
    }
}

/// Processes and threads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pids {
    /// Their number now.
    pub current: u64,
    /// Upper limit of their number; 0: none. With control groups of version 2, Docker shows `u64::MAX` for none.
    pub limit: u64,
}

/// One network interface of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// Its name in the container, such as `eth0`.
    pub name: String,
    /// Its counters.
    pub traffic: Traffic,
}

/// The counters of a network interface, or of several together. `rx`: received by the container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// Bytes received.
    pub rx_bytes: u64,
    /// Packets received.
    pub rx_packets: u64,
    /// Errors while receiving.
    pub rx_errors: u64,
    /// Received packets that were dropped.
    pub rx_dropped: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Errors while sending.
    pub tx_errors: u64,
    /// Packets that were dropped instead of sent.
    pub tx_dropped: u64,
}

impl Traffic {
    /// The counters of both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            rx_bytes: self.rx_bytes.saturating_add(other.rx_bytes),
            rx_packets: self.rx_packets.saturating_add(other.rx_packets),
            rx_errors: self.rx_errors.saturating_add(other.rx_errors),
            rx_dropped: self.rx_dropped.saturating_add(other.rx_dropped),
            tx_bytes: self.tx_bytes.saturating_add(other.tx_bytes),
            tx_packets: self.tx_packets.saturating_add(other.tx_packets),
            tx_errors: self.tx_errors.saturating_add(other.tx_errors),
            tx_dropped: self.tx_dropped.saturating_add(other.tx_dropped),
        }
    }
}

/// The counters of a container, and when they were read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// Docker's id of the container.
    pub id: RuntimeId,
    /// When, by the wall clock.
    pub read: Moment,
    /// When, in nanoseconds since any fixed moment, by a clock that is never set.
    pub at: u64,
    /// The counters.
    pub usage: Usage,
}

/// The last known statistics of a container, in the form in which Docker shows them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Statistics {
    /// When the counters were read.
    pub read: Moment,
    /// When the counters before them were read; `None`: these are the first.
    pub previous_read: Option<Moment>,
    /// The counters.
    pub usage: Usage,
    /// The processor's counters of the reading before; zero: there was none.
    pub previous_cpu: CpuUsage,
    /// How fast the network's counters grow; `None` if it is not known.
    pub rate: Option<NetworkRate>,
}

/// What is known of the statistics of a container.
#[derive(Clone, Debug, PartialEq)]
pub enum LastStatistics {
    /// The container is not tracked: it does not run, or there are no statistics of any container.
    Untracked,
    /// There was no reading yet.
    Waiting,
    /// The last statistics.
    Known(Arc<Statistics>),
}

/// How fast the counters of all networks of a container grow.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct NetworkRate {
    /// Bytes received per second.
    pub rx_bytes: f32,
    /// Bytes sent per second.
    pub tx_bytes: f32,
}

/// A moment of the wall clock: nanoseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(pub u64);

impl fmt::Display for Moment {
    /// RFC 3339 in UTC, as Go writes times: without zeros at the end of the fraction.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SECOND: u64 = 1_000_000_000;
        let whole = super::Timestamp(self.0 / SECOND * 1_000).rfc3339();
        let whole = whole.trim_end_matches('Z');
        match self.0 % SECOND {
            0 => write!(f, "{whole}Z"),
            nanos => write!(f, "{whole}.{}Z", format!("{nanos:09}").trim_end_matches('0')),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_sorted_so_that_they_can_be_found() {
        for names in [MEMORY_V1, MEMORY_V2] {
            assert!(names.is_sorted());
        }
        let mut details = MemoryDetails::zero(CgroupVersion::V1);
        details.set("cache", 7);
        details.set("swap", 8);
        assert_eq!((details.get("cache"), details.get("swap"), details.get("anon")), (Some(7), None, None));
        assert_eq!(details.iter().filter(|(_, value)| *value > 0).collect::<Vec<_>>(), [("cache", 7)]);
        assert_eq!(MemoryDetails::default().iter().count(), 0);
    }

    #[test]
    fn memory_is_shown_without_the_cache() {
        let memory = |version, name: &str, cache| {
            let mut details = MemoryDetails::zero(version);
            details.set(name, cache);
            MemoryUsage { usage: 100, details, ..MemoryUsage::default() }.without_cache()
        };
        for (version, name, cache, expected) in [
            (CgroupVersion::V1, "cache", 30, 70),
            (CgroupVersion::V1, "inactive_file", 30, 100),
            (CgroupVersion::V2, "inactive_file", 30, 70),
            (CgroupVersion::V2, "file", 30, 100),
            (CgroupVersion::V1, "cache", 100, 100), // the two files are not read at the same moment
            (CgroupVersion::V1, "cache", 99, 1),
        ] {
            assert_eq!(memory(version, name, cache), expected, "{name} {cache}");
        }
        assert_eq!(MemoryUsage { usage: 100, ..MemoryUsage::default() }.without_cache(), 100);
    }

    #[test]
    fn a_moment_has_nine_digits_at_most() {
        for (nanos, expected) in [
            (0, "1970-01-01T00:00:00Z"),
            (1_795_304_208_025_206_483, "2026-11-21T23:36:48.025206483Z"),
            (1_795_304_208_500_000_000, "2026-11-21T23:36:48.5Z"),
        ] {
            assert_eq!(Moment(nanos).to_string(), expected);
        }
    }
}
