//! Statistics of containers at the task metadata endpoint, compared with what Docker's API says about the same container.

use super::rig::{FOREVER, LIMIT, Plan, Rig, shell};
use ecs_local::TaskStatus;
use ecs_testing::docker::{ENDPOINT, inspect};
use ecs_testing::docker_proxy::{DockerProxy, Hold};
use ecs_testing::wait::until;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::{Duration, Instant};

/// Keeps a processor busy, fills some memory, and has some traffic. Small enough for a memory limit of 64 MiB.
const LOAD: &str = "dd if=/dev/zero of=/dev/shm/x bs=1M count=6 2>/dev/null; cat /shared/* >/dev/null; \
    (while true; do ping -c 1 -W 1 192.0.2.1 >/dev/null; sleep 1; done) & while true; do :; done";

/// One request without a body, and the answer's status and JSON.
fn get(mut stream: impl Read + Write, path: &str) -> (u16, Value) {
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").as_bytes()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    // Docker sends a body of unknown length in chunks, also to such a client.
    let body = body.lines().find(|line| line.starts_with(['{', '"', 'n'])).unwrap();
    (status, serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {text}")))
}

/// The container's own address in the task metadata endpoint, and what is there.
pub(crate) fn ask(id: &str, version: &str, path: &str) -> (u16, Value) {
    let environment = inspect(id)["Config"]["Env"].as_array().unwrap().clone();
    let endpoint = environment.iter().find_map(|entry| {
        entry.as_str()?.strip_prefix("ECS_CONTAINER_METADATA_URI_V4=http://169.254.170.2/v4/").map(str::to_owned)
    });
    get(TcpStream::connect("127.0.0.1:51679").unwrap(), &format!("/{version}/{}{path}", endpoint.unwrap()))
}

/// What Docker says about a container.
fn from_docker(id: &str) -> Value {
    let socket = UnixStream::connect(ENDPOINT.strip_prefix("unix://").unwrap()).unwrap();
    get(socket, &format!("/v1.41/containers/{id}/stats?stream=false&one-shot=true")).1
}

/// The statistics of a container of which there are at least two readings, the last of them after `since`.
async fn statistics(id: &str, version: &str, since: &str) -> Value {
    let read = until("statistics", LIMIT, async || {
        let (status, found) = ask(id, version, "/stats");
        let is_new = found["read"].as_str().is_some_and(|read| read > since);
        let has_two = found["preread"].as_str().is_some_and(|preread| !preread.starts_with("0001"));
        (status == 200 && is_new && has_two).then_some(found)
    });
    read.await
}

/// All numbers and texts in a document, by their paths.
fn leaves(path: &str, value: &Value, found: &mut BTreeMap<String, Value>) {
    match value {
        Value::Object(members) => {
            members.iter().for_each(|(name, value)| leaves(&format!("{path}/{name}"), value, found));
        }
        Value::Array(entries) => {
            entries.iter().enumerate().for_each(|(at, value)| leaves(&format!("{path}/{at}"), value, found));
        }
        other => _ = found.insert(path.to_owned(), other.clone()),
    }
}

/// Compares every member of our answer with two answers of Docker, one from before and one from after it.
fn compare(before: &Value, ours: &Value, after: &Value) {
    let all = [before, ours, after].map(|document| {
        let mut found = BTreeMap::new();
        leaves("", document, &mut found);
        // Docker was asked for a single reading. Only version 4 has the speed of the networks.
        found.retain(|path, _| !path.starts_with("/pre") && !path.starts_with("/network_rate_stats"));
        found
    });
    let [before, ours, after] = &all;
    let paths: [BTreeSet<_>; 2] = [ours, after].map(|found| found.keys().collect());
    assert_eq!(paths[0], paths[1], "the same members");
    let mut wrong = Vec::new();
    for (path, value) in ours {
        let docker = [before, after].map(|found| found.get(path).cloned().unwrap_or_else(|| json!(0)));
        let is_right = match (value.as_f64(), docker[0].as_f64(), docker[1].as_f64()) {
            (Some(value), Some(before), Some(after)) => {
                // What is not a counter may go up and down: a page cache, a process that starts.
                let is_gauge = path.starts_with("/memory_stats") || path.starts_with("/pids_stats");
                let slack = if is_gauge { 4.0 * 1024.0 * 1024.0 } else { 0.0 };
                (before.min(after) - slack..=before.max(after) + slack).contains(&value)
            }
            _ if path == "/read" => docker[0].as_str() <= value.as_str() && value.as_str() <= docker[1].as_str(),
            _ => *value == docker[1],
        };
        if !is_right {
            wrong.push(format!("{path}: {value}, Docker: {} to {}", docker[0], docker[1]));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    assert!(ours.len() > 50, "{}", ours.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_under_load_sees_what_docker_shows() {
    let Some(rig) = Rig::start("statistics", Plan::default()).await else { return };
    let shared = rig.shared("shared");
    // Written past the page cache, so that the container really reads from the disk.
    let out = format!("of={}/file", shared.display());
    let _ = Command::new("dd").args(["if=/dev/zero", &out, "bs=1M", "count=4", "oflag=direct"]).output();
    let mut container = shell("main", &rig.image(), LOAD);
    container["mountPoints"] = json!([{"sourceVolume": "shared", "containerPath": "/shared", "readOnly": true}]);
    (container["memory"], container["cpu"]) = (json!(64), json!(128));
    let definition = json!({"family": "load", "containerDefinitions": [container],
        "volumes": [{"name": "shared", "host": {"sourcePath": shared}}]});
    let arn = rig.server.run_task(&definition).unwrap();
    let task = rig.task(&arn, TaskStatus::Running).await;
    let id = task.container("main").unwrap().runtime_id.clone().unwrap();
    statistics(&id, "v4", "").await; // the container has started to work
    for version in ["v3", "v4"] {
        let before = from_docker(&id);
        let ours = statistics(&id, version, before["read"].as_str().unwrap()).await;
        compare(&before, &ours, &from_docker(&id));
        let used = |document: &Value| document["cpu_stats"]["cpu_usage"]["total_usage"].as_u64().unwrap();
        assert!(used(&ours) > 0 && ours["networks"]["eth0"]["tx_bytes"].as_u64().unwrap() > 0, "{ours}");
        let earlier = ours["precpu_stats"]["cpu_usage"]["total_usage"].as_u64().unwrap();
        assert!(0 < earlier && earlier < used(&ours), "{ours}");
        assert_eq!(ours.get("network_rate_stats").is_some(), version == "v4");
        let (status, all) = ask(&id, version, "/task/stats");
        assert_eq!((status, all.as_object().unwrap().len(), &all[&id]["id"]), (200, 1, &json!(id)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_on_the_hosts_network_has_no_networks() {
    let Some(rig) = Rig::start("statistics without networks", Plan::default()).await else { return };
    for mode in ["host", "none"] {
        let definition = json!({"family": "quiet", "networkMode": mode,
            "containerDefinitions": [shell("main", &rig.image(), FOREVER)]});
        let arn = rig.server.run_task(&definition).unwrap();
        let task = rig.task(&arn, TaskStatus::Running).await;
        let id = task.container("main").unwrap().runtime_id.clone().unwrap();
        let found = statistics(&id, "v4", "").await;
        let names = ["networks", "network_rate_stats"].map(|name| found.get(name));
        assert_eq!(names, [None, None], "{mode}");
        assert_eq!(from_docker(&id).get("networks"), None, "{mode}: as Docker");
        rig.server.stop_task(&arn, "enough").unwrap();
        rig.task(&arn, TaskStatus::Stopped).await;
        assert_eq!(ask(&id, "v4", "/stats").0, 500, "a container that has ended has no statistics");
    }
}

/// Counters go on when the restart policy starts a container again, and when the agent starts again.
#[tokio::test(flavor = "multi_thread")]
async fn counters_go_on_over_restarts() {
    let Some(mut rig) = Rig::start("statistics over restarts", Plan::default()).await else { return };
    let image = rig.image();
    let mut container = shell("again", &image, "timeout -s KILL 3 sh -c 'while true; do :; done'; exit 1");
    container["essential"] = json!(false);
    container["restartPolicy"] = json!({"enabled": true, "restartAttemptPeriod": 1});
    let arn = rig
        .server
        .send_task(json!({"family": "test", "version": "1", "desiredStatus": "RUNNING", "networkMode": "bridge",
            "containers": [shell("main", &image, FOREVER), container]}))
        .unwrap();
    let task = rig.task(&arn, TaskStatus::Running).await;
    let id = task.container("again").unwrap().runtime_id.clone().unwrap();
    let used = |found: &Value| found["cpu_stats"]["cpu_usage"]["total_usage"].as_u64();
    let mut last = 0;
    for round in 0..2 {
        // Docker counts from zero again, and we do not: our counter exceeds Docker's.
        let exceeds = until("a counter that goes on", LIMIT, async || {
            let (docker, ours) = (used(&from_docker(&id)), used(&ask(&id, "v4", "/stats").1));
            if let Some(ours) = ours {
                assert!(ours >= last, "round {round}: {last} has become {ours}");
                last = ours;
            }
            ours.zip(docker).filter(|(ours, docker)| *docker > 0 && *ours > docker + 1_000_000_000)
        });
        exceeds.await;
        if round == 0 {
            let file = rig.directory.path().join("data/statistics.json");
            until("the counters on the disk", LIMIT, async || file.exists().then_some(())).await;
            rig.kill();
            rig.start_agent();
            rig.registered().await;
            // What was used since the file was written is not in it. A run of three seconds uses more than this, also on a busy machine.
            last = 200_000_000;
        }
    }
    let file = rig.directory.path().join("data/statistics.json");
    assert!(file.exists());
    rig.server.stop_task(&arn, "enough").unwrap();
    rig.task(&arn, TaskStatus::Stopped).await;
    until("the file to be removed with the last such container", LIMIT, async || (!file.exists()).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn statistics_can_be_turned_off() {
    let environment = [("ECS_DISABLE_METRICS", "true")];
    let plan = Plan { environment: &environment, ..Plan::default() };
    let Some(rig) = Rig::start("no statistics", plan).await else { return };
    let definition = super::rig::one_container(&rig.image(), FOREVER);
    let arn = rig.server.run_task(&definition).unwrap();
    let task = rig.task(&arn, TaskStatus::Running).await;
    let id = task.container("main").unwrap().runtime_id.clone().unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    let unable = json!(format!("Unable to get container stats for: {id}"));
    assert_eq!(ask(&id, "v3", "/stats"), (400, unable.clone()));
    assert_eq!(ask(&id, "v4", "/stats"), (500, unable));
    assert_eq!(ask(&id, "v4", "/task/stats"), (200, json!({id: {}})));
}

/// A rig whose agent cannot see the control groups, as in a container without their mount.
async fn without_groups(test: &str, plan: Plan<'_>) -> Option<Rig> {
    let mut rig = Rig::without_agent(test, plan).await?;
    let script = rig.directory.path().join("hidden");
    let text = format!(
        "#!/bin/sh\nexec unshare --mount sh -c 'mount -t tmpfs none /sys/fs/cgroup && exec \"$@\"' sh {} \"$@\"\n",
        rig.program.display()
    );
    ecs_testing::program::write(&script, &text);
    let is_allowed = Command::new("unshare").args(["--mount", "true"]).status().is_ok_and(|status| status.success());
    if !is_allowed {
        eprintln!("SKIPPED {test}: no mount namespace can be made");
        return None;
    }
    rig.program = script;
    rig.start_agent();
    rig.registered().await;
    Some(rig)
}

/// An agent that cannot see the control groups asks Docker, and says so once.
#[tokio::test(flavor = "multi_thread")]
async fn docker_is_asked_where_the_counters_cannot_be_read() {
    let Some(rig) = without_groups("statistics from Docker", Plan::default()).await else { return };
    let definition = json!({"family": "load", "containerDefinitions": [
        shell("main", &rig.image(), LOAD), shell("side", &rig.image(), FOREVER)]});
    let arn = rig.server.run_task(&definition).unwrap();
    let task = rig.task(&arn, TaskStatus::Running).await;
    for name in ["main", "side"] {
        let id = task.container(name).unwrap().runtime_id.clone().unwrap();
        let before = from_docker(&id);
        let ours = statistics(&id, "v4", before["read"].as_str().unwrap()).await;
        compare(&before, &ours, &from_docker(&id));
    }
    assert_eq!(rig.log().matches("Docker is asked for those").count(), 1, "{}", rig.log());
}

/// A call about one container that Docker does not answer delays no other container.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_hangs_delays_no_other_container() {
    let proxy = DockerProxy::start();
    let endpoint = proxy.endpoint();
    let environment = [("DOCKER_HOST", endpoint.as_str())];
    let plan = Plan { environment: &environment, ..Plan::default() };
    let Some(rig) = without_groups("hanging statistics", plan).await else { return };
    let definition = json!({"family": "two", "containerDefinitions": [
        shell("main", &rig.image(), FOREVER), shell("side", &rig.image(), FOREVER)]});
    let arn = rig.server.run_task(&definition).unwrap();
    let task = rig.task(&arn, TaskStatus::Running).await;
    let [main, side] = ["main", "side"].map(|name| task.container(name).unwrap().runtime_id.clone().unwrap());
    let first = statistics(&side, "v4", "").await;
    statistics(&main, "v4", "").await;
    let path: &'static str = String::leak(format!("/{main}/stats"));
    proxy.hold(Vec::leak(vec![path]), Hold::Before);
    proxy.held().await;
    let hanging = ask(&main, "v4", "/stats").1;
    let (began, mut last) = (Instant::now(), first);
    for _ in 0..4 {
        last = statistics(&side, "v4", last["read"].as_str().unwrap()).await;
    }
    // The limit of a call is 18 s.
    assert!(began.elapsed() < Duration::from_secs(12), "{:?}", began.elapsed());
    assert_eq!(ask(&main, "v4", "/stats").1["read"], hanging["read"], "the call still hangs");
    let is_asked = |line: &&String| line.contains(&main) && line.contains("/stats");
    let asked = || proxy.seen().iter().filter(is_asked).count();
    let before = asked();
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(asked(), before, "no second call about the same container");
    statistics(&main, "v4", hanging["read"].as_str().unwrap()).await;
}

/// An agent without a free descriptor reads again as soon as it has some, by itself and not from Docker.
#[tokio::test(flavor = "multi_thread")]
async fn too_many_open_files_do_not_change_the_source() {
    let Some(rig) = Rig::start("statistics without descriptors", Plan::default()).await else { return };
    let definition = super::rig::one_container(&rig.image(), FOREVER);
    let arn = rig.server.run_task(&definition).unwrap();
    let task = rig.task(&arn, TaskStatus::Running).await;
    let id = task.container("main").unwrap().runtime_id.clone().unwrap();
    let before = statistics(&id, "v4", "").await;
    let limit = |limit: &str| {
        let pid = rig.pid().to_string();
        let limit = format!("--nofile={limit}:");
        assert!(Command::new("prlimit").args(["--pid", &pid, &limit]).status().unwrap().success());
    };
    // No number below this is free.
    limit("8");
    let error = "the counters of some containers cannot be read now";
    until("the first reading that fails", LIMIT, async || rig.log().contains(error).then_some(())).await;
    tokio::time::sleep(Duration::from_secs(7)).await;
    limit("1024");
    let after = statistics(&id, "v4", before["read"].as_str().unwrap()).await;
    statistics(&id, "v4", after["read"].as_str().unwrap()).await;
    let log = rig.log();
    assert_eq!(log.matches(error).count(), 1, "{log}");
    assert!(
        log.contains("Too many open files") && log.contains("the counters of all containers are read again"),
        "{log}"
    );
    assert!(!log.contains("Docker is asked"), "{log}");
}
