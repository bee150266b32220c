//! Real packets, in network namespaces: a host, a container on a bridge of it, and a neighbour on another interface of it.
//!
//! As root only. The machine's own rules and networks stay as they are.

use super::super::program::Programs;
use super::rules::ROUTE_LOCALNET;
use super::*;
use ecs_core::model::Bridges;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space, set_capabilities};
use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Enough for a connection inside this machine; what is dropped costs this long.
const PATIENCE: Duration = Duration::from_millis(1500);

/// A network namespace, and the process that keeps it.
struct Namespace(Child);

impl Namespace {
    /// `None` if this process may not make namespaces.
    fn new() -> Option<Self> {
        let mut command = Command::new("unshare");
        command.args(["--net", "sh", "-c", "echo ready; exec sleep 600"]).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut keeper = command.spawn().ok()?;
        let mut ready = String::new();
        let mut output = keeper.stdout.take()?.take(6);
        output.read_to_string(&mut ready).ok()?;
        let namespace = Self(keeper);
        (ready == "ready\n").then_some(namespace)
    }

    fn id(&self) -> u32 {
        self.0.id()
    }

    /// Moves this thread into the namespace.
    fn enter(id: u32) {
        let file = File::open(format!("/proc/{id}/ns/net")).unwrap();
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
    }

