//! Checks task definitions and explains errors so that a person can act on them. This module owns the rules of
//! RegisterTaskDefinition; it changes nothing. Invariant: a definition that passes can be turned into a payload without further
//! checks.

mod ports;
mod rule;
mod storage;
mod system;
mod values;

pub(crate) use values::LOG_DRIVERS;

use super::{ContainerDefinition, HealthCheck, TaskDefinition};
use crate::suggestion::did_you_mean;
use rule::{Findings, is_name};
use std::collections::{BTreeMap, BTreeSet};

/// The network modes of the API.
const NETWORK_MODES: [&str; 4] = ["bridge", "host", "none", "awsvpc"];
/// The launch types of the API. Tasks run on container instances here, so one of the first two must be in a list.
const COMPATIBILITIES: [&str; 4] = ["EC2", "EXTERNAL", "FARGATE", "MANAGED_INSTANCES"];

/// Checks a definition.
///
/// # Errors
/// The problems, one a line if there are several, in the order of the definition's parts.
pub(crate) fn validate(definition: &TaskDefinition) -> Result<(), String> {
    let mut found = Findings::default();
    let containers = &definition.container_definitions;
    family(&mut found, &definition.family);
    found.require(containers.len() <= 10, || "A task definition can have at most 10 containers.".to_owned());
    if found.require(!containers.is_empty(), || "Container list cannot be empty.".to_owned()) {
        found.require(containers.iter().any(|c| c.essential), || {
            "Task definition does not have any essential container: at least one must have `essential` true.".to_owned()
        });
    }
    task_settings(&mut found, definition);
    let mut names = BTreeSet::new();
    for (at, container) in containers.iter().enumerate() {
        let name = container.name.as_str();
        let is_named = found.require(is_name(name), || {
            let given = if name.is_empty() { String::new() } else { format!(", not `{name}`") };
            format!(
                "Invalid setting for containerDefinitions[{at}].name: it must be 1 to 255 letters, numbers, underscores and hyphens{given}."
            )
        });
        let is_new = names.insert(name);
        found.require(is_new || !is_named, || {
            format!("Container name `{name}` is used more than once; names must be unique in a task.")
        });
        let place = if is_named { format!("container '{name}'") } else { format!("containerDefinitions[{at}]") };
        found.inside(format!("Invalid setting for {place}. "), |found| one_container(found, definition, container));
    }
    ports::taken_once(&mut found, definition);
    no_cycle(&mut found, definition);
    found.verdict()
}

fn family(found: &mut Findings, family: &str) {
    if found
        .require(!family.is_empty(), || "Family should not be empty. Give the task definition a `family`.".to_owned())
    {
        found.require(is_name(family), || {
            format!("Family `{family}` is invalid: up to 255 letters, numbers, underscores and hyphens are allowed.")
        });
    }
}

fn task_settings(found: &mut Findings, definition: &TaskDefinition) {
    let mode = definition.network_mode();
    found.require(NETWORK_MODES.contains(&mode), || {
        let suggestion = did_you_mean(mode, NETWORK_MODES);
        format!("Network mode `{mode}` is invalid: use bridge, host, none or awsvpc.{suggestion}")
    });
    compatibilities(found, definition);
    found.require(definition.cpu.is_none() || definition.cpu_limit().is_some(), || {
        "Task `cpu` is invalid: use CPU units (\"256\") or vCPUs (\".25 vCPU\").".to_owned()
    });
    found.require(definition.memory.is_none() || definition.memory_limit().is_some(), || {
        "Task `memory` is invalid: use MiB (\"512\") or GB (\"0.5 GB\").".to_owned()
    });
    system::task(found, definition);
    storage::volumes(found, definition);
    values::log_routing(found, definition);
}

/// As in ECS, a list names all launch types that the definition can have: one that this server has is enough.
fn compatibilities(found: &mut Findings, definition: &TaskDefinition) {
    let list = definition.requires_compatibilities.as_deref().unwrap_or_default();
    let unknown: Vec<&String> = list.iter().filter(|name| !COMPATIBILITIES.contains(&name.as_str())).collect();
    for name in &unknown {
        let suggestion = did_you_mean(name, COMPATIBILITIES);
        found.add(&format!("requiresCompatibilities `{name}` is invalid: use EC2.{suggestion}"));
    }
    let is_possible = list.is_empty() || list.iter().any(|name| COMPATIBILITIES[..2].contains(&name.as_str()));
    found.require(is_possible || !unknown.is_empty(), || {
        format!(
            "requiresCompatibilities `{}` cannot be met here, where tasks run on container instances (EC2): remove it, and use \
             networkMode bridge.",
            list.join("`, `")
        )
    });
}

