//! Calls to the kernel, in namespaces of their own. As root only.

use super::*;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A namespace, the process that keeps it, and a socket in it.
struct Space {
    keeper: Child,
    namespace: Namespace,
    socket: Socket,
}

impl Space {
    /// `None`, with a message, if this process may not make namespaces.
    fn new(test: &str) -> Option<Self> {
        let mut command = Command::new("unshare");
        let command = command.args(["--net", "sh", "-c", "echo ready; exec sleep 600"]);
        let keeper = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        let mut ready = String::new();
        let mut keeper = keeper.ok()?;
        keeper.stdout.take()?.take(6).read_to_string(&mut ready).ok()?;
        if ready != "ready\n" {
            eprintln!("SKIPPED {test}: this process may not make network namespaces");
            return None;
        }
        let namespace = Namespace::open(Path::new(&format!("/proc/{}/ns/net", keeper.id()))).unwrap();
        let socket = namespace.socket(Protocol::Route).unwrap();
        Some(Self { keeper, namespace, socket })
    }

    fn index(&self, name: &str) -> u32 {
        self.socket.link(name).unwrap().expect("the link is there").index
    }

    /// Gives the link an address, and switches it on.
    fn configure(&self, name: &str, address: [u8; 4]) {
        let (link, how) = (self.index(name), AddressFlags { with_broadcast: true, ..AddressFlags::default() });
        self.socket.add_address(&Address { link, address: address.into(), length: 24 }, how).unwrap();
        self.socket.change_link(link, &LinkChange { is_up: Some(true), ..LinkChange::default() }).unwrap();
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        let _ = self.keeper.kill();
        let _ = self.keeper.wait();
    }
}

/// Connects two namespaces.
fn connect(first: &Space, name: &str, second: &Space, peer_name: &str) {
    let peer_namespace = Some(second.namespace.as_fd());
    let veth = Veth { name, bridge: None, peer_name, peer_mac: Some([2, 0, 0, 0, 0, 7]), peer_namespace };
    first.socket.create_veth(&veth).unwrap();
}

#[test]
fn links_are_made_found_changed_and_removed() {
    let Some(space) = Space::new("links_are_made_found_changed_and_removed") else { return };
    let Some(other) = Space::new("links_are_made_found_changed_and_removed") else { return };
    let socket = &space.socket;
    assert_eq!(socket.link("br").unwrap(), None);
    socket.create_bridge("br", [2, 0, 0, 0, 0, 1]).unwrap();
    assert_eq!(socket.create_bridge("br", [2, 0, 0, 0, 0, 2]).unwrap_err().to_string(), "File exists (EEXIST)");
    let bridge = socket.link("br").unwrap().unwrap();
    let found = (bridge.kind.as_str(), bridge.mac, bridge.is_up, bridge.master);
    assert_eq!(found, ("bridge", Some([2, 0, 0, 0, 0, 1]), false, None));

    let veth =
        Veth { name: "port", bridge: Some(bridge.index), peer_name: "far", peer_mac: None, peer_namespace: None };
    socket.create_veth(&veth).unwrap();
    let port = socket.link("port").unwrap().unwrap();
    let far = socket.link("far").unwrap().unwrap();
    assert_eq!((port.master, port.parent, far.parent), (Some(bridge.index), Some(far.index), Some(port.index)));
    let change = LinkChange { is_up: Some(true), is_isolated: true, ..LinkChange::default() };
    socket.change_link(port.index, &change).unwrap();
    assert!(socket.link("port").unwrap().unwrap().is_up);

    let change = LinkChange { namespace: Some(other.namespace.as_fd()), ..LinkChange::default() };
    socket.change_link(far.index, &change).unwrap();
    assert_eq!(socket.find_link(|links| links.into_iter().find(|link| link.name == "far")).unwrap(), None);
    other.socket.change_link(other.index("far"), &LinkChange { name: Some("near"), ..LinkChange::default() }).unwrap();
    assert_eq!(other.socket.links().unwrap().into_iter().map(|link| link.name).collect::<Vec<_>>(), ["lo", "near"]);
    other.socket.delete_link(other.index("near")).unwrap();
    assert_eq!(socket.link("port").unwrap(), None, "the other end goes, too");
    assert!(socket.delete_link(port.index).unwrap_err().is_missing_link());
    assert!(space.namespace.id().unwrap() != other.namespace.id().unwrap());
}

