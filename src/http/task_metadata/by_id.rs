//! Versions 3 and 4: a caller is known by the endpoint id in the path (spec `task-metadata.md` §2, §5, §6).
//!
//! Owns the routes, and the texts and statuses of errors, which differ between the versions. The files beside it have the shapes.

use super::associations::{Associations, content};
use super::container::Container;
use super::log::refused;
use super::sources::Sources;
use super::stats::{ContainerAnswer, TaskAnswer};
use super::tags;
use super::task::Task;
use super::tasks::FoundContainer;
use super::version::Version;
use crate::http::answer::{json_answer, json_body};
use crate::http::json;
use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::any;
use bytes::Bytes;
use ecs_core::model::usage::LastStatistics;
use std::sync::Arc;

type Shared = State<Arc<Sources>>;

const CONTAINER: &str = "container metadata";
const TASK: &str = "task metadata";
const CONTAINER_STATS: &str = "container stats";
const TASK_STATS: &str = "task stats";
const ASSOCIATIONS: &str = "container associations";
const ASSOCIATION: &str = "container association";

/// The routes of a version. An id may be empty, and then nothing is found; the wildcards of the router never match an empty text,
/// so these paths are routes of their own.
pub(super) fn routes(version: Version) -> Router<Arc<Sources>> {
    let path = |rest: &str| format!("/{}/{{id}}{rest}", version.segment());
    let container =
        move |State(sources): Shared, Path(id): Path<String>| async move { container(&sources, version, &id) };
    let task = move |State(sources): Shared, Path(id): Path<String>| async move { task(&sources, version, &id) };
    let tagged =
        move |State(sources): Shared, Path(id): Path<String>| async move { tagged(&sources, version, &id).await };
    let stats =
        move |State(sources): Shared, Path(id): Path<String>| async move { container_stats(&sources, version, &id) };
    let task_stats =
        move |State(sources): Shared, Path(id): Path<String>| async move { task_stats(&sources, version, &id) };
    let no_kind =
        move |State(sources): Shared, Path(id): Path<String>| async move { associations(&sources, version, &id, "") };
    let all = move |State(sources): Shared, Path((id, kind)): Path<(String, String)>| async move {
        associations(&sources, version, &id, &kind)
    };
    let no_name = move |State(sources): Shared, Path((id, _)): Path<(String, String)>| async move {
        association(&sources, version, &id, None)
    };
    let by_name = move |State(sources): Shared, Path((id, kind, name)): Path<(String, String, String)>| async move {
        association(&sources, version, &id, Some((&kind, &name)))
    };
    let no_id = move |State(sources): Shared| async move { self::container(&sources, version, "") };
    Router::new()
        .route(&format!("/{}/", version.segment()), any(no_id))
        .route(&path(""), any(container))
        .route(&path("/task"), any(task))
        .route(&path("/taskWithTags"), any(tagged))
        .route(&path("/stats"), any(stats))
        .route(&path("/task/stats"), any(task_stats))
        .route(&path("/associations/"), any(no_kind))
        .route(&path("/associations/{kind}"), any(all))
        .route(&path("/associations/{kind}/"), any(no_name))
        .route(&path("/associations/{kind}/{*name}"), any(by_name))
}

/// The container with this id, or the answer that there is none. `missing` begins its text; the id follows.
fn found(
    sources: &Sources,
    id: &str,
    status: StatusCode,
    kind: &str,
    missing: impl FnOnce() -> String,
) -> Result<FoundContainer, Box<Response>> {
    sources.tasks.container(id).ok_or_else(|| Box::new(refused(status, &format!("{}: {id}", missing()), kind, id)))
}

fn no_docker_id(version: Version, handler: &str) -> String {
    let version = version.shown();
    format!(
        "{version} {handler} handler: unable to get container ID from request: unable to get docker ID from v3 endpoint ID"
    )
}

fn no_task(version: Version, handler: &str) -> String {
    let version = version.shown();
    format!(
        "{version} {handler} handler: unable to get task arn from request: unable to get task Arn from v3 endpoint ID"
    )
}

fn container(sources: &Sources, version: Version, id: &str) -> Response {
    let found = found(sources, id, version.unknown(), CONTAINER, || no_docker_id(version, CONTAINER));
    let found = match found {
        Ok(found) => found,
        Err(answer) => return *answer,
    };
    let view = found.container();
    // A container in network mode awsvpc has its task's network.
    if view.networks.is_empty() && found.task.interfaces.is_empty() {
        let docker_id = view.runtime_id.as_ref().map(|id| id.as_str()).unwrap_or_default();
        let unable = if version == Version::V3 { "Unable" } else { "unable" };
        let text = format!("{unable} to generate network response for container '{docker_id}'");
        return refused(StatusCode::INTERNAL_SERVER_ERROR, &text, CONTAINER, "");
    }
    json_answer(StatusCode::OK, &Container::new(&found.task, view, version, &sources.metadata.wall), CONTAINER)
}

