//! Task definitions as `aws ecs register-task-definition` takes them. This module owns their types and defaults; `validate`
//! checks them, `requires` lists the attributes that an instance needs, `mistakes` finds all that cannot be read, `misplaced` what is at the
//! wrong level, and `unreadable` has the words. Invariant: an unknown member is an error, unless it is `null`, which counts as not set.

mod checked;
mod misplaced;
mod mistakes;
mod requires;
mod shapes;
mod unreadable;
mod validate;

pub(super) use checked::checked;
pub(super) use mistakes::decode;
pub(super) use requires::required_attributes;
pub(super) use shapes::*;
pub(super) use validate::{LOG_DRIVERS, validate};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// Reads a task definition, or its overrides, as a client of the API sends them. `what` names it in the error. A member that is `null`
/// counts as not set.
///
/// # Errors
/// All mistakes, in words.
pub(super) fn read<T: DeserializeOwned>(what: &str, given: &Value) -> Result<T, String> {
    decode(what, without_nulls(given.clone()))
}

/// A task definition. Members are named as in the ECS API (models/ecs-smithy.json, RegisterTaskDefinitionRequest).
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct TaskDefinition {
    #[serde(default)]
    pub(super) family: String,
    pub(super) task_role_arn: Option<String>,
    pub(super) execution_role_arn: Option<String>,
    pub(super) network_mode: Option<String>,
    #[serde(default)]
    pub(super) container_definitions: Vec<ContainerDefinition>,
    #[serde(default)]
    pub(super) volumes: Vec<Volume>,
    #[serde(default)]
    pub(super) placement_constraints: Vec<PlacementConstraint>,
    pub(super) requires_compatibilities: Option<Vec<String>>,
    pub(super) cpu: Option<String>,
    pub(super) memory: Option<String>,
    pub(super) pid_mode: Option<String>,
    pub(super) ipc_mode: Option<String>,
    pub(super) proxy_configuration: Option<ProxyConfiguration>,
    #[serde(default)]
    pub(super) inference_accelerators: Vec<Value>,
    pub(super) ephemeral_storage: Option<Value>,
    pub(super) runtime_platform: Option<RuntimePlatform>,
    pub(super) enable_fault_injection: Option<bool>,
    #[serde(default, skip_serializing)]
    pub(super) tags: Vec<Value>,
}

/// One container of a task definition.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ContainerDefinition {
    #[serde(default)]
    pub(super) name: String,
    #[serde(default)]
    pub(super) image: String,
    pub(super) repository_credentials: Option<RepositoryCredentials>,
    #[serde(default)]
    pub(super) cpu: u32,
    pub(super) memory: Option<u32>,
    pub(super) memory_reservation: Option<u32>,
    #[serde(default)]
    pub(super) links: Vec<String>,
    #[serde(default)]
    pub(super) port_mappings: Vec<PortMapping>,
    #[serde(default = "yes")]
    pub(super) essential: bool,
    pub(super) restart_policy: Option<RestartPolicy>,
    pub(super) entry_point: Option<Vec<String>>,
    pub(super) command: Option<Vec<String>>,
    #[serde(default)]
    pub(super) environment: Vec<KeyValue>,
    #[serde(default)]
    pub(super) environment_files: Vec<EnvironmentFile>,
    #[serde(default)]
    pub(super) mount_points: Vec<MountPoint>,
    #[serde(default)]
    pub(super) volumes_from: Vec<VolumeFrom>,
    pub(super) linux_parameters: Option<LinuxParameters>,
    #[serde(default)]
    pub(super) secrets: Vec<NamedSecret>,
    #[serde(default)]
    pub(super) depends_on: Vec<DependsOn>,
    pub(super) start_timeout: Option<u32>,
    pub(super) stop_timeout: Option<u32>,
    pub(super) hostname: Option<String>,
    pub(super) user: Option<String>,
    pub(super) working_directory: Option<String>,
    pub(super) disable_networking: Option<bool>,
    pub(super) privileged: Option<bool>,
    pub(super) readonly_root_filesystem: Option<bool>,
    pub(super) dns_servers: Option<Vec<String>>,
    pub(super) dns_search_domains: Option<Vec<String>>,
    pub(super) extra_hosts: Option<Vec<HostEntry>>,
    pub(super) docker_security_options: Option<Vec<String>>,
    pub(super) interactive: Option<bool>,
    pub(super) pseudo_terminal: Option<bool>,
    pub(super) docker_labels: Option<BTreeMap<String, String>>,
    pub(super) ulimits: Option<Vec<Ulimit>>,
    pub(super) log_configuration: Option<LogConfiguration>,
    pub(super) health_check: Option<HealthCheck>,
    pub(super) system_controls: Option<Vec<SystemControl>>,
    #[serde(default)]
    pub(super) resource_requirements: Vec<ResourceRequirement>,
    pub(super) firelens_configuration: Option<FirelensConfiguration>,
    #[serde(default)]
    pub(super) credential_specs: Vec<String>,
    pub(super) version_consistency: Option<String>,
}

