//! The credentials of roles: `/v1/credentials?id=…` and `/v2/credentials/…` (spec `task-metadata.md` §3).
//!
//! Owns the answers. Whoever knows an id gets the latest credentials of its role, as with the Go agent. Invariants: each request
//! is in the audit log, and neither the log nor the audit log has the id or a key.

use super::audit::{Event, Request as Audited};
use super::counts::Outcome;
use super::peer_check::Verdict;
use super::sources::{Credentials, Sources};
use super::tasks::FoundRole;
use crate::http::answer::{json_answer, json_body};
use crate::http::{RemoteAddress, json};
use axum::Router;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use axum::routing::any;
use ecs_core::model::RoleKind;
use serde::Serialize;
use std::sync::Arc;
use zeroize::Zeroizing;

/// The request type in the log.
const KIND: &str = "credentials";
/// The path with the id in its query.
pub(super) const V1: &str = "/v1/credentials";
/// The path that the id follows.
pub(super) const V2: &str = "/v2/credentials";

/// The body of a success.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Body<'a> {
    role_arn: &'a str,
    access_key_id: &'a str,
    secret_access_key: &'a str,
    token: &'a str,
    expiration: &'a str,
}

/// The body of an error.
#[derive(Serialize)]
struct Error {
    code: &'static str,
    message: String,
    #[serde(rename = "HTTPErrorCode")]
    status: u16,
}

/// Why there are no credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    NoId,
    UnknownId,
    /// ECS has not sent them again since the agent has started.
    Uninitialized,
    /// The task is starting, so its address may not be known yet.
    AddressUnknown,
    /// The request comes from an address that is not the task's.
    WrongAddress,
    Encoding,
}

