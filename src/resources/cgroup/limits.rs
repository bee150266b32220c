//! The limits of a task in the kernel's terms, and the two scales of CPU shares.

/// The limits of one task in the kernel's terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    pub(super) cpu: Cpu,
    /// Bytes; `None` = no limit.
    pub(super) memory: Option<u64>,
    /// Processes; `None` = no limit.
    pub(super) pids: Option<u32>,
}

/// The share of the processors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cpu {
    /// Microseconds in each period of so many microseconds.
    Quota { quota: u64, period: u64 },
    /// Weight against others, as cgroup v1 counts it: 2 to 262,144.
    Shares(u32),
}

/// CPU shares of cgroup v1 as a weight of v2: 2 to 262,144 become 1 to 10,000, as container runtimes do it.
pub(super) fn weight(shares: u32) -> u64 {
    1 + (u64::from(shares).saturating_sub(2) * 9_999) / 262_142
}
