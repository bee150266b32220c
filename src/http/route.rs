//! The kernel's route to a peer.
//!
//! One rtnetlink query (`RTM_GETROUTE`, which needs no privilege) for each connection that is not from loopback. Owns the bytes
//! of query and answer. Invariant: an answer that cannot be parsed is an error, never a route.

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netdevice, netlink, recv, sendto, socket_with,
};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;
const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST: u16 = 1;
const RTN_UNICAST: u8 = 1;
const RTN_LOCAL: u8 = 2;
const RTA_DST: u16 = 1;
const RTA_SRC: u16 = 2;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_MULTIPATH: u16 = 9;
const RTA_VIA: u16 = 18;
/// Sizes in bytes of `nlmsghdr` and of the `rtmsg` that follows it.
const HEADER: usize = 16;
const ROUTE: usize = 12;
/// Size of the buffer for the answer in bytes. One route without metrics takes about 100 bytes.
const MAX_ANSWER: usize = 4096;

/// The route of packets to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// This host: the peer has one of its addresses.
    Local,
    /// A neighbour on the interface with this index.
    Neighbour(u32),
    /// Behind a gateway, over several interfaces, or unreachable.
    Elsewhere,
}

/// The route from our address `local` to `peer`. Takes a few microseconds and never blocks.
///
/// # Errors
/// The kernel does not answer, or has no route.
pub(super) fn route_to(local: IpAddr, peer: SocketAddr) -> io::Result<Route> {
    let socket = ask(&question(local, peer))?;
    let mut answer = [0_u8; MAX_ANSWER];
    let (length, _) = recv(&socket, &mut answer, RecvFlags::empty())?;
    read(&answer[..length])
}

/// The current index of the network interface with this name; `None` if there is no such interface.
pub(super) fn interface(name: &str) -> Option<u32> {
    let socket = open(AddressFamily::INET, SocketType::DGRAM).ok()?;
    netdevice::name_to_index(&socket, name).ok()
}

/// The name of the network interface with this index; `None` if there is no such interface.
pub(super) fn interface_name(index: u32) -> Option<String> {
    let socket = open(AddressFamily::INET, SocketType::DGRAM).ok()?;
    netdevice::index_to_name(&socket, index).ok()
}

pub(super) fn open(family: AddressFamily, kind: SocketType) -> io::Result<OwnedFd> {
    Ok(socket_with(family, kind, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?)
}

/// Sends a query and reads the answer. The kernel answers rtnetlink queries during the send, so the read never blocks.
fn ask(question: &[u8]) -> io::Result<OwnedFd> {
    let socket = open(AddressFamily::NETLINK, SocketType::RAW)?;
    sendto(&socket, question, SendFlags::empty(), &netlink::SocketAddrNetlink::new(0, 0))?;
    Ok(socket)
}

fn question(local: IpAddr, peer: SocketAddr) -> Vec<u8> {
    let (peer_ip, local) = (peer.ip().to_canonical(), local.to_canonical());
    let family = if peer_ip.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let (destination, source) = (octets(peer_ip), octets(local));
    let bits = u8::try_from(destination.len() * 8).unwrap_or_default();
    let mut attributes = attribute(RTA_DST, &destination);
    let mut source_bits = 0;
    if destination.len() == source.len() {
        // Routing rules may depend on the source address.
        attributes.extend(attribute(RTA_SRC, &source));
        source_bits = bits;
    }
    // A link-local address names a different host on each interface.
    if let SocketAddr::V6(peer) = peer
        && peer.scope_id() != 0
    {
        attributes.extend(attribute(RTA_OIF, &peer.scope_id().to_ne_bytes()));
    }
    let length = u32::try_from(HEADER + ROUTE + attributes.len()).unwrap_or_default();
    let mut message = length.to_ne_bytes().to_vec();
    message.extend(RTM_GETROUTE.to_ne_bytes());
    message.extend(NLM_F_REQUEST.to_ne_bytes());
    message.extend([0; 8]); // sequence number and port: one question on one socket
    message.extend([u8::try_from(family.as_raw()).unwrap_or_default(), bits, source_bits]);
    message.extend([0; ROUTE - 3]);
    message.extend(attributes);
    message
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).unwrap_or_default();
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value); // addresses and indexes: multiples of four bytes, so no padding is needed
    bytes
}

