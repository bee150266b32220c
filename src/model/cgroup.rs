//! The control group of a task, in the words of the container engine.

use super::TaskArn;

/// Who makes the control groups of an engine's containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CgroupDriver {
    /// The engine itself, as directories.
    Cgroupfs,
    /// systemd: only what it is told lasts.
    Systemd,
}

/// The parent of all containers of a task (spec `docker-mapping.md` §4): a path below the cgroup file system, or a slice. The dash
/// puts the slice into `ecstasks.slice`.
pub fn cgroup_parent(driver: CgroupDriver, task: &TaskArn) -> String {
    let id = task.task_id();
    match driver {
        CgroupDriver::Cgroupfs => format!("/ecs/{id}"),
        // Ids are hexadecimal; a dash, which would mean another level, is written as systemd does it.
        CgroupDriver::Systemd => format!("ecstasks-{}.slice", id.replace('-', "\\x2d")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_or_a_slice_by_the_id_of_the_task() {
        let task = TaskArn::from("arn:aws:ecs:r:1:task/c/319892675625455485f5c720b4cd7692");
        assert_eq!(cgroup_parent(CgroupDriver::Cgroupfs, &task), "/ecs/319892675625455485f5c720b4cd7692");
        assert_eq!(cgroup_parent(CgroupDriver::Systemd, &task), "ecstasks-319892675625455485f5c720b4cd7692.slice");
        assert_eq!(cgroup_parent(CgroupDriver::Systemd, &"t/a-b".into()), "ecstasks-a\\x2db.slice");
    }
}
