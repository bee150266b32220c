//! The volumes of a task: where each comes from, and which of them the agent creates (spec `resources.md` §3).
//!
//! Owns the types of volumes and the options for their drivers. It creates nothing. The invariant: a task is refused if a volume
//! cannot be created as its definition requires; no encryption and no access rule is left out.

mod own;
mod shared_files;

use super::reason::TaskError;
use crate::acs::host::HostFacts;
use crate::acs::wire;
use ecs_core::model::ContainerName;
use ecs_core::model::resource::{ResourceKind, ResourceSpec, VolumeScope, VolumeSpec};
use own::{LOCAL, task_volume};
use std::collections::BTreeMap;

/// The volumes of one task.
#[derive(Debug, Default)]
pub(super) struct Volumes {
    /// The source of each volume, by its name in the task: a path on the host, or the name of an engine volume.
    sources: BTreeMap<String, String>,
    /// The volumes that the agent creates or looks up.
    pub(super) resources: Vec<ResourceSpec>,
}

impl Volumes {
    /// The source of the volume with this name.
    pub(super) fn source(&self, name: &str) -> Option<&str> {
        self.sources.get(name).map(String::as_str)
    }

    fn add(
        &mut self,
        task: &wire::Task,
        volume: &str,
        kind: &str,
        source: String,
        spec: Option<VolumeSpec>,
    ) -> Result<(), TaskError> {
        if self.sources.insert(volume.to_owned(), source).is_some() {
            return Err(TaskError::Unfit(format!("the volume name {volume} is not unique")));
        }
        let needed_by = users(task, volume, kind);
        if let Some(spec) = spec.filter(|_| !needed_by.is_empty()) {
            let name = format!("volume_{volume}");
            self.resources.push(ResourceSpec { name, needed_by, kind: ResourceKind::Volume(spec) });
        }
        Ok(())
    }
}

/// Translates the volumes of a task.
pub(super) fn read(task: &wire::Task, host: &HostFacts) -> Result<Volumes, TaskError> {
    let mut volumes = Volumes::default();
    let attached = shared_files::s3_files(task)?;
    for volume in &task.volumes {
        if volume.name.is_empty() {
            return Err(TaskError::Malformed("invalid volume: must include a name".to_owned()));
        }
        // The entry only names the volume; the attachment describes it.
        if attached.iter().any(|(name, _)| *name == volume.name) {
            continue;
        }
        let Some((source, spec)) = source_and_spec(task, volume, host)? else { continue };
        volumes.add(task, &volume.name, &volume.kind, source, spec)?;
    }
    for (name, spec) in attached {
        volumes.add(task, name, "s3files", spec.runtime_name.clone(), Some(spec))?;
    }
    Ok(volumes)
}

/// The containers that wait for the volume. A volume that no container mounts is created nevertheless, unless it is a path on
/// the host.
fn users(task: &wire::Task, volume: &str, kind: &str) -> Vec<ContainerName> {
    let name = |container: &wire::Container| ContainerName::from(container.name.as_str());
    let mounts =
        |container: &&wire::Container| container.mount_points.iter().any(|point| point.source_volume == volume);
    let users: Vec<_> = task.containers.iter().filter(mounts).map(name).collect();
    match kind {
        "" | "host" => users,
        _ if users.is_empty() => task.containers.iter().map(name).collect(),
        _ => users,
    }
}

/// The source of a volume, and the spec of an engine volume. `None`: a placeholder for an attachment, which supplies the volume.
fn source_and_spec(
    task: &wire::Task,
    volume: &wire::Volume,
    host: &HostFacts,
) -> Result<Option<(String, Option<VolumeSpec>)>, TaskError> {
    let empty = || TaskError::Malformed("invalid volume: empty volume configuration".to_owned());
    let unsupported = |what: &str| Err(unsupported(what, volume));
    let created = |spec: VolumeSpec| Ok(Some((spec.runtime_name.clone(), Some(spec))));
    match volume.kind.as_str() {
        "" if is_placeholder(task, volume) => Ok(None),
        "" | "host" => match &volume.host {
            None => Err(empty()),
            Some(host) if host.source_path.is_empty() => {
                created(task_volume(task, &volume.name, LOCAL, BTreeMap::new()))
            }
            Some(host) => Ok(Some((host.source_path.clone(), None))),
        },
        "docker" => created(docker(task, volume, volume.docker_volume_configuration.as_ref().ok_or_else(empty)?)?),
        "efs" => {
            let wire = volume.efs_volume_configuration.as_ref().ok_or_else(empty)?;
            created(shared_files::efs(task, volume, wire, host)?)
        }
        "attachment" => Ok(None),
        "fsxWindowsFileServer" => unsupported("a volume of FSx for Windows"),
        "amazonebs" => unsupported("a volume of EBS"),
        // ECS describes such a volume in an attachment.
        "s3files" => Err(TaskError::Malformed("invalid volume: empty s3files volume configuration".to_owned())),
        other => Err(TaskError::Malformed(format!("unrecognized volume type: \"{other}\""))),
    }
}

/// Whether an attachment of the task names this volume, and so supplies it.
fn is_placeholder(task: &wire::Task, volume: &wire::Volume) -> bool {
    let properties = task.attachments.iter().flat_map(|attachment| &attachment.attachment_properties);
    properties.into_iter().any(|property| property.name == "volumeName" && property.value == volume.name)
}

fn unsupported(what: &str, volume: &wire::Volume) -> TaskError {
    let name = &volume.name;
    TaskError::Reason(format!(
        "UnsupportedTaskError: {what} is not supported by this version of the agent (volume {name})"
    ))
}

/// Compat: every scope but `task` is shared.
fn docker(task: &wire::Task, volume: &wire::Volume, wire: &wire::DockerVolume) -> Result<VolumeSpec, TaskError> {
    let autoprovision = wire.autoprovision;
    let spec = task_volume(task, &volume.name, &wire.driver, wire.driver_opts.clone());
    let spec = VolumeSpec { labels: wire.labels.clone(), ..spec };
    match wire.scope.as_str() {
        "task" if autoprovision => {
            let cause = format!("volume [{}] : task scoped volume could not be autoprovisioned", volume.name);
            Err(TaskError::Resource(cause))
        }
        "task" => Ok(spec),
        _ => Ok(VolumeSpec { runtime_name: volume.name.clone(), scope: VolumeScope::Shared { autoprovision }, ..spec }),
    }
}

#[cfg(test)]
mod tests;
