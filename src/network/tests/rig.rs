//! The namespaces, and what is asked in them.

use super::super::{Network, NetworkError, Planted, Settings};
use ecs_core::model::TaskArn;
use ecs_core::model::interface::{Interface, MacAddress, NetworkRequest, Prefix};
use ecs_netlink::{Fault, Namespace};
use rustix::net::{AddressFamily, SendFlags, SocketType, ipproto, sockopt};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Enough for a connection inside this machine, whose first packets may be lost: the kernel takes up to a second to use a link whose
/// other end was switched on, and longer while other tests change links. What is dropped costs this long.
const PATIENCE: Duration = Duration::from_secs(9);
/// A connection without an answer is tried again after this long. The kernel itself tries again only after 1, 3 and 7 s.
const ATTEMPT: Duration = Duration::from_millis(900);

/// A network namespace, and the process that keeps it.
pub(super) struct Space(Child);

impl Space {
    /// `None` if this process may not make namespaces.
    pub(super) fn new() -> Option<Self> {
        let script = "ip link set lo up && echo ready && exec sleep 3600";
        let mut command = Command::new("unshare");
        command.args(["--net", "sh", "-c", script]).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut keeper = command.spawn().ok()?;
        let mut ready = String::new();
        keeper.stdout.take()?.take(6).read_to_string(&mut ready).ok()?;
        let space = Self(keeper);
        (ready == "ready\n").then_some(space)
    }

    pub(super) fn id(&self) -> u32 {
        self.0.id()
    }

    pub(super) fn namespace(&self) -> Namespace {
        Namespace::open(Path::new(&format!("/proc/{}/ns/net", self.id()))).unwrap()
    }

    /// Runs lines of a shell in the namespace, and returns what they print.
    pub(super) fn shell(&self, lines: &str) -> String {
        let namespace = format!("--net=/proc/{}/ns/net", self.id());
        let output = Command::new("nsenter").args([&namespace, "sh", "-ec", lines]).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{lines}: {error}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs `work` on a thread in the namespace.
    pub(super) fn inside<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let file = File::open(format!("/proc/{}/ns/net", self.id())).unwrap();
        let thread = std::thread::spawn(move || {
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            drop(file);
            work()
        });
        thread.join().unwrap()
    }

    /// Answers each connection to this address with `text`, as long as the test runs.
    pub(super) fn serve(&self, address: &str, text: &'static str) {
        let address: SocketAddr = address.parse().unwrap();
        let listener = self.inside(move || TcpListener::bind(address).unwrap());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let _ = stream.and_then(|mut stream| stream.write_all(text.as_bytes()));
            }
        });
    }

    /// What the server at this address answers a client in the namespace; empty: nothing.
    pub(super) fn ask(&self, address: &str) -> String {
        let address: SocketAddr = address.parse().unwrap();
        self.inside(move || {
            let (mut answer, begun) = (String::new(), Instant::now());
            let connect = || TcpStream::connect_timeout(&address, ATTEMPT);
            let mut connected = connect();
            // The second: nobody has said for three seconds which hardware address it is.
            let is_silent =
                |error: &std::io::Error| matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::HostUnreachable);
            while connected.as_ref().is_err_and(is_silent) && begun.elapsed() < PATIENCE {
                connected = connect();
            }
            if let Ok(mut stream) = connected {
                let _ = stream.set_read_timeout(Some(PATIENCE));
                let _ = stream.read_to_string(&mut answer);
            }
            answer
        })
    }

    /// Announces this namespace on a link as a router of IPv6 to everything, for half an hour.
    pub(super) fn advertise(&self, link: &'static str) {
        self.inside(move || {
            let family = AddressFamily::INET6;
            let socket = rustix::net::socket(family, SocketType::RAW, Some(ipproto::ICMPV6)).unwrap();
            // Those from further away are ignored.
            sockopt::set_ipv6_multicast_hops(&socket, 255).unwrap();
            let index = rustix::net::netdevice::name_to_index(&socket, link).unwrap();
            let advertisement = [134, 0, 0, 0, 64, 0, 0x07, 0x08, 0, 0, 0, 0, 0, 0, 0, 0];
            let all = SocketAddrV6::new("ff02::1".parse().unwrap(), 0, 0, index);
            rustix::net::sendto(&socket, &advertisement, SendFlags::empty(), &all).unwrap();
        });
    }

    /// Ends the process, and with it the namespace.
    pub(super) fn end(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        self.end();
    }
}

/// A host and the subnet of its interfaces: 10.0.1.0/24 and fd00:1::/64, whose gateway answers `gateway` on port 80.
pub(super) struct Rig {
    pub(super) host: Space,
    pub(super) subnet: Space,
    pub(super) network: Network,
}

impl Rig {
    /// `None`, with a message, if this process may not make namespaces.
    pub(super) fn new(test: &str) -> Option<Self> {
        Self::with(test, Settings::default())
    }

