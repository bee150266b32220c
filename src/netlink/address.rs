//! Addresses of links.

use crate::error::Result;
use crate::message::{AF_INET, AF_INET6, AF_UNSPEC, Message, NLM_F_CREATE, NLM_F_EXCL, Received, attributes, u32_at};
use crate::socket::Socket;
use std::net::{IpAddr, Ipv4Addr};

const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
/// The size of `ifaddrmsg` in bytes.
const FIXED: usize = 8;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const IFA_FLAGS: u16 = 8;
const IFA_F_NODAD: u32 = 0x02;
const IFA_F_NOPREFIXROUTE: u32 = 0x200;

/// An address of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// The number of the link.
    pub link: u32,
    /// The address.
    pub address: IpAddr,
    /// The number of bits that all addresses of its network share.
    pub length: u8,
}

/// How an address is added.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AddressFlags {
    /// It is used at once, without a search for another holder (IPv6).
    pub is_unchecked: bool,
    /// It brings no route to its network.
    pub without_route: bool,
    /// Packets to the last address of its network go to all neighbours (IPv4).
    pub with_broadcast: bool,
}

impl Socket {
    /// All addresses of the namespace.
    ///
    /// # Errors
    /// The kernel's.
    pub fn addresses(&self) -> Result<Vec<Address>> {
        self.list(&Message::new(RTM_GETADDR, 0, &fixed(AF_UNSPEC, 0, 0)), read).map(|(found, _)| found)
    }

    /// Adds an address to a link.
    ///
    /// # Errors
    /// The kernel's: `EEXIST`: the link has it already. `EACCES`: IPv6 is switched off there.
    pub fn add_address(&self, added: &Address, how: AddressFlags) -> Result<()> {
        let family = if added.address.is_ipv4() { AF_INET } else { AF_INET6 };
        let flags = if how.is_unchecked && added.address.is_ipv6() { IFA_F_NODAD } else { 0 }
            | if how.without_route { IFA_F_NOPREFIXROUTE } else { 0 };
        let bytes = octets(added.address);
        let fixed = fixed(family, added.length, added.link);
        let mut message = Message::new(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, &fixed)
            .add(IFA_LOCAL, &bytes)
            .add(IFA_ADDRESS, &bytes)
            .add_u32(IFA_FLAGS, flags);
        if let IpAddr::V4(address) = added.address
            && how.with_broadcast
            && added.length < 31
        {
            let broadcast = u32::from(address) | u32::MAX.checked_shr(added.length.into()).unwrap_or(0);
            message = message.add(IFA_BROADCAST, &Ipv4Addr::from(broadcast).octets());
        }
        self.change(message)
    }
}

pub(crate) fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

pub(crate) fn ip(bytes: &[u8]) -> Option<IpAddr> {
    let ipv4 = <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from);
    ipv4.or_else(|| <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from))
}

/// `ifaddrmsg`.
fn fixed(family: u8, length: u8, link: u32) -> [u8; FIXED] {
    let [a, b, c, d] = link.to_ne_bytes();
    [family, length, 0, 0, a, b, c, d]
}

fn read(message: &Received<'_>) -> Option<Address> {
    let (length, link) = (*message.body.get(1)?, u32_at(message.body, 4)?);
    let (mut local, mut other) = (None, None);
    for (kind, value) in attributes(message.body.get(FIXED..)?) {
        match kind {
            IFA_LOCAL => local = ip(value),
            IFA_ADDRESS => other = ip(value),
            _ => {}
        }
    }
    // IPv6 has no `IFA_LOCAL`, unless the link leads to a single peer.
    (message.kind == RTM_NEWADDR).then_some(Address { link, address: local.or(other)?, length })
}