fn yes() -> bool {
    true
}

impl TaskDefinition {
    /// The network mode; `bridge` if there is none, as on EC2.
    pub(super) fn network_mode(&self) -> &str {
        self.network_mode.as_deref().unwrap_or("bridge")
    }

    /// The task's CPU units: the limit of the task, or the sum over its containers.
    pub(super) fn cpu_units(&self) -> u64 {
        self.cpu_limit().unwrap_or_else(|| self.container_definitions.iter().map(|c| u64::from(c.cpu)).sum())
    }

    /// The task's memory in MiB: the limit of the task, or the sum that its containers reserve.
    pub(super) fn memory_mib(&self) -> u64 {
        self.memory_limit()
            .unwrap_or_else(|| self.container_definitions.iter().map(ContainerDefinition::reserved).sum())
    }

    /// The CPU limit of the task in units, from `256` or `.25 vCPU`; `None`: no limit, or not a number.
    pub(super) fn cpu_limit(&self) -> Option<u64> {
        self.cpu.as_deref().and_then(|text| quantity(text, "vcpu"))
    }

    /// The memory limit of the task in MiB, from `512` or `0.5 GB`; `None`: no limit, or not a number.
    pub(super) fn memory_limit(&self) -> Option<u64> {
        self.memory.as_deref().and_then(|text| quantity(text, "gb"))
    }
}

impl ContainerDefinition {
    /// Memory that counts at placement, in MiB: the soft limit if there is one, else the hard limit.
    pub(super) fn reserved(&self) -> u64 {
        u64::from(self.memory_reservation.or(self.memory).unwrap_or(0))
    }

    /// The number of GPUs that the container needs.
    pub(super) fn gpu_count(&self) -> usize {
        let counts = self.resource_requirements.iter().filter(|requirement| requirement.kind == "GPU");
        counts.filter_map(|requirement| requirement.value.parse::<usize>().ok()).sum()
    }
}

/// Reads a number. A number that is followed by `unit` is multiplied by 1024.
fn quantity(text: &str, unit: &str) -> Option<u64> {
    let text = text.trim().to_ascii_lowercase();
    match text.strip_suffix(unit) {
        Some(number) => {
            let number: f64 = number.trim().parse().ok()?;
            (number > 0.0 && number < 1e6).then_some((number * 1024.0).round() as u64)
        }
        None => text.parse().ok().filter(|number| *number > 0),
    }
}

/// Removes members that are `null`, at every depth: the API leaves unset members out. A `null` in a list stays.
pub(super) fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(members) => members
            .into_iter()
            .filter(|(_, member)| !member.is_null())
            .map(|(name, member)| (name, without_nulls(member)))
            .collect(),
        Value::Array(items) => Value::Array(items.into_iter().map(without_nulls).collect()),
        other => other,
    }
}