fn one_container(found: &mut Findings, definition: &TaskDefinition, c: &ContainerDefinition) {
    found.require(!c.image.is_empty() && !c.image.contains(char::is_whitespace), || {
        "`image` must name an image, without spaces.".to_owned()
    });
    memory(found, definition, c);
    ports::container(found, definition, c);
    references(found, definition, c);
    for variable in &c.environment {
        found.require(!variable.name.is_empty(), || {
            "The name of an environment variable is empty: give each of `environment` a `name`.".to_owned()
        });
        found.require(!variable.name.contains('='), || {
            format!("Environment variable name `{}` must not contain `=`.", variable.name)
        });
    }
    values::container(found, definition, c);
    system::container(found, definition, c);
    if let Some(check) = &c.health_check {
        health_check(found, check);
    }
}

fn memory(found: &mut Findings, definition: &TaskDefinition, c: &ContainerDefinition) {
    let given = c.memory.is_some() || c.memory_reservation.is_some_and(|mib| mib > 0) || definition.memory.is_some();
    found.require(given, || "At least one of 'memory' or 'memoryReservation' must be specified.".to_owned());
    found.require(c.memory.is_none_or(|mib| mib >= 4), || "`memory` must be at least 4 MiB.".to_owned());
    if let (Some(hard), Some(soft)) = (c.memory, c.memory_reservation) {
        found.require(hard >= soft, || format!("`memory` ({hard}) must not be below `memoryReservation` ({soft})."));
    }
    let over_limit = definition.memory_limit().is_some_and(|limit| u64::from(c.memory.unwrap_or(0)) > limit);
    found.require(!over_limit, || "`memory` must not exceed the task's memory.".to_owned());
}

fn references(found: &mut Findings, definition: &TaskDefinition, c: &ContainerDefinition) {
    let find = |name: &str| definition.container_definitions.iter().find(|other| other.name == name);
    let unknown = |name: &str, place: &str| {
        let names = definition.container_definitions.iter().map(|other| other.name.as_str());
        format!("Unknown container '{name}' in {place}.{}", did_you_mean(name, names.filter(|other| *other != c.name)))
    };
    for mount in &c.mount_points {
        found.require(definition.volumes.iter().any(|volume| volume.name == mount.source_volume), || {
            let names = definition.volumes.iter().map(|volume| volume.name.as_str());
            let meant = did_you_mean(&mount.source_volume, names);
            let remedy = if meant.is_empty() { " Name it in `volumes` of the task definition." } else { &meant };
            format!("Unknown volume '{}' in mountPoints.{remedy}", mount.source_volume)
        });
        found.require(mount.container_path.starts_with('/'), || {
            format!("`containerPath` `{}` must be an absolute path.", mount.container_path)
        });
    }
    for from in &c.volumes_from {
        found.require(find(&from.source_container).is_some(), || unknown(&from.source_container, "volumesFrom"));
    }
    for link in &c.links {
        let target = link.split(':').next().unwrap_or_default();
        found.require(find(target).is_some(), || unknown(target, "links"));
        // A wrong mode is a problem of its own.
        let is_bridge = definition.network_mode() == "bridge" || !NETWORK_MODES.contains(&definition.network_mode());
        found.require(is_bridge, || "Links are only supported when the network mode is bridge.".to_owned());
    }
    for dependency in &c.depends_on {
        let name = &dependency.container_name;
        let target = find(name);
        found.require(target.is_some(), || unknown(name, "dependsOn"));
        condition(found, &dependency.condition, name, target);
    }
}

