//! Volumes on real Docker: made before the containers that mount them, shared or not, and removed with their task.

use super::rig::{FOREVER, LIMIT, Plan, Rig, shell};
use ecs_local::TaskStatus;
use ecs_testing::docker::{control_groups, docker, unique};
use ecs_testing::docker_proxy::{DockerProxy, Hold};
use ecs_testing::wait::until;
use serde_json::{Value, json};

const SHORT_WAIT: (&str, &str) = ("ECS_ENGINE_TASK_CLEANUP_WAIT_DURATION", "1s");

/// Removes the volumes whose names begin with this prefix, also when the test fails. Declared before the rig, so that it is
/// dropped after it.
struct Volumes(String);

impl Volumes {
    fn names(&self) -> Vec<String> {
        let listed = docker(&["volume", "ls", "-q", "--filter", &format!("name=^{}", self.0)]);
        listed.lines().map(str::to_owned).collect()
    }
}

impl Drop for Volumes {
    fn drop(&mut self) {
        for name in self.names() {
            let _ = std::process::Command::new("docker").args(["volume", "rm", "-f", &name]).output();
        }
    }
}

fn volume(name: &str) -> Value {
    serde_json::from_str::<Value>(&docker(&["volume", "inspect", name])).unwrap()[0].take()
}

/// A task of that family with one container that mounts the volume `data` at `/data`.
fn mounting(rig: &Rig, family: &str, data: &Value, command: &str) -> Value {
    let mut container = shell("main", &rig.image(), command);
    container["mountPoints"] = json!([{"sourceVolume": data["name"], "containerPath": "/data"}]);
    json!({"family": family, "containerDefinitions": [container], "volumes": [data]})
}

fn task_scoped() -> Value {
    json!({"name": "data", "dockerVolumeConfiguration": {"scope": "task", "driver": "local", "labels": {"l": "1"}}})
}

async fn gone(rig: &Rig, volumes: &Volumes) {
    until("the clean-up", LIMIT, async || rig.containers().is_empty().then_some(())).await;
    until("the volumes to go", LIMIT, async || volumes.names().is_empty().then_some(())).await;
}

/// The volumes are removed after the task.
#[tokio::test(flavor = "multi_thread")]
async fn volumes_of_a_task_are_shared_by_its_containers() {
    let family = unique("vol");
    let volumes = Volumes(format!("ecs-{family}"));
    let plan = Plan { environment: &[SHORT_WAIT], ..Plan::default() };
    let Some(rig) = Rig::start("volumes", plan).await else { return };
    let image = rig.image();
    let mount = |read_only: bool| {
        let point =
            |volume: &str, path: &str| json!({"sourceVolume": volume, "containerPath": path, "readOnly": read_only});
        json!([point("data", "/data"), point("anon", "/anon")])
    };
    let mut writer = shell("writer", &image, "echo one > /data/f; echo two > /anon/f");
    writer["mountPoints"] = mount(false);
    writer["essential"] = json!(false);
    let read = "cat /data/f /anon/f; echo x 2>/dev/null > /data/g && exit 9; test -e /data/g && exit 8";
    let mut reader = shell("reader", &image, &format!("{read}; {FOREVER}"));
    reader["mountPoints"] = mount(true);
    reader["dependsOn"] = json!([{"containerName": "writer", "condition": "SUCCESS"}]);
    let definition = json!({"family": family, "containerDefinitions": [writer, reader],
        "volumes": [task_scoped(), {"name": "anon", "host": {}}]});
    let arn = rig.server.run_task(&definition).unwrap();
    let task = rig.task(&arn, TaskStatus::Running).await;
    let id = task.container("reader").unwrap().runtime_id.clone().unwrap();
    until("the files", LIMIT, async || (docker(&["logs", &id]) == "one\ntwo").then_some(())).await;
    let names = volumes.names();
    assert_eq!(names.len(), 2, "{names:?}");
    for (name, labels) in [("anon", Value::Null), ("data", json!({"l": "1"}))] {
        let start = format!("ecs-{family}-1-{name}-");
        let name = names.iter().find(|name| name.starts_with(&start)).unwrap();
        let shown = volume(name);
        assert_eq!((&shown["Driver"], &shown["Labels"], &shown["Options"]), (&json!("local"), &labels, &Value::Null));
    }
    rig.server.stop_task(&arn, "enough").unwrap();
    rig.task(&arn, TaskStatus::Stopped).await;
    gone(&rig, &volumes).await;
}

