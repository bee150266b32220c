//! Network interfaces of tasks and of the instance (spec `networking.md` §3, §4).

use super::{RuntimeId, TaskArn, is_default};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// The hardware address of an interface, which identifies it on its host.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacAddress(pub [u8; 6]);

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MacAddress({self})")
    }
}

/// The text is no hardware address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidMac;

impl fmt::Display for InvalidMac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("it is not six pairs of hexadecimal digits with colons between them")
    }
}

impl FromStr for MacAddress {
    type Err = InvalidMac;

    fn from_str(text: &str) -> Result<Self, InvalidMac> {
        let mut bytes = [0; 6];
        let mut pairs = text.split(':');
        for byte in &mut bytes {
            let pair = pairs.next().filter(|pair| pair.len() == 2 && pair.bytes().all(|b| b.is_ascii_hexdigit()));
            *byte = pair.and_then(|pair| u8::from_str_radix(pair, 16).ok()).ok_or(InvalidMac)?;
        }
        if pairs.next().is_some() { Err(InvalidMac) } else { Ok(Self(bytes)) }
    }
}

impl Serialize for MacAddress {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for MacAddress {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// An address with the length of its network, such as the gateway `10.0.1.1/24`, or a network to route to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Prefix<A> {
    /// The address.
    pub address: A,
    /// The number of bits that all addresses of the network share.
    pub length: u8,
}

impl<A: fmt::Display> fmt::Display for Prefix<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

/// How the interface is connected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum InterfaceKind {
    /// It is a device of its own.
    #[default]
    Standard,
    /// It is a VLAN of the instance's trunk interface.
    Branch {
        /// The VLAN's id: 1 to 4094.
        vlan: u16,
        /// The trunk's hardware address.
        trunk: MacAddress,
    },
}

/// One network interface of a task, as ECS described it. It has an IPv4 address with an IPv4 gateway, or only IPv6 addresses with
/// an IPv6 gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// Id of the interface in EC2, such as `eni-0123`.
    pub id: String,
    /// ARN of its attachment; empty if ECS named none.
    #[serde(default, skip_serializing_if = "is_default")]
    pub attachment: String,
    /// Its hardware address.
    pub mac: MacAddress,
    /// How it is connected.
    #[serde(default, skip_serializing_if = "is_default")]
    pub kind: InterfaceKind,
    /// The IPv4 addresses, the primary one first.
    #[serde(default, skip_serializing_if = "is_default")]
    pub ipv4: Vec<Ipv4Addr>,
    /// The IPv6 addresses, in the order of ECS.
    #[serde(default, skip_serializing_if = "is_default")]
    pub ipv6: Vec<Ipv6Addr>,
    /// The IPv4 gateway of its subnet; `None` if ECS named none.
    #[serde(default, skip_serializing_if = "is_default")]
    pub gateway_ipv4: Option<Prefix<Ipv4Addr>>,
    /// The IPv6 gateway of its subnet; `None` if ECS named none.
    #[serde(default, skip_serializing_if = "is_default")]
    pub gateway_ipv6: Option<Prefix<Ipv6Addr>>,
    /// Addresses of the name servers, in their order.
    #[serde(default, skip_serializing_if = "is_default")]
    pub name_servers: Vec<String>,
    /// The search list of the resolver.
    #[serde(default, skip_serializing_if = "is_default")]
    pub search_domains: Vec<String>,
    /// Its private name in DNS; empty if it has none.
    #[serde(default, skip_serializing_if = "is_default")]
    pub private_dns_name: String,
}

impl Interface {
    /// It has no IPv4 address.
    pub fn is_ipv6_only(&self) -> bool {
        self.ipv4.is_empty() && !self.ipv6.is_empty()
    }

    /// Its IPv4 addresses with the length of the gateway's network.
    pub fn ipv4_prefixes(&self) -> impl Iterator<Item = Prefix<Ipv4Addr>> {
        let length = self.gateway_ipv4.map_or(32, |gateway| gateway.length);
        self.ipv4.iter().map(move |address| Prefix { address: *address, length })
    }

