//! Chooses host ports for port mappings that name none (spec `docker-mapping.md` §6).
//!
//! Owns the record of the last chosen port. It reserves nothing: another process may take the port before Docker binds it, and
//! then the create or start fails. Invariant: searches run one at a time and upwards from the last choice, so two containers
//! created together never get the same port; and a port is never outside the range.

use ecs_core::model::Protocol;
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener, UdpSocket};
use std::ops::RangeInclusive;
use std::sync::{Mutex, PoisonError};

/// The search for free host ports.
#[derive(Debug)]
pub(crate) struct DynamicPorts {
    range: RangeInclusive<u16>,
    /// The last chosen port; `None` = none was chosen yet.
    last: Mutex<Option<u16>>,
}

impl DynamicPorts {
    pub(crate) fn new(range: RangeInclusive<u16>) -> Self {
        Self { range, last: Mutex::new(None) }
    }

    /// Chooses `count` consecutive ports (at least one) on which nothing listens now, and returns the first. Ports in `taken`
    /// are not used.
    pub(crate) fn choose(&self, count: u16, protocol: Protocol, taken: &[u16]) -> Result<u16, String> {
        self.choose_with(count, |port| !taken.contains(&port) && is_free(port, protocol))
    }

    fn choose_with(&self, count: u16, free: impl Fn(u16) -> bool) -> Result<u16, String> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let (start, end) = (*self.range.start(), *self.range.end());
        let from = match *last {
            Some(port) if port < end && port >= start => port + 1,
            _ => start,
        };
        // If the rest of the range has no such run, the whole range is searched: a run may begin below the last choice and end
        // above it.
        let first =
            free_run(from..=end, count, &free).or_else(|| free_run(start..=end, count, &free).filter(|_| from > start));
        let first = first.ok_or_else(|| match count {
            1 => "a host port is unavailable".to_owned(),
            count => format!("{count} contiguous host ports are unavailable"),
        })?;
        *last = Some(first + (count - 1));
        Ok(first)
    }
}

/// The first of `count` consecutive free ports.
fn free_run(range: RangeInclusive<u16>, count: u16, free: impl Fn(u16) -> bool) -> Option<u16> {
    let mut length = 0;
    for port in range {
        length = if free(port) { length + 1 } else { 0 };
        if length == count {
            return Some(port - (count - 1));
        }
    }
    None
}

fn is_free(port: u16, protocol: Protocol) -> bool {
    // A host without IPv6 cannot bind `::`; there Docker will bind the IPv4 wildcard.
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
    fn ports_are_chosen_upwards_and_wrap_at_the_end() {
        let ports = DynamicPorts::new(10..=12);
        let given: Vec<_> = (0..4).map(|_| ports.choose_with(1, |_| true).unwrap()).collect();
        assert_eq!(given, [10, 11, 12, 10]);
    }

    #[test]
    fn taken_ports_are_skipped_and_exhaustion_is_an_error() {
        let ports = DynamicPorts::new(10..=12);
        assert_eq!(ports.choose_with(1, |port| port == 11), Ok(11));
        assert_eq!(ports.choose_with(1, |port| port == 10), Ok(10));
        assert_eq!(ports.choose_with(1, |_| false), Err("a host port is unavailable".to_owned()));
    }

    #[test]
    fn consecutive_ports_are_found_around_taken_ones() {
        let ports = DynamicPorts::new(10..=19);
        let free = |port| port != 12;
        assert_eq!(ports.choose_with(3, free), Ok(13));
        assert_eq!(ports.choose_with(3, free), Ok(16));
        assert_eq!(ports.choose_with(1, free), Ok(19));
        assert_eq!(ports.choose_with(7, free), Ok(13), "it may begin below the last choice");
        assert_eq!(ports.choose_with(8, free), Err("8 contiguous host ports are unavailable".to_owned()));
        assert_eq!(DynamicPorts::new(65_530..=65_535).choose_with(6, |_| true), Ok(65_530));
        assert!(DynamicPorts::new(65_530..=65_535).choose_with(7, |_| true).is_err());
        assert_eq!(DynamicPorts::new(42_000..=42_000).choose(1, Protocol::Udp, &[42_000]).ok(), None);
    }

    #[test]
    fn a_port_somebody_listens_on_is_not_free() {
        let taken = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        assert!(DynamicPorts::new(port..=port).choose(1, Protocol::Tcp, &[]).is_err());
        drop(taken);
        assert_eq!(DynamicPorts::new(port..=port).choose(1, Protocol::Tcp, &[]), Ok(port));
    }
}
