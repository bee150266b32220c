//! The counters of block devices.

use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::fmt;

/// Block devices. `None`: the kernel does not count this; with control groups of version 1 such a list is empty instead.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockIo {
    /// Bytes.
    pub service_bytes: Option<Vec<BlockEntry>>,
    /// Operations.
    pub serviced: Option<Vec<BlockEntry>>,
    /// Operations that wait now. This is not a counter.
    pub queued: Option<Vec<BlockEntry>>,
    /// Time of the devices, in nanoseconds.
    pub service_time: Option<Vec<BlockEntry>>,
    /// Time in queues, in nanoseconds.
    pub wait_time: Option<Vec<BlockEntry>>,
    /// Operations that became a part of others.
    pub merged: Option<Vec<BlockEntry>>,
    /// Time of the devices, in milliseconds.
    pub time: Option<Vec<BlockEntry>>,
    /// Sectors.
    pub sectors: Option<Vec<BlockEntry>>,
}

impl BlockIo {
    /// Lists without entries.
    pub fn empty() -> Self {
        let empty = || Some(Vec::new());
        Self {
            service_bytes: empty(),
            serviced: empty(),
            queued: empty(),
            service_time: empty(),
            wait_time: empty(),
            merged: empty(),
            time: empty(),
            sectors: empty(),
        }
    }

    /// The bytes of one operation on all devices. Version 1 of the control groups writes `Read`, version 2 `read`.
    pub fn bytes(&self, operation: &str) -> u64 {
        let entries = self.service_bytes.iter().flatten();
        let found = entries.filter(|entry| entry.op.as_str().eq_ignore_ascii_case(operation)).map(|entry| entry.value);
        found.fold(0, u64::saturating_add)
    }
}

/// A counter of one device and one kind of operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockEntry {
    /// Major number of the device.
    pub major: u64,
    /// Minor number of the device.
    pub minor: u64,
    /// The kind of operation.
    pub op: BlockOp,
    /// The counter.
    pub value: u64,
}

/// The kind of operation that a counter is for, such as `Read`; empty if it is for all kinds. A copy of a kind that the kernel has
/// needs no memory.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct BlockOp(Cow<'static, str>);

/// The kinds that kernels have, in both versions of the control groups.
const KINDS: [&str; 9] = ["", "Read", "Write", "Sync", "Async", "Discard", "Total", "read", "write"];

impl BlockOp {
    /// The name as the kernel writes it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for BlockOp {
    fn from(name: &str) -> Self {
        let known = KINDS.into_iter().find(|kind| *kind == name);
        Self(known.map_or_else(|| Cow::Owned(name.to_owned()), Cow::Borrowed))
    }
}

impl From<String> for BlockOp {
    fn from(name: String) -> Self {
        name.as_str().into()
    }
}

impl From<BlockOp> for String {
    fn from(op: BlockOp) -> Self {
        op.0.into_owned()
    }
}

impl fmt::Debug for BlockOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_counted_in_both_spellings() {
        let entry = |minor, op: &str, value| BlockEntry { major: 8, minor, op: op.into(), value };
        let entries = vec![entry(0, "Read", 1), entry(1, "read", 2), entry(0, "Write", 4), entry(0, "Total", 5)];
        let io = BlockIo { service_bytes: Some(entries), ..BlockIo::default() };
        assert_eq!((io.bytes("read"), io.bytes("write"), BlockIo::empty().bytes("read")), (3, 4, 0));
    }

    #[test]
    fn a_kind_is_its_name_and_a_known_one_is_shared() {
        for name in ["Read", "", "write", "Frobnicate"] {
            let op = BlockOp::from(name);
            assert_eq!((op.as_str(), matches!(op.0, Cow::Borrowed(_))), (name, name != "Frobnicate"));
            let text = serde_json::to_string(&op).unwrap();
            assert_eq!(text, format!("{name:?}"));
            let again: BlockOp = serde_json::from_str(&text).unwrap();
            assert_eq!((&again, matches!(again.0, Cow::Borrowed(_))), (&op, name != "Frobnicate"));
        }
    }
}
