//! Credentials of task roles at 169.254.170.2, asked for by real containers of a dockerd in the test's own network namespace.
//!
//! The tests change firewall rules, so they run only where `./tests/run` runs the tests of agents: in a network namespace apart.

use super::port::Neighbour;
use super::rig::{FOREVER, LIMIT, Plan, Rig, shell};
use ecs_local::{Fault, Options, TaskStatus};
use ecs_testing::docker::{Image, docker, unique};
use ecs_testing::dockerd::Dockerd;
use ecs_testing::registry::Registry;
use ecs_testing::wait::until;
use serde_json::{Value, json};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinSet;

pub(super) const ROLE: &str = "arn:aws:iam::123456789012:role/taskRole";
const OTHER: &str = "arn:aws:iam::123456789012:role/otherRole";
/// The variable with the path of the credentials.
pub(super) const URI: &str = "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI";
/// Asks for the credentials at once. A bare request, since busybox's wget hides the answer of an error.
const ASK: &str =
    "printf \"GET $AWS_CONTAINER_CREDENTIALS_RELATIVE_URI HTTP/1.0\\r\\n\\r\\n\" | nc -w 9 169.254.170.2 80";

fn run(command: &str) {
    let words: Vec<&str> = command.split(' ').collect();
    let output = Command::new(words[0]).args(&words[1..]).output().unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Whether this process is in a network namespace of its own.
pub(super) fn is_apart(test: &str) -> bool {
    let apart = std::env::var("ECS_TEST_DOCKER_NETWORK").is_ok_and(|namespace| !namespace.is_empty());
    if !apart {
        eprintln!("SKIPPED {test}: it changes firewall rules, and needs a network namespace of its own (./tests/run)");
    }
    apart
}

/// A dockerd with a bridge, in the network namespace of this test alone.
pub(super) async fn dockerd_apart(test: &str) -> Option<Dockerd> {
    if !is_apart(test) {
        return None;
    }
    for command in [
        "ip link add docker0 type bridge",
        "ip addr add 172.31.77.1/24 dev docker0",
        "ip link set docker0 up",
        // The host itself needs a route to the address, as a host has it by its default route.
        "ip route add 169.254.170.2/32 dev lo scope link",
    ] {
        run(command);
    }
    Dockerd::start(true).await
}

/// Gives this dockerd an image: it cannot reach the registry of a rig, which is in the other network namespace.
pub(super) fn load(dockerd: &Dockerd, image: &Image, directory: &std::path::Path) {
    let archive = directory.join("image.tar").to_string_lossy().into_owned();
    docker(&["save", "-o", &archive, &image.reference]);
    dockerd.docker(&["load", "-i", &archive]).expect("the image is loaded");
}

/// An agent, and a dockerd with a bridge in this network namespace, whose rules lead from 169.254.170.2 to the agent.
pub(super) struct Scene {
    pub(super) rig: Rig,
    pub(super) dockerd: Dockerd,
    pub(super) image: Image,
}

/// One HTTP answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Value,
}

