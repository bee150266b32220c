//! Translates the daemon's description of a container to an [`Observation`]. Pure functions.
//!
//! Owns the translation of spec `task-engine.md` §10. It reads members one by one and uses those it understands: an unknown
//! status, protocol or member must never hide a container. But an answer that does not say whether the container runs is
//! rejected ([`Unreadable`]). Invariant: a container without the agent's labels, or with another cluster's label, yields
//! `None`.

use super::create::{LABEL_CLUSTER, LABEL_CONTAINER, LABEL_TASK};
use super::outline;
use ecs_core::model::observation::Mount;
use ecs_core::model::text::{cleaned, cut};
use ecs_core::model::{Failure, Health, Observation, OwnerId, OwnerMark, PortBinding, Protocol, RunState, TaskSpec};
use serde_json::Value;

/// The answer does not describe the requested container. It does not prove that the container is missing.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unreadable(pub(super) &'static str);

/// Parses the answer to `GET /containers/<asked>/json`, where `asked` is a name or full id. `None`: the container has no task of
/// this cluster.
pub(super) fn from_inspect(answer: &Value, asked: &str, cluster: &str) -> Result<Option<Observation>, Unreadable> {
    let id = non_empty(text(answer, "Id")).ok_or(Unreadable("it has no id"))?;
    let runtime_name = text(answer, "Name").trim_start_matches('/');
    if asked != id && asked != runtime_name {
        return Err(Unreadable("it describes another container"));
    }
    let labels = answer.get("Config").and_then(Value::as_object).ok_or(Unreadable("it has no configuration"))?;
    let labels = match labels.get("Labels") {
        Some(Value::Object(labels)) => labels,
        None | Some(Value::Null) => return Ok(None),
        Some(_) => return Err(Unreadable("its labels are not an object")),
    };
    let label = |name: &str| labels.get(name)?.as_str();
    let (Some(task), Some(container)) = (label(LABEL_TASK), label(LABEL_CONTAINER)) else { return Ok(None) };
    if label(LABEL_CLUSTER) != Some(cluster) {
        return Ok(None);
    }
    let state = answer.get("State").unwrap_or(&Value::Null);
    if !state.get("Running").is_some_and(Value::is_boolean) {
        return Err(Unreadable("it does not say whether the container runs"));
    }
    let flag = |name: &str| state.get(name).and_then(Value::as_bool).unwrap_or(false);
    let time = |name: &str| real_time(text(state, name));
    let state_error = text(state, "Error");
    let run_state = match (flag("Running"), flag("Dead"), time("StartedAt")) {
        (true, ..) => RunState::Running,
        (false, false, None) if state_error.is_empty() => RunState::Created,
        _ => RunState::Exited,
    };
    let ended = run_state == RunState::Exited && time("FinishedAt").is_some();
    let error = if flag("OOMKilled") {
        Some(Failure::permanent("OutOfMemoryError", "Container killed due to memory usage"))
    } else {
        (!state_error.is_empty()).then(|| Failure::permanent("DockerStateError", state_error))
    };
    Ok(Some(Observation {
        task: task.into(),
        container: container.into(),
        owner: label(outline::OWNER).map(outline::owner),
        runtime_name: runtime_name.to_owned(),
        runtime_id: id.into(),
        state: run_state,
        exit_code: state.get("ExitCode").and_then(exit_code).filter(|_| ended),
        error,
        health: match state.pointer("/Health/Status").and_then(Value::as_str) {
            Some("healthy") => Health::Healthy,
            Some("unhealthy") => Health::Unhealthy,
            _ => Health::Unknown,
        },
        health_output: health_output(state),
        created_at: real_time(text(answer, "Created")).map(|time| cut(time, MAX_TIME_BYTES)),
        started_at: time("StartedAt").map(|time| cut(time, MAX_TIME_BYTES)),
        bindings: bindings(answer.pointer("/NetworkSettings/Ports")),
        mounts: mounts(answer.get("Mounts")),
        address: address(answer.get("NetworkSettings")),
        image_id: text(answer, "Image").to_owned(),
        image_digest: None,
        outline: None, // only an inventory needs it, and parsing it takes longer than all the rest
    }))
}

/// The output of the last health check of an unhealthy container, for people; empty otherwise.
fn health_output(state: &Value) -> String {
    let is_unhealthy = state.pointer("/Health/Status").and_then(Value::as_str) == Some("unhealthy");
    let checks = state.pointer("/Health/Log").and_then(Value::as_array).filter(|_| is_unhealthy);
    let failed = checks.and_then(|checks| checks.iter().rev().find(|check| check["ExitCode"] != 0));
    let output = failed.map(|check| text(check, "Output")).unwrap_or_default();
    cut(cleaned(output.trim()).trim(), MAX_HEALTH_OUTPUT)
}

