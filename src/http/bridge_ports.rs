//! Which machines can be behind a bridge of this host.
//!
//! One rtnetlink query (`RTM_GETLINK`, which needs no privilege) lists all interfaces of this network namespace; `/sys` may show those
//! of another one. Owns the bytes of query and answer. Invariant: a bridge whose ports are not known is left out.

use super::route::{four_at, open, u16_at};
use ecs_core::model::Bridges;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType, netlink, recv, sendto};
use std::io;

const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// `NLM_F_REQUEST` and `NLM_F_DUMP`.
const FLAGS: u16 = 0x301;
const IFLA_IFNAME: u16 = 3;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
/// The bits of an attribute's type that are flags.
const FLAG_BITS: u16 = 0xc000;
/// Sizes in bytes of `nlmsghdr` and of the `ifinfomsg` that follows it.
const HEADER: usize = 16;
const INFO: usize = 16;
/// Size of the buffer for a part of the answer in bytes: the kernel's parts are not larger.
const MAX_PART: usize = 32 * 1024;
/// Upper limit of the parts. Each has some 20 interfaces.
const MAX_PARTS: usize = 1000;
/// The kind of an interface whose other end is in the network namespace of a container.
const PAIR: &str = "veth";

/// A network interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Link {
    index: u32,
    name: String,
    /// The index of the bridge that it is a port of; 0: of none.
    bridge: u32,
    /// What made it, such as `veth` or `vlan`; empty: a device.
    kind: String,
}

/// Without the named bridges behind which other machines may be, each of which is reported to `left_out` with the reason. The default
/// bridge stays whatever its ports are: tasks are on it.
pub fn with_containers_only(bridges: Bridges, mut left_out: impl FnMut(&str, &str)) -> Bridges {
    if bridges.named.is_empty() {
        return bridges;
    }
    let links = links();
    let has_containers_only = |bridge: &String| {
        let reason = match &links {
            Ok(links) => port_off_host(links, bridge).map(|port| format!("its port {port} leads off this host")),
            Err(error) => Some(format!("the kernel does not list its ports: {error}")),
        };
        reason.iter().for_each(|reason| left_out(bridge, reason));
        reason.is_none()
    };
    Bridges { named: bridges.named.into_iter().filter(has_containers_only).collect(), ..bridges }
}

/// A port of the bridge that may lead off this host, such as a network card, a VLAN or the interface of a virtual machine.
fn port_off_host<'a>(links: &'a [Link], bridge: &str) -> Option<&'a str> {
    let index = links.iter().find(|link| link.name == bridge)?.index;
    let mut ports = links.iter().filter(|link| link.bridge == index);
    ports.find(|link| link.kind != PAIR).map(|link| link.name.as_str())
}

/// All interfaces. The kernel answers during the send and the reads, so nothing blocks.
fn links() -> io::Result<Vec<Link>> {
    let socket = open(AddressFamily::NETLINK, SocketType::RAW)?;
    sendto(&socket, &question(), SendFlags::empty(), &netlink::SocketAddrNetlink::new(0, 0))?;
    let (mut found, mut part) = (Vec::new(), vec![0; MAX_PART]);
    for _ in 0..MAX_PARTS {
        let (length, _) = recv(&socket, &mut part[..], RecvFlags::empty())?;
        if read(&part[..length], &mut found)? {
            return Ok(found);
        }
    }
    Err(unreadable())
}

fn question() -> Vec<u8> {
    let mut message = u32::try_from(HEADER + INFO).unwrap_or_default().to_ne_bytes().to_vec();
    message.extend(RTM_GETLINK.to_ne_bytes());
    message.extend(FLAGS.to_ne_bytes());
    message.extend([0; 8]); // sequence number and port: one question on one socket
    message.extend([0; INFO]);
    message
}

fn unreadable() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the kernel's list of interfaces is unreadable")
}

