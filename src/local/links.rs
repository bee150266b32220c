//! Makes the network interfaces of tasks on this host: a pair of connected links, of which the task gets one end. The other end is a port
//! of the bridge `ecs-local`, which leads out through this host. This module owns the bridge, the links `ecsl…` and `ecse…`, and the
//! rules that let their packets out; it needs root, or the capabilities `CAP_NET_ADMIN` and `CAP_SYS_ADMIN`, which the agent
//! needs as well. Invariant: what it makes for a task, it removes after the task, and the rest when no task has an interface.

use super::interfaces::{GATEWAY, Link, NETWORK, Work};
use super::shared::Shared;
use ecs_netlink::{
    Address, AddressFlags, Batch, Errno, Hook, LinkChange, Match, Namespace, Network, Protocol, Socket, Verdict, Veth,
};
use std::io::Write;
use std::net::IpAddr;
use std::process::{Command, Stdio};
use std::sync::Weak;
use std::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::oneshot;

/// The name of the bridge, and of the table of rules.
const BRIDGE: &str = "ecs-local";
/// The bridge's hardware address: the same in each run, so that no neighbour has to look for it again.
const BRIDGE_MAC: [u8; 6] = [0x0a, 0x58, 198, 18, 0, 1];
/// The kernel's switch for packets between links.
const FORWARDING: &str = "/proc/sys/net/ipv4/ip_forward";
/// The files that may name the name servers of this host. The first may name a program of this host only.
const RESOLVERS: [&str; 2] = ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"];
/// The name server of tasks if this host names none that they reach, as Docker's.
const PUBLIC_RESOLVER: &str = "8.8.8.8";

/// The thread that makes links.
#[derive(Debug)]
pub(super) struct Links {
    /// For its work. It ends when this is dropped.
    pub(super) work: Sender<Work>,
    /// Ends when the thread has done all its work.
    pub(super) ended: oneshot::Receiver<()>,
}

/// Starts the thread, if this process may make links.
///
/// # Errors
/// What this process lacks, in words.
pub(super) fn start(shared: Weak<Shared>) -> Result<Links, String> {
    let may_enter = Namespace::current().and_then(|namespace| namespace.on_a_thread(|| Ok(())));
    may_enter.map_err(|error| format!("it needs root, or CAP_NET_ADMIN and CAP_SYS_ADMIN ({error})"))?;
    let ((work, to_do), (end, ended)) = (channel(), oneshot::channel());
    let thread = std::thread::Builder::new().name("links".to_owned()).spawn(move || {
        run(&shared, &to_do);
        let _nobody_waits = end.send(());
    });
    thread.map(|_ends_with_the_sender| Links { work, ended }).map_err(|error| error.to_string())
}

fn run(shared: &Weak<Shared>, work: &Receiver<Work>) {
    while let Ok(work) = work.recv() {
        match work {
            Work::Make(task, link) => {
                let made = make(&link).inspect_err(|_| drop(remove(&link)));
                let Some(shared) = shared.upgrade() else {
                    let _gone = remove(&link);
                    break;
                };
                shared.change(|state| state.interface_made(&task, made));
            }
            Work::Remove(link) => {
                if let Err(problem) = remove(&link) {
                    // Nobody waits for this answer any more.
                    let _written = writeln!(std::io::stderr().lock(), "ecs-local: {problem}");
                }
            }
        }
    }
}

/// Name servers that tasks reach, as this host names them.
pub(super) fn name_servers() -> Vec<String> {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let found = RESOLVERS.iter().map(|path| reachable(&read(path))).find(|found| !found.is_empty());
    found.unwrap_or_else(|| vec![PUBLIC_RESOLVER.to_owned()])
}

/// The IPv4 name servers in a file for the resolver that are not on this host.
fn reachable(text: &str) -> Vec<String> {
    let servers = text.lines().filter_map(|line| line.trim().strip_prefix("nameserver")?.trim().parse::<IpAddr>().ok());
    servers.filter(|address| address.is_ipv4() && !address.is_loopback()).map(|address| address.to_string()).collect()
}

/// The names of the two ends of a link: the port of the bridge, and the task's end.
fn names(link: &Link) -> (String, String) {
    let [_, _, a, b, c, d] = link.mac;
    let id = format!("{a:02x}{b:02x}{c:02x}{d:02x}");
    (format!("ecsl{id}"), format!("ecse{id}"))
}

fn make(link: &Link) -> Result<(), String> {
    let failed = |what: &'static str| move |error: ecs_netlink::Error| format!("{what}: {error}");
    let socket = Socket::open(Protocol::Route).map_err(failed("the kernel cannot be asked"))?;
    let bridge = bridge(&socket)?;
    let (port, end) = names(link);
    let pair =
        Veth { name: &port, bridge: Some(bridge), peer_name: &end, peer_mac: Some(link.mac), peer_namespace: None };
    match socket.create_veth(&pair) {
        Err(error) if !error.is(Errno::EXIST) => return Err(failed("a pair of links cannot be made")(error)),
        Ok(()) | Err(_) => {}
    }
    let made = socket.link(&port).map_err(failed("the links cannot be read"))?;
    let made = made.ok_or("the pair of links was removed at once")?;
    let up = LinkChange { is_up: Some(true), ..LinkChange::default() };
    socket.change_link(made.index, &up).map_err(failed("the link cannot be switched on"))
}