/// The agent that created a container, from its labels; `None` = the container has no such label.
pub(super) fn owner(labels: &Value) -> Option<OwnerId> {
    labels.get(outline::OWNER).and_then(Value::as_str).map(outline::owner)
}

/// The agent that created a container and the directory of that agent's data; `None` = the container has no owner label.
pub(super) fn owner_mark(labels: &Value) -> Option<OwnerMark> {
    let data_directory = labels.get(outline::PLACE).and_then(Value::as_str).unwrap_or_default();
    Some(OwnerMark { id: owner(labels)?, data_directory: data_directory.to_owned() })
}

/// An entry of the container list, for a task of this cluster.
#[derive(Debug)]
pub(super) struct Listed {
    /// The engine's id of the container.
    pub(super) id: String,
    /// The facts in the list entry, used if the container cannot be inspected. `None`: the container exists, in a state that
    /// this agent does not know.
    pub(super) seen: Option<Observation>,
    /// The outline of the task from the container's label; `None` = the label is missing or unreadable.
    pub(super) outline: Option<Box<TaskSpec>>,
}

/// Parses one entry of `GET /containers/json`; `None` = the container has no task of this cluster.
pub(super) fn from_list(entry: &Value, cluster: &str) -> Option<Listed> {
    let label = |name: &str| entry.get("Labels")?.get(name)?.as_str();
    let is_ours = label(LABEL_TASK).is_some() && label(LABEL_CLUSTER) == Some(cluster);
    let id = non_empty(text(entry, "Id")).filter(|_| is_ours)?;
    let seen = from_entry(entry, id, label(LABEL_TASK)?, label(LABEL_CONTAINER)?);
    let outline = label(outline::LABEL).and_then(outline::read).map(Box::new);
    Some(Listed { id: id.to_owned(), seen, outline })
}

fn from_entry(entry: &Value, id: &str, task: &str, container: &str) -> Option<Observation> {
    let status = text(entry, "Status");
    let run_state = match text(entry, "State") {
        "created" => RunState::Created,
        "exited" | "dead" | "removing" => RunState::Exited,
        "running" | "paused" | "restarting" => RunState::Running,
        // An unknown state: the human-readable status is the next best source.
        _ if status.starts_with("Exited") => RunState::Exited,
        _ if status.starts_with("Up ") => RunState::Running,
        _ => return None,
    };
    let code = status.strip_prefix("Exited (").and_then(|rest| rest.split(')').next()?.parse().ok());
    // A linked container is also listed under its aliases in other containers (`/other/alias`), in any order.
    let names = entry.get("Names").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    let mut own = names.map(|name| name.trim_start_matches('/')).filter(|name| !name.contains('/'));
    let name = own.next().unwrap_or_default();
    Some(Observation {
        task: task.into(),
        container: container.into(),
        owner: entry.get("Labels").and_then(owner),
        runtime_name: name.to_owned(),
        runtime_id: id.into(),
        state: run_state,
        exit_code: code.filter(|_| run_state == RunState::Exited),
        error: None,
        health: match status {
            _ if status.contains("(healthy)") => Health::Healthy,
            _ if status.contains("(unhealthy)") => Health::Unhealthy,
            _ => Health::Unknown,
        },
        created_at: None,
        started_at: None,
        bindings: Vec::new(),
        mounts: mounts(entry.get("Mounts")),
        address: address(entry.get("NetworkSettings")),
        image_id: text(entry, "ImageID").to_owned(),
        image_digest: None,
        health_output: String::new(), // the list does not have it
        outline: None,
    })
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value.get(name).and_then(Value::as_str).unwrap_or_default()
}

