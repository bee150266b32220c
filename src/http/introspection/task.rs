//! The JSON shapes of `/v1/tasks`, made from the view.
//!
//! Owns the names of the fields, their order, and which are left out when empty. Only this endpoint has these shapes: the task
//! metadata endpoint (v2 to v4) spells statuses differently. Invariant: a value that the engine has not given yet is left out,
//! never invented.

use crate::http::task_metadata::{Addresses, task_addresses};
use ecs_core::model::observation::Mount;
use ecs_core::model::view::{ContainerView, TaskView};
use ecs_core::model::{ContainerKind, PortBinding, TaskStatus};
use serde::Serialize;

/// The engine's text for a time that is not set.
const NO_TIME: &str = "0001-01-01T00:00:00Z";

/// `{"Tasks":[…]}`
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Tasks<'a> {
    tasks: Vec<Task<'a>>,
}

/// One task, as an element of the list or as the whole answer.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Task<'a> {
    arn: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    desired_status: &'a str,
    known_status: &'a str,
    family: &'a str,
    version: &'a str,
    containers: Option<Vec<Container<'a>>>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Container<'a> {
    docker_id: &'a str,
    docker_name: &'a str,
    name: &'a str,
    image: &'a str,
    #[serde(rename = "ImageID")]
    image_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    created_at: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    started_at: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ports: Vec<Port>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    networks: Vec<Addresses<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    volumes: Vec<Volume<'a>>,
}

/// The host address of a binding is never shown, so a port bound on IPv4 and on IPv6 appears twice, as in the Go agent.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Port {
    #[serde(skip_serializing_if = "is_zero")]
    container_port: u16,
    protocol: &'static str,
    #[serde(skip_serializing_if = "is_zero")]
    host_port: u16,
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

impl<'a> Tasks<'a> {
    pub(super) fn new(tasks: &[&'a TaskView]) -> Self {
        Self { tasks: tasks.iter().copied().map(Task::new).collect() }
    }
}

impl<'a> Task<'a> {
    /// The body of an error: the empty value, not a message.
    pub(super) const ZERO: Self =
        Self { arn: "", desired_status: "", known_status: "", family: "", version: "", containers: None };

    pub(super) fn new(task: &'a TaskView) -> Self {
        Self {
            arn: task.arn.as_str(),
            desired_status: desired_status(task.known, task.desired),
            known_status: task.known.backend(),
            family: &task.family,
            version: &task.version,
            containers: Some(task.containers.iter().filter_map(|container| Container::new(task, container)).collect()),
        }
    }
}

impl<'a> Container<'a> {
    /// `None` for a container that is not created yet or that is the agent's own.
    fn new(task: &'a TaskView, container: &'a ContainerView) -> Option<Self> {
        if container.kind != ContainerKind::Normal {
            return None;
        }
        Some(Self {
            docker_id: container.runtime_id.as_ref()?.as_str(),
            docker_name: &container.runtime_name,
            name: container.name.as_str(),
            image: &container.image,
            image_id: &container.image_id,
            created_at: moment(container.created_at.as_deref()),
            started_at: moment(container.started_at.as_deref()),
            ports: container.ports.iter().map(Port::new).collect(),
            networks: task_addresses(task, false),
            volumes: container.mounts.iter().map(Volume::new).collect(),
        })
    }
}

impl Port {
    fn new(binding: &PortBinding) -> Self {
        Self {
            container_port: binding.container_port,
            protocol: binding.protocol.as_str(),
            host_port: binding.host_port,
        }
    }
}

impl<'a> Volume<'a> {
    fn new(mount: &'a Mount) -> Self {
        Self { docker_name: &mount.volume, source: &mount.source, destination: &mount.destination }
    }
}

/// Compat: empty while the desired status lags behind the known status. This is so for a task that stopped by itself, and for
/// one that runs while its desired status is still the initial one.
fn desired_status(known: TaskStatus, desired: TaskStatus) -> &'static str {
    match (known.backend(), desired.backend()) {
        ("STOPPED", "PENDING" | "RUNNING") | ("RUNNING", "PENDING") => "",
        (_, desired) => desired,
    }
}

fn moment(time: Option<&str>) -> Option<&str> {
    time.filter(|time| !time.is_empty() && *time != NO_TIME)
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde prescribes the signature")]
fn is_zero(port: &u16) -> bool {
    *port == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn desired_status_is_blank_when_it_lags_behind() {
        use TaskStatus::{Created, ManifestPulled, None, Running, Stopped};
        let cases = [
            (None, Running, "RUNNING"),
            (ManifestPulled, None, "PENDING"),
            (Created, Stopped, "STOPPED"),
            (Running, Running, "RUNNING"),
            (Running, Stopped, "STOPPED"),
            (Running, Created, ""),
            (Stopped, Running, ""),
            (Stopped, None, ""),
            (Stopped, Stopped, "STOPPED"),
        ];
        for (known, desired, expected) in cases {
            assert_eq!(desired_status(known, desired), expected, "{known} {desired}");
        }
    }

    #[test]
    fn a_time_that_has_not_been_is_left_out() {
        assert_eq!(moment(None), None);
        assert_eq!(moment(Some("")), None);
        assert_eq!(moment(Some(NO_TIME)), None);
        assert_eq!(moment(Some("2026-11-21T23:36:38.63Z")), Some("2026-11-21T23:36:38.63Z"));
    }
}
