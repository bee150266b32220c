//! The introspection server on port 51678, as in `curl localhost:51678/v1/tasks`.
//!
//! Owns the routes and the answers. Decides nothing. Keeps two encoded answers: that of `/v1/metadata`, and that of
//! `/v1/tasks` until the view changes. Every answer is made from the newest published [`View`], from the [`Identity`] of the
//! registration, or from the agent's health. Invariant: no answer carries environment variables, settings or credentials,
//! because a `View` has none.
//!
//! As with the Go agent, the port opens with the registration. Until then connections are refused, and scripts rely on this: an
//! open port means a registered agent. The health of an agent that is not registered yet can be read from a socket,
//! [`HEALTH_SOCKET`], which serves only `/health`, from the start of the process to its end.
//!
//! Reading order: this file (routes), `task` (JSON shapes), `health`, `host`, and `debug` with `timing` (paths of this agent only), `lookup` (the
//! query of `/v1/tasks`). [`http`](crate::http) has the encoding (`answer`, `json`), the cleaning of paths (`path`) and the limits,
//! and decides which peers are served. Source: spec `introspection.md` §1 to §6.

mod debug;
mod health;
mod host;
mod lookup;
mod task;
mod timing;

pub use debug::PullLookup;
pub use health::{HealthAnswer, HealthLookup};
pub use host::{HostAnswer, HostLookup, KeptBy};
pub use timing::{ContainerTiming, Moment, PhaseTiming, TaskTiming, TimingLookup, Timings};

use crate::http::answer::{catch_panic, encoded, json_answer, json_body, plain_text};
use crate::http::{host_header, path};
use axum::Router;
use axum::extract::{RawQuery, Request, State};
use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use bytes::Bytes;
use ecs_core::model::Timestamp;
use ecs_core::model::view::View;
use serde::Serialize;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;

/// The port. It is not configurable, since scripts and the health check of the container image rely on it.
pub const PORT: u16 = 51678;

/// The name of the socket that serves `/health` from the start of the process. The socket has no file. Like the port, it belongs
/// to a network namespace and to the first agent in it. Every user may read it, since the answer holds no secret. Every user may
/// also take the name before an agent does, so a client must check which process answers.
pub const HEALTH_SOCKET: &str = "ecs-agent/health";

/// The licence text, embedded so that the answer does not depend on the working directory.
pub const LICENSE: &str = include_str!("../../../LICENSE");

/// The line after each text of `/license`.
const RULE: &str = "\n================================================================================\n";

/// Paths that only this agent has. Below them an unknown path gets no list of commands, which a client could mistake for
/// content.
const OWN_PATHS: [&str; 3] = ["/health", "/metrics", "/v1/debug"];

/// The answer to a request for another host.
const WRONG_HOST: &str = "the Host header names another host: use an address, localhost, a name without a dot, this host's name, or a \
                          name that ends in .internal\n";

/// The answer to every path that is not a command.
const COMMANDS: &str = r#"{"AvailableCommands":["/v1/metadata","/v1/tasks","/license"]}"#;

/// The identity of this agent, as `/v1/metadata` shows it. It is fixed by the registration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Identity {
    /// The cluster that the agent registered with.
    pub cluster: String,
    /// The ARN of the container instance; `None` if it has none.
    pub container_instance_arn: Option<String>,
    /// `Amazon ECS Agent - v<version> (<hash>)`: scripts match the text before the version.
    #[serde(rename = "Version")]
    pub version_text: String,
}

/// Reads the clock of the moments in the [`View`] and in the progress of pulls. The wall clock may show another time.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// Data that the view does not have.
#[derive(Clone)]
pub struct Lookups {
    /// The progress of pulls.
    pub pulls: PullLookup,
    /// When tasks got how far.
    pub timings: TimingLookup,
    /// The present time.
    pub clock: Clock,
    /// Who keeps the settings of the host.
    pub host: HostLookup,
}

impl std::fmt::Debug for Lookups {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lookups").finish_non_exhaustive()
    }
}

#[derive(Clone)]
struct Sources {
    /// The answer of `/v1/metadata`.
    identity: (StatusCode, Bytes),
    view: watch::Receiver<Arc<View>>,
    tasks: Arc<AllTasks>,
    lookups: Lookups,
}

/// The last answer of `/v1/tasks` without a query, with the view that it shows; `None` before the first request.
#[derive(Debug, Default)]
struct AllTasks(Mutex<Option<(Arc<View>, StatusCode, Bytes)>>);