pub(super) fn answer(text: &str) -> Answer {
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((text, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default();
    Answer { status, body: serde_json::from_str(body).unwrap_or_default() }
}

/// Asks as a process of this host.
pub(super) fn ask_on_host(path: &str) -> Answer {
    let mut stream = TcpStream::connect("169.254.170.2:80").unwrap();
    stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    answer(&text)
}

impl Scene {
    pub(super) async fn start(test: &str, peer_check: &str) -> Option<Self> {
        Self::start_with(test, &[("ECS_CREDENTIALS_PEER_CHECK", peer_check)]).await
    }

    /// With more variables for the agent.
    pub(super) async fn start_with(test: &str, more: &[(&str, &str)]) -> Option<Self> {
        Self::start_on(test, more, None).await
    }

    /// With more variables for the agent, and other options of the control plane.
    pub(super) async fn start_on(
        test: &str,
        more: &[(&str, &str)],
        options: Option<fn(&mut Options, &Registry)>,
    ) -> Option<Self> {
        let dockerd = dockerd_apart(test).await?;
        let endpoint = dockerd.endpoint();
        let environment = [
            ("DOCKER_HOST", endpoint.as_str()),
            ("ECS_MANAGE_FIREWALL", "true"),
            ("ECS_ENABLE_TASK_IAM_ROLE", "true"),
            ("ECS_ENABLE_TASK_IAM_ROLE_NETWORK_HOST", "true"),
            ("ECS_AVAILABLE_LOGGING_DRIVERS", r#"["json-file","awslogs","none"]"#),
            ("ECS_ENABLE_AWSLOGS_EXECUTIONROLE_OVERRIDE", "true"),
            ("ECS_IMAGE_PULL_BEHAVIOR", "prefer-cached"),
            ("ECS_TASK_METADATA_RPS_LIMIT", "1000,1000"),
        ];
        let environment = [&environment, more].concat();
        let rig = Rig::start(test, Plan { environment: &environment, options, ..Plan::default() }).await?;
        let image = Image::make(&unique("ecs-test-roles"), &[]);
        load(&dockerd, &image, rig.directory.path());
        Some(Self { rig, dockerd, image })
    }

    /// Starts a task whose container asks for its credentials from its first moment on, until it has them. The answers are in
    /// `/answers`. Returns the task and Docker's id of the container.
    async fn run(&self, network: &str, role: Option<&str>) -> (String, String) {
        let asks = format!("until [ -z \"${URI}\" ] || {ASK} | tee -a /answers | grep -q ' 200 '; do sleep 0.1; done");
        let command = format!("{asks}; {FOREVER}");
        let definition = json!({
            "family": "asks", "networkMode": network, "taskRoleArn": role,
            "containerDefinitions": [shell("main", &self.image.reference, &command)],
        });
        let arn = self.rig.server.run_task(&definition).unwrap();
        let task = self.rig.task(&arn, TaskStatus::Running).await;
        let id = task.container("main").unwrap().runtime_id.clone().unwrap();
        (arn, id)
    }

    pub(super) fn exec(&self, id: &str, command: &str) -> String {
        let shown = self.dockerd.docker(&["exec", id, "sh", "-c", command]);
        shown.unwrap_or_else(|| panic!("{command}"))
    }

    /// The first success that the container got. Before it, the agent may not know the container's address yet; an SDK asks again
    /// then, but not after a refusal.
    async fn first_answer(&self, id: &str) -> Answer {
        let text = until("the first success", LIMIT, async || {
            Some(self.exec(id, "cat /answers")).filter(|text| text.contains(" 200 "))
        });
        let text = text.await;
        let (earlier, success) = text.rsplit_once("HTTP/1").unwrap_or_default();
        assert!(!earlier.contains(" 40"), "{text}");
        answer(&format!("HTTP/1{success}"))
    }

    /// Asks from the container.
    pub(super) fn ask(&self, id: &str, path: &str) -> Answer {
        answer(&self.exec(id, &format!("{URI}={path}; {ASK}")))
    }

    /// Runs a program in the container. Returns what it printed, or its error.
    pub(super) async fn run_in(&self, id: &str, environment: &[&str], program: &[&str]) -> Result<String, String> {
        let mut command = tokio::process::Command::new("docker");
        command.args(["-H", &self.dockerd.endpoint(), "exec"]);
        environment.iter().for_each(|variable| {
            command.args(["-e", variable]);
        });
        let output = command.arg(id).args(program).kill_on_drop(true).output().await.unwrap();
        let text = |bytes| String::from_utf8_lossy(bytes).trim().to_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }

    pub(super) fn path(&self, id: &str) -> String {
        self.exec(id, &format!("echo ${URI}"))
    }

    pub(super) fn audited(&self) -> String {
        std::fs::read_to_string(self.rig.directory.path().join("audit.log")).unwrap_or_default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_get_the_credentials_of_their_own_role() {
    let Some(scene) = Scene::start("roles", "enforce").await else { return };
    let (first, web) = scene.run("bridge", Some(ROLE)).await;
    let (_, other) = scene.run("bridge", Some(OTHER)).await;
    let (_, on_host) = scene.run("host", Some(OTHER)).await;
    let (_, roleless) = scene.run("bridge", None).await;
    for (id, role) in [(&web, ROLE), (&other, OTHER), (&on_host, OTHER)] {
        let answer = scene.first_answer(id).await;
        assert_eq!((answer.status, answer.body["RoleArn"].as_str()), (200, Some(role)), "{answer:?}");
        let members: Vec<&str> = ["AccessKeyId", "SecretAccessKey", "Token", "Expiration"]
            .into_iter()
            .filter(|member| answer.body[member].as_str().is_some_and(|text| !text.is_empty()))
            .collect();
        assert_eq!(members.len(), 4, "{answer:?}");
    }
    assert_eq!(scene.path(&roleless), "");
    // Another task that knows the id is refused, and a process of this host is not.
    let path = scene.path(&web);
    assert!(path.starts_with("/v2/credentials/"), "{path}");
    let stolen = scene.ask(&roleless, &path);
    assert_eq!((stolen.status, stolen.body["code"].as_str()), (403, Some("AccessDenied")), "{stolen:?}");
    assert_eq!(scene.ask(&on_host, &path).status, 200);
    let v1 = path.replace("/v2/credentials/", "/v1/credentials?id=");
    assert_eq!(scene.ask(&web, &v1).body, ask_on_host(&path).body);

    // New credentials have the same path.
    let before = ask_on_host(&path).body["AccessKeyId"].clone();
    assert_eq!(scene.rig.server.refresh_credentials(&first).unwrap(), 1);
    let renewed = async || Some(ask_on_host(&path).body).filter(|body| body["AccessKeyId"] != before);
    let renewed = until("new credentials", LIMIT, renewed).await;
    assert_eq!(renewed["RoleArn"], ROLE);

    // The credentials go with the task.
    scene.rig.server.stop_task(&first, "end").unwrap();
    scene.rig.task(&first, TaskStatus::Stopped).await;
    let gone = until("the end of the credentials", LIMIT, async || {
        Some(ask_on_host(&path)).filter(|answer| answer.status != 200)
    });
    assert_eq!(gone.await.body["code"], "InvalidIdInRequest");

    let audited = until("the audit log", LIMIT, async || {
        Some(scene.audited()).filter(|text| text.contains(" GetCredentialsWrongAddress "))
    });
    let audited = audited.await;
    assert!(audited.lines().all(|line| line.split(' ').count() == 10), "{audited}");
    assert!(
        audited.contains(" 200 172.31.77.")
            && audited.contains(&format!(" \"/v2/credentials\" \"\" {first} GetCredentials 2 ")),
        "{audited}"
    );
    let id = path.rsplit('/').next().unwrap();
    assert!(!audited.contains(id) && !scene.rig.log().contains(id));
    assert!(scene.rig.log().contains("came from an address that is not the task's"), "{}", scene.rig.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_outlast_restarts_and_the_loss_of_the_state() {
    let Some(mut scene) = Scene::start("roles again", "log").await else { return };
    let (arn, web) = scene.run("bridge", Some(ROLE)).await;
    let path = scene.path(&web);
    assert_eq!(scene.first_answer(&web).await.status, 200);
    let endpoint = scene.exec(&web, "echo $ECS_CONTAINER_METADATA_URI_V4");
    for loses_state in [false, true] {
        scene.rig.kill();
        if loses_state {
            std::fs::remove_file(scene.rig.directory.path().join("data/ecs-agent.redb")).unwrap();
        }
        scene.rig.server.fail_next("acs", 1_000, &Fault::ServerError);
        scene.rig.start_agent();
        let early = until("an answer of the next agent", LIMIT, async || {
            TcpStream::connect("127.0.0.1:51679").ok()?;
            Some(ask_on_host(&path))
        });
        let early = early.await;
        assert_eq!((early.status, early.body["code"].as_str()), (503, Some("CredentialsUninitialized")), "{early:?}");
        scene.rig.server.clear_faults();
        until("the credentials", LIMIT, async || (scene.ask(&web, &path).status == 200).then_some(())).await;
        let known = async || scene.rig.ask("/v1/tasks").await["Tasks"].as_array().is_some_and(|tasks| tasks.len() == 1);
        assert!(known().await);
    }
    assert_eq!(scene.exec(&web, "echo $ECS_CONTAINER_METADATA_URI_V4"), endpoint);
    scene.rig.server.stop_task(&arn, "end").unwrap();
    scene.rig.task(&arn, TaskStatus::Stopped).await;
}

async fn answer_logs(mut stream: tokio::net::TcpStream, keys: Arc<Mutex<Vec<String>>>) {
    let (mut text, mut buffer) = (String::new(), [0; 4096]);
    while let Ok(length @ 1..) = stream.read(&mut buffer).await {
        text += &String::from_utf8_lossy(&buffer[..length]);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let header = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        if body.len() < header("Content-Length:").and_then(|length| length.parse().ok()).unwrap_or(0) {
            continue;
        }
        let key = header("Authorization:").and_then(|text| text.split_once("Credential=")?.1.split_once('/'));
        keys.lock().unwrap().extend(key.map(|(key, _)| key.to_owned()));
        text.clear();
        let answer = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-amz-json-1.1\r\nContent-Length: 2\r\n\r\n{}";
        let _closed_already = stream.write_all(answer).await;
    }
}

/// Answers every call as CloudWatch Logs does on success, until the set is dropped. Returns the address, and the access key of each
/// call.
pub(super) async fn cloudwatch_logs(server: &mut JoinSet<()>) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, keys) = (listener.local_addr().unwrap().to_string(), Arc::new(Mutex::new(Vec::new())));
    let seen = Arc::clone(&keys);
    server.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            connections.spawn(answer_logs(stream, Arc::clone(&seen)));
        }
    });
    (address, keys)
}

#[tokio::test(flavor = "multi_thread")]
async fn dockerd_gets_the_credentials_of_the_execution_role() {
    let Some(scene) = Scene::start("awslogs", "enforce").await else { return };
    let mut server = JoinSet::new();
    let (endpoint, keys) = cloudwatch_logs(&mut server).await;
    let mut container = shell("main", &scene.image.reference, &format!("echo hello; {FOREVER}"));
    container["logConfiguration"] = json!({"logDriver": "awslogs", "options": {
        "awslogs-group": "g", "awslogs-region": "us-west-2", "awslogs-stream-prefix": "p",
        "awslogs-endpoint": format!("http://{endpoint}"),
    }});
    let definition = json!({"family": "logs", "executionRoleArn": ROLE, "containerDefinitions": [container]});
    let arn = scene.rig.server.run_task(&definition).unwrap();
    let task = scene.rig.task(&arn, TaskStatus::Running).await;
    assert_eq!(task.last_status, TaskStatus::Running, "{task:?}");
    let id = task.container("main").unwrap().runtime_id.clone().unwrap();
    let options = scene.dockerd.docker(&["inspect", "-f", "{{json .HostConfig.LogConfig.Config}}", &id]).unwrap();
    let options: Value = serde_json::from_str(&options).unwrap();
    let path = options["awslogs-credentials-endpoint"].as_str().unwrap();
    let answer = ask_on_host(path);
    assert_eq!((answer.status, answer.body["RoleArn"].as_str()), (200, Some(ROLE)), "{answer:?}");
    let key = answer.body["AccessKeyId"].as_str().unwrap().to_owned();
    until("calls with the role's key", LIMIT, async || keys.lock().unwrap().contains(&key).then_some(())).await;
    // They outlive the task, since the log may end after it.
    scene.rig.server.stop_task(&arn, "end").unwrap();
    scene.rig.task(&arn, TaskStatus::Stopped).await;
    assert_eq!(ask_on_host(path).status, 200);
    assert!(scene.audited().contains(" GetCredentialsExecutionRole 2 "), "{}", scene.audited());
}

/// The rule of ecs-init names no interface. So a neighbour that routes the address through this host reaches the port.
#[tokio::test(flavor = "multi_thread")]
async fn a_neighbour_gets_no_answer_whatever_the_rules_say() {
    if !is_apart("a neighbour") {
        return;
    }
    let Some(rig) = Rig::start("neighbour", Plan::default()).await else { return };
    let Some(neighbour) = Neighbour::new() else { return };
    run("sysctl -qw net.ipv4.conf.all.route_localnet=1");
    run("iptables -w -t nat -A PREROUTING -p tcp -d 169.254.170.2 --dport 80 -j DNAT --to 127.0.0.1:51679");
    run(&format!("ip -n {} route add 169.254.170.2/32 via 198.18.51.1", neighbour.name));
    let ask = |before: &[&str], url: &str| {
        let curl = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "--max-time", "5", url];
        super::port::run(&[before, &curl].concat()).1
    };
    assert_eq!(ask(&[], "http://127.0.0.1:51679/v2/credentials/x"), "400");
    let inside = ["ip", "netns", "exec", neighbour.name.as_str()];
    assert_eq!(ask(&inside, "http://169.254.170.2/v2/credentials/x"), "000");
    assert!(rig.log().contains("task metadata: a peer is not served"), "it got as far as the port: {}", rig.log());
}