impl Refusal {
    fn status(self) -> StatusCode {
        match self {
            Self::NoId | Self::UnknownId => StatusCode::BAD_REQUEST,
            // The SDKs try again after these two.
            Self::Uninitialized | Self::AddressUnknown => StatusCode::SERVICE_UNAVAILABLE,
            Self::WrongAddress => StatusCode::FORBIDDEN,
            Self::Encoding => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    fn outcome(self) -> Outcome {
        match self {
            Self::NoId => Outcome::NoId,
            Self::UnknownId => Outcome::UnknownId,
            Self::Uninitialized | Self::AddressUnknown => Outcome::NotReady,
            Self::WrongAddress => Outcome::WrongAddress,
            Self::Encoding => Outcome::Error,
        }
    }

    fn code(self) -> &'static str {
        match self {
            Self::NoId => "NoIdInRequest",
            Self::UnknownId => "InvalidIdInRequest",
            Self::Uninitialized | Self::AddressUnknown => "CredentialsUninitialized",
            Self::WrongAddress => "AccessDenied",
            Self::Encoding => "InternalServerError",
        }
    }

    fn message(self, prefix: &str) -> String {
        let text = match self {
            Self::NoId => "No Credential ID in the request",
            Self::UnknownId => "Credentials not found",
            Self::Uninitialized => "Credentials uninitialized for ID",
            Self::AddressUnknown => "The address of the task is not known yet",
            Self::WrongAddress => "The request does not come from the task (ECS_CREDENTIALS_PEER_CHECK)",
            Self::Encoding => return "Internal server error".to_owned(),
        };
        format!("{prefix}: {text}")
    }
}

/// The routes of this file.
pub(super) fn routes() -> Router<Arc<Sources>> {
    Router::new()
        .route(V1, any(by_query))
        .route(&format!("{V2}/"), any(without_id))
        .route(&format!("{V2}/{{*id}}"), any(by_path))
}

/// The id in the query of [`V1`]; empty if there is none. The first one counts, as in Go.
pub(super) fn id_in(query: Option<&str>) -> String {
    let mut members = url::form_urlencoded::parse(query.unwrap_or_default().as_bytes());
    members.find(|(name, _)| name == "id").map(|(_, id)| id.into_owned()).unwrap_or_default()
}

async fn by_query(
    State(sources): State<Arc<Sources>>,
    RawQuery(query): RawQuery,
    peer: Option<axum::Extension<RemoteAddress>>,
    headers: HeaderMap,
) -> Response {
    let id = Zeroizing::new(id_in(query.as_deref()));
    sources.answer("CredentialsV1Request", V1, &id, peer, &headers).await
}

async fn without_id(
    State(sources): State<Arc<Sources>>,
    peer: Option<axum::Extension<RemoteAddress>>,
    headers: HeaderMap,
) -> Response {
    sources.answer("CredentialsV2Request", V2, "", peer, &headers).await
}

async fn by_path(
    State(sources): State<Arc<Sources>>,
    Path(id): Path<String>,
    peer: Option<axum::Extension<RemoteAddress>>,
    headers: HeaderMap,
) -> Response {
    let id = Zeroizing::new(id);
    sources.answer("CredentialsV2Request", V2, &id, peer, &headers).await
}

impl Sources {
    /// Answers a request for the credentials with this id, and writes it to the audit log.
    async fn answer(
        &self,
        prefix: &str,
        path: &'static str,
        id: &str,
        peer: Option<axum::Extension<RemoteAddress>>,
        headers: &HeaderMap,
    ) -> Response {
        let remote = peer.map(|axum::Extension(remote)| remote);
        let (peer, role) = (remote.map(|remote| remote.address), self.tasks.role(id));
        let (result, verdict) = self.credentials_for(id, role.as_ref(), remote).await;
        let result = result.and_then(|found| encoded(&found).ok_or(Refusal::Encoding));
        let user_agent = headers.get(header::USER_AGENT).map(|value| String::from_utf8_lossy(value.as_bytes()));
        let audited = |status: StatusCode, event| Audited {
            status: status.as_u16(),
            peer,
            path,
            user_agent: user_agent.as_deref().unwrap_or_default(),
            task: role.as_ref().map(|role| &role.task.arn),
            event,
        };
        let event = match role.as_ref().map(|role| role.kind) {
            Some(RoleKind::Execution) => Event::ExecutionRole,
            Some(RoleKind::Task) | None => Event::TaskRole,
        };
        let status = result.as_ref().map_or_else(|refusal| refusal.status(), |_| StatusCode::OK);
        self.requests.credentials_asked(result.as_ref().map_or_else(|refusal| refusal.outcome(), |_| Outcome::Served));
        self.audit.write(&audited(status, event));
        if verdict == Verdict::Foreign {
            self.audit.write(&audited(status, Event::WrongAddress));
            self.peer_check.report(role.as_ref(), peer);
        }
        match result {
            Ok(body) => {
                if let Some(role) = &role {
                    let (credential_type, task_arn) = (role.kind.as_str(), role.task.arn.as_str());
                    tracing::info!(
                        credentialType = credential_type,
                        taskARN = task_arn,
                        "Processing credential request"
                    );
                }
                json_body(status, body)
            }
            Err(refusal) => {
                let error = Error { code: refusal.code(), message: refusal.message(prefix), status: status.as_u16() };
                json_answer(status, &error, KIND)
            }
        }
    }

    async fn credentials_for(
        &self,
        id: &str,
        role: Option<&FoundRole>,
        peer: Option<RemoteAddress>,
    ) -> (Result<Credentials, Refusal>, Verdict) {
        if id.is_empty() {
            return (Err(Refusal::NoId), Verdict::Own);
        }
        let Some(role) = role else {
            // After the loss of the agent's state, the tasks are not known until Docker has listed their containers.
            let is_early = self.tasks.view().is_incomplete;
            return (Err(if is_early { Refusal::Uninitialized } else { Refusal::UnknownId }), Verdict::Own);
        };
        let verdict = self.peer_check.judge(&self.tasks, &role.task.arn, peer).await;
        let found = match verdict {
            Verdict::Foreign if self.peer_check.is_enforced() => Err(Refusal::WrongAddress),
            Verdict::Unknown if self.peer_check.is_enforced() => Err(Refusal::AddressUnknown),
            Verdict::Own | Verdict::Foreign | Verdict::Unknown => {
                (self.credentials)(&role.current).ok_or(Refusal::Uninitialized)
            }
        };
        (found, verdict)
    }
}

/// The body of a success; `None` if it cannot be written.
fn encoded(found: &Credentials) -> Option<bytes::Bytes> {
    let body = Body {
        role_arn: &found.role_arn,
        access_key_id: found.access_key_id.expose(),
        secret_access_key: found.secret_access_key.expose(),
        token: found.session_token.expose(),
        expiration: &found.expiration,
    };
    json::encode(&body).ok().map(Into::into)
}