#[cfg(test)]
impl TaskDefinition {
    /// A definition of one container, with these members of the task added or replaced.
    pub(super) fn example(members: &Value) -> Self {
        let mut definition = serde_json::json!({"family": "f", "containerDefinitions": [
            {"name": "a", "image": "i", "cpu": 100, "memory": 64, "memoryReservation": 32,
             "portMappings": [{"containerPort": 80, "hostPort": 8080}, {"containerPort": 81}]},
        ]});
        for (name, value) in members.as_object().into_iter().flatten() {
            definition[name] = value.clone();
        }
        serde_json::from_value(definition).unwrap()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// A task definition with every member, each with a valid value.
    fn full() -> Value {
        let text = r#"{
            "family": "f", "taskRoleArn": "r", "executionRoleArn": "r", "networkMode": "bridge", "requiresCompatibilities": ["EC2"],
            "cpu": "256", "memory": "512", "pidMode": "task", "ipcMode": "task", "enableFaultInjection": false, "tags": [],
            "volumes": [{
                "name": "v", "host": {"sourcePath": "/s"}, "configuredAtLaunch": false, "fsxWindowsFileServerVolumeConfiguration": {},
                "s3filesVolumeConfiguration": {"fileSystemArn": "a", "rootDirectory": "/", "transitEncryptionPort": 1, "accessPointArn": "b"},
                "dockerVolumeConfiguration": {"scope": "task", "autoprovision": true, "driver": "d", "driverOpts": {"o": "p"}, "labels": {"l": "m"}},
                "efsVolumeConfiguration": {"fileSystemId": "fs", "rootDirectory": "/", "transitEncryption": "ENABLED", "transitEncryptionPort": 1,
                    "authorizationConfig": {"accessPointId": "a", "iam": "DISABLED"}}
            }],
            "placementConstraints": [{"type": "memberOf", "expression": "e"}], "inferenceAccelerators": [], "ephemeralStorage": {},
            "proxyConfiguration": {"type": "APPMESH", "containerName": "c", "properties": [{"name": "n", "value": "v"}]},
            "runtimePlatform": {"cpuArchitecture": "X86_64", "operatingSystemFamily": "LINUX"},
            "containerDefinitions": [{
                "name": "c", "image": "i", "repositoryCredentials": {"credentialsParameter": "p"}, "cpu": 1, "memory": 8, "memoryReservation": 4,
                "links": ["l"], "essential": true, "entryPoint": ["e"], "command": ["c"], "environment": [{"name": "n", "value": "v"}],
                "portMappings": [{"containerPort": 1, "hostPort": 2, "protocol": "tcp", "containerPortRange": "1-2", "name": "n", "appProtocol": "http"}],
                "restartPolicy": {"enabled": true, "ignoredExitCodes": [1], "restartAttemptPeriod": 60},
                "environmentFiles": [{"type": "s3", "value": "v"}], "mountPoints": [{"sourceVolume": "v", "containerPath": "/p", "readOnly": true}],
                "volumesFrom": [{"sourceContainer": "s", "readOnly": true}], "secrets": [{"name": "n", "valueFrom": "f"}],
                "dependsOn": [{"containerName": "c", "condition": "START"}], "startTimeout": 1, "stopTimeout": 1, "hostname": "h", "user": "u",
                "workingDirectory": "/w", "disableNetworking": false, "privileged": false, "readonlyRootFilesystem": false,
                "dnsServers": ["d"], "dnsSearchDomains": ["d"], "extraHosts": [{"hostname": "h", "ipAddress": "i"}],
                "dockerSecurityOptions": ["o"], "interactive": false, "pseudoTerminal": false, "dockerLabels": {"l": "m"},
                "ulimits": [{"name": "nofile", "softLimit": 1, "hardLimit": 2}],
                "logConfiguration": {"logDriver": "l", "options": {"o": "p"}, "secretOptions": [{"name": "n", "valueFrom": "f"}]},
                "healthCheck": {"command": ["CMD", "c"], "interval": 30, "timeout": 5, "retries": 3, "startPeriod": 1},
                "systemControls": [{"namespace": "n", "value": "v"}], "resourceRequirements": [{"type": "GPU", "value": "1"}],
                "firelensConfiguration": {"type": "fluentbit", "options": {"o": "p"}}, "credentialSpecs": ["s"], "versionConsistency": "enabled",
                "linuxParameters": {
                    "capabilities": {"add": ["a"], "drop": ["d"]}, "initProcessEnabled": true, "sharedMemorySize": 1, "maxSwap": 1, "swappiness": 1,
                    "devices": [{"hostPath": "h", "containerPath": "c", "permissions": ["read"]}],
                    "tmpfs": [{"containerPath": "/t", "size": 1, "mountOptions": ["o"]}]
                }
            }]
        }"#;
        serde_json::from_str(text).unwrap()
    }

