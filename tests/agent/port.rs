//! Port 51678 with real peers: which peers are served, and with which limits.

use super::health::healthcheck;
use super::rig::{LIMIT, Plan, Rig};
use ecs_testing::docker::{Image, docker, remaps_users, unique};
use ecs_testing::registry::bridge_address;
use ecs_testing::wait::until;
use std::io::Write;
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// Runs a command; returns whether it succeeded, and what it printed.
pub(crate) fn run(words: &[&str]) -> (bool, String) {
    let output = Command::new(words[0]).args(&words[1..]).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

fn ok(words: &[&str]) -> String {
    let (success, text) = run(words);
    assert!(success, "{words:?}: {text}");
    text
}

/// The status of GET `/v1/metadata` at `host`; `000` if there was no answer. `before` is a command that runs curl, such as `ip
/// netns exec NAME`; empty: curl runs directly.
pub(crate) fn status(before: &[&str], host: &str, more: &[&str]) -> String {
    let url = format!("http://{host}:51678/v1/metadata");
    let curl = ["curl", "-g", "-s", "-o", "/dev/null", "-w", "%{http_code}", "--max-time", "5"];
    run(&[before, &curl, more, &[&url]].concat()).1
}

/// A neighbour of this host on an interface of its own, in a network namespace of its own.
pub(crate) struct Neighbour {
    pub(crate) name: String,
}

const OURS: [&str; 3] = ["198.18.51.1/24", "fd51:678::1/64", "fe80::51/64"];
const THEIRS: [&str; 3] = ["198.18.51.2/24", "fd51:678::2/64", ELSEWHERE];
/// A link-local address that the neighbour has, and that this host has too, on another interface.
const ELSEWHERE: &str = "fe80::5151/64";

impl Neighbour {
    /// `None` if this process may not make network namespaces.
    #[expect(clippy::print_stderr, reason = "a skipped test must be seen")]
    pub(crate) fn new() -> Option<Self> {
        let neighbour = Self { name: unique("ecs").replace('-', "")[..12].to_owned() };
        let (name, ours, other) = (neighbour.name.as_str(), neighbour.ours(), neighbour.other());
        if !run(&["ip", "netns", "add", name]).0 {
            eprintln!("SKIPPED the neighbour on another interface: it takes root");
            return None;
        }
        ok(&["ip", "link", "add", &ours, "type", "veth", "peer", "name", "eth9", "netns", name]);
        ok(&["ip", "link", "add", &other, "type", "veth", "peer", "name", "eth8", "netns", name]);
        let inside = ["ip", "-n", name];
        for address in OURS {
            ok(&[&["ip", "address", "add", address, "dev", &ours][..], nodad(address)].concat());
        }
        ok(&["ip", "address", "add", ELSEWHERE, "dev", &other, "nodad"]);
        // The interface gets no other link-local address than the one below.
        ok(&[&inside[..], &["link", "set", "eth9", "addrgenmode", "none"]].concat());
        for address in THEIRS {
            ok(&[&inside[..], &["address", "add", address, "dev", "eth9"], nodad(address)].concat());
        }
        for end in [["eth9"], ["eth8"], ["lo"]] {
            ok(&[&inside[..], &["link", "set", end[0], "up"]].concat());
        }
        ok(&["ip", "link", "set", &ours, "up"]);
        ok(&["ip", "link", "set", &other, "up"]);
        Some(neighbour)
    }

    fn ours(&self) -> String {
        format!("{}a", self.name)
    }

    fn other(&self) -> String {
        format!("{}b", self.name)
    }

    fn status(&self, host: &str, more: &[&str]) -> String {
        status(&["ip", "netns", "exec", &self.name], host, more)
    }
}

/// The option with which an IPv6 address can be used at once.
fn nodad(address: &str) -> &'static [&'static str] {
    if address.contains(':') { &["nodad"] } else { &[] }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        let _pairs_go_with_it = run(&["ip", "netns", "delete", &self.name]);
    }
}

/// A Docker network that is removed when this is dropped.
struct Network(String);

impl Drop for Network {
    fn drop(&mut self) {
        let _ = run(&["docker", "network", "rm", &self.0]);
    }
}

/// A container that sleeps; curl runs in its network namespace.
struct Container {
    id: String,
    pid: String,
}

impl Container {
    fn start(image: &str, network: &str) -> Self {
        let id = docker(&["run", "--detach", "--network", network, image, "sleep", "600"]);
        let pid = docker(&["inspect", "--format", "{{.State.Pid}}", &id]);
        Self { id, pid }
    }

    fn status(&self, host: &str, more: &[&str]) -> String {
        status(&["nsenter", "--net", "--target", &self.pid], host, more)
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = run(&["docker", "rm", "--force", &self.id]);
    }
}

fn gateway(network: &str) -> String {
    docker(&["network", "inspect", "--format", "{{(index .IPAM.Config 0).Gateway}}", network])
}