/// Reads the messages of one part. Returns whether it was the last one.
fn read(mut part: &[u8], found: &mut Vec<Link>) -> io::Result<bool> {
    while !part.is_empty() {
        let length = four_at(part, 0).map(u32::from_ne_bytes).and_then(|length| usize::try_from(length).ok());
        let message = length.filter(|length| *length >= HEADER).and_then(|length| part.get(..length));
        let message = message.ok_or_else(unreadable)?;
        match u16_at(message, 4).ok_or_else(unreadable)? {
            NLMSG_DONE => return Ok(true),
            NLMSG_ERROR => {
                let code = i32::from_ne_bytes(four_at(message, HEADER).ok_or_else(unreadable)?);
                return Err(io::Error::from_raw_os_error(code.saturating_neg()));
            }
            RTM_NEWLINK => found.push(link(message).ok_or_else(unreadable)?),
            _ => {}
        }
        part = part.get(message.len().next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
}

fn link(message: &[u8]) -> Option<Link> {
    let index = u32::from_ne_bytes(four_at(message, HEADER + 4)?);
    let mut link = Link { index, ..Link::default() };
    for (kind, value) in attributes(message.get(HEADER + INFO..)?)? {
        match kind {
            IFLA_IFNAME => link.name = text(value),
            IFLA_MASTER => link.bridge = u32::from_ne_bytes(four_at(value, 0)?),
            IFLA_LINKINFO => {
                let kind = attributes(value)?.into_iter().find(|(kind, _)| *kind == IFLA_INFO_KIND);
                link.kind = kind.map(|(_, name)| text(name)).unwrap_or_default();
            }
            _ => {}
        }
    }
    Some(link)
}

fn attributes(mut rest: &[u8]) -> Option<Vec<(u16, &[u8])>> {
    let mut found = Vec::new();
    while rest.len() >= 4 {
        let length = usize::from(u16_at(rest, 0)?);
        found.push((u16_at(rest, 2)? & !FLAG_BITS, rest.get(4..length)?));
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Some(found)
}

/// A text that ends with a zero.
fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = u16::try_from(4 + value.len()).unwrap().to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn message(kind: u16, index: u32, attributes: &[Vec<u8>]) -> Vec<u8> {
        let body = attributes.concat();
        let mut bytes = u32::try_from(HEADER + INFO + body.len()).unwrap().to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0; 10]);
        bytes.extend([0; 4]);
        bytes.extend(index.to_ne_bytes());
        bytes.extend([0; 8]);
        bytes.extend(body);
        bytes
    }

    fn sample() -> Vec<u8> {
        let info = |kind: &[u8]| attribute(IFLA_LINKINFO | 0x8000, &attribute(IFLA_INFO_KIND, kind));
        let name = |name: &[u8]| attribute(IFLA_IFNAME, name);
        let port_of = |bridge: u32| attribute(IFLA_MASTER, &bridge.to_ne_bytes());
        [
            message(RTM_NEWLINK, 2, &[name(b"eth0\0")]),
            message(RTM_NEWLINK, 3, &[name(b"weird0\0"), info(b"bridge\0")]),
            message(RTM_NEWLINK, 4, &[name(b"veth1\0"), port_of(3), info(b"veth\0")]),
            message(RTM_NEWLINK, 5, &[name(b"lan0\0"), info(b"bridge")]),
            message(RTM_NEWLINK, 6, &[name(b"veth2\0"), port_of(5), info(b"veth\0")]),
            message(RTM_NEWLINK, 7, &[name(b"eth1\0"), port_of(5)]),
            message(RTM_NEWLINK, 8, &[name(b"vm0\0"), info(b"bridge\0")]),
            message(RTM_NEWLINK, 9, &[name(b"tap0\0"), port_of(8), info(b"tun\0")]),
        ]
        .concat()
    }

    #[test]
    fn a_bridge_with_another_port_than_pairs_leads_off_this_host() {
        let mut links = Vec::new();
        assert!(!read(&sample(), &mut links).unwrap());
        assert!(read(&message(NLMSG_DONE, 0, &[]), &mut links).unwrap());
        assert_eq!(links.len(), 8);
        for (bridge, port) in [("weird0", None), ("lan0", Some("eth1")), ("vm0", Some("tap0")), ("gone", None)] {
            assert_eq!(port_off_host(&links, bridge), port, "{bridge}");
        }
    }

    #[test]
    fn a_list_that_is_cut_off_is_an_error() {
        let whole = sample();
        for length in (1..whole.len()).filter(|length| length % 4 != 0) {
            assert!(read(&whole[..length], &mut Vec::new()).is_err(), "{length}");
        }
        let mut refused = message(NLMSG_ERROR, 0, &[]);
        refused[HEADER..HEADER + 4].copy_from_slice(&(-1_i32).to_ne_bytes());
        assert_eq!(read(&refused, &mut Vec::new()).unwrap_err().raw_os_error(), Some(1));
    }

    #[test]
    fn the_kernel_lists_loopback() {
        assert!(links().unwrap().iter().any(|link| link.name == "lo" && link.index > 0 && link.kind.is_empty()));
        let named = ["no-such-name-x".to_owned()].into();
        let bridges = Bridges { named, ..Bridges::default() };
        assert_eq!(with_containers_only(bridges.clone(), |_, _| panic!("none")), bridges);
    }
}
