//! What a task holds of its instance: CPU, memory, ports and GPUs. It owns the count of them; who has room for it is
//! [`super::placement`]'s part.

use super::definition::{ContainerDefinition, TaskDefinition};
use serde_json::Value;
use std::collections::BTreeSet;

/// What a task holds of its instance.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Need {
    /// CPU units.
    pub(super) cpu: u64,
    /// MiB.
    pub(super) memory: u64,
    /// Host ports.
    pub(super) tcp: BTreeSet<u16>,
    /// Host ports.
    pub(super) udp: BTreeSet<u16>,
    /// How many GPUs it asks for.
    pub(super) gpu_count: usize,
    /// Those it was given.
    pub(super) gpus: BTreeSet<String>,
}

impl Need {
    /// What a task of this definition holds.
    pub(super) fn of(definition: &TaskDefinition) -> Self {
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

    /// What a scripted payload task holds.
    pub(super) fn of_payload(task: &Value) -> Self {
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

    /// Adds what another task holds.
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

    fn definition(change: Value) -> TaskDefinition {
        let mut definition = json!({"family": "f", "containerDefinitions": [
            {"name": "a", "image": "i", "cpu": 100, "memory": 64, "memoryReservation": 32,
             "portMappings": [{"containerPort": 80, "hostPort": 8080}, {"containerPort": 81}]},
        ]});
        for (name, value) in change.as_object().unwrap() {
            definition[name] = value.clone();
        }
        serde_json::from_value(definition).unwrap()
    }

    #[test]
    fn needs_come_from_containers_or_the_task() {
        let need = Need::of(&definition(json!({})));
        assert_eq!((need.cpu, need.memory, need.tcp), (100, 32, BTreeSet::from([8080])));
        let need = Need::of(&definition(json!({"cpu": "1 vCPU", "memory": "1 GB", "networkMode": "host"})));
        assert_eq!((need.cpu, need.memory, need.tcp), (1024, 1024, BTreeSet::from([8080, 81])));
        assert_eq!(Need::of(&definition(json!({"networkMode": "awsvpc"}))).tcp, BTreeSet::new());
    }
}
