//! What `up` cannot run in a task definition that ECS takes. This module owns the list, so that a person learns of everything at
//! once, before anything is started. Invariant: what is refused here would be refused at the placement or by the agent, too.

use super::machine::{GPU_LIST, Machine};
use crate::definition::{LOG_DRIVERS, TaskDefinition, read};
use serde_json::Value;

/// A member that is refused.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refused {
    /// The object that has the member, as a JSON pointer.
    parent: String,
    /// The member; empty if its mistakes are still to be found.
    member: &'static str,
    /// The member's place and the remedy, in words.
    pub(super) text: String,
}

impl Refused {
    /// A problem whose member stays for the search for mistakes.
    fn kept(text: String) -> Self {
        Self { parent: String::new(), member: "", text }
    }
}

/// The refused members; empty if there are none.
pub(super) fn refused(definition: &Value, machine: &Machine) -> Vec<Refused> {
    let mut found = without_counterpart(definition, machine);
    found.extend(architecture(definition, machine));
    for (at, container) in definition["containerDefinitions"].as_array().into_iter().flatten().enumerate() {
        let has_role = !definition["executionRoleArn"].is_null();
        found.extend(log_driver(&container["logConfiguration"], at, has_role, machine));
        let needs = container["resourceRequirements"].as_array().into_iter().flatten();
        if !machine.has_gpus && needs.into_iter().any(|need| need["type"] == "GPU") {
            found.push(Refused::kept(format!(
                "containerDefinitions[{at}].resourceRequirements: this machine has no list of GPUs ({GPU_LIST}, see examples/tasks.md): \
                 write it, or remove the GPU"
            )));
        }
    }
    found.extend(volume_names(definition));
    found.extend(too_large(definition, machine));
    found
}

/// Names of shared volumes that Docker does not take. ECS takes them, and the agent gives them to Docker as they are.
fn volume_names(definition: &Value) -> Vec<Refused> {
    let volumes = definition["volumes"].as_array().into_iter().flatten().enumerate();
    let shared = volumes.filter(|(_, volume)| volume["dockerVolumeConfiguration"]["scope"] == "shared");
    let is_name = |name: &str| name.len() > 1 && name.starts_with(|first: char| first.is_ascii_alphanumeric());
    let named = shared.filter_map(|(at, volume)| Some((at, volume["name"].as_str()?)));
    let refused = named.filter(|(_, name)| !name.is_empty() && !is_name(name)).map(|(at, name)| {
        Refused::kept(format!(
            "volumes[{at}].name: Docker needs a name of two or more characters that begins with a letter or number, not `{name}`"
        ))
    });
    refused.collect()
}

