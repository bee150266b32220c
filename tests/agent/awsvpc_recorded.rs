//! Tasks with network interfaces of their own, compared with recordings of the Go agent (`tests/golden/awsvpc`), whose interface had the
//! address 10.0.1.100. Here the interface is that of `ecs-local`, with another address and the name servers of this host.

use super::awsvpc::{ENVIRONMENT, Running, ask, links, start};
use super::rig::{FOREVER, LIMIT, shell};
use super::roles::Scene;
use ecs_local::{Source, TaskStatus};
use ecs_testing::wait::until;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::process::Command;

fn golden(name: &str) -> Value {
    let path = format!("{}/tests/golden/awsvpc/{name}.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn members(value: &Value) -> BTreeSet<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

/// What a message to ECS is: an acknowledgement, a report of an attachment, or one of a status.
fn kind(op: &str, body: &Value) -> Option<String> {
    match (op, body["status"].as_str()) {
        ("AckRequest", _) => Some("acknowledgement".to_owned()),
        ("SubmitTaskStateChange", None) => Some("attachments".to_owned()),
        ("SubmitTaskStateChange", Some(status)) => Some(status.to_owned()),
        _ => None,
    }
}

/// Answers requests for instance metadata, as the far side of the recordings.
fn serve_metadata() {
    let made = Command::new("ip").args(["address", "add", "169.254.169.254/32", "dev", "lo"]).status().unwrap();
    assert!(made.success());
    let listener = TcpListener::bind("169.254.169.254:80").unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _request = stream.read(&mut [0; 1024]);
            let _sent = stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nfar-side\n");
        }
    });
}

/// Files of the containers. What the engine writes about the loopback depends on its version.
fn compare_files(scene: &Scene, task: &Running, name: &str) {
    let wanted = golden("files");
    for (id, recorded) in [(&task.main, &wanted["web"]), (&task.side, &wanted["side"])] {
        for (file, text) in recorded.as_object().unwrap() {
            let command = if file == "hostname" { "hostname".to_owned() } else { format!("cat {file}") };
            let text = text.as_str().unwrap().replace("ip-10-0-1-100.us-west-2.compute.internal", name);
            let text = text.replace("10.0.1.100", &task.address);
            let shown = scene.exec(id, &command);
            let is_compared = |line: &&str| !line.contains("ip6-") && !line.starts_with("nameserver");
            let lines = |text: &str| text.lines().filter(is_compared).map(str::to_owned).collect::<Vec<_>>();
            assert_eq!(lines(&shown), lines(&text), "{file}");
            assert_eq!(shown.contains("nameserver "), text.contains("nameserver "), "{file}: {shown}");
        }
    }
}

/// The container beside the first one, as it was asked of the engine.
fn compare_side(scene: &Scene, task: &Running, name: &str) {
    const FIELDS: [&str; 9] =
        ["Dns", "DnsSearch", "DnsOptions", "ExtraHosts", "Links", "PortBindings", "CapAdd", "Privileged", "Sysctls"];
    let recorded = golden("docker_inspect_side");
    let inspected = scene.dockerd.docker(&["inspect", &task.side]).unwrap();
    let inspected = serde_json::from_str::<Value>(&inspected).unwrap()[0].clone();
    for field in FIELDS {
        // (An empty object of the Go agent is left out here.)
        let asked =
            |container: &Value| Some(container["HostConfig"][field].clone()).filter(|asked| *asked != json!({}));
        assert_eq!(asked(&inspected).unwrap_or_default(), asked(&recorded).unwrap_or_default(), "{field}");
    }
    let pause = scene.dockerd.docker(&["ps", "-q", "--no-trunc", "--filter", "name=internalecspause"]).unwrap();
    assert_eq!(inspected["HostConfig"]["NetworkMode"], format!("container:{}", pause.trim()));
    assert!(recorded["HostConfig"]["NetworkMode"].as_str().unwrap().starts_with("container:"));
    assert_eq!(inspected["Config"]["Hostname"], name, "the engine takes it from the pause container");
    assert_eq!(inspected["Config"]["Domainname"], recorded["Config"]["Domainname"]);
    assert!(members(&inspected["Config"]["Labels"]).is_superset(&members(&recorded["Config"]["Labels"])));
    let names = |container: &Value| -> BTreeSet<String> {
        let variables = container["Config"]["Env"].as_array().unwrap().iter().map(|text| text.as_str().unwrap());
        let names = variables.map(|text| text.split('=').next().unwrap().to_owned());
        names.filter(|name| name.starts_with("ECS_") || name.ends_with("_REGION")).collect()
    };
    assert!(names(&inspected).is_superset(&names(&recorded)), "{inspected}");
}

