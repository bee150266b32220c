//! Version 2: a caller is known by its address alone (spec `task-metadata.md` §4).
//!
//! Only a task of network mode `awsvpc` has an address that is its own, on the link to its instance. Compat: every error has the
//! status 400. The shapes are those of version 3. Unlike in the Go agent, a caller sees only containers of its own task.

use super::container::Container;
use super::log::refused;
use super::sources::Sources;
use super::stats::{ContainerAnswer, TaskAnswer};
use super::tags;
use super::task::Task;
use super::version::Version;
use crate::http::RemoteAddress;
use crate::http::answer::json_answer;
use axum::Router;
use axum::extract::{Extension, Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::any;
use ecs_core::model::usage::LastStatistics;
use ecs_core::model::view::{ContainerView, TaskView};
use std::net::IpAddr;
use std::sync::Arc;

type Shared = State<Arc<Sources>>;
type Caller = Option<Extension<RemoteAddress>>;

const TASK: &str = "task metadata";
const CONTAINER: &str = "container metadata";
const TASK_STATS: &str = "task stats";
const CONTAINER_STATS: &str = "container stats";

pub(super) fn routes() -> Router<Arc<Sources>> {
    let task = async |State(sources): Shared, caller: Caller| match task_at(&sources, caller, TASK) {
        Ok(task) => whole(&sources, &task, None),
        Err(answer) => *answer,
    };
    let tagged = async |State(sources): Shared, caller: Caller| match task_at(&sources, caller, TASK) {
        Ok(task) => {
            let instance = &sources.metadata.place.container_instance;
            let tags = tags::asked(&sources.metadata.tags, instance, &task, None).await;
            whole(&sources, &task, Some(&tags))
        }
        Err(answer) => *answer,
    };
    let container =
        async |State(sources): Shared, caller: Caller, Path(id): Path<String>| container(&sources, caller, &id);
    let stats = async |State(sources): Shared, caller: Caller| match task_at(&sources, caller, TASK_STATS) {
        Ok(task) => {
            json_answer(StatusCode::OK, &TaskAnswer::new(Version::V3, &task, &sources.metadata.stats), TASK_STATS)
        }
        Err(answer) => *answer,
    };
    let container_stats =
        async |State(sources): Shared, caller: Caller, Path(id): Path<String>| container_stats(&sources, caller, &id);
    Router::new()
        .route("/v2/metadata", any(task))
        .route("/v2/metadata/", any(task))
        .route("/v2/metadata/{*id}", any(container))
        .route("/v2/metadataWithTags", any(tagged))
        .route("/v2/metadataWithTags/", any(tagged))
        .route("/v2/stats", any(stats))
        .route("/v2/stats/", any(stats))
        .route("/v2/stats/{*id}", any(container_stats))
}

/// The task with the caller's address, or the answer that there is none.
fn task_at(sources: &Sources, caller: Caller, kind: &str) -> Result<Arc<TaskView>, Box<Response>> {
    let address = caller.map(|Extension(remote)| remote.address.ip().to_canonical());
    let found = match address {
        Some(IpAddr::V4(address)) => sources.tasks.at(address),
        Some(IpAddr::V6(_)) | None => None,
    };
    found.ok_or_else(|| {
        let address = address.map(|address| address.to_string()).unwrap_or_default();
        let text = format!("Unable to get task arn from request: unable to associate '{address}' with task");
        Box::new(refused(StatusCode::BAD_REQUEST, &text, kind, ""))
    })
}

fn whole(sources: &Sources, task: &TaskView, tags: Option<&tags::Tags>) -> Response {
    let metadata = &sources.metadata;
    json_answer(StatusCode::OK, &Task::new(task, Version::V3, &metadata.place, &metadata.wall, tags), TASK)
}

/// The created container of the task with this id of Docker.
fn with_id<'a>(task: &'a TaskView, id: &str) -> Option<&'a ContainerView> {
    task.containers.iter().find(|container| container.runtime_id.as_ref().is_some_and(|known| known.as_str() == id))
}

fn container(sources: &Sources, caller: Caller, id: &str) -> Response {
    let task = match task_at(sources, caller, TASK) {
        Ok(task) => task,
        Err(answer) => return *answer,
    };
    match with_id(&task, id) {
        Some(container) => {
            let shown = Container::new(&task, container, Version::V3, &sources.metadata.wall);
            json_answer(StatusCode::OK, &shown, CONTAINER)
        }
        None => {
            let text = format!("Unable to generate metadata for container '{id}'");
            refused(StatusCode::BAD_REQUEST, &text, CONTAINER, "")
        }
    }
}

fn container_stats(sources: &Sources, caller: Caller, id: &str) -> Response {
    // Compat: without a task, the Go agent names the same type as for a whole task.
    let task = match task_at(sources, caller, TASK_STATS) {
        Ok(task) => task,
        Err(answer) => return *answer,
    };
    let found = with_id(&task, id).map(|container| (container, (sources.metadata.stats)(container)));
    match found {
        Some((container, known @ (LastStatistics::Known(_) | LastStatistics::Waiting))) => {
            json_answer(StatusCode::OK, &ContainerAnswer::new(Version::V3, container, known), CONTAINER_STATS)
        }
        Some((_, LastStatistics::Untracked)) | None => {
            let text = format!("Unable to get container stats for: {id}");
            refused(StatusCode::BAD_REQUEST, &text, CONTAINER_STATS, "")
        }
    }
}

#[cfg(test)]
mod tests;
