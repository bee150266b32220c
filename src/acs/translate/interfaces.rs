//! `elasticNetworkInterfaces`: the network interfaces of a task in network mode `awsvpc` (spec `networking.md` §3.4).
//!
//! Owns the checks of an interface, with the texts of the Go agent. It does not look for the device. Invariant: every address of a
//! translated interface is an address, every text is bounded and without control characters, and no two interfaces of a task have
//! the same hardware address. The Go agent only checks that texts are there; a wrong one fails in its plugins, without a reason
//! that reaches ECS.

use super::reason::TaskError;
use crate::acs::limits::{MAX_ADDRESSES, MAX_ID, MAX_INTERFACES};
use crate::acs::wire;
use crate::input::prefix::prefix;
use ecs_core::model::text::cleaned;
use ecs_core::model::{Interface, InterfaceKind, MacAddress, Prefix};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What the checks of the Go agent begin with.
const VALIDATION: &str = "eni message validation";
/// The association protocol of a VLAN of the trunk interface.
const BRANCH: &str = "vlan";
/// Number of VLANs; ids begin at 1.
const MAX_VLAN: u16 = 4094;

/// Translates the interfaces of a task, the primary one first.
pub(super) fn all(wire: &[wire::NetworkInterface]) -> Result<Vec<Interface>, TaskError> {
    if wire.len() > MAX_INTERFACES {
        let count = wire.len();
        return Err(unfit(&format!("the task has {count} network interfaces, more than {MAX_INTERFACES}")));
    }
    let mut in_order: Vec<&wire::NetworkInterface> = wire.iter().collect();
    in_order.sort_by_key(|interface| interface.index.as_i64().unwrap_or(0));
    let interfaces: Vec<Interface> = in_order.into_iter().map(interface).collect::<Result<_, _>>()?;
    let mut addresses = BTreeSet::new();
    match interfaces.iter().find(|interface| !addresses.insert(interface.mac)) {
        Some(double) => Err(unfit(&format!("two network interfaces have the mac address {}", double.mac))),
        None => Ok(interfaces),
    }
}

/// The checks of the Go agent, for interfaces of a payload and of an attach message. The error is its text.
pub(in crate::acs) fn validate(wire: &wire::NetworkInterface) -> Result<(), String> {
    let (family, gateway) = match is_ipv6_only(wire) {
        true => ("ipv6", &wire.subnet_gateway_ipv6_address),
        false => ("ipv4", &wire.subnet_gateway_ipv4_address),
    };
    let vlan = &wire.interface_vlan_properties;
    let lacks_vlan = vlan.vlan_id.is_empty() || vlan.trunk_interface_mac_address.is_empty();
    let protocol = wire.interface_association_protocol.as_str();
    if family == "ipv4" && wire.ipv4_addresses.is_empty() {
        Err(format!("{VALIDATION}: no ipv4 addresses in the message"))
    } else if gateway.is_empty() {
        Err(format!("{VALIDATION}: no subnet gateway {family} address in the message"))
    } else if gateway.matches('/').count() != 1 {
        Err(format!("{VALIDATION}: invalid subnet gateway {family} address {gateway}"))
    } else if wire.mac_address.is_empty() {
        Err(format!("{VALIDATION}: empty eni mac address in the message"))
    } else if wire.ec2_id.is_empty() {
        Err(format!("{VALIDATION}: empty eni id in the message"))
    } else if !matches!(protocol, "" | "default" | BRANCH) {
        Err(format!("invalid interface association protocol: {protocol}"))
    } else if protocol == BRANCH && lacks_vlan {
        Err("vlan interface properties missing".to_owned())
    } else {
        Ok(())
    }
}

/// Whether the interface is a VLAN of the trunk interface.
pub(in crate::acs) fn is_branch(wire: &wire::NetworkInterface) -> bool {
    wire.interface_association_protocol == BRANCH
}

fn is_ipv6_only(wire: &wire::NetworkInterface) -> bool {
    wire.ipv4_addresses.is_empty() && !wire.ipv6_addresses.is_empty()
}

