//! The embedded control plane over real sockets: a scripted agent on one side, HTTP and the real `aws` CLI on the other.
//!
//! Without `aws` the CLI tests are skipped with a notice; with `ECS_TEST_REQUIRE_AWSCLI=1` they fail.

#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "everything in this crate is a test or a part of one")]

mod access;
mod agent;
mod binary;
mod cli;
mod ecr;
mod registry;
mod sessions;
mod top;

use agent::{Agent, api, http, keys};
use ecs_core::model::Secret;
use ecs_local::{Delivery, Fault, Options, Registry, Server, Source, TaskStatus};
use serde_json::{Value, json};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(20);

fn quick() -> Options {
    Options { redeliver: Duration::from_millis(200), heartbeat: Duration::from_millis(300), ..Options::default() }
}

fn hello() -> Value {
    json!({"family": "hello", "containerDefinitions": [{"name": "main", "image": "busybox", "memory": 32}]})
}

#[tokio::test]
async fn a_task_goes_from_pending_to_stopped() {
    let server = Server::start(quick()).await.unwrap();
    let mut agent = Agent::start(&server).await;
    let arn = server.run_task(&hello()).unwrap();
    let payload = agent.payload().await;
    assert_eq!(payload["tasks"][0]["arn"], json!(arn));
    assert_eq!(payload["containerInstanceArn"], json!(agent.instance));
    assert_eq!(agent.payload().await["messageId"], payload["messageId"], "sent again until acknowledged");
    agent.ack(&payload).await;
    server.wait_for("the ack", LIMIT, |s| (s.instances()[0].unacknowledged() == 0).then_some(())).await.unwrap();

    agent.submit(&arn, "RUNNING", json!({"containerName": "main", "status": "RUNNING", "runtimeId": "abc"})).await;
    assert_eq!(server.read(|state| state.task(&arn).unwrap().last_status), TaskStatus::Running);
    server.stop_task(&arn, "enough").unwrap();
    let stop = agent.payload().await;
    assert_eq!(stop["tasks"][0]["desiredStatus"], "STOPPED");
    assert!(stop["seqNum"].as_i64() > payload["seqNum"].as_i64());
    agent.ack(&stop).await;
    agent.submit(&arn, "STOPPED", json!({"containerName": "main", "status": "STOPPED", "exitCode": 137})).await;
    server.read(|state| {
        let task = state.task(&arn).unwrap();
        assert_eq!(task.last_status, TaskStatus::Stopped);
        assert_eq!(
            (task.stop_code.as_deref(), task.stopped_reason.as_deref()),
            (Some("UserInitiated"), Some("enough"))
        );
        assert_eq!(task.containers[0].exit_code, Some(137));
        assert_eq!(task.containers[0].runtime_id.as_deref(), Some("abc"));
    });
    assert_eq!(
        server.submissions().iter().map(|r| r.body["status"].as_str().unwrap()).collect::<Vec<_>>(),
        ["RUNNING", "STOPPED"]
    );
    server.shutdown().await;
}

#[tokio::test]
async fn an_unacknowledged_payload_comes_again_after_a_reconnect() {
    let options = Options { redeliver: Duration::from_secs(3600), ..quick() };
    let server = Server::start(options).await.unwrap();
    let mut agent = Agent::start(&server).await;
    server.run_task(&hello()).unwrap();
    let first = agent.payload().await;
    server.drop_sockets();
    agent.until_closed().await;
    agent.connect().await;
    let second = agent.payload().await;
    assert_eq!(first["messageId"], second["messageId"]);
    let manifest = agent.message("TaskManifestMessage").await;
    assert_eq!(manifest["tasks"][0]["taskArn"], first["tasks"][0]["arn"]);
    assert!(manifest["timeline"].as_i64() > second["seqNum"].as_i64());
    server.shutdown().await;
}

