//! What a container used in its runs before the present one (spec `stats.md` §7).
//!
//! The kernel counts each run from zero. A container that its restart policy starts again is one container for ECS, so its counters
//! go on.

use ecs_core::model::usage::{BlockEntry, BlockIo, CpuUsage, Interface, Throttling, Usage};
use serde::{Deserialize, Serialize};

/// Upper limit of the devices' entries in a list: a device may have another number after each restart.
const MAX_ENTRIES: usize = 256;
/// Upper limit of the entries for everything beyond these. Kernels have fewer kinds of operations.
const MAX_REST: usize = 16;

/// What a container used in its runs before the present one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Carried {
    cpu: CpuUsage,
    max_memory: u64,
    memory_failures: u64,
    block_io: BlockIo,
    networks: Vec<Interface>,
}

impl Carried {
    /// What the container had used when its last run ended. `usage` is its last usage, with what was carried then.
    pub(super) fn new(usage: &Usage) -> Self {
        Self {
            cpu: usage.cpu.clone(),
            max_memory: usage.memory.max_usage,
            memory_failures: usage.memory.failures,
            block_io: bounded(usage.block_io.clone()),
            networks: usage.networks.clone(),
        }
    }

    /// Adds it to the counters of the present run.
    pub(super) fn add_to(&self, usage: &mut Usage) {
        add_cpu(&self.cpu, &mut usage.cpu);
        usage.memory.max_usage = usage.memory.max_usage.max(self.max_memory);
        usage.memory.failures = usage.memory.failures.saturating_add(self.memory_failures);
        let (before, now) = (&self.block_io, &mut usage.block_io);
        // What waits now is not a counter.
        for (before, now) in [
            (&before.service_bytes, &mut now.service_bytes),
            (&before.serviced, &mut now.serviced),
            (&before.service_time, &mut now.service_time),
            (&before.wait_time, &mut now.wait_time),
            (&before.merged, &mut now.merged),
            (&before.time, &mut now.time),
            (&before.sectors, &mut now.sectors),
        ] {
            add_entries(before.as_deref(), now);
        }
        // Compat: an interface that the container no longer has is left out.
        for interface in &mut usage.networks {
            let before = self.networks.iter().find(|before| before.name == interface.name);
            interface.traffic = before.map_or(interface.traffic, |before| interface.traffic.plus(before.traffic));
        }
    }
}

fn add_cpu(before: &CpuUsage, now: &mut CpuUsage) {
    now.total = now.total.saturating_add(before.total);
    now.kernel = now.kernel.saturating_add(before.kernel);
    now.user = now.user.saturating_add(before.user);
    let Throttling { periods, throttled_periods, throttled_time } = before.throttling;
    now.throttling.periods = now.throttling.periods.saturating_add(periods);
    now.throttling.throttled_periods = now.throttling.throttled_periods.saturating_add(throttled_periods);
    now.throttling.throttled_time = now.throttling.throttled_time.saturating_add(throttled_time);
    if now.per_cpu.len() < before.per_cpu.len() {
        now.per_cpu.resize(before.per_cpu.len(), 0);
    }
    for (now, before) in now.per_cpu.iter_mut().zip(&before.per_cpu) {
        *now = now.saturating_add(*before);
    }
}

/// The lists with at most [`MAX_ENTRIES`] devices' entries each.
fn bounded(mut io: BlockIo) -> BlockIo {
    let lists = [
        &mut io.service_bytes,
        &mut io.serviced,
        &mut io.queued,
        &mut io.service_time,
        &mut io.wait_time,
        &mut io.merged,
        &mut io.time,
        &mut io.sectors,
    ];
    for list in lists.into_iter().flatten() {
        let rest = list.split_off(list.len().min(MAX_ENTRIES));
        rest.into_iter().for_each(|entry| add_to_rest(list, entry));
    }
    io
}

/// The entries of both, those from before first.
fn add_entries(before: Option<&[BlockEntry]>, now: &mut Option<Vec<BlockEntry>>) {
    let Some(before) = before.filter(|before| !before.is_empty()) else { return };
    let mut all = before.to_vec();
    // The kernel lists devices in the same order each time, so the next entry is mostly the one after the last.
    let mut next = 0;
    for entry in now.take().unwrap_or_default() {
        let is_same = |at: &usize| is_same(&all[*at], &entry);
        match (next..all.len()).chain(0..next).find(is_same) {
            Some(at) => {
                all[at].value = all[at].value.saturating_add(entry.value);
                next = at + 1;
            }
            None if all.len() < MAX_ENTRIES => all.push(entry),
            None => add_to_rest(&mut all, entry),
        }
    }
    *now = Some(all);
}

/// Adds the counter to that of device 0:0, which does not exist: the sum of all devices stays right.
fn add_to_rest(all: &mut Vec<BlockEntry>, entry: BlockEntry) {
    let entry = BlockEntry { major: 0, minor: 0, ..entry };
    match all.iter().rposition(|known| is_same(known, &entry)) {
        Some(at) => all[at].value = all[at].value.saturating_add(entry.value),
        None if all.len() < MAX_ENTRIES + MAX_REST => all.push(entry),
        None => {}
    }
}

fn is_same(a: &BlockEntry, b: &BlockEntry) -> bool {
    (a.major, a.minor) == (b.major, b.minor) && a.op == b.op
}

#[cfg(test)]
mod tests {
    use super::*;
    use ecs_core::model::usage::{MemoryUsage, Pids, Traffic};

