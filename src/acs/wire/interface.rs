//! The network interfaces of a task or of the instance, and the proxy of a task (spec `acs.md` §6.5).

use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(in crate::acs) struct NetworkInterface {
    pub(in crate::acs) mac_address: String,
    pub(in crate::acs) attachment_arn: String,
    pub(in crate::acs) ec2_id: String,
    /// Orders the interfaces of a task. Whatever is no number counts as 0.
    pub(in crate::acs) index: Value,
    pub(in crate::acs) interface_association_protocol: String,
    pub(in crate::acs) interface_vlan_properties: VlanProperties,
    pub(in crate::acs) ipv4_addresses: Vec<Ipv4Address>,
    pub(in crate::acs) ipv6_addresses: Vec<Ipv6Address>,
    pub(in crate::acs) subnet_gateway_ipv4_address: String,
    pub(in crate::acs) subnet_gateway_ipv6_address: String,
    /// The search list of the resolver.
    pub(in crate::acs) domain_name: Vec<String>,
    pub(in crate::acs) domain_name_servers: Vec<String>,
    pub(in crate::acs) private_dns_name: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(in crate::acs) struct VlanProperties {
    pub(in crate::acs) vlan_id: String,
    pub(in crate::acs) trunk_interface_mac_address: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(in crate::acs) struct Ipv4Address {
    pub(in crate::acs) private_address: String,
    pub(in crate::acs) primary: bool,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(in crate::acs) struct Ipv6Address {
    pub(in crate::acs) address: String,
}

/// The proxy of a task. The name of its container is not read: nothing depends on it.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(in crate::acs) struct ProxyConfiguration {
    #[serde(rename = "type")]
    pub(in crate::acs) kind: String,
    pub(in crate::acs) properties: BTreeMap<String, String>,
}
