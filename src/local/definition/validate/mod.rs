//! Checks task definitions and explains errors so that a person can act on them. This module owns the rules of
//! RegisterTaskDefinition; it changes nothing. Invariant: a definition that passes can be turned into a payload without further
//! checks.

mod ports;
mod rule;
mod storage;
mod system;
mod values;

use super::{ContainerDefinition, HealthCheck, TaskDefinition};
use crate::suggestion::did_you_mean;
use rule::{Verdict, is_name, require};
use std::collections::{BTreeMap, BTreeSet};

/// The network modes of the API.
const NETWORK_MODES: [&str; 4] = ["bridge", "host", "none", "awsvpc"];
/// The launch types of the API. Tasks run on container instances here, so one of the first two must be in a list.
const COMPATIBILITIES: [&str; 4] = ["EC2", "EXTERNAL", "FARGATE", "MANAGED_INSTANCES"];

/// Checks a definition. The error describes the first problem.
pub(crate) fn validate(definition: &TaskDefinition) -> Verdict {
    let family = &definition.family;
    require(!family.is_empty(), || "Family should not be empty. Give the task definition a `family`.".to_owned())?;
    require(is_name(family), || {
        format!("Family `{family}` is invalid: up to 255 letters, numbers, underscores and hyphens are allowed.")
    })?;
    let containers = &definition.container_definitions;
    require(!containers.is_empty(), || "Container list cannot be empty.".to_owned())?;
    require(containers.len() <= 10, || "A task definition can have at most 10 containers.".to_owned())?;
    require(containers.iter().any(|c| c.essential), || {
        "Task definition does not have any essential container: at least one must have `essential` true.".to_owned()
    })?;
    task_settings(definition)?;
    let mut names = BTreeSet::new();
    for (at, container) in containers.iter().enumerate() {
        require(is_name(&container.name), || {
            let given = if container.name.is_empty() { String::new() } else { format!(", not `{}`", container.name) };
            format!(
                "Invalid setting for containerDefinitions[{at}].name: it must be 1 to 255 letters, numbers, underscores and hyphens{given}."
            )
        })?;
        require(names.insert(container.name.as_str()), || {
            format!("Container name `{}` is used more than once; names must be unique in a task.", container.name)
        })?;
        one_container(definition, container)
            .map_err(|problem| format!("Invalid setting for container '{}'. {problem}", container.name))?;
    }
    ports::taken_once(definition)?;
    no_cycle(definition)
}

fn task_settings(definition: &TaskDefinition) -> Verdict {
    let mode = definition.network_mode();
    require(NETWORK_MODES.contains(&mode), || {
        let suggestion = did_you_mean(mode, NETWORK_MODES);
        format!("Network mode `{mode}` is invalid: use bridge, host, none or awsvpc.{suggestion}")
    })?;
    compatibilities(definition)?;
    require(definition.cpu.is_none() || definition.cpu_limit().is_some(), || {
        "Task `cpu` is invalid: use CPU units (\"256\") or vCPUs (\".25 vCPU\").".to_owned()
    })?;
    require(definition.memory.is_none() || definition.memory_limit().is_some(), || {
        "Task `memory` is invalid: use MiB (\"512\") or GB (\"0.5 GB\").".to_owned()
    })?;
    system::task(definition)?;
    storage::volumes(definition)?;
    values::log_routing(definition)
}

/// As in ECS, a list names all launch types that the definition can have: one that this server has is enough.
fn compatibilities(definition: &TaskDefinition) -> Verdict {
    let Some(list) = definition.requires_compatibilities.as_deref().filter(|list| !list.is_empty()) else {
        return Ok(());
    };
    if let Some(unknown) = list.iter().find(|name| !COMPATIBILITIES.contains(&name.as_str())) {
        let suggestion = did_you_mean(unknown, COMPATIBILITIES);
        return Err(format!("requiresCompatibilities `{unknown}` is invalid: use EC2.{suggestion}"));
    }
    require(list.iter().any(|name| COMPATIBILITIES[..2].contains(&name.as_str())), || {
        format!(
            "requiresCompatibilities `{}` cannot be met here, where tasks run on container instances (EC2): remove it, and use \
             networkMode bridge.",
            list.join("`, `")
        )
    })
}

fn one_container(definition: &TaskDefinition, c: &ContainerDefinition) -> Verdict {
    require(!c.image.is_empty() && !c.image.contains(char::is_whitespace), || {
        "`image` must name an image, without spaces.".to_owned()
    })?;
    memory(definition, c)?;
    ports::container(definition, c)?;
    references(definition, c)?;
    for variable in &c.environment {
        require(!variable.name.is_empty() && !variable.name.contains('='), || {
            format!("Environment variable name `{}` must not be empty or hold `=`.", variable.name)
        })?;
    }
    values::container(definition, c)?;
    system::container(definition, c)?;
    c.health_check.as_ref().map_or(Ok(()), health_check)
}

fn memory(definition: &TaskDefinition, c: &ContainerDefinition) -> Verdict {
    let given = c.memory.is_some() || c.memory_reservation.is_some_and(|mib| mib > 0) || definition.memory.is_some();
    require(given, || "At least one of 'memory' or 'memoryReservation' must be specified.".to_owned())?;
    require(c.memory.is_none_or(|mib| mib >= 4), || "`memory` must be at least 4 MiB.".to_owned())?;
    if let (Some(hard), Some(soft)) = (c.memory, c.memory_reservation) {
        require(hard >= soft, || format!("`memory` ({hard}) must not be below `memoryReservation` ({soft})."))?;
    }
    let over_limit = definition.memory_limit().is_some_and(|limit| u64::from(c.memory.unwrap_or(0)) > limit);
    require(!over_limit, || "`memory` must not exceed the task's memory.".to_owned())
}

