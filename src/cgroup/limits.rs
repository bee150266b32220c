//! A task's limits in the kernel's units, and the two scales of CPU shares.

/// A task's limits in the kernel's units.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// The share of the processors.
    pub(crate) cpu: Cpu,
    /// Memory in bytes; `None` = no limit.
    pub(crate) memory: Option<u64>,
    /// The number of processes; `None` = no limit.
    pub(crate) pids: Option<u32>,
}

/// A task's share of the processors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cpu {
    /// A hard limit: `quota` microseconds of CPU time in each `period`, which is in microseconds, too.
    Quota { quota: u64, period: u64 },
    /// A weight relative to other groups, in the scale of cgroup v1: 2 to 262,144.
    Shares(u32),
}

/// Converts CPU shares of cgroup v1 to a weight of v2, as container runtimes do: 2 to 262,144 become 1 to 10,000.
pub(crate) fn weight(shares: u32) -> u64 {
    1 + (u64::from(shares).saturating_sub(2) * 9_999) / 262_142
}
