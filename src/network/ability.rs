//! Finds out whether this process can set up the networks of tasks on this host.
//!
//! It makes links of the needed kinds in a namespace of its own, which ends with the thread that makes them: so it shows the rights
//! of the process, the restrictions of its service manager, and the kernel's modules, which are loaded by that. Nothing on the host
//! changes otherwise.

use crate::lane::{self, Lane};
use ecs_netlink::{Link, Namespace, Protocol, Socket, Veth, Vlan};
use rustix::thread::UnshareFlags;
use std::time::Duration;

/// The kernel loads modules meanwhile.
const LANE: lane::Settings = lane::Settings { threads: 1, spare: 0, limit: Duration::from_secs(30) };

/// What keeps tasks from having network interfaces of their own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Obstacles {
    /// Why no task can have any; `None`: nothing is in the way.
    pub any: Option<String>,
    /// Why no interface can be a VLAN; `None`: nothing but `any` is in the way.
    pub vlan: Option<String>,
}

/// Finds out what is in the way.
pub async fn obstacles() -> Obstacles {
    let probe = || std::thread::Builder::new().name("probe".to_owned()).spawn(probe).map(std::thread::JoinHandle::join);
    match Lane::new("abilities of networks", LANE).run("a network namespace", probe).await {
        Ok(Ok(Ok(found))) => found,
        Ok(Ok(Err(_panic))) => Obstacles { any: Some("the agent failed".to_owned()), vlan: None },
        Ok(Err(error)) => Obstacles { any: Some(error.to_string()), vlan: None },
        Err(error) => Obstacles { any: Some(error.to_string()), vlan: None },
    }
}

/// Runs on a thread that ends afterwards, and with it the namespace that it makes.
fn probe() -> Obstacles {
    let not = |what: &str, error: &dyn std::fmt::Display| Some(format!("{what}: {error}"));
    // Its successor is `unsafe` because of another flag.
    #[expect(deprecated)]
    let own = rustix::thread::unshare(UnshareFlags::NEWNET).map_err(ecs_netlink::Error::from).and_then(|()| {
        let namespace = Namespace::current()?;
        namespace.on_a_thread(|| Ok(()))?; // entering one may be forbidden, too
        Ok((namespace, Socket::open(Protocol::Route)?))
    });
    let (namespace, socket) = match own {
        Ok(own) => own,
        Err(error) => {
            let any = not("this process may not use network namespaces (CAP_SYS_ADMIN, RestrictNamespaces=)", &error);
            return Obstacles { any, vlan: None };
        }
    };
    let veth = Veth { name: "a", bridge: None, peer_name: "b", peer_mac: None, peer_namespace: None };
    if let Err(error) = socket.create_bridge("bridge", [2, 0, 0, 0, 0, 1]) {
        return Obstacles { any: not("this process cannot make a bridge (CAP_NET_ADMIN)", &error), vlan: None };
    }
    let port = match socket.create_veth(&veth).and_then(|()| socket.link("a")) {
        Ok(Some(Link { index, .. })) => index,
        Ok(None) => return Obstacles { any: Some("a link was removed at once".to_owned()), vlan: None },
        Err(error) => return Obstacles { any: not("this process cannot make a pair of links", &error), vlan: None },
    };
    let (mac, namespace) = ([2, 0, 0, 0, 0, 2], std::os::fd::AsFd::as_fd(&namespace));
    let made = socket.create_vlan(&Vlan { name: "vlan", parent: port, id: 1, mac, namespace });
    Obstacles { any: None, vlan: made.err().and_then(|error| not("this process cannot make a VLAN", &error)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_rights_of_a_process_decide() {
        let before = Namespace::current().unwrap().id().unwrap();
        let found = obstacles().await;
        assert_eq!(Namespace::current().unwrap().id().unwrap(), before, "no thread stays in another namespace");
        if rustix::process::geteuid().is_root() {
            assert_eq!(found.any, None);
        } else {
            assert!(found.any.unwrap().starts_with("this process may not use network namespaces"));
        }
    }
}
