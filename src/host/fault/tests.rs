//! Operations with recording programs in the place of the host's, and a blackhole with real packets in a network namespace.

use super::*;
use ecs_core::model::Protocol;
use ecs_core::model::fault::{Destination, Direction, Interfaces, Traffic};
use std::cell::Cell;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;

/// Stands for each program: records its command line, and looks up how to end. In the file `answers`, a line has a pattern, an
/// exit code (or `hang`), and the text to print; the first line whose pattern is in the command line counts.
const PROGRAM: &str = r#"#!/bin/sh
here=$(dirname "$0")
line="$(basename "$0") $*"
echo "$line" >>"$here/log"
[ "$*" != "-batch -" ] || { while read -r word; do echo "tc $word" >>"$here/log"; done; }
while IFS='|' read -r pattern code text; do
    [ -n "$pattern" ] || continue
    case "$line" in *"$pattern"*) [ -z "$text" ] || echo "$text"; [ "$code" != hang ] || sleep 60; exit "$code" ;; esac
done <"$here/answers"
"#;

const TASK: &str = "arn:aws:ecs:us-west-2:1:task/c/0123456789abcdef";

/// A directory of such programs, removed at the end.
struct Host {
    directory: PathBuf,
}

impl Host {
    /// Hosts whose programs succeed, except as `answers` says. Nothing runs at first.
    fn new(answers: &str) -> Self {
        let directory = std::env::temp_dir().join(format!("ecs-fault-{}", uuid::Uuid::new_v4().simple()));
        std::fs::create_dir(&directory).unwrap();
        for name in ["iptables", "ip6tables", "tc", "nsenter"] {
            ecs_testing::program::write(directory.join(name), PROGRAM);
        }
        let host = Self { directory };
        host.answer(answers);
        host
    }

    fn answer(&self, answers: &str) {
        std::fs::write(self.directory.join("answers"), format!("{answers}\n")).unwrap();
    }

    async fn faults(&self) -> Faults {
        let programs = Programs::in_directories(&format!("{}:/usr/bin:/bin", self.directory.display()));
        Faults::restored(programs, Some(&self.directory)).await
    }

    /// The command lines since the last call.
    fn lines(&self) -> Vec<String> {
        let log = self.directory.join("log");
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        let _gone = std::fs::remove_file(log);
        text.lines().map(str::to_owned).collect()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _removed = std::fs::remove_dir_all(&self.directory);
    }
}

const NOT_RUNNING: &str = " -C |1|\n-j q show|0|[]\n";
const LATENCY: &str = r#"-j q show|0|[{"kind":"netem","handle":"200:","options":{"limit":1000}}]"#;
const LOSS: &str = r#"-j q show|0|[{"kind":"netem","handle":"200:","options":{"loss-random":{"loss":0.1}}}]"#;

fn network(task: &str, interfaces: &[&str]) -> FaultNetwork {
    let names = interfaces.iter().map(ToString::to_string).collect();
    FaultNetwork { task: task.into(), namespace: None, interfaces: Interfaces { names, ipv6_only: false } }
}

fn port() -> BlackholePort {
    BlackholePort { direction: Direction::Egress, protocol: Protocol::Tcp, port: 443 }
}

fn blackhole() -> Fault {
    Fault::Blackhole { port: port(), spared: vec![Destination::new("10.0.0.1", false).unwrap()] }
}

fn latency() -> Fault {
    let to = vec![Destination::new("0.0.0.0/0", false).unwrap()];
    Fault::Latency { delay: 100, jitter: 0, traffic: Traffic { to, spared: Vec::new(), flows_percent: 100 } }
}

fn loss() -> Fault {
    let Fault::Latency { traffic, .. } = latency() else { unreachable!() };
    Fault::Loss { percent: 10, traffic }
}

async fn within(faults: &Faults, network: &FaultNetwork, operation: FaultOperation, limit: Duration) -> FaultResult {
    let answer = Cell::new(None);
    faults.carry_out(network, &operation, Instant::now() + limit, |result| answer.set(Some(result))).await;
    answer.get().expect("an operation is answered")
}