#[tokio::test]
async fn stops_are_verified_for_tasks_that_are_to_stop_only() {
    let server = Server::start(quick()).await.unwrap();
    let mut agent = Agent::start(&server).await;
    let arn = server.run_task(&hello()).unwrap();
    server.stop_task(&arn, "").unwrap();
    let id = server.send_manifest().unwrap();
    let manifest = agent.message("TaskManifestMessage").await;
    assert_eq!(manifest["messageId"], json!(id));
    let candidates = json!([{"taskArn": arn}, {"taskArn": "arn:aws:ecs:us-west-2:1:task/default/unknown"}]);
    agent.send("TaskStopVerificationMessage", json!({"messageId": id, "stopCandidates": candidates})).await;
    let answer = agent.message("TaskStopVerificationAck").await;
    assert_eq!(answer["messageId"], json!(id));
    assert_eq!(answer["stopTasks"], json!([{"taskArn": arn}]));
    server.shutdown().await;
}

#[tokio::test]
async fn heartbeats_and_credentials_are_sent_and_their_acks_recorded() {
    let server = Server::start(quick()).await.unwrap();
    let mut agent = Agent::start(&server).await;
    let heartbeat = agent.message("HeartbeatMessage").await;
    agent.send("HeartbeatAckRequest", json!({"messageId": heartbeat["messageId"]})).await;
    server
        .wait_for("the ack", LIMIT, |state| {
            state.acs_messages("HeartbeatAckRequest").find(|ack| ack["messageId"] == heartbeat["messageId"]).map(|_| ())
        })
        .await
        .unwrap();
    let mut definition = hello();
    definition["taskRoleArn"] = json!("arn:aws:iam::123456789012:role/app");
    let arn = server.run_task(&definition).unwrap();
    let payload = agent.payload().await;
    assert_eq!(server.refresh_credentials(&arn), Ok(1));
    let fresh = agent.message("IAMRoleCredentialsMessage").await;
    assert_eq!(fresh["roleType"], "TaskApplication");
    let old = &payload["tasks"][0]["roleCredentials"];
    assert_eq!(fresh["roleCredentials"]["credentialsId"], old["credentialsId"]);
    assert_ne!(fresh["roleCredentials"]["sessionToken"], old["sessionToken"]);
    server.shutdown().await;
}

#[tokio::test]
async fn calls_meet_their_faults_and_then_work() {
    let server = Server::start(quick()).await.unwrap();
    let agent = Agent::start(&server).await;
    let arn = server.run_task(&hello()).unwrap();
    let running = json!({"cluster": "default", "task": arn, "status": "RUNNING", "reason": ""});
    let status = || server.read(|state| state.task(&arn).unwrap().last_status);
    for (fault, code, kind) in [
        (Fault::Throttle, 400, "ThrottlingException"),
        (Fault::ServerError, 500, "ServerException"),
        (Fault::AccessDenied, 400, "AccessDeniedException"),
        (Fault::Error(400, "InvalidParameterException".into(), "no".into()), 400, "InvalidParameterException"),
    ] {
        server.fail_next("SubmitTaskStateChange", 1, &fault);
        let (got, body) = agent.call("SubmitTaskStateChange", &running).await.unwrap();
        assert_eq!((got, &body["__type"]), (code, &json!(kind)));
    }
    server.fail_next("SubmitTaskStateChange", 1, &Fault::Malformed);
    assert_eq!(agent.call("SubmitTaskStateChange", &running).await.unwrap(), (200, Value::Null));
    server.fail_next("SubmitTaskStateChange", 1, &Fault::Drop);
    assert!(agent.call("SubmitTaskStateChange", &running).await.is_err());
    assert_eq!(status(), TaskStatus::Pending, "none of these had an effect");
    server.fail_next("SubmitTaskStateChange", 1, &Fault::LoseAnswer);
    assert!(agent.call("SubmitTaskStateChange", &running).await.is_err());
    assert_eq!(status(), TaskStatus::Running, "the effect is there, the answer is lost");
    server.fail_next("SubmitTaskStateChange", 1, &Fault::Slow(Duration::from_millis(50)));
    assert_eq!(agent.call("SubmitTaskStateChange", &running).await.unwrap().0, 200);
    server.shutdown().await;
}

