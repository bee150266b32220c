//! Who is served.
//!
//! The Go agent listens to everybody; `ecs-init` puts rules into the host's firewall that leave loopback and Docker's default bridge
//! (since 1.97.0). Here the agent itself judges each peer when its connection is accepted, which takes no privilege and cannot be
//! undone by whoever flushes the firewall.
//!
//! It asks the kernel which way an answer to the peer would go. That is what decides, not a list of subnets: a connection stands only
//! if the peer got our half of the handshake, so a peer whose answers stay on this host *is* on this host, and one whose answers go
//! out on the bridge, to a neighbour, is a container there. A forged source address never gets that far. The question takes
//! microseconds, so nothing is cached: networks and addresses may come and go, the next connection sees them. Docker is asked only for
//! the bridge's name, by the runtime.

use super::route::{self, Way};
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use tokio::sync::watch;

/// Where a peer that is served stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// On this host: loopback, or one of the host's own addresses (which containers on the host's network have).
    Host,
    /// A container on Docker's default bridge.
    Bridge,
    /// Anybody else, where everybody is served.
    Other,
}

/// The other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Peer {
    /// Of a connection to a port.
    Address(SocketAddr),
    /// Of a connection to a socket: a process of this user. `None`: the kernel does not say whose.
    User(Option<u32>),
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(from) => SocketAddr::new(from.ip().to_canonical(), from.port()).fmt(f),
            Self::User(Some(user)) => write!(f, "user {user}"),
            Self::User(None) => f.write_str("an unknown user"),
        }
    }
}

/// Whom a server serves.
#[derive(Clone, Debug)]
pub struct Audience {
    everybody: bool,
    bridge: watch::Receiver<Option<String>>,
}

/// Why a peer is not served.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refused {
    /// It is neither on this host nor on the bridge.
    #[error("it is neither on this host nor on Docker's default bridge")]
    Foreign,
    /// The kernel was asked and knows nothing.
    #[error("the kernel does not say where it is: {0}")]
    Unknown(#[from] io::Error),
}

impl Audience {
    /// This host and containers on Docker's default bridge, whose interface has the name in `bridge` (`None`: there is no such
    /// bridge, or it is not known yet); with `everybody` true, everybody.
    pub fn new(everybody: bool, bridge: watch::Receiver<Option<String>>) -> Self {
        Self { everybody, bridge }
    }

    /// This host alone. The right one for a socket too: whoever can connect to it is on this host.
    pub fn host_only() -> Self {
        Self::new(false, watch::channel(None).1)
    }

    /// Judges the peer of a connection to our address `local`.
    pub(super) fn judge(&self, local: IpAddr, peer: SocketAddr) -> Result<Standing, Refused> {
        // Without the kernel: the health check of a host must not depend on it.
        let found = match peer.ip().to_canonical().is_loopback() {
            true => Ok(Way::Local),
            false => route::way(local, peer),
        };
        let standing = match found {
            Ok(Way::Local) => Ok(Standing::Host),
            Ok(Way::Neighbour(index)) if self.is_bridge(index) => Ok(Standing::Bridge),
            Ok(Way::Neighbour(_) | Way::Elsewhere) => Err(Refused::Foreign),
            Err(error) => Err(error.into()),
        };
        match standing {
            Err(_) if self.everybody => Ok(Standing::Other),
            standing => standing,
        }
    }

    /// An interface is found by its name each time: Docker may make it anew under the same name.
    fn is_bridge(&self, index: u32) -> bool {
        self.bridge.borrow().as_deref().and_then(route::interface) == Some(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(audience: &Audience, local: &str, peer: &str) -> Option<Standing> {
        audience.judge(local.parse().unwrap(), peer.parse().unwrap()).ok()
    }

    #[test]
    fn loopback_is_this_host_in_every_form() {
        let audience = Audience::host_only();
        for (local, peer) in [
            ("127.0.0.1", "127.0.0.1:1"),
            ("127.0.0.1", "127.255.0.9:1"),
            ("::1", "[::1]:1"),
            ("::ffff:127.0.0.1", "[::ffff:127.0.0.1]:1"),
        ] {
            assert_eq!(judged(&audience, local, peer), Some(Standing::Host), "{peer}");
        }
    }

    /// Addresses for documentation are on no host, so they are behind a gateway or behind nothing.
    #[test]
    fn a_stranger_is_served_only_where_everybody_is() {
        let bridge = watch::channel(Some("lo".to_owned())).1;
        for peer in ["203.0.113.9:1", "[2001:db8::9]:1", "[::ffff:203.0.113.9]:1"] {
            assert_eq!(judged(&Audience::host_only(), "127.0.0.1", peer), None, "{peer}");
            assert_eq!(judged(&Audience::new(false, bridge.clone()), "127.0.0.1", peer), None, "{peer}");
            let everybody = Audience::new(true, bridge.clone());
            assert_eq!(judged(&everybody, "127.0.0.1", peer), Some(Standing::Other), "{peer}");
        }
    }
}
