//! Translates the daemon's description of a container to an [`Observation`]. Pure functions.
//!
//! Owns the translation of spec `task-engine.md` §10. It reads members one by one and uses those it understands: an unknown
//! status, protocol or member must never hide a container. But an answer that does not say whether the container runs is
//! rejected ([`Unreadable`]). Invariant: a container without the agent's labels, or with another cluster's label, yields
//! `None`. `details` has what only the task's metadata shows.

mod details;
mod members;

use super::create::{LABEL_CLUSTER, LABEL_CONTAINER, LABEL_TASK, given_ids};
use super::outline;
use ecs_core::model::observation::{GivenIds, LastCheck, Mount};
use ecs_core::model::text::{cleaned, cut};
use ecs_core::model::{Failure, Health, Observation, OwnerId, OwnerMark, PortBinding, Protocol, RunState, TaskSpec};
use members::{exit_code, non_empty, text};
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
    // Newer engines cancel a start whose caller has left, such as an agent that was killed. Nothing was wrong with the container.
    let is_left_start = |error: &str| time("StartedAt").is_none() && error.ends_with("context canceled");
    let state_error = Some(text(state, "Error")).filter(|error| !is_left_start(error)).unwrap_or_default();
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
        pid: state.get("Pid").and_then(Value::as_u64).and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid > 0),
        exit_code: state.get("ExitCode").and_then(exit_code).filter(|_| ended),
        error,
        health: match state.pointer("/Health/Status").and_then(Value::as_str) {
            Some("healthy") => Health::Healthy,
            Some("unhealthy") => Health::Unhealthy,
            _ => Health::Unknown,
        },
        health_output: health_output(state),
        last_check: details::last_check(state),
        created_at: real_time(text(answer, "Created")).map(|time| cut(time, MAX_TIME_BYTES)),
        started_at: time("StartedAt").map(|time| cut(time, MAX_TIME_BYTES)),
        finished_at: time("FinishedAt").map(|time| cut(time, MAX_TIME_BYTES)),
        bindings: bindings(answer.pointer("/NetworkSettings/Ports")),
        mounts: mounts(answer.get("Mounts")),
        address: address(answer.get("NetworkSettings")),
        labels: details::labels(labels),
        networks: details::networks(answer),
        image_id: text(answer, "Image").to_owned(),
        image_digest: None,
        ids: given_ids(answer),
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
        pid: None,
        exit_code: code.filter(|_| run_state == RunState::Exited),
        error: None,
        health: match status {
            _ if status.contains("(healthy)") => Health::Healthy,
            _ if status.contains("(unhealthy)") => Health::Unhealthy,
            _ => Health::Unknown,
        },
        last_check: LastCheck::default(),
        created_at: None,
        started_at: None,
        finished_at: None,
        bindings: Vec::new(),
        mounts: mounts(entry.get("Mounts")),
        address: address(entry.get("NetworkSettings")),
        labels: entry.get("Labels").and_then(Value::as_object).map(details::labels).unwrap_or_default(),
        networks: details::networks(entry),
        image_id: text(entry, "ImageID").to_owned(),
        image_digest: None,
        health_output: String::new(), // the list does not have it
        ids: GivenIds::default(),
        outline: None,
    })
}

/// How much of a health check's output is kept, in bytes: enough to recognise the error.
const MAX_HEALTH_OUTPUT: usize = 200;
/// The longest time that is kept, in bytes. RFC 3339 with nanoseconds has 35.
const MAX_TIME_BYTES: usize = 64;

/// A time, unless it is in the year 1, with which Docker means "never".
fn real_time(text: &str) -> Option<&str> {
    non_empty(text).filter(|text| !text.starts_with("0001-01-01"))
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
mod tests;