/// Long enough for a busy machine.
async fn run(faults: &Faults, network: &FaultNetwork, operation: FaultOperation) -> FaultResult {
    within(faults, network, operation, Duration::from_secs(120)).await
}

async fn start(faults: &Faults, network: &FaultNetwork, fault: Fault) -> FaultResult {
    run(faults, network, FaultOperation::Start(fault)).await
}

#[tokio::test]
async fn a_blackhole_is_started_shown_and_stopped() {
    let (host, network) = (Host::new(NOT_RUNNING), network(TASK, &["eth0"]));
    let faults = host.faults().await;
    assert_eq!(start(&faults, &network, blackhole()).await, Ok(FaultStatus::Running));
    let wanted = [
        "iptables -w 5 -C egress-tcp-443 -p tcp --dport 443 -j DROP",
        "iptables -w 5 -N egress-tcp-443",
        "iptables -w 5 -A egress-tcp-443 -p tcp -d 10.0.0.1 --dport 443 -j ACCEPT",
        "iptables -w 5 -A egress-tcp-443 -p tcp -d 0.0.0.0/0 --dport 443 -j DROP",
        "iptables -w 5 -I OUTPUT -j egress-tcp-443",
        "ip6tables -w 5 -N egress-tcp-443",
        "ip6tables -w 5 -A egress-tcp-443 -p tcp -d ::/0 --dport 443 -j DROP",
        "ip6tables -w 5 -I OUTPUT -j egress-tcp-443",
    ];
    assert_eq!(host.lines(), wanted);
    let id = FaultId::Blackhole(port());
    assert_eq!(run(&faults, &network, FaultOperation::Status(id)).await, Ok(FaultStatus::NotRunning));
    host.answer(""); // everything succeeds: it is running
    assert_eq!(run(&faults, &network, FaultOperation::Status(id)).await, Ok(FaultStatus::Running));
    assert_eq!(start(&faults, &network, blackhole()).await, Ok(FaultStatus::Running));
    host.lines();
    assert_eq!(run(&faults, &network, FaultOperation::Stop(id)).await, Ok(FaultStatus::Stopped));
    let wanted = ["-F egress-tcp-443", "-D OUTPUT -j egress-tcp-443", "-X egress-tcp-443"];
    let families = ["iptables", "ip6tables"];
    let wanted: Vec<String> =
        families.iter().flat_map(|tool| wanted.iter().map(move |words| format!("{tool} -w 5 {words}"))).collect();
    assert_eq!(host.lines()[1..], wanted);
    assert!(faults.is_empty().await);
    host.answer(NOT_RUNNING);
    assert_eq!(run(&faults, &network, FaultOperation::Stop(id)).await, Ok(FaultStatus::Stopped));
    assert_eq!(host.lines().len(), 1, "there is nothing to stop");
}

#[tokio::test]
async fn latency_affects_each_interface_and_excludes_loss() {
    let (host, network) = (Host::new(NOT_RUNNING), network(TASK, &["eth0", "eth1"]));
    let faults = host.faults().await;
    assert_eq!(start(&faults, &network, latency()).await, Ok(FaultStatus::Running));
    let lines = host.lines();
    let mut wanted =
        vec!["tc -j q show dev eth0 parent 100:1".to_owned(), "tc -j q show dev eth1 parent 100:1".to_owned()];
    for interface in ["eth0", "eth1"] {
        wanted.push(shaping::root(interface).to_string());
        wanted.push("tc -batch -".to_owned());
        wanted.extend(shaping::tree(interface, &latency()).iter().map(ToString::to_string));
    }
    assert_eq!(lines, wanted);
    for (running, error) in [(LATENCY, FaultError::LatencyRuns), (LOSS, FaultError::LossRuns)] {
        host.answer(running);
        for fault in [latency(), loss()] {
            assert_eq!(start(&faults, &network, fault).await, Err(error));
        }
    }
    host.lines();
    // Loss is running, as `tc` shows.
    let operation = |is_stop, id| if is_stop { FaultOperation::Stop(id) } else { FaultOperation::Status(id) };
    for (id, is_stop, wanted, commands) in [
        (FaultId::Latency, false, FaultStatus::NotRunning, 2),
        (FaultId::Loss, false, FaultStatus::Running, 2),
        (FaultId::Latency, true, FaultStatus::Stopped, 2),
        (FaultId::Loss, true, FaultStatus::Stopped, 6),
    ] {
        assert_eq!(run(&faults, &network, operation(is_stop, id)).await, Ok(wanted));
        assert_eq!(host.lines().len(), commands, "{id}");
    }
}