impl AllTasks {
    fn answer(&self, view: &Arc<View>) -> Response {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, status, body)) = last.as_ref().filter(|(shown, ..)| Arc::ptr_eq(shown, view)) {
            return json_body(*status, body.clone());
        }
        let tasks: Vec<_> = view.tasks.iter().map(|task| &**task).collect();
        let (status, body) = encoded(StatusCode::OK, &task::Tasks::new(&tasks), "introspection/tasks");
        *last = Some((Arc::clone(view), status, body.clone()));
        json_body(status, body)
    }
}

/// The routes of [`HEALTH_SOCKET`].
pub fn health_router(health: HealthLookup) -> Router {
    guarded(Router::new().route("/health", any(async move || health::answer(&health()))).fallback(not_found))
}

/// The routes of the port. Methods are not checked. As with the Go agent, an unknown path is answered with 200 and the list of
/// commands, which names neither `/health` nor `/v1/debug/tasks`. An unknown path below one of `OWN_PATHS` is answered with
/// 404.
pub fn router(health: HealthLookup, identity: Identity, view: watch::Receiver<Arc<View>>, lookups: Lookups) -> Router {
    let identity = encoded(StatusCode::OK, &identity, "introspection/agent");
    let sources = Sources { identity, view, tasks: Arc::default(), lookups };
    let mut routes = Router::new()
        .route("/v1/metadata", any(metadata))
        .route("/v1/tasks", any(tasks))
        .route("/license", any(license))
        .route("/v1/debug/tasks", any(debug_tasks))
        .route("/v1/debug/host", any(debug_host))
        .route("/v1/debug", any(not_found))
        .route("/metrics", any(not_found))
        .route("/health", any(async move || health::answer(&health())));
    for own in OWN_PATHS {
        // The wildcard `rest` never matches an empty text, so the path with the slash is a route of its own.
        for path in [format!("{own}/"), format!("{own}/{{*rest}}")] {
            routes = routes.route(&path, any(not_found));
        }
    }
    guarded(routes.fallback(anything_else).with_state(sources))
}

/// Refuses requests for another host. A panic while answering a request ends only its connection.
fn guarded(routes: Router) -> Router {
    routes.layer(axum::middleware::from_fn(async |request: Request, next: axum::middleware::Next| {
        if host_header::is_accepted(&request) {
            catch_panic("introspection", next.run(request)).await
        } else {
            refused_host()
        }
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
    json_body(sources.identity.0, sources.identity.1)
}

async fn tasks(State(sources): State<Sources>, RawQuery(query): RawQuery) -> Response {
    let view = Arc::clone(&sources.view.borrow());
    let kind = "introspection/tasks";
    match lookup::find(&view, query.as_deref().unwrap_or_default()) {
        lookup::Found::All => sources.tasks.answer(&view),
        lookup::Found::One(found) => json_answer(StatusCode::OK, &task::Task::new(found), kind),
        lookup::Found::Nothing => json_answer(StatusCode::NOT_FOUND, &task::Task::ZERO, kind),
        lookup::Found::Ambiguous => json_answer(StatusCode::BAD_REQUEST, &task::Task::ZERO, kind),
    }
}

/// `?limit=` is the number of ended tasks to show.
async fn debug_tasks(State(sources): State<Sources>, RawQuery(query): RawQuery) -> Response {
    let mut pairs = url::form_urlencoded::parse(query.as_deref().unwrap_or_default().as_bytes());
    let limit = match pairs.find(|(name, _)| name == "limit").map(|(_, value)| value.parse()) {
        None => timing::DEFAULT_LIMIT,
        Some(Ok(limit)) => limit,
        Some(Err(_)) => return plain_text(StatusCode::BAD_REQUEST, "limit must be a whole number such as 20\n"),
    };
    let Lookups { pulls, timings, clock, .. } = &sources.lookups;
    let view = Arc::clone(&sources.view.borrow());
    let times = timings(&view, limit);
    json_answer(StatusCode::OK, &debug::Tasks::new(&view, pulls, &times, clock()), "introspection/debug")
}

async fn debug_host(State(sources): State<Sources>) -> Response {
    json_answer(StatusCode::OK, &(sources.lookups.host)(), "introspection/host")
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

#[cfg(test)]
mod tests;
