//! Finds the control groups of a container from its first process.
//!
//! Owns the forms of `/proc/PID/cgroup` and `/proc/self/mountinfo`. All functions are pure. The path of a group is never put
//! together from a pattern: cgroup drivers, parents, slices and hosts with both versions all differ. The container's id, which
//! every container runtime puts into the name of the group, proves that the process belongs to the container: after its end,
//! another process may have the same number.

use ecs_core::model::usage::CgroupVersion;
use std::path::{Path, PathBuf};

/// The controllers whose counters are read, in version 1.
pub(super) const CONTROLLERS: [&str; 5] = ["cpuacct", "cpu", "memory", "blkio", "pids"];
/// What the lines of `mountinfo` about control groups have, whatever the version.
pub(super) const MOUNT: &str = " - cgroup";
/// What the kernel writes behind the path of a group that is removed.
const REMOVED: &str = " (deleted)";
/// Upper limit of the lines of a file that are read.
const MAX_LINES: usize = 100_000;
/// The shortest id that proves something. Docker's have 64 characters.
const MIN_ID: usize = 12;

/// A mounted hierarchy of control groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mount {
    /// The group that is mounted.
    root: String,
    /// Where it is mounted.
    point: PathBuf,
    /// The controllers, separated by commas; `None` in version 2.
    controllers: Option<String>,
}

/// The groups of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Groups {
    /// The version whose counters are read.
    pub(super) version: CgroupVersion,
    /// The directories, each with its controller in version 1. Several are possible for the same group: where it is mounted twice.
    pub(super) directories: Vec<(&'static str, PathBuf)>,
}

/// The mounted hierarchies, from the text of `/proc/self/mountinfo`.
pub(super) fn mounts(text: &str) -> Vec<Mount> {
    let lines = text.lines().take(MAX_LINES).filter_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let mut after = after.split(' ');
        let (kind, _source, options) = (after.next()?, after.next()?, after.next()?);
        let controllers = match kind {
            "cgroup" => Some(options.to_owned()),
            "cgroup2" => None,
            _ => return None,
        };
        let mut before = before.split(' ').skip(3);
        let (root, point) = (unescaped(before.next()?), unescaped(before.next()?).into());
        Some(Mount { root, point, controllers })
    });
    lines.collect()
}

/// The groups of the container with this id, from the text of `/proc/PID/cgroup` of its first process; `None` if the process is
/// not in the container, or if none of its groups can be seen here.
pub(super) fn groups(text: &str, id: &str, mounts: &[Mount]) -> Option<Groups> {
    let all = || {
        text.lines().take(MAX_LINES).filter_map(|line| {
            let (_, rest) = line.split_once(':')?;
            rest.split_once(':')
        })
    };
    let lines = || all().filter_map(|(controllers, path)| Some((controllers, container_part(path, id)?)));
    let has = |list: &str, controller: &str| list.split(',').any(|name| name == controller);
    let mut directories = Vec::new();
    for controller in CONTROLLERS {
        for (_, path) in lines().filter(|(list, _)| has(list, controller)) {
            let places =
                mounts.iter().filter(|mount| mount.controllers.as_ref().is_some_and(|list| has(list, controller)));
            directories.extend(places.filter_map(|mount| Some((controller, mount.place(path)?))));
        }
    }
    // A host with both versions has all controllers in one of them, and groups without counters in the other. The latter are the last
    // that a process leaves, and the only ones that some agents in containers see.
    if all().any(|(list, _)| has(list, "cpuacct")) {
        let has_counters = directories.iter().any(|(controller, _)| *controller == "cpuacct");
        return has_counters.then_some(Groups { version: CgroupVersion::V1, directories });
    }
    let (_, path) = lines().find(|(list, _)| list.is_empty())?;
    let places = mounts.iter().filter(|mount| mount.controllers.is_none()).filter_map(|mount| mount.place(path));
    let directories: Vec<_> = places.map(|place| ("", place)).collect();
    (!directories.is_empty()).then_some(Groups { version: CgroupVersion::V2, directories })
}

/// The path of the container's own group: up to the part that has its id. A program in the container may have made groups below
/// it, and its first process may be in one of them.
fn container_part<'a>(path: &'a str, id: &str) -> Option<&'a str> {
    let is_id = id.len() >= MIN_ID && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    let at = path.find(id).filter(|_| is_id && !path.ends_with(REMOVED))?;
    let end = path[at..].find('/').map_or(path.len(), |length| at + length);
    path.starts_with('/').then_some(&path[..end])
}

impl Mount {
    /// Where the group with this path is; `None` if it is not below this mount.
    fn place(&self, path: &str) -> Option<PathBuf> {
        // `..` in a path: the group is outside the part of the hierarchy that this process sees.
        if path.split('/').any(|part| part == "..") {
            return None;
        }
        let below = match self.root.as_str() {
            "/" => path,
            root => path.strip_prefix(root).filter(|rest| rest.is_empty() || rest.starts_with('/'))?,
        };
        Some(self.point.join(Path::new(below.trim_start_matches('/'))))
    }
}

