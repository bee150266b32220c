//! Tasks run as their definitions say: ports, links, volumes, process settings, limits, stop timeouts; many tasks at once.

use super::rig::{FOREVER, LIMIT, Plan, Rig, one_container, shell};
use ecs_local::TaskStatus;
use ecs_testing::docker::inspect;
use ecs_testing::docker_proxy::{DockerProxy, Hold};
use ecs_testing::wait::until;
use serde_json::{Value, json};
use std::net::TcpListener;

fn runtime_id(rig: &Rig, arn: &str, name: &str) -> String {
    rig.server.read(|state| state.task(arn).unwrap().container(name).unwrap().runtime_id.clone().unwrap())
}

/// Ports are published, reported and reachable; links resolve.
#[tokio::test(flavor = "multi_thread")]
async fn on_the_hosts_network_ports_and_links_work() {
    let plan = Plan { environment: &[("ECS_DYNAMIC_HOST_PORT_RANGE", "28300-28399")], ..Plan::default() };
    let Some(rig) = Rig::start("ports", plan).await else { return };
    let image = rig.image();
    let free = TcpListener::bind("0.0.0.0:0").unwrap().local_addr().unwrap().port();
    let out = rig.shared("shared");
    let mut web =
        json!({"name": "web", "image": image, "memory": 32, "command": ["httpd", "-f", "-p", "80", "-h", "/www"]});
    web["portMappings"] = json!([{"containerPort": 80, "hostPort": free}, {"containerPort": 81}]);
    web["stopTimeout"] = json!(2);
    let fetch = "until wget -q -O /shared/page http://site/index.html; do sleep 0.1; done";
    let mut client = shell("client", &image, &format!("{fetch}; {FOREVER}"));
    client["links"] = json!(["web:site"]);
    client["mountPoints"] = json!([{"sourceVolume": "out", "containerPath": "/shared"}]);
    let mut second = web.clone();
    second["portMappings"] = json!([{"containerPort": 80}]);
    let definition = json!({"family": "test", "containerDefinitions": [web, client],
        "volumes": [{"name": "out", "host": {"sourcePath": out}}]});
    let arn = rig.server.run_task(&definition).unwrap();
    let dynamic = rig.server.run_task(&json!({"family": "dynamic", "containerDefinitions": [second]})).unwrap();
    let task = rig.task(&arn, TaskStatus::Running).await;
    let bindings = &task.container("web").unwrap().network_bindings;
    let expected = json!({"bindIP": "0.0.0.0", "containerPort": 80, "hostPort": free, "protocol": "tcp"});
    assert!(bindings.contains(&expected), "{bindings:?}");
    assert_eq!(bindings.len(), 2, "{bindings:?}");
    let task = rig.task(&dynamic, TaskStatus::Running).await;
    let chosen = task.container("web").unwrap().network_bindings[0]["hostPort"].as_u64().unwrap();
    assert!((28_300..=28_399).contains(&chosen), "{chosen}");
    for port in [u64::from(free), chosen] {
        let page =
            until("the page", LIMIT, async || reqwest::get(format!("http://127.0.0.1:{port}/")).await.ok()).await;
        assert_eq!(page.text().await.unwrap(), "hello\n");
    }
    until("the link", LIMIT, async || {
        (std::fs::read_to_string(out.join("page")).unwrap_or_default() == "hello\n").then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_gets_what_its_definition_says() {
    let Some(rig) = Rig::start("settings", Plan::default()).await else { return };
    let (out, given) = (rig.shared("out"), rig.shared("given"));
    std::fs::write(given.join("file"), "given\n").unwrap();
    // The image's own settings would fail, write elsewhere or show in the output.
    let own = [
        "ENV A=image B=image",
        "USER 99",
        "WORKDIR /www",
        "ENTRYPOINT [\"false\"]",
        "CMD [\"image\"]",
        "LABEL my.label=image",
    ];
    let image = rig.registry.push_busybox("test/opinionated", &own);
    let script = "exec > /out/$1; busybox id -u; pwd; echo \"$A\"; echo \"$B\"; cat /given/file; echo x 2>/dev/null > /given/new || echo refused";
    let mut main = json!({
        "name": "main", "image": image, "cpu": 200, "memory": 48, "memoryReservation": 16, "user": "1234",
        "workingDirectory": "/tmp", "entryPoint": ["sh", "-c"], "command": [script, "sh", "defined"],
        "environment": [{"name": "A", "value": "a value, with = and \"quotes\""}],
        "dockerLabels": {"my.label": "mine"},
    });
    main["mountPoints"] = json!([
        {"sourceVolume": "out", "containerPath": "/out"},
        {"sourceVolume": "given", "containerPath": "/given", "readOnly": true},
    ]);
    let definition = json!({
        "family": "settings", "containerDefinitions": [main],
        "volumes": [{"name": "out", "host": {"sourcePath": out}}, {"name": "given", "host": {"sourcePath": given}}],
    });
    let arn = rig.server.run_task(&definition).unwrap();
    let overrides = json!({"containerOverrides": [{"name": "main", "command": [script, "sh", "overridden"]}]});
    let run = json!({"cluster": rig.cluster.name, "taskDefinition": "settings", "overrides": overrides});
    let answer = rig.server.call("RunTask", &run).unwrap();
    let overridden = answer["tasks"][0]["taskArn"].as_str().unwrap();
    for (arn, file) in [(arn.as_str(), "defined"), (overridden, "overridden")] {
        let task = rig.task(arn, TaskStatus::Stopped).await;
        assert_eq!(task.container("main").unwrap().exit_code, Some(0), "{task:?}");
        let written = std::fs::read_to_string(out.join(file)).unwrap();
        assert_eq!(written, "1234\n/tmp\na value, with = and \"quotes\"\nimage\ngiven\nrefused\n");
    }
    assert!(!given.join("new").exists());
    let container = inspect(&runtime_id(&rig, &arn, "main"));
    let config = &container["Config"];
    assert_eq!(config["Labels"]["my.label"], "mine", "over the image's");
    assert_eq!(config["Entrypoint"], json!(["sh", "-c"]), "instead of the image's");
    assert_eq!(config["Cmd"], json!([script, "sh", "defined"]), "instead of the image's");
    let host = &container["HostConfig"];
    assert_eq!([&host["CpuShares"], &host["Memory"], &host["MemoryReservation"]], [200, 48 << 20, 16 << 20]);
}

/// The container is killed after its own stop timeout, or else after the operator's.
#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_ignores_sigterm_is_killed() {
    let plan = Plan { environment: &[("ECS_CONTAINER_STOP_TIMEOUT", "5s")], ..Plan::default() };
    let Some(rig) = Rig::start("stop timeout", plan).await else { return };
    let image = rig.image();
    // The container's own timeout, or the operator's if it has none. The default is thirty seconds.
    for (own, grace) in [(json!(2), 2.0), (Value::Null, 5.0)] {
        let mut definition = one_container(&image, "trap '' TERM; while :; do sleep 1; done");
        if own.is_number() {
            definition["containerDefinitions"][0]["stopTimeout"] = own.clone();
        }
        let arn = rig.server.run_task(&definition).unwrap();
        rig.task(&arn, TaskStatus::Running).await;
        let asked = std::time::Instant::now();
        rig.server.stop_task(&arn, "enough").unwrap();
        let task = rig.task(&arn, TaskStatus::Stopped).await;
        assert_eq!(task.container("main").unwrap().exit_code, Some(137));
        let took = asked.elapsed().as_secs_f64();
        assert!((grace..28.0).contains(&took), "{own}: {took} s");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_stopped_during_its_pull_makes_no_container() {
    let proxy = DockerProxy::start();
    let endpoint = proxy.endpoint();
    let environment = [("DOCKER_HOST", endpoint.as_str())];
    let plan = Plan { environment: &environment, ..Plan::default() };
    let Some(rig) = Rig::start("stop during pull", plan).await else { return };
    proxy.hold(&["POST", "/images/create"], Hold::Before);
    let arn = rig.server.run_task(&one_container(&rig.image(), FOREVER)).unwrap();
    proxy.held().await;
    rig.server.stop_task(&arn, "enough").unwrap();
    let task = rig.task(&arn, TaskStatus::Stopped).await;
    assert_eq!(task.container("main").unwrap().runtime_id, None);
    assert!(rig.containers().is_empty());
    assert!(!rig.statuses(&arn).contains(&"RUNNING".to_owned()), "{:?}", rig.statuses(&arn));
}

/// Features of later versions: the member of a task that uses one, its value, the text of the refusal, and the missing
/// attribute.
fn later() -> Vec<(&'static str, Value, &'static str, &'static str)> {
    let volume = json!([{"name": "v", "type": "fsxWindowsFileServer"}]);
    let attachment = json!([{"attachmentType": "amazonebs"}]);
    vec![
        ("/attachments", attachment, "a volume of EBS", "ecs.capability.storage.ebs-task-volume-attach"),
        (
            "/networkMode",
            json!("awsvpc"),
            "the network mode awsvpc, which this instance does not offer (the agent's log says why),",
            "ecs.capability.task-eni",
        ),
        ("/volumes", volume, "a volume of FSx for Windows", "ecs.capability.fsxWindowsFileServer"),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unsupported_task_is_refused_and_not_advertised() {
    let Some(rig) = Rig::start("refused", Plan::default()).await else { return };
    let container = shell("main", &rig.image(), "true");
    for (path, value, what, attribute) in later() {
        let mut task = json!({"family": "test", "version": "1", "desiredStatus": "RUNNING", "volumes": [], "attachments": [],
            "networkMode": "bridge", "containers": [container]});
        *task.pointer_mut(path).unwrap() = value;
        let arn = rig.server.send_task(task).unwrap();
        let task = rig.task(&arn, TaskStatus::Stopped).await;
        let reason = task.stopped_reason.unwrap();
        let expected = format!("UnsupportedTaskError: {what} is not supported by this version of the agent");
        assert!(reason.starts_with(&expected), "{reason}");
        let advertised = rig.server.read(|state| state.instances()[0].has_attribute(attribute));
        assert!(!advertised, "{attribute}");
        assert_eq!(rig.statuses(&arn), ["STOPPED"]);
    }
    assert!(rig.containers().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn one_bad_task_in_a_payload_does_not_harm_the_good_ones() {
    let Some(rig) = Rig::start("mixed payload", Plan::default()).await else { return };
    let image = rig.image();
    let arn = |name: &str| format!("arn:aws:ecs:us-west-2:123456789012:task/{}/{name}", rig.cluster.name);
    let task = |name: &str, container: Value| json!({"arn": arn(name), "family": "test", "version": "1", "desiredStatus": "RUNNING", "containers": [container]});
    let good = |name: &str| task(name, shell("main", &image, "exit 3"));
    let (instance, cluster) = rig.server.read(|s| (s.instances()[0].arn.clone(), s.instances()[0].cluster.clone()));
    let mut payload = json!({
        "messageId": "mixed", "seqNum": 1, "generatedAt": 1, "clusterArn": cluster, "containerInstanceArn": instance,
    });
    payload["tasks"] = json!([good("one"), task("bad", json!({"name": 7})), good("two")]);
    rig.server.send_message("PayloadMessage", payload).unwrap();
    for name in ["one", "two", "bad"] {
        rig.wait(name, |state| {
            state.submissions().any(|r| r.body["task"] == arn(name) && r.body["status"] == "STOPPED").then_some(())
        })
        .await;
    }
    let bad = rig.reports(&arn("bad"));
    assert_eq!(bad.len(), 1, "{bad:#?}");
    assert!(bad[0]["reason"].as_str().unwrap().starts_with("UnrecogniedTaskError: Error loading task - "), "{bad:#?}");
    for name in ["one", "two"] {
        assert_eq!(rig.statuses(&arn(name)), ["PENDING", "RUNNING", "STOPPED"]);
        assert_eq!(rig.reports(&arn(name))[2]["containers"][0]["exitCode"], 3);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_tasks_at_once() {
    let Some(rig) = Rig::start("twenty", Plan::default()).await else { return };
    let image = rig.image();
    let run = |code: i64| rig.server.run_task(&one_container(&image, &format!("exit {code}"))).unwrap();
    let tasks: Vec<_> = (1..=20).map(|code| (code, run(code))).collect();
    for (code, arn) in tasks {
        let task = rig.task(&arn, TaskStatus::Stopped).await;
        assert_eq!(task.container("main").unwrap().exit_code, Some(code));
        assert_eq!(rig.statuses(&arn), ["PENDING", "RUNNING", "STOPPED"]);
    }
    assert_eq!(rig.containers().len(), 20);
}