    /// Runs a command in the namespace.
    fn run(&self, command: &str) {
        let mut words = vec![format!("--net=/proc/{}/ns/net", self.id())];
        words.extend(command.split(' ').map(str::to_owned));
        let output = Command::new("nsenter").args(words).output().unwrap();
        assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Whether a client in the namespace gets the server's answer.
    fn reaches(&self, address: &str) -> bool {
        self.client(address).join().unwrap()
    }

    fn client(&self, address: &str) -> std::thread::JoinHandle<bool> {
        let (id, address) = (self.id(), address.parse::<SocketAddr>().unwrap());
        let client = move || {
            Self::enter(id);
            let mut answer = String::new();
            let connected = TcpStream::connect_timeout(&address, PATIENCE);
            let read = connected.and_then(|mut stream| {
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.read_to_string(&mut answer)
            });
            read.is_ok() && answer == "agent"
        };
        std::thread::spawn(client)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The programs of a kind of `iptables`.
const PROGRAMS: [&str; 4] = ["iptables", "iptables-restore", "ip6tables", "ip6tables-restore"];
/// A host that has the program `nft` and no `iptables`.
const NFT_ALONE: &str = "nft alone";

/// The program of a kind.
fn multi(kind: &str) -> String {
    if kind == NFT_ALONE { "/usr/sbin/nft".to_owned() } else { format!("/usr/sbin/xtables-{kind}-multi") }
}

/// A kind of `iptables`: legacy or nft. A directory in which the usual names lead to it.
struct Kind(PathBuf);

impl Kind {
    fn new(name: &str) -> Self {
        let directory = std::env::temp_dir().join(format!("ecs-firewall-{}", uuid::Uuid::new_v4().simple()));
        std::fs::create_dir(&directory).unwrap();
        for program in PROGRAMS.into_iter().filter(|_| name != NFT_ALONE) {
            std::os::unix::fs::symlink(multi(name), directory.join(program)).unwrap();
        }
        if name == NFT_ALONE {
            std::os::unix::fs::symlink(multi(name), directory.join("nft")).unwrap();
        }
        let ip = ["/usr/sbin/ip", "/sbin/ip", "/usr/bin/ip"].into_iter().find(|path| Path::new(path).exists());
        std::os::unix::fs::symlink(ip.unwrap(), directory.join("ip")).unwrap();
        Self(directory)
    }

    /// Replaces a program by a script.
    fn replace(&self, program: &str, script: &str) {
        let path = self.0.join(program);
        let _ = std::fs::remove_file(&path);
        ecs_testing::program::write(&path, &format!("#!/bin/sh\n{script}\n"));
    }

    fn firewall(&self) -> Firewall {
        Firewall::new(Programs::in_directories(self.0.to_str().unwrap()))
    }
}

impl Drop for Kind {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The three namespaces. The thread of the test is in that of the host.
struct Site {
    host: Namespace,
    container: Namespace,
    neighbour: Namespace,
    kind: Kind,
}

/// One line for each step of the network: where it is made, and the command.
const NETWORK: &str = "
host ip link set lo up
host ip link add docker0 type bridge
host ip link add eth0 type veth peer name eth1
host ip link add veth0 type veth peer name eth2
host ip link set veth0 master docker0
host ip link set eth2 netns CONTAINER
host ip link set eth1 netns NEIGHBOUR
host ip link set docker0 up
host ip link set veth0 up
host ip link set eth0 up
host ip addr add 172.29.0.1/24 dev docker0
host ip addr add fd00:29::1/64 dev docker0 nodad
host ip addr add 10.77.0.1/24 dev eth0
host ip addr add fd00:77::1/64 dev eth0 nodad
host ip route add default via 10.77.0.2
container ip link set lo up
container ip link set eth2 up
container ip addr add 172.29.0.2/24 dev eth2
container ip addr add fd00:29::2/64 dev eth2 nodad
container ip route add default via 172.29.0.1
neighbour ip link set lo up
neighbour ip link set eth1 up
neighbour ip addr add 10.77.0.2/24 dev eth1
neighbour ip addr add fd00:77::2/64 dev eth1 nodad
neighbour ip route add 169.254.170.2/32 via 10.77.0.1
neighbour ip addr del 127.0.0.1/8 dev lo
neighbour ip route add 127.0.0.0/8 via 10.77.0.1
neighbour sysctl -qw net.ipv4.conf.all.route_localnet=1";

impl Site {
    /// Servers answer on 127.0.0.1:51679, 127.0.0.1:8080, and on port 51678 of all addresses. `None`, with a message, if this
    /// process may not do that.
    fn new(test: &str, kind: &str) -> Option<Self> {
        let multi = multi(kind);
        let starts = |program: &str| Command::new(program).arg("--version").output().is_ok();
        if let Some(missing) = ["ip", "nsenter", "sysctl", &multi].into_iter().find(|program| !starts(program)) {
            eprintln!("SKIPPED {test}: {missing} is not installed");
            return None;
        }
        let namespaces = (Namespace::new(), Namespace::new(), Namespace::new());
        let (Some(host), Some(container), Some(neighbour)) = namespaces else {
            eprintln!("SKIPPED {test}: this process may not make network namespaces");
            return None;
        };
        let site = Self { host, container, neighbour, kind: Kind::new(kind) };
        let ids = [("CONTAINER", site.container.id()), ("NEIGHBOUR", site.neighbour.id())];
        // A new namespace has the value of the first one, where an agent may run.
        site.host.run("sysctl -qw net.ipv4.conf.all.route_localnet=0");
        for line in NETWORK.trim().lines() {
            let line = ids.iter().fold(line.to_owned(), |line, (name, id)| line.replace(name, &id.to_string()));
            let (place, command) = line.split_once(' ').unwrap();
            match place {
                "host" => site.host.run(command),
                "container" => site.container.run(command),
                _ => site.neighbour.run(command),
            }
        }
        Namespace::enter(site.host.id());
        for address in ["127.0.0.1:51679", "127.0.0.1:8080", "[::]:51678"] {
            let listener = TcpListener::bind(address).unwrap();
            std::thread::spawn(move || {
                for stream in listener.incoming() {
                    let _ = stream.and_then(|mut stream| stream.write_all(b"agent"));
                }
            });
        }
        Some(site)
    }

    /// Runs a command of `iptables` on the host.
    fn rule(&self, command: &str) {
        let (program, words) = command.split_once(' ').unwrap();
        self.host.run(&format!("{} -w {words}", self.kind.0.join(program).display()));
    }

    /// Runs a line of a shell on the host, and returns what it prints.
    fn shell(&self, line: &str) -> String {
        let namespace = format!("--net=/proc/{}/ns/net", self.host.id());
        let output = Command::new("nsenter").args([&namespace, "sh", "-c", line]).output().unwrap();
        let (shown, error) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        assert!(output.status.success(), "{line}: {error}");
        shown
    }

    /// All rules of the host, without our empty tables.
    fn rules(&self) -> Vec<String> {
        let list = |program: &str, table: &str| {
            let output = Command::new(self.kind.0.join(program)).args(["-w", "-t", table, "-S"]).output().unwrap();
            assert!(output.status.success());
            String::from_utf8(output.stdout).unwrap().lines().map(|line| format!("{program} {table} {line}")).collect()
        };
        let lists: [Vec<String>; 3] =
            [list("iptables", "filter"), list("iptables", "nat"), list("ip6tables", "filter")];
        lists.concat()
    }
}

fn settings() -> Settings {
    Settings { bridges: Bridges { default: Some("docker0".to_owned()), ..Bridges::default() }, ..Settings::default() }
}

fn missing(checked: &Checked) -> Vec<&str> {
    assert!(checked.failures.is_empty(), "{checked:?}");
    checked.parts.iter().filter(|part| part.was_missing).map(|part| part.name.as_str()).collect()
}

fn route_localnet_now() -> String {
    kernel::route_localnet(ROUTE_LOCALNET).unwrap()
}

const ACCEPT_RA: &str = "net.ipv6.conf.docker0.accept_ra";
const ALL: [&str; 6] =
    ["filter INPUT", ROUTE_LOCALNET, "nat PREROUTING", "nat OUTPUT", "filter INPUT (IPv6)", ACCEPT_RA];

/// Containers and the host reach the server; the neighbour reaches neither it nor the introspection port.
fn assert_guarded(site: &Site, when: &str) {
    let table = [
        (&site.container, "169.254.170.2:80", true),
        (&site.host, "169.254.170.2:80", true),
        (&site.neighbour, "169.254.170.2:80", false),
        (&site.neighbour, "127.0.0.1:51679", false),
        (&site.neighbour, "127.0.0.1:8080", false),
        (&site.container, "172.29.0.1:51678", true),
        (&site.container, "[fd00:29::1]:51678", true),
        (&site.host, "127.0.0.1:51678", true),
        (&site.host, "[::1]:51678", true),
        (&site.neighbour, "10.77.0.1:51678", false),
        (&site.neighbour, "[fd00:77::1]:51678", false),
    ];
    // At the same time, because each client that is refused waits.
    let clients = table.map(|(place, address, _)| place.client(address));
    for (client, (place, address, wanted)) in clients.into_iter().zip(table) {
        let name = if place.id() == site.container.id() { "container" } else { "host or neighbour" };
        assert_eq!(client.join().unwrap(), wanted, "{when}: {name} to {address}");
    }
}

async fn packets_of_each_kind(kind: &str) {
    let Some(site) = Site::new("packets", kind) else { return };
    // Rules of others, which must stay.
    site.rule("iptables -A INPUT -p udp --dport 7 -j DROP");
    site.rule("iptables -t nat -A PREROUTING -p tcp --dport 7 -j REDIRECT --to-ports 8");
    let before = site.rules();
    assert!(!site.container.reaches("169.254.170.2:80") && !site.host.reaches("169.254.170.2:80"), "without rules");
    assert!(site.neighbour.reaches("10.77.0.1:51678"), "without rules");

    let mut firewall = site.kind.firewall();
    assert_eq!(missing(&firewall.ensure(&settings()).await.unwrap()), ALL);
    assert_guarded(&site, "made");
    let made = site.rules();
    assert_eq!(missing(&firewall.ensure(&settings()).await.unwrap()), [""; 0]);
    assert_eq!(missing(&site.kind.firewall().ensure(&settings()).await.unwrap()), [""; 0], "by the next process");
    assert_eq!(site.rules(), made, "nothing twice");

    for (flush, wanted) in [
        (&["iptables -F", "iptables -X"][..], &ALL[..1]),
        (&["iptables -t nat -F", "iptables -t nat -X"], &ALL[2..4]),
        (&["ip6tables -F"], &ALL[4..5]),
        (&["iptables -D ECS-AGENT-INPUT 1"], &ALL[..1]),
        (&["iptables -D INPUT -j ECS-AGENT-INPUT"], &ALL[..1]),
        (&["iptables -t nat -I ECS-AGENT-PREROUTING -j RETURN"], &ALL[2..3]),
    ] {
        flush.iter().for_each(|command| site.rule(command));
        assert_eq!(missing(&firewall.ensure(&settings()).await.unwrap()), wanted, "{flush:?}");
        assert_eq!(missing(&firewall.ensure(&settings()).await.unwrap()), [""; 0]);
    }
    site.host.run("sysctl -qw net.ipv4.conf.all.route_localnet=0");
    assert!(!site.container.reaches("169.254.170.2:80"), "route_localnet is needed");
    assert_eq!(missing(&firewall.ensure(&settings()).await.unwrap()), [ROUTE_LOCALNET]);
    assert_guarded(&site, "put back");

    // The flushes above removed the rules of others, too.
    site.rule("iptables -A INPUT -p udp --dport 7 -j DROP");
    site.rule("iptables -t nat -A PREROUTING -p tcp --dport 7 -j REDIRECT --to-ports 8");
    firewall.undo().await.unwrap();
    assert_eq!(site.rules(), before);
    assert_eq!(route_localnet_now(), "0");
    firewall.undo().await.unwrap();
}

#[tokio::test]
async fn containers_and_the_host_reach_the_agent_by_nft() {
    packets_of_each_kind("nft").await;
}

#[tokio::test]
async fn containers_and_the_host_reach_the_agent_by_legacy() {
    packets_of_each_kind("legacy").await;
}

/// With the rules of ecs-init alone the neighbour gets in; with ours before them it does not.
#[tokio::test]
async fn a_rule_of_ecs_init_lets_no_neighbour_in() {
    let Some(site) = Site::new("ecs-init", "nft") else { return };
    let theirs = [
        "iptables -t nat -A PREROUTING -p tcp -d 169.254.170.2 --dport 80 -j DNAT --to-destination 127.0.0.1:51679",
        "iptables -I INPUT --dst 127.0.0.0/8 ! --src 127.0.0.0/8 -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP",
        "iptables -t nat -A OUTPUT -p tcp -d 169.254.170.2 --dport 80 -j REDIRECT --to-ports 51679",
    ];
    theirs.iter().for_each(|rule| site.rule(rule));
    site.host.run("sysctl -qw net.ipv4.conf.all.route_localnet=1");
    let before = site.rules();
    assert!(site.neighbour.reaches("169.254.170.2:80") && site.container.reaches("169.254.170.2:80"));
    let mut firewall = site.kind.firewall();
    firewall.ensure(&settings()).await.unwrap();
    assert_guarded(&site, "beside ecs-init");
    firewall.undo().await.unwrap();
    assert_eq!(site.rules(), before, "the rules of ecs-init stay");
}

#[tokio::test]
async fn without_the_filter_the_port_of_credentials_is_guarded() {
    let Some(site) = Site::new("no filter", "nft") else { return };
    let mut firewall = site.kind.firewall();
    firewall.ensure(&settings()).await.unwrap();
    // Changed settings replace the rules.
    let open = Settings { localhost_filter: false, offhost_introspection: true, ..settings() };
    firewall.ensure(&open).await.unwrap();
    assert!(site.neighbour.reaches("127.0.0.1:8080"), "as the operator wishes");
    assert!(!site.neighbour.reaches("127.0.0.1:51679"));
    assert!(site.neighbour.reaches("10.77.0.1:51678") && site.neighbour.reaches("[fd00:77::1]:51678"));
    assert!(!site.rules().iter().any(|rule| rule.starts_with("ip6tables") && rule.contains("ECS-AGENT")));
    firewall.ensure(&settings()).await.unwrap();
    assert_guarded(&site, "closed again");
}

/// The rules of ecs-init as they are after a crash of it, twice, and what it would leave out.
async fn leftovers_of_each_kind(kind: &str) {
    let Some(site) = Site::new("leftovers", kind) else { return };
    let before = site.rules();
    let input = "-I INPUT -p tcp --dport 51678";
    let theirs = [
        "iptables -t nat -A PREROUTING -p tcp -d 169.254.170.2 --dport 80 -j DNAT --to-destination 127.0.0.1:51679",
        "iptables -I INPUT --dst 127.0.0.0/8 ! --src 127.0.0.0/8 -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP",
        &format!("iptables {input} ! -i lo -j DROP"),
        &format!("iptables {input} -i docker0 -j ACCEPT"),
        &format!("ip6tables {input} ! -i lo -j DROP"),
        &format!("ip6tables {input} -i docker0 -j ACCEPT"),
        "iptables -t nat -A OUTPUT -p tcp -d 169.254.170.2 --dport 80 -j REDIRECT --to-ports 51679",
    ];
    [theirs, theirs].concat().iter().for_each(|rule| site.rule(rule));
    site.rule("iptables -I INPUT -p tcp --dport 51678 -s 192.0.2.1 -j DROP");
    let mut firewall = site.kind.firewall();
    firewall.ensure(&settings()).await.unwrap();
    assert_eq!(firewall.remove_leftovers(&settings()).await.unwrap(), 14);
    assert_eq!(firewall.remove_leftovers(&settings()).await.unwrap(), 0);
    assert_guarded(&site, "without the rules of ecs-init");
    firewall.undo().await.unwrap();
    site.rule("iptables -D INPUT -p tcp --dport 51678 -s 192.0.2.1 -j DROP"); // it is somebody else's, and stays
    assert_eq!(site.rules(), before);
}

#[tokio::test]
async fn what_ecs_init_has_left_is_removed_by_nft() {
    leftovers_of_each_kind("nft").await;
}

#[tokio::test]
async fn what_ecs_init_has_left_is_removed_by_legacy() {
    leftovers_of_each_kind("legacy").await;
}

/// All of nftables in the host's namespace.
fn ruleset(site: &Site) -> String {
    site.shell("/usr/sbin/nft list ruleset")
}

#[tokio::test]
async fn without_iptables_the_program_nft_makes_the_rules() {
    let Some(site) = Site::new("nft alone", NFT_ALONE) else { return };
    site.shell("/usr/sbin/nft add table ip other"); // it stays
    let before = ruleset(&site);
    let all = ["table ip ecs-agent", "table ip6 ecs-agent", ROUTE_LOCALNET, ACCEPT_RA];
    let mut firewall = site.kind.firewall();
    assert_eq!(missing(&firewall.ensure(&settings()).await.unwrap()), all);
    assert_guarded(&site, "made");
    let made = ruleset(&site);
    assert_eq!(missing(&firewall.ensure(&settings()).await.unwrap()), [""; 0]);
    assert_eq!(missing(&site.kind.firewall().ensure(&settings()).await.unwrap()), [""; 0], "by the next process");
    assert_eq!(ruleset(&site), made, "nothing twice");
    // As `systemctl restart nftables` does it.
    site.shell("/usr/sbin/nft flush ruleset && /usr/sbin/nft add table ip other");
    assert!(!site.container.reaches("169.254.170.2:80"));
    assert_eq!(missing(&firewall.ensure(&settings()).await.unwrap()), all[..2]);
    site.shell("/usr/sbin/nft flush chain ip ecs-agent localhost");
    assert_eq!(missing(&firewall.ensure(&settings()).await.unwrap()), all[..1]);
    assert_guarded(&site, "put back");
    let open = Settings { localhost_filter: false, offhost_introspection: true, ..settings() };
    firewall.ensure(&open).await.unwrap();
    assert!(site.neighbour.reaches("127.0.0.1:8080") && !site.neighbour.reaches("127.0.0.1:51679"));
    assert!(site.neighbour.reaches("10.77.0.1:51678") && site.neighbour.reaches("[fd00:77::1]:51678"));
    // Once `iptables` is installed, its chains take the place of the tables.
    for program in PROGRAMS {
        std::os::unix::fs::symlink(multi("nft"), site.kind.0.join(program)).unwrap();
    }
    firewall.ensure(&settings()).await.unwrap();
    assert!(!ruleset(&site).contains("ecs-agent {"), "{}", ruleset(&site));
    assert_guarded(&site, "with iptables");
    firewall.undo().await.unwrap();
    PROGRAMS.iter().for_each(|program| std::fs::remove_file(site.kind.0.join(program)).unwrap());
    firewall.ensure(&settings()).await.unwrap();
    firewall.undo().await.unwrap();
    assert!(!ruleset(&site).contains("ecs-agent") && ruleset(&site).contains(before.trim()), "{}", ruleset(&site));
    assert_eq!(route_localnet_now(), "0");
    // The commands for people do the same.
    site.shell(&firewall.commands_here(&settings()).await.unwrap().join("\n"));
    assert_eq!(missing(&firewall.ensure(&settings()).await.unwrap()), [""; 0]);
    assert_guarded(&site, "made by hand");
}

/// `nft -f /etc/nftables.conf` begins with a flush of everything, that of `iptables-nft` included.
#[tokio::test]
async fn a_restart_of_nftables_is_mended() {
    let Some(site) = Site::new("nftables", "nft") else { return };
    let mut firewall = site.kind.firewall();
    firewall.ensure(&settings()).await.unwrap();
    site.shell("/usr/sbin/nft flush ruleset");
    assert!(!site.container.reaches("169.254.170.2:80"));
    let wanted = [&ALL[..1], &ALL[2..5]].concat();
    assert_eq!(missing(&firewall.ensure(&settings()).await.unwrap()), wanted);
    assert_guarded(&site, "put back");
}

/// Containers on bridges are kept from the metadata service of the instance, which is behind the neighbour here.
async fn instance_metadata_of_each_kind(kind: &str) {
    let Some(site) = Site::new("instance metadata", kind) else { return };
    site.neighbour.run("ip addr add 169.254.169.254/32 dev lo");
    site.neighbour.run("ip route add 172.29.0.0/24 via 10.77.0.1");
    site.host.run("ip route add 169.254.169.254/32 via 10.77.0.2");
    site.host.run("sysctl -qw net.ipv4.ip_forward=1");
    let id = site.neighbour.id();
    let server = std::thread::spawn(move || {
        Namespace::enter(id);
        TcpListener::bind("169.254.169.254:80").unwrap()
    });
    let server = server.join().unwrap();
    std::thread::spawn(move || {
        for stream in server.incoming() {
            let _ = stream.and_then(|mut stream| stream.write_all(b"agent"));
        }
    });
    if kind != NFT_ALONE {
        site.rule("iptables -I FORWARD -i docker0 -j ACCEPT"); // as Docker has it
    }
    let service = "169.254.169.254:80";
    let mut firewall = site.kind.firewall();
    firewall.ensure(&settings()).await.unwrap();
    assert!(site.container.reaches(service) && site.host.reaches(service));
    let blocked = Settings { block_metadata: true, ..settings() };
    let checked = firewall.ensure(&blocked).await.unwrap();
    assert!(checked.failures.is_empty(), "{checked:?}");
    assert!(!site.container.reaches(service) && site.host.reaches(service));
    assert_guarded(&site, "without the metadata of the instance");
    // Another process, without the setting: nothing is left of it.
    site.kind.firewall().ensure(&settings()).await.unwrap();
    assert!(site.container.reaches(service));
    let mut firewall = site.kind.firewall();
    firewall.ensure(&blocked).await.unwrap();
    firewall.undo().await.unwrap();
    assert!(site.container.reaches(service));
    if kind != NFT_ALONE {
        let raw = site.shell(&format!("{} -w -t raw -S", site.kind.0.join("iptables").display()));
        assert!(!raw.contains("ECS-AGENT"), "{raw}");
    }
}

#[tokio::test]
async fn containers_are_kept_from_instance_metadata_by_nft() {
    instance_metadata_of_each_kind("nft").await;
}

#[tokio::test]
async fn containers_are_kept_from_instance_metadata_by_legacy() {
    instance_metadata_of_each_kind("legacy").await;
}

#[tokio::test]
async fn containers_are_kept_from_instance_metadata_by_nft_alone() {
    instance_metadata_of_each_kind(NFT_ALONE).await;
}

/// Each call of a program checks, before and after it, that `route_localnet` stands only with its guard.
#[tokio::test]
async fn route_localnet_never_stands_without_its_guard() {
    for kind in ["nft", "legacy", NFT_ALONE] {
        let Some(site) = Site::new("the guard", kind) else { return };
        let seen = site.kind.0.join("seen");
        let (guard, programs) = match kind {
            NFT_ALONE => ("/usr/sbin/nft list chain ip ecs-agent input | grep -q localhost".to_owned(), &["nft"][..]),
            _ => {
                let iptables = format!("{} iptables -w", multi(kind));
                (
                    format!("{iptables} -C INPUT -j ECS-AGENT-INPUT && {iptables} -C ECS-AGENT-INPUT {GUARD}"),
                    &PROGRAMS[..],
                )
            }
        };
        let check = format!(
            "PATH=/usr/sbin:/usr/bin:/sbin:/bin\n\
             check() {{ [ \"$(cat /proc/sys/net/ipv4/conf/all/route_localnet)\" = 0 ] && echo closed >>{seen} && return\n\
             {{ {guard}; }} >/dev/null 2>&1 && echo guarded >>{seen} || echo OPEN \"$0 $*\" >>{seen}; }}",
            seen = seen.display()
        );
        for program in programs {
            let real = if kind == NFT_ALONE { multi(kind) } else { format!("{} {program}", multi(kind)) };
            let script = format!("{check}\ncheck \"$@\"\n{real} \"$@\"\ncode=$?\ncheck \"$@\"\nexit $code");
            site.kind.replace(program, &script);
        }
        let mut firewall = site.kind.firewall();
        firewall.ensure(&settings()).await.unwrap();
        let open = Settings { localhost_filter: true, offhost_introspection: true, ..settings() };
        firewall.ensure(&open).await.unwrap();
        site.kind.firewall().undo().await.unwrap();
        let seen = std::fs::read_to_string(seen).unwrap();
        assert!(!seen.contains("OPEN"), "{kind}: {seen}");
        assert!(seen.contains("guarded") && seen.contains("closed"), "{kind}: {seen}");
    }
}

const GUARD: &str = "! -s 127.0.0.0/8 -d 127.0.0.0/8 -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP";

/// The guard was flushed, and cannot be put back: `route_localnet` is taken back until it can.
#[tokio::test]
async fn without_its_guard_route_localnet_is_taken_back() {
    let Some(site) = Site::new("no guard", "nft") else { return };
    let mut firewall = site.kind.firewall();
    firewall.ensure(&settings()).await.unwrap();
    site.kind.replace("iptables-restore", "echo no memory >&2; exit 4");
    // While the guard stands, a failure changes nothing.
    site.rule("iptables -D ECS-AGENT-INPUT 2");
    assert!(firewall.ensure(&settings()).await.unwrap_err().to_string().ends_with("exit code 4: no memory"));
    assert_eq!(route_localnet_now(), "1");
    site.rule("iptables -F INPUT");
    assert!(firewall.ensure(&settings()).await.unwrap_err().to_string().ends_with("exit code 4: no memory"));
    assert_eq!(route_localnet_now(), "0");
    assert!(!site.neighbour.reaches("127.0.0.1:8080"));
    // One that was set by others before is theirs.
    site.host.run("sysctl -qw net.ipv4.conf.all.route_localnet=1");
    assert!(site.kind.firewall().ensure(&settings()).await.is_err());
    assert_eq!(route_localnet_now(), "1");
    // By another process that goes on.
    let programs = Programs::in_directories(site.kind.0.to_str().unwrap());
    assert!(Firewall::continued(programs).ensure(&settings()).await.is_err());
    assert_eq!(route_localnet_now(), "0");
    site.kind.replace("iptables-restore", &format!("exec {} iptables-restore \"$@\"", multi("nft")));
    firewall.ensure(&settings()).await.unwrap();
    assert_guarded(&site, "put back at last");
}

#[test]
fn the_page_shows_the_rules_of_the_code() {
    let page = include_str!("../../../systemd/host.md");
    let (_, rest) = page.split_once("<!-- firewall rules: begin -->\n```bash\n").expect("the beginning");
    let (shown, _) = rest.split_once("\n```\n<!-- firewall rules: end -->").expect("the end");
    assert_eq!(shown, commands(&settings()).join("\n"));
}

/// The commands for people make the same rules.
#[tokio::test]
async fn the_commands_for_people_make_the_same_rules() {
    let Some(site) = Site::new("commands", "nft") else { return };
    site.kind.firewall().ensure(&settings()).await.unwrap();
    let ours = site.rules();
    site.kind.firewall().undo().await.unwrap();
    for command in commands(&settings()) {
        match (command.strip_prefix("sysctl "), command.starts_with("ip -4 ")) {
            (Some(words), _) => site.host.run(&format!("sysctl -q {words}")),
            (None, true) => assert_eq!(site.shell(&command), "", "a default route leads there"),
            (None, false) => site.rule(&command),
        }
    }
    let sorted = |mut rules: Vec<String>| {
        rules.sort();
        rules
    };
    assert_eq!(sorted(site.rules()), sorted(ours));
    assert_eq!(missing(&site.kind.firewall().ensure(&settings()).await.unwrap()), [""; 0]);
}

#[tokio::test]
async fn without_the_right_nothing_is_called() {
    // In a thread of its own, which loses the capability.
    let thread = std::thread::spawn(|| {
        let mut sets = capabilities(None).unwrap();
        sets.effective.remove(CapabilitySet::NET_ADMIN);
        set_capabilities(None, sets).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let mut firewall = Firewall::new(Programs::in_directories("/nowhere"));
        let error = runtime.block_on(firewall.ensure(&settings())).unwrap_err();
        assert!(matches!(error, FirewallError::NoRight), "{error}");
        let error = runtime.block_on(firewall.undo()).unwrap_err();
        assert!(matches!(error, FirewallError::NoRight), "{error}");
    });
    thread.join().unwrap();
}

/// A host without IPv4, or without a gateway, has no route to the address by itself.
#[tokio::test]
async fn a_host_without_a_default_route_reaches_the_agent() {
    let Some(site) = Site::new("no default route", "nft") else { return };
    let routes = || site.shell("ip route show 169.254.170.2/32").trim().to_owned();
    let mut firewall = site.kind.firewall();
    firewall.ensure(&settings()).await.unwrap();
    assert_eq!(routes(), "");
    site.host.run("ip route del default");
    assert!(!site.host.reaches("169.254.170.2:80"), "it has no route");
    let name = "route to 169.254.170.2";
    assert_eq!(missing(&firewall.ensure(&settings()).await.unwrap()), [name]);
    assert_guarded(&site, "without a default route");
    let checked = firewall.ensure(&settings()).await.unwrap();
    assert!(checked.parts.iter().any(|part| part.name == name && !part.was_missing), "{checked:?}");
    let made = routes();
    firewall.undo().await.unwrap();
    assert_eq!(routes(), "");
    // The command for people makes the same route.
    site.shell(&route::command());
    assert_eq!(routes(), made);
    site.shell(&route::undo_command());
    // A route of somebody else serves, and stays.
    site.host.run("ip route add 169.254.170.2/32 dev lo scope link");
    assert!(!missing(&firewall.ensure(&settings()).await.unwrap()).contains(&name));
    firewall.undo().await.unwrap();
    assert_eq!(routes(), "169.254.170.2 dev lo scope link");
}

#[tokio::test]
async fn what_is_not_needed_by_containers_may_fail() {
    let Some(site) = Site::new("no ip", "nft") else { return };
    site.host.run("ip route del default");
    std::fs::remove_file(site.kind.0.join("ip")).unwrap();
    let checked = site.kind.firewall().ensure(&settings()).await.unwrap();
    let [failure] = checked.failures.as_slice() else { panic!("{checked:?}") };
    assert!(failure.error.to_string().starts_with("ip is not installed"), "{failure:?}");
    assert!(failure.consequence.contains("169.254.170.2"));
    site.host.run("ip route add 169.254.170.2/32 dev lo scope link");
    site.kind.firewall().undo().await.unwrap();
}

/// The rules for IPv4 stand without `ip6tables`.
#[tokio::test]
async fn ipv6_is_not_needed() {
    let Some(site) = Site::new("no ip6tables", "nft") else { return };
    std::fs::remove_file(site.kind.0.join("ip6tables")).unwrap();
    let checked = site.kind.firewall().ensure(&settings()).await.unwrap();
    let [failure] = checked.failures.as_slice() else { panic!("{checked:?}") };
    assert!(failure.error.to_string().starts_with("ip6tables is not installed"));
    assert_eq!(checked.parts.len(), 5);
    assert!(site.container.reaches("169.254.170.2:80"));
    site.kind.firewall().undo().await.unwrap();
    assert_eq!(route_localnet_now(), "0");
}

#[tokio::test]
async fn what_fails_is_named() {
    let Some(site) = Site::new("failures", "nft") else { return };
    // `iptables-restore` of the other kind: the rules are made where `iptables` does not look.
    for name in ["iptables-restore", "iptables"] {
        std::fs::remove_file(site.kind.0.join(name)).unwrap();
        if name == "iptables-restore" {
            std::os::unix::fs::symlink("/usr/sbin/xtables-legacy-multi", site.kind.0.join(name)).unwrap();
        }
        let error = site.kind.firewall().ensure(&settings()).await.unwrap_err().to_string();
        let wanted = match name {
            "iptables" => format!("iptables is not installed (searched in {})", site.kind.0.display()),
            _ => "iptables does not show what iptables-restore has made: are the two of the same kind, legacy or nft?"
                .to_owned(),
        };
        assert_eq!(error, wanted);
        assert_eq!(route_localnet_now(), "0", "not without its guard");
    }
}