fn non_empty(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

/// How much of a health check's output is kept, in bytes: enough to recognise the error.
const MAX_HEALTH_OUTPUT: usize = 200;
/// The longest time that is kept, in bytes. RFC 3339 with nanoseconds has 35.
const MAX_TIME_BYTES: usize = 64;

/// A time, unless it is in the year 1, with which Docker means "never".
fn real_time(text: &str) -> Option<&str> {
    non_empty(text).filter(|text| !text.starts_with("0001-01-01"))
}

fn exit_code(value: &Value) -> Option<i32> {
    i32::try_from(value.as_i64()?).ok()
}

/// The port bindings, sorted, so that two observations of an unchanged container are equal. Protocols that ECS does not know are
/// left out.
fn bindings(ports: Option<&Value>) -> Vec<PortBinding> {
    let mut found = Vec::new();
    for (key, addresses) in ports.and_then(Value::as_object).into_iter().flatten() {
        let (port, protocol) = key.split_once('/').unwrap_or((key, "tcp"));
        let protocol = match protocol {
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            _ => continue,
        };
        let Ok(container_port) = port.parse() else { continue };
        for address in addresses.as_array().into_iter().flatten() {
            let Ok(host_port) = text(address, "HostPort").parse() else { continue };
            let bind_ip = text(address, "HostIp").to_owned();
            found.push(PortBinding { container_port, host_port, bind_ip, protocol });
        }
    }
    found.sort();
    found
}

/// The address in Docker's default network. Docker 29 no longer fills the first of the two members.
fn address(network: Option<&Value>) -> Option<String> {
    let network = network?;
    let bridge = || text(network.pointer("/Networks/bridge")?, "IPAddress").into();
    let found = Some(text(network, "IPAddress")).filter(|address| !address.is_empty()).or_else(bridge)?;
    non_empty(found).map(str::to_owned)
}

fn mounts(list: Option<&Value>) -> Vec<Mount> {
    let mut found: Vec<_> = list
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .map(|mount| Mount {
            volume: text(mount, "Name").to_owned(),
            source: text(mount, "Source").to_owned(),
            destination: text(mount, "Destination").to_owned(),
        })
        .collect();
    found.sort_by(|a, b| a.destination.cmp(&b.destination));
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const ID: &str = "1cc22cbf0108bdb58731612fad20d18f5f854e58b71f814f9aec7931e109787e";

    fn golden() -> Value {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/docker_inspect_web.json");
        let mut golden: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        // The recording has only some parts of the engine's answer.
        golden["Id"] = json!(ID);
        golden["Created"] = json!("2026-11-21T23:36:44.1Z");
        golden
    }

    fn with_state(state: Value) -> Observation {
        let mut inspect = golden();
        inspect["State"] = state;
        observed(&inspect).unwrap().unwrap()
    }

    fn observed(inspect: &Value) -> Result<Option<Observation>, Unreadable> {
        from_inspect(inspect, ID, "judge")
    }

    const NEVER: &str = "0001-01-01T00:00:00Z";

    #[test]
    fn reads_the_recorded_container() {
        let seen = with_state(json!({"Running": true, "StartedAt": "2026-11-21T23:36:44.5Z", "FinishedAt": NEVER,
            "Health": {"Status": "healthy"}}));
        assert_eq!(seen.container.as_str(), "web");
        assert_eq!(seen.runtime_name, "ecs-judge-family-7-web-d49fe3fdbfdec3f7a101");
        assert_eq!((seen.state, seen.health, seen.exit_code), (RunState::Running, Health::Healthy, None));
        assert_eq!(seen.started_at.as_deref(), Some("2026-11-21T23:36:44.5Z"));
        let bound: Vec<_> = seen.bindings.iter().map(|b| (b.container_port, b.host_port, b.bind_ip.as_str())).collect();
        assert_eq!(bound, [(80, 28480, "0.0.0.0"), (80, 28480, "::"), (81, 32768, "0.0.0.0"), (81, 32768, "::")]);
        assert_eq!(seen.bindings[2].protocol, Protocol::Udp);
        assert_eq!(seen.mounts.len(), 3);
        assert_eq!((seen.mounts[1].volume.as_str(), seen.mounts[1].source.as_str()), ("", "/srv"));
        assert!(seen.image_id.starts_with("sha256:9cc0"));
    }

    #[test]
    fn states_exit_codes_and_errors() {
        let started = "2026-11-21T23:36:44.5Z";
        let table = [
            (
                json!({"Status": "created", "Running": false, "StartedAt": NEVER, "FinishedAt": NEVER, "ExitCode": 0}),
                RunState::Created,
                None,
                None,
            ),
            (json!({"Running": true, "Paused": true, "StartedAt": started}), RunState::Running, None, None),
            (
                json!({"Running": true, "Restarting": true, "StartedAt": started, "ExitCode": 3}),
                RunState::Running,
                None,
                None,
            ),
            (
                json!({"Running": false, "Dead": true, "StartedAt": NEVER, "FinishedAt": NEVER}),
                RunState::Exited,
                None,
                None,
            ),
            (
                json!({"Running": false, "StartedAt": started, "FinishedAt": started, "ExitCode": 42}),
                RunState::Exited,
                Some(42),
                None,
            ),
            (
                json!({"Running": false, "StartedAt": NEVER, "FinishedAt": NEVER, "ExitCode": 127, "Error": "no such file"}),
                RunState::Exited,
                None,
                Some("DockerStateError: no such file"),
            ),
            (
                json!({"Running": false, "StartedAt": started, "FinishedAt": started, "ExitCode": 137, "OOMKilled": true, "Error": "x"}),
                RunState::Exited,
                Some(137),
                Some("OutOfMemoryError: Container killed due to memory usage"),
            ),
            (
                json!({"Running": false, "Status": "hibernating", "StartedAt": started, "Health": {"Status": "dizzy"}}),
                RunState::Exited,
                None,
                None,
            ),
        ];
        for (state, run_state, code, error) in table {
            let seen = with_state(state.clone());
            let shown = seen.error.map(|failure| failure.to_string());
            assert_eq!((seen.state, seen.exit_code, shown.as_deref()), (run_state, code, error), "{state}");
        }
    }

    #[test]
    fn containers_of_others_are_skipped() {
        assert_eq!(from_inspect(&golden(), ID, "other"), Ok(None));
        for labels in [json!(null), json!({}), json!({"com.amazonaws.ecs.cluster": "judge"})] {
            assert_eq!(observed(&json!({"Id": ID, "Config": {"Labels": labels}})), Ok(None));
        }
        assert!(from_list(&json!([]), "judge").is_none());
    }

    #[test]
    fn an_answer_about_another_container_is_unreadable() {
        let without = |pointer: &str, put: Value| {
            let mut inspect = golden();
            inspect["State"] = json!({"Running": true, "StartedAt": "2026-11-21T23:36:44.5Z"});
            *inspect.pointer_mut(pointer).unwrap() = put;
            inspect
        };
        for odd in [json!(null), json!({}), json!([]), json!("gone mad"), json!(-7)] {
            assert!(observed(&odd).is_err(), "{odd}");
            for pointer in ["/State", "/State/Running", "/Id"] {
                assert!(observed(&without(pointer, odd.clone())).is_err(), "{pointer} {odd}");
            }
        }
        assert!(observed(&without("/Config", json!(null))).is_err());
        assert!(observed(&without("/Config/Labels", json!(["a"]))).is_err());
        assert_eq!(observed(&without("/Id", json!("2cc2"))), Err(Unreadable("it describes another container")));
        let by_name =
            from_inspect(&without("/Image", json!("")), "ecs-judge-family-7-web-d49fe3fdbfdec3f7a101", "judge");
        assert!(by_name.unwrap().is_some());
    }

    #[test]
    fn the_output_of_a_failed_health_check_is_kept_short() {
        let output = |health: Value| {
            let mut inspect = golden();
            inspect["State"] = json!({"Running": true, "Health": health});
            observed(&inspect).unwrap().unwrap().health_output
        };
        let check = |code: i32, output: &str| json!({"ExitCode": code, "Output": output});
        let log = |status: &str, checks: Vec<Value>| json!({"Status": status, "Log": checks});
        assert_eq!(
            output(log("unhealthy", vec![check(1, "old"), check(7, "no\u{1b}[2J pe\n"), check(0, "fine")])),
            "no [2J pe"
        );
        assert_eq!(output(log("healthy", vec![check(1, "old")])), "");
        assert_eq!(output(log("starting", vec![check(1, "old")])), "");
        let long = output(log("unhealthy", vec![check(1, &"é".repeat(5000))]));
        assert!(long.len() <= MAX_HEALTH_OUTPUT && long.starts_with('é'), "{}", long.len());
        for odd in [
            json!(null),
            json!(7),
            json!({"Status": "unhealthy"}),
            json!({"Status": "unhealthy", "Log": [7, {"Output": 7}]}),
        ] {
            assert_eq!(output(odd.clone()), "", "{odd}");
        }
    }

    #[test]
    fn odd_members_do_not_hide_a_container() {
        let mut inspect = golden();
        inspect["State"] = json!({"Running": true, "ExitCode": -1, "Status": "dizzy", "OOMKilled": 7});
        inspect["Mounts"] = json!(7);
        inspect["NetworkSettings"]["Ports"] = json!({"80/sctp": [{"HostPort": "1"}], "x/tcp": null, "81/udp": [{"HostPort": 5}], "82/tcp": [{"HostPort": "-1"}]});
        let seen = observed(&inspect).unwrap().unwrap();
        assert_eq!((seen.state, seen.exit_code), (RunState::Running, None));
        assert_eq!((seen.bindings.len(), seen.mounts.len()), (0, 0));
    }

    #[test]
    fn no_single_odd_member_hides_a_container_or_panics() {
        let mut base = golden();
        base["State"] =
            json!({"Running": true, "StartedAt": "2026-11-21T23:36:44.5Z", "Health": {"Status": "healthy"}});
        let members = ["/Name", "/Created", "/Image", "/Mounts", "/Mounts/0", "/Mounts/0/Source", "/NetworkSettings"]
            .into_iter()
            .chain([
                "/NetworkSettings/Ports",
                "/NetworkSettings/Ports/80~1tcp",
                "/NetworkSettings/Ports/80~1tcp/0/HostPort",
            ])
            .chain(["/State/StartedAt", "/State/Health", "/State/Health/Status", "/HostConfig"]);
        for member in members {
            for odd in [json!(null), json!(-7), json!("é"), json!([[]]), json!({"x": 1}), json!(1e300), json!(true)] {
                let mut inspect = base.clone();
                *inspect.pointer_mut(member).expect("the recording has it") = odd.clone();
                assert!(matches!(observed(&inspect), Ok(Some(_))), "{member} {odd}");
            }
        }
    }

    #[test]
    fn a_list_entry_has_the_most_important_facts() {
        let labels = golden()["Config"]["Labels"].clone();
        let table = [
            ("exited", "Exited (42) 3 minutes ago", RunState::Exited, Some(42), Health::Unknown),
            ("running", "Up 3 minutes (healthy)", RunState::Running, None, Health::Healthy),
            ("running", "Up 3 minutes (unhealthy)", RunState::Running, None, Health::Unhealthy),
            ("created", "Created", RunState::Created, None, Health::Unknown),
            ("hibernating", "Up 3 minutes", RunState::Running, None, Health::Unknown),
            ("hibernating", "Exited (-1) just now", RunState::Exited, Some(-1), Health::Unknown),
        ];
        for (state, status, run_state, code, health) in table {
            let entry =
                json!({"Id": "1", "Names": ["/other/alias", "/n"], "State": state, "Status": status, "Labels": labels});
            let seen = from_list(&entry, "judge").unwrap().seen.unwrap();
            assert_eq!((seen.state, seen.exit_code, seen.health), (run_state, code, health), "{state}");
            assert_eq!(seen.runtime_name, "n");
        }
        let entry = json!({"Id": "1", "State": "hibernating", "Status": "Hibernating", "Labels": labels});
        let listed = from_list(&entry, "judge").unwrap();
        assert_eq!((listed.id.as_str(), listed.seen), ("1", None), "the container exists, in an unknown state");
    }

    #[test]
    fn the_owner_is_read_from_the_label() {
        let mark = |labels: Value| owner_mark(&labels).map(|mark| (mark.id.0, mark.data_directory));
        let id = "0123456789abcdef".repeat(2);
        let table = [
            (json!({"ecs-agent.owner": id, "ecs-agent.data-dir": "8:1 /d"}), Some((id.as_str(), "8:1 /d"))),
            (json!({"ecs-agent.owner": "x"}), Some(("x", ""))),
            (json!({"ecs-agent.owner": ""}), Some(("", ""))),
            (json!({"ecs-agent.owner": "a\nb"}), Some(("a b", ""))),
            (json!({"ecs-agent.data-dir": "8:1 /d"}), None),
            (json!({"ecs-agent.owner": 7}), None),
            (Value::Null, None),
        ];
        for (labels, wanted) in table {
            assert_eq!(mark(labels.clone()), wanted.map(|(id, place)| (id.into(), place.to_owned())), "{labels}");
        }
        let mut inspect = golden();
        inspect["Config"]["Labels"]["ecs-agent.owner"] = json!(id);
        inspect["State"] = json!({"Running": true});
        assert_eq!(observed(&inspect).unwrap().unwrap().owner, Some(id.as_str().into()));
        let entry = json!({"Id": "1", "State": "running", "Labels": inspect["Config"]["Labels"]});
        assert_eq!(from_list(&entry, "judge").unwrap().seen.unwrap().owner, Some(id.as_str().into()));
    }

    #[test]
    fn the_address_is_that_in_the_default_network() {
        let bridge = json!({"IPAddress": "", "Networks": {"bridge": {"IPAddress": "172.17.0.3"}}});
        let table = [
            (json!({"IPAddress": "172.17.0.2", "Networks": bridge["Networks"]}), Some("172.17.0.2")),
            (bridge, Some("172.17.0.3")),
            (json!({"Networks": {"bridge": {"IPAddress": ""}, "mine": {"IPAddress": "10.0.0.1"}}}), None),
            (json!({"Networks": {"host": {"IPAddress": ""}}}), None),
            (Value::Null, None),
        ];
        for (network, wanted) in table {
            assert_eq!(address(Some(&network)).as_deref(), wanted, "{network}");
        }
        assert_eq!(address(None), None);
    }
}