/// All that left for ECS, in order.
fn compare_messages(scene: &Scene) {
    let sent: Vec<(String, Value)> = scene.rig.server.read(|state| {
        let ours = state.records().filter(|record| matches!(record.source, Source::Api | Source::AcsIn));
        ours.filter_map(|record| Some((kind(&record.name, &record.body)?, record.body.clone()))).collect()
    });
    // (An image with a digest is reported as PENDING first.)
    let sent: Vec<_> = sent.into_iter().filter(|(kind, _)| kind != "PENDING").collect();
    let records = golden("records_start_to_stop");
    let recorded = records.as_array().unwrap().iter();
    let recorded =
        recorded.filter_map(|record| Some((kind(record["op"].as_str()?, &record["body"])?, record["body"].clone())));
    let recorded: Vec<_> = recorded.collect();
    // Acknowledgements and reports leave over two connections. (Here the device is there when the message comes, so it is reported at the
    // moment of the acknowledgement.)
    let split = |list: Vec<(String, Value)>| -> Vec<(String, Value)> {
        let (first, second): (Vec<_>, Vec<_>) = list.into_iter().partition(|(kind, _)| kind == "acknowledgement");
        [first, second].concat()
    };
    let (sent, recorded) = (split(sent), split(recorded));
    let kinds = |list: &[(String, Value)]| list.iter().map(|(kind, _)| kind.clone()).collect::<Vec<_>>();
    assert_eq!(kinds(&sent), kinds(&recorded));
    for ((kind, sent), (_, recorded)) in sent.iter().zip(&recorded) {
        // (Only the Go agent sends an empty reason.)
        let names = |body: &Value| -> Vec<String> {
            members(body).into_iter().filter(|name| *name != "reason").map(str::to_owned).collect()
        };
        assert_eq!(names(sent), names(recorded), "{kind}");
        let containers = |body: &Value| body["containers"].as_array().map_or(0, Vec::len);
        assert_eq!(containers(sent), containers(recorded), "{kind}: the pause container is the agent's own");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_with_an_interface_lives_as_recorded() {
    let Some(scene) = Scene::start_with("awsvpc recorded", &ENVIRONMENT).await else { return };
    let task = start(&scene).await;
    let name = format!("ip-{}.us-west-2.compute.internal", task.address.replace('.', "-"));
    compare_files(&scene, &task, &name);
    compare_side(&scene, &task, &name);
    // Instance metadata is reached over the interface, unless ECS_AWSVPC_BLOCK_IMDS is set.
    serve_metadata();
    for (url, recorded) in golden("imds_open").as_object().unwrap() {
        let shown = scene.exec(&task.main, &format!("wget -qO- {url}"));
        assert_eq!(shown.trim_end(), recorded["body"].as_str().unwrap().trim_end());
    }
    scene.rig.server.stop_task(&task.arn, "end").unwrap();
    scene.rig.task(&task.arn, TaskStatus::Stopped).await;
    compare_messages(&scene);
}

/// The Go agent ends such a task as well, but reports an empty reason.
#[tokio::test(flavor = "multi_thread")]
async fn a_task_whose_device_is_missing_ends_with_a_reason() {
    let Some(scene) = Scene::start_with("awsvpc missing", &ENVIRONMENT).await else { return };
    scene.rig.registered().await;
    let recorded = golden("failures")["no_device"]["records"].clone();
    let recorded = recorded.as_array().unwrap().last().unwrap()["body"].clone();
    assert_eq!((&recorded["status"], &recorded["reason"]), (&json!("STOPPED"), &json!("")));
    let mut task = golden("payload")["sent"]["message"]["tasks"][0].clone();
    let name = recorded["containers"][0]["containerName"].as_str().unwrap();
    task["arn"] = json!(null);
    task["containers"] = json!([task["containers"][0]]);
    task["containers"][0]["name"] = json!(name);
    task["containers"][0]["image"] = json!(scene.image.reference);
    let arn = scene.rig.server.send_task(task).unwrap();
    scene.rig.task(&arn, TaskStatus::Stopped).await;
    let report = scene.rig.reports(&arn).pop().unwrap();
    let reason = "failed to setup network namespace: find the interface 06:00:00:00:01:01: it is not on this host";
    assert!(report.to_string().contains(reason), "{report}");
    let container = &report["containers"][0];
    assert_eq!((&container["containerName"], &container["status"]), (&json!(name), &json!("STOPPED")));
    // The recorded one has no `runtimeId`: the Go agent creates nothing before the network is there. Here it may be created meanwhile.
    assert!(recorded["containers"][0]["runtimeId"].is_null());
    assert!(container["exitCode"].is_null(), "as recorded, it never ran: {report}");
    let left = async || {
        let left: Vec<String> = links().into_iter().filter(|name| name.starts_with("veth")).collect();
        left.is_empty().then_some(())
    };
    until("the end of what had been made", LIMIT, left).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_that_ended_meanwhile_ends_its_task() {
    let Some(mut scene) = Scene::start_with("awsvpc pause", &ENVIRONMENT).await else { return };
    let definition = json!({
        "family": "own", "networkMode": "awsvpc",
        "containerDefinitions": [shell("main", &scene.image.reference, FOREVER)],
    });
    let arn = scene.rig.server.run_task(&definition).unwrap();
    let task = scene.rig.task(&arn, TaskStatus::Running).await;
    let id = task.container("main").unwrap().runtime_id.clone().unwrap();
    let recorded = golden("restart");
    let running = &recorded["restarted_with_running_task"];

    // An agent that starts again reports nothing, and knows the task by its address. (It reports again what was not answered.)
    let settled = until("the answers to all reports", LIMIT, async || {
        let shown = scene.rig.introspect("/v1/debug/tasks").await;
        Some(()).filter(|()| shown["Tasks"][0]["Waits"] == json!([]))
    });
    settled.await;
    scene.rig.kill();
    let before = scene.rig.reports(&arn).len();
    scene.rig.start_agent();
    scene.rig.registered().await;
    let shown = until("version 2 of task metadata", LIMIT, async || {
        let shown = ask(&scene, &id, "http://169.254.170.2/v2/metadata");
        Some(shown).filter(|shown| shown["TaskARN"] == arn.as_str())
    });
    let (shown, wanted) = (shown.await, &running["tmds_v2"]["body"]);
    assert_eq!(members(&shown), members(wanted));
    let container = |answer: &Value, kind: &str| {
        let containers = answer["Containers"].as_array().unwrap();
        containers.iter().find(|container| container["Type"] == kind).unwrap().clone()
    };
    for kind in ["NORMAL", "CNI_PAUSE"] {
        let (shown, wanted) = (container(&shown, kind), container(wanted, kind));
        assert_eq!(members(&shown), members(&wanted), "{kind}");
        for member in ["DesiredStatus", "KnownStatus", "Type"] {
            assert_eq!(shown[member], wanted[member], "{kind} {member}");
        }
    }
    let submitted = |records: &Value| {
        let records = records.as_array().unwrap().iter();
        records
            .filter(|record| record["op"] == "SubmitTaskStateChange")
            .map(|record| record["body"].clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(scene.rig.reports(&arn).len() - before, submitted(&running["records"]).len());

    // The pause container ends while no agent runs.
    scene.rig.kill();
    let pause = scene.dockerd.docker(&["ps", "-q", "--filter", "name=internalecspause"]).unwrap();
    scene.dockerd.docker(&["kill", pause.trim()]).unwrap();
    scene.rig.start_agent();
    scene.rig.task(&arn, TaskStatus::Stopped).await;
    let report = scene.rig.reports(&arn).pop().unwrap();
    let [wanted] = &submitted(&recorded["pause_gone_while_down"]["records"])[..] else { panic!("one report") };
    let (ended, wanted) = (&report["containers"][0], &wanted["containers"][0]);
    assert_eq!((members(ended), &ended["exitCode"]), (members(wanted), &wanted["exitCode"]), "{report}");
    assert_eq!(report["containers"].as_array().map(Vec::len), Some(1));
    let left = async || {
        let left = links();
        let is_ours = |name: &&String| name.starts_with("ecsl") || name.starts_with("ecse") || name.starts_with("veth");
        (!left.iter().any(|name| is_ours(&name))).then_some(())
    };
    until("the removal of the interface", LIMIT, left).await;
}
