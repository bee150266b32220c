//! Makes the network interfaces of tasks on this host: a pair of connected links, of which the task gets one end. The other end is a port
//! of the bridge `ecs-local`, which leads out through this host. This module owns the bridge, the links `ecsl…` and `ecse…`, and the
//! rules that let their packets out; it needs root, or the capabilities `CAP_NET_ADMIN` and `CAP_SYS_ADMIN`, which the agent
//! needs as well. Invariant: what it makes for a task, it removes after the task, and the rest when no task has an interface. What a
//! process that was killed has left, the next one removes.

use super::ids::new_id;
use super::interfaces::{GATEWAY, Link, NETWORK, WAIT, Work};
use super::shared::Shared;
use super::state::MAX_TASKS;
use ecs_netlink::{
    Address, AddressFlags, Batch, Errno, Hook, LinkChange, Match, Namespace, Network, Protocol, Socket, Verdict, Veth,
};
use rustix::thread::{CapabilitySet, capabilities};
use std::collections::VecDeque;
use std::io::Write;
use std::net::IpAddr;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process::{Command, Stdio};
use std::sync::Weak;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};
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

/// The names of links that are ports of the bridge begin with this.
const PORT: &str = "ecsl";
/// How much work may wait: each living task has a link to make at most, and one to remove.
const MAX_WORK: usize = 2 * MAX_TASKS;
/// The time limit of a program.
const PROGRAM_LIMIT: Duration = Duration::from_secs(10);
/// How often a running program is looked at.
const PROGRAM_PAUSE: Duration = Duration::from_millis(5);
/// The names of the sockets that mark a process that may have made links begin with this.
const MARK: &str = "ecs-local-links-";
/// The kernel's list of local sockets in this network namespace.
const SOCKETS: &str = "/proc/thread-self/net/unix";

/// The thread that makes links.
#[derive(Debug)]
pub(super) struct Links {
    /// For its work. It ends when this is dropped.
    pub(super) work: SyncSender<Work>,
    /// Ends when the thread has done all its work.
    pub(super) ended: oneshot::Receiver<()>,
}

/// What this process lacks for making links, in words; `None`: it may make them.
pub(super) fn obstacle() -> Option<String> {
    let may_enter = Namespace::current().and_then(|namespace| namespace.on_a_thread(|| Ok(())));
    let may_change = capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::NET_ADMIN));
    let needs = "it needs root, or CAP_NET_ADMIN and CAP_SYS_ADMIN";
    match may_enter {
        Err(error) => Some(format!("{needs} ({error})")),
        Ok(()) if !may_change => Some(format!("{needs} (CAP_NET_ADMIN is missing)")),
        Ok(()) => None,
    }
}

/// Starts the thread, if this process may make links.
///
/// # Errors
/// What this process lacks, in words.
pub(super) fn start(shared: Weak<Shared>) -> Result<Links, String> {
    obstacle().map_or(Ok(()), Err)?;
    let mark = mark().map_err(|error| format!("a local socket cannot be made ({error})"))?;
    let ((work, to_do), (end, ended)) = (sync_channel(MAX_WORK), oneshot::channel());
    let thread = std::thread::Builder::new().name("links".to_owned()).spawn(move || {
        tell(remove_leftovers());
        run(&shared, &to_do);
        drop(mark);
        let _nobody_waits = end.send(());
    });
    thread.map(|_ends_with_the_sender| Links { work, ended }).map_err(|error| error.to_string())
}

/// A socket by which other processes in this network namespace see that this one lives. It has no file, and ends with the process.
fn mark() -> std::io::Result<UnixDatagram> {
    UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(format!("{MARK}{}", new_id()))?)
}

/// Another process than this one may have links here. Each has one mark.
fn has_company() -> bool {
    let name = format!(" @{MARK}");
    std::fs::read_to_string(SOCKETS).map_or(true, |text| text.lines().filter(|line| line.contains(&name)).count() > 1)
}

/// Shows a problem that nobody waits for.
fn tell(outcome: Result<(), String>) {
    if let Err(problem) = outcome {
        let _written = writeln!(std::io::stderr().lock(), "ecs-local: {problem}");
    }
}

/// Tasks whose interfaces the agent should report, in the order in which ECS gives them up.
#[derive(Debug, Default)]
struct Waits(VecDeque<(Instant, Link, String)>);

impl Waits {
    fn begin(&mut self, now: Instant, link: &Link, task: &str) {
        self.0.push_back((now + Duration::from_secs(WAIT.into()), link.clone(), task.to_owned()));
    }

    fn end(&mut self, link: &Link) {
        self.0.retain(|(_, waiting, _)| waiting != link);
    }

    /// How long it takes until the next one is given up; `None`: there is none.
    fn next(&self, now: Instant) -> Option<Duration> {
        self.0.front().map(|(end, _, _)| end.saturating_duration_since(now))
    }

    /// The task that is given up by now, if there is one.
    fn over(&mut self, now: Instant) -> Option<String> {
        self.0.pop_front_if(|(end, _, _)| *end <= now).map(|(_, _, task)| task)
    }
}

