//! Control groups that are created as directories, for engines with the driver `cgroupfs`.
//!
//! Owns the names of directories and files in both versions of the cgroup file system. All functions block. Invariant: a group
//! is removed only when no process is in it; otherwise the kernel refuses.

use super::error::{CgroupError, file_error};
use super::limits::{Cpu, Limits, weight};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The controllers that a task's limits need.
const CONTROLLERS: [&str; 2] = ["cpu", "memory"];
/// Further controllers that are enabled for the containers' groups if they are available.
const MORE_CONTROLLERS: [&str; 5] = ["pids", "cpuset", "io", "hugetlb", "rdma"];
/// The name of the parent of all tasks' groups.
const PARENT: &str = "ecs";
/// The name of the test group, which is created and removed at the start. No task has this id.
pub(crate) const PROBE: &str = "probe_of_the_agent";

/// The cgroup file system.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Files<'a> {
    /// The mount point.
    pub(crate) root: &'a Path,
    /// The file system is of version 2.
    pub(crate) is_unified: bool,
}

impl Files<'_> {
    /// Creates the parent of all tasks' groups, and tests whether groups can be created there.
    pub(crate) fn prepare(self) -> Result<(), CgroupError> {
        self.require_controllers()?;
        if self.is_unified {
            enable_controllers(self.root)?;
            make_group(&self.root.join(PARENT))?;
            enable_controllers(&self.root.join(PARENT))?;
            return probe(&self.root.join(PARENT));
        }
        self.hierarchies()?.iter().try_for_each(|hierarchy| {
            make_group(&hierarchy.join(PARENT))?;
            probe(&hierarchy.join(PARENT))
        })
    }

    /// Checks that the kernel has the controllers, which systemd's groups need as well.
    pub(crate) fn require_controllers(self) -> Result<(), CgroupError> {
        let available = if self.is_unified { controllers(self.root)? } else { Vec::new() };
        let is_available = |name: &str| match self.is_unified {
            true => available.iter().any(|controller| controller == name),
            false => self.root.join(name).join("cgroup.procs").exists(),
        };
        match CONTROLLERS.into_iter().find(|name| !is_available(name)) {
            Some(controller) => Err(CgroupError::NoController { controller, root: self.root.to_owned() }),
            None => Ok(()),
        }
    }

    /// Makes a group with its limits. `name` is its path from the root.
    pub(crate) fn create(self, name: &str, limits: Limits) -> Result<(), CgroupError> {
        let name = name.trim_start_matches('/');
        if self.is_unified {
            let group = self.root.join(name);
            make_group(&group)?;
            write_all(&unified(limits), &group)?;
            return enable_controllers(&group);
        }
        for hierarchy in self.hierarchies()? {
            make_group(&hierarchy.join(name))?;
        }
        let group = |controller: &str| self.root.join(controller).join(name);
        let memory = group("memory");
        // Written before the limit, and only if it is not set already: the kernel refuses once the group has children.
        let hierarchical = memory.join("memory.use_hierarchy");
        if fs::read_to_string(&hierarchical).is_ok_and(|text| text.trim() != "1") {
            write(&hierarchical, "1")?;
        }
        if let Some(bytes) = limits.memory {
            write(&memory.join("memory.limit_in_bytes"), &bytes.to_string())?;
        }
        match limits.cpu {
            Cpu::Quota { quota, period } => {
                write(&group("cpu").join("cpu.cfs_period_us"), &period.to_string())?;
                write(&group("cpu").join("cpu.cfs_quota_us"), &quota.to_string())?;
            }
            Cpu::Shares(shares) => write(&group("cpu").join("cpu.shares"), &shares.to_string())?,
        }
        match limits.pids {
            Some(pids) => write(&group("pids").join("pids.max"), &pids.to_string()),
            None => Ok(()),
        }
    }

    /// Removes a group, and the groups below it.
    pub(crate) fn remove(self, name: &str) -> Result<(), CgroupError> {
        let name = name.trim_start_matches('/');
        let hierarchies = if self.is_unified { vec![self.root.to_owned()] } else { self.hierarchies()? };
        hierarchies.iter().try_for_each(|hierarchy| remove_tree(&hierarchy.join(name)))
    }

    /// The mounted hierarchies. Links, which are second names of some hierarchies, are left out. Some hosts have a hierarchy of
    /// version 2 beside those of version 1; it limits nothing, but container runtimes use it.
    fn hierarchies(self) -> Result<Vec<PathBuf>, CgroupError> {
        let entries = fs::read_dir(self.root).map_err(file_error("cannot list", self.root))?;
        let directories = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        let paths = directories.map(|entry| entry.path());
        Ok(paths.filter(|path| path.join("cgroup.procs").exists()).collect())
    }
}

