//! Routes of the main table.

use crate::address::{ip, octets};
use crate::error::Result;
use crate::message::{
    AF_INET, AF_INET6, Message, NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL, Received, attributes, u32_at,
};
use crate::socket::Socket;
use std::net::IpAddr;

const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_GETROUTE: u16 = 26;
/// The size of `rtmsg` in bytes.
const FIXED: usize = 12;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_TABLE: u16 = 15;
const RT_TABLE_MAIN: u8 = 254;
const RTPROT_BOOT: u8 = 3;
const RTPROT_RA: u8 = 9;
const RT_SCOPE_UNIVERSE: u8 = 0;
const RT_SCOPE_LINK: u8 = 253;
const RTN_UNICAST: u8 = 1;
const RTN_BLACKHOLE: u8 = 6;
const RTNH_F_ONLINK: u8 = 4;

/// A network: an address in it, and the number of bits that all its addresses share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    /// An address of it.
    pub address: IpAddr,
    /// The number of bits.
    pub length: u8,
}

impl Network {
    /// This address alone.
    pub fn host(address: IpAddr) -> Self {
        Self { address, length: if address.is_ipv4() { 32 } else { 128 } }
    }

    /// Every address of the family of `address`.
    pub fn default_of(address: IpAddr) -> Self {
        let address = if address.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
        Self { address, length: 0 }
    }

    /// Whether the address is in the network.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.overlaps(&Self::host(address))
    }

    /// Whether the networks share an address.
    pub fn overlaps(&self, other: &Self) -> bool {
        let length = self.length.min(other.length);
        self.address.is_ipv4() == other.address.is_ipv4() && bits(self.address, length) == bits(other.address, length)
    }

    /// The first address of the network, with its length: the form that the kernel takes.
    #[must_use]
    pub fn first(&self) -> Self {
        let (value, width) = (bits(self.address, self.length), if self.address.is_ipv4() { 32 } else { 128 });
        let value = value.checked_shl(width - u32::from(self.length)).unwrap_or(0);
        let address = match self.address {
            IpAddr::V4(_) => IpAddr::from(u32::try_from(value).unwrap_or_default().to_be_bytes()),
            IpAddr::V6(_) => IpAddr::from(value.to_be_bytes()),
        };
        Self { address, length: self.length }
    }
}

/// The first bits of an address, as a number.
fn bits(address: IpAddr, length: u8) -> u128 {
    let (value, width) = match address {
        IpAddr::V4(address) => (u128::from(u32::from(address)), 32),
        IpAddr::V6(address) => (u128::from(address), 128),
    };
    value.checked_shr(u32::saturating_sub(width, length.into())).unwrap_or(0)
}

/// Where packets go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteKind {
    /// Nowhere: the sender gets an error.
    Blackhole,
    /// To a neighbour on the link with this number.
    Link(u32),
    /// To a gateway on the link with this number.
    Via(IpAddr, u32),
    /// To a gateway on this link, though no network of the link contains the gateway.
    ViaUnchecked(IpAddr, u32),
}

/// A route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// The destinations.
    pub to: Network,
    /// Where their packets go.
    pub kind: RouteKind,
}

impl Socket {
    /// The routes of the main table, for the family of `address`.
    ///
    /// # Errors
    /// The kernel's.
    pub fn routes(&self, address: IpAddr) -> Result<Vec<Route>> {
        self.list(&all_routes(family(address)), read).map(|(found, _)| found)
    }

    /// Whether a router has announced itself as the gateway to all of IPv6.
    ///
    /// # Errors
    /// The kernel's.
    pub fn has_router(&self) -> Result<bool> {
        let is_router =
            |message: &Received<'_>| (message.body.get(5) == Some(&RTPROT_RA)).then(|| read(message)).flatten();
        let (found, _) = self.list(&all_routes(AF_INET6), is_router)?;
        Ok(found.iter().any(|route| route.to.length == 0))
    }

    /// Adds a route.
    ///
    /// # Errors
    /// The kernel's: `EEXIST`: there is a route to the same network already. `ENETUNREACH`: the gateway is in no network of the link, or
    /// the link is off.
    pub fn add_route(&self, route: &Route) -> Result<()> {
        self.change(message(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, route))
    }

    /// Adds a route of IPv6 beside others to the same network.
    ///
    /// # Errors
    /// As for [`Self::add_route`]. `EEXIST`: there is this very route already.
    pub fn add_route_beside(&self, route: &Route) -> Result<()> {
        self.change(message(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_APPEND, route))
    }

    /// Removes a route.
    ///
    /// # Errors
    /// The kernel's: `ESRCH`: there is none.
    pub fn delete_route(&self, route: &Route) -> Result<()> {
        self.change(message(RTM_DELROUTE, 0, route))
    }
}

