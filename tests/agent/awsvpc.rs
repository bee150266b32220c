//! Tasks with network interfaces of their own: from RunTask to the end, with a dockerd in the test's own network namespace. The interface
//! is that of `ecs-local`: one end of a pair of links, which the agent cannot tell from a device that EC2 attaches.

use super::rig::{FOREVER, LIMIT, shell};
use super::roles::{Answer, ROLE, Scene, answer};
use ecs_local::TaskStatus;
use ecs_testing::wait::until;
use serde_json::{Value, json};
use std::io::Read as _;
use std::net::TcpStream;
use std::process::Command;

const ENVIRONMENT: [(&str, &str); 2] = [("ECS_ENABLE_TASK_ENI", "true"), ("ECS_CREDENTIALS_PEER_CHECK", "enforce")];
/// Asks for the credentials of the task.
const ASK: &str =
    "printf \"GET $AWS_CONTAINER_CREDENTIALS_RELATIVE_URI HTTP/1.0\\r\\n\\r\\n\" | nc -w 9 169.254.170.2 80";

/// A running task of two containers with its own interface: its ARN, its address, and Docker's ids of its containers.
struct Running {
    arn: String,
    address: String,
    main: String,
    side: String,
}

async fn start(scene: &Scene) -> Running {
    let image = &scene.image.reference;
    let serve = format!("while :; do echo hello | nc -l -p 8080; done & {FOREVER}");
    let definition = json!({
        "family": "own", "networkMode": "awsvpc", "taskRoleArn": ROLE,
        "containerDefinitions": [shell("main", image, &serve), shell("side", image, FOREVER)],
    });
    let arn = scene.rig.server.run_task(&definition).unwrap();
    let task = scene.rig.task(&arn, TaskStatus::Running).await;
    let id = |name: &str| task.container(name).unwrap().runtime_id.clone().unwrap();
    let shown = describe(scene, &arn);
    let details = shown["attachments"][0]["details"].as_array().unwrap().clone();
    let address = details.iter().find(|detail| detail["name"] == "privateIPv4Address").unwrap()["value"].clone();
    Running { arn, address: address.as_str().unwrap().to_owned(), main: id("main"), side: id("side") }
}

fn describe(scene: &Scene, arn: &str) -> Value {
    let body = json!({"cluster": scene.rig.cluster.name, "tasks": [arn]});
    scene.rig.server.call("DescribeTasks", &body).unwrap()["tasks"][0].clone()
}

