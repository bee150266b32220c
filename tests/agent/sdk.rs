//! A real SDK of AWS inside real containers: its credentials come over 169.254.170.2.

use super::host_programs::{Interpreter, mount, pythons};
use super::rig::{FOREVER, shell};
use super::roles::{ROLE, Scene, URI, ask_on_host};
use ecs_local::TaskStatus;
use serde_json::{Value, json};
use tokio::task::JoinSet;

const PROGRAM: &str = include_str!("../clients/sdk.py");
/// Calls of the SDK about the instance's own role would only take time.
const NO_INSTANCE: &str = "AWS_EC2_METADATA_DISABLED=true";

fn python() -> Option<Interpreter> {
    let found = Interpreter::python(&pythons());
    if found.is_none() {
        let required = std::env::var("ECS_TEST_REQUIRE_AWSCLI").is_ok_and(|value| value == "1");
        assert!(!required, "no python3 of this host has botocore, and ECS_TEST_REQUIRE_AWSCLI=1");
        eprintln!("SKIPPED an SDK inside containers: no python3 of this host has botocore (it comes with the aws CLI)");
    }
    found
}

/// Lets containers on the bridge reach a server that listens on loopback, until the set is dropped. Returns the server's address for
/// them.
async fn forward(to: String, tasks: &mut JoinSet<()>) -> String {
    let listener = tokio::net::TcpListener::bind("172.31.77.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((mut from, _)) = listener.accept().await {
            let to = to.clone();
            connections.spawn(async move {
                let Ok(mut server) = tokio::net::TcpStream::connect(to).await else { return };
                let _cut = tokio::io::copy_bidirectional(&mut from, &mut server).await;
            });
        }
    });
    address
}

/// How often this role has listed clusters.
fn listed(scene: &Scene) -> Option<u64> {
    let log = scene.rig.server.actions();
    let is_listing = |entry: &&Value| entry["action"] == "ecs:ListClusters" && entry["principal"] == ROLE;
    log["actions"].as_array().unwrap().iter().find(is_listing)?["count"].as_u64()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_sdk_in_a_container_uses_the_role_of_its_task() {
    let Some(python) = python() else { return };
    let Some(scene) = Scene::start("sdk", "enforce").await else { return };
    let mut tasks = JoinSet::new();
    let server = scene.rig.server.url().trim_start_matches("http://").to_owned();
    let endpoint = format!("ENDPOINT=http://{}", forward(server, &mut tasks).await);
    for (network, calls) in [("bridge", 1), ("host", 2)] {
        let mut definition = json!({"family": "sdk", "networkMode": network, "taskRoleArn": ROLE,
            "containerDefinitions": [shell("main", &scene.image.reference, FOREVER)]});
        mount(&mut definition, &[&python]);
        let arn = scene.rig.server.run_task(&definition).unwrap();
        let task = scene.rig.task(&arn, TaskStatus::Running).await;
        assert_eq!(task.last_status, TaskStatus::Running, "{network}: {task:?}");
        let id = task.container("main").unwrap().runtime_id.clone().unwrap();
        let shown = scene.run_in(&id, &[&endpoint, NO_INSTANCE], &[&python.path, "-c", PROGRAM]).await.unwrap();
        let shown: Value = serde_json::from_str(&shown).unwrap_or_else(|error| panic!("{network}: {error}: {shown}"));
        let handed_out = ask_on_host(&scene.path(&id)).body;
        assert_eq!((shown["method"].as_str(), handed_out["RoleArn"].as_str()), (Some("container-role"), Some(ROLE)));
        for member in ["AccessKeyId", "SecretAccessKey", "Token"] {
            assert!(shown[member].is_string() && shown[member] == handed_out[member], "{network} {member}");
        }
        assert_eq!(shown["clusters"].as_array().map(Vec::len), Some(1), "{network}: the signed call");
        assert_eq!(listed(&scene), Some(calls), "{network}: {}", scene.rig.server.actions());
        // Without the variable, the SDK finds nothing: it has used no other source.
        let without = [&endpoint, NO_INSTANCE, &format!("{URI}=")];
        let failed = scene.run_in(&id, &without, &[&python.path, "-c", PROGRAM]).await;
        assert!(failed.is_err(), "{failed:?}");
    }
}