    /// Members that the API requires: without a value they have no meaning.
    const REQUIRED: [&str; 21] = [
        "/volumes/0/name",
        "/volumes/0/efsVolumeConfiguration/fileSystemId",
        "/volumes/0/s3filesVolumeConfiguration/fileSystemArn",
        "/proxyConfiguration/containerName",
        "/containerDefinitions/0/repositoryCredentials/credentialsParameter",
        "/containerDefinitions/0/restartPolicy/enabled",
        "/containerDefinitions/0/environmentFiles/0/type",
        "/containerDefinitions/0/environmentFiles/0/value",
        "/containerDefinitions/0/secrets/0/name",
        "/containerDefinitions/0/secrets/0/valueFrom",
        "/containerDefinitions/0/dependsOn/0/",
        "/containerDefinitions/0/extraHosts/0/",
        "/containerDefinitions/0/ulimits/0/",
        "/containerDefinitions/0/logConfiguration/logDriver",
        "/containerDefinitions/0/logConfiguration/secretOptions/0/",
        "/containerDefinitions/0/healthCheck/command",
        "/containerDefinitions/0/resourceRequirements/0/",
        "/containerDefinitions/0/firelensConfiguration/type",
        "/containerDefinitions/0/linuxParameters/devices/0/hostPath",
        "/containerDefinitions/0/linuxParameters/tmpfs/0/containerPath",
        "/containerDefinitions/0/linuxParameters/tmpfs/0/size",
    ];

    /// Collects the JSON pointer of every member of a document.
    fn members(value: &Value, path: &str, found: &mut Vec<String>) {
        match value {
            Value::Object(map) => {
                for (name, value) in map {
                    found.push(format!("{path}/{name}"));
                    members(value, &format!("{path}/{name}"), found);
                }
            }
            Value::Array(list) => {
                list.iter().enumerate().for_each(|(at, value)| members(value, &format!("{path}/{at}"), found))
            }
            _ => {}
        }
    }

    #[test]
    fn null_is_a_member_that_is_not_set() {
        let (full, mut all) = (full(), Vec::new());
        members(&full, "", &mut all);
        assert!(read::<TaskDefinition>("It", &full).is_ok() && all.len() > 150, "{} members", all.len());
        for member in all {
            let mut null = full.clone();
            *null.pointer_mut(&member).unwrap() = Value::Null;
            let mut absent = full.clone();
            let (parent, name) = member.rsplit_once('/').unwrap();
            absent.pointer_mut(parent).unwrap().as_object_mut().unwrap().remove(name);
            let shown = |given: &Value| {
                let definition = read::<TaskDefinition>("It", given).map_err(|error| error.to_string());
                definition.map(|definition| serde_json::to_value(definition).unwrap())
            };
            assert_eq!(shown(&null), shown(&absent), "{member}");
            let is_required = REQUIRED.iter().any(|required| member.starts_with(required));
            assert_eq!(shown(&null).is_err(), is_required, "{member}");
        }
        assert!(read::<TaskDefinition>("It", &json!({"unknown": 1})).is_err(), "an unknown member is an error");
    }

    #[test]
    fn null_in_an_override_is_a_member_that_is_not_set() {
        let full = json!({
            "cpu": "256", "memory": "512", "taskRoleArn": "r", "executionRoleArn": "r", "ephemeralStorage": {}, "inferenceAcceleratorOverrides": [],
            "containerOverrides": [{
                "name": "c", "command": ["c"], "environment": [{"name": "n", "value": "v"}], "cpu": 1, "memory": 2, "memoryReservation": 1,
                "environmentFiles": [{"type": "s3", "value": "v"}], "resourceRequirements": [{"type": "GPU", "value": "1"}],
            }],
        });
        let mut all = Vec::new();
        members(&full, "", &mut all);
        for member in all {
            let mut null = full.clone();
            *null.pointer_mut(&member).unwrap() = Value::Null;
            let is_required = member.contains("Files/0/") || member.contains("Requirements/0/");
            assert_eq!(read::<TaskOverride>("It", &null).is_err(), is_required, "{member}");
        }
    }

    #[test]
    fn quantities_come_with_and_without_unit() {
        for (text, unit, expected) in [
            ("256", "vcpu", Some(256)),
            (".25 vCPU", "vcpu", Some(256)),
            ("1 vcpu", "vcpu", Some(1024)),
            ("0.5GB", "gb", Some(512)),
            ("0", "gb", None),
            ("-1 GB", "gb", None),
            ("much", "gb", None),
        ] {
            assert_eq!(quantity(text, unit), expected, "{text}");
        }
    }
}