/// The names of the links of this network namespace.
fn links() -> Vec<String> {
    let output = Command::new("ip").args(["-o", "link"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let name = |line: &str| line.split(": ").nth(1)?.split('@').next().map(str::to_owned);
    text.lines().filter_map(name).collect()
}

/// What a task at this address says on its port.
fn greeting(address: &str) -> Option<String> {
    let mut text = String::new();
    TcpStream::connect((address, 8080)).ok()?.read_to_string(&mut text).ok()?;
    Some(text)
}

fn ask(scene: &Scene, id: &str, url: &str) -> Value {
    serde_json::from_str(&scene.exec(id, &format!("wget -qO- {url}"))).unwrap_or_default()
}

fn credentials(scene: &Scene, id: &str) -> Answer {
    answer(&scene.exec(id, ASK))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_has_an_interface_of_its_own() {
    let Some(scene) = Scene::start_with("awsvpc", &ENVIRONMENT).await else { return };
    let task = start(&scene).await;
    let Running { arn, address, main, side } = &task;

    // The network, which both containers share.
    for id in [main, side] {
        let shown = scene.exec(id, "ip -4 addr show eth0; ip route; hostname; cat /etc/resolv.conf");
        assert!(shown.contains(&format!("inet {address}/16")), "{shown}");
        assert!(shown.contains("default via 198.18.0.1 dev eth0"), "{shown}");
        assert!(shown.contains(&format!("ip-{}.us-west-2.compute.internal", address.replace('.', "-"))), "{shown}");
        assert!(shown.contains("search us-west-2.compute.internal"), "{shown}");
    }
    let answered = until("an answer of the task", LIMIT, async || greeting(address)).await;
    assert_eq!(answered, "hello\n");
    assert_eq!(scene.exec(side, "nc -w 5 127.0.0.1 8080"), "hello", "the containers share the loopback");
    // Over its interface, and over the bridge to the agent.
    for host in ["198.18.0.1", "169.254.172.1"] {
        let refused = scene.exec(main, &format!("nc -w 5 {host} 51678 </dev/null; echo \"exit code $?\""));
        assert_ne!(refused.lines().last(), Some("exit code 0"), "the task has no way to introspection at {host}");
    }

    // Metadata, and the credentials of the task's role.
    let shown = ask(&scene, main, "http://169.254.170.2/v2/metadata");
    assert_eq!(shown["TaskARN"], arn.as_str());
    let pause = shown["Containers"].as_array().unwrap().iter().find(|shown| shown["Type"] == "CNI_PAUSE").unwrap();
    assert_eq!(pause["KnownStatus"], "RESOURCES_PROVISIONED");
    let shown = ask(&scene, side, "$ECS_CONTAINER_METADATA_URI_V4");
    let network = &shown["Networks"][0];
    assert_eq!((&network["NetworkMode"], &network["IPv4Addresses"]), (&json!("awsvpc"), &json!([address])));
    assert_eq!(network["SubnetGatewayIpv4Address"], "198.18.0.1/16");
    let asked = credentials(&scene, main);
    assert_eq!((asked.status, asked.body["RoleArn"].as_str()), (200, Some(ROLE)), "{asked:?}");
    let counted = until("statistics", LIMIT, async || {
        let stats = ask(&scene, main, "$ECS_CONTAINER_METADATA_URI_V4/stats");
        Some(stats["networks"]["eth0"]["rx_packets"].clone()).filter(Value::is_u64)
    });
    assert!(counted.await.as_u64() > Some(0));
    let shown = scene.rig.introspect("/v1/tasks").await;
    let containers = shown["Tasks"][0]["Containers"].as_array().unwrap();
    assert_eq!(containers.len(), 2, "the pause container is the agent's own");
    assert_eq!(containers[0]["Networks"], json!([{"NetworkMode": "awsvpc", "IPv4Addresses": [address]}]));

    // What ECS got and shows.
    let reports = scene.rig.reports(arn);
    let recorded: Value = serde_json::from_str(include_str!("../golden/awsvpc/attached_report.json")).unwrap();
    let names = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!((names(&reports[0]), &reports[0]["attachments"][0]["status"]), (names(&recorded), &json!("ATTACHED")));
    assert!(reports[1..].iter().all(|report| report["attachments"].is_null()), "{reports:?}");
    let shown = describe(&scene, arn);
    assert_eq!(shown["attachments"][0]["status"], "ATTACHED");
    assert_eq!(shown["containers"][0]["networkInterfaces"][0]["privateIpv4Address"], address.as_str());

    // The end leaves nothing but the agent's bridge.
    assert!(links().iter().any(|name| name.starts_with("ecsl")) && links().contains(&"ecs-local".to_owned()));
    scene.rig.server.stop_task(arn, "end").unwrap();
    scene.rig.task(arn, TaskStatus::Stopped).await;
    let left = async || {
        let left: Vec<String> =
            links().into_iter().filter(|name| name.starts_with("ecs") || name.starts_with("veth")).collect();
        (left == ["ecs-bridge"]).then_some(())
    };
    until("the removal of the interface", LIMIT, left).await;
    assert_eq!(describe(&scene, arn)["attachments"][0]["status"], "DELETED");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interface_survives_the_agent() {
    let Some(mut scene) = Scene::start_with("awsvpc again", &ENVIRONMENT).await else { return };
    let task = start(&scene).await;
    let pause = || scene.dockerd.docker(&["ps", "-q", "--filter", "name=internalecspause"]).unwrap();
    let before = (pause(), links());
    scene.rig.kill();
    assert_eq!(greeting(&task.address).as_deref(), Some("hello\n"), "nothing stops with the agent");
    scene.rig.start_agent();
    scene.rig.registered().await;
    let known = until("version 2 of task metadata", LIMIT, async || {
        let shown = ask(&scene, &task.main, "http://169.254.170.2/v2/metadata");
        Some(shown).filter(|shown| shown["TaskARN"] == task.arn.as_str())
    });
    known.await;
    assert_eq!((pause(), links()), before, "nothing is set up again");
    let attached = scene.rig.reports(&task.arn).into_iter().filter(|report| !report["attachments"].is_null());
    assert_eq!(attached.count(), 1, "nothing is reported twice");
    scene.rig.server.stop_task(&task.arn, "end").unwrap();
    scene.rig.task(&task.arn, TaskStatus::Stopped).await;
    until("the removal of the interface", LIMIT, async || {
        links().iter().all(|name| !name.starts_with("ecsl")).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_with_interfaces_reach_each_other() {
    let Some(scene) = Scene::start_with("awsvpc two", &ENVIRONMENT).await else { return };
    let (first, second) = (start(&scene).await, start(&scene).await);
    assert_ne!(first.address, second.address);
    let reached = until("an answer of the other task", LIMIT, async || {
        Some(scene.exec(&second.side, &format!("nc -w 5 {} 8080", first.address))).filter(|text| !text.is_empty())
    });
    assert_eq!(reached.await, "hello");
    for task in [&first, &second] {
        let shown = ask(&scene, &task.side, "http://169.254.170.2/v2/metadata");
        assert_eq!(shown["TaskARN"], task.arn.as_str(), "each is known by its own address");
    }
}
