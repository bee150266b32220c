//! Chooses host ports for port mappings that ask for any (spec `docker-mapping.md` §6).
//!
//! Owns the memory of the last port given out. It does not reserve: between the choice and Docker's bind another process may
//! take the port, and the create or start then fails. Invariant: one search at a time, always upwards from the last choice, so two
//! containers created together never get the same port.

use crate::model::Protocol;
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener, UdpSocket};
use std::ops::RangeInclusive;
use std::sync::{Mutex, PoisonError};

/// The search for free host ports.
#[derive(Debug)]
pub(super) struct DynamicPorts {
    range: RangeInclusive<u16>,
    last: Mutex<Option<u16>>,
}

impl DynamicPorts {
    pub(super) fn new(range: RangeInclusive<u16>) -> Self {
        Self { range, last: Mutex::new(None) }
    }

    /// A port nobody listens on now.
    pub(super) fn choose(&self, protocol: Protocol) -> Result<u16, &'static str> {
        self.choose_with(|port| is_free(port, protocol))
    }

    fn choose_with(&self, free: impl Fn(u16) -> bool) -> Result<u16, &'static str> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let (start, end) = (*self.range.start(), *self.range.end());
        let from = match *last {
            Some(port) if port < end && port >= start => port + 1,
            _ => start,
        };
        let port = (from..=end).chain(start..from).find(|port| free(*port)).ok_or("a host port is unavailable")?;
        *last = Some(port);
        Ok(port)
    }
}

fn is_free(port: u16, protocol: Protocol) -> bool {
    // A host without IPv6 cannot bind `::`; there the IPv4 wildcard is what Docker will bind.
    let (all, v4) = ((Ipv6Addr::UNSPECIFIED, port), (Ipv4Addr::UNSPECIFIED, port));
    let bound = match protocol {
        Protocol::Tcp => {
            TcpListener::bind(all).map(drop).or_else(|error| retry_v4(error, || TcpListener::bind(v4).map(drop)))
        }
        Protocol::Udp => {
            UdpSocket::bind(all).map(drop).or_else(|error| retry_v4(error, || UdpSocket::bind(v4).map(drop)))
        }
    };
    bound.is_ok()
}

fn retry_v4(error: std::io::Error, bind: impl Fn() -> std::io::Result<()>) -> std::io::Result<()> {
    if error.kind() == std::io::ErrorKind::AddrInUse { Err(error) } else { bind() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goes_upwards_and_wraps_at_the_end() {
        let ports = DynamicPorts::new(10..=12);
        let given: Vec<_> = (0..4).map(|_| ports.choose_with(|_| true).unwrap()).collect();
        assert_eq!(given, [10, 11, 12, 10]);
    }

    #[test]
    fn skips_what_is_taken_and_says_when_nothing_is_left() {
        let ports = DynamicPorts::new(10..=12);
        assert_eq!(ports.choose_with(|port| port == 11), Ok(11));
        assert_eq!(ports.choose_with(|port| port == 10), Ok(10));
        assert_eq!(ports.choose_with(|_| false), Err("a host port is unavailable"));
    }

    #[test]
    fn a_port_somebody_listens_on_is_not_free() {
        let taken = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        assert!(DynamicPorts::new(port..=port).choose(Protocol::Tcp).is_err());
        drop(taken);
        assert_eq!(DynamicPorts::new(port..=port).choose(Protocol::Tcp), Ok(port));
    }
}
