//! The statistics of a container, for hosts whose counters this agent cannot read itself.
//!
//! Owns the call and the translation of its answer. Invariant: any answer gives bounded data.

use super::Docker;
use super::api::error::DockerError;
use ecs_core::model::RuntimeId;
use ecs_core::model::usage::{
    BlockEntry, BlockIo, CgroupVersion, CpuUsage, Interface, MemoryDetails, MemoryUsage, Pids, Throttling, Traffic,
    Usage,
};
use serde_json::Value;

/// Upper limit of the processors of a host.
const MAX_PROCESSORS: usize = 4096;
/// Upper limit of the entries about block devices in one list.
const MAX_BLOCK_ENTRIES: usize = 1024;
/// Upper limit of the networks of a container.
const MAX_NETWORKS: usize = 64;
/// The longest name of a network interface or of an operation that is kept, in bytes.
const MAX_NAME: usize = 64;

impl Docker {
    /// The counters of a container; `None` if it does not run.
    ///
    /// # Errors
    /// The engine gave no answer, or an error.
    pub async fn statistics(&self, id: &RuntimeId) -> Result<Option<Usage>, DockerError> {
        // Without `one-shot` the engine takes two readings, a second apart. Older engines ignore it.
        let query = [("stream", "false"), ("one-shot", "true")];
        let answer =
            self.reader.get(&["containers", id.as_str(), "stats"], &query, self.settings.limits.statistics).await;
        match answer {
            Ok(answer) => Ok(usage(&answer)),
            Err(DockerError::Daemon { status: 404, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// The counters in an answer. About a container that does not run, Docker answers with a text without any.
pub(super) fn usage(answer: &Value) -> Option<Usage> {
    let cpu = answer.get("cpu_stats").filter(|cpu| number(cpu, "/cpu_usage/total_usage") > 0)?;
    let memory = answer.get("memory_stats").unwrap_or(&Value::Null);
    let processors = cpu.pointer("/cpu_usage/percpu_usage").and_then(Value::as_array).into_iter().flatten();
    let per_cpu: Vec<u64> = processors.filter_map(Value::as_u64).take(MAX_PROCESSORS).collect();
    let online = u32::try_from(number(cpu, "/online_cpus")).unwrap_or_default();
    let throttling = Throttling {
        periods: number(cpu, "/throttling_data/periods"),
        throttled_periods: number(cpu, "/throttling_data/throttled_periods"),
        throttled_time: number(cpu, "/throttling_data/throttled_time"),
    };
    Some(Usage {
        cpu: CpuUsage {
            total: number(cpu, "/cpu_usage/total_usage"),
            kernel: number(cpu, "/cpu_usage/usage_in_kernelmode"),
            user: number(cpu, "/cpu_usage/usage_in_usermode"),
            system: number(cpu, "/system_cpu_usage"),
            // Engines before 1.13 do not name the number.
            online: if online == 0 { u32::try_from(per_cpu.len()).unwrap_or_default() } else { online },
            per_cpu,
            throttling,
        },
        memory: MemoryUsage {
            usage: number(memory, "/usage"),
            max_usage: number(memory, "/max_usage"),
            failures: number(memory, "/failcnt"),
            limit: number(memory, "/limit"),
            details: details(memory.get("stats")),
        },
        block_io: block_io(answer.get("blkio_stats").unwrap_or(&Value::Null)),
        pids: Pids { current: number(answer, "/pids_stats/current"), limit: number(answer, "/pids_stats/limit") },
        networks: networks(answer.get("networks")),
    })
}

fn number(value: &Value, pointer: &str) -> u64 {
    value.pointer(pointer).and_then(Value::as_u64).unwrap_or_default()
}

/// The details of memory. The names tell which version of control groups the engine's host has.
fn details(stats: Option<&Value>) -> MemoryDetails {
    let Some(stats) = stats.and_then(Value::as_object).filter(|stats| !stats.is_empty()) else {
        return MemoryDetails::default();
    };
    let version = if stats.contains_key("cache") { CgroupVersion::V1 } else { CgroupVersion::V2 };
    let mut details = MemoryDetails::zero(version);
    for name in version.memory_names() {
        details.set(name, stats.get(*name).and_then(Value::as_u64).unwrap_or_default());
    }
    details
}

fn block_io(stats: &Value) -> BlockIo {
    let list = |name: &str| {
        let entries = stats.get(name)?.as_array()?.iter().take(MAX_BLOCK_ENTRIES).map(|entry| BlockEntry {
            major: number(entry, "/major"),
            minor: number(entry, "/minor"),
            op: cut(entry.get("op").and_then(Value::as_str).unwrap_or_default()).into(),
            value: number(entry, "/value"),
        });
        Some(entries.collect())
    };
    BlockIo {
        service_bytes: list("io_service_bytes_recursive"),
        serviced: list("io_serviced_recursive"),
        queued: list("io_queue_recursive"),
        service_time: list("io_service_time_recursive"),
        wait_time: list("io_wait_time_recursive"),
        merged: list("io_merged_recursive"),
        time: list("io_time_recursive"),
        sectors: list("sectors_recursive"),
    }
}

fn networks(networks: Option<&Value>) -> Vec<Interface> {
    let all = networks.and_then(Value::as_object).into_iter().flatten().take(MAX_NETWORKS);
    let mut found: Vec<_> = all
        .map(|(name, counters)| Interface {
            name: cut(name).to_owned(),
            traffic: Traffic {
                rx_bytes: number(counters, "/rx_bytes"),
                rx_packets: number(counters, "/rx_packets"),
                rx_errors: number(counters, "/rx_errors"),
                rx_dropped: number(counters, "/rx_dropped"),
                tx_bytes: number(counters, "/tx_bytes"),
                tx_packets: number(counters, "/tx_packets"),
                tx_errors: number(counters, "/tx_errors"),
                tx_dropped: number(counters, "/tx_dropped"),
            },
        })
        .collect();
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}

fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(MAX_NAME)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_recorded_statistics_are_translated() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/tmds_v3_stats.json");
        let golden: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let usage = usage(&golden["body"]).unwrap();
        assert_eq!(
            (usage.cpu.total, usage.cpu.per_cpu.as_slice()),
            (174_784_270, [38_075_565, 136_708_705].as_slice())
        );
        assert_eq!((usage.cpu.online, usage.cpu.system), (2, 9_340_760_000_000));
        assert_eq!((usage.memory.usage, usage.memory.details.get("cache")), (937_984, Some(270_336)));
        assert_eq!((usage.memory.without_cache(), usage.pids.current), (667_648, 1));
        assert_eq!(usage.block_io, BlockIo::empty());
        assert_eq!((usage.networks[0].name.as_str(), usage.networks[0].traffic.rx_packets), ("eth0", 9));
    }

    #[test]
    fn version_2_of_control_groups_is_recognised() {
        let entry = |op| json!({"major": 8, "minor": 1, "op": op, "value": 5});
        let answer = json!({
            "cpu_stats": {"cpu_usage": {"total_usage": 1}, "online_cpus": 4},
            "memory_stats": {"usage": 9, "stats": {"anon": 1, "inactive_file": 4, "new_in_docker_99": 7}},
            "blkio_stats": {"io_service_bytes_recursive": [entry("read"), entry("write")], "io_serviced_recursive": null},
        });
        let usage = usage(&answer).unwrap();
        assert_eq!((usage.memory.details.version, usage.memory.without_cache()), (Some(CgroupVersion::V2), 5));
        assert_eq!((usage.block_io.bytes("write"), usage.block_io.serviced), (5, None));
        assert_eq!((usage.cpu.per_cpu.len(), usage.networks.len()), (0, 0));
    }

    #[test]
    fn an_answer_without_counters_is_no_reading() {
        let stopped = json!({"name": "/web", "id": "1", "read": "0001-01-01T00:00:00Z",
            "cpu_stats": {"cpu_usage": {"total_usage": 0}}});
        for odd in [stopped, json!(null), json!([]), json!({"cpu_stats": 7}), json!("x")] {
            assert_eq!(usage(&odd), None, "{odd}");
        }
    }
}
