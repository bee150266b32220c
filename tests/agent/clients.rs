//! Clients of 169.254.170.2 that nobody here wrote judge its answers, from inside a container: SDKs of AWS, detectors of
//! OpenTelemetry, urllib3. OpenTelemetry's own classes read the traces of tasks.
//!
//! `./tests/run clients` installs them from PyPI and npm into `target/tools/clients`.

use super::host_programs::{Interpreter, mount};
use super::port::run;
use super::rig::{FOREVER, LIMIT, Plan, Rig, one_container, shell};
use super::roles::{ROLE, Scene, ask_on_host, cloudwatch_logs};
use ecs_local::{Fault, TaskStatus};
use ecs_testing::wait::until;
use serde_json::{Value, json};
use tokio::task::JoinSet;

const PYTHON: &str = include_str!("../clients/clients.py");
const NODE: &str = include_str!("../clients/clients.js");
const TOOLS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/tools/clients");
const MODULES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/tools/clients/node");

/// The installed clients, in a container of a task with a role and the log driver `awslogs`.
struct Clients {
    scene: Scene,
    python: Interpreter,
    node: Interpreter,
    arn: String,
    id: String,
    /// CloudWatch Logs.
    _logs: JoinSet<()>,
}

/// Python and Node.js with the clients.
fn interpreters() -> Option<(Interpreter, Interpreter)> {
    let python = Interpreter::python(&[format!("{TOOLS}/bin/python3")]);
    let node = Interpreter::node(&[format!("{TOOLS}/bin/node"), "node".to_owned()], MODULES);
    let is_whole = std::path::Path::new(MODULES).join("node_modules/@opentelemetry/resources").exists();
    let found = python.zip(node).filter(|_| is_whole);
    if found.is_none() {
        let required = std::env::var("ECS_TEST_REQUIRE_CLIENTS").is_ok_and(|value| value == "1");
        assert!(!required, "the clients are not installed, and ECS_TEST_REQUIRE_CLIENTS=1");
        eprintln!("SKIPPED clients of others: they are not installed (./tests/run clients does it)");
    }
    found
}

impl Clients {
    async fn start(test: &str) -> Option<Self> {
        let (python, node) = interpreters()?;
        let scene = Scene::start(test, "enforce").await?;
        let mut logs = JoinSet::new();
        let (endpoint, _) = cloudwatch_logs(&mut logs).await;
        let mut container = shell("main", &scene.image.reference, FOREVER);
        container["logConfiguration"] = json!({"logDriver": "awslogs", "options": {
            "awslogs-group": "g", "awslogs-region": "us-west-2", "awslogs-stream-prefix": "p",
            "awslogs-endpoint": format!("http://{endpoint}"),
        }});
        let mut definition = json!({"family": "clients", "taskRoleArn": ROLE, "executionRoleArn": ROLE,
            "containerDefinitions": [container]});
        mount(&mut definition, &[&python, &node]);
        let arn = scene.rig.server.run_task(&definition).unwrap();
        let task = scene.rig.task(&arn, TaskStatus::Running).await;
        assert_eq!(task.last_status, TaskStatus::Running, "{task:?}");
        let id = task.container("main").unwrap().runtime_id.clone().unwrap();
        Some(Self { scene, python, node, arn, id, _logs: logs })
    }

    async fn run(&self, program: &[&str]) -> Value {
        let environment = [format!("MODULES={MODULES}"), "AWS_EC2_METADATA_DISABLED=true".to_owned()];
        let environment: Vec<&str> = environment.iter().map(String::as_str).collect();
        let shown = tokio::time::timeout(LIMIT, self.scene.run_in(&self.id, &environment, program)).await;
        let shown = shown.unwrap_or_else(|_| panic!("{:?} does not end", program.last()));
        let shown = shown.unwrap_or_else(|error| panic!("{:?}: {error}\n{}", program.last(), self.scene.rig.log()));
        serde_json::from_str(&shown).unwrap_or_else(|error| panic!("{:?}: {error}: {shown}", program.last()))
    }

    async fn python(&self, name: &str) -> Value {
        self.run(&[&self.python.path, "-c", PYTHON, name]).await
    }

    async fn node(&self, name: &str) -> Value {
        self.run(&[&self.node.path, "-e", NODE, name]).await
    }