/// An address of this host that is neither loopback's nor a bridge's.
fn own_address() -> Option<String> {
    let (_, text) = run(&["ip", "-4", "-o", "address", "show", "scope", "global"]);
    let line = text.lines().find(|line| !line.contains("docker") && !line.contains(" br-"))?;
    let address = line.split_whitespace().nth(3)?;
    Some(address.split('/').next()?.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn on_the_hosts_network_only_the_host_and_the_bridge_are_served() {
    let Some(mut rig) = Rig::start("peers of the port", Plan::default()).await else { return };
    let image = rig.image();
    let own = own_address().unwrap_or_else(|| "127.0.0.1".to_owned());
    let bridge = bridge_address();
    assert_eq!(status(&[], "127.0.0.1", &[]), "200");
    assert_eq!(status(&[], "localhost", &[]), "200");
    assert_eq!(status(&[], "[::1]", &[]), "200");
    assert_eq!(status(&[], &own, &[]), "200", "{own}");
    assert_eq!(status(&[], &bridge, &[]), "200");

    // Containers on the default bridge, by every address of the host, and on the host's network.
    let on_bridge = Container::start(&image, "bridge");
    let is_served = async || (on_bridge.status(&bridge, &[]) == "200").then_some(());
    until("the agent to know the bridge", LIMIT, is_served).await;
    assert_eq!(on_bridge.status(&own, &[]), "200", "by {own}: {}", rig.log());
    let resolve = ["--resolve".to_owned(), format!("host.docker.internal:51678:{bridge}")];
    assert_eq!(on_bridge.status("host.docker.internal", &[&resolve[0], &resolve[1]]), "200");
    if !remaps_users("a container in the host's network") {
        let on_host = Container::start(&image, "host");
        assert_eq!(on_host.status("127.0.0.1", &[]), "200");
        assert_eq!(on_host.status(&own, &[]), "200");
    }

    // Another network of containers, made while the agent runs.
    let network = Network(unique("ecs-test-port"));
    docker(&["network", "create", &network.0]);
    let (others, elsewhere) = (gateway(&network.0), Container::start(&image, &network.0));
    for host in [others.as_str(), bridge.as_str(), own.as_str()] {
        assert_eq!(elsewhere.status(host, &[]), "000", "by {host}");
    }
    assert_eq!(status(&[], &others, &[]), "200", "the host's own new address");

    let Some(neighbour) = Neighbour::new() else { return };
    for host in ["198.18.51.1", "[fd51:678::1]", "[fe80::51%25eth9]"] {
        assert_eq!(neighbour.status(host, &[]), "000", "by {host}");
    }
    for own in ["198.18.51.1".to_owned(), "[fd51:678::1]".to_owned(), format!("[fe80::51%25{}]", neighbour.ours())] {
        assert_eq!(status(&[], &own, &[]), "200", "the host itself by {own}");
    }
    let log = rig.log();
    assert!(log.contains("a peer is not served") && log.contains("neither on this host nor"), "{log}");
    assert!(log.matches("a peer is not served").count() <= 2, "lines are limited:\n{log}");

    // The operator opens the port to everybody.
    assert!(rig.terminate().success());
    rig.environment.push(("ECS_ALLOW_OFFHOST_INTROSPECTION_ACCESS".to_owned(), "true".to_owned()));
    rig.start_agent();
    rig.registered().await;
    assert_eq!(neighbour.status("198.18.51.1", &[]), "200");
    assert_eq!(neighbour.status("[fd51:678::1]", &[]), "200");
    assert_eq!(neighbour.status("[fe80::51%25eth9]", &[]), "200", "so the host was reachable before");
    assert_eq!(elsewhere.status(&others, &[]), "200");
    assert_eq!(neighbour.status("198.18.51.1", &["-H", "Host: rebind.example.com"]), "403");
    drop((on_bridge, elsewhere));
    Image::remove_locally(&image);
}

#[tokio::test(flavor = "multi_thread")]
async fn half_open_requests_hold_up_neither_the_port_nor_the_stop() {
    let Some(mut rig) = Rig::start("half-open requests", Plan::default()).await else { return };
    let mut half_open = Vec::new();
    for _ in 0..400 {
        let mut stream = TcpStream::connect("127.0.0.1:51678").unwrap();
        let _closed_already = stream.write_all(b"GET /v1/tasks HTTP/1.1\r\nHost: ");
        half_open.push(stream);
    }
    let began = Instant::now();
    assert_eq!(healthcheck("-healthcheck").0, Some(0));
    assert_eq!(status(&[], "127.0.0.1", &[]), "200");
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    let began = Instant::now();
    assert!(rig.terminate().success());
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    let _kept_open_until_here = half_open;
    assert!(Path::new(&rig.log_path()).exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_task_id_is_no_error_in_the_log() {
    let Some(rig) = Rig::start("wrong task id", Plan::default()).await else { return };
    rig.introspect("/v1/metadata").await;
    for (query, code) in [("taskarn=nobody", 404), ("dockerid=ffffffffffff", 404), ("taskarn=a&dockerid=b", 400)] {
        let url = format!("http://127.0.0.1:51678/v1/tasks?{query}");
        assert_eq!(reqwest::get(&url).await.unwrap().status(), code, "{query}");
    }
    let log = rig.log();
    let mut errors = log.lines().filter(|line| !line.starts_with("level=debug"));
    assert!(!errors.any(|line| line.contains("HTTP response status code")), "{log}");
}
