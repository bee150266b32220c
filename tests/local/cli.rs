//! The real `aws` CLI, used as a person would.

use super::agent::Agent;
use super::{LIMIT, quick};
use ecs_local::{Server, TaskStatus};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::process::Command;

/// The time limit for one command; `aws ecs wait` polls every 6 seconds.
const COMMAND_LIMIT: Duration = Duration::from_secs(120);

/// Runs `aws ecs …` and returns its JSON answer, or its error text.
async fn aws(server: &Server, line: &[&str]) -> Result<Value, String> {
    let line: Vec<&str> = ["ecs"].iter().chain(line).copied().collect();
    aws_with(server, server.token().expose(), &line).await
}

/// Runs `aws …` with this secret access key. An answer that is not JSON is returned as a text.
pub(crate) async fn aws_with(server: &Server, secret: &str, line: &[&str]) -> Result<Value, String> {
    let mut command = Command::new("aws");
    command.args(["--endpoint-url", &server.url(), "--output", "json"]).args(line);
    for (name, value) in [
        ("AWS_ACCESS_KEY_ID", "local"),
        ("AWS_SECRET_ACCESS_KEY", secret),
        ("AWS_DEFAULT_REGION", "us-west-2"),
        ("AWS_CONFIG_FILE", concat!(env!("CARGO_MANIFEST_DIR"), "/tests/local/aws.config")),
        ("AWS_SHARED_CREDENTIALS_FILE", "/dev/null"),
        ("AWS_PAGER", ""),
        ("NO_PROXY", "127.0.0.1"),
    ] {
        command.env(name, value);
    }
    command.env_remove("AWS_PROFILE").kill_on_drop(true);
    let output =
        tokio::time::timeout(COMMAND_LIMIT, command.output()).await.expect("aws ends in time").expect("aws runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    match output.status.success() {
        true => Ok(serde_json::from_str(&text(&output.stdout)).unwrap_or_else(|_| text(&output.stdout).into())),
        false => Err(text(&output.stderr)),
    }
}

pub(crate) async fn present() -> bool {
    let found = Command::new("aws").arg("--version").output().await.is_ok_and(|output| output.status.success());
    let required = std::env::var("ECS_TEST_REQUIRE_AWSCLI").is_ok_and(|value| value == "1");
    assert!(found || !required, "ECS_TEST_REQUIRE_AWSCLI=1, but there is no aws CLI (pip install awscli)");
    if !found {
        eprintln!("SKIPPED: no aws CLI on PATH (pip install awscli); ECS_TEST_REQUIRE_AWSCLI=1 makes this a failure");
    }
    found
}

#[tokio::test]
async fn a_session_from_register_to_stopped() {
    if !present().await {
        return;
    }
    let server = Server::start(quick()).await.unwrap();
    let mut agent = Agent::start(&server).await;
    let file = format!("file://{}/examples/tasks/web.json", env!("CARGO_MANIFEST_DIR"));
    let registered = aws(&server, &["register-task-definition", "--cli-input-json", &file]).await.unwrap();
    assert_eq!(registered["taskDefinition"]["status"], "ACTIVE");
    let described = aws(&server, &["describe-task-definition", "--task-definition", "web"]).await.unwrap();
    assert_eq!(described["taskDefinition"]["containerDefinitions"][0]["portMappings"][0]["containerPort"], 8080);
    let families = aws(&server, &["list-task-definition-families"]).await.unwrap();
    assert_eq!(families["families"], json!(["web"]));

    let overrides = r#"{"containerOverrides":[{"name":"web","environment":[{"name":"A","value":"b"}]}]}"#;
    let run = ["run-task", "--task-definition", "web", "--started-by", "me", "--overrides", overrides];
    let ran = aws(&server, &run).await.unwrap();
    assert_eq!(ran["tasks"][0]["lastStatus"], "PENDING", "{ran}");
    let arn = ran["tasks"][0]["taskArn"].as_str().unwrap().to_owned();
    let payload = agent.payload().await;
    assert_eq!(payload["tasks"][0]["containers"][0]["environment"]["A"], "b");
    agent.ack(&payload).await;
    let bindings = json!([{"bindIP": "0.0.0.0", "containerPort": 8080, "hostPort": 32768, "protocol": "tcp"}]);
    agent
        .submit(
            &arn,
            "RUNNING",
            json!({"containerName": "web", "status": "RUNNING", "runtimeId": "abc", "networkBindings": bindings}),
        )
        .await;
    aws(&server, &["wait", "tasks-running", "--tasks", &arn]).await.unwrap();
    let task = aws(&server, &["describe-tasks", "--tasks", &arn]).await.unwrap()["tasks"][0].clone();
    assert_eq!((&task["lastStatus"], &task["startedBy"]), (&json!("RUNNING"), &json!("me")));
    assert_eq!(task["containers"][0]["networkBindings"][0]["hostPort"], 32768);
    let listed = aws(&server, &["list-tasks", "--family", "web"]).await.unwrap();
    assert_eq!(listed["taskArns"], json!([arn]));

    let id = arn.rsplit('/').next().unwrap().to_owned();
    aws(&server, &["stop-task", "--task", &id, "--reason", "done with it"]).await.unwrap();
    loop {
        let payload = agent.payload().await;
        agent.ack(&payload).await;
        if payload["tasks"][0]["desiredStatus"] == "STOPPED" {
            break;
        }
    }
    agent.submit(&arn, "STOPPED", json!({"containerName": "web", "status": "STOPPED", "exitCode": 143})).await;
    aws(&server, &["wait", "tasks-stopped", "--tasks", &arn]).await.unwrap();
    let task = aws(&server, &["describe-tasks", "--tasks", &id]).await.unwrap()["tasks"][0].clone();
    assert_eq!((&task["stopCode"], &task["stoppedReason"]), (&json!("UserInitiated"), &json!("done with it")));
    assert_eq!(task["containers"][0]["exitCode"], 143);
    let listed = aws(&server, &["list-tasks", "--desired-status", "STOPPED"]).await.unwrap();
    assert_eq!(listed["taskArns"], json!([arn]));
    server.shutdown().await;
}

