//! GetTaskProtection and UpdateTaskProtection, called for a task with the credentials of its own role (spec `task-metadata.md`
//! §8).
//!
//! Owns the call, its time limit and the reading of its answer. Invariant: the answer, or an error, is there within
//! [`LIMIT`].

use crate::aws::client::call_error::CallError;
use crate::aws::client::json_call::Call;
use crate::aws::client::sdk::Sdk;
use crate::aws::identity::credentials;
use crate::aws::identity::roles::RoleCredentials;
use aws_smithy_types::DateTime;
use aws_smithy_types::date_time::Format;
use ecs_core::model::TaskArn;
use ecs_core::model::protection::{
    ProtectedTask, ProtectionAnswer, ProtectionCall, ProtectionError, ProtectionFailure,
};
use ecs_core::model::text::cleaned;
use serde::Deserialize;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::timeout;

/// Time limit for a call with all its attempts.
pub const LIMIT: Duration = Duration::from_secs(4);
/// The beginning of the operation's name in a request.
const TARGET: &str = "AmazonEC2ContainerServiceV20141113";

/// The relevant parts of the answer.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Answer {
    protected_tasks: Vec<Protected>,
    failures: Vec<Failure>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Protected {
    task_arn: Option<String>,
    protection_enabled: bool,
    /// Seconds since the epoch, with a fraction.
    expiration_date: Option<f64>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Failure {
    arn: Option<String>,
    detail: Option<String>,
    reason: Option<String>,
}

/// Calls ECS about one task of this cluster, with the credentials of the task's role.
///
/// # Errors
/// [`ProtectionError`]: ECS refused the call, did not answer in time, or gave an answer that cannot be read.
pub async fn call(
    sdk: &Sdk,
    cluster: &str,
    task: &TaskArn,
    call: ProtectionCall,
    role: &RoleCredentials,
) -> Result<ProtectionAnswer, ProtectionError> {
    let (operation, body) = request(cluster, task, call);
    let target = format!("{TARGET}.{operation}");
    let endpoint = sdk.ecs_endpoint();
    let request = Call { service: "ecs", target: &target, region: "", endpoint, body: &body };
    let keys = credentials::fixed(&role.access_key_id, &role.secret_access_key, &role.session_token);
    let answered = timeout(LIMIT, sdk.call(&request, &keys)).await.map_err(|_| ProtectionError::TimedOut)?;
    let answer = answered.map_err(|error| failed(error, operation))?;
    let answer: Answer = serde_json::from_slice(&answer)
        .map_err(|_| ProtectionError::Failed(format!("operation error ECS: {operation}, the answer cannot be read")))?;
    Ok(ProtectionAnswer {
        tasks: answer.protected_tasks.into_iter().map(protected).collect(),
        failures: answer.failures.into_iter().map(failure).collect(),
    })
}

fn request(cluster: &str, task: &TaskArn, call: ProtectionCall) -> (&'static str, Value) {
    let mut body = json!({"cluster": cluster, "tasks": [task.as_str()]});
    match call {
        ProtectionCall::Get => ("GetTaskProtection", body),
        ProtectionCall::Update { enabled, expires_in_minutes } => {
            body["protectionEnabled"] = json!(enabled);
            if let Some(minutes) = expires_in_minutes {
                body["expiresInMinutes"] = json!(minutes);
            }
            ("UpdateTaskProtection", body)
        }
    }
}

fn failed(error: CallError, operation: &str) -> ProtectionError {
    match error {
        CallError::Refused { status, request_id, code, message, .. } => {
            ProtectionError::Refused { status, request_id, code, message }
        }
        CallError::NoAnswer(_) | CallError::NotSent(_) => {
            ProtectionError::Failed(cleaned(&error.sdk_text(&format!("ECS: {operation}"), &[])))
        }
    }
}

fn protected(wire: Protected) -> ProtectedTask {
    ProtectedTask {
        task: wire.task_arn.map(|arn| cleaned(&arn)),
        enabled: wire.protection_enabled,
        expires_at: wire.expiration_date.and_then(time),
    }
}

/// RFC 3339 in whole milliseconds, without zeros at the end. `None`: there is no such time.
fn time(seconds: f64) -> Option<String> {
    // A number that is too large for an integer becomes the largest one.
    let millis = (seconds * 1000.0).round() as i64;
    DateTime::from_millis(millis).fmt(Format::DateTime).ok()
}

fn failure(wire: Failure) -> ProtectionFailure {
    let clean = |text: Option<String>| text.map(|text| cleaned(&text));
    ProtectionFailure { task: clean(wire.arn), detail: clean(wire.detail), reason: clean(wire.reason) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aws::tests::fake::{self, Answer, Fake, role};

    const ARN: &str = "arn:aws:ecs:us-west-2:123456789012:task/judge/319892675625455485f5c720b4cd7692";

    async fn ask(fake: &Fake, request: ProtectionCall) -> Result<ProtectionAnswer, ProtectionError> {
        let sdk = Sdk::new(fake::settings(fake)).unwrap();
        call(&sdk, "judge", &ARN.into(), request, &role("task")).await
    }

    fn update() -> ProtectionCall {
        ProtectionCall::Update { enabled: true, expires_in_minutes: Some(60) }
    }

    #[tokio::test]
    async fn the_requests_are_the_recorded_ones() {
        for (name, request) in [("api_GetTaskProtection", ProtectionCall::Get), ("api_UpdateTaskProtection", update())]
        {
            let fake = Fake::start(|_| Answer::json(200, &json!({}))).await;
            ask(&fake, request).await.unwrap();
            let (golden, sent) = (fake::golden(name), fake.requests().remove(0));
            assert_eq!((sent.json(), sent.method.as_str(), sent.path.as_str()), (golden["body"].clone(), "POST", "/"));
            for name in ["X-Amz-Target", "User-Agent", "Content-Type", "Content-Length", "Amz-Sdk-Request"] {
                assert_eq!(sent.header(name), golden["headers"][name].as_str(), "{name}");
            }
            let authorization = sent.header("authorization").unwrap();
            assert_eq!(fake::scope(authorization), fake::scope(golden["headers"]["Authorization"].as_str().unwrap()));
            assert!(authorization.contains("Credential=ASIA09438B6F6D524562/"), "the role's key");
            assert_eq!(sent.header("x-amz-security-token"), Some("tok"));
        }
        let (_, without_end) =
            request("c", &ARN.into(), ProtectionCall::Update { enabled: false, expires_in_minutes: None });
        assert_eq!(without_end, json!({"cluster": "c", "tasks": [ARN], "protectionEnabled": false}));
    }

    #[tokio::test]
    async fn protection_and_failures_are_read() {
        let fake = Fake::start(|_| {
            let tasks = json!([
                {"taskArn": ARN, "protectionEnabled": true, "expirationDate": 1_795_307_808.0},
                {"taskArn": ARN, "protectionEnabled": true, "expirationDate": 1_795_307_808.12},
                {"protectionEnabled": false},
            ]);
            Answer::json(200, &json!({"protectedTasks": tasks, "failures": [{"arn": ARN, "reason": "TASK_NOT_VALID"}]}))
        })
        .await;
        let answer = ask(&fake, ProtectionCall::Get).await.unwrap();
        let ends: Vec<_> = answer.tasks.iter().map(|task| task.expires_at.as_deref()).collect();
        assert_eq!(ends, [Some("2026-11-22T00:36:48Z"), Some("2026-11-22T00:36:48.12Z"), None]);
        assert_eq!(answer.tasks[2], ProtectedTask::default());
        let (task, reason) = (Some(ARN.to_owned()), Some("TASK_NOT_VALID".to_owned()));
        assert_eq!(answer.failures, [ProtectionFailure { task, detail: None, reason }]);
    }

    #[tokio::test]
    async fn errors_keep_their_status_and_text() {
        let denied =
            |_: &fake::Request| Answer::error(400, "AccessDeniedException", "no").with("x-amzn-requestid", "r-1");
        let refused = ProtectionError::Refused {
            status: 400,
            request_id: "r-1".to_owned(),
            code: "AccessDeniedException".to_owned(),
            message: "no".to_owned(),
        };
        let fake = Fake::start(denied).await;
        assert_eq!(ask(&fake, update()).await, Err(refused));
        let fake = Fake::start(|_| Answer::text(200, "<html>")).await;
        let unreadable = "operation error ECS: GetTaskProtection, the answer cannot be read".to_owned();
        assert_eq!(ask(&fake, ProtectionCall::Get).await, Err(ProtectionError::Failed(unreadable)));
        let settings = crate::aws::client::sdk::Settings {
            backend_host: Some("http://127.0.0.1:1".to_owned()),
            region: "us-west-2".to_owned(),
            ..Default::default()
        };
        let sdk = Sdk::new(settings).unwrap();
        let error = call(&sdk, "judge", &ARN.into(), ProtectionCall::Get, &role("task")).await.unwrap_err();
        let text = match &error {
            ProtectionError::Failed(text) => text.as_str(),
            other => panic!("{other:?}"),
        };
        assert!(text.starts_with("operation error ECS: GetTaskProtection, ") && text.contains("refused"), "{text}");
    }

    #[tokio::test]
    async fn a_silent_service_is_given_up_after_four_seconds() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let settings = crate::aws::client::sdk::Settings {
            backend_host: Some(format!("http://{}", listener.local_addr().unwrap())),
            region: "us-west-2".to_owned(),
            ..Default::default()
        };
        let sdk = Sdk::new(settings).unwrap();
        let began = std::time::Instant::now();
        let outcome = call(&sdk, "judge", &ARN.into(), ProtectionCall::Get, &role("task")).await;
        assert_eq!(outcome, Err(ProtectionError::TimedOut));
        assert!(began.elapsed() >= LIMIT);
    }
}
