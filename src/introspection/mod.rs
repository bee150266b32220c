//! The introspection server on port 51678: what `curl localhost:51678/v1/tasks` sees.
//!
//! Owns the routes, the answers and the listener. Decides nothing and holds no state: every answer is made from the newest
//! published [`View`] and from the [`Identity`] known when the server was built. Invariant: no answer carries environment
//! variables, settings or credentials, because a `View` has none.
//!
//! Reading order: this file (routes), `task` (JSON shapes), `debug` (ours alone), `lookup` (the query of `/v1/tasks`), `json` (the encoding),
//! `server` (listener, limits, retries). Source: spec `introspection.md`.

mod debug;
mod json;
mod lookup;
mod path;
mod server;
mod task;

pub use debug::PullLookup;
pub use server::{PORT, run, serve};

use crate::model::Timestamp;
use crate::model::view::View;
use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use futures_util::FutureExt;
use serde::Serialize;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::watch;

/// The whole licence text: embedded, so that the answer does not depend on the working directory.
pub const LICENSE: &str = include_str!("../../LICENSE");

/// Between the texts of `/license`, and after the last.
const RULE: &str = "\n================================================================================\n";

/// The answer to every path that is not a command.
const COMMANDS: &str = r#"{"AvailableCommands":["/v1/metadata","/v1/tasks","/license"]}"#;

/// Who this agent is, as `/v1/metadata` says it. Fixed: the server starts after registration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Identity {
    /// The cluster it registered with.
    pub cluster: String,
    /// The ARN it was given, if it has one.
    pub container_instance_arn: Option<String>,
    /// `Amazon ECS Agent - v<version> (<hash>)`: scripts match the text before the version.
    #[serde(rename = "Version")]
    pub version_text: String,
}

#[derive(Clone)]
struct Sources {
    identity: Arc<Identity>,
    view: watch::Receiver<Arc<View>>,
    pulls: PullLookup,
}

/// The routes. Methods are not checked, and no path is unknown: the reference answers 200 with the list of commands, which does
/// not name `/v1/debug/tasks`.
pub fn router(identity: Identity, view: watch::Receiver<Arc<View>>, pulls: PullLookup) -> Router {
    Router::new()
        .route("/v1/metadata", any(metadata))
        .route("/v1/tasks", any(tasks))
        .route("/license", any(license))
        .route("/v1/debug/tasks", any(debug_tasks))
        .fallback(anything_else)
        .layer(axum::middleware::from_fn(async |request, next: axum::middleware::Next| {
            survive(next.run(request)).await
        }))
        .with_state(Sources { identity: Arc::new(identity), view, pulls })
}

async fn metadata(State(sources): State<Sources>) -> Response {
    json_answer(StatusCode::OK, &*sources.identity, "introspection/agent")
}

async fn tasks(State(sources): State<Sources>, RawQuery(query): RawQuery) -> Response {
    let view = Arc::clone(&sources.view.borrow());
    let kind = "introspection/tasks";
    match lookup::find(&view, query.as_deref().unwrap_or_default()) {
        lookup::Found::All(tasks) => json_answer(StatusCode::OK, &task::Tasks::new(&tasks), kind),
        lookup::Found::One(one) => json_answer(StatusCode::OK, &task::Task::new(one), kind),
        lookup::Found::Nothing => json_answer(StatusCode::NOT_FOUND, &task::Task::ZERO, kind),
        lookup::Found::Ambiguous => json_answer(StatusCode::BAD_REQUEST, &task::Task::ZERO, kind),
    }
}

async fn debug_tasks(State(sources): State<Sources>) -> Response {
    let view = Arc::clone(&sources.view.borrow());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = Timestamp(u64::try_from(now.as_millis()).unwrap_or_default());
    json_answer(StatusCode::OK, &debug::Tasks::new(&view, &sources.pulls, now), "introspection/debug")
}

async fn license() -> Response {
    let plain = [(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"))];
    (plain, [LICENSE, RULE].concat()).into_response()
}

async fn anything_else(uri: Uri) -> Response {
    match path::cleaned(uri.path()) {
        Some(clean) => path::moved_to(&clean, uri.query()),
        // Compat: the reference lets its HTTP library guess the content type of this JSON.
        None => ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], COMMANDS).into_response(),
    }
}

/// One JSON answer. Errors are logged with their body, which names no secret: it is the empty value of the success type.
fn json_answer(status: StatusCode, value: &impl Serialize, kind: &'static str) -> Response {
    let (status, body) = match json::encode(value) {
        Ok(body) => (status, body),
        Err(_) => (StatusCode::INTERNAL_SERVER_ERROR, "{}".to_owned()),
    };
    if status.is_client_error() || status.is_server_error() {
        tracing::error!(
            "HTTP response status code is '{}', request type is: {kind}, and response in JSON is {body}",
            status.as_u16()
        );
    }
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}

/// Turns a panic while answering into an empty 500 that ends the connection; the server goes on.
async fn survive(answer: impl Future<Output = Response>) -> Response {
    match AssertUnwindSafe(answer).catch_unwind().await {
        Ok(response) => response,
        Err(_) => {
            tracing::error!("panic while answering an introspection request");
            (StatusCode::INTERNAL_SERVER_ERROR, [(header::CONNECTION, "close")]).into_response()
        }
    }
}

#[cfg(test)]
mod tests;
