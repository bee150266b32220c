//! Every answer of task protection; those that were recorded are compared with the recordings.

use super::super::fakes::{ARN, Server, task};
use super::*;
use ecs_core::model::view::TaskView;
use serde_json::{Value, json};

const PATH: &str = "/api/id-0/task-protection/v1/state";
const ENABLE: &str = r#"{"ProtectionEnabled": true, "ExpiresInMinutes": 60}"#;

fn golden(name: &str) -> Value {
    let path = format!("{}/tests/golden/{name}.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn protected(enabled: bool, expires_at: Option<&str>) -> ProtectedTask {
    ProtectedTask { task: Some(ARN.to_owned()), enabled, expires_at: expires_at.map(str::to_owned) }
}

/// Status and body, with the content type checked.
async fn ask(server: &Server, method: &str, path: &str, body: &str) -> (u16, String) {
    let (status, headers, body) = server.ask("172.17.0.2:1", method, path, body).await;
    assert_eq!(headers["content-type"], "application/json");
    (status.as_u16(), body)
}

#[tokio::test]
async fn recorded_answers_are_reproduced() {
    let server = Server::with(vec![task()]);
    let end = "2026-11-22T00:36:48Z";
    for (name, method, body, answer) in [
        ("task_protection_get", "GET", "", protected(false, None)),
        ("task_protection_put", "PUT", ENABLE, protected(true, Some(end))),
        ("task_protection_put_bad", "PUT", r#"{"ProtectionEnabled": true, "Nonsense": 1}"#, protected(false, None)),
    ] {
        server.script.lock().unwrap().protection = Ok(ProtectionAnswer { tasks: vec![answer], failures: Vec::new() });
        let recorded = golden(name);
        let (status, body) = ask(&server, method, PATH, body).await;
        assert_eq!(json!(status), recorded["status"], "{name}");
        // The recordings keep the order of the members.
        assert_eq!(body, recorded["body"].to_string(), "{name}");
    }
    let calls = std::mem::take(&mut server.script.lock().unwrap().protection_calls);
    let update = ProtectionCall::Update { enabled: true, expires_in_minutes: Some(60) };
    let made = |call| (ARN.into(), "newest".into(), call);
    assert_eq!(calls, [made(ProtectionCall::Get), made(update)]);
}

#[tokio::test]
async fn requests_are_checked_in_the_order_of_the_go_agent() {
    let server = Server::with(vec![task(), TaskView { roles: Vec::new(), ..task() }]);
    let undecodable =
        r#"{"error":{"Code":"InvalidParameterException","Message":"UpdateTaskProtection: failed to decode request"}}"#;
    let missing = format!(
        r#"{{"error":{{"Arn":"{ARN}","Code":"InvalidParameterException","Message":"Invalid request: does not contain 'ProtectionEnabled' field"}}}}"#
    );
    let no_role = format!(
        r#"{{"error":{{"Arn":"{ARN}","Code":"AccessDeniedException","Message":"Invalid Request: no task IAM role credentials available for task"}}}}"#
    );
    let unknown = r#"{"error":{"Code":"ResourceNotFoundException","Message":"Failed to find a task for the request"}}"#;
    let path = |id: &str| format!("/api/{id}/task-protection/v1/state");
    let long = format!(r#"{{"ProtectionEnabled": true, "ExpiresInMinutes": {}1}}"#, " ".repeat(1 << 20));
    for (method, id, body, status, wanted) in [
        ("PUT", "id-7", "", 400, undecodable),
        ("PUT", "id-0", "{", 400, undecodable),
        ("PUT", "id-0", "[]", 400, undecodable),
        ("PUT", "id-0", r#"{"ProtectionEnabled": "true"}"#, 400, undecodable),
        ("PUT", "id-0", r#"{"ProtectionEnabled": true, "ExpiresInMinutes": 1.5}"#, 400, undecodable),
        ("PUT", "id-0", &long, 400, undecodable),
        ("PUT", "id-7", ENABLE, 404, unknown),
        ("GET", "id-7", "", 404, unknown),
        ("PUT", "id-0", "{}", 400, &missing),
        ("PUT", "id-0", "null", 400, &missing),
        ("PUT", "id-0", r#"{"ExpiresInMinutes": 60}"#, 400, &missing),
        ("PUT", "id-1", ENABLE, 403, &no_role),
        ("GET", "id-1", "", 403, &no_role),
    ] {
        assert_eq!(ask(&server, method, &path(id), body).await, (status, wanted.to_owned()), "{method} {body:.60}");
    }
    assert!(server.script.lock().unwrap().protection_calls.is_empty());
    for method in ["POST", "DELETE", "HEAD"] {
        let (status, _, body) = server.ask("172.17.0.2:1", method, PATH, "").await;
        assert_eq!((status, body.as_str()), (StatusCode::METHOD_NOT_ALLOWED, ""), "{method}");
    }
}

#[test]
fn a_change_is_decoded_as_in_go() {
    let update = |enabled, expires_in_minutes| Some(Update { enabled, expires_in_minutes });
    for (body, wanted) in [
        (ENABLE, update(Some(true), Some(60))),
        (r#"{"protectionenabled": false}"#, update(Some(false), None)),
        (r#"{"ProtectionEnabled": true} and more"#, update(Some(true), None)),
        (r#"{"ProtectionEnabled": null, "ExpiresInMinutes": -1}"#, update(None, Some(-1))),
        (r#"{"ProtectionEnabled": 1}"#, None),
        (r#"{"Protection": true}"#, None),
        ("", None),
    ] {
        assert_eq!(decoded(body), wanted, "{body}");
    }
}

#[tokio::test]
async fn what_ecs_answers_is_passed_on() {
    let server = Server::with(vec![task()]);
    let error =
        |code: &str, message: &str| format!(r#"{{"error":{{"Arn":"{ARN}","Code":"{code}","Message":"{message}"}}}}"#);
    let unexpected = error("ServerException", "Unexpected error occurred");
    let failure = |reason: &str| ProtectionFailure { reason: Some(reason.to_owned()), ..ProtectionFailure::default() };
    let (single, double) = (vec![protected(true, None)], vec![protected(true, None); 2]);
    let refused = ProtectionError::Refused {
        status: 400,
        request_id: "r-1".to_owned(),
        code: "AccessDeniedException".to_owned(),
        message: "not <you>".to_owned(),
    };
    for (outcome, status, wanted) in [
        (
            Ok((single.clone(), vec![failure("TASK_NOT_VALID")])),
            200,
            r#"{"failure":{"Arn":null,"Detail":null,"Reason":"TASK_NOT_VALID"}}"#.to_owned(),
        ),
        (Ok((single, vec![failure("a"), failure("b")])), 500, unexpected.clone()),
        (Ok((double, Vec::new())), 500, unexpected.clone()),
        (Ok((Vec::new(), Vec::new())), 500, unexpected),
        (
            Err(refused),
            400,
            r#"{"requestID":"r-1","error":{"Arn":"ARN","Code":"AccessDeniedException","Message":"not \u003cyou\u003e"}}"#
                .replace("ARN", ARN),
        ),
        (
            Err(ProtectionError::TimedOut),
            504,
            error("RequestCanceled", "Timed out calling ECS Task Protection API"),
        ),
        (Err(ProtectionError::Failed("no route".to_owned())), 500, error("ServerException", "no route")),
        (
            Err(ProtectionError::NoCredentials),
            403,
            error("AccessDeniedException", "Invalid Request: no task IAM role credentials available for task"),
        ),
    ] {
        server.script.lock().unwrap().protection =
            outcome.map(|(tasks, failures)| ProtectionAnswer { tasks, failures });
        for (method, body) in [("GET", ""), ("PUT", ENABLE)] {
            assert_eq!(ask(&server, method, PATH, body).await, (status, wanted.clone()));
        }
    }
}
