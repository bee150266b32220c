//! The introspection server on port 51678: what `curl localhost:51678/v1/tasks` sees.
//!
//! Owns the routes and the answers. Decides nothing and holds no state: every answer is made from the newest published [`View`], from
//! the [`Identity`] of the registration, or from the agent's health. Invariant: no answer carries environment variables, settings or
//! credentials, because a `View` has none.
//!
//! As with the Go agent, the port opens with the registration: until then connections to it are refused, and scripts take an open port
//! for a registered agent. How an agent is that has yet to register is asked of a socket, [`HEALTH_SOCKET`], which serves `/health` alone
//! from the start of the process to its end.
//!
//! Reading order: this file (routes), `task` (JSON shapes), `health` and `debug` (ours alone), `lookup` (the query of `/v1/tasks`),
//! `json` (the encoding). Who is served, and the limits, are those of [`http_server`](crate::http_server). Source: spec
//! `introspection.md` §1 to §6.

mod debug;
mod health;
mod json;
mod lookup;
mod path;
mod task;

pub use debug::PullLookup;
pub use health::{HealthAnswer, HealthLookup};

use crate::http_server::host_header;
use crate::model::Timestamp;
use crate::model::view::View;
use axum::Router;
use axum::extract::{RawQuery, Request, State};
use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use futures_util::FutureExt;
use serde::Serialize;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use tokio::sync::watch;

/// The port, not configurable: scripts and the health check of the container image know it.
pub const PORT: u16 = 51678;

/// The name of the socket on which `/health` is served from the start of the process on. It has no file, and belongs to a network namespace
/// as the port does; like the port, it is that of the first agent there. Every user may ask, since the answer holds no secret. Every user
/// may also take the name before an agent does, so an answer counts only by whose process gave it.
pub const HEALTH_SOCKET: &str = "ecs-agent/health";

/// The whole licence text: embedded, so that the answer does not depend on the working directory.
pub const LICENSE: &str = include_str!("../../LICENSE");

/// Between the texts of `/license`, and after the last.
const RULE: &str = "\n================================================================================\n";

/// Paths of this agent alone. Whoever asks for something there that does not exist must not take a list of commands for its content.
const OWN_PATHS: [&str; 3] = ["/health", "/metrics", "/v1/debug"];

/// The answer to a request for another host.
const WRONG_HOST: &str = "the Host header names another host: use an address, localhost, a name without a dot, this host's name, or a \
                          name that ends in .internal\n";

/// The answer to every path that is not a command.
const COMMANDS: &str = r#"{"AvailableCommands":["/v1/metadata","/v1/tasks","/license"]}"#;

/// Who this agent is, as `/v1/metadata` says it. Fixed by the registration.
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

/// The current moment, by the clock that the moments of the [`View`] and of the pulls are from. The wall clock may show another time.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

#[derive(Clone)]
struct Sources {
    identity: Arc<Identity>,
    view: watch::Receiver<Arc<View>>,
    pulls: PullLookup,
    clock: Clock,
}

/// What [`HEALTH_SOCKET`] serves.
pub fn health_router(health: HealthLookup) -> Router {
    guarded(Router::new().route("/health", any(async move || health::answer(&health()))).fallback(not_found))
}

/// What the port serves. Methods are not checked. As with the Go agent, an unknown path is answered with 200 and the list of commands,
/// which names neither `/health` nor `/v1/debug/tasks`; but paths where this agent has or will have something of its own are not found.
pub fn router(
    health: HealthLookup,
    identity: Identity,
    view: watch::Receiver<Arc<View>>,
    pulls: PullLookup,
    clock: Clock,
) -> Router {
    let mut routes = Router::new()
        .route("/v1/metadata", any(metadata))
        .route("/v1/tasks", any(tasks))
        .route("/license", any(license))
        .route("/v1/debug/tasks", any(debug_tasks))
        .route("/v1/debug", any(not_found))
        .route("/metrics", any(not_found))
        .route("/health", any(async move || health::answer(&health())));
    for own in OWN_PATHS {
        // `rest` is never empty.
        for path in [format!("{own}/"), format!("{own}/{{*rest}}")] {
            routes = routes.route(&path, any(not_found));
        }
    }
    guarded(routes.fallback(anything_else).with_state(Sources { identity: Arc::new(identity), view, pulls, clock }))
}

/// Refuses requests for another host; a panic while answering ends its connection alone.
fn guarded(routes: Router) -> Router {
    routes.layer(axum::middleware::from_fn(async |request: Request, next: axum::middleware::Next| {
        if host_header::is_accepted(&request) { survive(next.run(request)).await } else { refused_host() }
    }))
}

async fn not_found() -> Response {
    let plain = [(header::CONTENT_TYPE, "text/plain; charset=utf-8")];
    (StatusCode::NOT_FOUND, plain, "this version of ecs-agent has nothing here\n").into_response()
}

fn refused_host() -> Response {
    let plain = [(header::CONTENT_TYPE, "text/plain; charset=utf-8")];
    (StatusCode::FORBIDDEN, plain, WRONG_HOST).into_response()
}

async fn metadata(State(sources): State<Sources>) -> Response {
    json_answer(StatusCode::OK, &*sources.identity, "introspection/agent")
}

async fn tasks(State(sources): State<Sources>, RawQuery(query): RawQuery) -> Response {
    let view = Arc::clone(&sources.view.borrow());
    let kind = "introspection/tasks";
    match lookup::find(&view, query.as_deref().unwrap_or_default()) {
        lookup::Found::All(tasks) => json_answer(StatusCode::OK, &task::Tasks::new(&tasks), kind),
        lookup::Found::One(found) => json_answer(StatusCode::OK, &task::Task::new(found), kind),
        lookup::Found::Nothing => json_answer(StatusCode::NOT_FOUND, &task::Task::ZERO, kind),
        lookup::Found::Ambiguous => json_answer(StatusCode::BAD_REQUEST, &task::Task::ZERO, kind),
    }
}

async fn debug_tasks(State(sources): State<Sources>) -> Response {
    let view = Arc::clone(&sources.view.borrow());
    json_answer(StatusCode::OK, &debug::Tasks::new(&view, &sources.pulls, (sources.clock)()), "introspection/debug")
}

async fn license() -> Response {
    let plain = [(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"))];
    (plain, [LICENSE, RULE].concat()).into_response()
}

async fn anything_else(uri: Uri) -> Response {
    match path::cleaned(uri.path()) {
        Some(clean) => path::moved_to(&clean, uri.query()),
        // Compat: the Go agent lets its HTTP library guess the content type of this JSON.
        None => ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], COMMANDS).into_response(),
    }
}

/// One JSON answer. Errors are logged with their body, which names no secret: it is the empty value of the success type. The Go agent
/// logs them all as errors; a question that cannot be answered is the client's, so it must not fill the agent's log.
fn json_answer(status: StatusCode, value: &impl Serialize, kind: &'static str) -> Response {
    let (status, body) = match json::encode(value) {
        Ok(body) => (status, body),
        Err(_) => (StatusCode::INTERNAL_SERVER_ERROR, "{}".to_owned()),
    };
    let code = status.as_u16();
    if status.is_server_error() {
        tracing::error!(
            "HTTP response status code is '{code}', request type is: {kind}, and response in JSON is {body}"
        );
    } else if status.is_client_error() {
        tracing::debug!(
            "HTTP response status code is '{code}', request type is: {kind}, and response in JSON is {body}"
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