fn interface(wire: &wire::NetworkInterface) -> Result<Interface, TaskError> {
    validate(wire).map_err(TaskError::Malformed)?;
    let texts = [&wire.ec2_id, &wire.attachment_arn, &wire.private_dns_name];
    if let Some(text) = texts.into_iter().chain(&wire.domain_name).find(|text| text.len() > MAX_ID) {
        return Err(unfit(&format!("a text of the network interface has {} bytes, more than {MAX_ID}", text.len())));
    }
    let counts = [wire.ipv4_addresses.len(), wire.ipv6_addresses.len(), wire.domain_name.len()];
    if counts.into_iter().chain([wire.domain_name_servers.len()]).any(|count| count > MAX_ADDRESSES) {
        return Err(unfit(&format!("a list of the network interface has more than {MAX_ADDRESSES} entries")));
    }
    let mut ipv4: Vec<&wire::Ipv4Address> = wire.ipv4_addresses.iter().collect();
    ipv4.sort_by_key(|address| !address.primary);
    let ipv4 = ipv4.into_iter().map(|address| parsed(&address.private_address, "ipv4 address"));
    let ipv6 = wire.ipv6_addresses.iter().map(|address| parsed(&address.address, "ipv6 address"));
    let servers = wire.domain_name_servers.iter();
    let servers = servers.map(|server| Ok(parsed::<IpAddr>(server, "name server address")?.to_string()));
    let needs_ipv6_gateway = is_ipv6_only(wire);
    Ok(Interface {
        id: cleaned(&wire.ec2_id),
        attachment: cleaned(&wire.attachment_arn),
        mac: mac(&wire.mac_address)?,
        kind: kind(wire)?,
        ipv4: ipv4.collect::<Result<Vec<Ipv4Addr>, _>>()?,
        ipv6: ipv6.collect::<Result<Vec<Ipv6Addr>, _>>()?,
        gateway_ipv4: gateway(&wire.subnet_gateway_ipv4_address, "ipv4", !needs_ipv6_gateway)?,
        gateway_ipv6: gateway(&wire.subnet_gateway_ipv6_address, "ipv6", needs_ipv6_gateway)?,
        name_servers: servers.collect::<Result<_, TaskError>>()?,
        search_domains: wire.domain_name.iter().map(|domain| cleaned(domain)).collect(),
        private_dns_name: cleaned(&wire.private_dns_name),
    })
}

fn kind(wire: &wire::NetworkInterface) -> Result<InterfaceKind, TaskError> {
    if !is_branch(wire) {
        return Ok(InterfaceKind::Standard);
    }
    let wire::VlanProperties { vlan_id, trunk_interface_mac_address } = &wire.interface_vlan_properties;
    let vlan = vlan_id.parse::<u16>().ok().filter(|vlan| (1..=MAX_VLAN).contains(vlan));
    let vlan = vlan.ok_or_else(|| unfit(&format!("invalid vlan id {}", cleaned(vlan_id))))?;
    Ok(InterfaceKind::Branch { vlan, trunk: mac(trunk_interface_mac_address)? })
}

fn mac(text: &str) -> Result<MacAddress, TaskError> {
    parsed(text, "mac address")
}

fn parsed<A: std::str::FromStr>(text: &str, what: &str) -> Result<A, TaskError> {
    text.parse().map_err(|_| unfit(&format!("invalid {what} {}", cleaned(text))))
}

/// The gateway of one family. If the interface does not need it, a text that is no gateway counts as none, as in the Go agent.
fn gateway<A>(text: &str, family: &str, is_needed: bool) -> Result<Option<Prefix<A>>, TaskError>
where
    A: std::str::FromStr + Copy + Into<IpAddr>,
{
    match prefix(text) {
        None if is_needed => Err(unfit(&format!("invalid subnet gateway {family} address {}", cleaned(text)))),
        gateway => Ok(gateway),
    }
}

