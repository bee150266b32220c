//! The lines about a container that is unhealthy: what its health check printed, and who waits for it. This module owns their form.
//! Invariant: the output of a check is cleaned and bounded.

use ecs_core::model::text::cut;
use serde_json::Value;
use std::collections::BTreeMap;

/// The largest part of a check's output that is shown, in bytes.
const MAX_OUTPUT: usize = 400;

/// Containers that wait without a time limit until another one is healthy, by the name of that one.
pub(super) type EndlessWaits = BTreeMap<String, Vec<String>>;

/// The waits of a task definition that nothing but health, or the end of the container, ends.
pub(super) fn endless_waits(definition: &Value) -> EndlessWaits {
    let containers = || definition["containerDefinitions"].as_array().into_iter().flatten();
    let name = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut waits = EndlessWaits::new();
    for container in containers() {
        for dependency in container["dependsOn"].as_array().into_iter().flatten() {
            let awaited = &dependency["containerName"];
            let target = containers().find(|other| other["name"] == *awaited);
            let has_limit = target.is_some_and(|target| target["startTimeout"].is_number());
            if dependency["condition"] == "HEALTHY" && !has_limit {
                waits.entry(name(awaited)).or_default().push(name(&container["name"]));
            }
        }
    }
    waits
}

/// The lines about an unhealthy container. `state` is the JSON of Docker's `.State.Health`, `waiting` are the containers that wait
/// for it without a time limit.
pub(super) fn unhealthy(name: &str, state: &str, waiting: &[String]) -> Vec<String> {
    let state: Value = serde_json::from_str(state).unwrap_or_default();
    let last = state["Log"].as_array().and_then(|log| log.last());
    let why = last.map(|check| {
        let text = cut(check["Output"].as_str().unwrap_or_default(), MAX_OUTPUT);
        let output = if text.is_empty() { String::new() } else { format!(": {text}") };
        format!(": its health check ended with exit code {}{output}", check["ExitCode"])
    });
    let mut lines = vec![format!("container {name}: UNHEALTHY{}", why.unwrap_or_default())];
    lines.extend(waiting.iter().map(|waiting| {
        format!(
            "container {waiting}: waits for {name} to be HEALTHY, without a time limit: set `startTimeout` of {name}, or press Ctrl-C"
        )
    }));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_last_health_check_is_shown() {
        let check = |code: i64, output: &str| json!({"ExitCode": code, "Output": output});
        let state = json!({"Status": "unhealthy", "Log": [check(2, "old"), check(1, "cannot\u{1b}[31m connect\n\n")]});
        let wanted = "container db: UNHEALTHY: its health check ended with exit code 1: cannot [31m connect";
        assert_eq!(unhealthy("db", &state.to_string(), &[]), [wanted]);
        let long = json!({"Log": [check(1, &"x".repeat(4096))]});
        assert!(unhealthy("db", &long.to_string(), &[])[0].len() < 500);
        assert_eq!(unhealthy("db", "", &[]), ["container db: UNHEALTHY"]);
    }

    #[test]
    fn a_wait_that_nothing_ends_has_a_remedy() {
        let with = |members: Value| {
            let mut db = json!({"name": "db"});
            for (name, value) in members.as_object().unwrap() {
                db[name] = value.clone();
            }
            let web = json!({"name": "web", "dependsOn": [{"containerName": "db", "condition": "HEALTHY"}]});
            endless_waits(&json!({"containerDefinitions": [web, db]}))
        };
        assert!(with(json!({"startTimeout": 60})).is_empty());
        let waits = with(json!({}));
        let lines = unhealthy("db", "", &waits["db"]);
        let wanted = "container web: waits for db to be HEALTHY, without a time limit: set `startTimeout` of db, or press Ctrl-C";
        assert_eq!(lines[1..], [wanted]);
    }
}
