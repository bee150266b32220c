//! The daemon's description of a container to [`Observation`]. Pure functions.
//!
//! Owns the translation of spec `task-engine.md` §10. It reads members one by one and takes what it can: an unknown status,
//! protocol or member must never hide a container. Invariant: what lacks our labels, or carries another cluster's, is nobody's
//! business here and yields `None`.

use super::create::{LABEL_CLUSTER, LABEL_CONTAINER, LABEL_TASK};
use super::outline;
use crate::model::observation::Mount;
use crate::model::{Failure, Health, Observation, PortBinding, Protocol, RunState};
use serde_json::Value;

/// From the answer to `GET /containers/<id>/json`.
pub(super) fn from_inspect(answer: &Value, cluster: &str) -> Option<Observation> {
    let label = |name: &str| answer.pointer("/Config/Labels")?.get(name)?.as_str();
    let state = answer.get("State").unwrap_or(&Value::Null);
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
    Some(Observation {
        task: label(LABEL_TASK)?.into(),
        container: label(LABEL_CONTAINER)?.into(),
        runtime_name: text(answer, "Name").trim_start_matches('/').to_owned(),
        runtime_id: non_empty(text(answer, "Id"))?.into(),
        state: run_state,
        exit_code: state.get("ExitCode").and_then(exit_code).filter(|_| ended),
        error,
        health: match state.pointer("/Health/Status").and_then(Value::as_str) {
            Some("healthy") => Health::Healthy,
            Some("unhealthy") => Health::Unhealthy,
            _ => Health::Unknown,
        },
        created_at: real_time(text(answer, "Created")).map(str::to_owned),
        started_at: time("StartedAt").map(str::to_owned),
        bindings: bindings(answer.pointer("/NetworkSettings/Ports")),
        mounts: mounts(answer.get("Mounts")),
        image_id: text(answer, "Image").to_owned(),
        outline: label(outline::LABEL).and_then(outline::read).map(Box::new),
    })
    .filter(|_| label(LABEL_CLUSTER) == Some(cluster))
}

/// From one entry of `GET /containers/json`, for a container that cannot be inspected just now: less is known, but it is there.
pub(super) fn from_list(entry: &Value, cluster: &str) -> Option<Observation> {
    let label = |name: &str| entry.get("Labels")?.get(name)?.as_str();
    let status = text(entry, "Status");
    let run_state = match text(entry, "State") {
        "created" => RunState::Created,
        "exited" | "dead" | "removing" => RunState::Exited,
        "running" | "paused" | "restarting" => RunState::Running,
        // A state this agent has not heard of: the human-readable column is the next best witness.
        _ if status.starts_with("Exited") => RunState::Exited,
        _ => RunState::Running,
    };
    let code = status.strip_prefix("Exited (").and_then(|rest| rest.split(')').next()?.parse().ok());
    let name = entry.pointer("/Names/0").and_then(Value::as_str).unwrap_or_default();
    Some(Observation {
        task: label(LABEL_TASK)?.into(),
        container: label(LABEL_CONTAINER)?.into(),
        runtime_name: name.trim_start_matches('/').to_owned(),
        runtime_id: non_empty(text(entry, "Id"))?.into(),
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
        image_id: text(entry, "ImageID").to_owned(),
        outline: label(outline::LABEL).and_then(outline::read).map(Box::new),
    })
    .filter(|_| label(LABEL_CLUSTER) == Some(cluster))
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value.get(name).and_then(Value::as_str).unwrap_or_default()
}