#[tokio::test]
async fn payloads_are_delivered_as_configured() {
    let options = Options { redeliver: Duration::from_millis(300), ..Options::default() };
    let server = Server::start(options).await.unwrap();
    let mut agent = Agent::start(&server).await;
    server.set_delivery(Delivery { reorder: true, ..Delivery::default() });
    server.run_task(&hello()).unwrap();
    server.run_task(&hello()).unwrap();
    let (first, second) = (agent.payload().await, agent.payload().await);
    assert!(first["seqNum"].as_i64() > second["seqNum"].as_i64());
    server.set_delivery(Delivery { lose_acks: 1, ..Delivery::default() });
    agent.ack(&first).await;
    agent.ack(&second).await;
    let waits = |count| move |state: &ecs_local::State| (state.instances()[0].unacknowledged() == count).then_some(());
    server.wait_for("one ack to count", LIMIT, waits(1)).await.unwrap();
    agent.ack(&first).await;
    server.wait_for("the repeated ack", LIMIT, waits(0)).await.unwrap();
    server.shutdown().await;
}

#[tokio::test]
async fn handshakes_are_refused_with_the_errors_of_acs() {
    let server = Server::start(quick()).await.unwrap();
    let agent = Agent::start(&server).await;
    let query = agent.query();
    assert_eq!(agent::handshake(&server.url(), &query, None).await.unwrap_err().0, 403);
    let unknown = query.replace(&agent.instance, "none");
    let (status, body) = agent::handshake(&server.url(), &unknown, Some(keys(&server))).await.unwrap_err();
    assert_eq!((status, body.contains("InvalidInstanceException")), (400, true), "{body}");
    let gone = json!({"containerInstance": agent.instance, "force": true});
    server.call("DeregisterContainerInstance", &gone).unwrap();
    let (status, body) = agent::handshake(&server.url(), &query, Some(keys(&server))).await.unwrap_err();
    assert_eq!((status, body.contains("InactiveInstanceException")), (400, true), "{body}");
    server.shutdown().await;
}

