//! Containers on a real daemon.

use crate::{connect, request};
use ecs_agent::docker::Notice;
use ecs_core::model::{Health, Observation, OpError, OwnerId, Owners, Protocol, RunState, SecretValues, Span};
use ecs_testing::docker::{Cluster, ENDPOINT, Image, available, docker, engine_major, inspect, unique};
use ecs_testing::wait::until;
use serde_json::{Value, json};
use std::io::{Read as _, Write as _};
use std::time::Duration;
use tokio::sync::mpsc;

const SLEEP: [&str; 3] = ["sh", "-c", "trap 'exit 3' TERM; sleep 600 & wait"];
const LIMIT: Duration = Duration::from_secs(60);

fn golden(name: &str) -> Value {
    let path = format!("{}/tests/golden/{name}", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn image() -> Image {
    Image::make(&format!("{}:1", unique("ecs-test-image")), &["ENV IMAGE_VAR=from-image", "LABEL judge.variant=open"])
}

fn failure_text(error: OpError) -> String {
    match error {
        OpError::Failed(failure) => failure.to_string(),
        OpError::Unknown(failure) => panic!("the outcome should be known: {failure}"),
    }
}

#[tokio::test]
async fn somebody_elses_container_under_our_name_is_not_removed() {
    if !available("somebody_elses_container_under_our_name_is_not_removed") {
        return;
    }
    let (image, cluster) = (image(), Cluster::new());
    let edge = connect(&cluster.name).await;
    let name = unique("ecs-test-foreign");
    let label = format!("com.amazonaws.ecs.cluster={}", cluster.name);
    docker(&["create", "--name", &name, "--label", &label, &image.reference, "true"]);
    edge.remove(&name).await.unwrap();
    assert_eq!(inspect(&name)["Name"], format!("/{name}"), "it has no task");
}

#[tokio::test]
async fn another_agents_containers_are_left_alone() {
    if !available("another_agents_containers_are_left_alone") {
        return;
    }
    let (image, cluster) = (image(), Cluster::new());
    let owners = |own: &str, earlier: &[&str]| Owners {
        own: own.into(),
        earlier: earlier.iter().map(|id| OwnerId::from(*id)).collect(),
    };
    let before = connect(&cluster.name).await;
    let us = connect(&cluster.name).await.with_owner(owners("us", &[]), "8:1 /us");
    let them = connect(&cluster.name).await.with_owner(owners("them", &[]), "8:1 /them");
    let heirs = connect(&cluster.name).await.with_owner(owners("heirs", &["them"]), "8:1 /them");
    let request = |name: &str| request(&cluster.name, name, &image.reference, &SLEEP, json!({}));
    let (sender, mut notices) = mpsc::channel(64);
    let watched = connect(&cluster.name).await.with_owner(owners("us", &[]), "8:1 /us");
    let watch = watched.watch(sender);
    let work = async {
        assert!(matches!(notices.recv().await, Some(Notice::EventsMissed)));
        let theirs = request("theirs");
        them.create(&theirs, &SecretValues::default()).await.unwrap();
        let name = theirs.runtime_name.as_str();
        assert_eq!(us.inspect(name).await.unwrap(), None);
        assert!(
            failure_text(us.create(&theirs, &SecretValues::default()).await.unwrap_err()).contains("already in use")
        );
        us.remove(name).await.unwrap();
        assert!(them.inspect(name).await.unwrap().is_some(), "it was not removed");
        assert!(heirs.inspect(name).await.unwrap().is_some(), "they have taken over its identity");
        let names = async |edge: &ecs_agent::docker::Docker| {
            let mut names: Vec<String> =
                edge.inventory().await.unwrap().into_iter().map(|seen| seen.container.to_string()).collect();
            names.sort();
            names
        };
        assert!(names(&us).await.is_empty());
        before.create(&request("unmarked"), &SecretValues::default()).await.unwrap();
        us.create(&request("ours"), &SecretValues::default()).await.unwrap();
        assert_eq!(names(&us).await, ["ours", "unmarked"]);
        assert_eq!(names(&them).await, ["theirs", "unmarked"]);
        let marks: Vec<_> = us
            .owner_marks()
            .await
            .unwrap()
            .into_iter()
            .map(|mark| (mark.id.to_string(), mark.data_directory))
            .collect();
        assert_eq!(marks, [("them".to_owned(), "8:1 /them".to_owned()), ("us".to_owned(), "8:1 /us".to_owned())]);
        // Events arrive in order: when the last container is seen, those of the other agents would have been seen as well.
        let mut seen = Vec::new();
        while !seen.contains(&"ours".to_owned()) {
            match notices.recv().await.unwrap() {
                Notice::Seen(observation) => seen.push(observation.container.to_string()),
                Notice::EventsMissed | Notice::Removed { .. } => {}
            }
        }
        assert!(!seen.contains(&"theirs".to_owned()), "{seen:?}");
    };
    tokio::select! {
        () = watch => panic!("it watches forever"),
        done = tokio::time::timeout(LIMIT, work) => done.unwrap(),
    }
    let listed = us.list_images(true, false).await.unwrap().containers;
    let owner = |name: &str| {
        let found = listed.iter().find(|container| container.name == request(name).runtime_name).unwrap();
        found.owner.as_ref().map(|id| id.to_string())
    };
    assert_eq!(["theirs", "ours", "unmarked"].map(owner), [Some("them".to_owned()), Some("us".to_owned()), None]);
    assert!(!us.engine_id().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_container_from_create_to_remove() {
    if !available("a_container_from_create_to_remove") {
        return;
    }
    let (image, cluster) = (image(), Cluster::new());
    let edge = connect(&cluster.name).await;
    edge.ping().await.unwrap();
    assert!(edge.api_versions().iter().any(|version| version == "1.24"));
    assert!(!edge.server_version().is_empty());
    let web = request(
        &cluster.name,
        "web",
        &image.reference,
        &["httpd", "-f", "-p", "80", "-h", "/www"],
        json!({
            "cpu": 128, "memory": 64, "environment": {"A": "1", "SHARED": "definition"},
            "ports": [
                {"container_port": 80, "host_port": 0, "protocol": "tcp"},
                {"container_port": 81, "host_port": 0, "protocol": "udp"},
            ],
            "mounts": [{"host_path": "/srv", "container_path": "/host", "read_only": true}],
            "health_check": true,
            "engine_settings": {
                "config": r#"{"Labels": {"my": "label"}, "User": "root",
                    "Healthcheck": {"Test": ["CMD-SHELL", "true"], "Interval": 1000000000, "Timeout": 1000000000, "Retries": 2}}"#,
                "host_config": r#"{"Ulimits": [{"Name": "nofile", "Soft": 1024, "Hard": 2048}], "CapAdd": ["NET_ADMIN"],
                    "Tmpfs": {"/t": "size=1m"}, "LogConfig": {"Type": "json-file", "Config": {"max-size": "1m"}}}"#,
            },
        }),
    );

    let created = edge.create(&web, &SecretValues::default()).await.unwrap();
    assert_eq!((created.state, created.exit_code, &created.runtime_name), (RunState::Created, None, &web.runtime_name));
    assert_eq!((&created.task, &created.container), (&web.task, &web.spec.name));
    assert!(created.created_at.is_some() && created.started_at.is_none());
    let again = edge.create(&web, &SecretValues::default()).await.unwrap();
    assert_eq!(again.runtime_id, created.runtime_id, "creating twice finds the first container");
    compare_with_the_recorded_container(&inspect(created.runtime_id.as_str()), &cluster.name);

    let started = edge.start(&web.runtime_name).await.unwrap();
    assert_eq!((started.state, started.exit_code), (RunState::Running, None));
    assert_eq!(
        edge.start(created.runtime_id.as_str()).await.unwrap().state,
        RunState::Running,
        "starting twice is fine"
    );
    let port = published(&started, 80, Protocol::Tcp);
    assert!((42_000..=48_999).contains(&published(&started, 81, Protocol::Udp)));
    assert!(started.mounts.iter().any(|mount| mount.source == "/srv" && mount.destination == "/host"));
    until("the page of the container", LIMIT, async || fetch(port).filter(|page| page.contains("hello"))).await;
    let healthy = async || edge.inspect(&web.runtime_name).await.unwrap().filter(|seen| seen.health == Health::Healthy);
    until("the health check", LIMIT, healthy).await;

    assert_eq!(edge.inventory().await.unwrap().len(), 1);
    let stopped = edge.stop(&web.runtime_name, Span::secs(1)).await.unwrap().unwrap();
    assert_eq!((stopped.state, stopped.exit_code), (RunState::Exited, Some(137)), "httpd ignores SIGTERM as pid 1");
    assert!(edge.stop(&web.runtime_name, Span::secs(1)).await.unwrap().is_some(), "stopping twice is fine");
    edge.remove(&web.runtime_name).await.unwrap();
    edge.remove(&web.runtime_name).await.unwrap();
    assert_eq!(edge.inspect(&web.runtime_name).await.unwrap(), None);
    assert_eq!(edge.stop(&web.runtime_name, Span::secs(1)).await.unwrap(), None);
}

fn published(seen: &Observation, container_port: u16, protocol: Protocol) -> u16 {
    let is_port = |b: &&ecs_core::model::PortBinding| b.container_port == container_port && b.protocol == protocol;
    seen.bindings.iter().find(is_port).unwrap().host_port
}

fn fetch(port: u16) -> Option<String> {
    let mut socket = std::net::TcpStream::connect(("127.0.0.1", port)).ok()?;
    socket.write_all(b"GET /index.html HTTP/1.0\r\n\r\n").ok()?;
    let mut page = String::new();
    socket.read_to_string(&mut page).ok()?;
    Some(page)
}

/// Checks that the request to the engine equals the Go agent's, except for features that this agent does not have (yet).
fn compare_with_the_recorded_container(made: &Value, cluster: &str) {
    let golden = golden("docker_inspect_web.json");
    for (section, own) in [
        // Members whose values are specific to the test; they are checked below or in the unit tests of the body.
        ("Config", ["Hostname", "Image", "Labels", "Env"].as_slice()),
        // This test has no task cgroup, other volumes, and other host ports.
        ("HostConfig", ["CgroupParent", "Binds", "PortBindings"].as_slice()),
    ] {
        for (key, wanted) in golden[section].as_object().unwrap().iter().filter(|(key, _)| !own.contains(&key.as_str()))
        {
            // An absent value may be null or an empty list; Docker returns the form that it was sent.
            let nothing = |value: &Value| value.is_null() || value.as_array().is_some_and(Vec::is_empty);
            let found = &made[section][key];
            // Newer engines have no limit of kernel memory.
            let is_gone = key.starts_with("KernelMemory") && found.is_null() && *wanted == 0;
            // Newer engines give the default network and restart policy their names, and mask more paths.
            let has_all = |found: &Value| {
                let members = |list: &Value| list.as_array().cloned().unwrap_or_default();
                members(wanted).iter().all(|path| members(found).contains(path))
            };
            let is_renamed = key == "NetworkMode" && *wanted == "default" && found == "bridge"
                || key == "RestartPolicy" && wanted["Name"] == "" && found["Name"] == "no";
            // The default of the oldest API version that the engine speaks.
            let is_renamed = is_renamed || key == "IpcMode" && *wanted == "shareable" && found == "private";
            let is_same = found == wanted
                || is_renamed
                || nothing(found) && nothing(wanted)
                || key == "MaskedPaths" && has_all(found);
            assert!(is_same || is_gone, "{section}.{key}: {found} is not {wanted}");
        }
    }
    assert_eq!(made["HostConfig"]["Binds"], json!(["/srv:/host:ro"]));
    let labels = &made["Config"]["Labels"];
    assert_eq!(labels["com.amazonaws.ecs.cluster"], cluster);
    assert_eq!((&labels["my"], &labels["judge.variant"]), (&json!("label"), &json!("open")));
    let env: Vec<_> = made["Config"]["Env"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    for line in
        ["AWS_REGION=us-west-2", "ECS_AGENT_URI=http://169.254.170.2/api/endpoint", "IMAGE_VAR=from-image", "A=1"]
    {
        assert!(env.contains(&line), "{line} in {env:?}");
    }
}

#[tokio::test]
async fn an_image_with_a_region_keeps_it() {
    if !available("an_image_with_a_region_keeps_it") {
        return;
    }
    let image = Image::make(&format!("{}:1", unique("ecs-test-image")), &["ENV AWS_DEFAULT_REGION=eu-north-1"]);
    let cluster = Cluster::new();
    let edge = connect(&cluster.name).await;
    let created = edge
        .create(&request(&cluster.name, "main", &image.reference, &SLEEP, json!({})), &SecretValues::default())
        .await
        .unwrap();
    let env = inspect(created.runtime_id.as_str())["Config"]["Env"].to_string();
    assert!(env.contains("AWS_DEFAULT_REGION=eu-north-1") && !env.contains("us-west-2"), "{env}");
}

#[tokio::test]
async fn a_linked_container_is_reached_by_its_alias() {
    if !available("a_linked_container_is_reached_by_its_alias") {
        return;
    }
    // With `icc=false`, a link leads to exposed ports only.
    let image = Image::make(&format!("{}:1", unique("ecs-test-image")), &["EXPOSE 80"]);
    let cluster = Cluster::new();
    let edge = connect(&cluster.name).await;
    let web = request(&cluster.name, "web", &image.reference, &["httpd", "-f", "-h", "/www"], json!({}));
    let script = "for i in 1 2 3 4 5 6 7 8 9; do wget -q -O - http://page/index.html && exit 5; sleep 1; done; exit 6";
    let mut side = request(&cluster.name, "side", &image.reference, &["sh", "-c", script], json!({}));
    side.links = vec![(web.runtime_name.clone(), "page".to_owned())];
    edge.create(&web, &SecretValues::default()).await.unwrap();
    edge.start(&web.runtime_name).await.unwrap();
    edge.create(&side, &SecretValues::default()).await.unwrap();
    edge.start(&side.runtime_name).await.unwrap();
    let ended = async || edge.inspect(&side.runtime_name).await.unwrap().filter(|seen| seen.state == RunState::Exited);
    assert_eq!(until("the linked container", LIMIT, ended).await.exit_code, Some(5));
}

#[tokio::test]
async fn failures_say_what_the_go_agent_says() {
    if !available("failures_say_what_the_go_agent_says") {
        return;
    }
    let (image, cluster) = (image(), Cluster::new());
    let edge = connect(&cluster.name).await;

    let missing = request(&cluster.name, "missing", "ecs-test-no-such-image:1", &SLEEP, json!({}));
    let text = "CannotCreateContainerError: Error response from daemon: No such image: ecs-test-no-such-image:1";
    assert_eq!(failure_text(edge.create(&missing, &SecretValues::default()).await.unwrap_err()), text);

    let broken = request(&cluster.name, "broken", &image.reference, &["/no/such/binary"], json!({}));
    edge.create(&broken, &SecretValues::default()).await.unwrap();
    let recorded = &golden("submit_task_stopped_start_failure.json")[1]["containers"][0]["reason"];
    // Newer engines name more steps, and leave out the kind of the error.
    let text = failure_text(edge.start(&broken.runtime_name).await.unwrap_err());
    let steps = ["failed to create task for container: ", "error during container init: "];
    let text = steps.iter().fold(text, |text, step| text.replace(step, ""));
    let without_kind = |text: &str| text.trim_end_matches(": unknown").to_owned();
    assert_eq!(without_kind(&text), without_kind(recorded.as_str().unwrap()));
    let seen = edge.inspect(&broken.runtime_name).await.unwrap().unwrap();
    assert_eq!((seen.state, seen.exit_code), (RunState::Exited, None));
    assert!(seen.error.unwrap().to_string().starts_with("DockerStateError: "));

    let text = failure_text(edge.start("ecs-test-no-such-container").await.unwrap_err());
    let wanted = "CannotStartContainerError: Error response from daemon: No such container: ecs-test-no-such-container";
    assert_eq!(text, wanted);

    // The name belongs to another task's container, which must be left alone.
    let mut thief = broken.clone();
    thief.task = "arn:aws:ecs:us-west-2:123456789012:task/other/2".into();
    let text = failure_text(edge.create(&thief, &SecretValues::default()).await.unwrap_err());
    assert!(text.starts_with("CannotCreateContainerError: Error response from daemon: Conflict."), "{text}");
}

#[tokio::test]
async fn an_out_of_memory_kill_is_reported() {
    if !available("an_out_of_memory_kill_is_reported") {
        return;
    }
    let (image, cluster) = (image(), Cluster::new());
    let edge = connect(&cluster.name).await;
    // Doubles a variable until the limit of 32 MiB strikes. (With 8, newer engines fail at times to start it.)
    let hog = ["sh", "-c", "x=aaaaaaaaaaaaaaaa; while true; do x=$x$x; done"];
    let hog = request(&cluster.name, "hog", &image.reference, &hog, json!({"memory": 32}));
    edge.create(&hog, &SecretValues::default()).await.unwrap();
    edge.start(&hog.runtime_name).await.unwrap();
    let ended = async || edge.inspect(&hog.runtime_name).await.unwrap().filter(|seen| seen.state == RunState::Exited);
    let seen = until("the kill", LIMIT, ended).await;
    assert_eq!(seen.exit_code, Some(137));
    assert_eq!(seen.error.unwrap().to_string(), "OutOfMemoryError: Container killed due to memory usage");
}

#[tokio::test]
async fn events_bring_create_start_health_die_and_destroy() {
    if !available("events_bring_create_start_health_die_and_destroy") {
        return;
    }
    let (image, cluster, other) = (image(), Cluster::new(), Cluster::new());
    // A second client watches, since the events of a client's own operations bring no notice.
    let (edge, watcher) = (connect(&cluster.name).await, connect(&cluster.name).await);
    let (sender, mut notices) = mpsc::channel(16);
    let events = watcher.watch(sender);
    let story = async {
        assert_eq!(next(&mut notices).await, Notice::EventsMissed, "an opened stream asks for an inventory");
        let foreign = connect(&other.name).await;
        foreign
            .create(&request(&other.name, "foreign", &image.reference, &SLEEP, json!({})), &SecretValues::default())
            .await
            .unwrap();

        let check = r#"{"Healthcheck": {"Test": ["CMD-SHELL", "[ ! -e /sick ] || { echo nope; exit 1; }"],
            "Interval": 200000000, "Timeout": 5000000000, "Retries": 1}}"#;
        let more = json!({"health_check": true, "engine_settings": {"config": check}});
        let main = request(&cluster.name, "main", &image.reference, &SLEEP, more);
        let id = edge.create(&main, &SecretValues::default()).await.unwrap().runtime_id;
        seen_until(&mut notices, |seen| seen.state == RunState::Created && seen.runtime_id == id).await;
        edge.start(&main.runtime_name).await.unwrap();
        seen_until(&mut notices, |seen| seen.state == RunState::Running).await;
        seen_until(&mut notices, |seen| seen.health == Health::Healthy).await;
        docker(&["exec", id.as_str(), "sh", "-c", ": > /sick"]);
        let sick = seen_until(&mut notices, |seen| seen.health == Health::Unhealthy).await;
        assert_eq!(sick.health_output, "nope");
        docker(&["kill", "--signal", "TERM", id.as_str()]);
        let died = seen_until(&mut notices, |seen| seen.state == RunState::Exited).await;
        assert_eq!(died.exit_code, Some(3));
        edge.remove(&main.runtime_name).await.unwrap();
        loop {
            match next(&mut notices).await {
                Notice::Removed { task, container, runtime_id, .. } => {
                    assert_eq!((task, container, runtime_id), (main.task, main.spec.name, id));
                    break;
                }
                Notice::Seen(seen) => assert_eq!(seen.runtime_id, id, "only containers of this cluster"),
                Notice::EventsMissed => {}
            }
        }
        drop(notices);
    };
    tokio::time::timeout(LIMIT, async { tokio::join!(events, story) })
        .await
        .expect("the stream ends with its receiver");
}

#[tokio::test]
async fn events_of_own_operations_bring_no_notice() {
    if !available("events_of_own_operations_bring_no_notice") {
        return;
    }
    let (image, cluster) = (image(), Cluster::new());
    let edge = connect(&cluster.name).await;
    let (sender, mut notices) = mpsc::channel(16);
    let events = edge.watch(sender);
    let story = async {
        assert_eq!(next(&mut notices).await, Notice::EventsMissed, "an opened stream asks for an inventory");
        let main = request(&cluster.name, "main", &image.reference, &SLEEP, json!({}));
        assert_eq!(edge.create(&main, &SecretValues::default()).await.unwrap().state, RunState::Created);
        assert_eq!(edge.start(&main.runtime_name).await.unwrap().state, RunState::Running);
        until("the container to handle SIGTERM", LIMIT, async || handles_sigterm(&main.runtime_name).then_some(()))
            .await;
        docker(&["kill", "--signal", "TERM", &main.runtime_name]);
        let Notice::Seen(first) = next(&mut notices).await else { panic!("an event brings a notice") };
        assert_eq!(
            (first.state, first.exit_code),
            (RunState::Exited, Some(3)),
            "neither the create nor the start brings a notice"
        );
        docker(&["start", &main.runtime_name]);
        seen_until(&mut notices, |seen| seen.state == RunState::Running).await;
        drop(notices);
    };
    tokio::time::timeout(LIMIT, async { tokio::join!(events, story) })
        .await
        .expect("the stream ends with its receiver");
}

/// Whether the first process of the container has set its trap already: before, the kernel spares it the signal.
fn handles_sigterm(container: &str) -> bool {
    const SIGTERM: u64 = 1 << (15 - 1);
    let status =
        std::fs::read_to_string(format!("/proc/{}/status", inspect(container)["State"]["Pid"])).unwrap_or_default();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    caught.is_some_and(|mask| u64::from_str_radix(mask.trim(), 16).is_ok_and(|mask| mask & SIGTERM != 0))
}

async fn next(notices: &mut mpsc::Receiver<Notice>) -> Notice {
    tokio::time::timeout(LIMIT, notices.recv()).await.expect("an event in time").expect("the stream goes on")
}

async fn seen_until(notices: &mut mpsc::Receiver<Notice>, wanted: impl Fn(&Observation) -> bool) -> Observation {
    loop {
        if let Notice::Seen(seen) = next(notices).await {
            assert_eq!(seen.container.as_str(), "main", "only containers of this cluster");
            if wanted(&seen) {
                return *seen;
            }
        }
    }
}

#[tokio::test]
async fn host_ports_are_chosen_once_and_too_few_are_an_error() {
    if !available("host_ports_are_chosen_once_and_too_few_are_an_error") {
        return;
    }
    let (image, cluster) = (image(), Cluster::new());
    let mut settings = crate::settings(ecs_testing::docker::ENDPOINT, &cluster.name);
    // Below the ports of outgoing connections, of which one might have one of these.
    settings.dynamic_ports = 31_900..=31_905;
    let edge = ecs_agent::docker::Docker::connect(settings).await.unwrap();
    let single = |port, host_port| json!({"container_port": port, "host_port": host_port, "protocol": "tcp"});
    let range = |first, last| json!({"first": first, "last": last, "protocol": "tcp"});
    let ports = |ports: Value, ranges: Value| json!({"ports": ports, "port_ranges": ranges});
    let full = ports(json!([single(1, 0), single(2, 31_901)]), json!([range(10, 11), range(20, 21)]));
    // All ports of the range are needed. The second time the search starts over, and the ports are free, as nothing was started.
    for name in ["first", "second"] {
        let full = request(&cluster.name, name, &image.reference, &SLEEP, full.clone());
        edge.create(&full, &SecretValues::default()).await.unwrap();
        let bindings = &inspect(&full.runtime_name)["HostConfig"]["PortBindings"];
        let bound =
            bindings.as_object().unwrap().values().map(|bindings| bindings[0]["HostPort"].as_str().unwrap().to_owned());
        let bound: std::collections::BTreeSet<String> = bound.collect();
        assert_eq!(bound.len(), 6, "{bindings}");
        assert_eq!(bindings["2/tcp"][0]["HostPort"], "31901");
        for first in [10, 20] {
            let host = |port: i32| bindings[format!("{port}/tcp")][0]["HostPort"].as_str().unwrap().parse::<u16>();
            assert_eq!(host(first).unwrap() + 1, host(first + 1).unwrap(), "{bindings}");
        }
    }
    for (more, text) in [
        (ports(json!([]), json!([range(10, 16)])), "7 contiguous host ports are unavailable"),
        (ports(json!(vec![single(1, 0); 7]), json!([])), "a host port is unavailable"),
    ] {
        let greedy = request(&cluster.name, "greedy", &image.reference, &SLEEP, more);
        let wanted = format!("HostConfigError: error retrieving docker port map: {text}");
        assert_eq!(failure_text(edge.create(&greedy, &SecretValues::default()).await.unwrap_err()), wanted);
    }
}

/// Newer engines cancel a start whose caller has left, such as an agent that was killed, and keep an error about it. The container
/// is as good as new, and the next agent starts it.
#[tokio::test]
async fn a_start_whose_caller_left_is_no_failure_of_the_container() {
    if !available("a_start_whose_caller_left_is_no_failure_of_the_container") {
        return;
    }
    let (image, cluster) = (image(), Cluster::new());
    let edge = connect(&cluster.name).await;
    let mut cancelled = 0;
    for pause in (0..100).step_by(20) {
        let left = request(&cluster.name, &format!("left-{pause}"), &image.reference, &SLEEP, json!({}));
        edge.create(&left, &SecretValues::default()).await.unwrap();
        let mut caller = std::os::unix::net::UnixStream::connect(ENDPOINT.trim_start_matches("unix://")).unwrap();
        let start = format!(
            "POST /containers/{}/start HTTP/1.1\r\nHost: docker\r\nContent-Length: 0\r\n\r\n",
            left.runtime_name
        );
        caller.write_all(start.as_bytes()).unwrap();
        tokio::time::sleep(Duration::from_millis(pause)).await;
        drop(caller);
        let settled = async || {
            let state = inspect(&left.runtime_name)["State"].take();
            (state["Running"] == true || state["Error"] != "").then_some(state)
        };
        let state = until("the end of the start", LIMIT, settled).await;
        let seen = edge.inspect(&left.runtime_name).await.unwrap().unwrap();
        let wanted = if state["Running"] == true { RunState::Running } else { RunState::Created };
        assert_eq!((seen.state, seen.error), (wanted, None), "after {pause} ms: {state}");
        let seen = edge.start(&left.runtime_name).await.unwrap();
        assert_eq!((seen.state, seen.error), (RunState::Running, None), "after {pause} ms");
        cancelled += usize::from(state["Error"] != "");
    }
    // Docker 20.10 and others go on with a start whose caller has left.
    assert!(cancelled > 0 || engine_major() < 26, "no start was cancelled, so nothing was tested");
}
