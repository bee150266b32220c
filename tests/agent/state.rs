//! The data directory: whose it is, what may be in it, and what happens when it is damaged or somebody else's.

use super::rig::{FOREVER, Plan, Rig, one_container};
use super::support::docker::inspect;
use super::support::registry::basic;
use ecs_agent::local::{Options, Server, TaskStatus};
use serde_json::json;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

fn data(rig: &Rig) -> PathBuf {
    rig.directory.path().join("data")
}

fn state_file(rig: &Rig) -> PathBuf {
    data(rig).join("ecs-agent.redb")
}

fn instances(rig: &Rig) -> Vec<String> {
    rig.server.read(|state| state.instances().iter().map(|instance| instance.arn.clone()).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn one_data_directory_has_one_agent() {
    let Some(rig) = Rig::start("two agents", Plan::default()).await else { return };
    let second = Command::new(env!("CARGO_BIN_EXE_ecs-agent"))
        .env_clear()
        .envs(rig.environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(second.status.code(), Some(1));
    let said = String::from_utf8_lossy(&second.stderr);
    assert!(said.contains("is in use by another agent; run one agent per data directory (ECS_DATADIR)"), "{said}");
    assert_eq!(instances(&rig).len(), 1);
    assert_eq!(rig.introspect("/v1/metadata").await["Cluster"], rig.cluster.name.as_str(), "the first one goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_cluster_needs_another_data_directory() {
    let Some(mut rig) = Rig::start("cluster changed", Plan::default()).await else { return };
    assert_eq!(rig.terminate().code(), Some(0));
    rig.environment.push(("ECS_CLUSTER".into(), "another".into()));
    rig.start_agent();
    assert_eq!(rig.ended().code(), Some(5));
    let expected = format!("the saved state is of cluster '{}', but ECS_CLUSTER names 'another'", rig.cluster.name);
    assert!(rig.log().contains(&expected), "{}", rig.log());
    rig.environment.pop();
    let before = instances(&rig);
    rig.start_agent();
    rig.registered().await;
    assert_eq!(instances(&rig), before, "nothing was lost by it");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_state_of_another_ec2_instance_is_dropped() {
    let Some(mut rig) = Rig::start("instance changed", Plan::default()).await else { return };
    let arn = rig.server.run_task(&one_container(&rig.image(), FOREVER)).unwrap();
    let task = rig.task(&arn, TaskStatus::Running).await;
    let id = task.container("main").unwrap().runtime_id.clone().unwrap();
    rig.terminate();
    let options = Options { instance_id: "i-ffffffffffffffff0".to_owned(), ..Options::default() };
    let other = Server::start(options).await.unwrap(); // for its metadata only
    rig.environment.push(("AWS_EC2_METADATA_SERVICE_ENDPOINT".into(), other.url()));
    rig.start_agent();
    rig.registered().await;
    assert_eq!(instances(&rig).len(), 2, "a new registration");
    assert_eq!(rig.introspect("/v1/tasks").await, json!({"Tasks": []}));
    assert_eq!(inspect(&id)["State"]["Running"], true, "containers of before are left alone");
    assert_eq!(rig.statuses(&arn), ["PENDING", "RUNNING"]);
    let registered = instances(&rig);
    rig.terminate();
    rig.start_agent();
    rig.registered().await;
    assert_eq!(instances(&rig), registered, "the dropped state does not come back");
    assert_eq!(rig.introspect("/v1/tasks").await, json!({"Tasks": []}));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_data_directory_each_start_is_a_new_instance() {
    let Some(mut rig) = Rig::without_agent("no checkpoint", Plan::default()).await else { return };
    rig.environment.retain(|(name, _)| name != "ECS_DATADIR");
    for expected in [1, 2] {
        rig.start_agent();
        rig.registered().await;
        assert_eq!(instances(&rig).len(), expected);
        assert_eq!(rig.terminate().code(), Some(0));
    }
    assert!(!data(&rig).exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_state_file_is_told_and_left_as_it_is() {
    let Some(mut rig) = Rig::start("damaged", Plan::default()).await else { return };
    let arn = rig.server.run_task(&one_container(&rig.image(), "exit 0")).unwrap();
    rig.task(&arn, TaskStatus::Stopped).await;
    rig.terminate();
    let good = std::fs::read(state_file(&rig)).unwrap();
    let mut header = good.clone();
    header[..64].fill(0xff);
    let mut pages = good.clone();
    pages[4096..].iter_mut().for_each(|byte| *byte = !*byte);
    let mut values = good.clone();
    let member = b"\"container_instance_arn\":";
    // Old copies of a document may be left in free pages: all of them.
    for (place, window) in good.windows(member.len()).enumerate() {
        if window == member {
            values[place..place + 8].fill(b'?');
        }
    }
    assert_ne!(good, values);
    for (what, damaged) in [
        ("text", b"this is no database\n".repeat(500)),
        ("half of it", good[..good.len() / 2].to_vec()),
        ("a broken header", header),
        ("a few bytes", b"redb".to_vec()),
        ("broken pages", pages),
        ("a broken value", values),
    ] {
        std::fs::write(state_file(&rig), &damaged).unwrap();
        for start in ["first", "second"] {
            std::fs::write(rig.log_path(), "").unwrap();
            rig.start_agent();
            assert_eq!(rig.ended().code(), Some(5), "{what}, {start} start: {}", rig.log());
            assert!(rig.log().contains("cannot be read"), "{what}: {}", rig.log());
        }
        // A file that can be opened as a database is also closed as one, which writes to it.
        let left = std::fs::read(state_file(&rig)).unwrap();
        assert!(left == damaged || what == "a broken value", "{what}: the file was changed");
    }
    std::fs::write(state_file(&rig), &good).unwrap();
    rig.start_agent();
    rig.registered().await;
    assert_eq!(instances(&rig).len(), 1, "restored, it is the same instance");
}

/// All files below a directory.
fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_on_disk_or_in_the_log() {
    const PASSWORD: &str = "registry-password-2f6c";
    let users = [("somebody", PASSWORD)];
    let plan = Plan { users: &users, environment: &[("ECS_LOGLEVEL", "debug")], options: None };
    let Some(mut rig) = Rig::without_agent("secrets", plan).await else { return };
    let auth = json!({&rig.registry.host: {"username": "somebody", "password": PASSWORD}});
    rig.environment.push(("ECS_ENGINE_AUTH_TYPE".into(), "docker".into()));
    rig.environment.push(("ECS_ENGINE_AUTH_DATA".into(), auth.to_string()));
    rig.start_agent();
    rig.registered().await;
    let recorded = &super::difference::golden("acs_payload_sent")["message"]["tasks"][0]["executionRoleCredentials"];
    let mut task = json!({"family": "test", "version": "1", "desiredStatus": "RUNNING"});
    task["containers"] = json!([super::rig::shell("main", &rig.image(), FOREVER)]);
    task["executionRoleCredentials"] = recorded.clone();
    let arn = rig.server.send_task(task).unwrap();
    rig.task(&arn, TaskStatus::Running).await;
    let refreshed = rig.server.read(|state| state.task(&arn).unwrap().payload["executionRoleCredentials"].clone());
    rig.kill(); // no chance to tidy up
    rig.start_agent();
    rig.registered().await;
    rig.server.stop_task(&arn, "enough").unwrap();
    rig.task(&arn, TaskStatus::Stopped).await;
    rig.terminate();

    let mut secrets = vec![PASSWORD.to_owned(), basic("somebody", PASSWORD)];
    for role in [recorded, &refreshed] {
        secrets
            .extend(["accessKeyId", "secretAccessKey", "sessionToken"].map(|m| role[m].as_str().unwrap().to_owned()));
    }
    let mut looked_at = files(&data(&rig));
    assert!(looked_at.contains(&state_file(&rig)), "{looked_at:?}");
    looked_at.push(rig.log_path());
    for path in looked_at {
        let bytes = std::fs::read(&path).unwrap();
        for secret in &secrets {
            let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!found, "{} holds {secret}", path.display());
        }
    }
    assert!(rig.log().contains("DEBUG"), "the log was at debug level");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_state_is_for_its_owner_only() {
    let Some(rig) = Rig::without_agent("modes", Plan::default()).await else { return };
    let mut rig = rig;
    // Made by somebody careless before.
    std::fs::create_dir(data(&rig)).unwrap();
    std::fs::set_permissions(data(&rig), std::fs::Permissions::from_mode(0o777)).unwrap();
    rig.start_agent();
    rig.registered().await;
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(format!("{:o}", mode(&data(&rig))), "700");
    for file in files(&data(&rig)) {
        assert_eq!(format!("{:o}", mode(&file)), "600", "{}", file.display());
    }
    assert!(state_file(&rig).exists());
}
