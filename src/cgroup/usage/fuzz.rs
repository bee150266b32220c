//! The fuzz target of the kernel's files.

use super::{find, parse, source};
use ecs_core::model::usage::{CgroupVersion, CpuUsage};

/// Parses files of control groups and of `/proc`.
///
/// # Panics
/// An invariant does not hold.
pub fn usage_files(data: &[u8]) {
    const ID: &str = "63f90b584c39ffaca00f7001ff2365097da7a49f6eeb4958ddaa3716c81f2fa0";
    let text = String::from_utf8_lossy(data);
    let (first, rest) = text.split_once('\0').unwrap_or((&text, ""));
    let mut cpu = CpuUsage::default();
    parse::cpu_times(first, &mut cpu);
    let _ = (parse::number(first), parse::throttling(first), parse::cpu_v2(first), parse::value(first, "oom"));
    let _ = (
        parse::has_ended(first),
        parse::host_cpu(first),
        parse::host_memory(first),
        parse::per_cpu(first),
        parse::block_v2(first),
    );
    assert!(parse::block_v1(first).iter().all(|entry| entry.op.as_str().len() <= 16));
    assert!(parse::interfaces(first).is_sorted_by_key(|interface| interface.name.clone()));
    for version in [CgroupVersion::V1, CgroupVersion::V2] {
        assert_eq!(parse::memory(first, version).values.len(), version.memory_names().len());
    }
    let mounts = source::lines_with(rest.as_bytes(), find::MOUNT).expect("memory can be read");
    assert_eq!(find::mounts(&mounts), find::mounts(rest));
    if let Some(groups) = find::groups(first, ID, &find::mounts(&mounts)) {
        assert!(!groups.directories.is_empty());
    }
}
