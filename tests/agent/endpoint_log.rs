//! No id of the task metadata endpoint and no key of a role is in the agent's logs, whatever is asked there.

use super::rig::{FOREVER, shell};
use super::roles::{ROLE, Scene, ask_on_host, cloudwatch_logs};
use ecs_local::TaskStatus;
use serde_json::json;
use tokio::task::JoinSet;

/// Requests below the id of a container: method, version, path and body. `ID` in a body stands for the id.
fn requests() -> Vec<(&'static str, &'static str, String, &'static str)> {
    let mut requests = Vec::new();
    let reads =
        ["", "/task", "/taskWithTags", "/stats", "/task/stats", "/associations/gpu", "/associations/gpu/x", "/no"];
    for version in ["v3", "v4"] {
        requests.extend(reads.map(|path| ("GET", version, path.to_owned(), "")));
        requests.push(("POST", version, "/task".to_owned(), "ID"));
    }
    let protection = "/task-protection/v1/state";
    for (method, body) in
        [("GET", ""), ("PUT", r#"{"ProtectionEnabled":true}"#), ("PUT", r#"{"ID":"ID"}"#), ("PUT", "ID")]
    {
        requests.push((method, "api", protection.to_owned(), body));
    }
    let good = r#"{"Port":1234,"Protocol":"tcp","TrafficType":"egress"}"#;
    for kind in ["network-blackhole-port", "network-latency", "network-packet-loss"] {
        for (operation, body) in
            [("start", good), ("start", r#"{"ID":"ID"}"#), ("status", good), ("stop", "ID"), ("no", "")]
        {
            requests.push(("POST", "api", format!("/fault/v1/{kind}/{operation}"), body));
        }
        requests.push(("PUT", "api", format!("/fault/v1/{kind}/status"), good));
    }
    requests
}

/// Asks as a process of this host.
fn ask(method: &str, path: &str, body: &str) {
    let url = format!("http://169.254.170.2{path}");
    let curl =
        ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "--max-time", "10", "-X", method, "-d", body, &url];
    let (_, status) = super::port::run(&curl);
    assert_ne!(status, "000", "{method} {path}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_id_and_no_key_of_a_role_is_in_the_logs() {
    let Some(mut scene) = Scene::start("endpoint log", "enforce").await else { return };
    scene.rig.kill();
    scene.rig.environment.push(("ECS_LOGLEVEL".to_owned(), "debug".to_owned()));
    scene.rig.start_agent();
    scene.rig.registered().await;
    let mut logs = JoinSet::new();
    let (endpoint, _) = cloudwatch_logs(&mut logs).await;
    let mut secrets = Vec::new();
    for network in ["bridge", "host"] {
        let mut container = shell("main", &scene.image.reference, FOREVER);
        container["logConfiguration"] = json!({"logDriver": "awslogs", "options": {
            "awslogs-group": "g", "awslogs-region": "us-west-2", "awslogs-stream-prefix": "p",
            "awslogs-endpoint": format!("http://{endpoint}"),
        }});
        let definition = json!({"family": "asks", "networkMode": network, "taskRoleArn": ROLE, "executionRoleArn": ROLE,
            "containerDefinitions": [container]});
        let arn = scene.rig.server.run_task(&definition).unwrap();
        let task = scene.rig.task(&arn, TaskStatus::Running).await;
        let id = task.container("main").unwrap().runtime_id.clone().unwrap();
        let (path, variable) = (scene.path(&id), scene.exec(&id, "echo $ECS_CONTAINER_METADATA_URI_V4"));
        let (role, endpoint) = (path.rsplit('/').next().unwrap(), variable.rsplit('/').next().unwrap());
        assert!(role.len() > 30 && endpoint.len() > 30, "{path} {variable}");
        for (method, version, below, body) in requests() {
            ask(method, &format!("/{version}/{endpoint}{below}"), &body.replace("ID", endpoint));
        }
        // An id that nobody has, of which the answer speaks. What is left of it in the log must not lead to the container.
        for below in
            ["fault/v1/network-latency/start", "fault/v1/network-blackhole-port/status", "task-protection/v1/state"]
        {
            ask("POST", &format!("/api/{endpoint}0/{below}"), "{}");
        }
        ask("GET", &format!("/v4/{endpoint}0/task"), "");
        let v1 = format!("/v1/credentials?id={role}");
        for path in
            [path.as_str(), &v1, &format!("{path}/more"), &format!("/v2/credentials//{role}"), &format!("{path}x")]
        {
            ask("GET", path, "");
            ask("POST", path, role);
        }
        let handed_out = || scene.rig.server.role_secrets();
        secrets.extend(handed_out());
        let keys = ask_on_host(&path).body;
        assert!(handed_out().iter().any(|secret| keys["SecretAccessKey"] == secret.expose()));
        assert_eq!(scene.rig.server.refresh_credentials(&arn).unwrap(), 2);
        secrets.extend(handed_out());
        secrets.push(endpoint.into());
        scene.rig.server.stop_task(&arn, "end").unwrap();
        scene.rig.task(&arn, TaskStatus::Stopped).await;
        ask("GET", &path, "");
    }
    assert!(scene.rig.terminate().success());
    let log = scene.rig.log();
    // The requests were logged: those about faults were refused, and the id is cut there.
    assert!(log.contains("level=debug") && log.contains("network-latency") && log.contains('…'), "{log}");
    for (name, text) in [("log", log), ("audit log", scene.audited())] {
        let held = secrets.iter().find(|secret| text.contains(secret.expose()));
        let line = held.and_then(|secret| text.lines().find(|line| line.contains(secret.expose())));
        assert_eq!(line, None, "the {name} holds a secret");
    }
}
