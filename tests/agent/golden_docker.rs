//! The calls to Docker and the answers of the introspection port, compared with the recordings of the Go agent.

use super::difference::Kind::{Any, Extra, Missing, Value as Other};
use super::difference::{Allowed, RECORDED_ENGINE, assert_same, by_name, golden};
use super::recorded_task::{Life, life};
use ecs_testing::docker::{docker, engine_major, has_containerd_store};
use serde_json::{Value, json};

/// `docker inspect` with the environment as an object, and only the parts that were recorded.
fn inspected(inspect: &Value) -> Value {
    let mut config = inspect["Config"].clone();
    config["Env"] = by_name(&config["Env"], |variable| {
        let (name, value) = variable.as_str().unwrap().split_once('=').unwrap();
        (name.to_owned(), json!(value))
    });
    let host = in_any_engines_words(inspect["HostConfig"].clone());
    json!({"Name": inspect["Name"], "Image": inspect["Image"], "Config": config, "HostConfig": host})
}

/// What Docker made of our request, without what differs between engines: members that newer ones do not have, their longer lists of
/// hidden files, their names for what was not asked for, and the memory segments of its own that a container gets with a newer API.
fn in_any_engines_words(mut host: Value) -> Value {
    if engine_major() == RECORDED_ENGINE {
        return host;
    }
    let members = host.as_object_mut().unwrap();
    for member in ["KernelMemory", "KernelMemoryTCP", "MaskedPaths"] {
        members.remove(member);
    }
    let oldest = docker(&["version", "--format", "{{.Server.MinAPIVersion}}"]);
    let is_new_api = oldest.strip_prefix("1.").and_then(|minor| minor.parse::<u32>().ok()) >= Some(40);
    if is_new_api && host["IpcMode"] == "private" {
        host["IpcMode"] = json!("shareable");
    }
    if host["NetworkMode"] == "bridge" {
        host["NetworkMode"] = json!("default");
    }
    if host["RestartPolicy"]["Name"] == "no" {
        host["RestartPolicy"]["Name"] = json!("");
    }
    host
}

const BOTH: [Allowed; 7] = [
    ("Config/Hostname", Any, "Docker's: the start of the id"),
    ("Config/Env/PATH", Other, "the test's image"),
    ("Config/Labels/mark", Extra, "the test's image"),
    ("Config/Labels/ecs-agent.task", Extra, "what Docker does not know of a task, in case the agent's state is lost"),
    ("Config/Labels/ecs-agent.owner", Extra, "the agent that made it, of several"),
    ("Config/Labels/ecs-agent.data-dir", Extra, "the same, in case its identity is lost"),
    ("HostConfig/VolumesFrom", Missing, "an empty list is not sent, or volumesFrom is refused in this version"),
];

/// These, and what differs with the containerd image store.
fn and_of_the_store(allowed: &[Allowed], id: &'static str) -> Vec<Allowed> {
    let mut allowed = allowed.to_vec();
    if has_containerd_store() {
        allowed.push((id, Other, "there, an image's id is its digest"));
    }
    allowed
}

