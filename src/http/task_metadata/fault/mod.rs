//! `/api/<id>/fault/v1/<type>/<operation>`: network faults that a task starts in its own network (spec `task-metadata.md` §9).
//!
//! Owns the rate limit, the order of the checks and the answers. The work is the runtime's ([`FaultInjector`]). Reading order:
//! this file, `body` (the request), `limit`.
//!
//! [`FaultInjector`]: super::FaultInjector

pub(super) mod body;
mod limit;

use super::log::{answered, without_id};
use super::requests;
use super::sources::Sources;
use super::tasks::FoundContainer;
use crate::http::RemoteAddress;
use crate::http::answer::plain_text;
use axum::Router;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use body::{Kind, Verb};
use ecs_core::model::fault::{FaultError, FaultNetwork, FaultStatus};
use ecs_core::model::task::NetworkMode;
use ecs_core::model::view::TaskView;
use limit::Limit;
use serde::Serialize;
use std::sync::Arc;
use std::time::Instant;

const KINDS: [(&str, Kind); 3] = [
    ("network-blackhole-port", Kind::Blackhole),
    ("network-latency", Kind::Latency),
    ("network-packet-loss", Kind::Loss),
];
const VERBS: [(&str, Verb); 3] = [("start", Verb::Start), ("stop", Verb::Stop), ("status", Verb::Status)];

