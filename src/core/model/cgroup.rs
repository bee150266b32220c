//! The control group of a task, in the form that Docker takes.

use super::TaskArn;

/// The driver that creates the control groups of Docker's containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CgroupDriver {
    /// Docker itself creates them, as directories.
    Cgroupfs,
    /// systemd creates them. Limits that are set without systemd do not last.
    Systemd,
}

/// The parent control group of all containers of a task (spec `docker-mapping.md` §4): a path below the cgroup file system, or a
/// slice. The dash puts the slice into `ecstasks.slice`.
pub fn cgroup_parent(driver: CgroupDriver, task: &TaskArn) -> String {
    let id = task.task_id();
    match driver {
        CgroupDriver::Cgroupfs => format!("/ecs/{id}"),
        // Ids are hexadecimal. A dash would mean another level, so it is escaped as systemd escapes it.
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
