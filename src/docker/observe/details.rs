//! The details of a container that the core does not use, and that the task's metadata shows: labels, networks, the last health
//! check.
//!
//! Owns their bounds. Invariant: what a container or an image can make long is cut here.

use super::members::{exit_code, non_empty, text};
use crate::docker::outline;
use ecs_core::model::TextMap;
use ecs_core::model::observation::{LastCheck, Network};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// The largest size of all labels of a container, names and values together, in bytes. Labels that do not fit are left out. The
/// labels of ECS come first, so they are never left out.
const MAX_LABELS: usize = 16 * 1024;
/// The largest number of networks that are kept.
const MAX_NETWORKS: usize = 64;
/// The longest name of a network and the longest address that are kept, in bytes.
const MAX_NAME: usize = 256;
/// How much of the output of a health check is kept, in bytes (spec `task-metadata.md` §4.2).
const MAX_OUTPUT: usize = 1024;
/// The beginning of the names of the labels of ECS.
const ECS_LABELS: &str = "com.amazonaws.ecs.";

/// The labels without those that this agent uses for itself: the Go agent has none of these, and the outline is long.
pub(super) fn labels(all: &Map<String, Value>) -> TextMap {
    let shown =
        all.iter().filter(|(name, _)| ![outline::LABEL, outline::OWNER, outline::PLACE].contains(&name.as_str()));
    let mut shown: Vec<_> = shown.filter_map(|(name, value)| Some((name, value.as_str()?))).collect();
    shown.sort_by_key(|(name, _)| (!name.starts_with(ECS_LABELS), *name));
    let (mut size, mut kept) = (0, BTreeMap::new());
    for (name, value) in shown {
        let length = name.len() + value.len();
        if size + length <= MAX_LABELS {
            size += length;
            kept.insert(name.clone(), value.to_owned());
        }
    }
    kept.into()
}

/// The networks, from an answer to an inspection or from an entry of the list; empty if there are none in it. A container without
/// networks of its own has one entry with the name of its network mode, as in the Go agent.
pub(super) fn networks(container: &Value) -> Vec<Network> {
    let Some(settings) = container.get("NetworkSettings") else { return Vec::new() };
    let network = |name: &str, at: &Value| Network {
        name: short(name),
        ipv4: short(text(at, "IPAddress")),
        ipv6: short(text(at, "GlobalIPv6Address")),
    };
    let all = settings.get("Networks").and_then(Value::as_object).into_iter().flatten();
    let mut found: Vec<_> = all.map(|(name, at)| network(name, at)).collect();
    if found.is_empty() {
        let mode = container.get("HostConfig").map(|host| text(host, "NetworkMode")).and_then(non_empty);
        found.extend(mode.map(|mode| network(mode, settings)));
    }
    found.sort();
    found.truncate(MAX_NETWORKS);
    found
}

/// The last check of a healthy or unhealthy container; the default otherwise. The output is kept as it is, with line ends: it
/// is shown as JSON to the container's own task, and never logged.
pub(super) fn last_check(state: &Value) -> LastCheck {
    let Some(health) = state.get("Health") else { return LastCheck::default() };
    let status = text(health, "Status");
    let last = health.get("Log").and_then(Value::as_array).and_then(|log| log.last());
    let Some(last) = last.filter(|_| matches!(status, "healthy" | "unhealthy")) else { return LastCheck::default() };
    let exit_code = last.get("ExitCode").and_then(exit_code).filter(|_| status == "unhealthy");
    LastCheck { exit_code: exit_code.unwrap_or_default(), output: beginning(text(last, "Output"), MAX_OUTPUT) }
}

fn short(name: &str) -> String {
    beginning(name, MAX_NAME)
}

/// The first bytes of a text, up to a whole character.
fn beginning(text: &str, length: usize) -> String {
    text[..text.floor_char_boundary(length)].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn labels_of(all: Value) -> TextMap {
        labels(all.as_object().unwrap())
    }

    #[test]
    fn labels_of_this_agent_are_left_out() {
        let all =
            json!({"my": "label", "ecs-agent.task": "{}", "ecs-agent.owner": "o", "ecs-agent.data-dir": "d", "odd": 1});
        assert_eq!(labels_of(all).get(), &BTreeMap::from([("my".to_owned(), "label".to_owned())]));
    }

    #[test]
    fn labels_that_do_not_fit_are_left_out() {
        let long = "x".repeat(MAX_LABELS - 40);
        let all = json!({"a": long, "b": long, "c": "fits", "com.amazonaws.ecs.cluster": "c"});
        let kept = labels_of(all);
        assert_eq!(kept.get().keys().collect::<Vec<_>>(), ["a", "c", "com.amazonaws.ecs.cluster"]);
        assert!(labels_of(json!({"a": "x".repeat(MAX_LABELS)})).is_empty());
    }

    #[test]
    fn networks_are_sorted_and_have_their_addresses() {
        let network = |name: &str, ipv4: &str, ipv6: &str| Network {
            name: name.to_owned(),
            ipv4: ipv4.to_owned(),
            ipv6: ipv6.to_owned(),
        };
        let table = [
            (
                json!({"NetworkSettings": {"IPAddress": "172.17.0.2", "Networks": {
                    "mine": {"IPAddress": "10.0.0.2", "GlobalIPv6Address": "fd00::2"}, "bridge": {"IPAddress": "172.17.0.2"},
                }}}),
                vec![network("bridge", "172.17.0.2", ""), network("mine", "10.0.0.2", "fd00::2")],
            ),
            (json!({"NetworkSettings": {"Networks": {"host": {"IPAddress": ""}}}}), vec![network("host", "", "")]),
            (
                json!({"NetworkSettings": {"IPAddress": "", "Networks": {}}, "HostConfig": {"NetworkMode": "container:ab"}}),
                vec![network("container:ab", "", "")],
            ),
            (
                json!({"NetworkSettings": {"IPAddress": "172.17.0.3"}, "HostConfig": {"NetworkMode": "default"}}),
                vec![network("default", "172.17.0.3", "")],
            ),
            (json!({"NetworkSettings": {}}), Vec::new()),
            (json!({}), Vec::new()),
        ];
        for (answer, wanted) in table {
            assert_eq!(networks(&answer), wanted, "{answer}");
        }
    }

    #[test]
    fn the_last_check_is_that_of_the_current_status() {
        let checked = |status: &str| {
            let log = json!([{"ExitCode": 0, "Output": "old"}, {"ExitCode": 3, "Output": "line\nline\n"}]);
            last_check(&json!({"Health": {"Status": status, "Log": log}}))
        };
        let check = |exit_code| LastCheck { exit_code, output: "line\nline\n".to_owned() };
        assert_eq!(checked("unhealthy"), check(3));
        assert_eq!(checked("healthy"), check(0));
        for nothing in [json!({}), json!({"Health": {"Status": "healthy", "Log": []}}), json!({"Health": null})] {
            assert_eq!(last_check(&nothing), LastCheck::default(), "{nothing}");
        }
        assert_eq!(checked("starting"), LastCheck::default());
        let long = json!({"Health": {"Status": "healthy", "Log": [{"Output": "ü".repeat(2000)}]}});
        assert_eq!(last_check(&long).output.len(), 1024);
        let odd = json!({"Health": {"Status": "healthy", "Log": [{"Output": format!("a{}", "ü".repeat(2000))}]}});
        assert_eq!(last_check(&odd).output.len(), 1023, "no half character");
    }
}