fn run(shared: &Weak<Shared>, work: &Receiver<Work>) {
    let mut waits = Waits::default();
    loop {
        let next = match waits.next(Instant::now()) {
            Some(wait) => work.recv_timeout(wait),
            None => work.recv().map_err(|_ended| RecvTimeoutError::Disconnected),
        };
        match next {
            Ok(Work::Make(task, link)) => {
                let made = make(&link).inspect_err(|_| drop(remove(&link)));
                let Some(shared) = shared.upgrade() else {
                    let _gone = remove(&link);
                    break;
                };
                waits.begin(Instant::now(), &link, &task);
                shared.change(|state| state.interface_made(&task, made));
            }
            Ok(Work::Remove(link)) => {
                waits.end(&link);
                tell(remove(&link));
            }
            Err(RecvTimeoutError::Timeout) => {
                let Some(shared) = shared.upgrade() else { break };
                while let Some(task) = waits.over(Instant::now()) {
                    shared.change(|state| state.interface_expired(&task));
                }
            }
            Err(RecvTimeoutError::Disconnected) => break,
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
    (format!("{PORT}{id}"), format!("ecse{id}"))
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
            succeeds(&mut command)
        };
        let Some(is_there) = run("-C") else { return };
        if is_there != (change == "-I") && run(change).is_none() {
            return;
        }
    }
}

/// Runs a program without input and output. `None`: it could not be run, or did not end in time.
fn succeeds(command: &mut Command) -> Option<bool> {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().ok()?;
    let end = Instant::now() + PROGRAM_LIMIT;
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status.success()),
            Ok(None) if Instant::now() < end => std::thread::sleep(PROGRAM_PAUSE),
            Ok(None) | Err(_) => {
                // One that hangs in the kernel does not end by this either, so nobody waits for it.
                let _ended = child.kill();
                tell(Err(format!(
                    "{} has not ended for {} s",
                    command.get_program().display(),
                    PROGRAM_LIMIT.as_secs()
                )));
                return None;
            }
        }
    }
}

/// Removes the links of processes that were killed.
fn remove_leftovers() -> Result<(), String> {
    let failed = |error: ecs_netlink::Error| format!("links that an earlier ecs-local left cannot be removed: {error}");
    let socket = Socket::open(Protocol::Route).map_err(failed)?;
    let Some(bridge) = socket.link(BRIDGE).map_err(failed)? else { return Ok(()) };
    let links = socket.links().map_err(failed)?;
    // Asked after the list was read: a process that begins now makes only links that are not in it.
    if has_company() {
        return Ok(());
    }
    for port in links.iter().filter(|link| link.master == Some(bridge.index) && link.name.starts_with(PORT)) {
        delete(&socket, port.index).map_err(failed)?;
    }
    remove_unused_bridge(&socket)
}

/// Deletes a link, unless it is gone.
fn delete(socket: &Socket, index: u32) -> Result<(), ecs_netlink::Error> {
    socket.delete_link(index).or_else(|error| if error.is_missing_link() { Ok(()) } else { Err(error) })
}

fn remove(link: &Link) -> Result<(), String> {
    let failed = |error: ecs_netlink::Error| format!("the link of a task cannot be removed: {error}");
    let socket = Socket::open(Protocol::Route).map_err(failed)?;
    let (port, _) = names(link);
    // The other end goes with it, wherever it is.
    if let Some(port) = socket.link(&port).map_err(failed)? {
        delete(&socket, port.index).map_err(failed)?;
    }
    remove_unused_bridge(&socket)
}

/// Removes the bridge and its rules if it has no ports.
fn remove_unused_bridge(socket: &Socket) -> Result<(), String> {
    let failed = |error: ecs_netlink::Error| format!("the bridge {BRIDGE} cannot be removed: {error}");
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
    delete(socket, bridge.index).map_err(failed)
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

    #[test]
    fn a_wait_ends_with_its_link_or_in_time() {
        let (now, mut waits) = (Instant::now(), Waits::default());
        let link = |last: u8| Link { mac: [10, 1, 2, 3, 4, last], address: GATEWAY };
        assert_eq!(waits.next(now), None);
        waits.begin(now, &link(1), "removed");
        waits.begin(now, &link(2), "waits");
        waits.begin(now + Duration::from_secs(1), &link(3), "waits longer");
        waits.end(&link(1));
        let end = now + Duration::from_secs(WAIT.into());
        assert_eq!((waits.next(now), waits.over(now)), (Some(end - now), None));
        assert_eq!((waits.over(end).as_deref(), waits.over(end)), (Some("waits"), None));
        assert_eq!(waits.next(end), Some(Duration::from_secs(1)));
    }

    #[test]
    fn a_program_is_waited_for() {
        assert_eq!(succeeds(&mut Command::new("true")), Some(true));
        assert_eq!(succeeds(&mut Command::new("false")), Some(false));
        assert_eq!(succeeds(&mut Command::new("/nowhere/iptables")), None);
    }

    /// In a network namespace of its own, which ends with the thread.
    #[test]
    fn links_of_a_killed_process_are_removed() {
        if let Some(why) = obstacle() {
            eprintln!("SKIPPED links_of_a_killed_process_are_removed: {why}");
            return;
        }
        let thread = std::thread::spawn(|| {
            #[expect(deprecated, reason = "safe here: the thread shares no files with others")]
            rustix::thread::unshare(rustix::thread::UnshareFlags::NEWNET).unwrap();
            let killed = mark().unwrap();
            let link = Link { mac: [10, 1, 2, 3, 4, 5], address: GATEWAY };
            make(&link).unwrap();
            let socket = Socket::open(Protocol::Route).unwrap();
            let (port, end) = names(&link);
            let _this = mark().unwrap();
            remove_leftovers().unwrap();
            assert!(socket.link(&port).unwrap().is_some(), "the other process lives");
            drop(killed);
            remove_leftovers().unwrap();
            for name in [port.as_str(), &end, BRIDGE] {
                assert!(socket.link(name).unwrap().is_none(), "{name}");
            }
            remove_leftovers().unwrap();
        });
        thread.join().unwrap();
    }
}