/// The answer: one of the members.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
enum Body {
    Status(&'static str),
    Error(String),
}

/// One path for each type and operation.
pub(super) fn routes() -> Router<Arc<Sources>> {
    let limit = Arc::new(Limit::default());
    let mut routes = Router::new();
    for (kind_name, kind) in KINDS {
        for (verb_name, verb) in VERBS {
            let limit = Arc::clone(&limit);
            let asked = Asked { kind, verb, kind_name };
            let answer = async move |State(sources): State<Arc<Sources>>, Path(id): Path<String>, request: Request| {
                limited(&limit, &sources, asked, &id, request).await
            };
            routes = routes.route(&format!("/api/{{id}}/fault/v1/{kind_name}/{verb_name}"), any(answer));
        }
    }
    routes
}

/// What a path asks for.
#[derive(Clone, Copy, Debug)]
struct Asked {
    kind: Kind,
    verb: Verb,
    kind_name: &'static str,
}

impl Asked {
    /// The request type in the log and in errors.
    fn request_type(self) -> String {
        let verb = match self.verb {
            Verb::Start => "start",
            Verb::Stop => "stop",
            Verb::Status => "check status",
        };
        format!("{verb} {}", self.kind_name)
    }
}

/// Answers a request, unless the same peer has made it a moment ago.
async fn limited(limit: &Limit, sources: &Sources, asked: Asked, id: &str, request: Request) -> Response {
    if request.method() != Method::POST {
        return StatusCode::METHOD_NOT_ALLOWED.into_response();
    }
    let began = Instant::now();
    let peer = request.extensions().get::<RemoteAddress>().map(|remote| remote.address);
    let headers = rate_headers(request.headers(), peer);
    let request_type = asked.request_type();
    let mut response = match limit.accept(peer.map(|peer| peer.ip().to_canonical()), request.uri().path()) {
        Ok(()) => {
            tracing::info!("Received new request for request type: {request_type}");
            let response = answer(sources, asked, id, request).await;
            let (status, duration_ms) = (response.status().as_u16(), began.elapsed().as_millis());
            tracing::info!(StatusCode = status, DurationInMs = %duration_ms, Request = request_type, "The telemetry middleware is complete");
            response
        }
        // Not logged, so that a program that asks in a loop does not fill the log.
        Err(rest) => {
            let too_many = StatusCode::TOO_MANY_REQUESTS;
            // Compat: without a full stop, unlike the limit of all requests.
            let mut response = plain_text(too_many, "You have reached maximum request limit");
            let seconds = rest.as_secs() + u64::from(rest.subsec_nanos() > 0);
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
            response
        }
    };
    for (name, value) in headers {
        response.headers_mut().append(name, value);
    }
    response
}

/// The headers about this limit. The limit of all requests adds its own of the same names.
fn rate_headers(asked: &HeaderMap, peer: Option<std::net::SocketAddr>) -> Vec<(HeaderName, HeaderValue)> {
    let forwarded = asked.get("x-forwarded-for").cloned().unwrap_or(HeaderValue::from_static(""));
    let peer = peer.and_then(|peer| HeaderValue::from_str(&peer.to_string()).ok());
    let all = [
        ("x-rate-limit-limit", HeaderValue::from_static(limit::RATE)),
        ("x-rate-limit-duration", HeaderValue::from_static("1")),
        ("x-rate-limit-request-forwarded-for", forwarded),
        ("x-rate-limit-request-remote-addr", peer.unwrap_or(HeaderValue::from_static(""))),
    ];
    all.map(|(name, value)| (HeaderName::from_static(name), value)).into()
}

async fn answer(sources: &Sources, asked: Asked, id: &str, request: Request) -> Response {
    let request_type = asked.request_type();
    let (status, body, task) = match outcome(sources, asked, id, request).await {
        Ok((status, task)) => (StatusCode::OK, Body::Status(status), Some(task)),
        Err(Refused { status, error, task }) => (status, Body::Error(error), task),
    };
    if let Some(task) = &task {
        let (task, response) = (task.arn.task_id(), status.as_u16());
        tracing::info!(task, requestType = request_type, response, "Answered a request about a network fault");
    }
    let shown = match &body {
        Body::Status(status) => Body::Status(status),
        Body::Error(error) => Body::Error(without_id(error, id).into_owned()),
    };
    answered(status, &body, &shown, &request_type)
}

/// Why a request is not carried out.
#[derive(Debug)]
struct Refused {
    status: StatusCode,
    error: String,
    /// The task that asked; `None`: it is not known.
    task: Option<Arc<TaskView>>,
}

/// Checks the request in the order of the Go agent, and has it carried out.
async fn outcome(
    sources: &Sources,
    asked: Asked,
    id: &str,
    request: Request,
) -> Result<(&'static str, Arc<TaskView>), Refused> {
    let refused = |status, error| Refused { status, error, task: None };
    let body = requests::read(request.into_body()).await;
    let body = body.ok_or_else(|| refused(StatusCode::BAD_REQUEST, "the request body is too long".to_owned()))?;
    let operation =
        body::operation(asked.kind, asked.verb, &body).map_err(|error| refused(StatusCode::BAD_REQUEST, error))?;
    let found = sources.tasks.container(id).ok_or_else(|| {
        // Compat: "task arn" and "task Arn".
        let error = format!("unable to get task arn from request: unable to get task Arn from v3 endpoint ID: {id}");
        refused(StatusCode::NOT_FOUND, error)
    })?;
    let FoundContainer { task, .. } = found;
    let by_task = |(status, error)| Refused { status, error, task: Some(Arc::clone(&task)) };
    let network = network(sources, &task, id).map_err(by_task)?;
    let status =
        sources.work.faults.carry_out(network, operation).await.map_err(|error| by_task(failed(error, asked)))?;
    let status = match status {
        FaultStatus::Running => "running",
        FaultStatus::Stopped => "stopped",
        FaultStatus::NotRunning => "not-running",
    };
    Ok((status, task))
}

/// The network of a task that may start faults.
fn network(sources: &Sources, task: &TaskView, id: &str) -> Result<FaultNetwork, (StatusCode, String)> {
    let internal = StatusCode::INTERNAL_SERVER_ERROR;
    let mut interfaces = None;
    if task.network == NetworkMode::Host {
        interfaces = Some(sources.work.faults.host_interfaces().map_err(|error| {
            tracing::error!(task = task.arn.task_id(), %error, "Unable to obtain default network interfaces on host");
            (internal, "failed to resolve default host network interface".to_owned())
        })?);
    }
    if !task.fault_injection {
        let error = format!("enableFaultInjection is not enabled for task: {}", task.arn.as_str());
        return Err((StatusCode::BAD_REQUEST, error));
    }
    // (The Go agent starts faults in such a task. Here the caller learns that this agent does not.)
    if task.network == NetworkMode::Awsvpc {
        let error = "awsvpc mode is not supported by this agent. Please use host mode.";
        return Err((StatusCode::BAD_REQUEST, error.to_owned()));
    }
    // Compat: a task on a bridge has no interfaces, so it gets this answer, not one about its network mode.
    let interfaces = interfaces.filter(|found| !found.names.is_empty()).ok_or_else(|| {
        let text = "failed to get task metadata due to internal server error for container:";
        (internal, format!("{text} {id}"))
    })?;
    Ok(FaultNetwork { task: task.arn.clone(), namespace: None, interfaces })
}

fn failed(error: FaultError, asked: Asked) -> (StatusCode, String) {
    let internal = StatusCode::INTERNAL_SERVER_ERROR;
    match error {
        FaultError::LatencyRuns => {
            (StatusCode::CONFLICT, "There is already one network latency fault running".to_owned())
        }
        FaultError::LossRuns => {
            (StatusCode::CONFLICT, "There is already one network packet loss fault running".to_owned())
        }
        // (The Go agent's stop of latency and loss calls this an internal error.)
        FaultError::TimedOut => (internal, format!("{}: request timed out", asked.request_type())),
        FaultError::Failed => (internal, "internal error".to_owned()),
    }
}

#[cfg(test)]
mod tests;
