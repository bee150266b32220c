//! The JSON shape of a container (spec `task-metadata.md` §4.2, §6.2).
//!
//! Owns the names of the members, their order, and which are left out when empty. Invariant: a value that the engine has not given
//! yet is left out or empty, never invented.

use super::network::{Addresses, networks};
use super::place::{Wall, wall_text};
use super::version::Version;
use ecs_core::model::observation::Mount;
use ecs_core::model::task::NetworkMode;
use ecs_core::model::view::{ContainerView, TaskView};
use ecs_core::model::{ContainerKind, ContainerStatus, Health, PortBinding};
use serde::Serialize;
use std::collections::BTreeMap;

/// The kernel's minimum of CPU shares, which a container without CPU units gets.
const MIN_CPU: u32 = 2;

/// A container, alone or in its task. `networks` and what follows it in the second half are members of version 4, which has the
/// networks at another place than version 3.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Container<'a> {
    docker_id: &'a str,
    name: &'a str,
    docker_name: &'a str,
    image: &'a str,
    #[serde(rename = "ImageID")]
    image_id: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ports: Vec<Port<'a>>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    labels: &'a BTreeMap<String, String>,
    desired_status: &'static str,
    known_status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_code: Option<i32>,
    limits: Limits,
    #[serde(skip_serializing_if = "Option::is_none")]
    created_at: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    started_at: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    finished_at: Option<&'a str>,
    r#type: &'static str,
    #[serde(rename = "Networks", skip_serializing_if = "Vec::is_empty")]
    networks_of_v3: Vec<Addresses<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    health: Option<Checked<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    volumes: Vec<Volume<'a>>,
    #[serde(skip_serializing_if = "str::is_empty")]
    log_driver: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    log_options: Option<&'a BTreeMap<String, String>>,
    #[serde(rename = "ContainerARN", skip_serializing_if = "str::is_empty")]
    container_arn: &'a str,
    #[serde(rename = "Networks", skip_serializing_if = "Vec::is_empty")]
    networks_of_v4: Vec<Addresses<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    restart_count: Option<u32>,
}

/// A published port. The host address is a member of version 4 only, so in version 3 a port that is bound on IPv4 and on IPv6
/// appears twice, as in the Go agent.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Port<'a> {
    #[serde(skip_serializing_if = "is_zero")]
    container_port: u16,
    protocol: &'static str,
    #[serde(skip_serializing_if = "is_zero")]
    host_port: u16,
    #[serde(skip_serializing_if = "str::is_empty")]
    host_ip: &'a str,
}

/// `CPU` in CPU units, `Memory` in MiB; 0 is written.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Limits {
    #[serde(rename = "CPU")]
    cpu: u32,
    memory: u32,
}

/// The health of a container with a health check.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Checked<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Health>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status_since: Option<String>,
    #[serde(skip_serializing_if = "is_no_failure")]
    exit_code: i32,
    #[serde(skip_serializing_if = "str::is_empty")]
    output: &'a str,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Volume<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    docker_name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    source: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    destination: &'a str,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(port: &u16) -> bool {
    *port == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_no_failure(exit_code: &i32) -> bool {
    *exit_code == 0
}

impl<'a> Container<'a> {
    pub(super) fn new(task: &'a TaskView, view: &'a ContainerView, version: Version, wall: &Wall) -> Self {
        let is_v4 = version == Version::V4;
        let bound = if view.ports_are_bound { view.ports.as_slice() } else { &[] };
        let networks = networks(task, view, version);
        let (networks_of_v3, networks_of_v4) = if is_v4 { (Vec::new(), networks) } else { (networks, Vec::new()) };
        Self {
            docker_id: view.runtime_id.as_ref().map(|id| id.as_str()).unwrap_or_default(),
            name: view.name.as_str(),
            docker_name: &view.runtime_name,
            image: &view.image,
            image_id: &view.image_id,
            ports: bound.iter().map(|binding| Port::new(binding, is_v4)).collect(),
            labels: view.labels.get(),
            // The network is wanted from the start on.
            desired_status: shown(task, view, view.desired, true),
            known_status: shown(task, view, view.known, task.network_is_up),
            exit_code: view.exit_code,
            limits: Limits { cpu: view.cpu.max(MIN_CPU), memory: view.memory },
            created_at: view.created_at.as_deref(),
            started_at: view.started_at.as_deref(),
            finished_at: view.finished_at.as_deref(),
            r#type: match view.kind {
                ContainerKind::Normal => "NORMAL",
                ContainerKind::Pause if task.network == NetworkMode::Awsvpc => "CNI_PAUSE",
                ContainerKind::Pause => "NAMESPACE_PAUSE",
            },
            networks_of_v3,
            health: view.has_health_check.then(|| Checked::new(view, wall)),
            volumes: view.mounts.iter().map(Volume::new).collect(),
            log_driver: if is_v4 { &view.log.driver } else { "" },
            log_options: Some(view.log.options.get()).filter(|options| is_v4 && !options.is_empty()),
            container_arn: if is_v4 { &view.arn } else { "" },
            networks_of_v4,
            restart_count: view.restarts.filter(|_| is_v4),
        }
    }
}

impl<'a> Port<'a> {
    fn new(binding: &'a PortBinding, with_address: bool) -> Self {
        Self {
            container_port: binding.container_port,
            protocol: binding.protocol.as_str(),
            host_port: binding.host_port,
            host_ip: if with_address { &binding.bind_ip } else { "" },
        }
    }
}

/// The status of a container in words. `has_network`: a pause container that runs with this status has the task's network set up.
fn shown(task: &TaskView, container: &ContainerView, status: ContainerStatus, has_network: bool) -> &'static str {
    let is_network = container.kind == ContainerKind::Pause && task.network == NetworkMode::Awsvpc;
    match status {
        ContainerStatus::Running if is_network && has_network => "RESOURCES_PROVISIONED",
        status => status.name(),
    }
}

impl<'a> Checked<'a> {
    fn new(view: &'a ContainerView, wall: &Wall) -> Self {
        Self {
            status: Some(view.health).filter(|health| *health != Health::Unknown),
            status_since: view.health_since.map(|at| wall_text(wall, at)),
            // The Go agent goes on showing the exit code of a failed check when the container is healthy again.
            exit_code: view.health_check.exit_code,
            output: &view.health_check.output,
        }
    }
}

impl<'a> Volume<'a> {
    fn new(mount: &'a Mount) -> Self {
        Self { docker_name: &mount.volume, source: &mount.source, destination: &mount.destination }
    }
}
