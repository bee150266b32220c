//! The metadata files of containers (spec `container-metadata-file.md` §1, §2).
//!
//! Pure. Owns the mounts that lead containers to their files. Two differences to the Go agent: the mount is read-only, since no
//! container has a reason to change what the agent says about it; and on the host the files are below `ECS_HOST_DATA_DIR`/`data`,
//! as those of log routers, not below `ECS_HOST_DATA_DIR` followed by `ECS_DATADIR`. With the default settings both are the same
//! directory.

use crate::acs::host::HostFacts;
use ecs_core::model::ids::is_plain_name;
use ecs_core::model::task::MetadataMount;
use ecs_core::model::{ContainerKind, ContainerSpec, TaskArn};

/// The directory in a container below which its metadata file is. A random name follows, which no mount of the customer has.
const TARGET: &str = "/opt/ecs/metadata";

/// Gives each of the customer's containers its metadata file, if the operator wants that. ECS allows only plain names of tasks
/// and containers; a container with another name gets no file, since the name would be a part of a path.
pub(super) fn add(
    containers: &mut [ContainerSpec],
    task: &TaskArn,
    host: &HostFacts,
    new_id: &mut dyn FnMut() -> String,
) {
    let Some(path) = task.path().filter(|_| host.metadata_files) else { return };
    let named = |container: &&mut ContainerSpec| {
        container.kind == ContainerKind::Normal && is_plain_name(container.name.as_str())
    };
    for container in containers.iter_mut().filter(named) {
        container.metadata_file = Some(MetadataMount {
            source: format!("{}/data/metadata/{path}/{}", host.host_data_dir.trim_end_matches('/'), container.name),
            target: format!("{TARGET}/{}", new_id()),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn added(task: &str, names: &[&str], metadata_files: bool) -> Vec<ContainerSpec> {
        let container = |name: &&str| ContainerSpec { name: (*name).into(), ..ContainerSpec::default() };
        let mut containers: Vec<_> = names.iter().map(container).collect();
        containers.push(ContainerSpec { name: "pause".into(), kind: ContainerKind::Pause, ..ContainerSpec::default() });
        let host = HostFacts { metadata_files, host_data_dir: "/srv/ecs/".to_owned(), ..HostFacts::default() };
        let mut count = 0;
        let mut new_id = || {
            count += 1;
            format!("id-{count}")
        };
        add(&mut containers, &task.into(), &host, &mut new_id);
        containers
    }

    #[test]
    fn each_container_of_the_customer_gets_its_own_file() {
        let containers = added("arn:aws:ecs:r:1:task/judge/abc", &["web", "side", "a/b"], true);
        let mounts = containers.iter().map(|container| container.metadata_file.clone());
        let mount = |name: &str, id: &str| MetadataMount {
            source: format!("/srv/ecs/data/metadata/judge/abc/{name}"),
            target: format!("/opt/ecs/metadata/{id}"),
        };
        assert_eq!(mounts.collect::<Vec<_>>(), [Some(mount("web", "id-1")), Some(mount("side", "id-2")), None, None]);
    }

    /// Also the name of the task must be plain.
    #[test]
    fn there_is_no_file_unless_the_operator_wants_it() {
        for (task, wanted) in [("arn:aws:ecs:r:1:task/judge/abc", false), ("arn:aws:ecs:r:1:task/..", true)] {
            assert!(added(task, &["web"], wanted)[0].metadata_file.is_none(), "{task}");
        }
    }
}
