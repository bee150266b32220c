//! The metadata files of containers (spec `container-metadata-file.md`).
//!
//! Owns `metadata/<cluster>/<task id>/<container>` in the agent's data directory, and the text of the file there. Invariants: a
//! file is complete or does not exist; a file that says `READY` is never written again; a failure is a warning and never harms
//! the container.

use super::own_files::{self, make_directory};
use super::settings::{InstanceFacts, Settings};
use crate::lane::Lane;
use ecs_core::model::ids::is_plain_name;
use ecs_core::model::metadata_file::{MetadataFile, RunningContainer};
use ecs_core::model::observation::Network;
use ecs_core::model::task::METADATA_FILE;
use ecs_core::model::{CreateRequest, PortBinding, TaskArn, with_causes};
use serde::Serialize;
use serde_json::ser::PrettyFormatter;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The beginning of a file's name while it is written.
const TEMPORARY: &str = "temp_metadata_file";
/// The mode of the directory that contains the directories of all tasks. Docker mounts those; other users of the host need no
/// access.
const TOP_MODE: u32 = 0o700;
const MODE: u32 = 0o755;
/// A longer file is not one of the agent's.
const MAX_FILE: u64 = 1024 * 1024;
/// How a complete file names its status.
const READY: &str = "READY";

/// The text of a file. Every key is left out when it is empty. Compat: the first form has no status at all, although the
/// documentation of AWS calls it `INITIAL`.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Text<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    cluster: &'a str,
    #[serde(rename = "ContainerInstanceARN", skip_serializing_if = "str::is_empty")]
    container_instance: &'a str,
    #[serde(rename = "TaskARN")]
    task: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    task_definition_family: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    task_definition_revision: &'a str,
    #[serde(rename = "ContainerID", skip_serializing_if = "str::is_empty")]
    container_id: &'a str,
    container_name: &'a str,
    #[serde(skip_serializing_if = "String::is_empty")]
    docker_container_name: String,
    #[serde(rename = "ImageID", skip_serializing_if = "str::is_empty")]
    image_id: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    image_name: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    port_mappings: Vec<Port<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    networks: Vec<Addresses<'a>>,
    #[serde(skip_serializing_if = "str::is_empty")]
    metadata_file_status: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    availability_zone: &'a str,
    #[serde(rename = "HostPrivateIPv4Address", skip_serializing_if = "str::is_empty")]
    private_ipv4: &'a str,
    #[serde(rename = "HostPublicIPv4Address", skip_serializing_if = "str::is_empty")]
    public_ipv4: &'a str,
}

/// A port. Compat: the range is always empty, since each port of a range has an entry of its own.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Port<'a> {
    container_port: u16,
    container_port_range: &'static str,
    host_port: u16,
    bind_ip: &'a str,
    protocol: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Addresses<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    network_mode: &'a str,
    #[serde(rename = "IPv4Addresses")]
    ipv4: [&'a str; 1],
    #[serde(rename = "IPv6Addresses", skip_serializing_if = "Option::is_none")]
    ipv6: Option<[&'a str; 1]>,
}

fn port(binding: &PortBinding) -> Port<'_> {
    Port {
        container_port: binding.container_port,
        container_port_range: "",
        host_port: binding.host_port,
        bind_ip: &binding.bind_ip,
        protocol: binding.protocol.as_str(),
    }
}

fn addresses(network: &Network) -> Addresses<'_> {
    Addresses {
        network_mode: &network.name,
        ipv4: [&network.ipv4],
        ipv6: (!network.ipv6.is_empty()).then_some([&network.ipv6]),
    }
}

/// The text of a file, indented with tabs, without a new line at its end.
fn text(file: &MetadataFile, facts: &InstanceFacts) -> serde_json::Result<Vec<u8>> {
    let running = file.running.as_ref();
    let known = |part: fn(&RunningContainer) -> &str| running.map(part).unwrap_or_default();
    let text = Text {
        cluster: &facts.cluster,
        container_instance: &facts.container_instance,
        task: file.task.as_str(),
        task_definition_family: &file.family,
        task_definition_revision: &file.version,
        container_id: known(|running| running.runtime_id.as_str()),
        container_name: file.container.as_str(),
        docker_container_name: running.map(|running| format!("/{}", running.runtime_name)).unwrap_or_default(),
        image_id: known(|running| &running.image_id),
        image_name: known(|running| &running.image),
        port_mappings: running.map(|running| running.bindings.iter().map(port).collect()).unwrap_or_default(),
        networks: running.map(|running| running.networks.iter().map(addresses).collect()).unwrap_or_default(),
        metadata_file_status: if running.is_some() { READY } else { "" },
        availability_zone: &facts.availability_zone,
        private_ipv4: &facts.private_ipv4,
        public_ipv4: &facts.public_ipv4,
    };
    let mut bytes = Vec::new();
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, PrettyFormatter::with_indent(b"\t"));
    text.serialize(&mut serializer)?;
    Ok(bytes)
}

