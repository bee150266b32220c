//! Parses the files of the kernel that counters are in.
//!
//! Owns the forms of these files. All functions are pure. Invariant: any text gives a result, of bounded length; what cannot be
//! read is left out.

use ecs_core::model::usage::{BlockEntry, CgroupVersion, CpuUsage, Interface, MemoryDetails, Throttling, Traffic};

/// Upper limit of the processors of a host.
const MAX_PROCESSORS: usize = 4096;
/// Upper limit of the entries about block devices in one file.
const MAX_BLOCK_ENTRIES: usize = 1024;
/// Upper limit of the network interfaces of a container.
const MAX_INTERFACES: usize = 64;
/// A tick of the kernel's clock for programs in nanoseconds: always a hundredth of a second.
pub(super) const TICK: u64 = 10_000_000;

/// A file with one number. `max` means that there is no limit.
pub(super) fn number(text: &str) -> Option<u64> {
    match text.trim() {
        "max" => Some(u64::MAX),
        digits => digits.parse().ok(),
    }
}

/// A file with a name and a number on each line.
pub(super) fn pairs(text: &str) -> impl Iterator<Item = (&str, u64)> {
    text.lines().filter_map(|line| {
        let (name, value) = line.split_once(' ')?;
        Some((name, value.trim().parse().ok()?))
    })
}

/// `cpuacct.usage_percpu`: one number for each processor.
pub(super) fn per_cpu(text: &str) -> Vec<u64> {
    text.split_whitespace().map_while(|value| value.parse().ok()).take(MAX_PROCESSORS).collect()
}

/// `cpuacct.stat`: the times outside and in the kernel, in ticks.
pub(super) fn cpu_times(text: &str, cpu: &mut CpuUsage) {
    for (name, ticks) in pairs(text) {
        match name {
            "user" => cpu.user = ticks.saturating_mul(TICK),
            "system" => cpu.kernel = ticks.saturating_mul(TICK),
            _ => {}
        }
    }
}

/// `cpu.stat` of version 1.
pub(super) fn throttling(text: &str) -> Throttling {
    let mut found = Throttling::default();
    for (name, value) in pairs(text) {
        match name {
            "nr_periods" => found.periods = value,
            "nr_throttled" => found.throttled_periods = value,
            "throttled_time" => found.throttled_time = value,
            _ => {}
        }
    }
    found
}

/// `cpu.stat` of version 2, in microseconds; `None` if the time is not in it.
pub(super) fn cpu_v2(text: &str) -> Option<CpuUsage> {
    let (mut cpu, mut total) = (CpuUsage::default(), None);
    for (name, value) in pairs(text) {
        let nanos = value.saturating_mul(1_000);
        match name {
            "usage_usec" => total = Some(nanos),
            "user_usec" => cpu.user = nanos,
            "system_usec" => cpu.kernel = nanos,
            "nr_periods" => cpu.throttling.periods = value,
            "nr_throttled" => cpu.throttling.throttled_periods = value,
            "throttled_usec" => cpu.throttling.throttled_time = nanos,
            _ => {}
        }
    }
    Some(CpuUsage { total: total?, ..cpu })
}

/// `memory.stat`. Names that Docker does not show are left out; what the file lacks is zero.
pub(super) fn memory(text: &str, version: CgroupVersion) -> MemoryDetails {
    let mut details = MemoryDetails::zero(version);
    for (name, value) in pairs(text) {
        details.set(name, value);
    }
    details
}

/// The number after this name.
pub(super) fn value(text: &str, name: &str) -> Option<u64> {
    pairs(text).find(|(found, _)| *found == name).map(|(_, value)| value)
}

/// A file of the controller `blkio`: `8:0 Read 4096`, or `8:0 4096`. The sum of all devices is left out.
pub(super) fn block_v1(text: &str) -> Vec<BlockEntry> {
    let entries = text.lines().filter_map(|line| {
        let mut fields = line.split([' ', ':']).filter(|field| !field.is_empty());
        let (major, minor) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        let (third, fourth) = (fields.next()?, fields.next());
        let (op, value) = fourth.map_or(("", third), |value| (third, value));
        let is_word = op.len() <= 16 && op.bytes().all(|byte| byte.is_ascii_alphabetic());
        Some(BlockEntry { major, minor, op: op.into(), value: value.parse().ok()? }).filter(|_| is_word)
    });
    entries.take(MAX_BLOCK_ENTRIES).collect()
}

