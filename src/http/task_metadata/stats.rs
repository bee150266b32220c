//! The JSON shape of statistics: Docker's own (spec `task-metadata.md` §6.3).
//!
//! Owns the names of the members, their order, and which are left out when zero. All of that is Docker's API, as the Go agent
//! writes it; version 4 adds the speed of the networks.

use super::version::Version;
use ecs_core::model::RuntimeId;
use ecs_core::model::usage::{
    BlockEntry, CpuUsage, Interface, LastStatistics, MemoryDetails, Moment, NetworkRate, Statistics, Traffic,
};
use ecs_core::model::view::{ContainerView, TaskView};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use std::sync::Arc;

/// Looks up the statistics of a container.
pub type StatsLookup = Arc<dyn Fn(&ContainerView) -> LastStatistics + Send + Sync>;

/// What Go writes for a time that is not known.
const NEVER: &str = "0001-01-01T00:00:00Z";

/// The answer about one container. Compat: without a reading it is `null` in version 3, and `{}` in version 4.
#[derive(Debug)]
pub(super) struct ContainerAnswer<'a> {
    version: Version,
    container: &'a ContainerView,
    statistics: LastStatistics,
}

impl<'a> ContainerAnswer<'a> {
    pub(super) fn new(version: Version, container: &'a ContainerView, statistics: LastStatistics) -> Self {
        Self { version, container, statistics }
    }
}

impl Serialize for ContainerAnswer<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match (&self.statistics, self.version) {
            (LastStatistics::Known(statistics), version) => {
                Stats::new(version, self.container, statistics).serialize(serializer)
            }
            (LastStatistics::Untracked | LastStatistics::Waiting, Version::V3) => serializer.serialize_none(),
            (LastStatistics::Untracked | LastStatistics::Waiting, Version::V4) => {
                serializer.serialize_map(Some(0))?.end()
            }
        }
    }
}

/// The answer about all created containers of a task, by Docker's ids, in their order.
pub(super) struct TaskAnswer<'a> {
    version: Version,
    task: &'a TaskView,
    lookup: &'a StatsLookup,
}

impl<'a> TaskAnswer<'a> {
    pub(super) fn new(version: Version, task: &'a TaskView, lookup: &'a StatsLookup) -> Self {
        Self { version, task, lookup }
    }
}

impl Serialize for TaskAnswer<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let with_id = |container: &'_ &ContainerView| container.runtime_id.is_some();
        let mut containers: Vec<_> = self.task.containers.iter().filter(with_id).collect();
        containers.sort_by(|a, b| a.runtime_id.cmp(&b.runtime_id));
        serializer.collect_map(containers.into_iter().filter_map(|container| {
            let id = container.runtime_id.as_ref()?;
            let statistics = (self.lookup)(container);
            Some((id.as_str(), ContainerAnswer::new(self.version, container, statistics)))
        }))
    }
}

#[derive(Debug, Serialize)]
struct Stats<'a> {
    read: Time,
    preread: Time,
    pids_stats: PidsStats,
    blkio_stats: BlkioStats<'a>,
    /// Only on Windows, like the next one.
    num_procs: u32,
    storage_stats: Empty,
    cpu_stats: CpuStats<'a>,
    precpu_stats: CpuStats<'a>,
    memory_stats: MemoryStats<'a>,
    name: Name<'a>,
    #[serde(skip_serializing_if = "str::is_empty")]
    id: &'a str,
    #[serde(skip_serializing_if = "Networks::is_empty")]
    networks: Networks<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    network_rate_stats: Option<RateStats>,
}

impl<'a> Stats<'a> {
    fn new(version: Version, container: &'a ContainerView, statistics: &'a Statistics) -> Self {
        let usage = &statistics.usage;
        let block_io = &usage.block_io;
        Self {
            read: Time(Some(statistics.read)),
            preread: Time(statistics.previous_read),
            pids_stats: PidsStats { current: usage.pids.current, limit: usage.pids.limit },
            blkio_stats: BlkioStats {
                io_service_bytes_recursive: Entries(block_io.service_bytes.as_deref()),
                io_serviced_recursive: Entries(block_io.serviced.as_deref()),
                io_queue_recursive: Entries(block_io.queued.as_deref()),
                io_service_time_recursive: Entries(block_io.service_time.as_deref()),
                io_wait_time_recursive: Entries(block_io.wait_time.as_deref()),
                io_merged_recursive: Entries(block_io.merged.as_deref()),
                io_time_recursive: Entries(block_io.time.as_deref()),
                sectors_recursive: Entries(block_io.sectors.as_deref()),
            },
            num_procs: 0,
            storage_stats: Empty {},
            cpu_stats: CpuStats::new(&usage.cpu),
            precpu_stats: CpuStats::new(&statistics.previous_cpu),
            memory_stats: MemoryStats {
                usage: usage.memory.usage,
                max_usage: usage.memory.max_usage,
                stats: Details(&usage.memory.details),
                failcnt: usage.memory.failures,
                limit: usage.memory.limit,
            },
            name: Name(&container.runtime_name),
            id: container.runtime_id.as_ref().map(RuntimeId::as_str).unwrap_or_default(),
            networks: Networks(&usage.networks),
            network_rate_stats: statistics.rate.filter(|_| version == Version::V4).map(RateStats::new),
        }
    }
}

#[derive(Debug)]
struct Time(Option<Moment>);

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            Some(moment) => serializer.collect_str(moment),
            None => serializer.serialize_str(NEVER),
        }
    }
}