/// Writes the first form of a container's file, unless it is complete already; true if it exists then. A failure is logged.
pub(super) async fn begin(settings: &Settings, disk: &Lane, request: &CreateRequest) -> bool {
    let file = MetadataFile {
        task: request.task.clone(),
        family: request.family.clone(),
        version: request.version.clone(),
        container: request.spec.name.clone(),
        running: None,
    };
    let written = write(settings, disk, file).await;
    if let Err(cause) = &written {
        let (task, container) = (request.task.task_id(), &request.spec.name);
        tracing::warn!(task, %container, cause, "Unable to create metadata for container; it gets no metadata file");
    }
    written.is_ok()
}

/// Writes the complete form of a file, unless the file is complete already. A failure is logged.
pub(super) async fn complete(settings: &Settings, disk: &Lane, file: MetadataFile) {
    let (task, container) = (file.task.clone(), file.container.clone());
    if let Err(cause) = write(settings, disk, file).await {
        tracing::warn!(task = task.task_id(), %container, cause, "Failed to update metadata file for container");
    }
}

/// Removes all files of a task. Files that do not exist are success. A failure is logged.
pub(super) async fn remove(settings: &Settings, disk: &Lane, task: &TaskArn) {
    let Some(directory) = directory(settings, task) else { return };
    let what = directory.display().to_string();
    let removed = disk.run(&what, move || fs::remove_dir_all(&directory)).await;
    let cause = match removed {
        Ok(Err(error)) if error.kind() != io::ErrorKind::NotFound => error.to_string(),
        Ok(Ok(()) | Err(_)) => return,
        Err(error) => with_causes(&error),
    };
    tracing::warn!(task = task.task_id(), directory = what, cause, "Error cleaning task metadata");
}

async fn write(settings: &Settings, disk: &Lane, file: MetadataFile) -> Result<(), String> {
    let odd_name = || "the name of the task or of the container is not plain".to_owned();
    let task = directory(settings, &file.task).ok_or_else(odd_name)?;
    let name = Some(file.container.as_str()).filter(|name| is_plain_name(name)).ok_or_else(odd_name)?;
    let bytes = text(&file, &settings.instance).map_err(|error| error.to_string())?;
    let (top, directory) = (settings.data_dir.join("metadata"), task.join(name));
    let what = directory.display().to_string();
    let work = move || match file.running.is_some() {
        true => write_complete(&directory, &bytes),
        false => write_first(&top, &directory, &bytes),
    };
    let done = disk.run(&what, work).await.map_err(|error| with_causes(&error))?;
    done.map_err(|error| format!("{what}: {error}"))
}

/// The directory of a task's files; `None` if the name of the task is not plain.
fn directory(settings: &Settings, task: &TaskArn) -> Option<PathBuf> {
    Some(settings.data_dir.join("metadata").join(task.path()?))
}

/// Writes the first form, and makes its directory. `top` is the directory of all tasks.
fn write_first(top: &Path, directory: &Path, bytes: &[u8]) -> io::Result<()> {
    if let Some(data) = top.parent() {
        fs::create_dir_all(data)?;
    }
    make_directory(top, TOP_MODE)?;
    let below = directory.strip_prefix(top).unwrap_or(directory);
    let mut path = top.to_owned();
    for part in below {
        path.push(part);
        make_directory(&path, MODE)?;
    }
    write_complete(directory, bytes)
}

/// Writes a file into a directory that exists. After the clean-up of the task there is none, and none is made.
fn write_complete(directory: &Path, bytes: &[u8]) -> io::Result<()> {
    let file = directory.join(METADATA_FILE);
    if is_complete(&file) {
        return Ok(());
    }
    own_files::write(&directory.join(TEMPORARY), &file, bytes)
}

/// Whether a file is complete. A file that cannot be read is not.
fn is_complete(file: &Path) -> bool {
    #[derive(serde::Deserialize)]
    struct Status {
        #[serde(rename = "MetadataFileStatus", default)]
        status: String,
    }
    let is_short = file.symlink_metadata().is_ok_and(|found| found.is_file() && found.len() <= MAX_FILE);
    let text = is_short.then(|| fs::read(file).ok()).flatten().unwrap_or_default();
    serde_json::from_slice::<Status>(&text).is_ok_and(|found| found.status == READY)
}

#[cfg(test)]
mod tests;