#[tokio::test(flavor = "multi_thread")]
async fn docker_is_asked_for_the_recorded_containers() {
    let Some(life) = life().await else { return };
    let mut web = and_of_the_store(&BOTH, "Image");
    web.extend([("HostConfig/PortBindings/81/udp/0/HostPort", Any, "chosen by the agent")] as [Allowed; 1]);
    assert_same("web", &inspected(&golden("docker_inspect_web")), &inspected(&life.renamed(&life.web)), &web);
    let mut side = and_of_the_store(&BOTH, "Image");
    side.push(("HostConfig/Binds", Missing, "an empty list is not sent; Docker shows null for it"));
    side.push(("HostConfig/PortBindings", Missing, "the same"));
    assert_same("side", &inspected(&golden("docker_inspect_side")), &inspected(&life.renamed(&life.side)), &side);
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_are_named_as_recorded() {
    let Some(life) = life().await else { return };
    let shape = |name: &str| {
        let (front, suffix) = name.trim_start_matches('/').rsplit_once('-').unwrap();
        assert!(suffix.len() == 20 && suffix.bytes().all(|byte| byte.is_ascii_hexdigit()), "{name}");
        assert!(!suffix.bytes().any(|byte| byte.is_ascii_uppercase()), "{name}");
        front.to_owned()
    };
    let recorded: Vec<_> =
        golden("docker_names").as_array().unwrap().iter().map(|n| shape(n.as_str().unwrap())).collect();
    for ours in [&life.web, &life.side] {
        assert!(recorded.contains(&shape(ours["Name"].as_str().unwrap())), "{}", ours["Name"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn volumes_are_made_as_recorded() {
    let Some(life) = life().await else { return };
    const VOLUME: &[Allowed] =
        &[("*/CreatedAt", Extra, "not in the recording"), ("*/Mountpoint", Extra, "not in the recording")];
    assert_same("volumes", &golden("docker_volumes"), &life.renamed(&life.volumes), VOLUME);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_task_is_limited_as_recorded() {
    let Some(life) = life().await else { return };
    let Some(cgroup) = &life.cgroup else { return };
    assert_same("control group", &golden("task_cgroup"), cgroup, &[]);
}

/// Containers of a shown task by name, and their volumes by place: their order is not fixed.
fn shown(task: &Value) -> Value {
    let mut task = task.clone();
    for container in task["Containers"].as_array_mut().into_iter().flatten() {
        if container["Volumes"].is_array() {
            container["Volumes"] =
                by_name(&container["Volumes"], |v| (v["Destination"].as_str().unwrap().to_owned(), v.clone()));
        }
    }
    if task["Containers"].is_array() {
        task["Containers"] = by_name(&task["Containers"], |c| (c["Name"].as_str().unwrap().to_owned(), c.clone()));
    }
    task
}

const TASK_SHOWN: &[Allowed] = &[
    ("Containers/*/CreatedAt", Other, "now"),
    ("Containers/*/StartedAt", Other, "now"),
    ("Containers/web/Ports/2/HostPort", Any, "chosen by the agent"),
    ("Containers/web/Ports/3/HostPort", Any, "chosen by the agent"),
    ("Containers/side/Volumes", Missing, "volumesFrom is refused in this version"),
];

fn answer<'a>(life: &'a Life, name: &str) -> (u16, &'a str, Value) {
    let (_, status, kind, body) = life.answers.iter().find(|answer| answer.0 == name).unwrap();
    (*status, kind, life.renamed(body))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_is_shown_as_recorded() {
    let Some(life) = life().await else { return };
    let allowed = and_of_the_store(TASK_SHOWN, "Containers/*/ImageID");
    for (name, recording) in [
        ("by_arn", "introspection_tasks_by_arn"),
        ("by_dockerid", "introspection_tasks_by_dockerid"),
        ("by_short_dockerid", "introspection_tasks_by_short_dockerid"),
        ("stopped", "introspection_stopped_task"),
    ] {
        let (recorded, (status, kind, body)) = (golden(recording), answer(life, name));
        assert_eq!(
            (json!(status), json!(kind)),
            (recorded["status"].clone(), recorded["content_type"].clone()),
            "{name}"
        );
        assert_same(name, &shown(&recorded["body"]), &shown(&body), &allowed);
    }
    let (recorded, (status, kind, body)) = (golden("introspection_tasks"), answer(life, "tasks"));
    assert_eq!((json!(status), json!(kind)), (recorded["status"].clone(), recorded["content_type"].clone()));
    assert_eq!(body.as_object().unwrap().len(), 1, "only Tasks: {body}");
    let arn = &recorded["body"]["Tasks"][0]["Arn"];
    let ours = body["Tasks"].as_array().unwrap().iter().find(|task| task["Arn"] == *arn).unwrap();
    assert_same("in the list", &shown(&recorded["body"]["Tasks"][0]), &shown(ours), &allowed);
}

#[tokio::test(flavor = "multi_thread")]
async fn other_answers_are_the_recorded_ones() {
    let Some(life) = life().await else { return };
    const VERSION: &[Allowed] = &[("Version", Other, "the commit of this agent (checked separately)")];
    for (name, recording, allowed) in [
        ("root", "introspection_root", &[] as &[Allowed]),
        ("metadata", "introspection_metadata", VERSION),
        ("unknown", "introspection_tasks_unknown", &[]),
        ("short_ambiguous", "introspection_tasks_short_ambiguous", &[]),
        ("bad_query", "introspection_tasks_bad_query", &[]),
    ] {
        let (recorded, (status, kind, body)) = (golden(recording), answer(life, name));
        assert_eq!(
            (json!(status), json!(kind)),
            (recorded["status"].clone(), recorded["content_type"].clone()),
            "{name}"
        );
        assert_same(name, &recorded["body"], &body, allowed);
    }
    let version = answer(life, "metadata").2["Version"].as_str().unwrap().to_owned();
    assert!(version.starts_with("Amazon ECS Agent - v1.105.1 ("), "{version}");
    // The recording `short_ambiguous` is of an id that no container has. By the rules, an id that several containers share is a
    // 400.
    let (status, _, body) = answer(life, "matches_all");
    assert_eq!((status, body), (400, golden("introspection_tasks_bad_query")["body"].clone()));
}
