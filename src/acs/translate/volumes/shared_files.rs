//! Volumes of EFS and of S3 Files, which the volume plugin of ecs-init mounts (spec `resources.md` §3.1, §3.2).
//!
//! Owns the options for the plugin and, for EFS without it, for NFS. The invariants: a volume that is mounted with the task role is
//! refused if the task has none; the plugin would mount it with the rights of the instance. The plugin mounts the volumes of a task
//! with a network of its own in that network.

use super::own::{LOCAL, task_volume};
use crate::acs::host::HostFacts;
use crate::acs::translate::reason::TaskError;
use crate::acs::wire;
use ecs_core::model::resource::{NAMESPACE_PATH, ROLE_PATH, VolumeSpec};
use std::collections::BTreeMap;

/// The volume plugin of ecs-init, which mounts with `mount.efs` and `mount.s3files`.
pub(super) const PLUGIN: &str = "amazon-ecs-volume-plugin";
/// The capability in [`HostFacts::volume_plugin`] of a plugin that mounts EFS.
pub(super) const EFS_AUTH: &str = "efsAuth";
/// Options of NFS that EFS recommends.
pub(super) const NFS_OPTIONS: &str = "nfsvers=4.1,rsize=1048576,wsize=1048576,hard,timeo=600,retrans=2,noresvport";
/// The type of an attachment that is a volume of S3 Files.
const S3_FILES: &str = "s3files";

/// An EFS volume. The volume plugin mounts it as the task definition requires. Without the plugin, a volume that needs
/// encryption in transit, an access point or IAM authorization is refused (the Go agent mounts it without them); any other is
/// mounted over plain NFS.
pub(super) fn efs(
    task: &wire::Task,
    volume: &wire::Volume,
    wire: &wire::EfsVolume,
    host: &HostFacts,
) -> Result<VolumeSpec, TaskError> {
    let (id, root, authorization) = (&wire.file_system_id, &wire.root_directory, &wire.authorization_config);
    let is_encrypted = wire.transit_encryption == "ENABLED";
    let with_role = authorization.iam == "ENABLED";
    if !host.volume_plugin.contains(EFS_AUTH) {
        if is_encrypted || with_role || !authorization.access_point_id.is_empty() {
            let what = "an EFS volume with transit encryption, an access point or IAM authorization";
            return Err(refused(
                &format!("{what} needs the volume plugin, which this instance does not have"),
                &volume.name,
            ));
        }
        // Compat: also for a task with a network of its own. Docker mounts the volume when a container starts, and only in the
        // network of the host.
        let address = format!("{id}.efs.{}.{}", host.region, dns_suffix(&host.region));
        let options = options("nfs", format!(":{root}"), format!("addr={address},{NFS_OPTIONS}"));
        return Ok(task_volume(task, &volume.name, LOCAL, options));
    }
    if with_role {
        needs_role(task, "an EFS volume with IAM authorization", &volume.name)?;
    }
    let port = (wire.transit_encryption_port != 0).then(|| wire.transit_encryption_port.to_string());
    let mount = Mount { is_encrypted, port: port.as_deref(), with_role, access_point: &authorization.access_point_id };
    Ok(mount.volume(task, &volume.name, "efs", device(id, root)))
}

/// A volume of S3 Files, as its attachment describes it.
#[derive(Default)]
struct S3Files<'a> {
    id: &'a str,
    name: &'a str,
    root: &'a str,
    port: &'a str,
    access_point: &'a str,
}

/// The names of the volumes of S3 Files among the attachments of the task, each with its spec. They are always encrypted, and
/// always mounted with the task role.
pub(super) fn s3_files(task: &wire::Task) -> Result<Vec<(&str, VolumeSpec)>, TaskError> {
    let attachments = task.attachments.iter().filter(|attachment| attachment.attachment_type == S3_FILES);
    let volumes = attachments.map(|attachment| {
        let invalid = |why| TaskError::Malformed(format!("unable to parse and validate S3 Files volume: {why}"));
        let S3Files { id, name, root, port, access_point } = s3_files_volume(attachment).map_err(invalid)?;
        needs_role(task, "a volume of S3 Files", name)?;
        let port = Some(port).filter(|port| !port.is_empty());
        let mount = Mount { is_encrypted: true, port, with_role: true, access_point };
        Ok((name, mount.volume(task, name, S3_FILES, device(id, root))))
    });
    volumes.collect()
}

/// Compat: unknown properties are ignored, and an empty value is an error even there. Of a property that occurs twice, the last
/// value counts.
fn s3_files_volume(attachment: &wire::Attachment) -> Result<S3Files<'_>, String> {
    let mut volume = S3Files::default();
    for wire::Property { name, value } in &attachment.attachment_properties {
        if value.is_empty() {
            return Err(format!("failed to parse s3files attachment, encountered empty value for property: {name}"));
        }
        match name.as_str() {
            "volumeId" => volume.id = value,
            "volumeName" => volume.name = value,
            "s3FilesRootDirectory" => volume.root = value,
            "s3FilesTransitEncryptionPort" => volume.port = value,
            "s3FilesAccessPointId" => volume.access_point = value,
            _ => {}
        }
    }
    match [("volumeId", volume.id), ("volumeName", volume.name)].into_iter().find(|(_, value)| value.is_empty()) {
        Some((missing, _)) => Err(format!("missing {missing} in the S3 Files config")),
        None => Ok(volume),
    }
}

/// How the plugin mounts a volume.
struct Mount<'a> {
    is_encrypted: bool,
    /// The local port of the encrypted connection; `None`: the plugin chooses it.
    port: Option<&'a str>,
    with_role: bool,
    /// Empty: none.
    access_point: &'a str,
}

impl Mount<'_> {
    /// The spec of the volume, with the mount options in the order of the Go agent.
    fn volume(&self, task: &wire::Task, name: &str, kind: &str, device: String) -> VolumeSpec {
        let in_network = task.network_mode == "awsvpc";
        let credentials = self.with_role.then(|| format!("iam,awscredsuri={ROLE_PATH}"));
        let access_point = Some(self.access_point).filter(|point| !point.is_empty());
        let mount_options = [
            self.is_encrypted.then(|| "tls".to_owned()),
            self.port.map(|port| format!("tlsport={port}")),
            credentials,
            access_point.map(|point| format!("accesspoint={point}")),
            in_network.then(|| format!("netns={NAMESPACE_PATH}")),
        ];
        let mount_options = mount_options.into_iter().flatten().collect::<Vec<_>>().join(",");
        let volume = task_volume(task, name, PLUGIN, options(kind, device, mount_options));
        VolumeSpec { with_role: self.with_role, in_network, ..volume }
    }
}

fn device(id: &str, root: &str) -> String {
    if root.is_empty() { id.to_owned() } else { format!("{id}:{root}") }
}

fn options(kind: &str, device: String, mount_options: String) -> BTreeMap<String, String> {
    let options = [("type", kind.to_owned()), ("device", device), ("o", mount_options)];
    options.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// The Go agent leaves the path of the credentials out if the task has no role, and the plugin mounts with the instance's role.
fn needs_role(task: &wire::Task, what: &str, volume: &str) -> Result<(), TaskError> {
    match &task.role_credentials {
        Some(_) => Ok(()),
        None => Err(refused(&format!("{what} needs a task role (taskRoleArn), which this task does not have"), volume)),
    }
}

fn refused(why: &str, volume: &str) -> TaskError {
    TaskError::Reason(format!("UnsupportedTaskError: {why} (volume {volume})"))
}

/// The domain of AWS services in a region.
pub(super) fn dns_suffix(region: &str) -> &'static str {
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