/// The task of the container. A container whose networks are not known is shown without them. (The Go agent then refuses the
/// whole task in version 3, also because of a container that is just being created.)
fn task(sources: &Sources, version: Version, id: &str) -> Response {
    let found = found(sources, id, version.unknown(), TASK, || no_task(version, TASK));
    let found = match found {
        Ok(found) => found,
        Err(answer) => return *answer,
    };
    let encoded = || {
        json::encode(&Task::new(&found.task, version, &sources.metadata.place, &sources.metadata.wall, None))
            .map(Bytes::from)
    };
    match sources.documents.get(&found.task, version, encoded) {
        Ok(body) => json_body(StatusCode::OK, body),
        Err(_) => refused(StatusCode::INTERNAL_SERVER_ERROR, "failed to get task metadata", TASK, ""),
    }
}

async fn tagged(sources: &Sources, version: Version, id: &str) -> Response {
    let found = found(sources, id, version.unknown(), TASK, || no_task(version, TASK));
    let found = match found {
        Ok(found) => found,
        Err(answer) => return *answer,
    };
    let container = found.container().name.as_str();
    let container = (version == Version::V4).then_some(container);
    let tags =
        tags::asked(&sources.metadata.tags, &sources.metadata.place.container_instance, &found.task, container).await;
    let task = Task::new(&found.task, version, &sources.metadata.place, &sources.metadata.wall, Some(&tags));
    json_answer(StatusCode::OK, &task, TASK)
}

fn container_stats(sources: &Sources, version: Version, id: &str) -> Response {
    let found = found(sources, id, version.unknown_for_stats(), CONTAINER_STATS, || no_task(version, CONTAINER_STATS));
    let found = match found {
        Ok(found) => found,
        Err(answer) => return *answer,
    };
    let container = found.container();
    match (sources.metadata.stats)(container) {
        LastStatistics::Untracked => {
            let docker_id = container.runtime_id.as_ref().map(|id| id.as_str()).unwrap_or_default();
            let text = format!("Unable to get container stats for: {docker_id}");
            refused(version.without_stats(), &text, CONTAINER_STATS, "")
        }
        known => json_answer(StatusCode::OK, &ContainerAnswer::new(version, container, known), CONTAINER_STATS),
    }
}

/// The statistics of all containers of the task. Compat: a container without statistics has an empty value, also if there are none of
/// any container.
fn task_stats(sources: &Sources, version: Version, id: &str) -> Response {
    let found = found(sources, id, version.unknown_for_stats(), TASK_STATS, || no_task(version, TASK_STATS));
    match found {
        Ok(found) => {
            let answer = TaskAnswer::new(version, &found.task, &sources.metadata.stats);
            json_answer(StatusCode::OK, &answer, TASK_STATS)
        }
        Err(answer) => *answer,
    }
}

/// The names of the container's associations of one type.
fn associations(sources: &Sources, version: Version, id: &str, kind: &str) -> Response {
    let missing = || no_docker_id(version, ASSOCIATIONS).replace("container ID", "container id");
    match found(sources, id, StatusCode::BAD_REQUEST, ASSOCIATIONS, missing) {
        Ok(found) => {
            let names = Associations::new(&found.task, found.container(), kind);
            json_answer(StatusCode::OK, &names, ASSOCIATIONS)
        }
        Err(answer) => *answer,
    }
}

/// The content of one association; `which`: its type and name, `None` if the path has no name.
fn association(sources: &Sources, version: Version, id: &str, which: Option<(&str, &str)>) -> Response {
    let missing = || no_task(version, ASSOCIATIONS);
    let found = match found(sources, id, StatusCode::BAD_REQUEST, ASSOCIATION, missing) {
        Ok(found) => found,
        Err(answer) => return *answer,
    };
    let Some((kind, name)) = which else {
        let text = format!("{} {ASSOCIATIONS} handler: unable to get association name from request", version.shown());
        return refused(StatusCode::BAD_REQUEST, &text, ASSOCIATION, "");
    };
    match content(&found.task, kind, name) {
        Some(text) => json_body(StatusCode::OK, Bytes::copy_from_slice(text.as_bytes())),
        None => {
            let text = format!(
                "Unable to write container association response: unable to get association from association type {kind} and \
                 association name {name}"
            );
            refused(StatusCode::BAD_REQUEST, &text, ASSOCIATION, "")
        }
    }
}

#[cfg(test)]
mod tests;