/// A check that the Go agent does not have.
fn unfit(cause: &str) -> TaskError {
    TaskError::Unfit(format!("{VALIDATION}: {cause}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::input::json::Raw;
    use serde_json::{Value, json};

    /// A recording of the Go agent.
    fn golden(name: &str) -> Value {
        let path = format!("{}/tests/golden/awsvpc/{name}.json", env!("CARGO_MANIFEST_DIR"));
        serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
    }

    fn translated(interfaces: &Value) -> Result<Vec<Interface>, (String, bool)> {
        let task = json!({"elasticNetworkInterfaces": interfaces}).to_string();
        let task: wire::Task = wire::decode(Raw::new(&task)).unwrap();
        all(&task.elastic_network_interfaces).map_err(|error| error.reason_for("arn"))
    }

    fn changed(change: impl FnOnce(&mut Value)) -> Result<Interface, (String, bool)> {
        let mut interface = golden("dual_stack")["interfaces"][0].clone();
        change(&mut interface);
        translated(&json!([interface])).map(|mut interfaces| interfaces.remove(0))
    }

    fn shown(interface: &Interface) -> String {
        let gateways = [interface.gateway_ipv4.map(|gateway| gateway.to_string())];
        let gateways = gateways.into_iter().chain([interface.gateway_ipv6.map(|gateway| gateway.to_string())]);
        let addresses = interface.ipv4_prefixes().map(|address| address.to_string());
        let addresses = addresses.chain(interface.ipv6_prefixes().map(|address| address.to_string()));
        let parts: Vec<String> = [interface.mac.to_string()].into_iter().chain(addresses).collect();
        format!("{} via {}", parts.join(" "), gateways.flatten().collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn every_recorded_interface_is_translated() {
        let table = [
            ("dual_stack", "06:00:00:00:01:01 10.0.1.100/24 fd00:1::100/64 via 10.0.1.1/24"),
            ("ipv6_only", "06:00:00:00:01:01 fd00:1::100/64 via fd00:1::1/64"),
            ("branch_eni", "06:00:00:00:03:01 10.0.3.50/24 via 10.0.3.1/24"),
            ("app_mesh", "06:00:00:00:01:01 10.0.1.100/24 via 10.0.1.1/24"),
        ];
        for (name, expected) in table {
            let interfaces = translated(&golden(name)["interfaces"]).unwrap();
            assert_eq!(interfaces.iter().map(shown).collect::<Vec<_>>(), [expected], "{name}");
            assert_eq!(interfaces[0].name_servers, ["10.0.0.2"]);
            assert_eq!(interfaces[0].search_domains, ["us-west-2.compute.internal"]);
            assert!(interfaces[0].attachment.starts_with("arn:aws:ecs:us-west-2:123456789012:attachment/"));
            assert!(interfaces[0].private_dns_name.starts_with("ip-10-0-"));
        }
        let branch = translated(&golden("branch_eni")["interfaces"]).unwrap().remove(0);
        let trunk = MacAddress([6, 0, 0, 0, 2, 1]);
        assert_eq!(
            (branch.id.as_str(), branch.kind),
            ("eni-0b0000000000000b", InterfaceKind::Branch { vlan: 101, trunk })
        );
        let mut two = golden("two_interfaces")["interfaces"].clone();
        two[1]["index"] = json!(1); // both are 0 in the recording
        let order = |interfaces: &Value| -> Vec<String> {
            translated(interfaces).unwrap().iter().map(|interface| interface.mac.to_string()).collect()
        };
        let recorded = order(&two);
        assert_eq!(recorded.len(), 2);
        two.as_array_mut().unwrap().reverse();
        assert_eq!(order(&two), recorded, "the index decides");
    }

    #[test]
    fn the_primary_address_comes_first() {
        let address = |address: &str, primary: bool| json!({"privateAddress": address, "primary": primary});
        let list = json!([address("10.0.1.9", false), address("10.0.1.8", false), address("10.0.1.100", true)]);
        let interface = changed(|interface| interface["ipv4Addresses"] = list).unwrap();
        let addresses: Vec<_> = interface.ipv4.iter().map(ToString::to_string).collect();
        assert_eq!(addresses, ["10.0.1.100", "10.0.1.9", "10.0.1.8"]);
    }

    #[test]
    fn the_checks_of_the_go_agent_have_its_texts() {
        let without = |name: &str| {
            let error = changed(|interface| drop(interface.as_object_mut().unwrap().remove(name))).unwrap_err();
            assert!(error.1, "{name}: the message is not acknowledged");
            error.0
        };
        let text = |cause: &str| format!("UnrecogniedTaskError: Error loading task - {cause}");
        let validation = |cause: &str| text(&format!("eni message validation: {cause}"));
        assert_eq!(without("subnetGatewayIpv4Address"), validation("no subnet gateway ipv4 address in the message"));
        assert_eq!(without("macAddress"), validation("empty eni mac address in the message"));
        assert_eq!(without("ec2Id"), validation("empty eni id in the message"));
        assert_eq!(without("ipv4Addresses"), validation("no subnet gateway ipv6 address in the message"));
        let with = |name: &str, value: Value| changed(|interface| interface[name] = value).unwrap_err();
        let malformed = |cause: String| (cause, true);
        for gateway in ["10.0.1.1", "10.0.1.1/24/24"] {
            let expected = validation(&format!("invalid subnet gateway ipv4 address {gateway}"));
            assert_eq!(with("subnetGatewayIpv4Address", json!(gateway)), malformed(expected));
        }
        let expected = text("invalid interface association protocol: veth");
        assert_eq!(with("interfaceAssociationProtocol", json!("veth")), malformed(expected));
        let expected = text("vlan interface properties missing");
        assert_eq!(with("interfaceAssociationProtocol", json!("vlan")), malformed(expected));
        let neither = changed(|interface| {
            (interface["ipv4Addresses"], interface["ipv6Addresses"]) = (json!([]), json!([]));
        });
        assert_eq!(neither.unwrap_err(), malformed(validation("no ipv4 addresses in the message")));
        let ipv6_only = changed(|interface| {
            interface["ipv4Addresses"] = json!([]);
            interface["subnetGatewayIpv6Address"] = json!("fd00:1::1");
        });
        let expected = validation("invalid subnet gateway ipv6 address fd00:1::1");
        assert_eq!(ipv6_only.unwrap_err(), malformed(expected));
    }

    #[test]
    fn what_is_no_address_is_named() {
        let list = |name: &str, value: &str| json!([{name: value}]);
        let vlan = |id: &str, trunk: &str| json!({"vlanId": id, "trunkInterfaceMacAddress": trunk});
        let table = [
            ("macAddress", json!("06:00:00:00:01"), "invalid mac address 06:00:00:00:01"),
            ("subnetGatewayIpv4Address", json!("10.0.1/24"), "invalid subnet gateway ipv4 address 10.0.1/24"),
            ("ipv4Addresses", list("privateAddress", "10.0.1.\n300"), "invalid ipv4 address 10.0.1. 300"),
            ("ipv6Addresses", list("address", "10.0.1.1"), "invalid ipv6 address 10.0.1.1"),
            ("domainNameServers", json!(["ns.example"]), "invalid name server address ns.example"),
            ("interfaceVlanProperties", vlan("4095", "06:00:00:00:02:01"), "invalid vlan id 4095"),
            ("interfaceVlanProperties", vlan("0", "06:00:00:00:02:01"), "invalid vlan id 0"),
            ("interfaceVlanProperties", vlan("1", "trunk"), "invalid mac address trunk"),
            (
                "privateDnsName",
                json!("x".repeat(2049)),
                "a text of the network interface has 2049 bytes, more than 2048",
            ),
            ("domainName", json!(vec!["x"; 65]), "a list of the network interface has more than 64 entries"),
        ];
        for (name, value, cause) in table {
            let error = changed(|interface| {
                if name == "interfaceVlanProperties" {
                    interface["interfaceAssociationProtocol"] = json!("vlan");
                }
                interface[name] = value;
            });
            let expected = format!("UnrecogniedTaskError: Error loading task - eni message validation: {cause}");
            assert_eq!(error.unwrap_err(), (expected, false), "{name}");
        }
        // The gateway of a family that the interface does not need is not checked.
        let dual = changed(|interface| interface["subnetGatewayIpv6Address"] = json!("none")).unwrap();
        assert_eq!(dual.gateway_ipv6, None);
        let first = golden("dual_stack")["interfaces"][0].clone();
        let text = translated(&json!([first, first])).unwrap_err().0;
        assert!(text.ends_with("two network interfaces have the mac address 06:00:00:00:01:01"), "{text}");
        let many: Vec<_> = (0..=MAX_INTERFACES).map(|_| &first).collect();
        assert!(translated(&json!(many)).unwrap_err().0.contains("17 network interfaces, more than 16"));
    }
}
