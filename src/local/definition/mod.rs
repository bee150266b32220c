//! Task definitions as `aws ecs register-task-definition` takes them. It owns their types and defaults; `validate` says what is
//! wrong with one, `requires` what an instance must be able to do. Invariant: an unknown member is an error, never ignored.

mod requires;
mod shapes;
mod validate;

pub(super) use requires::required_attributes;
pub(super) use shapes::*;
pub(super) use validate::validate;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

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
    /// `bridge` unless said otherwise, as on EC2.
    pub(super) fn network_mode(&self) -> &str {
        self.network_mode.as_deref().unwrap_or("bridge")
    }

    /// The task's CPU units: its own limit, or what its containers ask for.
    pub(super) fn cpu_units(&self) -> u64 {
        self.cpu_limit().unwrap_or_else(|| self.container_definitions.iter().map(|c| u64::from(c.cpu)).sum())
    }

    /// The task's memory in MiB: its own limit, or what its containers reserve.
    pub(super) fn memory_mib(&self) -> u64 {
        self.memory_limit()
            .unwrap_or_else(|| self.container_definitions.iter().map(ContainerDefinition::reserved).sum())
    }

    /// The task-level CPU limit in units: `256`, `.25 vCPU`.
    pub(super) fn cpu_limit(&self) -> Option<u64> {
        self.cpu.as_deref().and_then(|text| quantity(text, "vcpu"))
    }

    /// The task-level memory limit in MiB: `512`, `0.5 GB`.
    pub(super) fn memory_limit(&self) -> Option<u64> {
        self.memory.as_deref().and_then(|text| quantity(text, "gb"))
    }
}

impl ContainerDefinition {
    /// MiB that count at placement: the soft limit when there is one.
    pub(super) fn reserved(&self) -> u64 {
        u64::from(self.memory_reservation.or(self.memory).unwrap_or(0))
    }

    /// How many GPUs it asks for.
    pub(super) fn gpu_count(&self) -> usize {
        let counts = self.resource_requirements.iter().filter(|it| it.kind == "GPU");
        counts.filter_map(|it| it.value.parse::<usize>().ok()).sum()
    }
}

/// `512` as it is; with the larger unit behind it, 1024 times the number.
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

/// Takes `null` members out, at every depth: the API leaves unset members away.
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
mod tests {
    use super::*;

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