#[tokio::test]
async fn metadata_needs_a_token() {
    let server = Server::start(quick()).await.unwrap();
    let (client, base) = (http(), format!("{}/latest", server.url()));
    assert_eq!(client.get(format!("{base}/meta-data/instance-id")).send().await.unwrap().status(), 401);
    assert_eq!(client.put(format!("{base}/api/token")).send().await.unwrap().status(), 400);
    let token = agent::imds_token(&client, &server.url()).await;
    let get = async |path: &str| {
        let answer =
            client.get(format!("{base}/{path}")).header("x-aws-ec2-metadata-token", &token).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    assert_eq!(get("meta-data/instance-id").await, (200, "i-0123456789abcdef0".to_owned()));
    let mac = get("meta-data/mac").await.1;
    assert!(get(&format!("meta-data/network/interfaces/macs/{mac}/vpc-id")).await.1.starts_with("vpc-"));
    assert!(get(&format!("meta-data/network/interfaces/macs/{mac}/subnet-id")).await.1.starts_with("subnet-"));
    assert_eq!(get("meta-data/placement/region").await.1, "us-west-2");
    let role = get("meta-data/iam/security-credentials/").await.1;
    let keys: Value =
        serde_json::from_str(&get(&format!("meta-data/iam/security-credentials/{role}")).await.1).unwrap();
    assert_eq!(keys["Code"], "Success");
    let document: Value = serde_json::from_str(&get("dynamic/instance-identity/document").await.1).unwrap();
    assert_eq!(document["instanceId"], "i-0123456789abcdef0");
    for absent in ["user-data", "meta-data/outpost-arn", "meta-data/spot/instance-action"] {
        assert_eq!(get(absent).await.0, 404, "{absent}");
    }
    server.shutdown().await;
}

#[tokio::test]
async fn ecr_hands_out_the_registrys_password() {
    let registry = Registry::new("localhost:5000", "AWS", Secret::from("pa:ss"));
    let server = Server::start(Options { registry: Some(registry), ..quick() }).await.unwrap();
    let target = "AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken";
    let (status, body) = api(&server.url(), target, &json!({}), Some(keys(&server))).await.unwrap();
    assert_eq!(status, 200);
    let data = &body["authorizationData"][0];
    assert_eq!(data["authorizationToken"], "QVdTOnBhOnNz");
    assert_eq!(data["proxyEndpoint"], "http://localhost:5000");
    let mut definition = hello();
    definition["containerDefinitions"][0]["image"] = json!("localhost:5000/app");
    let mut agent = Agent::start(&server).await;
    server.run_task(&definition).unwrap();
    let auth = agent.payload().await["tasks"][0]["containers"][0]["registryAuthentication"].clone();
    assert_eq!((&auth["type"], &auth["ecrAuthData"]["endpointOverride"]), (&json!("ecr"), &json!(server.url())));
    server.shutdown().await;
}

#[tokio::test]
async fn requests_that_a_web_page_could_send_are_refused() {
    let server = Server::start(quick()).await.unwrap();
    let client = http();
    let unsigned =
        api(&server.url(), "AmazonEC2ContainerServiceV20141113.ListClusters", &json!({}), None).await.unwrap();
    assert_eq!(unsigned.1["__type"], "MissingAuthenticationTokenException");
    let token = server.token().expose();
    let admin = |request: reqwest::RequestBuilder| request.bearer_auth(token);
    let rebound = admin(client.get(format!("{}/_local/", server.url()))).header("host", "evil.example");
    assert_eq!(rebound.send().await.unwrap().status(), 403);
    let form = admin(client.post(format!("{}/_local/sockets/drop", server.url()))).body("{}").send().await.unwrap();
    assert_eq!(form.status(), 400);
    server.shutdown().await;
}

#[tokio::test]
async fn the_admin_api_does_what_the_methods_do() {
    let server = Server::start(quick()).await.unwrap();
    let mut agent = Agent::start(&server).await;
    let client = http();
    let post = async |path: &str, body: Value| {
        let request = client.post(format!("{}/_local/{path}", server.url())).header("content-type", "application/json");
        let answer = request.bearer_auth(server.token().expose()).body(body.to_string()).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    assert_eq!(post("faults", json!({"operation": "ListClusters", "fault": "throttle"})).await.0, 200);
    assert_eq!(agent.call("ListClusters", &json!({})).await.unwrap().0, 400);
    assert_eq!(agent.call("ListClusters", &json!({})).await.unwrap().0, 200);
    for (body, expected) in [
        (json!({"operation": "x", "fault": "explode"}), "lose-answer"),
        (json!({"operation": "x", "fault": "throtle"}), "Did you mean `throttle`?"),
        (
            json!({"operation": "x", "falt": "drop"}),
            "The body cannot be read: falt: there is no member `falt`. Did you mean",
        ),
        (json!({"operation": "x", "fault": "drop", "count": "2"}), "count: it must be a whole number"),
    ] {
        let (status, text) = post("faults", body).await;
        assert_eq!((status, text.contains(expected)), (400, true), "{text}");
    }
    let (status, text) = post("fault", json!({})).await;
    assert_eq!((status, text.contains("Did you mean `faults`?")), (400, true), "{text}");
    let scripted =
        json!({"family": "f", "version": "1", "desiredStatus": "RUNNING", "containers": [{"name": "a", "image": "i"}]});
    let (_, text) = post("tasks", scripted).await;
    let arn = serde_json::from_str::<Value>(&text).unwrap()["taskArn"].clone();
    assert_eq!(agent.payload().await["tasks"][0]["arn"], arn);
    assert_eq!(post("acs", json!({"text": "no JSON at all"})).await.0, 200);
    assert_eq!(agent.text_that(|text| text == "no JSON at all").await, "no JSON at all");
    assert_eq!(post("sockets/close", json!({"which": "acs", "code": 1000, "reason": "bye"})).await.0, 200);
    agent.until_closed().await;
    let records = client
        .get(format!("{}/_local/records?source=acs-close", server.url()))
        .basic_auth("anybody", Some(server.token().expose()));
    server
        .wait_for("the close", LIMIT, |s| s.records().find(|r| r.source == Source::AcsClose).map(|_| ()))
        .await
        .unwrap();
    assert!(records.send().await.unwrap().text().await.unwrap().contains("closed on purpose: 1000 bye"));
    server.shutdown().await;
}

#[tokio::test]
async fn the_example_task_definitions_fit_the_recorded_instance() {
    let server = Server::start(quick()).await.unwrap();
    let _agent = Agent::start(&server).await;
    let directory = format!("{}/examples/tasks", env!("CARGO_MANIFEST_DIR"));
    let mut seen = 0;
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let definition: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        server.run_task(&definition).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        seen += 1;
    }
    assert!(seen >= 4, "{seen} examples");
    server.shutdown().await;
}
