//! Checks of a request that need no look at the host.

use super::steps::{Cause, Done, Steps};
use ecs_core::model::interface::{Interface, InterfaceKind, MacAddress, NetworkRequest, Prefix};
use ecs_netlink::Network;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

/// The addresses on the bridge, and the host's among them.
pub(super) const LOCAL: Prefix<Ipv4Addr> = Prefix { address: Ipv4Addr::new(169, 254, 172, 0), length: 22 };
pub(super) const HOST: Ipv4Addr = Ipv4Addr::new(169, 254, 172, 1);
/// The address at which containers reach the agent.
pub(super) const AGENT: Ipv4Addr = Ipv4Addr::new(169, 254, 170, 2);

/// An IPv4 or IPv6 network.
pub(super) fn network<A: Copy + Into<IpAddr>>(prefix: Prefix<A>) -> Network {
    Network { address: prefix.address.into(), length: prefix.length }
}

/// Checks a request for a set-up.
pub(super) fn check(steps: &Steps, request: &NetworkRequest) -> Done {
    steps.take("check the interfaces of the task", || {
        let (local, range) = (request.local_address, network(LOCAL));
        let last = Ipv4Addr::new(169, 254, 175, 255);
        if !range.contains(local.into()) || [LOCAL.address, HOST, last].contains(&local) {
            return Err(Cause::Text(format!(
                "the task's local address {local} is not one of 169.254.172.2 to 169.254.175.254"
            )));
        }
        let mut seen = BTreeSet::new();
        for interface in &request.interfaces {
            check_interface(interface, &mut seen).map_err(Cause::Text)?;
        }
        Ok(())
    })
}

fn check_interface(interface: &Interface, seen: &mut BTreeSet<MacAddress>) -> Result<(), String> {
    let Interface { id, mac, kind, gateway_ipv4, .. } = interface;
    if !seen.insert(*mac) {
        return Err(format!("the hardware address {mac} of {id} is that of another interface of the task"));
    }
    if let InterfaceKind::Branch { vlan, .. } = kind
        && !(1..=4094).contains(vlan)
    {
        return Err(format!("{id} has the VLAN id {vlan}, which is not one of 1 to 4094"));
    }
    // Addresses of 169.254.172.0/22 lead to the host.
    for prefix in interface.ipv4_prefixes().chain(*gateway_ipv4) {
        if network(prefix).overlaps(&network(LOCAL)) || network(prefix).contains(AGENT.into()) {
            return Err(format!(
                "the subnet {} of {id} overlaps 169.254.172.0/22 or has the address 169.254.170.2, over which tasks reach the agent",
                network_text(prefix)
            ));
        }
    }
    let lengths = interface.ipv4_prefixes().map(|prefix| (prefix.length, 32));
    let mut lengths = lengths.chain(interface.ipv6_prefixes().map(|prefix| (prefix.length, 128)));
    match lengths.find(|(length, max)| length > max) {
        Some((length, _)) => Err(format!("the gateway of {id} has the prefix length {length}")),
        None => Ok(()),
    }
}

fn network_text(prefix: Prefix<Ipv4Addr>) -> String {
    format!("{}/{}", network(prefix).first().address, prefix.length)
}
