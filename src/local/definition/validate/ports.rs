//! Checks port mappings: their form, and that no port of the host is wanted twice.

use super::super::{ContainerDefinition, PortMapping, TaskDefinition};
use super::rule::Findings;
use std::collections::BTreeMap;

/// Maximum number of port ranges of one container (ECS API reference, PortMapping).
const MAX_RANGES: usize = 100;

/// Checks that each port of the host, or of the network that containers share, is mapped once.
pub(super) fn taken_once(found: &mut Findings, definition: &TaskDefinition) {
    let is_joined = ["host", "awsvpc"].contains(&definition.network_mode());
    let mut takers: BTreeMap<(u16, &str), &str> = BTreeMap::new();
    for c in &definition.container_definitions {
        for port in &c.port_mappings {
            let number = if is_joined { port.container_port } else { port.host_port };
            if number == 0 {
                continue;
            }
            if let Some(taker) = takers.insert((number, &port.protocol), &c.name) {
                let place = match taker == c.name {
                    true => format!("in container '{taker}'"),
                    false => format!("in containers '{taker}' and '{}'", c.name),
                };
                found.add(&format!("Host port {number} is mapped more than once {place}."));
            }
        }
    }
}

/// Checks the port mappings of one container.
pub(super) fn container(found: &mut Findings, definition: &TaskDefinition, c: &ContainerDefinition) {
    let mode = definition.network_mode();
    for port in &c.port_mappings {
        let number = port.container_port;
        found.require(["tcp", "udp"].contains(&port.protocol.as_str()), || {
            format!("Protocol `{}` of port {number} is invalid: use tcp or udp.", port.protocol)
        });
        match &port.container_port_range {
            Some(range) => port_range(found, definition, port, range),
            None => {
                found.require(number != 0, || {
                    "A port mapping needs a `containerPort` from 1 to 65535 (or a `containerPortRange`).".to_owned()
                });
            }
        }
        let joined = mode == "host" || mode == "awsvpc";
        found.require(!joined || port.host_port == 0 || port.host_port == number, || {
            format!(
                "In network mode {mode}, `hostPort` ({}) must equal `containerPort` ({number}) or be left out.",
                port.host_port
            )
        });
    }
    no_overlap(found, &c.port_mappings);
}

fn port_range(found: &mut Findings, definition: &TaskDefinition, port: &PortMapping, range: &str) {
    found.require(port.container_port == 0 && port.host_port == 0, || {
        "A port mapping with `containerPortRange` can have neither `containerPort` nor `hostPort`.".to_owned()
    });
    found.require(["bridge", "awsvpc"].contains(&definition.network_mode()), || {
        "`containerPortRange` needs network mode bridge or awsvpc.".to_owned()
    });
    found.require(ends(range).is_some(), || {
        format!("`containerPortRange` `{range}` is invalid: give the first and the last port, as in 8080-8090.")
    });
}

/// The first and last port of a range; `None` if the text is not a range.
fn ends(range: &str) -> Option<(u16, u16)> {
    let (first, last) = range.split_once('-')?;
    let (first, last) = (first.parse().ok()?, last.parse().ok()?);
    (0 < first && first < last).then_some((first, last))
}

/// Checks that no port of a range is in another mapping of the container.
fn no_overlap(found: &mut Findings, ports: &[PortMapping]) {
    let ranges: Vec<_> = ports
        .iter()
        .filter_map(|port| Some((port.protocol.as_str(), ends(port.container_port_range.as_deref()?)?)))
        .collect();
    found.require(ranges.len() <= MAX_RANGES, || format!("A container can have at most {MAX_RANGES} port ranges."));
    let single = ports.iter().filter(|port| port.container_port != 0);
    let single = single.map(|port| (port.protocol.as_str(), (port.container_port, port.container_port)));
    let all: Vec<_> = ranges.iter().copied().chain(single).collect();
    for (at, (protocol, (first, last))) in ranges.iter().enumerate() {
        let overlaps =
            |(_, (other, (from, to))): &(usize, &(&str, (u16, u16)))| other == protocol && from <= last && first <= to;
        let twice = all.iter().enumerate().filter(|(other, _)| *other != at).find(overlaps);
        found.require(twice.is_none(), || {
            format!("Port range {first}-{last} ({protocol}) overlaps with another port mapping of the container.")
        });
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::verdict;
    use serde_json::json;

    #[test]
    fn two_containers_cannot_have_one_port_of_the_host() {
        let with = |mode: &str, first: serde_json::Value, second: serde_json::Value| {
            verdict(|definition| {
                definition["networkMode"] = json!(mode);
                definition["containerDefinitions"][0]["portMappings"] = json!([first]);
                definition["containerDefinitions"][1]["portMappings"] = json!([second]);
            })
        };
        let port = |inner: u16, host: u16| json!({"containerPort": inner, "hostPort": host});
        let clash = "is mapped more than once in containers 'a' and 'b'.";
        assert_eq!(with("bridge", port(80, 8080), port(81, 8080)), format!("Host port 8080 {clash}"));
        assert_eq!(with("host", json!({"containerPort": 80}), port(80, 80)), format!("Host port 80 {clash}"));
        let udp = json!({"containerPort": 80, "hostPort": 8080, "protocol": "udp"});
        for (first, second) in [(port(80, 8080), udp), (port(80, 0), port(80, 0)), (port(80, 8080), port(80, 8081))] {
            assert_eq!(with("bridge", first.clone(), second.clone()), "", "{first} {second}");
        }
    }
}