/// Checks the condition for which a container waits. `target`: the container of this name; `None`: there is none, which is a problem
/// of its own.
fn condition(found: &mut Findings, condition: &str, name: &str, target: Option<&ContainerDefinition>) {
    match condition {
        "START" => {}
        "HEALTHY" => {
            found.require(target.is_none_or(|target| target.health_check.is_some()), || {
                format!("It waits for '{name}' to be HEALTHY, but '{name}' has no healthCheck.")
            });
        }
        "COMPLETE" | "SUCCESS" => {
            found.require(target.is_none_or(|target| !target.essential), || {
                format!(
                    "It waits for '{name}' to be {condition}, but '{name}' is essential: its end would stop the task."
                )
            });
        }
        other => found.add(&format!(
            "Condition `{other}` in dependsOn is invalid: use START, COMPLETE, SUCCESS or HEALTHY.{}",
            did_you_mean(other, ["START", "COMPLETE", "SUCCESS", "HEALTHY"])
        )),
    }
}

fn health_check(found: &mut Findings, check: &HealthCheck) {
    let kind = check.command.first().map_or("", String::as_str);
    if found.require(["CMD", "CMD-SHELL", "NONE"].contains(&kind), || {
        "The health check's `command` must start with CMD, CMD-SHELL or NONE.".to_owned()
    }) {
        found.require(kind == "NONE" || check.command.len() > 1, || {
            "The health check's `command` names no command.".to_owned()
        });
    }
    for (name, value, low, high) in [
        ("interval", check.interval, 5, 300),
        ("timeout", check.timeout, 2, 120),
        ("retries", check.retries, 1, 10),
        ("startPeriod", check.start_period.unwrap_or(0), 0, 300),
    ] {
        found.require((low..=high).contains(&value), || {
            format!("The health check's `{name}` must be {low} to {high}, not {value}.")
        });
    }
}

