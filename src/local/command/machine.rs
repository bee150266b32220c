//! What is known about this machine and its agent before the agent runs: what a task may need and cannot get. This module only reads.

use super::settings;
use crate::links;
use serde_json::Value;
use std::path::Path;

/// The list of GPUs that the agent reads.
pub(super) const GPU_LIST: &str = "/var/lib/ecs/gpu/nvidia-gpu-info.json";
/// The agent's setting with the log drivers that it offers, and its default.
const DRIVERS: &str = "ECS_AVAILABLE_LOGGING_DRIVERS";
const DEFAULT_DRIVERS: [&str; 2] = ["json-file", "none"];
/// The agent's setting with the memory that no task gets, in MiB.
const RESERVED: &str = "ECS_RESERVED_MEMORY";
/// The kernel's file with the machine's memory.
const MEMORY: &str = "/proc/meminfo";

/// This machine, as far as tasks are concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Machine {
    /// The log drivers that the agent will offer.
    pub(super) drivers: Vec<String>,
    /// The CPU architecture in the words of ECS; `None`: ECS has no word for it.
    pub(super) architecture: Option<&'static str>,
    /// The memory for tasks, in MiB; `None`: not known.
    pub(super) memory: Option<u64>,
    /// The CPU units for tasks.
    pub(super) cpu: u64,
    /// There is a list of GPUs.
    pub(super) has_gpus: bool,
    /// This program may make network interfaces for tasks.
    pub(super) has_networks: bool,
}

impl Machine {
    /// This machine. `report` is the agent's report about its settings.
    pub(super) fn this(report: &Value) -> Self {
        let memory = std::fs::read_to_string(MEMORY).ok().and_then(|text| memory(&text));
        let reserved = settings::effective(report, RESERVED).and_then(|text| text.parse().ok()).unwrap_or(0);
        let processors = rustix::thread::sched_getaffinity(None).map_or(1, |processors| processors.count().max(1));
        Self {
            drivers: drivers(settings::effective(report, DRIVERS)),
            architecture: match std::env::consts::ARCH {
                "x86_64" => Some("X86_64"),
                "aarch64" => Some("ARM64"),
                _ => None,
            },
            memory: memory.map(|mib| mib.saturating_sub(reserved)),
            cpu: u64::from(processors) * 1024,
            has_gpus: Path::new(GPU_LIST).exists(),
            has_networks: links::obstacle().is_none(),
        }
    }
}

/// The drivers in the setting's value.
fn drivers(given: Option<&str>) -> Vec<String> {
    let given = given.and_then(|text| serde_json::from_str(text).ok());
    given.unwrap_or_else(|| DEFAULT_DRIVERS.map(str::to_owned).to_vec())
}

/// The machine's memory in MiB, from the kernel's file.
fn memory(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kib / 1024)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn this_machine_is_described() {
        let machine = Machine::this(&Value::Null);
        assert!(machine.memory.is_some_and(|mib| mib > 64) && machine.cpu >= 1024, "{machine:?}");
        assert_eq!(machine.drivers, ["json-file", "none"]);
        let setting = |name: &str, value: &str| json!({"setting": name, "value": value, "place": null});
        let set = json!({"checks": [{"effective": [
            setting("ECS_AVAILABLE_LOGGING_DRIVERS", "[\"splunk\"]"), setting("ECS_RESERVED_MEMORY", "32"),
        ]}]});
        let changed = Machine::this(&set);
        assert_eq!(changed.drivers, ["splunk"]);
        assert_eq!(changed.memory, machine.memory.map(|mib| mib - 32));
        assert_eq!(memory("MemFree: 1 kB\nMemTotal:       2048000 kB\n"), Some(2000));
    }
}
