//! CPU, memory and number of processes of a whole task, on a host whose Docker makes control groups of version 1 by itself.
//! `tests/host` does the same with systemd and version 2.

use super::rig::{FOREVER, LIMIT, Plan, Rig, one_container, shell};
use ecs_local::TaskStatus;
use ecs_testing::docker::{control_groups, docker};
use ecs_testing::docker_proxy::{DockerProxy, Hold};
use ecs_testing::wait::until;
use serde_json::json;
use std::path::Path;

const SHORT_WAIT: (&str, &str) = ("ECS_ENGINE_TASK_CLEANUP_WAIT_DURATION", "1s");
const SWITCH: &str = "ECS_ENABLE_TASK_CPU_MEM_LIMIT";

/// Whether the host has control groups of version 1 that Docker makes by itself. Prints a notice if not.
pub(crate) fn has_cgroupfs_1(test: &str) -> bool {
    let kind = docker(&["info", "--format", "{{.CgroupDriver}} {{.CgroupVersion}}"]);
    let is_so = kind == "cgroupfs 1";
    if !is_so {
        eprintln!("SKIPPED {test}: control groups are {kind} here; tests/host looks at those of systemd");
    }
    is_so
}

fn held(task: &str, controller: &str, file: &str) -> String {
    let path = Path::new("/sys/fs/cgroup").join(controller).join("ecs").join(task).join(file);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).trim().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_is_limited_as_a_whole_until_it_is_gone() {
    let plan = Plan {
        environment: &[SHORT_WAIT, ("ECS_TASK_PIDS_LIMIT", "12"), ("ECS_CGROUP_CPU_PERIOD", "20ms"), (SWITCH, "true")],
        ..Plan::default()
    };
    let Some(mut rig) = Rig::start("task limits", plan).await else { return };
    if !has_cgroupfs_1("a_task_is_limited_as_a_whole_until_it_is_gone") {
        return;
    }
    let forks = "for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15; do sleep 600 & done";
    let mut definition = one_container(&rig.image(), &format!("cat /proc/self/cgroup; ({forks}); {FOREVER}"));
    definition["cpu"] = json!("256");
    definition["memory"] = json!("64");
    let arn = rig.server.run_task(&definition).unwrap();
    let task = rig.task(&arn, TaskStatus::Running).await;
    let id = arn.rsplit('/').next().unwrap();
    for (controller, file, value) in [
        ("cpu", "cpu.cfs_period_us", "20000"),
        ("cpu", "cpu.cfs_quota_us", "5000"),
        ("memory", "memory.limit_in_bytes", "67108864"),
        ("memory", "memory.use_hierarchy", "1"),
        ("pids", "pids.max", "12"),
    ] {
        assert_eq!(held(id, controller, file), value, "{file}");
    }
    let runtime_id = task.container("main").unwrap().runtime_id.clone().unwrap();
    let own = format!("/ecs/{id}/{runtime_id}");
    until("what it sees from inside, and too many processes", LIMIT, async || {
        let output = std::process::Command::new("docker").args(["logs", &runtime_id]).output().unwrap();
        let (inside, complaint) =
            (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        let is_below = ["cpu", "memory", "pids"]
            .iter()
            .all(|name| inside.lines().any(|line| line.contains(&format!(":{name}:")) && line.ends_with(&own)));
        (is_below && complaint.contains("can't fork")).then_some(())
    })
    .await;
    // After limits were switched off, the groups of tasks that had them are still removed.
    rig.terminate();
    rig.environment.push((SWITCH.into(), "false".into()));
    rig.start_agent();
    rig.registered().await;
    rig.server.stop_task(&arn, "enough").unwrap();
    rig.task(&arn, TaskStatus::Stopped).await;
    until("the groups to go", LIMIT, async || control_groups(&format!("/ecs/{id}")).is_empty().then_some(())).await;
    assert!(rig.containers().is_empty());
    assert!(Path::new("/sys/fs/cgroup/memory/ecs").exists(), "what all tasks are in stays");
}

/// A reboot removes the control groups of a task whose container was not created yet.
#[tokio::test(flavor = "multi_thread")]
async fn limits_that_a_reboot_took_are_made_again() {
    let proxy = DockerProxy::start();
    let endpoint = proxy.endpoint();
    let environment = [("DOCKER_HOST", endpoint.as_str()), SHORT_WAIT];
    let plan = Plan { environment: &environment, ..Plan::default() };
    let Some(mut rig) = Rig::start("limits after a reboot", plan).await else { return };
    if !has_cgroupfs_1("limits_that_a_reboot_took_are_made_again") {
        return;
    }
    let mut definition = one_container(&rig.image(), FOREVER);
    definition["memory"] = json!("64");
    proxy.hold(&["POST", "/containers/create"], Hold::Before);
    let arn = rig.server.run_task(&definition).unwrap();
    proxy.held().await;
    rig.kill();
    let id = arn.rsplit('/').next().unwrap();
    let groups = control_groups(&format!("/ecs/{id}"));
    assert!(!groups.is_empty(), "they were made before the container");
    groups.iter().for_each(|group| std::fs::remove_dir(group).unwrap());
    rig.start_agent();
    rig.registered().await;
    rig.task(&arn, TaskStatus::Running).await;
    assert_eq!(held(id, "memory", "memory.limit_in_bytes"), "67108864");
    rig.server.stop_task(&arn, "enough").unwrap();
    rig.task(&arn, TaskStatus::Stopped).await;
    until("the groups to go", LIMIT, async || control_groups(&format!("/ecs/{id}")).is_empty().then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_without_limits_has_the_shares_of_its_containers() {
    let Some(rig) = Rig::start("task shares", Plan { environment: &[SHORT_WAIT], ..Plan::default() }).await else {
        return;
    };
    if !has_cgroupfs_1("a_task_without_limits_has_the_shares_of_its_containers") {
        return;
    }
    let mut definition = one_container(&rig.image(), FOREVER);
    definition["containerDefinitions"][0]["cpu"] = json!(100);
    let mut second = definition["containerDefinitions"][0].clone();
    second["name"] = json!("second");
    second["cpu"] = json!(0);
    definition["containerDefinitions"].as_array_mut().unwrap().push(second);
    let arn = rig.server.run_task(&definition).unwrap();
    rig.task(&arn, TaskStatus::Running).await;
    let id = arn.rsplit('/').next().unwrap();
    assert_eq!((held(id, "cpu", "cpu.shares"), held(id, "cpu", "cpu.cfs_quota_us")), ("102".into(), "-1".into()));
    rig.server.stop_task(&arn, "enough").unwrap();
    rig.task(&arn, TaskStatus::Stopped).await;
    until("the groups to go", LIMIT, async || control_groups(&format!("/ecs/{id}")).is_empty().then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_cannot_limit_tasks_says_so_or_refuses() {
    let nowhere = [("ECS_CGROUP_PATH", "/nonexistent/cgroup")];
    let plan = Plan { environment: &nowhere, ..Plan::default() };
    let Some(mut rig) = Rig::without_agent("no limits", plan).await else { return };
    rig.environment.push((SWITCH.into(), "true".into()));
    rig.start_agent();
    assert_eq!(rig.ended().code(), Some(5), "{}", rig.log());
    assert!(rig.log().contains("ECS_ENABLE_TASK_CPU_MEM_LIMIT"), "{}", rig.log());
    rig.environment.pop();
    rig.start_agent();
    rig.registered().await;
    let log = rig.log();
    let line = log.lines().find(|line| line.contains("tasks run without them")).expect("a line in the log");
    assert!(line.contains("the cpu controller is not available in /nonexistent/cgroup"), "which and why: {line}");
    let has_limits = rig.server.read(|state| {
        state.instances()[0].attributes.iter().any(|attribute| attribute.name == "ecs.capability.task-cpu-mem-limit")
    });
    assert!(!has_limits);
    let image = rig.image();
    rig.lives_once(&image, 3, "it runs without").await;
    // ECS does not place a task with limits here, but if one is sent, it runs.
    let arn = format!("arn:aws:ecs:us-west-2:123456789012:task/{}/limited", rig.cluster.name);
    let task = json!({"arn": arn, "family": "test", "version": "1", "desiredStatus": "RUNNING", "cpu": 0.25, "memory": 64,
        "containers": [shell("main", &image, "exit 3")]});
    let arn = rig.server.send_task(task).unwrap();
    let task = rig.task(&arn, TaskStatus::Stopped).await;
    assert_eq!(task.container("main").unwrap().exit_code, Some(3), "{:?}", task.stopped_reason);
}