    fn entry(minor: u64, op: &str, value: u64) -> BlockEntry {
        BlockEntry { major: 8, minor, op: op.into(), value }
    }

    fn usage(factor: u64) -> Usage {
        let traffic = Traffic { rx_bytes: factor, tx_dropped: 2 * factor, ..Traffic::default() };
        Usage {
            cpu: CpuUsage {
                total: 10 * factor,
                per_cpu: vec![4 * factor, 6 * factor],
                kernel: factor,
                user: 9 * factor,
                system: 1_000 + factor,
                online: 2,
                throttling: Throttling { periods: factor, throttled_periods: factor, throttled_time: factor },
            },
            memory: MemoryUsage { usage: 50 * factor, max_usage: 60, failures: factor, ..MemoryUsage::default() },
            block_io: BlockIo {
                service_bytes: Some(vec![entry(0, "Read", factor)]),
                queued: Some(vec![entry(0, "Read", factor)]),
                ..BlockIo::empty()
            },
            pids: Pids { current: factor, limit: 0 },
            networks: vec![Interface { name: "eth0".to_owned(), traffic }],
        }
    }

    #[test]
    fn counters_go_on_and_the_rest_does_not() {
        let mut now = usage(1);
        Carried::new(&usage(100)).add_to(&mut now);
        assert_eq!((now.cpu.total, now.cpu.kernel, now.cpu.user), (1_010, 101, 909));
        assert_eq!((now.cpu.per_cpu.as_slice(), now.cpu.system, now.cpu.online), ([404, 606].as_slice(), 1_001, 2));
        assert_eq!(now.cpu.throttling, Throttling { periods: 101, throttled_periods: 101, throttled_time: 101 });
        assert_eq!((now.memory.usage, now.memory.max_usage, now.memory.failures), (50, 60, 101));
        assert_eq!(now.block_io.service_bytes, Some(vec![entry(0, "Read", 101)]));
        assert_eq!(now.block_io.queued, Some(vec![entry(0, "Read", 1)]));
        assert_eq!((now.pids.current, now.networks[0].traffic.rx_bytes), (1, 101));
        assert_eq!(now.networks[0].traffic.tx_dropped, 202);
    }

    #[test]
    fn lists_are_joined_with_those_from_before_first() {
        let before = [entry(1, "Read", 1), entry(0, "Read", 2)];
        for (now, expected) in [
            (
                Some(vec![entry(2, "Write", 7), entry(0, "Read", 3)]),
                vec![entry(1, "Read", 1), entry(0, "Read", 5), entry(2, "Write", 7)],
            ),
            (Some(Vec::new()), before.to_vec()),
            (None, before.to_vec()),
        ] {
            let mut list = now;
            add_entries(Some(&before), &mut list);
            assert_eq!(list, Some(expected));
        }
        let mut none = None;
        add_entries(Some(&[]), &mut none);
        assert_eq!(none, None, "what the kernel does not count stays so");
    }

    #[test]
    fn devices_that_come_and_go_do_not_add_up_for_ever() {
        let sum = |usage: &Usage| (usage.block_io.bytes("read"), usage.block_io.bytes("write"));
        let (mut last, mut expected) = (Usage::default(), 0);
        for run in 0..100 {
            let devices = (0..10).flat_map(|minor| ["Read", "Write"].map(|op| entry(10 * run + minor, op, 7)));
            let mut now = Usage::default();
            now.block_io.service_bytes = Some(devices.collect());
            let carried = Carried::new(&last);
            carried.add_to(&mut now);
            expected += 70;
            assert_eq!(sum(&now), (expected, expected), "run {run}");
            let entries = now.block_io.service_bytes.as_ref().unwrap();
            assert!(entries.len() <= MAX_ENTRIES + 2, "{}", entries.len());
            last = now;
        }
        let entries = last.block_io.service_bytes.as_mut().unwrap();
        assert_eq!((entries[0].minor, entries[MAX_ENTRIES].major), (0, 0), "the first devices, and the rest");
        // One run alone may have more devices than are carried, and kinds of operations that no kernel has.
        *entries = (0..2_000).map(|minor| entry(minor, &format!("op{minor}"), 1)).collect();
        let kept = Carried::new(&last).block_io.service_bytes.unwrap();
        assert_eq!(kept.len(), MAX_ENTRIES + MAX_REST);
    }

    #[test]
    fn processors_and_interfaces_may_come_and_go() {
        let mut now = usage(1);
        now.cpu.per_cpu = vec![1, 2, 3];
        now.networks = vec![Interface { name: "eth1".to_owned(), traffic: Traffic::default() }];
        Carried::new(&usage(100)).add_to(&mut now);
        assert_eq!(now.cpu.per_cpu, [401, 602, 3]);
        assert_eq!(now.networks.len(), 1);
        assert_eq!(now.networks[0].traffic, Traffic::default());
        let mut now = usage(1);
        now.cpu.per_cpu = Vec::new();
        Carried::new(&usage(100)).add_to(&mut now);
        assert_eq!(now.cpu.per_cpu, [400, 600]);
    }

    #[test]
    fn the_saved_form_can_be_read_again() {
        let carried = Carried::new(&usage(3));
        let text = serde_json::to_string(&carried).unwrap();
        assert_eq!(serde_json::from_str::<Carried>(&text).unwrap(), carried);
        assert_eq!(serde_json::from_str::<Carried>("{}").unwrap(), Carried::default());
    }
}
