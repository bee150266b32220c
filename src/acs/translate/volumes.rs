//! The volumes of a task: where each comes from, and which of them the agent creates (spec `resources.md` §3).
//!
//! Owns the types of volumes and the options for their drivers. It creates nothing. The invariant: a task is refused if a volume
//! cannot be created as its definition requires; no encryption and no access rule is left out.

use super::reason::TaskError;
use crate::acs::host::HostFacts;
use crate::acs::wire;
use ecs_core::model::resource::{ResourceKind, ResourceSpec, VolumeScope, VolumeSpec, volume_name};
use ecs_core::model::{ContainerName, TaskArn};
use std::collections::BTreeMap;

const LOCAL: &str = "local";
/// The volume plugin of ecs-init, which mounts with `mount.efs`.
const PLUGIN: &str = "amazon-ecs-volume-plugin";
/// The capability in [`HostFacts::volume_plugin`] of a plugin that mounts EFS.
const EFS_AUTH: &str = "efsAuth";
const NFS_OPTIONS: &str = "nfsvers=4.1,rsize=1048576,wsize=1048576,hard,timeo=600,retrans=2,noresvport";

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
}

/// Translates the volumes of a task.
pub(super) fn read(task: &wire::Task, host: &HostFacts) -> Result<Volumes, TaskError> {
    let mut volumes = Volumes::default();
    for volume in &task.volumes {
        if volume.name.is_empty() {
            return Err(TaskError::Malformed("invalid volume: must include a name".to_owned()));
        }
        let Some((source, spec)) = source_and_spec(task, volume, host)? else { continue };
        let previous = volumes.sources.insert(volume.name.clone(), source);
        if previous.is_some() {
            return Err(TaskError::Unfit(format!("the volume name {} is not unique", volume.name)));
        }
        let needed_by = users(task, volume);
        if let Some(spec) = spec.filter(|_| !needed_by.is_empty()) {
            let name = format!("volume_{}", volume.name);
            volumes.resources.push(ResourceSpec { name, needed_by, kind: ResourceKind::Volume(spec) });
        }
    }
    Ok(volumes)
}

/// The containers that wait for the volume. A volume that no container mounts is created nevertheless, unless it is a path on
/// the host.
fn users(task: &wire::Task, volume: &wire::Volume) -> Vec<ContainerName> {
    let name = |container: &wire::Container| ContainerName::from(container.name.as_str());
    let mounts =
        |container: &&wire::Container| container.mount_points.iter().any(|point| point.source_volume == volume.name);
    let users: Vec<_> = task.containers.iter().filter(mounts).map(name).collect();
    match volume.kind.as_str() {
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
            Some(host) if host.source_path.is_empty() => created(task_volume(task, volume, LOCAL, BTreeMap::new())),
            Some(host) => Ok(Some((host.source_path.clone(), None))),
        },
        "docker" => created(docker(task, volume, volume.docker_volume_configuration.as_ref().ok_or_else(empty)?)?),
        "efs" => created(efs(task, volume, volume.efs_volume_configuration.as_ref().ok_or_else(empty)?, host)?),
        "attachment" => Ok(None),
        "fsxWindowsFileServer" => unsupported("a volume of FSx for Windows"),
        "amazonebs" => unsupported("a volume of EBS"),
        "s3files" => unsupported("a volume of S3 Files"),
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

/// An engine volume that lives as long as the task.
fn task_volume(
    task: &wire::Task,
    volume: &wire::Volume,
    driver: &str,
    options: BTreeMap<String, String>,
) -> VolumeSpec {
    let arn = TaskArn::from(task.arn.as_str());
    VolumeSpec {
        runtime_name: volume_name(&arn, &task.family, &task.version, &volume.name),
        driver: driver.to_owned(),
        options,
        labels: BTreeMap::new(),
        scope: VolumeScope::Task,
    }
}

/// Compat: every scope but `task` is shared.
fn docker(task: &wire::Task, volume: &wire::Volume, wire: &wire::DockerVolume) -> Result<VolumeSpec, TaskError> {
    let autoprovision = wire.autoprovision;
    let spec = task_volume(task, volume, &wire.driver, wire.driver_opts.clone());
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

/// An EFS volume. The volume plugin mounts it as the task definition requires. Without the plugin, a volume that needs
/// encryption in transit or an access point is refused; any other is mounted over plain NFS.
fn efs(
    task: &wire::Task,
    volume: &wire::Volume,
    wire: &wire::EfsVolume,
    host: &HostFacts,
) -> Result<VolumeSpec, TaskError> {
    let (id, root, authorization) = (&wire.file_system_id, &wire.root_directory, &wire.authorization_config);
    let is_encrypted = wire.transit_encryption == "ENABLED";
    if authorization.iam == "ENABLED" {
        return Err(unsupported("an EFS volume with IAM authorization, which needs a task role,", volume));
    }
    let map = |kind: &str, device: String, options: String| {
        let options = [("type", kind.to_owned()), ("device", device), ("o", options)];
        options.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    };
    if !host.volume_plugin.contains(EFS_AUTH) {
        if is_encrypted || !authorization.access_point_id.is_empty() {
            let why = "needs the volume plugin, which this instance does not have";
            return Err(TaskError::Reason(format!(
                "UnsupportedTaskError: an EFS volume with transit encryption or an access point {why} (volume {})",
                volume.name
            )));
        }
        let address = format!("{id}.efs.{}.{}", host.region, dns_suffix(&host.region));
        let options = map("nfs", format!(":{root}"), format!("addr={address},{NFS_OPTIONS}"));
        return Ok(task_volume(task, volume, LOCAL, options));
    }
    let mut options = Vec::new();
    if is_encrypted {
        options.push("tls".to_owned());
    }
    if wire.transit_encryption_port != 0 {
        options.push(format!("tlsport={}", wire.transit_encryption_port));
    }
    if !authorization.access_point_id.is_empty() {
        options.push(format!("accesspoint={}", authorization.access_point_id));
    }
    let device = if root.is_empty() { id.clone() } else { format!("{id}:{root}") };
    Ok(task_volume(task, volume, PLUGIN, map("efs", device, options.join(","))))
}

/// The domain of AWS services in a region.
fn dns_suffix(region: &str) -> &'static str {
    let partitions = [
        ("cn-", "amazonaws.com.cn"),
        ("us-isob-", "sc2s.sgov.gov"),
        ("us-isof-", "csp.hci.ic.gov"),
        ("us-iso-", "c2s.ic.gov"),
        ("eu-isoe-", "cloud.adc-e.uk"),
        ("eusc-", "amazonaws.eu"),
    ];
    let found = partitions.iter().find(|(prefix, _)| region.starts_with(prefix));
    found.map_or("amazonaws.com", |(_, suffix)| suffix)
}

#[cfg(test)]
mod tests;
