//! `/health`: whether the agent works, with the cause if it does not. The Go agent has no such path.
//!
//! Owns the JSON, which `-healthcheck` also reads. The core decides what is healthy (`ecs_core::agent_health`).

use crate::http::json;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use ecs_core::model::agent_health::{AgentHealth, Check};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Looks up the current health of the agent.
pub type HealthLookup = Arc<dyn Fn() -> AgentHealth + Send + Sync>;

/// The value of `Agent`, which shows that an ecs-agent answered, and not another server on the same port.
const AGENT: &str = "ecs-agent";

/// `{"Agent":"ecs-agent","Healthy":…,"Stage":…,"Checks":[{"Name":…,"Healthy":…,"Text":…}]}`
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct HealthBody<'a> {
    agent: &'static str,
    healthy: bool,
    stage: &'a str,
    checks: Vec<CheckBody<'a>>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct CheckBody<'a> {
    name: &'static str,
    healthy: bool,
    text: &'a str,
}

impl<'a> From<&'a Check> for CheckBody<'a> {
    fn from(check: &'a Check) -> Self {
        Self { name: check.subject.as_str(), healthy: check.healthy, text: &check.text }
    }
}

/// The answer: the checks, with status 200 if all are good and 503 if not.
pub(super) fn answer(health: &AgentHealth) -> Response {
    let status = if health.is_healthy() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = HealthBody {
        agent: AGENT,
        healthy: health.is_healthy(),
        stage: &health.stage,
        checks: health.checks.iter().map(CheckBody::from).collect(),
    };
    let body = json::encode(&body).unwrap_or_default();
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")];
    (status, headers, body).into_response()
}

/// The part of a `/health` answer that `-healthcheck` needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthAnswer {
    /// Whether the agent is healthy.
    pub healthy: bool,
    /// One line: the failed checks. For a healthy agent, the stage that it is in, and the failed checks without which it works.
    pub text: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ParsedBody {
    agent: String,
    healthy: bool,
    stage: String,
    checks: Vec<ParsedCheck>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ParsedCheck {
    name: String,
    healthy: bool,
    text: String,
}

impl HealthAnswer {
    /// Parses the body of an answer; `None` if the body is not from an ecs-agent.
    pub fn parse(body: &[u8]) -> Option<Self> {
        let read: ParsedBody = serde_json::from_slice(body).ok().filter(|read: &ParsedBody| read.agent == AGENT)?;
        let line = |check: &ParsedCheck| format!("{}: {}", check.name, check.text);
        let wrong: Vec<String> = read.checks.iter().filter(|check| !check.healthy).map(line).collect();
        let stage = read.healthy.then_some(read.stage);
        let text = stage.into_iter().chain(wrong).collect::<Vec<_>>().join("; ");
        Some(Self { healthy: read.healthy, text: ecs_core::model::text::cleaned(&text) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ecs_core::model::agent_health::Subject;

    fn health(wrong: &[(Subject, &str)]) -> AgentHealth {
        let check = |(subject, text): &(Subject, &str)| Check::unhealthy(*subject, (*text).to_owned());
        AgentHealth { stage: "running".to_owned(), checks: wrong.iter().map(check).collect() }
    }

    async fn body(health: &AgentHealth) -> (StatusCode, Vec<u8>) {
        let response = answer(health);
        let status = response.status();
        (status, axum::body::to_bytes(response.into_body(), 1 << 16).await.unwrap().to_vec())
    }

    #[tokio::test]
    async fn what_is_written_is_what_is_read() {
        let (status, bytes) = body(&health(&[])).await;
        assert_eq!(status, 200);
        assert_eq!(HealthAnswer::parse(&bytes), Some(HealthAnswer { healthy: true, text: "running".to_owned() }));
        let two = [(Subject::Docker, "no answer for 75 s"), (Subject::Acs, "no message for 301 s")];
        let (status, bytes) = body(&health(&two)).await;
        assert_eq!(status, 503);
        let text = "Docker: no answer for 75 s; ACS: no message for 301 s".to_owned();
        assert_eq!(HealthAnswer::parse(&bytes), Some(HealthAnswer { healthy: false, text }));
        let mut mentioned = health(&[(Subject::Telemetry, "no message for 301 s")]);
        mentioned.checks[0].essential = false;
        let (status, bytes) = body(&mentioned).await;
        assert_eq!(status, 200);
        let text = "running; telemetry: no message for 301 s".to_owned();
        assert_eq!(HealthAnswer::parse(&bytes), Some(HealthAnswer { healthy: true, text }));
    }

    #[test]
    fn other_servers_are_no_agent() {
        for body in [
            "",
            "<html>It works!</html>",
            r#"{"AvailableCommands":["/v1/metadata","/v1/tasks","/license"]}"#,
            r#"{"Healthy":true,"Stage":"running","Checks":[]}"#,
            r#"{"Agent":"nginx","Healthy":true,"Stage":"running","Checks":[]}"#,
        ] {
            assert_eq!(HealthAnswer::parse(body.as_bytes()), None, "{body}");
        }
    }
}
