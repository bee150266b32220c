//! Settings of the control groups.

use crate::cgroup::Settings;
use crate::config::Config;
use ecs_core::model::CgroupDriver;

/// The settings. `driver`: the one that Docker uses.
pub(crate) fn settings(config: &Config, driver: CgroupDriver) -> Settings {
    Settings {
        root: config.cgroup_path.clone(),
        driver,
        cpu_period: config.cgroup_cpu_period,
        pids: config.task_pids_limit,
    }
}