#[test]
fn routes_are_added_listed_and_removed() {
    let Some(space) = Space::new("routes_are_added_listed_and_removed") else { return };
    let Some(other) = Space::new("routes_are_added_listed_and_removed") else { return };
    connect(&space, "a", &other, "b");
    space.configure("a", [10, 0, 0, 1]);
    let (link, socket) = (space.index("a"), &space.socket);
    let any = IpAddr::from([0; 4]);
    let connected = socket.routes(any).unwrap();
    assert_eq!(connected.len(), 1, "{connected:?}");
    let host = |last| IpAddr::from([192, 0, 2, last]);
    let routes = [
        Route { to: Network::default_of(any), kind: RouteKind::Via([10, 0, 0, 2].into(), link) },
        Route { to: Network::host(host(1)), kind: RouteKind::Blackhole },
        Route { to: Network::host(host(2)), kind: RouteKind::Link(link) },
        Route { to: Network::host(host(3)), kind: RouteKind::ViaUnchecked([10, 9, 9, 9].into(), link) },
    ];
    for route in &routes {
        socket.add_route(route).unwrap();
        assert_eq!(socket.add_route(route).unwrap_err(), Errno::EXIST.into());
        assert!(socket.routes(any).unwrap().contains(route), "{route:?}");
    }
    let unreachable = Route { to: Network::host(host(4)), kind: RouteKind::Via([10, 9, 9, 9].into(), link) };
    assert_eq!(socket.add_route(&unreachable).unwrap_err(), Errno::NETUNREACH.into());
    for route in &routes {
        socket.delete_route(route).unwrap();
    }
    assert_eq!(socket.routes(any).unwrap(), connected);
    let addresses = socket.addresses().unwrap();
    assert_eq!(addresses[0], Address { link, address: [10, 0, 0, 1].into(), length: 24 });
}

/// A client reaches a server behind a router, which gives the connection its own address, and a port of the router itself.
#[test]
fn connections_are_masqueraded_and_redirected() {
    let test = "connections_are_masqueraded_and_redirected";
    let (Some(client), Some(router), Some(server)) = (Space::new(test), Space::new(test), Space::new(test)) else {
        return;
    };
    connect(&client, "eth0", &router, "inside");
    connect(&server, "eth0", &router, "outside");
    client.configure("eth0", [10, 0, 1, 2]);
    router.configure("inside", [10, 0, 1, 1]);
    router.configure("outside", [10, 0, 2, 1]);
    server.configure("eth0", [10, 0, 2, 2]);
    let (any, link) = (IpAddr::from([0; 4]), client.index("eth0"));
    let route = Route { to: Network::default_of(any), kind: RouteKind::Via([10, 0, 1, 1].into(), link) };
    client.socket.add_route(&route).unwrap();
    router.namespace.on_a_thread(|| Ok(std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").is_ok())).unwrap();
    let netfilter = router.namespace.socket(Protocol::Netfilter).unwrap();
    let inside = Network { address: [10, 0, 1, 0].into(), length: 24 };
    for _ in 0..2 {
        let batch = Batch::replacing("test").chain(Hook::Incoming).chain(Hook::Leaving);
        let redirected = [Match::Tcp, Match::OverLink("inside".to_owned()), Match::Port(81)];
        let masqueraded = [Match::From(inside), Match::NotLeavingOver("inside".to_owned())];
        let batch = batch.rule(Hook::Incoming, &redirected, Verdict::RedirectTo(82));
        batch.rule(Hook::Leaving, &masqueraded, Verdict::Masquerade).send(&netfilter).unwrap();
    }
    serve(&server, 80);
    serve(&router, 82);
    assert_eq!(ask(&client, [10, 0, 2, 2], 80), "10.0.2.1");
    assert_eq!(ask(&client, [10, 0, 2, 2], 81), "10.0.1.2");

    Batch::removing("test").send(&netfilter).unwrap();
    assert_eq!(Batch::removing("test").send(&netfilter).unwrap_err(), Errno::NOENT.into());
    // A batch with an unknown chain changes nothing.
    let wrong = Batch::replacing("test").chain(Hook::Incoming).rule(Hook::Leaving, &[Match::Tcp], Verdict::Leave);
    assert_eq!(wrong.send(&netfilter).unwrap_err(), Errno::NOENT.into());
    assert_eq!(Batch::removing("test").send(&netfilter).unwrap_err(), Errno::NOENT.into());
}

/// Answers each connection to this port with the address that it comes from, as long as the test runs.
fn serve(space: &Space, port: u16) {
    let listen = || Ok(TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap());
    let listener = space.namespace.on_a_thread(listen).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let peer = stream.peer_addr().unwrap().ip().to_string();
            let _ = (&stream).write_all(peer.as_bytes());
        }
    });
}

/// What the server at this address answers a client in the namespace.
fn ask(space: &Space, address: [u8; 4], port: u16) -> String {
    let connect = || {
        let mut answer = String::new();
        let stream = TcpStream::connect_timeout(&SocketAddr::from((address, port)), Duration::from_secs(5));
        stream.unwrap().read_to_string(&mut answer).unwrap();
        Ok(answer)
    };
    space.namespace.on_a_thread(connect).unwrap()
}