    pub(super) fn with(test: &str, settings: Settings) -> Option<Self> {
        let (Some(host), Some(subnet)) = (Space::new(), Space::new()) else {
            eprintln!("SKIPPED {test}: this process may not make network namespaces, or there is no `ip`");
            return None;
        };
        subnet.shell(
            "ip link add subnet type bridge
            ip addr add 10.0.1.1/24 dev subnet
            ip addr add fd00:1::1/64 dev subnet nodad
            ip link set subnet up",
        );
        // As a daemon that configures new interfaces might have left it.
        host.shell("ip addr add 169.254.170.2/32 dev lo");
        subnet.serve("10.0.1.1:80", "gateway");
        subnet.serve("[fd00:1::1]:80", "gateway");
        host.serve("169.254.170.2:80", "agent");
        let network = Self::network(settings, &host, None);
        Some(Self { host, subnet, network })
    }

    fn network(settings: Settings, host: &Space, fault: Option<Fault>) -> Network {
        let planted = Planted { host: Some(Arc::new(host.namespace())), fault };
        Network { planted, ..Network::new(settings) }
    }

    /// The same agent with planted faults, or after a restart.
    pub(super) fn agent(&self, fault: Option<Fault>) -> Network {
        Self::network((*self.network.settings).clone(), &self.host, fault)
    }

    /// Attaches a device to the host, named `ens` and this number, with an address that a daemon gave it.
    pub(super) fn attach(&self, number: u8) -> MacAddress {
        let mac = mac(number);
        let (name, far) = (format!("ens{number}"), format!("far{number}"));
        let id = self.subnet.id();
        self.host.shell(&format!(
            "ip link add {name} address {mac} type veth peer name {far} netns {id}
            ip addr add 192.0.2.{number}/24 dev {name}
            ip link set {name} up"
        ));
        self.subnet.shell(&format!("ip link set {far} master subnet; ip link set {far} up"));
        mac
    }

    /// A pause container as Docker makes it, with IPv6 or without.
    pub(super) fn pause(&self, has_ipv6: bool) -> Space {
        let pause = Space::new().unwrap();
        let off = u8::from(!has_ipv6);
        pause.shell(&format!(
            "for which in all default; do echo {off} >/proc/sys/net/ipv6/conf/$which/disable_ipv6; done"
        ));
        pause
    }

    /// The links of the host with their hardware addresses (but for the random ones of links to tasks), and its addresses, without
    /// the bridge and the loopback.
    pub(super) fn host_links(&self) -> Vec<String> {
        let shown = self.host.shell("ip -br link; ip -4 -br addr");
        let line = |line: &str| {
            let mut words: Vec<&str> = line.split_whitespace().collect();
            let name = words[0].split('@').next().unwrap_or_default();
            words[0] = name;
            if name.starts_with("veth") {
                words.remove(2);
            }
            words.join(" ")
        };
        let mut lines: Vec<String> = shown.lines().map(line).collect();
        lines.retain(|line| !line.starts_with("lo ") && !line.starts_with("ecs-bridge"));
        lines.sort_unstable();
        lines
    }
}

/// The hardware address of a device.
pub(super) fn mac(number: u8) -> MacAddress {
    MacAddress([0x06, 0, 0, 0, 1, number])
}

/// The interface that ECS describes for this device: with an IPv4 address.
pub(super) fn interface(number: u8) -> Interface {
    Interface {
        id: format!("eni-{number}"),
        mac: mac(number),
        ipv4: vec![Ipv4Addr::new(10, 0, 1, 99 + number)],
        gateway_ipv4: Some(Prefix { address: Ipv4Addr::new(10, 0, 1, 1), length: 24 }),
        ..Interface::default()
    }
}

/// The same with an IPv6 address besides.
pub(super) fn dual_stack(number: u8) -> Interface {
    Interface { ipv6: vec![ipv6(number)], ..interface(number) }
}

/// The same with an IPv6 address alone.
pub(super) fn ipv6_only(number: u8) -> Interface {
    let gateway = Prefix { address: "fd00:1::1".parse().unwrap(), length: 64 };
    Interface { ipv4: Vec::new(), gateway_ipv4: None, gateway_ipv6: Some(gateway), ..dual_stack(number) }
}

fn ipv6(number: u8) -> Ipv6Addr {
    format!("fd00:1::{}", 99 + u32::from(number)).parse().unwrap()
}

/// A task with these interfaces, on this pause container.
pub(super) fn request(number: u8, pause: &Space, interfaces: Vec<Interface>) -> NetworkRequest {
    NetworkRequest {
        task: TaskArn::from(format!("arn:aws:ecs:us-west-2:1:task/default/{number}")),
        pause: "pause".into(),
        pause_pid: pause.id(),
        interfaces,
        local_address: Ipv4Addr::new(169, 254, 172, 1 + number),
        proxy: None,
    }
}

/// The text of a failure.
pub(super) fn text(result: Result<(), NetworkError>) -> String {
    result.unwrap_err().to_string()
}
