//! Links: the network interfaces of a namespace.

use crate::error::{Error, Result};
use crate::message::{
    AF_INET6, AF_UNSPEC, Message, NLM_F_CREATE, NLM_F_EXCL, Received, attributes, text, u16_at, u32_at,
};
use crate::socket::Socket;
use rustix::io::Errno;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

pub(crate) const RTM_NEWLINK: u16 = 16;
pub(crate) const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
/// The size of `ifinfomsg` in bytes.
const FIXED: usize = 16;
const IFF_UP: u32 = 1;
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_AF_SPEC: u16 = 26;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_EXT_MASK: u16 = 29;
const IFLA_LINK_NETNSID: u16 = 37;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_INFO_SLAVE_KIND: u16 = 4;
const IFLA_INFO_SLAVE_DATA: u16 = 5;
const IFLA_VLAN_ID: u16 = 1;
const VETH_INFO_PEER: u16 = 1;
const IFLA_BRPORT_ISOLATED: u16 = 33;
const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
const IN6_ADDR_GEN_MODE_NONE: u8 = 1;
/// Leaves out the counters.
const RTEXT_FILTER_SKIP_STATS: u32 = 8;

/// How often a link is looked for in a list that changes all the time, and the time between two searches.
const MAX_SEARCHES: usize = 200;
const SEARCH_PAUSE: Duration = Duration::from_millis(5);

/// The hardware address of an Ethernet device.
pub type Mac = [u8; 6];

/// A network interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Its number in its namespace.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its hardware address; `None`: it has none of six bytes.
    pub mac: Option<Mac>,
    /// What the kernel makes such links of: `veth`, `vlan`, `bridge`; empty for a device.
    pub kind: String,
    /// The number of the link below a VLAN, or of the other end of a veth, in its namespace; `None`: there is none.
    pub parent: Option<u32>,
    /// That link is in another namespace.
    pub has_far_parent: bool,
    /// The number of the bridge that it is a port of; `None`: it is no port.
    pub master: Option<u32>,
    /// The id of a VLAN; `None`: it is none.
    pub vlan: Option<u16>,
    /// It is switched on.
    pub is_up: bool,
}

/// Changes of a link. What is `None` or false stays as it is.
#[derive(Clone, Copy, Debug, Default)]
pub struct LinkChange<'a> {
    /// A new name. A link that moves gets it in the new namespace, where its earlier name may be taken.
    pub name: Option<&'a str>,
    /// Switches it on or off.
    pub is_up: Option<bool>,
    /// Moves it to this namespace.
    pub namespace: Option<BorrowedFd<'a>>,
    /// It gets no link-local IPv6 address of its own accord.
    pub without_link_local: bool,
    /// As a port of a bridge, it reaches only ports that are not isolated, and the bridge itself. Linux before 4.18 ignores it.
    pub is_isolated: bool,
}

/// A pair of connected links to create: a port of a bridge here, and a link in another namespace.
#[derive(Clone, Copy, Debug)]
pub struct Veth<'a> {
    /// The name of the port.
    pub name: &'a str,
    /// The number of the bridge; `None`: it becomes no port.
    pub bridge: Option<u32>,
    /// The name of the other end.
    pub peer_name: &'a str,
    /// The hardware address of the other end; `None`: the kernel chooses it.
    pub peer_mac: Option<Mac>,
    /// The namespace of the other end; `None`: the same.
    pub peer_namespace: Option<BorrowedFd<'a>>,
}

/// A VLAN to create.
#[derive(Clone, Copy, Debug)]
pub struct Vlan<'a> {
    /// Its name.
    pub name: &'a str,
    /// The number of the link below it.
    pub parent: u32,
    /// Its id.
    pub id: u16,
    /// Its hardware address.
    pub mac: Mac,
    /// Its namespace.
    pub namespace: BorrowedFd<'a>,
}

impl Socket {
    /// All links of the namespace. In a namespace that changes all the time, a link that came or went meanwhile may be missing.
    ///
    /// # Errors
    /// The kernel's.
    pub fn links(&self) -> Result<Vec<Link>> {
        self.list(&all_links(), read).map(|(links, _)| links)
    }

