//! Finds out whether this process can set up the networks of tasks on this host.
//!
//! It makes links of the needed kinds in a namespace of its own, which ends with the thread that makes them: so it shows the rights
//! of the process, the restrictions of its service manager, and the kernel's modules, which are loaded by that. Nothing on the host
//! changes otherwise. It also enters the network of the host's first process, as that of a pause container later.

use super::proxy;
use crate::lane::{self, Lane};
use ecs_netlink::{Errno, Link, Namespace, Protocol, Socket, Veth, Vlan};
use rustix::thread::{CapabilitySet, UnshareFlags, capabilities};
use std::path::{Path, PathBuf};
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
    /// Why no task can have a proxy; `None`: nothing but `any` is in the way.
    pub proxy: Option<String>,
}

impl Obstacles {
    fn any(text: impl Into<String>) -> Self {
        Self { any: Some(text.into()), ..Self::default() }
    }
}

/// Finds out what is in the way. `processes` is where the processes of the host are ([`super::Settings`]).
pub async fn obstacles(processes: PathBuf) -> Obstacles {
    let probe = move || {
        let thread = std::thread::Builder::new().name("probe".to_owned());
        thread.spawn(move || probe(&processes)).map(std::thread::JoinHandle::join)
    };
    match Lane::new("abilities of networks", LANE).run("a network namespace", probe).await {
        Ok(Ok(Ok(found))) => found,
        Ok(Ok(Err(_panic))) => Obstacles::any("the agent failed"),
        Ok(Err(error)) => Obstacles::any(error.to_string()),
        Err(error) => Obstacles::any(error.to_string()),
    }
}

/// Runs on a thread that ends afterwards, and with it the namespace that it makes.
fn probe(processes: &Path) -> Obstacles {
    let not = |what: &str, error: &dyn std::fmt::Display| Some(format!("{what}: {error}"));
    if let Some(any) = entering(processes) {
        return Obstacles::any(any);
    }
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
            return Obstacles { any, ..Obstacles::default() };
        }
    };
    let veth = Veth { name: "a", bridge: None, peer_name: "b", peer_mac: None, peer_namespace: None };
    if let Err(error) = socket.create_bridge("bridge", [2, 0, 0, 0, 0, 1]) {
        let any = not("this process cannot make a bridge (CAP_NET_ADMIN)", &error);
        return Obstacles { any, ..Obstacles::default() };
    }
    let port = match socket.create_veth(&veth).and_then(|()| socket.link("a")) {
        Ok(Some(Link { index, .. })) => index,
        Ok(None) => return Obstacles::any("a link was removed at once"),
        Err(error) => {
            let any = not("this process cannot make a pair of links", &error);
            return Obstacles { any, ..Obstacles::default() };
        }
    };
    let (mac, namespace) = ([2, 0, 0, 0, 0, 2], std::os::fd::AsFd::as_fd(&namespace));
    let made = socket.create_vlan(&Vlan { name: "vlan", parent: port, id: 1, mac, namespace });
    let vlan = made.err().and_then(|error| not("this process cannot make a VLAN", &error));
    let proxy = proxy::probe().err().and_then(|error| not("this process cannot redirect connections", &error));
    Obstacles { any: None, vlan, proxy }
}

/// Whether the network of another process can be opened and entered. The first one always runs, also in a container with processes of
/// its own.
fn entering(processes: &Path) -> Option<String> {
    let path = processes.join("1/ns/net");
    let error = Namespace::open(&path).and_then(|namespace| namespace.on_a_thread(|| Ok(()))).err()?;
    let path = path.display();
    if !error.is(Errno::ACCESS) && !error.is(Errno::PERM) {
        return Some(format!("this process cannot enter {path}: {error}"));
    }
    // The first process may be guarded more than those of containers, as in some virtual machines. Then the right itself decides.
    let may_trace = capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_PTRACE));
    (!may_trace).then(|| format!("this process may not open {path} (CAP_SYS_PTRACE): {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_rights_of_a_process_decide() {
        let before = Namespace::current().unwrap().id().unwrap();
        let found = obstacles(PathBuf::from("/proc")).await;
        assert_eq!(Namespace::current().unwrap().id().unwrap(), before, "no thread stays in another namespace");
        if rustix::process::geteuid().is_root() {
            assert_eq!((found.any, found.proxy), (None, None));
        } else {
            assert!(found.any.unwrap().starts_with("this process may not open /proc/1/ns/net (CAP_SYS_PTRACE)"));
        }
    }

    #[tokio::test]
    async fn processes_that_are_not_there_are_an_obstacle() {
        let found = obstacles(PathBuf::from("/nowhere")).await;
        let text = "this process cannot enter /nowhere/1/ns/net: No such file or directory (ENOENT)";
        assert_eq!(found, Obstacles::any(text));
    }
}