/// `io.stat`: `8:0 rbytes=4096 wbytes=0 …`. Docker shows the bytes only.
pub(super) fn block_v2(text: &str) -> Vec<BlockEntry> {
    let devices = text.lines().filter_map(|line| {
        let (device, counters) = line.split_once(' ')?;
        let (major, minor) = device.split_once(':')?;
        let (major, minor) = (major.parse().ok()?, minor.parse().ok()?);
        let counter = |name: &str| {
            let found = counters.split(' ').find_map(|field| field.strip_prefix(name)?.strip_prefix('=')?.parse().ok());
            found.unwrap_or_default()
        };
        let entry = |op: &str, value| BlockEntry { major, minor, op: op.into(), value };
        Some([entry("read", counter("rbytes")), entry("write", counter("wbytes"))])
    });
    devices.flatten().take(MAX_BLOCK_ENTRIES).collect()
}

/// `/proc/PID/net/dev`: the interfaces that Docker made, by name. They are called `eth0`, `eth1` and so on; programs in the
/// container may have made others, which Docker does not show.
pub(super) fn interfaces(text: &str) -> Vec<Interface> {
    let lines = text.lines().filter_map(|line| {
        let (name, counters) = line.split_once(':')?;
        let name = name.trim();
        let number = name.strip_prefix("eth")?;
        if number.is_empty() || number.len() > 9 || !number.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let mut values = [0; 12];
        let mut found = counters.split_whitespace();
        for value in &mut values {
            *value = found.next()?.parse().ok()?;
        }
        let [rx_bytes, rx_packets, rx_errors, rx_dropped, _, _, _, _, tx_bytes, tx_packets, tx_errors, tx_dropped] =
            values;
        let traffic =
            Traffic { rx_bytes, rx_packets, rx_errors, rx_dropped, tx_bytes, tx_packets, tx_errors, tx_dropped };
        Some(Interface { name: name.to_owned(), traffic })
    });
    let mut found: Vec<_> = lines.take(MAX_INTERFACES).collect();
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}

/// `/proc/stat`: the time of all processors together in nanoseconds, and their number, as Docker counts them.
pub(super) fn host_cpu(text: &str) -> (u64, u32) {
    let mut lines = text.lines();
    // From `user` to `softirq`. Compat: time that the hypervisor took (`steal`) is not counted by Docker.
    let fields = lines.next().and_then(|line| line.strip_prefix("cpu ")).unwrap_or_default().split_whitespace().take(7);
    let ticks = fields.filter_map(|field| field.parse::<u64>().ok()).fold(0, u64::saturating_add);
    let processors = lines.take_while(|line| line.starts_with("cpu")).take(MAX_PROCESSORS).count();
    (ticks.saturating_mul(TICK), u32::try_from(processors).unwrap_or_default())
}

/// `/proc/PID/stat`: the process has ended, and its parent has not taken note yet. The name of the program, which may have any
/// characters, is in parentheses before the state.
pub(super) fn has_ended(text: &str) -> bool {
    text.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with(['Z', 'X', 'x']))
}