    /// The same; and whether the list is whole, so that a link that is not in it does not exist.
    ///
    /// # Errors
    /// The kernel's.
    pub fn links_if_whole(&self) -> Result<(Vec<Link>, bool)> {
        self.list(&all_links(), read)
    }

    /// What `choose` finds in the list of all links; `None`: it is not there.
    ///
    /// # Errors
    /// The kernel's. [`Error::NoAnswer`]: the list changes all the time, and it was not found.
    pub fn find_link<T>(&self, choose: impl Fn(Vec<Link>) -> Option<T>) -> Result<Option<T>> {
        for _ in 0..MAX_SEARCHES {
            let (links, is_whole) = self.list_once(&all_links(), read)?;
            match choose(links) {
                None if !is_whole => std::thread::sleep(SEARCH_PAUSE),
                found => return Ok(found),
            }
        }
        Err(Error::NoAnswer)
    }

    /// The link with this name; `None`: there is none.
    ///
    /// # Errors
    /// The kernel's.
    pub fn link(&self, name: &str) -> Result<Option<Link>> {
        let question = Message::new(RTM_GETLINK, 0, &fixed(0, None))
            .add_text(IFLA_IFNAME, name)
            .add_u32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
        match self.get(question, read) {
            Err(error) if error.is(Errno::NODEV) => Ok(None),
            found => found,
        }
    }

    /// Changes a link.
    ///
    /// # Errors
    /// The kernel's: `EEXIST`: the name is taken, there or in the new namespace; a link that moves may have moved all the same. `EBUSY`: a
    /// link that is up keeps its name, unless it moves.
    pub fn change_link(&self, index: u32, change: &LinkChange<'_>) -> Result<()> {
        let mut message = Message::new(RTM_NEWLINK, 0, &fixed(index, change.is_up));
        if let Some(namespace) = change.namespace {
            message = message.add(IFLA_NET_NS_FD, &namespace.as_raw_fd().to_ne_bytes());
        }
        if let Some(name) = change.name {
            message = message.add_text(IFLA_IFNAME, name);
        }
        if change.is_isolated {
            message = message.nest(IFLA_LINKINFO, |info| {
                info.add_text(IFLA_INFO_SLAVE_KIND, "bridge")
                    .nest(IFLA_INFO_SLAVE_DATA, |port| port.add(IFLA_BRPORT_ISOLATED, &[1]))
            });
        }
        if change.without_link_local {
            message = message.nest(IFLA_AF_SPEC, |families| {
                families.nest(AF_INET6.into(), |ipv6| ipv6.add(IFLA_INET6_ADDR_GEN_MODE, &[IN6_ADDR_GEN_MODE_NONE]))
            });
        }
        self.change(message)
    }

    /// Removes a link.
    ///
    /// # Errors
    /// The kernel's: `ENODEV`: there is none. `EOPNOTSUPP`: it is a device.
    pub fn delete_link(&self, index: u32) -> Result<()> {
        self.change(Message::new(RTM_DELLINK, 0, &fixed(index, None)))
    }

    /// Creates a bridge with this hardware address, which then does not depend on its ports.
    ///
    /// # Errors
    /// The kernel's: `EEXIST`: the name is taken.
    pub fn create_bridge(&self, name: &str, mac: Mac) -> Result<()> {
        let message = creation(None, name).add(IFLA_ADDRESS, &mac);
        self.change(message.nest(IFLA_LINKINFO, |info| info.add_text(IFLA_INFO_KIND, "bridge")))
    }

