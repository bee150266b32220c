//! The published ports of a container that are reported to ECS (spec `task-engine.md` §14).
//!
//! Owns the choice: each port that the task definition names, and one binding for each of its ranges, found by the range's first
//! port. Other ports that Docker publishes, from the image or from raw Docker settings, are not reported. Pure.

use crate::model::task::{PortMapping, PortRange};
use crate::model::{ContainerSpec, PortBinding, RangeBinding};

/// Bindings of single ports, in the order of Docker.
pub(super) fn single(spec: &ContainerSpec, bound: &[PortBinding]) -> Vec<PortBinding> {
    let is_same_port = |port: &PortMapping, binding: &PortBinding| {
        port.container_port == binding.container_port && port.protocol == binding.protocol
    };
    let is_named = |binding: &&PortBinding| spec.ports.iter().any(|port| is_same_port(port, binding));
    bound.iter().filter(is_named).cloned().collect()
}

/// One binding for each range and each address that it is bound to.
pub(super) fn ranges(spec: &ContainerSpec, bound: &[PortBinding]) -> Vec<RangeBinding> {
    spec.port_ranges.iter().flat_map(|range| bindings_of(range, bound)).collect()
}

fn bindings_of<'a>(range: &'a PortRange, bound: &'a [PortBinding]) -> impl Iterator<Item = RangeBinding> + 'a {
    let is_first_port =
        |binding: &&PortBinding| binding.container_port == range.first && binding.protocol == range.protocol;
    bound.iter().filter(is_first_port).map(|binding| RangeBinding {
        container_ports: (range.first, range.last),
        host_ports: (binding.host_port, binding.host_port.saturating_add(range.count() - 1)),
        bind_ip: binding.bind_ip.clone(),
        protocol: range.protocol,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Protocol;

    fn bound(container_port: u16, host_port: u16, bind_ip: &str, protocol: Protocol) -> PortBinding {
        PortBinding { container_port, host_port, bind_ip: bind_ip.to_owned(), protocol }
    }

    /// Ports that the task definition does not name are not reported.
    #[test]
    fn a_range_is_reported_as_one_binding_for_each_address() {
        let range = |first, last, protocol| PortRange { first, last, protocol };
        let spec = ContainerSpec {
            ports: vec![PortMapping { container_port: 80, host_port: 0, protocol: Protocol::Tcp }],
            port_ranges: vec![range(1000, 1002, Protocol::Tcp), range(1000, 1000, Protocol::Udp)],
            ..ContainerSpec::default()
        };
        let all = [
            bound(80, 9000, "0.0.0.0", Protocol::Tcp),
            bound(99, 9001, "0.0.0.0", Protocol::Tcp),
            bound(1000, 40_000, "0.0.0.0", Protocol::Tcp),
            bound(1000, 40_000, "::", Protocol::Tcp),
            bound(1000, 50_000, "0.0.0.0", Protocol::Udp),
            bound(1001, 40_001, "0.0.0.0", Protocol::Tcp),
            bound(1002, 40_002, "0.0.0.0", Protocol::Tcp),
        ];
        assert_eq!(single(&spec, &all), [all[0].clone()]);
        let range_binding = |container_ports, host_ports, bind_ip: &str, protocol| RangeBinding {
            container_ports,
            host_ports,
            bind_ip: bind_ip.to_owned(),
            protocol,
        };
        let wanted = [
            range_binding((1000, 1002), (40_000, 40_002), "0.0.0.0", Protocol::Tcp),
            range_binding((1000, 1002), (40_000, 40_002), "::", Protocol::Tcp),
            range_binding((1000, 1000), (50_000, 50_000), "0.0.0.0", Protocol::Udp),
        ];
        assert_eq!(ranges(&spec, &all), wanted);
        assert_eq!(ranges(&spec, &all[..2]), []);
    }
}
