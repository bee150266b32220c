//! Engine volumes that belong to a task.

use crate::acs::wire;
use ecs_core::model::TaskArn;
use ecs_core::model::resource::{VolumeScope, VolumeSpec, volume_name};
use std::collections::BTreeMap;

/// Docker's own driver.
pub(super) const LOCAL: &str = "local";

/// An engine volume that lives as long as the task.
pub(super) fn task_volume(
    task: &wire::Task,
    volume: &str,
    driver: &str,
    options: BTreeMap<String, String>,
) -> VolumeSpec {
    let arn = TaskArn::from(task.arn.as_str());
    VolumeSpec {
        runtime_name: volume_name(&arn, &task.family, &task.version, volume),
        driver: driver.to_owned(),
        options,
        labels: BTreeMap::new(),
        scope: VolumeScope::Task,
        with_role: false,
        in_network: false,
    }
}