#[tokio::test]
async fn instances_clusters_and_refusals() {
    if !present().await {
        return;
    }
    let server = Server::start(quick()).await.unwrap();
    let agent = Agent::start(&server).await;
    let listed = aws(&server, &["list-container-instances"]).await.unwrap();
    assert_eq!(listed["containerInstanceArns"], json!([agent.instance]));
    let show = ["describe-container-instances", "--container-instances", &agent.instance];
    let shown = aws(&server, &show).await.unwrap()["containerInstances"][0].clone();
    assert_eq!((&shown["status"], &shown["agentConnected"]), (&json!("ACTIVE"), &json!(true)));
    let memory = shown["remainingResources"].as_array().unwrap().iter().find(|r| r["name"] == "MEMORY").cloned();
    assert!(memory.unwrap()["integerValue"].as_i64() > Some(0));
    assert!(shown["registeredAt"].is_string() || shown["registeredAt"].is_number());

    let define = |memory: &str, extra: &str| {
        format!(r#"{{"family":"t","containerDefinitions":[{{"name":"a","image":"i","memory":{memory}{extra}}}]}}"#)
    };
    let problem = aws(&server, &["register-task-definition", "--cli-input-json", &define("1", "")]).await.unwrap_err();
    assert!(problem.contains("(ClientException)") && problem.contains("at least 4 MiB"), "{problem}");
    for (definition, reason) in [
        (define("999999", ""), "RESOURCE:MEMORY"),
        (define("16", r#","portMappings":[{"containerPort":1,"hostPort":22}]"#), "RESOURCE:PORTS"),
        (define("16", r#","logConfiguration":{"logDriver":"splunk"}"#), "ATTRIBUTE"),
    ] {
        aws(&server, &["register-task-definition", "--cli-input-json", &definition]).await.unwrap();
        let ran = aws(&server, &["run-task", "--task-definition", "t"]).await.unwrap();
        assert_eq!(ran["failures"][0]["reason"], reason, "{ran}");
    }
    let drain = ["update-container-instances-state", "--container-instances", &agent.instance, "--status", "DRAINING"];
    assert_eq!(aws(&server, &drain).await.unwrap()["containerInstances"][0]["status"], "DRAINING");

    let created = aws(&server, &["create-cluster", "--cluster-name", "other"]).await.unwrap();
    assert_eq!(created["cluster"]["status"], "ACTIVE");
    assert_eq!(aws(&server, &["list-clusters"]).await.unwrap()["clusterArns"].as_array().unwrap().len(), 2);
    let clusters = aws(&server, &["describe-clusters", "--clusters", "default", "none"]).await.unwrap();
    assert_eq!(clusters["clusters"][0]["registeredContainerInstancesCount"], 1);
    assert_eq!(clusters["failures"][0]["reason"], "MISSING");
    let problem = aws(&server, &["delete-cluster", "--cluster", "default"]).await.unwrap_err();
    assert!(problem.contains("ClusterContainsContainerInstancesException"), "{problem}");
    let deregister = ["deregister-container-instance", "--container-instance", &agent.instance, "--force"];
    assert_eq!(aws(&server, &deregister).await.unwrap()["containerInstance"]["status"], "INACTIVE");
    let gone = server.wait_for("the socket to close", LIMIT, |s| (!s.instances()[0].connected()).then_some(()));
    gone.await.unwrap();
    assert!(server.read(|state| state.tasks().iter().all(|task| task.last_status != TaskStatus::Running)));
    server.shutdown().await;
}