/// Checks that `dependsOn` and links form no cycle.
fn no_cycle(found: &mut Findings, definition: &TaskDefinition) {
    let mut waiting: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    // An unknown container is a problem of its own.
    let is_known = |name: &&str| definition.container_definitions.iter().any(|c| c.name == *name);
    for c in &definition.container_definitions {
        let depended = c.depends_on.iter().map(|dependency| dependency.container_name.as_str());
        let linked = c.links.iter().filter_map(|link| link.split(':').next());
        let mut targets: BTreeSet<&str> = depended.chain(linked).filter(is_known).collect();
        found.require(!targets.remove(c.name.as_str()), || format!("Container '{}' waits for itself.", c.name));
        waiting.insert(&c.name, targets);
    }
    while let Some(free) = waiting.iter().find(|(_, targets)| targets.is_empty()).map(|(name, _)| *name) {
        waiting.remove(free);
        waiting.values_mut().for_each(|targets| {
            targets.remove(free);
        });
    }
    // What only waits for the circle is not part of it.
    while let Some(outside) =
        waiting.keys().find(|name| !waiting.values().any(|targets| targets.contains(*name))).copied()
    {
        waiting.remove(outside);
    }
    found.require(waiting.is_empty(), || {
        let names: Vec<_> = waiting.keys().copied().collect();
        format!("Containers wait for each other in a circle: {}.", names.join(", "))
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    pub(super) fn verdict(change: impl FnOnce(&mut Value)) -> String {
        let mut definition = json!({
            "family": "web",
            "volumes": [{"name": "data"}],
            "containerDefinitions": [
                {"name": "a", "image": "busybox", "memory": 16},
                {"name": "b", "image": "busybox", "memory": 16, "essential": false},
            ],
        });
        change(&mut definition);
        let parsed = serde_json::from_value(definition).map_err(|error| error.to_string());
        parsed.and_then(|definition: TaskDefinition| validate(&definition)).err().unwrap_or_default()
    }

    pub(super) fn with_first(change: Value) -> String {
        verdict(|definition| {
            for (name, value) in change.as_object().unwrap() {
                definition["containerDefinitions"][0][name] = value.clone();
            }
        })
    }

    #[test]
    fn a_good_definition_passes() {
        assert_eq!(verdict(|_| ()), "");
    }

    #[test]
    fn tasks_are_refused_with_a_reason() {
        for (member, value, expected) in [
            ("family", json!(""), "Family should not be empty. Give the task definition a `family`."),
            ("family", json!("a b"), "Family `a b` is invalid"),
            ("containerDefinitions", json!([]), "Container list cannot be empty."),
            ("networkMode", json!("mesh"), "use bridge, host, none or awsvpc"),
            ("networkMode", json!("brigde"), "Did you mean `bridge`?"),
            ("requiresCompatibilities", json!(["FARGATE"]), "(EC2): remove it, and use networkMode bridge."),
            ("requiresCompatibilities", json!(["EC2", "FARGAT"]), "Did you mean `FARGATE`?"),
            ("cpu", json!("lots"), "Task `cpu` is invalid"),
            ("volumes", json!([{"name": "x"}, {"name": "x"}]), "used more than once"),
            ("containerz", json!([]), "unknown field `containerz`"),
        ] {
            let text = verdict(|definition| definition[member] = value);
            assert!(text.contains(expected), "{member}: {text}");
        }
    }

    #[test]
    fn all_problems_are_reported_at_once() {
        let text = verdict(|definition| {
            *definition = json!({"family": "a b", "networkMode": "brigde", "cpu": "lots", "containerDefinitions": [
                {"name": "web", "image": "", "links": ["none"], "environment": [{"name": ""}, {"name": "A=B"}],
                    "healthCheck": {"command": ["CMD", "true"], "interval": 1, "retries": 99}},
                {"name": "b c", "image": "i", "memory": 2, "dependsOn": [{"containerName": "wep", "condition": "START"}]},
            ], "volumes": [{"name": "v", "host": {"sourcePath": "x"}}, {"name": "w", "dockerVolumeConfiguration": {"scope": "all"}}]});
        });
        let lines: Vec<&str> = text.split("\n  ").skip(1).collect();
        for (line, wanted) in lines.iter().zip([
            "Family `a b` is invalid",
            "Network mode `brigde` is invalid",
            "Task `cpu` is invalid",
            "Invalid setting for volume 'v'. `sourcePath` `x` must be",
            "Invalid setting for volume 'w'. Scope `all`",
            "Invalid setting for container 'web'. `image` must name",
            "Invalid setting for container 'web'. At least one of 'memory'",
            "Invalid setting for container 'web'. Unknown container 'none' in links",
            "Invalid setting for container 'web'. The name of an environment variable is empty",
            "Invalid setting for container 'web'. Environment variable name `A=B` must not contain",
            "Invalid setting for container 'web'. The health check's `interval`",
            "Invalid setting for container 'web'. The health check's `retries`",
            "Invalid setting for containerDefinitions[1].name",
            "Invalid setting for containerDefinitions[1]. `memory` must be at least 4",
            "Invalid setting for containerDefinitions[1]. Unknown container 'wep' in dependsOn. Did you mean `web`?",
        ]) {
            assert!(line.starts_with(wanted), "{line}\n{wanted}\nin{text}");
        }
        assert_eq!(lines.len(), 15, "{text}");
    }

    #[test]
    fn the_reported_problems_are_bounded() {
        let many: Vec<Value> =
            (0..500).map(|number| json!({"name": format!("a={number}{}", "x".repeat(5000))})).collect();
        let text = with_first(json!({"environment": many}));
        assert_eq!(text.lines().filter(|line| line.contains("`a=")).count(), 20);
        assert!(text.ends_with("\n  There may be more: these are the first.") && text.len() < 25_000, "{}", text.len());
    }

    #[test]
    fn one_launch_type_that_exists_here_is_enough() {
        for list in [json!([]), json!(["EC2"]), json!(["FARGATE", "EC2"]), json!(["EXTERNAL", "FARGATE"])] {
            assert_eq!(verdict(|definition| definition["requiresCompatibilities"] = list.clone()), "", "{list}");
        }
    }

    #[test]
    fn containers_are_refused_with_a_reason() {
        for (change, expected) in [
            (json!({"name": "b"}), "used more than once"),
            (json!({"name": ""}), "Invalid setting for containerDefinitions[0].name: it must be 1 to 255 letters"),
            (json!({"name": "a b"}), "underscores and hyphens, not `a b`."),
            (json!({"image": ""}), "must name an image"),
            (json!({"memory": null}), "At least one of 'memory' or 'memoryReservation'"),
            (json!({"memory": 2}), "at least 4 MiB"),
            (json!({"memory": "64"}), "invalid type: string"),
            (json!({"memory": 8, "memoryReservation": 9}), "must not be below"),
            (json!({"essential": false}), "does not have any essential container"),
            (json!({"portMappings": [{"containerPort": 80, "protocol": "sctp"}]}), "use tcp or udp"),
            (json!({"portMappings": [{}]}), "needs a `containerPort`"),
            (json!({"portMappings": [{"containerPortRange": "9-8"}]}), "`9-8` is invalid"),
            (
                json!({"portMappings": [{"containerPortRange": "8000-8200"}, {"containerPortRange": "8200-8300"}]}),
                "Port range 8000-8200 (tcp) overlaps",
            ),
            (
                json!({"portMappings": [{"containerPortRange": "80-90"}, {"containerPort": 85}]}),
                "Port range 80-90 (tcp) overlaps",
            ),
            (json!({"memory": null, "memoryReservation": 0}), "At least one of 'memory' or 'memoryReservation'"),
            (json!({"healthCheck": {"command": ["CMD", "true"], "interval": 4}}), "`interval` must be 5 to 300"),
            (json!({"healthCheck": {"command": ["CMD", "true"], "timeout": 1}}), "`timeout` must be 2 to 120"),
            (json!({"portMappings": [{"containerPortRange": "80-81", "hostPort": 80}]}), "neither `containerPort` nor"),
            (
                json!({"portMappings": [{"containerPort": 1, "hostPort": 9}, {"containerPort": 2, "hostPort": 9}]}),
                "Host port 9 is mapped more than once in container 'a'.",
            ),
            (json!({"mountPoints": [{"sourceVolume": "dta", "containerPath": "/x"}]}), "Did you mean `data`?"),
            (
                json!({"volumesFrom": [{"sourceContainer": "bb"}]}),
                "Unknown container 'bb' in volumesFrom. Did you mean `b`?",
            ),
            (
                json!({"dependsOn": [{"containerName": "b", "condition": "COMPLETED"}]}),
                "HEALTHY. Did you mean `COMPLETE`?",
            ),
            (
                json!({"mountPoints": [{"sourceVolume": "none", "containerPath": "/x"}]}),
                "Unknown volume 'none' in mountPoints. Name it in `volumes`",
            ),
            (json!({"mountPoints": [{"sourceVolume": "data", "containerPath": "x"}]}), "absolute path"),
            (json!({"links": ["none:alias"]}), "Unknown container 'none' in links"),
            (
                json!({"dependsOn": [{"containerName": "none", "condition": "START"}]}),
                "Unknown container 'none' in dependsOn",
            ),
            (json!({"dependsOn": [{"containerName": "b", "condition": "HEALTHY"}]}), "has no healthCheck"),
            (json!({"dependsOn": [{"containerName": "b", "condition": "LATER"}]}), "use START, COMPLETE"),
            (json!({"dependsOn": [{"containerName": "a", "condition": "START"}]}), "Container 'a' waits for itself."),
            (json!({"links": ["a"]}), "Container 'a' waits for itself."),
            (json!({"healthCheck": {"command": ["true"]}}), "must start with CMD"),
            (json!({"healthCheck": {"command": ["CMD", "true"], "retries": 11}}), "must be 1 to 10"),
            (json!({"environment": [{"name": "A=B", "value": ""}]}), "must not contain `=`"),
        ] {
            let text = with_first(change.clone());
            assert!(text.contains(expected), "{change}: {text}");
        }
    }

    #[test]
    fn both_mistakes_of_a_dependency_are_reported() {
        let text = with_first(json!({"dependsOn": [{"containerName": "none", "condition": "LATER"}]}));
        assert!(text.contains("Unknown container 'none' in dependsOn"), "{text}");
        assert!(text.contains("Condition `LATER` in dependsOn is invalid"), "{text}");
    }

    #[test]
    fn a_circle_is_named_without_what_only_waits_for_it() {
        let start = |name: &str| json!([{"containerName": name, "condition": "START"}]);
        let text = verdict(|definition| {
            let mut more = definition["containerDefinitions"][1].clone();
            (more["name"], more["dependsOn"]) = (json!("waiting"), start("a"));
            definition["containerDefinitions"][0]["dependsOn"] = start("b");
            definition["containerDefinitions"][1]["dependsOn"] = start("a");
            definition["containerDefinitions"].as_array_mut().unwrap().push(more);
        });
        assert!(text.contains("Containers wait for each other in a circle: a, b."), "{text}");
    }

    #[test]
    fn waiting_for_the_end_of_an_essential_container_is_refused() {
        let text = verdict(|definition| {
            definition["containerDefinitions"][1]["dependsOn"] =
                json!([{"containerName": "a", "condition": "SUCCESS"}]);
        });
        assert!(text.contains("its end would stop the task"), "{text}");
    }
}
