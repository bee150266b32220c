//! `/api/<id>/task-protection/v1/state`: asks ECS whether the task of a container is protected, and changes that (spec
//! `task-metadata.md` §8).
//!
//! Owns the checks of a request and the form of the answers. The call itself is the runtime's.

use super::requests::{self, Fields};
use super::sources::Sources;
use crate::http::answer::json_answer;
use axum::Router;
use axum::extract::{Path, Request, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use ecs_core::model::RoleKind;
use ecs_core::model::protection::{
    ProtectedTask, ProtectionAnswer, ProtectionCall, ProtectionError, ProtectionFailure,
};
use serde::Serialize;
use std::sync::Arc;

const GET: &str = "api/GetTaskProtection/v1";
const UPDATE: &str = "api/UpdateTaskProtection/v1";
/// The name of the structure in Go, which no answer shows.
const STRUCTURE: &str = "TaskProtectionRequest";
/// The members of a request.
const MEMBERS: [&str; 2] = ["ProtectionEnabled", "ExpiresInMinutes"];

/// The answer. Members that are absent are left out.
#[derive(Debug, Default, Serialize)]
struct Body {
    #[serde(rename = "requestID", skip_serializing_if = "Option::is_none")]
    request_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    protection: Option<Protection>,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<Failure>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Error>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Protection {
    expiration_date: Option<String>,
    protection_enabled: bool,
    task_arn: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Failure {
    arn: Option<String>,
    detail: Option<String>,
    reason: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Error {
    #[serde(skip_serializing_if = "String::is_empty")]
    arn: String,
    code: String,
    message: String,
}

/// One path, for GET and PUT.
pub(super) fn routes() -> Router<Arc<Sources>> {
    Router::new().route("/api/{id}/task-protection/v1/state", any(answer))
}

async fn answer(State(sources): State<Arc<Sources>>, Path(id): Path<String>, request: Request) -> Response {
    let kind = match *request.method() {
        Method::GET => GET,
        Method::PUT => UPDATE,
        _ => return StatusCode::METHOD_NOT_ALLOWED.into_response(),
    };
    let update = match kind {
        GET => None,
        _ => match requests::read(request.into_body()).await.as_deref().and_then(decoded) {
            Some(update) => Some(update),
            None => {
                let text = "UpdateTaskProtection: failed to decode request";
                return refused(kind, StatusCode::BAD_REQUEST, "", "InvalidParameterException", text);
            }
        },
    };
    let Some(found) = sources.tasks.container(&id) else {
        let text = "Failed to find a task for the request";
        return refused(kind, StatusCode::NOT_FOUND, "", "ResourceNotFoundException", text);
    };
    let task = &found.task;
    let call = match update {
        None => ProtectionCall::Get,
        Some(Update { enabled: Some(enabled), expires_in_minutes }) => {
            ProtectionCall::Update { enabled, expires_in_minutes }
        }
        Some(Update { enabled: None, .. }) => {
            let text = "Invalid request: does not contain 'ProtectionEnabled' field";
            return refused(kind, StatusCode::BAD_REQUEST, task.arn.as_str(), "InvalidParameterException", text);
        }
    };
    tracing::info!(task = task.arn.task_id(), requestType = kind, "Task protection endpoint was called");
    let role = task.roles.iter().find(|role| role.kind == RoleKind::Task);
    let outcome = match role {
        Some(role) => sources.work.protection.call(task.arn.clone(), role.current.clone(), call).await,
        None => Err(ProtectionError::NoCredentials),
    };
    let (status, body) = body(task.arn.as_str(), outcome);
    json_answer(status, &body, kind)
}

/// A change as the container asked for it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Update {
    enabled: Option<bool>,
    expires_in_minutes: Option<i64>,
}

/// The change in a body; `None`: it is not one, or it has other members too.
pub(super) fn decoded(body: &str) -> Option<Update> {
    let fields = Fields::read(body, STRUCTURE).ok()?;
    if fields.unknown(&MEMBERS).is_some() {
        return None;
    }
    Some(Update {
        enabled: fields.value(MEMBERS[0], "bool").ok()?,
        expires_in_minutes: fields.value(MEMBERS[1], "int64").ok()?,
    })
}

fn refused(kind: &str, status: StatusCode, task: &str, code: &str, message: &str) -> Response {
    json_answer(status, &error(task, code, message), kind)
}

fn error(task: &str, code: &str, message: &str) -> Body {
    let error = Error { arn: task.to_owned(), code: code.to_owned(), message: message.to_owned() };
    Body { error: Some(error), ..Body::default() }
}

/// Status and body for the outcome of a call about a task.
fn body(task: &str, outcome: Result<ProtectionAnswer, ProtectionError>) -> (StatusCode, Body) {
    let internal = StatusCode::INTERNAL_SERVER_ERROR;
    match outcome {
        Ok(answer) => listed(answer).map_or_else(
            || (internal, error(task, "ServerException", "Unexpected error occurred")),
            |body| (StatusCode::OK, body),
        ),
        Err(ProtectionError::NoCredentials) => {
            let text = "Invalid Request: no task IAM role credentials available for task";
            (StatusCode::FORBIDDEN, error(task, "AccessDeniedException", text))
        }
        Err(ProtectionError::TimedOut) => {
            let text = "Timed out calling ECS Task Protection API";
            (StatusCode::GATEWAY_TIMEOUT, error(task, "RequestCanceled", text))
        }
        Err(ProtectionError::Refused { status, request_id, code, message }) => {
            let status = StatusCode::from_u16(status).unwrap_or(internal);
            (status, Body { request_id: Some(request_id), ..error(task, &code, &message) })
        }
        Err(ProtectionError::Failed(text)) => (internal, error(task, "ServerException", &text)),
    }
}

/// The only entry of an answer; `None` if it has not exactly one. (The Go agent ends the connection if there is none.)
fn listed(mut answer: ProtectionAnswer) -> Option<Body> {
    match (answer.tasks.len(), answer.failures.len()) {
        (_, 1) => {
            let ProtectionFailure { task: arn, detail, reason } = answer.failures.remove(0);
            Some(Body { failure: Some(Failure { arn, detail, reason }), ..Body::default() })
        }
        (1, 0) => {
            let ProtectedTask { task: task_arn, enabled: protection_enabled, expires_at: expiration_date } =
                answer.tasks.remove(0);
            let protection = Protection { expiration_date, protection_enabled, task_arn };
            Some(Body { protection: Some(protection), ..Body::default() })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