#[tokio::test]
async fn a_failed_start_leaves_nothing_behind() {
    let blackhole_removed = ["-F", "-D", "-X"];
    for (fault, answers, wanted) in [
        // The chain exists already, and is somebody else's.
        (blackhole(), "iptables -w 5 -N|1|Chain already exists", &[][..]),
        (blackhole(), "iptables -w 5 -I|4|no", &blackhole_removed[..]),
        (latency(), "root handle|2|RTNETLINK answers: File exists", &[][..]),
        (
            latency(),
            "-batch|1|Specified qdisc kind is unknown",
            &["qdisc del dev eth0 parent", "qdisc del dev eth0 root"][..],
        ),
    ] {
        let (host, network) = (Host::new(&format!("{answers}\n{NOT_RUNNING}")), network(TASK, &["eth0"]));
        if answers.starts_with("-batch") {
            host.answer(&format!(
                "{answers}\nshow dev eth0 root|0|[{{\"kind\":\"prio\",\"handle\":\"1:\"}}]\n{NOT_RUNNING}"
            ));
        }
        let faults = host.faults().await;
        assert_eq!(start(&faults, &network, fault).await, Err(FaultError::Failed), "{answers}");
        let lines = host.lines();
        let removal = ["-F", "-D", "-X", "qdisc del"];
        let removed: Vec<&String> =
            lines.iter().filter(|line| removal.iter().any(|part| line.contains(part))).collect();
        assert_eq!(removed.len(), wanted.len(), "{answers}: {lines:?}");
        assert!(removed.iter().zip(wanted).all(|(line, part)| line.contains(part)), "{removed:?}");
        assert!(faults.is_empty().await, "{answers}");
    }
}

#[tokio::test]
async fn without_ipv6_rules_only_an_ipv6_task_fails() {
    let answers = format!("ip6tables -w 5 -A|3|no\n{NOT_RUNNING}");
    for (ipv6_only, wanted) in [(false, Ok(FaultStatus::Running)), (true, Err(FaultError::Failed))] {
        let (host, mut network) = (Host::new(&answers), network(TASK, &["eth0"]));
        network.interfaces.ipv6_only = ipv6_only;
        let faults = host.faults().await;
        assert_eq!(start(&faults, &network, blackhole()).await, wanted);
        let removed: Vec<String> = host.lines().into_iter().filter(|line| line.contains("-X")).collect();
        let both = ["iptables -w 5 -X egress-tcp-443", "ip6tables -w 5 -X egress-tcp-443"];
        assert_eq!(removed, if ipv6_only { &both[..] } else { &both[1..] });
    }
}

#[tokio::test]
async fn an_operation_ends_at_its_deadline() {
    let (host, network) = (Host::new(&format!("-A|hang|\n{NOT_RUNNING}")), network(TASK, &["eth0"]));
    let faults = host.faults().await;
    let operation = FaultOperation::Start(blackhole());
    let began = std::time::Instant::now();
    let result = within(&faults, &network, operation, Duration::from_secs(2)).await;
    assert!(began.elapsed() < Duration::from_secs(50), "{:?}", began.elapsed());
    assert_eq!(result, Err(FaultError::TimedOut));
    let made = host.lines();
    assert!(made.iter().any(|line| line.contains("-N")), "{made:?}");
    assert_eq!(made.last().unwrap(), "iptables -w 5 -X egress-tcp-443", "what was made is removed");
    assert!(faults.is_empty().await);
    // Another operation holds the network.
    let lock = faults.lock(None);
    let _held = lock.write().await;
    let waiting = FaultOperation::Status(FaultId::Latency);
    assert_eq!(within(&faults, &network, waiting, Duration::from_millis(20)).await, Err(FaultError::TimedOut));
}