/// The number of the bridge, which leads out of this host.
fn bridge(socket: &Socket) -> Result<u32, String> {
    let failed = |what: &'static str| move |error: ecs_netlink::Error| format!("the bridge {BRIDGE}: {what}: {error}");
    // Each step is taken each time, since an earlier process may have been killed in between: what is so already is no error.
    match socket.create_bridge(BRIDGE, BRIDGE_MAC) {
        Err(error) if !error.is(Errno::EXIST) => return Err(failed("it cannot be made")(error)),
        Ok(()) | Err(_) => {}
    }
    let made = socket.link(BRIDGE).map_err(failed("it cannot be looked for"))?;
    let index = made.ok_or_else(|| format!("the bridge {BRIDGE} was removed at once"))?.index;
    let (network, length) = NETWORK;
    let address = Address { link: index, address: GATEWAY.into(), length };
    match socket.add_address(&address, AddressFlags::default()) {
        Err(error) if !error.is(Errno::EXIST) => return Err(failed("it gets no address")(error)),
        Ok(()) | Err(_) => {}
    }
    let up = LinkChange { is_up: Some(true), ..LinkChange::default() };
    socket.change_link(index, &up).map_err(failed("it cannot be switched on"))?;
    std::fs::write(FORWARDING, "1").map_err(|error| format!("{FORWARDING}: {error}"))?;
    let from = Match::From(Network { address: network.into(), length });
    let rules = Batch::replacing(BRIDGE).chain(Hook::Leaving);
    let rules = rules.rule(Hook::Leaving, &[from, Match::NotLeavingOver(BRIDGE.to_owned())], Verdict::Masquerade);
    let sent = Socket::open(Protocol::Netfilter).and_then(|socket| rules.send(&socket));
    sent.map_err(failed("its packets cannot get the address of this host"))?;
    let_through("-I");
    Ok(index)
}

/// Adds or removes the rules that let packets of the bridge through: Docker's rules drop what they do not know. Where Docker made none,
/// nothing needs to be let through, and the program may be missing.
fn let_through(change: &str) {
    const RULES: [&[&str]; 2] =
        [&["-i", BRIDGE], &["-o", BRIDGE, "-m", "conntrack", "--ctstate", "RELATED,ESTABLISHED"]];
    for rule in RULES {
        let run = |action: &str| {
            // The program waits for the lock for at most 5 s.
            let mut command = Command::new("iptables");
            command.args(["-w", "5", action, "FORWARD"]).args(rule).args(["-j", "ACCEPT"]);
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            command.status().is_ok_and(|status| status.success())
        };
        let is_there = run("-C");
        if is_there != (change == "-I") {
            run(change);
        }
    }
}

fn remove(link: &Link) -> Result<(), String> {
    let failed = |error: ecs_netlink::Error| format!("the link of a task cannot be removed: {error}");
    let socket = Socket::open(Protocol::Route).map_err(failed)?;
    let (port, _) = names(link);
    // The other end goes with it, wherever it is.
    if let Some(port) = socket.link(&port).map_err(failed)? {
        match socket.delete_link(port.index) {
            Err(error) if !error.is_missing_link() => return Err(failed(error)),
            Ok(()) | Err(_) => {}
        }
    }
    let Some(bridge) = socket.link(BRIDGE).map_err(failed)? else { return Ok(()) };
    if socket.links().map_err(failed)?.iter().any(|link| link.master == Some(bridge.index)) {
        return Ok(());
    }
    let_through("-D");
    let rules = Socket::open(Protocol::Netfilter).and_then(|socket| Batch::removing(BRIDGE).send(&socket));
    match rules {
        Err(error) if !error.is(Errno::NOENT) => return Err(failed(error)),
        Ok(()) | Err(_) => {}
    }
    socket.delete_link(bridge.index).or_else(|error| if error.is_missing_link() { Ok(()) } else { Err(failed(error)) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_ask_name_servers_that_they_reach() {
        let text =
            "# by hand\nnameserver 127.0.0.53\nnameserver 10.0.0.2\nsearch x\nnameserver ::1\nnameserver 10.0.0.3\n";
        assert_eq!(reachable(text), ["10.0.0.2", "10.0.0.3"]);
        assert!(reachable("nameserver 127.0.0.11\nnameserver fe80::1\n").is_empty());
    }

    #[test]
    fn the_names_of_links_fit_the_kernel() {
        let (port, end) = names(&Link { mac: [10, 1, 2, 3, 4, 255], address: GATEWAY });
        assert_eq!((port.as_str(), end.as_str()), ("ecsl020304ff", "ecse020304ff"));
        assert!(port.len() < 16);
    }
}