/// Members for which there is nothing on any machine of a developer.
fn without_counterpart(definition: &Value, machine: &Machine) -> Vec<Refused> {
    let mut found = Vec::new();
    let launch_types = definition["requiresCompatibilities"].as_array();
    if launch_types.is_some_and(|list| is_elsewhere(list)) {
        found.push((
            "requiresCompatibilities",
            "requiresCompatibilities: tasks run on this machine, as on EC2: remove it",
        ));
    }
    if definition["networkMode"] == "awsvpc" && !machine.has_networks {
        found.push(("networkMode", "networkMode awsvpc: run ecs-local as root, or use bridge, host or none"));
    }
    if !definition["ephemeralStorage"].is_null() {
        found.push(("ephemeralStorage", "ephemeralStorage: it is for tasks on Fargate: remove it"));
    }
    let refused = |(member, why): (&'static str, &str)| Refused { parent: String::new(), member, text: why.to_owned() };
    found.into_iter().map(refused).collect()
}

/// The images are for another CPU architecture.
fn architecture(definition: &Value, machine: &Machine) -> Option<Refused> {
    let (wanted, has) = (definition["runtimePlatform"]["cpuArchitecture"].as_str()?, machine.architecture?);
    // Any other word is a mistake.
    let is_other = ["X86_64", "ARM64"].contains(&wanted) && wanted != has;
    is_other.then(|| Refused {
        parent: "/runtimePlatform".to_owned(),
        member: "cpuArchitecture",
        text: format!("runtimePlatform: this machine has the CPU architecture {has}, not {wanted}: remove it, and use images for {has}"),
    })
}

/// The agent does not offer the log driver of container `at`.
fn log_driver(log: &Value, at: usize, has_role: bool, machine: &Machine) -> Option<Refused> {
    let driver = log["logDriver"].as_str()?;
    let is_offered = driver == "awsfirelens" || machine.drivers.iter().any(|offered| offered == driver);
    let place = format!("containerDefinitions[{at}].logConfiguration");
    let remove = "remove `logConfiguration`: `up` shows the output itself";
    if driver == "awslogs" && (has_role || !is_offered) {
        let parent = format!("/containerDefinitions/{at}");
        return Some(Refused { parent, member: "logConfiguration", text: format!("{place}: {remove}") });
    }
    // Any other word is a mistake.
    (!is_offered && LOG_DRIVERS.contains(&driver)).then(|| {
        let all: Vec<String> =
            machine.drivers.iter().map(String::as_str).chain([driver]).map(|name| format!("\"{name}\"")).collect();
        Refused::kept(format!(
            "{place}: the log driver {driver} is off: add -- ECS_AVAILABLE_LOGGING_DRIVERS='[{}]', or {remove}",
            all.join(",")
        ))
    })
}

/// The task needs more than this machine has. A definition that cannot be read has mistakes instead.
fn too_large(definition: &Value, machine: &Machine) -> Vec<Refused> {
    let Ok(spec) = read::<TaskDefinition>("It", definition) else { return Vec::new() };
    let mut found = Vec::new();
    let (memory, cpu) = (spec.memory_mib(), spec.cpu_units());
    if let Some(has) = machine.memory.filter(|has| memory > *has) {
        found.push(format!("memory: the task needs {memory} MiB, and this machine has {has} MiB for tasks: lower it"));
    }
    if cpu > machine.cpu {
        let has = machine.cpu;
        found.push(format!("cpu: the task needs {cpu} CPU units, and this machine has {has}: lower it"));
    }
    found.into_iter().map(Refused::kept).collect()
}

/// The definition without what is refused.
pub(super) fn without(definition: &Value, refused: &[Refused]) -> Value {
    let mut rest = definition.clone();
    for Refused { parent, member, .. } in refused {
        if let Some(members) = rest.pointer_mut(parent).and_then(Value::as_object_mut) {
            members.remove(*member);
        }
    }
    rest
}

/// The launch types are known, and none of them exists on this machine. Wrong names are the API's to explain.
fn is_elsewhere(list: &[Value]) -> bool {
    !list.is_empty() && list.iter().all(|name| name == "FARGATE" || name == "MANAGED_INSTANCES")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::io::Write;
    use std::process::{Command, Stdio};

    fn machine() -> Machine {
        Machine {
            drivers: vec!["json-file".to_owned(), "none".to_owned()],
            architecture: Some("X86_64"),
            memory: Some(2000),
            cpu: 2048,
            has_gpus: false,
            has_networks: false,
        }
    }

    #[test]
    fn a_name_that_docker_does_not_take_is_refused() {
        let volume = |name: &str, scope: &str| json!({"name": name, "dockerVolumeConfiguration": {"scope": scope}});
        let definition = json!({"volumes": [
            volume("v", "shared"), volume("_ab", "shared"), volume("ab", "shared"), volume("v", "task"), {"name": "v"}, {"name": 5},
        ]});
        let found: Vec<String> = refused(&definition, &machine()).into_iter().map(|refused| refused.text).collect();
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].starts_with("volumes[0].name: ") && found[0].ends_with("not `v`"), "{found:?}");
        assert!(found[1].starts_with("volumes[1].name: "), "{found:?}");
    }

    /// A definition as a service on Fargate has it, in the form of DescribeTaskDefinition.
    fn described() -> Value {
        json!({"taskDefinition": {
            "family": "web", "revision": 7, "status": "ACTIVE", "networkMode": "awsvpc", "requiresCompatibilities": ["FARGATE"],
            "compatibilities": ["EC2", "FARGATE"], "cpu": "256", "memory": "512", "ephemeralStorage": {"sizeInGiB": 30},
            "runtimePlatform": {"cpuArchitecture": "ARM64", "operatingSystemFamily": "LINUX"},
            "taskRoleArn": "arn:aws:iam::123456789012:role/web", "executionRoleArn": "arn:aws:iam::123456789012:role/pull",
            "containerDefinitions": [
                {"name": "web", "image": "busybox", "logConfiguration": {"logDriver": "awslogs", "options": {"awslogs-group": "web"}}},
                {"name": "side", "image": "busybox", "logConfiguration": {"logDriver": "none"}},
                {"name": "plain", "image": "busybox"},
            ],
        }})
    }

    #[test]
    fn all_refused_members_are_named_at_once() {
        let definition = &described()["taskDefinition"];
        let found = refused(definition, &machine());
        assert_eq!(refused(&without(definition, &found), &machine()), []);
        let names: Vec<&str> = found.iter().filter_map(|refused| refused.text.split([':', ' ']).next()).collect();
        let wanted = [
            "requiresCompatibilities",
            "networkMode",
            "ephemeralStorage",
            "runtimePlatform",
            "containerDefinitions[0].logConfiguration",
        ];
        assert_eq!(names, wanted);
        assert!(found[4].text.ends_with("remove `logConfiguration`: `up` shows the output itself"), "{found:?}");
    }

    #[test]
    fn what_a_setting_or_another_launch_type_allows_passes() {
        let logs = json!({"containerDefinitions": [{"logConfiguration": {"logDriver": "awslogs"}}]});
        assert_eq!(refused(&logs, &machine()).len(), 1);
        let offering = Machine { drivers: vec!["json-file".to_owned(), "awslogs".to_owned()], ..machine() };
        assert!(refused(&logs, &offering).is_empty());
        let mut with_role = logs;
        with_role["executionRoleArn"] = json!("r");
        assert_eq!(refused(&with_role, &offering).len(), 1, "no setting allows it");
        for list in [json!(["EC2", "FARGATE"]), json!([]), json!(["EC3"]), json!(null)] {
            assert!(refused(&json!({"requiresCompatibilities": list}), &machine()).is_empty(), "{list}");
        }
    }

    #[test]
    fn what_this_machine_does_not_have_is_named_at_once() {
        let definition = json!({"family": "f", "cpu": "4 vCPU", "runtimePlatform": {"cpuArchitecture": "ARM64"}, "containerDefinitions": [
            {"name": "a", "image": "i", "memory": 4000, "logConfiguration": {"logDriver": "splunk"}},
            {"name": "b", "image": "i", "memory": 8, "resourceRequirements": [{"type": "GPU", "value": "1"}],
                "logConfiguration": {"logDriver": "splnk"}},
        ]});
        let found = refused(&definition, &machine());
        let texts: Vec<&str> = found.iter().map(|refused| refused.text.as_str()).collect();
        for (text, part) in texts.iter().zip([
            "runtimePlatform: this machine has the CPU architecture X86_64, not ARM64: remove it",
            "containerDefinitions[0].logConfiguration: the log driver splunk is off: add -- \
             ECS_AVAILABLE_LOGGING_DRIVERS='[\"json-file\",\"none\",\"splunk\"]', or remove",
            "containerDefinitions[1].resourceRequirements: this machine has no list of GPUs (/var/lib/ecs/gpu",
            "memory: the task needs 4008 MiB, and this machine has 2000 MiB for tasks",
            "cpu: the task needs 4096 CPU units, and this machine has 2048",
        ]) {
            assert!(text.starts_with(part), "{text}\n{part}");
        }
        assert_eq!(texts.len(), 5, "{texts:?}");
        // Mistakes are still found in what is left.
        let mistakes = crate::definition::checked(&without(&definition, &found)).unwrap_err();
        assert!(mistakes.contains("Log driver `splnk` is invalid"), "{mistakes}");
        let large = Machine {
            drivers: vec!["splunk".to_owned()],
            architecture: Some("ARM64"),
            memory: None,
            cpu: 4096,
            has_gpus: true,
            has_networks: true,
        };
        assert_eq!(refused(&definition, &large), []);
    }

    #[test]
    fn the_filter_of_the_page_removes_what_is_refused() {
        let page = include_str!("../../../examples/ecs-local.md");
        let filter = page.split("jq '").nth(1).and_then(|rest| rest.split('\'').next()).unwrap();
        let Ok(mut jq) = Command::new("jq").arg(filter).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn() else {
            eprintln!("SKIPPED: jq is not installed");
            return;
        };
        jq.stdin.take().unwrap().write_all(described().to_string().as_bytes()).unwrap();
        let output = jq.wait_with_output().unwrap();
        let mut filtered: Value = serde_json::from_slice(&output.stdout).unwrap();
        let definition = filtered["taskDefinition"].take();
        assert_eq!(refused(&definition, &machine()), []);
        assert_eq!(
            definition["executionRoleArn"],
            described()["taskDefinition"]["executionRoleArn"],
            "secrets need it"
        );
        assert_eq!(definition["containerDefinitions"][1]["logConfiguration"]["logDriver"], "none");
    }
}