fn shared(name: &str, autoprovision: bool, label: &str) -> Value {
    let configuration = json!({"scope": "shared", "autoprovision": autoprovision, "labels": {"l": label}});
    json!({"name": name, "dockerVolumeConfiguration": configuration})
}

async fn reason(rig: &Rig, definition: &Value) -> (String, String) {
    let arn = rig.server.run_task(definition).unwrap();
    rig.task(&arn, TaskStatus::Stopped).await;
    let stopped = rig.reports(&arn).pop().unwrap();
    (arn, stopped["reason"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shared_volume_is_found_or_made_and_stays() {
    let name = unique("ecs-test-shared");
    let volumes = Volumes(name.clone());
    let plan = Plan { environment: &[SHORT_WAIT, ("ECS_SHARED_VOLUME_MATCH_FULL_CONFIG", "true")], ..Plan::default() };
    let Some(mut rig) = Rig::start("shared volumes", plan).await else { return };
    let (arn, reported) = reason(&rig, &mounting(&rig, "absent", &shared(&name, false, "1"), "true")).await;
    let cause = format!("volume detection failed, volume '{name}' does not exist and autoprovision is set to false");
    let docker_error = format!("Error response from daemon: get {name}: no such volume");
    let before = format!("resource cannot be initialized for task {arn}: ");
    assert_eq!(reported, format!("{before}initialize volume: {cause}: {docker_error}"));
    assert!(volumes.names().is_empty());

    let write = mounting(&rig, "made", &shared(&name, true, "1"), "echo kept > /data/f");
    assert_eq!(reason(&rig, &write).await.1, "");
    assert_eq!(volume(&name)["Labels"], json!({"l": "1"}));
    until("the clean-up", LIMIT, async || rig.containers().is_empty().then_some(())).await;
    for (autoprovision, label) in [(true, "1"), (false, "other")] {
        let found = mounting(&rig, "found", &shared(&name, autoprovision, label), "test $(cat /data/f) = kept");
        let (arn, _) = reason(&rig, &found).await;
        let task = rig.task(&arn, TaskStatus::Stopped).await;
        assert_eq!(task.container("main").unwrap().exit_code, Some(0), "{autoprovision} {label}");
    }

    let differs = mounting(&rig, "differs", &shared(&name, true, "2"), "true");
    let (arn, reported) = reason(&rig, &differs).await;
    let text = "intialize volume: non-autoprovisioned volume does not match existing volume labels";
    let before = format!("resource cannot be initialized for task {arn}: ");
    assert_eq!(reported, format!("{before}{text}: existing: map[l:1], expected: map[l:2]"));
    rig.terminate();
    rig.environment.push(("ECS_SHARED_VOLUME_MATCH_FULL_CONFIG".into(), "false".into()));
    rig.start_agent();
    rig.registered().await;
    assert_eq!(reason(&rig, &differs).await.1, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_driver_that_is_not_there_ends_the_task_in_dockers_words() {
    let plan = Plan { environment: &[SHORT_WAIT], ..Plan::default() };
    let Some(rig) = Rig::start("volume driver", plan).await else { return };
    // ECS would not place this task here: the instance has no attribute for the driver.
    let container = json!({"name": "main", "image": rig.image(), "essential": true,
        "mountPoints": [{"sourceVolume": "data", "containerPath": "/data"}]});
    let configuration = json!({"scope": "task", "driver": "no-such-driver"});
    let task = json!({"family": "driver", "version": "1", "desiredStatus": "RUNNING", "containers": [container],
        "volumes": [{"name": "data", "type": "docker", "dockerVolumeConfiguration": configuration}]});
    let arn = rig.server.send_task(task).unwrap();
    rig.task(&arn, TaskStatus::Stopped).await;
    let stopped = rig.reports(&arn).pop().unwrap();
    let reported = stopped["reason"].as_str().unwrap();
    assert!(reported.starts_with("Error response from daemon: ") && reported.contains("no-such-driver"), "{reported}");
}

/// A container from outside ECS uses the volume when the task is cleaned up.
#[tokio::test(flavor = "multi_thread")]
async fn a_volume_in_use_stays_and_keeps_nothing_from_going() {
    let family = unique("used");
    let volumes = Volumes(format!("ecs-{family}"));
    let plan = Plan { environment: &[SHORT_WAIT], ..Plan::default() };
    let Some(rig) = Rig::start("volume in use", plan).await else { return };
    let arn = rig.server.run_task(&mounting(&rig, &family, &task_scoped(), FOREVER)).unwrap();
    rig.task(&arn, TaskStatus::Running).await;
    let name = volumes.names().pop().unwrap();
    let user = unique("ecs-test-user");
    let label = format!("com.amazonaws.ecs.cluster={}", rig.cluster.name); // removed with the rig's
    let mount = format!("{name}:/d");
    docker(&["create", "--name", &user, "--label", &label, "-v", &mount, &rig.image(), "true"]);
    rig.server.stop_task(&arn, "enough").unwrap();
    rig.task(&arn, TaskStatus::Stopped).await;
    until("the clean-up", LIMIT, async || (rig.containers() == [user.clone()]).then_some(())).await;
    until("the task to be forgotten", LIMIT, async || {
        let tasks = rig.introspect("/v1/tasks").await;
        tasks["Tasks"].as_array().is_none_or(Vec::is_empty).then_some(())
    })
    .await;
    assert_eq!(volumes.names(), [name]);
    assert!(rig.log().contains("volume is in use"), "{}", rig.log());
}

/// Kills the agent while that request is held: the task has one volume and one container, and nothing is left of them.
async fn killed_at(test: &str, line: &'static [&'static str], hold: Hold) {
    let family = unique("kill");
    let volumes = Volumes(format!("ecs-{family}"));
    let proxy = DockerProxy::start();
    let endpoint = proxy.endpoint();
    let environment = [("DOCKER_HOST", endpoint.as_str()), SHORT_WAIT];
    let Some(mut rig) = Rig::start(test, Plan { environment: &environment, ..Plan::default() }).await else { return };
    proxy.hold(line, hold);
    let arn = rig.server.run_task(&mounting(&rig, &family, &task_scoped(), FOREVER)).unwrap();
    proxy.held().await;
    rig.kill();
    rig.start_agent();
    rig.registered().await;
    rig.task(&arn, TaskStatus::Running).await;
    assert_eq!((volumes.names().len(), rig.containers().len()), (1, 1));
    rig.server.stop_task(&arn, "enough").unwrap();
    rig.task(&arn, TaskStatus::Stopped).await;
    gone(&rig, &volumes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_after_the_volume_was_made_before_the_answer() {
    killed_at("volume made", &["POST", "/volumes/create"], Hold::After).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_between_volume_and_container() {
    killed_at("volume there", &["POST", "/containers/create"], Hold::Before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_left_of_a_task_whose_state_was_lost() {
    let family = unique("lost");
    let volumes = Volumes(format!("ecs-{family}"));
    let plan = Plan { environment: &[SHORT_WAIT], ..Plan::default() };
    let Some(mut rig) = Rig::start("volume and lost state", plan).await else { return };
    let arn = rig.server.run_task(&mounting(&rig, &family, &task_scoped(), FOREVER)).unwrap();
    let task = rig.task(&arn, TaskStatus::Running).await;
    let id = task.container("main").unwrap().runtime_id.clone().unwrap();
    assert_eq!(volumes.names().len(), 1);
    rig.kill();
    std::fs::remove_dir_all(rig.directory.path().join("data")).unwrap();
    rig.start_agent();
    rig.registered().await;
    docker(&["kill", "--signal", "TERM", &id]);
    gone(&rig, &volumes).await;
    let group = format!("/ecs/{}", arn.rsplit('/').next().unwrap());
    until("the control group to go", LIMIT, async || control_groups(&group).is_empty().then_some(())).await;
}
