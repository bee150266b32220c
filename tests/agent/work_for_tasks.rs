//! What a task asks the agent to do: to protect it from a scale-in, and to start network faults. The agent, the control plane and
//! the packets are real. The test sends the requests in the place of a container, to the port that containers reach.

use super::rig::{FOREVER, LIMIT, Plan, Rig, shell};
use ecs_local::TaskStatus;
use ecs_testing::docker::docker;
use ecs_testing::wait::until;
use serde_json::{Value, json};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::time::Duration;

/// Sends a task that only ECS could send: of a service, with a role, on the host's network, with faults.
fn send(rig: &Rig, image: &str) -> String {
    let mut role =
        json!({"credentialsId": uuid::Uuid::new_v4().to_string(), "roleArn": "arn:aws:iam::123456789012:role/app"});
    rig.server.put_role_keys(&mut role);
    role["expiration"] = json!("2099-01-01T00:00:00Z");
    let mut container = shell("main", image, FOREVER);
    container["dockerConfig"] = json!({"config": "{}", "hostConfig": r#"{"NetworkMode": "host"}"#});
    let arn = format!("arn:aws:ecs:us-west-2:123456789012:task/{}/worker", rig.cluster.name);
    let task = json!({"arn": arn, "family": "test", "version": "1", "desiredStatus": "RUNNING", "networkMode": "host",
        "serviceName": "web", "roleCredentials": role, "enableFaultInjection": true, "containers": [container]});
    rig.server.send_task(task).unwrap()
}

/// The address of the agent's endpoint for a container, as its environment has it, without the redirection by the firewall.
fn endpoint(container: &str) -> String {
    let environment = docker(&["inspect", "-f", "{{range .Config.Env}}{{println .}}{{end}}", container]);
    let uri = environment.lines().find_map(|line| line.strip_prefix("ECS_AGENT_URI=")).expect("the variable is there");
    uri.replace("http://169.254.170.2", "http://127.0.0.1:51679")
}

/// Status and body. A path about faults is answered once in five seconds, so it is asked again until it is.
async fn ask(method: &str, url: &str, body: &str) -> (u16, Value) {
    let client = reqwest::Client::new();
    let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
    until("an answer that is not 429", LIMIT, async || {
        let answer = client.request(method.clone(), url).body(body.to_owned()).send().await.ok()?;
        let status = answer.status().as_u16();
        let text = answer.text().await.ok()?;
        (status != 429).then(|| (status, serde_json::from_str(&text).unwrap_or(Value::String(text))))
    })
    .await
}

/// Starts the task on a new agent, and returns the rig, the task and its endpoint.
async fn running(test: &str) -> Option<(Rig, String, String)> {
    let rig = Rig::start(test, Plan::default()).await?;
    let arn = send(&rig, &rig.image());
    let task = rig.task(&arn, TaskStatus::Running).await;
    let endpoint = endpoint(task.container("main").unwrap().runtime_id.as_deref().unwrap());
    Some((rig, arn, endpoint))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_of_a_service_protects_itself() {
    let Some((rig, arn, endpoint)) = running("task protection").await else { return };
    let url = format!("{endpoint}/task-protection/v1/state");
    let (status, answer) = ask("GET", &url, "").await;
    let protection = json!({"ExpirationDate": null, "ProtectionEnabled": false, "TaskArn": arn});
    assert_eq!((status, &answer), (200, &json!({"protection": protection})), "{}", rig.log());
    let (status, answer) = ask("PUT", &url, r#"{"ProtectionEnabled": true, "ExpiresInMinutes": 60}"#).await;
    let protection = &answer["protection"];
    assert_eq!((status, &protection["ProtectionEnabled"], &protection["TaskArn"]), (200, &json!(true), &json!(arn)));
    let end = protection["ExpirationDate"].as_str().unwrap_or_default();
    assert!(end.starts_with("20") && end.ends_with('Z'), "{answer}");
    assert_eq!(ask("GET", &url, "").await.1["protection"]["ExpirationDate"], end);
    // What ECS refuses is passed on with its status and text.
    let (status, answer) = ask("PUT", &url, r#"{"ProtectionEnabled": true, "ExpiresInMinutes": 2881}"#).await;
    assert_eq!((status, &answer["error"]["Code"]), (400, &json!("InvalidParameterException")), "{answer}");
    // The calls were signed by the task's role.
    let actions = rig.server.actions();
    let is_by_role = |entry: &&Value| entry["action"] == "ecs:UpdateTaskProtection";
    let entry = actions["actions"].as_array().unwrap().iter().find(is_by_role).unwrap();
    assert_eq!(entry["principal"], "arn:aws:iam::123456789012:role/app");
}

/// A default route by a pair of interfaces, in a network namespace that belongs to this test alone.
fn default_route() -> bool {
    let commands = [
        "link add ecs0 type veth peer name ecs1",
        "address add 198.18.7.1/24 dev ecs0",
        "link set ecs0 up",
        "link set ecs1 up",
        "route add default via 198.18.7.2 dev ecs0",
    ];
    commands.iter().all(|words| Command::new("ip").args(words.split(' ')).status().is_ok_and(|status| status.success()))
}

fn reaches(address: SocketAddr, limit: Duration) -> bool {
    TcpStream::connect_timeout(&address, limit).is_ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fault_survives_the_agent_and_ends_with_its_task() {
    // On the host's own network, the test would change the firewall of the machine.
    if std::env::var("ECS_TEST_DOCKER_NETWORK").is_ok_and(|network| !network.is_empty()) {
        assert!(default_route(), "root may make interfaces");
    } else {
        eprintln!("SKIPPED faults: this test needs a network namespace of its own, which tests/run makes");
        return;
    }
    let Some((mut rig, arn, endpoint)) = running("faults").await else { return };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, long) = (listener.local_addr().unwrap(), Duration::from_secs(30));
    let body = format!(r#"{{"Port": {}, "Protocol": "tcp", "TrafficType": "egress"}}"#, address.port());
    let url = |operation: &str| format!("{endpoint}/fault/v1/network-blackhole-port/{operation}");
    let is = |status: &str| (200, json!({"Status": status}));
    assert_eq!(ask("POST", &url("status"), &body).await, is("not-running"), "{}", rig.log());
    assert!(reaches(address, long));
    // A busy machine may need more than the five seconds that an operation has. The rest of it is removed then.
    let start = async || {
        until("the fault", LIMIT, async || (ask("POST", &url("start"), &body).await == is("running")).then_some(()))
            .await
    };
    start().await;
    assert!(!reaches(address, Duration::from_secs(1)));
    assert_eq!(ask("POST", &url("stop"), &body).await, is("stopped"), "{}", rig.log());
    assert!(reaches(address, long));
    start().await;
    rig.kill();
    assert!(!reaches(address, Duration::from_secs(1)), "a fault does not end with the agent");
    rig.start_agent();
    rig.registered().await;
    assert_eq!(ask("POST", &url("status"), &body).await, is("running"), "it is found again");
    rig.server.stop_task(&arn, "seen enough").unwrap();
    rig.task(&arn, TaskStatus::Stopped).await;
    until("the end of the fault", LIMIT, async || reaches(address, Duration::from_secs(1)).then_some(())).await;
    // The chain goes after the rule that drops packets.
    let is_gone = || {
        let rules = Command::new("iptables").args(["-w", "5", "-S"]).output().unwrap();
        rules.status.success() && !String::from_utf8_lossy(&rules.stdout).contains("egress-tcp")
    };
    until("the end of its chain", LIMIT, async || is_gone().then_some(())).await;
}
