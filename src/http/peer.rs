//! Decides which peers are served.
//!
//! The Go agent serves every peer; `ecs-init` adds firewall rules to the host that admit only loopback and Docker's default
//! bridge (since 1.97.0). Here the agent itself checks each peer when it accepts the connection. This needs no privilege, and
//! flushing the firewall does not undo it.
//!
//! The check asks the kernel for the route to the peer; it does not compare with a list of subnets. A connection is
//! established only if the peer received our half of the handshake. So a peer whose packets stay on this host *is* on this
//! host, and a peer that is a neighbour on the bridge is a container there. A forged source address never gets that far. The
//! query takes microseconds, so nothing is cached, and every change of networks and addresses counts from the next connection
//! on. The runtime asks Docker only for the names of its bridges.

use super::route::{self, Route};
use ecs_core::model::Bridges;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use tokio::sync::watch;

/// The location of a peer that is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerLocation {
    /// On this host: loopback, or one of the host's own addresses (which containers on the host's network have).
    Host,
    /// A container on a bridge of Docker.
    Bridge,
    /// Any other peer, on a server that serves every peer.
    Other,
}

/// The other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Peer {
    /// The address of the peer of a connection to a port.
    Address(SocketAddr),
    /// The user id of the process that connected to a socket. `None`: the kernel does not report it.
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

/// Which peers a server serves.
#[derive(Clone, Debug)]
pub struct Audience {
    /// Every peer is served, wherever it is.
    everybody: bool,
    /// Containers on the bridges of Docker's other networks are served.
    networks: bool,
    /// The bridges of Docker.
    bridges: watch::Receiver<Bridges>,
}

/// Why a peer is not served.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refused {
    /// The peer is neither on this host nor on the bridge.
    #[error("it is neither on this host nor on a bridge of Docker that is served")]
    Foreign,
    /// The kernel could not be asked, or has no route to the peer.
    #[error("the kernel does not say where it is: {0}")]
    Unknown(#[from] io::Error),
}

impl Audience {
    /// This host and the containers on bridges: on Docker's default one, on those of its other networks, and on that of tasks in
    /// network mode `awsvpc`.
    pub fn containers(bridges: watch::Receiver<Bridges>) -> Self {
        Self { everybody: false, networks: true, bridges }
    }

    /// This host and the containers on Docker's default bridge; with `everybody` true, every peer.
    pub fn new(everybody: bool, bridges: watch::Receiver<Bridges>) -> Self {
        Self { everybody, networks: false, bridges }
    }

    /// This host alone. This also fits a socket, since only processes on this host can connect to it.
    pub fn host_only() -> Self {
        Self::new(false, watch::channel(Bridges::default()).1)
    }

    /// Checks the peer of a connection to our address `local`.
    pub(super) fn check(&self, local: IpAddr, peer: SocketAddr) -> Result<PeerLocation, Refused> {
        // The kernel is not asked: the health check on the host must not depend on it.
        let found = match peer.ip().to_canonical().is_loopback() {
            true => Ok(Route::Local),
            false => route::route_to(local, peer),
        };
        let location = match found {
            Ok(Route::Local) => Ok(PeerLocation::Host),
            Ok(Route::Neighbour(index)) if self.is_bridge(index) => Ok(PeerLocation::Bridge),
            Ok(Route::Neighbour(_) | Route::Elsewhere) => Err(Refused::Foreign),
            Err(error) => Err(error.into()),
        };
        match location {
            Err(_) if self.everybody => Ok(PeerLocation::Other),
            location => location,
        }
    }

    /// Looks the interface up by name each time, since Docker may recreate it under the same name.
    fn is_bridge(&self, index: u32) -> bool {
        let bridges = self.bridges.borrow();
        let is_of_network = |name: &String| is_docker_network(name) || name == AWSVPC || bridges.named.contains(name);
        bridges.default.as_deref().and_then(route::interface) == Some(index)
            || (self.networks && route::interface_name(index).is_some_and(|name| is_of_network(&name)))
    }
}

/// The bridge that ECS's network plugins make for tasks in network mode `awsvpc`.
const AWSVPC: &str = "ecs-bridge";

/// Whether Docker gives this name to the bridge of a network that has no name of its own: `br-` and the beginning of the network's id.
fn is_docker_network(name: &str) -> bool {
    name.strip_prefix("br-").is_some_and(|id| id.len() == 12 && id.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    #[test]
    fn bridges_of_networks_are_known_by_their_names() {
        for (name, expected) in [
            ("br-0123456789ab", true),
            ("br-0123456789AB", true),
            ("br-0123456789abc", false),
            ("br-0123456789a", false),
            ("br-lan", false),
            ("br0", false),
            ("docker0", false),
        ] {
            assert_eq!(is_docker_network(name), expected, "{name}");
        }
    }

    use super::*;

    fn checked(audience: &Audience, local: &str, peer: &str) -> Option<PeerLocation> {
        audience.check(local.parse().unwrap(), peer.parse().unwrap()).ok()
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
            assert_eq!(checked(&audience, local, peer), Some(PeerLocation::Host), "{peer}");
        }
    }

    /// No host has the addresses for documentation, so they are behind a gateway or unreachable.
    #[test]
    fn a_stranger_is_served_only_where_everybody_is() {
        let bridge = watch::channel(Bridges { default: Some("lo".to_owned()), ..Bridges::default() }).1;
        for peer in ["203.0.113.9:1", "[2001:db8::9]:1", "[::ffff:203.0.113.9]:1"] {
            assert_eq!(checked(&Audience::host_only(), "127.0.0.1", peer), None, "{peer}");
            assert_eq!(checked(&Audience::new(false, bridge.clone()), "127.0.0.1", peer), None, "{peer}");
            let everybody = Audience::new(true, bridge.clone());
            assert_eq!(checked(&everybody, "127.0.0.1", peer), Some(PeerLocation::Other), "{peer}");
        }
    }
}
