//! What the kernel tells about this machine without waiting: processors, memory, ports, FIPS mode.

use std::ops::RangeInclusive;
use std::path::Path;

/// The kernel's file that shows whether it is in FIPS mode.
pub const FIPS_ENABLED: &str = "/proc/sys/crypto/fips_enabled";

/// Whether the host is in FIPS mode. A kernel without that file is not.
pub fn is_in_fips_mode(file: &Path) -> bool {
    std::fs::read_to_string(file).is_ok_and(|text| text.trim() == "1")
}

/// The number of processors on which this process may run, at least 1. CPU quotas of the process do not count.
pub fn processors() -> u32 {
    rustix::thread::sched_getaffinity(None).map_or(1, |cpus| cpus.count().max(1))
}

/// Memory of this host in bytes; 0 if it cannot be read.
pub fn memory() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
    kib.unwrap_or_default() * 1024
}

/// The range from which the kernel takes the ports of outgoing connections; `None` if it cannot be read.
pub fn ephemeral_ports() -> Option<RangeInclusive<u16>> {
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok()?;
    let mut ends = text.split_whitespace().map(str::parse::<u16>);
    Some(ends.next()?.ok()?..=ends.next()?.ok()?)
}

/// Whether every processor has these features, by the kernel's names in `/proc/cpuinfo`; false if it cannot be read.
pub fn has_cpu_features(wanted: &[&str]) -> bool {
    has_features(&std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default(), wanted)
}

fn has_features(cpuinfo: &str, wanted: &[&str]) -> bool {
    let lines = cpuinfo.lines().filter_map(|line| line.split_once(':')).filter(|(name, _)| name.trim() == "flags");
    let mut lists = lines.map(|(_, flags)| flags.split_whitespace().collect::<Vec<_>>()).peekable();
    lists.peek().is_some() && lists.all(|flags| wanted.iter().all(|name| flags.contains(name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fips_mode_is_on_only_if_the_file_holds_1() {
        let file = std::env::temp_dir().join(format!("ecs-fips-{}", std::process::id()));
        for (text, wanted) in [("1\n", true), ("1", true), ("0\n", false), ("", false), ("11\n", false)] {
            std::fs::write(&file, text).unwrap();
            assert_eq!(is_in_fips_mode(&file), wanted, "{text:?}");
        }
        std::fs::remove_file(&file).unwrap();
        assert!(!is_in_fips_mode(&file), "a missing file");
    }

    #[test]
    fn a_feature_counts_if_every_processor_has_it() {
        let two = "processor\t: 0\nflags\t\t: fpu avx avx2\n\nprocessor\t: 1\nflags\t\t: fpu avx\n";
        assert!(has_features(two, &["fpu", "avx"]));
        assert!(!has_features(two, &["avx2"]));
        assert!(!has_features("processor\t: 0\nFeatures\t: fp asimd\n", &[]), "a processor of another kind");
    }

    #[test]
    fn this_machine_has_processors_memory_and_ports() {
        assert!(processors() >= 1);
        assert!(memory() > 64 << 20, "{}", memory());
        assert!(ephemeral_ports().is_some_and(|ports| !ports.is_empty()));
    }
}