fn references(definition: &TaskDefinition, c: &ContainerDefinition) -> Verdict {
    let find = |name: &str| definition.container_definitions.iter().find(|other| other.name == name);
    let unknown = |name: &str, place: &str| {
        let names = definition.container_definitions.iter().map(|other| other.name.as_str());
        format!("Unknown container '{name}' in {place}.{}", did_you_mean(name, names.filter(|other| *other != c.name)))
    };
    for mount in &c.mount_points {
        require(definition.volumes.iter().any(|volume| volume.name == mount.source_volume), || {
            let names = definition.volumes.iter().map(|volume| volume.name.as_str());
            format!(
                "Unknown volume '{0}' in mountPoints.{1}",
                mount.source_volume,
                did_you_mean(&mount.source_volume, names)
            )
        })?;
        require(mount.container_path.starts_with('/'), || {
            format!("`containerPath` `{}` must be an absolute path.", mount.container_path)
        })?;
    }
    for from in &c.volumes_from {
        require(find(&from.source_container).is_some(), || unknown(&from.source_container, "volumesFrom"))?;
    }
    for link in &c.links {
        let target = link.split(':').next().unwrap_or_default();
        require(find(target).is_some(), || unknown(target, "links"))?;
        require(definition.network_mode() == "bridge", || {
            "Links are only supported when the network mode is bridge.".to_owned()
        })?;
    }
    for dependency in &c.depends_on {
        let name = &dependency.container_name;
        let Some(target) = find(name) else { return Err(unknown(name, "dependsOn")) };
        match dependency.condition.as_str() {
            "START" => {}
            "HEALTHY" => require(target.health_check.is_some(), || {
                format!("It waits for '{name}' to be HEALTHY, but '{name}' has no healthCheck.")
            })?,
            "COMPLETE" | "SUCCESS" => require(!target.essential, || {
                format!(
                    "It waits for '{name}' to be {}, but '{name}' is essential: its end would stop the task.",
                    dependency.condition
                )
            })?,
            other => {
                return Err(format!(
                    "Condition `{other}` in dependsOn is invalid: use START, COMPLETE, SUCCESS or HEALTHY.{}",
                    did_you_mean(other, ["START", "COMPLETE", "SUCCESS", "HEALTHY"])
                ));
            }
        }
    }
    Ok(())
}

fn health_check(check: &HealthCheck) -> Verdict {
    let kind = check.command.first().map_or("", String::as_str);
    require(["CMD", "CMD-SHELL", "NONE"].contains(&kind), || {
        "The health check's `command` must start with CMD, CMD-SHELL or NONE.".to_owned()
    })?;
    require(kind == "NONE" || check.command.len() > 1, || "The health check's `command` names no command.".to_owned())?;
    for (name, value, low, high) in [
        ("interval", check.interval, 5, 300),
        ("timeout", check.timeout, 2, 120),
        ("retries", check.retries, 1, 10),
        ("startPeriod", check.start_period.unwrap_or(0), 0, 300),
    ] {
        require((low..=high).contains(&value), || {
            format!("The health check's `{name}` must be {low} to {high}, not {value}.")
        })?;
    }
    Ok(())
}

/// Checks that `dependsOn` and links form no cycle.
fn no_cycle(definition: &TaskDefinition) -> Verdict {
    let mut waiting: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for c in &definition.container_definitions {
        let depended = c.depends_on.iter().map(|dependency| dependency.container_name.as_str());
        let linked = c.links.iter().filter_map(|link| link.split(':').next());
        waiting.insert(&c.name, depended.chain(linked).collect());
    }
    while let Some(free) = waiting.iter().find(|(_, targets)| targets.is_empty()).map(|(name, _)| *name) {
        waiting.remove(free);
        waiting.values_mut().for_each(|targets| {
            targets.remove(free);
        });
    }
    require(waiting.is_empty(), || {
        let names: Vec<_> = waiting.keys().copied().collect();
        format!("Containers wait for each other in a circle: {}.", names.join(", "))
    })
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
        parsed.and_then(|definition| validate(&definition)).err().unwrap_or_default()
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
            (json!({"mountPoints": [{"sourceVolume": "none", "containerPath": "/x"}]}), "Unknown volume 'none'"),
            (json!({"mountPoints": [{"sourceVolume": "data", "containerPath": "x"}]}), "absolute path"),
            (json!({"links": ["none:alias"]}), "Unknown container 'none' in links"),
            (
                json!({"dependsOn": [{"containerName": "none", "condition": "START"}]}),
                "Unknown container 'none' in dependsOn",
            ),
            (json!({"dependsOn": [{"containerName": "b", "condition": "HEALTHY"}]}), "has no healthCheck"),
            (json!({"dependsOn": [{"containerName": "b", "condition": "LATER"}]}), "use START, COMPLETE"),
            (json!({"dependsOn": [{"containerName": "a", "condition": "START"}]}), "in a circle: a"),
            (json!({"healthCheck": {"command": ["true"]}}), "must start with CMD"),
            (json!({"healthCheck": {"command": ["CMD", "true"], "retries": 11}}), "must be 1 to 10"),
            (json!({"environment": [{"name": "A=B", "value": ""}]}), "must not be empty or hold"),
        ] {
            let text = with_first(change.clone());
            assert!(text.contains(expected), "{change}: {text}");
        }
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
