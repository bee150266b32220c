//! Port mappings: single ports and ranges (spec `docker-mapping.md` §6).
//!
//! Owns the validation of mappings. It chooses no host port. Invariant: a mapping is either a port or a range.

use super::super::wire;
use ecs_core::model::Protocol;
use ecs_core::model::task::{PortMapping, PortRange};

/// The port mappings of one container.
#[derive(Debug, Default)]
pub(super) struct Ports {
    pub(super) single: Vec<PortMapping>,
    pub(super) ranges: Vec<PortRange>,
}

/// Validates and translates the port mappings of one container.
pub(super) fn all(mappings: &[wire::PortMapping]) -> Result<Ports, String> {
    let mut ports = Ports::default();
    for wire in mappings {
        let protocol = protocol(&wire.protocol)?;
        if wire.container_port_range.is_empty() {
            let (container_port, host_port) = (wire.container_port, wire.host_port);
            if container_port == 0 {
                return Err("a port mapping has neither containerPort nor containerPortRange".to_owned());
            }
            ports.single.push(PortMapping { container_port, host_port, protocol });
        } else {
            ports.ranges.push(range(wire, protocol)?);
        }
    }
    Ok(ports)
}

fn protocol(name: &str) -> Result<Protocol, String> {
    match name {
        "" | "tcp" => Ok(Protocol::Tcp),
        "udp" => Ok(Protocol::Udp),
        other => Err(format!("unrecognized protocol {other}")),
    }
}

fn range(wire: &wire::PortMapping, protocol: Protocol) -> Result<PortRange, String> {
    let text = &wire.container_port_range;
    if wire.container_port != 0 || wire.host_port != 0 {
        return Err(format!("a port mapping has containerPort or hostPort besides containerPortRange {text}"));
    }
    let ends = text.split_once('-').and_then(|(first, last)| Some((port(first)?, port(last)?)));
    match ends {
        Some((first, last)) if first <= last => Ok(PortRange { first, last, protocol }),
        Some(_) | None => Err(format!("containerPortRange {text} is not a range of ports such as 8000-8010")),
    }
}

/// Parses a port of digits only: `parse` alone would accept a sign too.
fn port(text: &str) -> Option<u16> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten().filter(|port| *port != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping(container_port: u16, range: &str, host_port: u16) -> wire::PortMapping {
        wire::PortMapping { container_port, host_port, container_port_range: range.to_owned(), protocol: String::new() }
    }

    #[test]
    fn a_range_has_two_ends_in_order() {
        for (text, ends) in [("1-65535", (1, 65535)), ("80-80", (80, 80))] {
            let ports = all(&[mapping(0, text, 0), mapping(7, "", 8)]).unwrap();
            let [range] = &ports.ranges[..] else { panic!("{ports:?}") };
            assert_eq!(((range.first, range.last), range.protocol), (ends, Protocol::Tcp));
            assert_eq!(ports.single[0], PortMapping { container_port: 7, host_port: 8, protocol: Protocol::Tcp });
        }
        for text in ["0-5", "5", "5-4", "1-65536", "-5", "5-", "a-b", "1-2-3", "+1-2", " 1-2", "1 - 2", "-"] {
            let error = all(&[mapping(0, text, 0)]).unwrap_err();
            assert_eq!(error, format!("containerPortRange {text} is not a range of ports such as 8000-8010"));
        }
    }

    #[test]
    fn exactly_one_of_port_and_range() {
        let both = "a port mapping has containerPort or hostPort besides containerPortRange 1-2";
        assert_eq!(all(&[mapping(1, "1-2", 0)]).unwrap_err(), both);
        assert_eq!(all(&[mapping(0, "1-2", 1)]).unwrap_err(), both);
        let neither = "a port mapping has neither containerPort nor containerPortRange";
        assert_eq!(all(&[mapping(0, "", 80)]).unwrap_err(), neither);
    }
}