#[tokio::test]
async fn a_fault_ends_with_the_last_task_that_started_it() {
    let (host, first, second) = (Host::new(NOT_RUNNING), network("first", &["eth0"]), network("second", &["eth0"]));
    let faults = host.faults().await;
    start(&faults, &first, blackhole()).await.unwrap();
    host.answer(LATENCY); // everything succeeds: the blackhole is running
    start(&faults, &second, blackhole()).await.unwrap();
    host.lines();
    assert!(faults.take_back(|_| true).await);
    assert!(faults.take_back(|task| task.as_str() == "second").await);
    assert_eq!(host.lines(), [""; 0], "the second task still has it");
    // The agent was killed; the task ended meanwhile.
    drop(faults);
    let faults = host.faults().await;
    assert!(!faults.is_empty().await);
    assert!(faults.take_back(|_| false).await);
    let lines = host.lines();
    assert!(lines.iter().any(|line| line == "iptables -w 5 -X egress-tcp-443"), "{lines:?}");
    assert!(faults.is_empty().await);
    assert!(!host.directory.join(record::FILE).exists());
}

#[tokio::test]
async fn latency_of_an_ended_task_is_removed_until_it_succeeds() {
    let (host, network) = (Host::new(NOT_RUNNING), network(TASK, &["eth0"]));
    let faults = host.faults().await;
    start(&faults, &network, latency()).await.unwrap();
    host.answer(&format!("qdisc del|1|no\n{LATENCY}"));
    assert!(!faults.take_back(|_| false).await);
    host.answer(LATENCY);
    host.lines();
    assert!(faults.take_back(|_| false).await);
    let deleted = host.lines().iter().filter(|line| line.contains("qdisc del dev eth0")).count();
    assert_eq!((deleted, faults.is_empty().await), (2, true));
    // After a restart of the host there is nothing to remove, but perhaps a tree of somebody else.
    host.answer(NOT_RUNNING);
    start(&faults, &network, latency()).await.unwrap();
    host.lines();
    assert!(faults.take_back(|_| false).await);
    assert_eq!(host.lines(), ["tc -j q show dev eth0 parent 100:1"]);
}

/// The agent was killed between the first and the last command.
#[tokio::test]
async fn a_start_that_was_cut_off_is_removed_although_its_task_runs() {
    let host = Host::new(NOT_RUNNING);
    let records = Records::restored(Some(&host.directory)).await;
    let begun = Record::begun(&network(TASK, &["eth0"]), FaultId::Latency);
    records.change(|list| list.push(begun)).await.unwrap();
    for is_by_request in [false, true] {
        host.answer(&format!("show dev eth0 root|0|[{{\"kind\":\"prio\",\"handle\":\"1:\"}}]\n{NOT_RUNNING}"));
        let faults = host.faults().await;
        assert!(!faults.is_empty().await);
        if is_by_request {
            let stop = FaultOperation::Stop(FaultId::Blackhole(port()));
            run(&faults, &network("another", &["eth0"]), stop).await.unwrap();
        } else {
            assert!(faults.take_back(|_| true).await);
            records.change(Vec::clear).await.unwrap();
            records.change(|list| list.push(Record::begun(&network(TASK, &["eth0"]), FaultId::Latency))).await.unwrap();
            assert!(faults.is_empty().await);
        }
        let lines = host.lines();
        assert!(lines.iter().any(|line| line.contains("qdisc del dev eth0 root")), "{lines:?}");
    }
}

#[tokio::test]
async fn an_odd_interface_name_and_a_missing_program_fail() {
    let (host, odd) = (Host::new(NOT_RUNNING), network(TASK, &["e\"0"]));
    let faults = host.faults().await;
    assert_eq!(start(&faults, &odd, latency()).await, Err(FaultError::Failed));
    std::fs::remove_file(host.directory.join("iptables")).unwrap();
    std::fs::remove_file(host.directory.join("ip6tables")).unwrap();
    let programs = Programs::in_directories(&host.directory.to_string_lossy());
    let without = Faults::restored(programs, None).await;
    assert_eq!(start(&without, &odd, blackhole()).await, Err(FaultError::Failed));
    let status = FaultOperation::Status(FaultId::Blackhole(port()));
    assert_eq!(run(&without, &odd, status).await, Err(FaultError::Failed));
}