/// The files and values of the limits in version 2.
fn unified(limits: Limits) -> Vec<(&'static str, String)> {
    let mut files = vec![match limits.cpu {
        Cpu::Quota { quota, period } => ("cpu.max", format!("{quota} {period}")),
        Cpu::Shares(shares) => ("cpu.weight", weight(shares).to_string()),
    }];
    files.extend(limits.memory.map(|bytes| ("memory.max", bytes.to_string())));
    files.extend(limits.pids.map(|pids| ("pids.max", pids.to_string())));
    files
}

fn controllers(group: &Path) -> Result<Vec<String>, CgroupError> {
    let path = group.join("cgroup.controllers");
    let text = fs::read_to_string(&path).map_err(file_error("cannot read", &path))?;
    Ok(text.split_whitespace().map(str::to_owned).collect())
}

/// Enables the controllers for the groups below `group`. An error is returned only for a controller that task limits need.
fn enable_controllers(group: &Path) -> Result<(), CgroupError> {
    let file = group.join("cgroup.subtree_control");
    let enabled = fs::read_to_string(&file).unwrap_or_default();
    let is_enabled = |name: &String| enabled.split_whitespace().any(|controller| controller == name);
    for name in controllers(group)?.into_iter().filter(|name| !is_enabled(name)) {
        if CONTROLLERS.contains(&name.as_str()) {
            write(&file, &format!("+{name}"))?;
        } else if MORE_CONTROLLERS.contains(&name.as_str()) {
            let _ = fs::write(&file, format!("+{name}"));
        }
    }
    Ok(())
}

fn make_group(group: &Path) -> Result<(), CgroupError> {
    fs::create_dir_all(group).map_err(file_error("cannot create", group))
}

/// Creates and removes a group below `parent`. That `parent` exists proves nothing, since it may belong to another user.
fn probe(parent: &Path) -> Result<(), CgroupError> {
    let group = parent.join(PROBE);
    make_group(&group)?;
    match fs::remove_dir(&group) {
        // Not found: another agent on this host tests at the same time.
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(file_error("cannot remove", &group)(error)),
        _ => Ok(()),
    }
}

fn write_all(files: &[(&str, String)], group: &Path) -> Result<(), CgroupError> {
    files.iter().try_for_each(|(name, value)| write(&group.join(name), value))
}

fn write(path: &Path, value: &str) -> Result<(), CgroupError> {
    // The file is never created: the kernel does not support a limit whose file is missing.
    let file = fs::OpenOptions::new().write(true).open(path);
    match file.and_then(|mut file| io::Write::write_all(&mut file, value.as_bytes())) {
        // The group may belong to another user, as whom this agent ran earlier, and the limit may be set already.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied && has_value(path, value) => Ok(()),
        written => written.map_err(file_error("cannot write", path)),
    }
}

fn has_value(path: &Path, value: &str) -> bool {
    fs::read_to_string(path).is_ok_and(|text| text.trim() == value)
}

/// Removes a group and the groups that the engine left below it. A group's files vanish with it.
fn remove_tree(group: &Path) -> Result<(), CgroupError> {
    let Ok(entries) = fs::read_dir(group) else { return Ok(()) };
    for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        remove_tree(&entry.path())?;
    }
    match fs::remove_dir(group) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(file_error("cannot remove", group)(error)),
        _ => Ok(()),
    }
}
