//! The JSON shape of the networks of a container (spec `task-metadata.md` §4.2, §6.2).
//!
//! The containers of a task in network mode `awsvpc` share its interface, so all of them show it, the pause container too. Compat: only
//! the first interface of a task is shown; ECS gives a task one. Invariant: a value that ECS has not sent is left out.

use super::version::Version;
use ecs_core::model::interface::{Interface, Prefix};
use ecs_core::model::observation::Network;
use ecs_core::model::task::NetworkMode;
use ecs_core::model::view::{ContainerView, TaskView};
use serde::Serialize;
use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A network. Compat: one of Docker always has one IPv4 address, which may be empty.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(in crate::http) struct Addresses<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    network_mode: &'a str,
    #[serde(rename = "IPv4Addresses", skip_serializing_if = "Vec::is_empty")]
    ipv4: Vec<Cow<'a, str>>,
    #[serde(rename = "IPv6Addresses", skip_serializing_if = "Vec::is_empty")]
    ipv6: Vec<Cow<'a, str>>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    properties: Option<Properties<'a>>,
}

/// What version 4 shows of a network interface.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Properties<'a> {
    attachment_index: u32,
    #[serde(rename = "MACAddress")]
    mac: String,
    #[serde(rename = "IPv4SubnetCIDRBlock", skip_serializing_if = "Option::is_none")]
    ipv4_subnet: Option<String>,
    #[serde(rename = "IPv6SubnetCIDRBlock", skip_serializing_if = "Option::is_none")]
    ipv6_subnet: Option<String>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    domain_name_servers: &'a [String],
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    domain_name_search_list: &'a [String],
    #[serde(rename = "PrivateDNSName", skip_serializing_if = "str::is_empty")]
    private_dns_name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    subnet_gateway_ipv4_address: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subnet_gateway_ipv6_address: Option<String>,
}

/// The networks of a container.
pub(super) fn networks<'a>(task: &'a TaskView, container: &'a ContainerView, version: Version) -> Vec<Addresses<'a>> {
    let is_v4 = version == Version::V4;
    match task.network {
        NetworkMode::Awsvpc => task_addresses(task, is_v4),
        NetworkMode::Bridge | NetworkMode::Host | NetworkMode::None => {
            container.networks.iter().map(|network| Addresses::from_docker(network, is_v4)).collect()
        }
    }
}

/// The network of a task with an interface of its own; empty for any other task.
pub(in crate::http) fn task_addresses(task: &TaskView, with_properties: bool) -> Vec<Addresses<'_>> {
    let interface = task.interfaces.first().filter(|_| task.network == NetworkMode::Awsvpc);
    interface.map(|interface| Addresses::from_interface(interface, with_properties)).into_iter().collect()
}

impl<'a> Addresses<'a> {
    fn from_docker(network: &'a Network, with_ipv6: bool) -> Self {
        let ipv6 = Some(network.ipv6.as_str()).filter(|address| with_ipv6 && !address.is_empty());
        Self {
            network_mode: &network.name,
            ipv4: vec![network.ipv4.as_str().into()],
            ipv6: ipv6.into_iter().map(Cow::from).collect(),
            properties: None,
        }
    }

    fn from_interface(interface: &'a Interface, with_properties: bool) -> Self {
        let gateway_ipv6 = interface.gateway_ipv6.filter(|_| interface.is_ipv6_only());
        let properties = || Properties {
            attachment_index: 0,
            mac: interface.mac.to_string(),
            ipv4_subnet: interface.gateway_ipv4.map(subnet_ipv4),
            ipv6_subnet: interface.ipv6_prefixes().next().map(subnet_ipv6),
            domain_name_servers: &interface.name_servers,
            domain_name_search_list: &interface.search_domains,
            private_dns_name: &interface.private_dns_name,
            subnet_gateway_ipv4_address: interface.gateway_ipv4.map(|gateway| gateway.to_string()),
            subnet_gateway_ipv6_address: gateway_ipv6.map(|gateway| gateway.to_string()),
        };
        Self {
            network_mode: "awsvpc",
            ipv4: interface.ipv4.iter().map(|address| address.to_string().into()).collect(),
            ipv6: interface.ipv6.iter().map(|address| address.to_string().into()).collect(),
            properties: with_properties.then(properties),
        }
    }
}