    /// Its IPv6 addresses. The length is 64, unless it has no IPv4 address: then it is that of the gateway's network.
    pub fn ipv6_prefixes(&self) -> impl Iterator<Item = Prefix<Ipv6Addr>> {
        let length = self.gateway_ipv6.filter(|_| self.is_ipv6_only()).map_or(64, |gateway| gateway.length);
        self.ipv6.iter().map(move |address| Prefix { address: *address, length })
    }
}

/// The redirection of a task's connections through its proxy container (`proxyConfiguration`, App Mesh).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProxyRules {
    /// Connections of this user are not redirected; `None`: no user is exempt.
    #[serde(default, skip_serializing_if = "is_default")]
    pub ignored_uid: Option<u32>,
    /// Connections of this group are not redirected; `None`: no group is exempt.
    #[serde(default, skip_serializing_if = "is_default")]
    pub ignored_gid: Option<u32>,
    /// The port that incoming connections go to; `None`: they are not redirected.
    #[serde(default, skip_serializing_if = "is_default")]
    pub ingress_port: Option<u16>,
    /// The port that outgoing connections go to.
    pub egress_port: u16,
    /// The ports whose incoming connections are redirected.
    #[serde(default, skip_serializing_if = "is_default")]
    pub app_ports: Vec<u16>,
    /// Destination ports that outgoing connections reach directly.
    #[serde(default, skip_serializing_if = "is_default")]
    pub ignored_ports: Vec<u16>,
    /// Destinations that outgoing connections reach directly.
    #[serde(default, skip_serializing_if = "is_default")]
    pub ignored_networks: Vec<Prefix<IpAddr>>,
}

/// A request to set up the network of one task, in the namespace of its pause container, or to tear it down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkRequest {
    /// The task.
    pub task: TaskArn,
    /// Docker's id of the task's pause container, which runs.
    pub pause: RuntimeId,
    /// The process of the pause container in the host's process namespace; 0 if it does not run (a tear-down only).
    pub pause_pid: u32,
    /// The task's interfaces: the first is the primary one.
    pub interfaces: Vec<Interface>,
    /// The task's address on the bridge between the host and its tasks, in 169.254.172.0/22.
    pub local_address: Ipv4Addr,
    /// Redirects connections to the task's proxy; `None`: the task has no proxy.
    pub proxy: Option<ProxyRules>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hardware_address_is_read_and_written() {
        let address: MacAddress = "0A:b3:00:00:01:ff".parse().unwrap();
        assert_eq!(address.to_string(), "0a:b3:00:00:01:ff");
        for text in
            ["", "0a:b3:00:00:01", "0a:b3:00:00:01:ff:00", "0a:b3:0:00:01:ff", "0a-b3-00-00-01-ff", "+a:b3:00:00:01:ff"]
        {
            assert_eq!(text.parse::<MacAddress>(), Err(InvalidMac), "{text}");
        }
        let json = serde_json::to_string(&address).unwrap();
        assert_eq!(json, r#""0a:b3:00:00:01:ff""#);
        assert_eq!(serde_json::from_str::<MacAddress>(&json).unwrap(), address);
    }

    #[test]
    fn addresses_have_the_length_of_their_network() {
        let ipv4 = Prefix { address: Ipv4Addr::new(10, 0, 1, 1), length: 24 };
        let ipv6 = Prefix { address: Ipv6Addr::LOCALHOST, length: 56 };
        let both = Interface {
            ipv4: vec![Ipv4Addr::new(10, 0, 1, 100)],
            ipv6: vec!["fd00::2".parse().unwrap()],
            gateway_ipv4: Some(ipv4),
            gateway_ipv6: Some(ipv6),
            ..Interface::default()
        };
        let shown = |interface: &Interface| {
            let (ipv4, ipv6) = (interface.ipv4_prefixes(), interface.ipv6_prefixes());
            ipv4.map(|prefix| prefix.to_string()).chain(ipv6.map(|prefix| prefix.to_string())).collect::<Vec<_>>()
        };
        assert_eq!(shown(&both), ["10.0.1.100/24", "fd00::2/64"]);
        assert_eq!(shown(&Interface { ipv4: Vec::new(), ..both }), ["fd00::2/56"]);
    }
}
