//! The resources that a task takes from its instance: CPU, memory, ports and GPUs. This module owns their count;
//! [`super::placement`] chooses an instance that has enough of them.

use super::definition::{ContainerDefinition, TaskDefinition};
use serde_json::Value;
use std::collections::BTreeSet;

/// The resources of one task, or of all tasks of an instance.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Need {
    /// CPU units.
    pub(super) cpu: u64,
    /// Memory, in MiB.
    pub(super) memory: u64,
    /// TCP ports of the host.
    pub(super) tcp: BTreeSet<u16>,
    /// UDP ports of the host.
    pub(super) udp: BTreeSet<u16>,
    /// The number of GPUs that the task needs.
    pub(super) gpu_count: usize,
    /// Ids of the GPUs that the task has; empty before the task is placed.
    pub(super) gpus: BTreeSet<String>,
}

impl Need {
    /// The need of a task with this definition.
    pub(super) fn from_definition(definition: &TaskDefinition) -> Self {
        let gpu_count = definition.container_definitions.iter().map(ContainerDefinition::gpu_count).sum();
        let (cpu, memory) = (definition.cpu_units(), definition.memory_mib());
        let mut need = Self { cpu, memory, gpu_count, ..Self::default() };
        if definition.network_mode() == "awsvpc" {
            return need;
        }
        for port in definition.container_definitions.iter().flat_map(|container| &container.port_mappings) {
            let joined = definition.network_mode() == "host" && port.host_port == 0;
            need.port(if joined { port.container_port } else { port.host_port }, &port.protocol);
        }
        need
    }

    /// The need of a payload task that a script wrote.
    pub(super) fn from_payload(task: &Value) -> Self {
        let mut need = Self::default();
        for container in task["containers"].as_array().into_iter().flatten() {
            need.cpu += container["cpu"].as_u64().unwrap_or(0);
            need.memory += container["memory"].as_u64().unwrap_or(0);
            for port in container["portMappings"].as_array().into_iter().flatten() {
                let number = port["hostPort"].as_u64().and_then(|number| u16::try_from(number).ok()).unwrap_or(0);
                need.port(number, port["protocol"].as_str().unwrap_or("tcp"));
            }
        }
        need
    }

    fn port(&mut self, number: u16, protocol: &str) {
        if number != 0 {
            let ports = if protocol == "udp" { &mut self.udp } else { &mut self.tcp };
            ports.insert(number);
        }
    }

    /// Adds the need of another task.
    pub(super) fn add(&mut self, other: &Self) {
        self.cpu += other.cpu;
        self.memory += other.memory;
        self.tcp.extend(&other.tcp);
        self.udp.extend(&other.udp);
        self.gpus.extend(other.gpus.iter().cloned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn need(members: Value) -> Need {
        Need::from_definition(&TaskDefinition::example(&members))
    }

    #[test]
    fn needs_come_from_containers_or_the_task() {
        let own = need(json!({}));
        assert_eq!((own.cpu, own.memory, own.tcp), (100, 32, BTreeSet::from([8080])));
        let own = need(json!({"cpu": "1 vCPU", "memory": "1 GB", "networkMode": "host"}));
        assert_eq!((own.cpu, own.memory, own.tcp), (1024, 1024, BTreeSet::from([8080, 81])));
        assert_eq!(need(json!({"networkMode": "awsvpc"})).tcp, BTreeSet::new());
    }
}