/// A path of `mountinfo`, in which some characters are written as three octal digits.
fn unescaped(text: &str) -> String {
    let plain = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    plain.into_iter().fold(text.to_owned(), |text, (code, character)| text.replace(code, character))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ID: &str = "63f90b584c39ffaca00f7001ff2365097da7a49f6eeb4958ddaa3716c81f2fa0";
    const V1: &str = "30 25 0:26 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n\
        31 25 0:27 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
        32 25 0:28 / /sys/fs/cgroup/memory rw,nosuid - cgroup cgroup rw,memory\n\
        33 25 0:29 / /sys/fs/cgroup/blkio rw shared:9 - cgroup cgroup rw,blkio\n\
        34 25 8:1 / / rw - ext4 /dev/sda1 rw\n";
    const V2: &str = "30 25 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";

    fn found(text: &str, mountinfo: &str) -> Option<(CgroupVersion, Vec<String>)> {
        let groups = groups(text, ID, &mounts(mountinfo))?;
        let shown = |(controller, path): &(&str, PathBuf)| format!("{controller} {}", path.display());
        Some((groups.version, groups.directories.iter().map(shown).collect()))
    }

    #[test]
    fn groups_of_version_1_are_found_for_each_controller() {
        let text = format!("9:cpuset:/\n4:memory:/a/{ID}\n3:cpu,cpuacct:/docker/{ID}\n2:blkio:/\n0::/docker/{ID}\n");
        let expected = [
            format!("cpuacct /sys/fs/cgroup/cpu,cpuacct/docker/{ID}"),
            format!("cpu /sys/fs/cgroup/cpu,cpuacct/docker/{ID}"),
            format!("memory /sys/fs/cgroup/memory/a/{ID}"),
        ];
        assert_eq!(found(&text, V1), Some((CgroupVersion::V1, expected.to_vec())));
    }

    #[test]
    fn a_group_of_version_2_is_found_in_any_slice() {
        for (path, expected) in [
            (format!("/system.slice/docker-{ID}.scope"), format!(" /sys/fs/cgroup/system.slice/docker-{ID}.scope")),
            (format!("/ecs/task/{ID}/init.scope"), format!(" /sys/fs/cgroup/ecs/task/{ID}")),
        ] {
            assert_eq!(found(&format!("0::{path}\n"), V2), Some((CgroupVersion::V2, vec![expected])));
        }
    }

    #[test]
    fn a_process_outside_the_container_proves_nothing() {
        for text in [
            "0::/system.slice/ssh.service\n".to_owned(),
            format!("0::/docker/{}\n", ID.replace("63f9", "63f8")),
            format!("0::/../../docker/{ID}\n"),
            format!("0::docker/{ID}\n"),
            format!("4:memory:/docker/{ID}\n"),
            format!("0::/docker/{ID} (deleted)\n"),
            String::new(),
        ] {
            assert_eq!(found(&text, V2), None, "{text}");
        }
        assert_eq!(groups("0::/docker/main\n", "main", &mounts(V2)), None, "too short to be an id");
    }

    /// On a host with both versions, the groups of version 2 have no counters.
    #[test]
    fn a_host_that_counts_in_version_1_is_not_read_in_version_2() {
        let ended = format!("3:cpu,cpuacct:/\n0::/docker/{ID}\n");
        assert_eq!(found(&ended, V1), None, "the process has left the groups of version 1 first");
        let running = format!("3:cpu,cpuacct:/docker/{ID}\n0::/docker/{ID}\n");
        let without = V1.lines().filter(|line| !line.contains("cpuacct")).collect::<Vec<_>>().join("\n");
        assert_eq!(found(&running, &without), None, "an agent in a container that sees a part of the host");
        let only_names = format!("1:name=systemd:/docker/{ID}\n0::/docker/{ID}\n");
        assert_eq!(found(&only_names, V1).unwrap().0, CgroupVersion::V2);
    }

    #[test]
    fn a_part_of_a_hierarchy_may_be_mounted_anywhere() {
        let inside = "30 25 0:26 /outer /mnt/with\\040space rw - cgroup2 cgroup2 rw\n";
        let (_, paths) = found(&format!("0::/outer/docker/{ID}\n"), inside).unwrap();
        assert_eq!(paths, [format!(" /mnt/with space/docker/{ID}")]);
        assert_eq!(found(&format!("0::/outer2/docker/{ID}\n"), inside), None);
        let twice = format!("{V2}{}", V2.replace("/sys/fs/cgroup", "/mnt"));
        assert_eq!(found(&format!("0::/docker/{ID}\n"), &twice).unwrap().1.len(), 2);
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in "[ -~\n]{0,300}", mountinfo in "[ -~\n]{0,300}") {
            let _ = groups(&text, ID, &mounts(&mountinfo));
            let _ = groups(&text, ID, &mounts(V1));
        }

        #[test]
        fn what_is_found_is_below_a_mount_and_has_the_id(before in "[a-z./-]{0,30}", after in "[a-z./-]{0,30}") {
            let text = format!("0::/{before}{ID}{after}\n");
            if let Some(groups) = groups(&text, ID, &mounts(V2)) {
                for (_, path) in groups.directories {
                    let shown = path.display().to_string();
                    prop_assert!(shown.starts_with("/sys/fs/cgroup/") && shown.contains(ID));
                    prop_assert!(shown.split('/').all(|part| part != ".."));
                }
            }
        }
    }
}