    fn handed_out(&self) -> Value {
        ask_on_host(&self.scene.path(&self.id)).body
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_of_others_get_the_credentials() {
    let Some(mut clients) = Clients::start("clients: credentials").await else { return };
    let handed_out = clients.handed_out();
    assert_eq!(handed_out["RoleArn"], ROLE);
    for (client, shown) in [
        ("botocore", clients.python("credentials").await),
        ("botocore, whole URL", clients.python("full_uri").await),
        ("AWS SDK for JavaScript", clients.node("http").await),
        ("Smithy", clients.node("imds").await),
    ] {
        for member in ["AccessKeyId", "SecretAccessKey", "Token"] {
            assert!(shown[member].is_string() && shown[member] == handed_out[member], "{client} {member}");
        }
        let seconds = shown["seconds"].as_f64().unwrap_or(1.0);
        assert!(seconds > 0.0, "{client}: {seconds}");
    }
    let text = clients.python("wrong_id").await;
    let expected = [
        "Received non 200 response 400 from container metadata",
        "InvalidIdInRequest",
        "CredentialsV2Request: Credentials not found",
    ];
    assert!(expected.into_iter().all(|part| text.as_str().unwrap().contains(part)), "{text}");
    assert_eq!(clients.node("wrong_id").await, json!(["Server responded with status: 400", 400]));

    // After a restart the credentials come from ECS again. Until then the clients must try again, which they do after a 503.
    clients.scene.rig.kill();
    clients.scene.rig.server.fail_next("acs", 1_000, &Fault::ServerError);
    clients.scene.rig.start_agent();
    let clears = async {
        tokio::time::sleep(std::time::Duration::from_secs(5)).await;
        clients.scene.rig.server.clear_faults();
    };
    let (python, node, ()) = tokio::join!(clients.python("unavailable"), clients.node("unavailable"), clears);
    let renewed = clients.handed_out()["AccessKeyId"].clone();
    assert_eq!((&python["AccessKeyId"], &node["AccessKeyId"]), (&renewed, &renewed));
    let refusals = python["refusals"].to_string();
    assert!(refusals.contains("non 200 response 503") && refusals.contains("CredentialsUninitialized"), "{refusals}");
    assert!(!refusals.contains("response 4"), "{refusals}");
    assert_eq!(node["refusals"].as_array().unwrap().last().unwrap(), "Server responded with status: 503");
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_of_others_read_the_metadata() {
    let Some(mut clients) = Clients::start("clients: metadata").await else { return };
    let (python, node) = (clients.python("detector").await, clients.node("detector").await);
    let task_id = clients.arn.rsplit('/').next().unwrap();
    let cluster = clients.arn.replace(":task/", ":cluster/").replace(&format!("/{task_id}"), "");
    let described =
        clients.scene.rig.server.call("DescribeTasks", &json!({"cluster": cluster, "tasks": [clients.arn]})).unwrap();
    let container = &described["tasks"][0]["containers"][0]["containerArn"];
    let group = "arn:aws:logs:us-west-2:123456789012:log-group:g";
    for (client, found) in [("Python", &python), ("JavaScript", &node)] {
        for (name, expected) in [
            ("cloud.provider", json!("aws")),
            ("cloud.platform", json!("aws_ecs")),
            ("container.name", json!(&clients.id[..12])),
            ("container.id", json!(clients.id)),
            ("aws.ecs.container.arn", json!(container)),
            ("aws.ecs.cluster.arn", json!(cluster)),
            ("aws.ecs.launchtype", json!("ec2")),
            ("aws.ecs.task.arn", json!(clients.arn)),
            ("aws.ecs.task.family", json!("clients")),
            ("aws.ecs.task.revision", json!("1")),
            ("aws.log.group.names", json!(["g"])),
            ("aws.log.group.arns", json!([group])),
            ("aws.log.stream.names", json!([format!("p/main/{task_id}")])),
            ("aws.log.stream.arns", json!([format!("{group}:log-stream:p/main/{task_id}")])),
        ] {
            // With cgroup v2, a container does not see the name of its own group.
            let is_hidden =
                name == "container.id" && std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
            assert!(is_hidden || found[name] == expected, "{client}: {name} is {}, not {expected}", found[name]);
        }
    }
    assert_eq!(
        (&node["cloud.resource_id"], &node["cloud.availability_zone"]),
        (&json!(container), &json!("us-west-2a"))
    );

    // A client that keeps to Retry-After is served at its first repetition.
    clients.scene.rig.kill();
    clients.scene.rig.environment.push(("ECS_TASK_METADATA_RPS_LIMIT".to_owned(), "1,30".to_owned()));
    clients.scene.rig.start_agent();
    clients.scene.rig.registered().await;
    let shown = clients.python("patient").await;
    assert!(shown["served"].as_u64().is_some_and(|count| (30..60).contains(&count)), "{shown}");
    assert_eq!(shown["refused"], json!([429, "text/plain; charset=utf-8", "You have reached maximum request limit."]));
    assert_eq!(shown["then"], json!([200, "main", 1]), "{shown}");
    assert!(shown["seconds"].as_f64().is_some_and(|seconds| seconds >= 1.0), "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn prometheus_client_reads_both_forms_of_the_metrics() {
    if interpreters().is_none() {
        return;
    }
    let environment = [("ECS_ENABLE_PROMETHEUS_METRICS", "true")];
    let plan = Plan { environment: &environment, ..Plan::default() };
    let Some(rig) = Rig::start("clients: metrics", plan).await else { return };
    let arn = rig.server.run_task(&one_container(&rig.image(), FOREVER)).unwrap();
    rig.task(&arn, TaskStatus::Running).await;
    let python = format!("{TOOLS}/bin/python3");
    let read = until("the page with the task", LIMIT, async || {
        let (is_read, shown) = run(&[&python, "-c", include_str!("../clients/metrics.py")]);
        assert!(is_read, "{shown}");
        let read: Value = serde_json::from_str(&shown).unwrap();
        (read["classic"]["running"][0].as_f64() == Some(1.0)).then_some(read)
    });
    let read = read.await;
    assert_eq!(read["openmetrics"]["kind"], "application/openmetrics-text; version=1.0.0; charset=utf-8");
    for form in ["classic", "openmetrics"] {
        let read = &read[form];
        assert_eq!(read["without_help"], json!([]), "{form}");
        assert!(read["samples"].as_u64() > Some(200), "{form}: {}", read["samples"]);
        for (name, kind) in [
            ("ecs_agent_tasks", "gauge"),
            ("ecs_agent_pulls", "counter"),
            ("ecs_agent_docker_call_seconds", "histogram"),
            ("process_cpu_seconds", "counter"),
        ] {
            assert_eq!(read["types"][name], kind, "{form}: {name}");
        }
    }
    assert_eq!(read["openmetrics"]["samples"], read["classic"]["samples"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn opentelemetry_reads_the_traces() {
    if let Some((python, _)) = interpreters() {
        super::traces::are_read_by_opentelemetry(&python.path).await;
    }
}
