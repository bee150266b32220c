//! The JSON shape of a task (spec `task-metadata.md` §4.1, §6.1).
//!
//! Owns the names of the members, their order, and which are left out when empty.

use super::container::Container;
use super::place::{Place, Wall, wall_text};
use super::tags::{Tags, TagsProblem};
use super::version::Version;
use ecs_core::model::view::{ContainerView, TaskView};
use ecs_core::model::{ContainerStatus, TaskStatus};
use serde::Serialize;
use std::collections::BTreeMap;

/// A task. Version 4 has the containers at another place than version 3, and members of its own after them.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Task<'a> {
    cluster: &'a str,
    #[serde(rename = "TaskARN")]
    arn: &'a str,
    family: &'a str,
    revision: &'a str,
    desired_status: TaskStatus,
    known_status: TaskStatus,
    #[serde(rename = "Containers", skip_serializing_if = "Vec::is_empty")]
    containers_of_v3: Vec<Container<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limits: Option<Limits>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pull_started_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pull_stopped_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    execution_stopped_at: Option<String>,
    #[serde(skip_serializing_if = "str::is_empty")]
    availability_zone: &'a str,
    #[serde(skip_serializing_if = "is_missing")]
    task_tags: Option<&'a BTreeMap<String, String>>,
    #[serde(skip_serializing_if = "is_missing")]
    container_instance_tags: Option<&'a BTreeMap<String, String>>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    v4_members: Option<V4Members<'a>>,
}

/// The members that only version 4 has.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct V4Members<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    launch_type: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<Problem<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    containers: Vec<Container<'a>>,
    #[serde(rename = "VPCID", skip_serializing_if = "str::is_empty")]
    vpc_id: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    service_name: &'a str,
    fault_injection_enabled: bool,
    #[serde(rename = "AvailabilityZoneID", skip_serializing_if = "str::is_empty")]
    availability_zone_id: &'a str,
}

/// `CPU` in vCPUs, `Memory` in MiB; each left out when there is no such limit.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Limits {
    #[serde(rename = "CPU", skip_serializing_if = "Option::is_none")]
    cpu: Option<Vcpus>,
    #[serde(skip_serializing_if = "Option::is_none")]
    memory: Option<u64>,
}

/// A number of vCPUs. Like Go, writes a whole number without a fraction.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Vcpus {
    Whole(u64),
    Part(f64),
}

/// Why tags are missing.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Problem<'a> {
    error_field: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    error_code: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    error_message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    status_code: Option<u16>,
    #[serde(skip_serializing_if = "str::is_empty")]
    request_id: &'a str,
    #[serde(rename = "ResourceARN")]
    resource: &'a str,
}

fn is_missing(tags: &Option<&BTreeMap<String, String>>) -> bool {
    tags.is_none_or(BTreeMap::is_empty)
}

const MICROS: u64 = 1_000_000;

impl<'a> Task<'a> {
    /// `tags`: `None` if they are not asked for.
    pub(super) fn new(
        view: &'a TaskView,
        version: Version,
        place: &'a Place,
        wall: &Wall,
        tags: Option<&'a Tags>,
    ) -> Self {
        let container = |container: &'a ContainerView| Container::new(view, container, version, wall);
        let created = view.containers.iter().filter(|container| container.runtime_id.is_some());
        let created: Vec<_> = created.map(container).collect();
        let moment = |at: Option<_>| at.map(|at| wall_text(wall, at));
        let is_v4 = version == Version::V4;
        let mut task = Self {
            cluster: &place.cluster,
            arn: view.arn.as_str(),
            family: &view.family,
            revision: &view.version,
            desired_status: view.desired,
            known_status: view.known,
            containers_of_v3: Vec::new(),
            limits: Limits::new(view),
            pull_started_at: moment(view.pull_started_at),
            pull_stopped_at: moment(view.pull_stopped_at),
            execution_stopped_at: moment(view.execution_stopped_at),
            availability_zone: &place.availability_zone,
            task_tags: tags.and_then(|tags| tags.task.as_ref().ok()),
            container_instance_tags: tags.and_then(|tags| tags.instance.as_ref().ok()),
            v4_members: None,
        };
        if !is_v4 {
            task.containers_of_v3 = created;
            return task;
        }
        let is_pulled = |container: &&'a ContainerView| {
            container.known == ContainerStatus::Pulled && container.runtime_id.is_none()
        };
        task.v4_members = Some(V4Members {
            launch_type: &view.launch_type,
            errors: tags.map(|tags| problems(tags, view, place)).unwrap_or_default(),
            containers: created.into_iter().chain(view.containers.iter().filter(is_pulled).map(container)).collect(),
            vpc_id: &place.vpc_id,
            service_name: &view.service_name,
            fault_injection_enabled: view.fault_injection,
            availability_zone_id: &place.availability_zone_id,
        });
        task
    }
}

impl Limits {
    fn new(view: &TaskView) -> Option<Self> {
        let cpu = match (view.cpu_micros / MICROS, view.cpu_micros % MICROS) {
            (whole, 0) => Vcpus::Whole(whole),
            _ => Vcpus::Part(view.cpu_micros as f64 / MICROS as f64),
        };
        let limits =
            Self { cpu: (view.cpu_micros > 0).then_some(cpu), memory: (view.memory > 0).then_some(view.memory) };
        (limits.cpu.is_some() || limits.memory.is_some()).then_some(limits)
    }
}

fn problems<'a>(tags: &'a Tags, view: &'a TaskView, place: &'a Place) -> Vec<Problem<'a>> {
    let problem = |field, problem: &'a TagsProblem, resource| Problem {
        error_field: field,
        error_code: &problem.code,
        error_message: &problem.message,
        status_code: problem.status,
        request_id: &problem.request_id,
        resource,
    };
    let instance = tags.instance.as_ref().err();
    let instance = instance.map(|error| problem("ContainerInstanceTags", error, place.container_instance.as_str()));
    let task = tags.task.as_ref().err().map(|error| problem("TaskTags", error, view.arn.as_str()));
    instance.into_iter().chain(task).collect()
}