fn read(message: &[u8]) -> io::Result<Route> {
    let unreadable = || io::Error::new(io::ErrorKind::InvalidData, "the kernel's answer about a route is unreadable");
    match u16_at(message, 4).ok_or_else(unreadable)? {
        RTM_NEWROUTE => {}
        NLMSG_ERROR => {
            let code = i32::from_ne_bytes(four_at(message, HEADER).ok_or_else(unreadable)?);
            return Err(io::Error::from_raw_os_error(code.saturating_neg()));
        }
        _ => return Err(unreadable()),
    }
    let kind = *message.get(HEADER + 7).ok_or_else(unreadable)?;
    let mut rest = message.get(HEADER + ROUTE..).ok_or_else(unreadable)?;
    let (mut interface, mut is_direct) = (None, true);
    while rest.len() >= 4 {
        let length = usize::from(u16_at(rest, 0).ok_or_else(unreadable)?);
        let value = rest.get(4..length).ok_or_else(unreadable)?;
        match u16_at(rest, 2).ok_or_else(unreadable)? {
            RTA_OIF => interface = Some(u32::from_ne_bytes(four_at(value, 0).ok_or_else(unreadable)?)),
            RTA_GATEWAY | RTA_VIA | RTA_MULTIPATH => is_direct = false,
            _ => {}
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(match (kind, interface) {
        (RTN_LOCAL, _) => Route::Local,
        (RTN_UNICAST, Some(index)) if is_direct => Route::Neighbour(index),
        _ => Route::Elsewhere,
    })
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

pub(super) fn four_at(bytes: &[u8], at: usize) -> Option<[u8; 4]> {
    bytes.get(at..at + 4)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(kind: u8, attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let mut message = vec![0; HEADER + ROUTE];
        message[4..6].copy_from_slice(&RTM_NEWROUTE.to_ne_bytes());
        message[HEADER + 7] = kind;
        attributes.iter().for_each(|(kind, value)| message.extend(attribute(*kind, value)));
        message
    }

    #[test]
    fn only_a_direct_route_leads_to_a_neighbour() {
        let index = 7_u32.to_ne_bytes();
        let oif: (u16, &[u8]) = (RTA_OIF, &index);
        let gateway: &[u8] = &[10, 0, 0, 1];
        for (kind, attributes, expected) in [
            (RTN_LOCAL, vec![oif], Route::Local),
            (RTN_UNICAST, vec![oif], Route::Neighbour(7)),
            (RTN_UNICAST, vec![(RTA_DST, gateway), oif], Route::Neighbour(7)),
            (RTN_UNICAST, vec![oif, (RTA_GATEWAY, gateway)], Route::Elsewhere),
            (RTN_UNICAST, vec![oif, (RTA_VIA, &[0; 20])], Route::Elsewhere),
            (RTN_UNICAST, vec![(RTA_MULTIPATH, &[0; 16])], Route::Elsewhere),
            (RTN_UNICAST, vec![], Route::Elsewhere),
            (7, vec![oif], Route::Elsewhere), // RTN_UNREACHABLE
        ] {
            assert_eq!(read(&answer(kind, &attributes)).unwrap(), expected, "{kind} {attributes:?}");
        }
    }

    #[test]
    fn an_answer_that_is_cut_off_is_an_error() {
        let index = 7_u32.to_ne_bytes();
        let whole = answer(RTN_UNICAST, &[(RTA_OIF, &index)]);
        // An answer cut at the beginning of an attribute names no interface.
        for length in (0..whole.len()).filter(|length| *length < HEADER + ROUTE || *length > HEADER + ROUTE + 3) {
            assert!(read(&whole[..length]).is_err(), "{length}");
        }
        let mut refused = vec![0; HEADER + 4];
        refused[4..6].copy_from_slice(&NLMSG_ERROR.to_ne_bytes());
        refused[HEADER..].copy_from_slice(&(-101_i32).to_ne_bytes());
        assert_eq!(read(&refused).unwrap_err().raw_os_error(), Some(101));
    }

    #[test]
    fn the_kernel_knows_loopback_and_no_interface_without_name() {
        let loopback: IpAddr = "127.0.0.1".parse().unwrap();
        assert_eq!(route_to(loopback, "127.9.9.9:1".parse().unwrap()).unwrap(), Route::Local);
        assert_eq!(route_to(loopback, "[::ffff:127.0.0.1]:1".parse().unwrap()).unwrap(), Route::Local);
        assert!(interface("lo").is_some());
        assert_eq!(interface("no-such-name-x"), None);
        assert_eq!(interface("a-name-that-is-longer-than-interfaces-have"), None);
    }
}