/// A process in a network namespace of its own, which ends with this value.
struct Namespace(std::process::Child);

impl Namespace {
    /// `None`: this user may not make one.
    fn new() -> Option<Self> {
        let script = "ip link set lo up && echo up && exec sleep 600";
        let mut command = std::process::Command::new("unshare");
        command
            .args(["--net", "sh", "-c", script])
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::null());
        let mut child = command.spawn().ok()?;
        let mut line = String::new();
        let stdout = child.stdout.take()?;
        std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line).ok()?;
        let namespace = Self(child);
        (line == "up\n").then_some(namespace)
    }

    fn file(&self) -> String {
        format!("/proc/{}/ns/net", self.0.id())
    }

    /// Runs `work` on a thread in this namespace.
    fn inside<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let file = std::fs::File::open(self.file()).unwrap();
        let thread = std::thread::spawn(move || {
            use std::os::fd::AsFd;
            rustix::thread::move_into_link_name_space(file.as_fd(), Some(rustix::thread::LinkNameSpaceType::Network))
                .unwrap();
            work()
        });
        thread.join().unwrap()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ended = self.0.kill();
        let _reaped = self.0.wait();
    }
}

/// Whether a connection to this address succeeds within a time that is long for loopback.
fn reaches(namespace: &Namespace, address: SocketAddr, limit: Duration) -> bool {
    namespace.inside(move || TcpStream::connect_timeout(&address, limit).is_ok())
}

#[tokio::test]
async fn a_real_blackhole_drops_packets_to_its_port_only() {
    let Some(namespace) = Namespace::new() else {
        assert!(std::env::var_os("ECS_TEST_REQUIRE_DOCKER").is_none(), "root may make a network namespace");
        return;
    };
    let listen = |address: &'static str| namespace.inside(move || TcpListener::bind(address).unwrap());
    let listeners = ["127.0.0.1:0", "127.0.0.1:0", "[::1]:0"].map(listen);
    let [dropped, other, v6] = listeners.each_ref().map(|listener| listener.local_addr().unwrap());
    let directory = std::env::temp_dir().join(format!("ecs-blackhole-{}", uuid::Uuid::new_v4().simple()));
    std::fs::create_dir(&directory).unwrap();
    let network = FaultNetwork { namespace: Some(namespace.file()), ..network(TASK, &["lo"]) };
    let long = Duration::from_secs(60);
    for direction in [Direction::Egress, Direction::Ingress] {
        let faults = Faults::restored(Programs::default(), Some(&directory)).await;
        for address in [dropped, v6] {
            let port = BlackholePort { direction, protocol: Protocol::Tcp, port: address.port() };
            let status = || run(&faults, &network, FaultOperation::Status(FaultId::Blackhole(port)));
            assert_eq!(status().await, Ok(FaultStatus::NotRunning));
            assert!(reaches(&namespace, address, long));
            let fault = Fault::Blackhole { port, spared: Vec::new() };
            assert_eq!(start(&faults, &network, fault).await, Ok(FaultStatus::Running));
            assert_eq!(status().await, Ok(FaultStatus::Running));
            assert!(!reaches(&namespace, address, Duration::from_secs(1)), "{direction} {address}");
            assert!(reaches(&namespace, other, long), "another port");
        }
        // The first one is stopped; the second one is found again by the next agent, whose task has ended.
        let port = BlackholePort { direction, protocol: Protocol::Tcp, port: dropped.port() };
        let stopped = run(&faults, &network, FaultOperation::Stop(FaultId::Blackhole(port))).await;
        assert_eq!(stopped, Ok(FaultStatus::Stopped));
        assert!(reaches(&namespace, dropped, long) && !reaches(&namespace, v6, Duration::from_secs(1)));
        drop(faults);
        let next = Faults::restored(Programs::default(), Some(&directory)).await;
        assert!(next.take_back(|_| false).await);
        assert!(reaches(&namespace, v6, long));
        let rules = namespace.inside(|| std::process::Command::new("iptables").arg("-S").output().unwrap());
        assert!(!String::from_utf8_lossy(&rules.stdout).contains("gress"), "no chain is left");
    }
    std::fs::remove_dir_all(&directory).unwrap();
}
