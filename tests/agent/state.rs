//! The data directory: its owner, its content, and the outcome when it is damaged or belongs to another agent.

use super::health::healthcheck;
use super::rig::{FOREVER, LIMIT, Plan, Rig, one_container, shell};
use ecs_local::{Fault, Options, Server, TaskStatus};
use ecs_testing::docker::inspect;
use ecs_testing::registry::basic;
use ecs_testing::wait::until;
use serde_json::json;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

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

/// Removing the state to join another cluster is what the documentation of AWS advises.
#[tokio::test(flavor = "multi_thread")]
async fn without_its_state_it_joins_another_cluster() {
    let Some(mut rig) = Rig::start("cluster changed, state lost", Plan::default()).await else { return };
    let arn = rig.server.run_task(&one_container(&rig.image(), FOREVER)).unwrap();
    let task = rig.task(&arn, TaskStatus::Running).await;
    let id = task.container("main").unwrap().runtime_id.clone().unwrap();
    rig.terminate();
    std::fs::remove_file(state_file(&rig)).unwrap();
    let cluster = format!("{}-other", rig.cluster.name);
    let options = Options { cluster, token: Some(rig.server.token().clone()), ..Options::default() };
    let first = std::mem::replace(&mut rig.server, Server::start(options).await.unwrap());
    rig.environment.extend(rig.server.environment());
    rig.start_agent();
    rig.registered().await;
    let joined = instances(&rig);
    assert_eq!(joined.len(), 1);
    let (log, expected) = (rig.log(), "the state is gone and ECS_CLUSTER has changed; registering anew");
    assert!(log.contains(expected), "{log}");
    assert_eq!(first.read(|state| state.instances().len()), 1, "nothing new in the first cluster");
    rig.terminate();
    rig.start_agent();
    rig.registered().await;
    assert_eq!(instances(&rig), joined, "the new registration is kept");
    assert_eq!(
        rig.introspect("/v1/tasks").await,
        json!({"Tasks": []}),
        "tasks of the first cluster are not of this one"
    );
    assert_eq!(inspect(&id)["State"]["Running"], true, "containers of the first cluster are left alone");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_state_of_another_ec2_instance_is_dropped() {
    let Some(mut rig) = Rig::start("instance changed", Plan::default()).await else { return };
    let arn = rig.server.run_task(&one_container(&rig.image(), FOREVER)).unwrap();
    let task = rig.task(&arn, TaskStatus::Running).await;
    let id = task.container("main").unwrap().runtime_id.clone().unwrap();
    rig.terminate();
    // Both servers have the same token, so each accepts the keys of the other's metadata service.
    let token = Some(rig.server.token().clone());
    let options = Options { instance_id: "i-ffffffffffffffff0".to_owned(), token, ..Options::default() };
    let other = Server::start(options).await.unwrap(); // for its metadata only
    rig.environment.push(("AWS_EC2_METADATA_SERVICE_ENDPOINT".into(), other.url()));
    rig.start_agent();
    rig.registered().await;
    assert_eq!(instances(&rig).len(), 2, "a new registration");
    assert_eq!(rig.introspect("/v1/tasks").await, json!({"Tasks": []}));
    assert_eq!(inspect(&id)["State"]["Running"], true, "earlier containers are left alone");
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

/// A command that ends with exit code 7 at SIGTERM and writes a line to a host file at each start.
const COUNTED: &str = "echo started >> /shared/starts; trap 'exit 7' TERM; while :; do sleep 0.1; done";

struct Running {
    arn: String,
    id: String,
    starts: PathBuf,
}

impl Running {
    async fn start(rig: &Rig) -> Self {
        let shared = rig.shared("shared");
        let mut container = shell("main", &rig.image(), COUNTED);
        container["mountPoints"] = json!([{"sourceVolume": "shared", "containerPath": "/shared"}]);
        container["portMappings"] = json!([{"containerPort": 80}]);
        let definition = json!({
            "family": "test", "containerDefinitions": [container],
            "volumes": [{"name": "shared", "host": {"sourcePath": shared}}],
        });
        let arn = rig.server.run_task(&definition).unwrap();
        let task = rig.task(&arn, TaskStatus::Running).await;
        let id = task.container("main").unwrap().runtime_id.clone().unwrap();
        let starts = shared.join("starts");
        until("the first line", LIMIT, async || starts.exists().then_some(())).await;
        Self { arn, id, starts }
    }

    /// Checks that it is the same container, never started again, and that the agent knows it as running.
    async fn goes_on(&self, rig: &Rig, what: &str) {
        until(&format!("{what}: the task to be known"), LIMIT, async || {
            let shown = rig.introspect("/v1/tasks").await;
            let tasks = shown["Tasks"].as_array()?;
            let task = tasks.iter().find(|task| task["Arn"] == self.arn.as_str())?;
            (task["KnownStatus"] == "RUNNING" && task["Containers"][0]["DockerId"] == self.id.as_str()).then_some(())
        })
        .await;
        assert_eq!(inspect(&self.id)["State"]["Running"], true, "{what}");
        assert_eq!(std::fs::read_to_string(&self.starts).unwrap(), "started\n", "{what}");
        assert_eq!(rig.containers().len(), 1, "{what}");
    }

    async fn stops_with(&self, rig: &Rig, exit_code: i64) {
        let task = rig.task(&self.arn, TaskStatus::Stopped).await;
        assert_eq!(task.container("main").unwrap().exit_code, Some(exit_code));
        until("the clean-up", LIMIT, async || rig.containers().is_empty().then_some(())).await;
    }
}

const SOON_CLEAN: Plan<'static> =
    Plan { users: &[], environment: &[("ECS_ENGINE_TASK_CLEANUP_WAIT_DURATION", "2s")], options: None };

fn set_aside(rig: &Rig) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(data(rig)).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.to_string_lossy().contains(".broken-")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_state_is_rebuilt_from_the_containers() {
    let Some(mut rig) = Rig::start("state lost", SOON_CLEAN).await else { return };
    let ends_by_itself = Running::start(&rig).await;
    let lose = |rig: &mut Rig| {
        rig.kill();
        std::fs::remove_dir_all(data(rig)).unwrap();
        rig.start_agent();
    };
    lose(&mut rig);
    rig.registered().await;
    ends_by_itself.goes_on(&rig, "lost").await;
    let shown = rig.introspect("/v1/tasks").await["Tasks"][0].clone();
    assert_eq!((&shown["Family"], &shown["DesiredStatus"]), (&json!("test"), &json!("RUNNING")));
    assert_eq!(shown["Containers"][0]["Ports"][0]["ContainerPort"], 80);
    ecs_testing::docker::docker(&["kill", "--signal", "TERM", &ends_by_itself.id]);
    ends_by_itself.stops_with(&rig, 7).await;

    // A second task is sent once more, and then stopped by ECS.
    std::fs::remove_file(&ends_by_itself.starts).unwrap();
    let stopped_by_ecs = Running::start(&rig).await;
    lose(&mut rig);
    rig.registered().await;
    stopped_by_ecs.goes_on(&rig, "lost again").await;
    let payload = rig.server.read(|state| state.task(&stopped_by_ecs.arn).unwrap().payload.clone());
    rig.server.send_task(payload.clone()).unwrap();
    stopped_by_ecs.goes_on(&rig, "sent once more").await;
    let mut stop = payload;
    stop["desiredStatus"] = json!("STOPPED");
    rig.server.send_task(stop).unwrap();
    stopped_by_ecs.stops_with(&rig, 7).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_ended_while_the_state_was_lost_is_reported() {
    let Some(mut rig) = Rig::start("ended and lost", SOON_CLEAN).await else { return };
    let task = Running::start(&rig).await;
    rig.kill();
    ecs_testing::docker::docker(&["kill", "--signal", "TERM", &task.id]);
    ecs_testing::docker::docker(&["wait", &task.id]);
    std::fs::write(state_file(&rig), "broken").unwrap();
    rig.start_agent();
    task.stops_with(&rig, 7).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_state_file_is_set_aside_and_no_container_suffers() {
    let Some(mut rig) = Rig::start("damaged", SOON_CLEAN).await else { return };
    let task = Running::start(&rig).await;
    rig.terminate();
    let good = std::fs::read(state_file(&rig)).unwrap();
    let mut header = good.clone();
    header[..64].fill(0xff);
    let mut pages = good.clone();
    pages[4096..].iter_mut().for_each(|byte| *byte = !*byte);
    let mut one_byte = good.clone();
    let member = b"\"container_instance_arn\":";
    // Free pages may hold old copies of a document, so every copy is changed.
    for (place, window) in good.windows(member.len()).enumerate() {
        if window == member {
            one_byte[place] = b'?';
        }
    }
    assert_ne!(good, one_byte);
    for (what, damaged) in [
        ("text", b"this is no database\n".repeat(500)),
        ("half of it", good[..good.len() / 2].to_vec()),
        ("a broken header", header),
        ("broken pages", pages),
        ("a broken value", one_byte),
    ] {
        std::fs::write(state_file(&rig), &damaged).unwrap();
        for old in set_aside(&rig) {
            std::fs::remove_file(old).unwrap();
        }
        rig.start_agent();
        rig.registered().await;
        task.goes_on(&rig, what).await;
        assert_eq!(instances(&rig).len(), 1, "{what}: the same container instance");
        assert_eq!(set_aside(&rig).len(), 1, "{what}: kept for inspection");
        assert!(rig.log().contains("is broken and was set aside"), "{what}: {}", rig.log());
        rig.terminate();
    }
    std::fs::write(state_file(&rig), &good).unwrap();
    let before = instances(&rig);
    rig.start_agent();
    rig.registered().await;
    assert_eq!(instances(&rig), before, "restored, it is the instance it was");
    assert_eq!(inspect(&task.id)["State"]["Running"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_file_taken_away_while_the_agent_runs_is_made_anew() {
    let Some(mut rig) = Rig::start("file deleted", SOON_CLEAN).await else { return };
    let task = Running::start(&rig).await;
    std::fs::remove_dir_all(data(&rig)).unwrap();
    let next = rig.server.run_task(&one_container(&rig.image(), "exit 0")).unwrap();
    rig.task(&next, TaskStatus::Stopped).await;
    until("the clean-up", LIMIT, async || (rig.containers().len() == 1).then_some(())).await;
    rig.terminate();
    rig.start_agent();
    rig.registered().await;
    task.goes_on(&rig, "file deleted").await;
    assert_eq!(instances(&rig).len(), 1, "nothing was lost");
}

/// A file system of a few megabytes as the data directory, which a test can fill.
struct SmallDisk(PathBuf);

impl SmallDisk {
    #[expect(clippy::print_stderr, reason = "a test that is left out says so")]
    fn mount(rig: &Rig) -> Option<Self> {
        let directory = data(rig);
        std::fs::create_dir_all(&directory).unwrap();
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", "size=4m", "tmpfs"]).arg(&directory).output();
        if mount.is_ok_and(|output| output.status.success()) {
            return Some(Self(directory));
        }
        eprintln!("SKIPPED: this process may not mount a tmpfs, so no disk can be filled");
        None
    }

    fn fill(&self) {
        let mut file = std::fs::File::create(self.0.join("ballast")).unwrap();
        while std::io::Write::write_all(&mut file, &[1; 4096]).is_ok() {}
    }

    fn free(&self) {
        std::fs::remove_file(self.0.join("ballast")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_full_disk_nothing_is_begun_and_space_lets_it_go_on() {
    let Some(mut rig) = Rig::without_agent("full disk", SOON_CLEAN).await else { return };
    let Some(disk) = SmallDisk::mount(&rig) else { return };
    disk.fill();
    rig.start_agent();
    let waits =
        |rig: &Rig, times: usize| rig.log().matches("the state cannot be written (ECS_DATADIR)").count() >= times;
    until("the agent to wait for space", LIMIT, async || waits(&rig, 2).then_some(())).await;
    assert_eq!(instances(&rig).len(), 0, "it does not register before it can remember that");
    let (code, text) = healthcheck("-healthcheck");
    assert!(code == Some(0) && text.contains("waits until the state on disk"), "{code:?} {text}");
    disk.free();
    rig.registered().await;
    let task = Running::start(&rig).await;

    std::fs::write(rig.log_path(), "").unwrap();
    disk.fill();
    // Changes that fit into existing pages still succeed; the disk counts as full when they no longer do.
    let padding = "x".repeat(100_000);
    let long = format!("trap 'exit 0' TERM; : {padding}; while :; do sleep 0.1; done");
    let mut arns = Vec::new();
    while !waits(&rig, 1) {
        assert!(arns.len() < 60, "the disk does not get full");
        arns.push(rig.server.run_task(&one_container(&rig.image(), &long)).unwrap());
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    }
    // Wait until everything that was begun before is over.
    let mut before = Vec::new();
    until("the containers to stay as they are", LIMIT, async || {
        let now = rig.containers();
        let same = now == before;
        before = now;
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        same.then_some(())
    })
    .await;
    let (containers, reports) = (rig.containers(), rig.server.submissions().len());
    arns.push(rig.server.run_task(&one_container(&rig.image(), FOREVER)).unwrap());
    let waited = rig.log().matches("cannot be written").count();
    until("three more tries", LIMIT, async || waits(&rig, waited + 3).then_some(())).await;
    assert_eq!(rig.containers(), containers, "no effect without its commit");
    assert_eq!(rig.server.submissions().len(), reports, "nothing is reported that is not on disk");
    let last = rig.server.read(|state| state.task(arns.last().unwrap()).unwrap().last_status);
    assert!(last < TaskStatus::Running);
    assert!(rig.introspect("/v1/tasks").await["Tasks"].is_array(), "readers are served");
    let (code, text) = healthcheck("-healthcheck");
    assert!(code == Some(1) && text.contains("state: cannot be written"), "{code:?} {text}");
    assert_eq!(inspect(&task.id)["State"]["Running"], true, "running containers keep running");

    disk.free();
    for arn in &arns {
        rig.task(arn, TaskStatus::Running).await;
    }
    assert_eq!(rig.containers().len(), arns.len() + 1, "each was begun once");
    assert_eq!(healthcheck("-healthcheck").0, Some(0));
    assert_eq!(set_aside(&rig).len(), 0);
    rig.kill();
    rig.start_agent();
    rig.registered().await;
    assert_eq!(instances(&rig).len(), 1);
    assert_eq!(rig.introspect("/v1/tasks").await["Tasks"].as_array().unwrap().len(), arns.len() + 1);
    rig.kill();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_directory_that_cannot_be_used_is_refused() {
    let Some(mut rig) = Rig::without_agent("no directory", Plan::default()).await else { return };
    std::fs::write(data(&rig), "a file").unwrap();
    rig.start_agent();
    assert_eq!(rig.ended().code(), Some(1));
    assert!(rig.log().contains("it must be a directory this process may write to"), "{}", rig.log());
    assert_eq!(std::fs::read(data(&rig)).unwrap(), b"a file");
    assert_eq!(instances(&rig).len(), 0, "refused before it registers");
}

/// As `/var` after an error of its disk.
#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_data_directory_is_refused() {
    let Some(mut rig) = Rig::without_agent("read-only", Plan::default()).await else { return };
    let Some(_disk) = SmallDisk::mount(&rig) else { return };
    let remounted = Command::new("mount").args(["-o", "remount,ro"]).arg(data(&rig)).status().unwrap();
    assert!(remounted.success());
    rig.start_agent();
    assert_eq!(rig.ended().code(), Some(1));
    let log = rig.log();
    assert!(log.contains("ECS_DATADIR") && log.contains("ead-only file system"), "{log}");
    assert_eq!(instances(&rig).len(), 0, "refused before it registers");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_metadata_the_saved_instance_id_is_used() {
    let Some(mut rig) = Rig::start("no metadata", Plan::default()).await else { return };
    rig.terminate();
    rig.server.fail_next("imds", 1_000, &Fault::Error(404, "NotFound".to_owned(), "no metadata".to_owned()));
    rig.environment.push(("AWS_ACCESS_KEY_ID".into(), "local".into()));
    rig.environment.push(("AWS_SECRET_ACCESS_KEY".into(), rig.server.token().expose().to_owned()));
    rig.start_agent();
    rig.registered().await;
    let last = rig.server.read(|state| {
        state.records().rfind(|record| record.name == "RegisterContainerInstance").map(|record| record.body.clone())
    });
    assert!(
        last.as_ref().is_some_and(|body| body["instanceIdentityDocument"].as_str().is_none_or(str::is_empty)),
        "{last:?}"
    );
    assert_eq!(instances(&rig).len(), 1, "the same instance");
    rig.terminate();
    rig.server.clear_faults();
    rig.start_agent();
    rig.registered().await;
    assert_eq!(instances(&rig).len(), 1, "and its id is still known");
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
    assert!(rig.log().contains("level=debug"), "the log was at debug level");
}

#[tokio::test(flavor = "multi_thread")]
async fn state_is_its_owners_in_a_directory_of_others() {
    let Some(rig) = Rig::without_agent("modes", Plan::default()).await else { return };
    let mut rig = rig;
    // A directory that other programs use too.
    std::fs::create_dir(data(&rig)).unwrap();
    std::fs::set_permissions(data(&rig), std::fs::Permissions::from_mode(0o777)).unwrap();
    rig.start_agent();
    rig.registered().await;
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(format!("{:o}", mode(&data(&rig))), "777", "it is not the agent's to change");
    assert!(rig.log().contains("other users may replace the state in ECS_DATADIR"), "{}", rig.log());
    for file in files(&data(&rig)) {
        assert_eq!(format!("{:o}", mode(&file)), "600", "{}", file.display());
    }
    assert!(state_file(&rig).exists());
}