fn all_routes(family: u8) -> Message {
    let mut fixed = [0; FIXED];
    fixed[0] = family;
    Message::new(RTM_GETROUTE, 0, &fixed)
}

fn family(address: IpAddr) -> u8 {
    if address.is_ipv4() { AF_INET } else { AF_INET6 }
}

fn message(kind: u16, flags: u16, route: &Route) -> Message {
    let to = route.to.first();
    let scope = match route.kind {
        RouteKind::Link(_) if to.address.is_ipv4() => RT_SCOPE_LINK,
        _ => RT_SCOPE_UNIVERSE,
    };
    let what = if route.kind == RouteKind::Blackhole { RTN_BLACKHOLE } else { RTN_UNICAST };
    let on_link = if matches!(route.kind, RouteKind::ViaUnchecked(..)) { RTNH_F_ONLINK } else { 0 };
    let fixed = {
        let mut fixed = [0; FIXED];
        (fixed[0], fixed[1], fixed[4], fixed[5]) = (family(to.address), to.length, RT_TABLE_MAIN, RTPROT_BOOT);
        (fixed[6], fixed[7]) = (scope, what);
        fixed[8..].copy_from_slice(&u32::from(on_link).to_ne_bytes());
        fixed
    };
    let mut message = Message::new(kind, flags, &fixed);
    if to.length > 0 {
        message = message.add(RTA_DST, &octets(to.address));
    }
    match route.kind {
        RouteKind::Blackhole => message,
        RouteKind::Link(link) => message.add_u32(RTA_OIF, link),
        RouteKind::Via(gateway, link) | RouteKind::ViaUnchecked(gateway, link) => {
            message.add(RTA_GATEWAY, &octets(gateway)).add_u32(RTA_OIF, link)
        }
    }
}

/// A route of the main table; `None`: it is of another table, or has several next hops.
fn read(message: &Received<'_>) -> Option<Route> {
    let (family, length) = (*message.body.first()?, *message.body.get(1)?);
    let (table, what) = (*message.body.get(4)?, *message.body.get(7)?);
    let any = if family == AF_INET { IpAddr::from([0; 4]) } else { IpAddr::from([0; 16]) };
    let (mut to, mut link, mut gateway, mut table) = (any, None, None, u32::from(table));
    for (kind, value) in attributes(message.body.get(FIXED..)?) {
        match kind {
            RTA_DST => to = ip(value)?,
            RTA_OIF => link = u32_at(value, 0),
            RTA_GATEWAY => gateway = ip(value),
            RTA_TABLE => table = u32_at(value, 0)?,
            _ => {}
        }
    }
    let is_on_link = u32_at(message.body, 8)? & u32::from(RTNH_F_ONLINK) != 0;
    let kind = match (what, gateway, link) {
        (RTN_BLACKHOLE, _, _) => RouteKind::Blackhole,
        (RTN_UNICAST, Some(gateway), Some(link)) if is_on_link => RouteKind::ViaUnchecked(gateway, link),
        (RTN_UNICAST, Some(gateway), Some(link)) => RouteKind::Via(gateway, link),
        (RTN_UNICAST, None, Some(link)) => RouteKind::Link(link),
        _ => return None,
    };
    let is_main = message.kind == RTM_NEWROUTE && table == u32::from(RT_TABLE_MAIN);
    is_main.then_some(Route { to: Network { address: to, length }, kind })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> Network {
        let (address, length) = text.split_once('/').unwrap();
        Network { address: address.parse().unwrap(), length: length.parse().unwrap() }
    }

    #[test]
    fn networks_are_compared_by_their_common_bits() {
        for (first, second, expected) in [
            ("10.0.1.0/24", "10.0.1.100/32", true),
            ("10.0.1.0/24", "10.0.2.0/24", false),
            ("169.254.0.0/16", "169.254.172.0/22", true),
            ("0.0.0.0/0", "10.0.0.0/8", true),
            ("0.0.0.0/0", "::/0", false),
            ("fd00::/64", "fd00::1/128", true),
            ("fd00::/64", "fd00:0:0:1::/64", false),
        ] {
            assert_eq!(network(first).overlaps(&network(second)), expected, "{first} {second}");
            assert_eq!(network(second).overlaps(&network(first)), expected, "{second} {first}");
        }
        assert_eq!(network("10.0.1.77/24").first(), network("10.0.1.0/24"));
        assert_eq!(network("10.0.1.77/0").first(), network("0.0.0.0/0"));
        assert_eq!(network("10.0.1.77/32").first(), network("10.0.1.77/32"));
        assert_eq!(network("fd00::7/64").first(), network("fd00::/64"));
        assert_eq!(network("fd00::7/0").first(), network("::/0"));
    }
}