    /// Creates a pair of connected links, both switched off: both, or none.
    ///
    /// # Errors
    /// The kernel's: `EEXIST`: a name is taken.
    pub fn create_veth(&self, veth: &Veth<'_>) -> Result<()> {
        let mut message = creation(None, veth.name);
        if let Some(bridge) = veth.bridge {
            message = message.add_u32(IFLA_MASTER, bridge);
        }
        let peer = |data: Message| {
            let mut peer = data.raw(&fixed(0, None)).add_text(IFLA_IFNAME, veth.peer_name);
            if let Some(mac) = veth.peer_mac {
                peer = peer.add(IFLA_ADDRESS, &mac);
            }
            match veth.peer_namespace {
                Some(namespace) => peer.add(IFLA_NET_NS_FD, &namespace.as_raw_fd().to_ne_bytes()),
                None => peer,
            }
        };
        self.change(message.nest(IFLA_LINKINFO, |info| {
            info.add_text(IFLA_INFO_KIND, "veth").nest(IFLA_INFO_DATA, |data| data.nest(VETH_INFO_PEER, peer))
        }))
    }

    /// Creates a VLAN, switched off.
    ///
    /// # Errors
    /// The kernel's: `EEXIST`: the name is taken, or the link below has such a VLAN already, in whatever namespace.
    pub fn create_vlan(&self, vlan: &Vlan<'_>) -> Result<()> {
        let message = creation(None, vlan.name)
            .add(IFLA_NET_NS_FD, &vlan.namespace.as_raw_fd().to_ne_bytes())
            .add_u32(IFLA_LINK, vlan.parent)
            .add(IFLA_ADDRESS, &vlan.mac);
        self.change(message.nest(IFLA_LINKINFO, |info| {
            let id = |data: Message| data.add(IFLA_VLAN_ID, &vlan.id.to_ne_bytes());
            info.add_text(IFLA_INFO_KIND, "vlan").nest(IFLA_INFO_DATA, id)
        }))
    }
}

fn creation(is_up: Option<bool>, name: &str) -> Message {
    Message::new(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &fixed(0, is_up)).add_text(IFLA_IFNAME, name)
}

fn all_links() -> Message {
    Message::new(RTM_GETLINK, 0, &fixed(0, None)).add_u32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS)
}

/// `ifinfomsg`.
fn fixed(index: u32, is_up: Option<bool>) -> [u8; FIXED] {
    let mut bytes = [0; FIXED];
    bytes[0] = AF_UNSPEC;
    bytes[4..8].copy_from_slice(&index.to_ne_bytes());
    if let Some(is_up) = is_up {
        bytes[8..12].copy_from_slice(&(if is_up { IFF_UP } else { 0 }).to_ne_bytes());
        bytes[12..].copy_from_slice(&IFF_UP.to_ne_bytes());
    }
    bytes
}

/// A link in a message; `None`: the message is about something else, such as a port of a bridge.
pub(crate) fn read(message: &Received<'_>) -> Option<Link> {
    let is_link = matches!(message.kind, RTM_NEWLINK | RTM_DELLINK) && message.body.first() == Some(&AF_UNSPEC);
    if !is_link {
        return None;
    }
    let mut link =
        Link { index: u32_at(message.body, 4)?, is_up: u32_at(message.body, 8)? & IFF_UP != 0, ..Link::default() };
    for (kind, value) in attributes(message.body.get(FIXED..)?) {
        match kind {
            IFLA_ADDRESS => link.mac = value.try_into().ok(),
            IFLA_IFNAME => link.name = text(value),
            IFLA_LINK => link.parent = u32_at(value, 0),
            IFLA_LINK_NETNSID => link.has_far_parent = true,
            IFLA_MASTER => link.master = u32_at(value, 0),
            IFLA_LINKINFO => read_info(value, &mut link),
            _ => {}
        }
    }
    Some(link)
}

fn read_info(info: &[u8], link: &mut Link) {
    for (kind, value) in attributes(info) {
        match kind {
            IFLA_INFO_KIND => link.kind = text(value),
            IFLA_INFO_DATA if link.kind == "vlan" => {
                let id = attributes(value).find(|(kind, _)| *kind == IFLA_VLAN_ID);
                link.vlan = id.and_then(|(_, id)| u16_at(id, 0));
            }
            _ => {}
        }
    }
}

impl Error {
    /// The error means that there is no such link (any more).
    pub fn is_missing_link(&self) -> bool {
        self.is(Errno::NODEV) || self.is(Errno::NXIO)
    }
}