/// Docker's names begin with a slash.
#[derive(Debug)]
struct Name<'a>(&'a str);

impl Serialize for Name<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("/{}", self.0))
    }
}

#[derive(Debug, Serialize)]
struct Empty {}

#[derive(Debug, Serialize)]
struct PidsStats {
    #[serde(skip_serializing_if = "is_zero")]
    current: u64,
    #[serde(skip_serializing_if = "is_zero")]
    limit: u64,
}

#[derive(Debug, Serialize)]
struct BlkioStats<'a> {
    io_service_bytes_recursive: Entries<'a>,
    io_serviced_recursive: Entries<'a>,
    io_queue_recursive: Entries<'a>,
    io_service_time_recursive: Entries<'a>,
    io_wait_time_recursive: Entries<'a>,
    io_merged_recursive: Entries<'a>,
    io_time_recursive: Entries<'a>,
    sectors_recursive: Entries<'a>,
}

/// Counters of block devices; `null` if the kernel does not count this.
#[derive(Debug)]
struct Entries<'a>(Option<&'a [BlockEntry]>);

impl Serialize for Entries<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Shown<'a> {
            major: u64,
            minor: u64,
            op: &'a str,
            value: u64,
        }
        match self.0 {
            None => serializer.serialize_none(),
            Some(entries) => serializer.collect_seq(entries.iter().map(|entry| Shown {
                major: entry.major,
                minor: entry.minor,
                op: entry.op.as_str(),
                value: entry.value,
            })),
        }
    }
}

#[derive(Debug, Serialize)]
struct CpuStats<'a> {
    cpu_usage: CpuTimes<'a>,
    #[serde(skip_serializing_if = "is_zero")]
    system_cpu_usage: u64,
    #[serde(skip_serializing_if = "is_zero_u32")]
    online_cpus: u32,
    throttling_data: ThrottlingData,
}

#[derive(Debug, Serialize)]
struct CpuTimes<'a> {
    total_usage: u64,
    #[serde(skip_serializing_if = "<[u64]>::is_empty")]
    percpu_usage: &'a [u64],
    usage_in_kernelmode: u64,
    usage_in_usermode: u64,
}

#[derive(Debug, Serialize)]
struct ThrottlingData {
    periods: u64,
    throttled_periods: u64,
    throttled_time: u64,
}

impl<'a> CpuStats<'a> {
    fn new(cpu: &'a CpuUsage) -> Self {
        Self {
            cpu_usage: CpuTimes {
                total_usage: cpu.total,
                percpu_usage: &cpu.per_cpu,
                usage_in_kernelmode: cpu.kernel,
                usage_in_usermode: cpu.user,
            },
            system_cpu_usage: cpu.system,
            online_cpus: cpu.online,
            throttling_data: ThrottlingData {
                periods: cpu.throttling.periods,
                throttled_periods: cpu.throttling.throttled_periods,
                throttled_time: cpu.throttling.throttled_time,
            },
        }
    }
}

#[derive(Debug, Serialize)]
struct MemoryStats<'a> {
    #[serde(skip_serializing_if = "is_zero")]
    usage: u64,
    #[serde(skip_serializing_if = "is_zero")]
    max_usage: u64,
    #[serde(skip_serializing_if = "Details::is_empty")]
    stats: Details<'a>,
    #[serde(skip_serializing_if = "is_zero")]
    failcnt: u64,
    #[serde(skip_serializing_if = "is_zero")]
    limit: u64,
}

#[derive(Debug)]
struct Details<'a>(&'a MemoryDetails);

impl Details<'_> {
    fn is_empty(&self) -> bool {
        self.0.values.is_empty()
    }
}

impl Serialize for Details<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter())
    }
}

#[derive(Debug)]
struct Networks<'a>(&'a [Interface]);

impl Networks<'_> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Serialize for Networks<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Shown {
            rx_bytes: u64,
            rx_packets: u64,
            rx_errors: u64,
            rx_dropped: u64,
            tx_bytes: u64,
            tx_packets: u64,
            tx_errors: u64,
            tx_dropped: u64,
        }
        serializer.collect_map(self.0.iter().map(|Interface { name, traffic }| {
            let Traffic { rx_bytes, rx_packets, rx_errors, rx_dropped, .. } = *traffic;
            let Traffic { tx_bytes, tx_packets, tx_errors, tx_dropped, .. } = *traffic;
            let shown =
                Shown { rx_bytes, rx_packets, rx_errors, rx_dropped, tx_bytes, tx_packets, tx_errors, tx_dropped };
            (name, shown)
        }))
    }
}

#[derive(Debug, Serialize)]
struct RateStats {
    rx_bytes_per_sec: Float,
    tx_bytes_per_sec: Float,
}

impl RateStats {
    fn new(rate: NetworkRate) -> Self {
        Self { rx_bytes_per_sec: Float(rate.rx_bytes), tx_bytes_per_sec: Float(rate.tx_bytes) }
    }
}

/// A number that Go writes without a fraction if it has none.
#[derive(Debug)]
struct Float(f32);

impl Serialize for Float {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let whole = self.0 as u64;
        if whole as f32 == self.0 { serializer.serialize_u64(whole) } else { serializer.serialize_f32(self.0) }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the form that serde calls")]
fn is_zero(value: &u64) -> bool {
    *value == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the form that serde calls")]
fn is_zero_u32(value: &u32) -> bool {
    *value == 0
}

#[cfg(test)]
mod tests;