/// `/proc/meminfo`: the memory of the host in bytes.
pub(super) fn host_memory(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.saturating_mul(1024))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn counters_of_version_1_are_read() {
        let mut cpu = CpuUsage::default();
        cpu_times("user 11\nsystem 6\n", &mut cpu);
        assert_eq!((cpu.user, cpu.kernel), (110_000_000, 60_000_000));
        assert_eq!(per_cpu("38075565 136708705 \n"), [38_075_565, 136_708_705]);
        let throttling = throttling("nr_periods 3\nnr_throttled 2\nthrottled_time 17\nnr_bursts 0\n");
        assert_eq!(throttling, Throttling { periods: 3, throttled_periods: 2, throttled_time: 17 });
        let memory = memory("cache 270336\nrss 4096\nswap 7\ntotal_cache 270337\n", CgroupVersion::V1);
        assert_eq!(
            (memory.get("cache"), memory.get("total_cache"), memory.get("swap")),
            (Some(270_336), Some(270_337), None)
        );
        assert_eq!(
            (number("4333568\n"), number("max\n"), number("-1\n"), number("")),
            (Some(4_333_568), Some(u64::MAX), None, None)
        );
    }

    #[test]
    fn counters_of_version_2_are_read() {
        let text =
            "usage_usec 174784\nuser_usec 110000\nsystem_usec 60000\nnr_periods 3\nnr_throttled 2\nthrottled_usec 17\n";
        let cpu = cpu_v2(text).unwrap();
        assert_eq!((cpu.total, cpu.user, cpu.kernel), (174_784_000, 110_000_000, 60_000_000));
        assert_eq!(cpu.throttling, Throttling { periods: 3, throttled_periods: 2, throttled_time: 17_000 });
        assert_eq!(cpu_v2("user_usec 1\n"), None);
        assert_eq!(value("low 0\nhigh 0\nmax 5\noom 2\n", "oom"), Some(2));
        let io = block_v2(
            "8:16 rbytes=1459200 wbytes=314773504 rios=192 wios=353 dbytes=0 dios=0\n254:0 \n7:1\nx:1 rbytes=1\n",
        );
        let shown: Vec<_> = io.iter().map(|entry| (entry.major, entry.minor, entry.op.as_str(), entry.value)).collect();
        let expected =
            [(8, 16, "read", 1_459_200), (8, 16, "write", 314_773_504), (254, 0, "read", 0), (254, 0, "write", 0)];
        assert_eq!(shown, expected);
    }

    #[test]
    fn block_devices_of_version_1_are_listed_without_the_sum() {
        let found = block_v1("8:0 Read 4096\n8:0 Total 4096\n8:16 77\nTotal 4173\n8:0 Re4d 1\n8:0 Write x\nrubbish\n");
        let shown: Vec<_> = found.iter().map(|entry| (entry.minor, entry.op.as_str(), entry.value)).collect();
        assert_eq!(shown, [(0, "Read", 4096), (0, "Total", 4096), (16, "", 77)]);
    }

    #[test]
    fn interfaces_that_docker_did_not_make_are_left_out() {
        let head = "Inter-|   Receive  |  Transmit\n face |bytes packets|bytes packets\n";
        let line = |name: &str, from: u64| {
            let values: Vec<String> = (from..from + 16).map(|value| value.to_string()).collect();
            format!("{name:>6}: {}\n", values.join(" "))
        };
        let lines = ["eth1", "lo", "docker0", "veth12", "ethernet", "eth", "eth0"].map(|name| line(name, 10)).concat();
        let found = interfaces(&format!("{head}{lines}  eth2: 1 2\n"));
        let traffic = Traffic {
            rx_bytes: 10,
            rx_packets: 11,
            rx_errors: 12,
            rx_dropped: 13,
            tx_bytes: 18,
            tx_packets: 19,
            tx_errors: 20,
            tx_dropped: 21,
        };
        assert_eq!(found.iter().map(|interface| interface.name.as_str()).collect::<Vec<_>>(), ["eth0", "eth1"]);
        assert!(found.iter().all(|interface| interface.traffic == traffic));
    }

    #[test]
    fn the_host_is_counted_as_docker_counts_it() {
        let text = "cpu  955054 875170 428607 248264 4487 0 8294 3211 0 0\ncpu0 1\ncpu1 1\nintr 1\ncpux\n";
        assert_eq!(host_cpu(text), (25_198_760_000_000, 2));
        assert_eq!(host_cpu(""), (0, 0));
        assert_eq!(host_memory("MemTotal:        8147312 kB\nMemFree: 1 kB\n"), Some(8_147_312 * 1024));
        assert_eq!(host_memory("MemTotal: many kB\n"), None);
    }

    #[test]
    fn a_process_that_has_ended_is_recognised() {
        for (text, expected) in [
            ("4711 (sh) Z 1 4711", true),
            ("4711 (a) Z (b) S 1", false),
            ("4711 (a) S (b) X 1", true),
            ("4711 (Z) R 1 4711", false),
            ("", false),
        ] {
            assert_eq!(has_ended(text), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_gives_a_bounded_result(text in "[ -~\n]{0,400}|[0-9: \nRWeadTotl=]{0,400}") {
            let mut cpu = CpuUsage::default();
            cpu_times(&text, &mut cpu);
            let _ = (number(&text), throttling(&text), cpu_v2(&text), host_cpu(&text), host_memory(&text));
            prop_assert!(block_v1(&text).len() <= MAX_BLOCK_ENTRIES && block_v2(&text).len() <= MAX_BLOCK_ENTRIES);
            prop_assert!(interfaces(&text).len() <= MAX_INTERFACES && per_cpu(&text).len() <= MAX_PROCESSORS);
            for version in [CgroupVersion::V1, CgroupVersion::V2] {
                prop_assert_eq!(memory(&text, version).values.len(), version.memory_names().len());
            }
        }
    }
}