fn non_empty(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

/// Docker writes "never" as the year 1.
fn real_time(text: &str) -> Option<&str> {
    non_empty(text).filter(|text| !text.starts_with("0001-01-01"))
}

fn exit_code(value: &Value) -> Option<i32> {
    i32::try_from(value.as_i64()?).ok()
}

/// Sorted, so that two looks at an unchanged container are equal. Protocols ECS has no word for are left out.
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

    fn golden() -> Value {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/docker_inspect_web.json");
        let mut golden: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        // The recording has only the parts that were asked of the engine.
        golden["Id"] = json!("1cc22cbf0108bdb58731612fad20d18f5f854e58b71f814f9aec7931e109787e");
        golden["Created"] = json!("2026-11-21T23:36:44.1Z");
        golden
    }

    fn with_state(state: Value) -> Observation {
        let mut inspect = golden();
        inspect["State"] = state;
        from_inspect(&inspect, "judge").unwrap()
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
                json!({"Status": "created", "StartedAt": NEVER, "FinishedAt": NEVER, "ExitCode": 0}),
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
            (json!({"Dead": true, "StartedAt": NEVER, "FinishedAt": NEVER}), RunState::Exited, None, None),
            (json!({"StartedAt": started, "FinishedAt": started, "ExitCode": 42}), RunState::Exited, Some(42), None),
            (
                json!({"StartedAt": NEVER, "FinishedAt": NEVER, "ExitCode": 127, "Error": "no such file"}),
                RunState::Exited,
                None,
                Some("DockerStateError: no such file"),
            ),
            (
                json!({"StartedAt": started, "FinishedAt": started, "ExitCode": 137, "OOMKilled": true, "Error": "x"}),
                RunState::Exited,
                Some(137),
                Some("OutOfMemoryError: Container killed due to memory usage"),
            ),
            (
                json!({"Status": "hibernating", "StartedAt": started, "Health": {"Status": "dizzy"}}),
                RunState::Exited,
                None,
                None,
            ),
        ];
        for (state, run_state, code, error) in table {
            let seen = with_state(state.clone());
            let said = seen.error.map(|failure| failure.to_string());
            assert_eq!((seen.state, seen.exit_code, said.as_deref()), (run_state, code, error), "{state}");
        }
    }

    #[test]
    fn foreign_and_broken_containers_are_nobody() {
        assert_eq!(from_inspect(&golden(), "other"), None);
        assert_eq!(from_inspect(&json!({"Id": "1", "Config": {"Labels": null}}), "judge"), None);
        assert_eq!(from_inspect(&Value::Null, "judge"), None);
        assert_eq!(from_list(&json!([]), "judge"), None);
    }

    #[test]
    fn odd_members_do_not_hide_a_container() {
        let mut inspect = golden();
        inspect["State"] = json!("gone mad");
        inspect["Mounts"] = json!(7);
        inspect["NetworkSettings"]["Ports"] =
            json!({"80/sctp": [{"HostPort": "1"}], "x/tcp": null, "81/udp": [{"HostPort": 5}]});
        let seen = from_inspect(&inspect, "judge").unwrap();
        assert_eq!((seen.state, seen.bindings.len(), seen.mounts.len()), (RunState::Created, 0, 0));
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
            .chain([
                "/State",
                "/State/Running",
                "/State/StartedAt",
                "/State/Health",
                "/State/Health/Status",
                "/HostConfig",
            ]);
        for member in members {
            for odd in [json!(null), json!(-7), json!("é"), json!([[]]), json!({"x": 1}), json!(1e300), json!(true)] {
                let mut inspect = base.clone();
                *inspect.pointer_mut(member).expect("the recording has it") = odd.clone();
                assert!(from_inspect(&inspect, "judge").is_some(), "{member} {odd}");
            }
        }
    }

    #[test]
    fn a_list_entry_tells_the_most_important() {
        let labels = golden()["Config"]["Labels"].clone();
        let table = [
            ("exited", "Exited (42) 3 minutes ago", RunState::Exited, Some(42), Health::Unknown),
            ("running", "Up 3 minutes (healthy)", RunState::Running, None, Health::Healthy),
            ("running", "Up 3 minutes (unhealthy)", RunState::Running, None, Health::Unhealthy),
            ("created", "Created", RunState::Created, None, Health::Unknown),
            ("hibernating", "Hibernating", RunState::Running, None, Health::Unknown),
        ];
        for (state, status, run_state, code, health) in table {
            let entry = json!({"Id": "1", "Names": ["/n"], "State": state, "Status": status, "Labels": labels});
            let seen = from_list(&entry, "judge").unwrap();
            assert_eq!((seen.state, seen.exit_code, seen.health), (run_state, code, health), "{state}");
            assert_eq!(seen.runtime_name, "n");
        }
    }
}