fn subnet_ipv4(Prefix { address, length }: Prefix<Ipv4Addr>) -> String {
    let mask = u32::MAX.checked_shl(32 - u32::from(length.min(32))).unwrap_or(0);
    shown(Ipv4Addr::from(u32::from(address) & mask).into(), length)
}

fn subnet_ipv6(Prefix { address, length }: Prefix<Ipv6Addr>) -> String {
    let mask = u128::MAX.checked_shl(128 - u32::from(length.min(128))).unwrap_or(0);
    shown(Ipv6Addr::from(u128::from(address) & mask).into(), length)
}

fn shown(address: IpAddr, length: u8) -> String {
    format!("{address}/{length}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn golden(name: &str) -> Value {
        let path = format!("{}/tests/golden/awsvpc/{name}.json", env!("CARGO_MANIFEST_DIR"));
        serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
    }

    /// The interface that ECS sent, as the model has it.
    fn interface(sent: &Value) -> Interface {
        let text = |name: &str| sent[name].as_str().unwrap_or_default().to_owned();
        let texts = |name: &str| -> Vec<String> { serde_json::from_value(sent[name].clone()).unwrap_or_default() };
        let list = |name: &str, member: &str| -> Vec<String> {
            let list = sent[name].as_array().into_iter().flatten();
            list.map(|address| address[member].as_str().unwrap().to_owned()).collect()
        };
        let ipv4 = list("ipv4Addresses", "privateAddress").iter().map(|text| text.parse().unwrap()).collect();
        let ipv6 = list("ipv6Addresses", "address").iter().map(|text| text.parse().unwrap()).collect();
        Interface {
            mac: text("macAddress").parse().unwrap(),
            ipv4,
            ipv6,
            gateway_ipv4: crate::input::prefix::prefix(&text("subnetGatewayIpv4Address")),
            gateway_ipv6: crate::input::prefix::prefix(&text("subnetGatewayIpv6Address")),
            name_servers: texts("domainNameServers"),
            search_domains: texts("domainName"),
            private_dns_name: text("privateDnsName"),
            ..Interface::default()
        }
    }

    #[test]
    fn every_recorded_interface_is_shown_as_recorded() {
        for name in
            ["imds_blocked", "dual_stack", "ipv6_only", "additional_routes", "branch_eni", "app_mesh", "two_interfaces"]
        {
            let golden = golden(name);
            let interfaces = golden["interfaces"].as_array().unwrap().iter().map(interface).collect();
            let task = TaskView { network: NetworkMode::Awsvpc, interfaces, ..TaskView::default() };
            for (answer, version) in [("tmds_v4_task", Version::V4), ("tmds_v2", Version::V3)] {
                let containers = golden[answer]["body"]["Containers"].as_array().unwrap();
                assert!(!containers.is_empty(), "{name}");
                for container in containers {
                    let shown = serde_json::to_value(networks(&task, &ContainerView::default(), version)).unwrap();
                    assert_eq!(shown, container["Networks"], "{name} {answer}");
                }
            }
        }
    }

    #[test]
    fn a_network_of_docker_has_one_address() {
        let network = Network { name: "bridge".to_owned(), ipv4: String::new(), ipv6: "fd00::2".to_owned() };
        let container = ContainerView { networks: vec![network], ..ContainerView::default() };
        let task = TaskView { interfaces: vec![Interface::default()], ..TaskView::default() };
        let shown = |version| serde_json::to_string(&networks(&task, &container, version)).unwrap();
        assert_eq!(shown(Version::V3), r#"[{"NetworkMode":"bridge","IPv4Addresses":[""]}]"#);
        assert_eq!(
            shown(Version::V4),
            r#"[{"NetworkMode":"bridge","IPv4Addresses":[""],"IPv6Addresses":["fd00::2"]}]"#
        );
        assert!(task_addresses(&task, true).is_empty());
    }
}
