//! Environment files of containers (spec `resources.md` §5).
//!
//! Pure. An ARN is not checked here: as in the Go agent, an error in it is found when the edge `crate::resources` fetches the
//! file.

use crate::acs::wire;
use ecs_core::model::resource::{EnvironmentFile, ResourceSpec};
use ecs_core::model::{ContainerName, ResourceKind};

/// One resource for each container with environment files.
pub(super) fn resources(containers: &mut [wire::Container]) -> Result<Vec<ResourceSpec>, String> {
    let with_files = containers.iter_mut().filter(|container| !container.environment_files.is_empty());
    with_files
        .map(|container| {
            let files = std::mem::take(&mut container.environment_files).into_iter().map(file);
            Ok(ResourceSpec {
                name: format!("envfile_{}", container.name),
                needed_by: vec![ContainerName::from(container.name.as_str())],
                kind: ResourceKind::EnvironmentFiles(files.collect::<Result<_, _>>()?),
            })
        })
        .collect()
}

fn file(wire: wire::EnvironmentFile) -> Result<EnvironmentFile, String> {
    match wire.kind.as_str() {
        "" | "s3" => Ok(EnvironmentFile { arn: wire.value }),
        other => Err(format!("unrecognized type {other} of an environment file")),
    }
}
