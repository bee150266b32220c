//! How many requests a second ports 51678 and 51679 answer, compared with a bare loop over sockets that sends answers of the same
//! size: `cargo bench --bench http`.
//!
//! Both run in this process on the same number of threads, and take turns, so that a change of the machine's speed affects both.
//! The clients are two threads with one kept connection each. Prints the median of the ratios, and their range. For port 51679 also
//! the rate and the times over 32 connections, of which each thread asks 16 in turn without waiting for the one before.

#![expect(clippy::print_stdout, reason = "a bench prints its numbers")]

use ecs_agent::http::introspection::{self, Identity};
use ecs_agent::http::task_metadata::{
    self, Audit, FaultInjector, Metadata, PeerCheckMode, Place, Rates, Sources, TaskProtection, Tasks, Work,
};
use ecs_agent::http::{self, Address, Audience, Listener};
use ecs_core::model::agent_health::AgentHealth;
use ecs_core::model::fault::{FaultError, FaultNetwork, FaultOperation, FaultStatus, Interfaces};
use ecs_core::model::protection::{ProtectionAnswer, ProtectionCall, ProtectionError};
use ecs_core::model::task::NetworkMode;
use ecs_core::model::usage::{
    BlockEntry, BlockIo, CgroupVersion, CpuUsage, Interface, LastStatistics, MemoryDetails, MemoryUsage, Moment,
    NetworkRate, Pids, Statistics, Traffic, Usage,
};
use ecs_core::model::view::{ContainerView, TaskView, View};
use ecs_core::model::{ContainerStatus, CredentialsId, TaskArn, TaskStatus, Timestamp};
use futures_util::future::BoxFuture;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// How long each server is measured in each round.
const MEASURE: Duration = Duration::from_millis(500);
const ROUNDS: usize = 9;
const CLIENTS: usize = 2;
const TASKS: usize = 50;
/// Kept connections of each client in the second measurement of port 51679.
const CONNECTIONS: usize = 16;
/// The path of a task on port 51679. All ids have the same length, as those of the agent.
const TASK: &str = "/v4/00000007-aaaa-4bbb-8ccc-dddddddddddd/task";
/// The path of a container's statistics on port 51679.
const STATS: &str = "/v4/00000007-aaaa-4bbb-8ccc-dddddddddddd/stats";

fn task(number: usize) -> TaskView {
    let name = format!("ecs-family-7-web-{number:018x}");
    let container = ContainerView {
        name: "web".into(),
        endpoint_id: Some(format!("{number:08}-aaaa-4bbb-8ccc-dddddddddddd").into()),
        runtime_id: Some(format!("{number:064x}").into()),
        runtime_name: name,
        image: "registry.example/web:7".to_owned(),
        image_id: format!("sha256:{number:064x}"),
        known: ContainerStatus::Running,
        created_at: Some("2026-11-29T10:00:00.123456789Z".to_owned()),
        started_at: Some("2026-11-29T10:00:01.123456789Z".to_owned()),
        ..ContainerView::default()
    };
    TaskView {
        arn: format!("arn:aws:ecs:eu-west-1:123456789012:task/cluster/{number:032x}").into(),
        family: "family".to_owned(),
        version: "7".to_owned(),
        network: NetworkMode::default(),
        fault_injection: false,
        desired: TaskStatus::Running,
        known: TaskStatus::Running,
        containers: vec![container],
        ..TaskView::default()
    }
}

/// The port's server on loopback.
fn serve(runtime: &Runtime, view: watch::Receiver<Arc<View>>) -> SocketAddr {
    let identity = Identity {
        cluster: "cluster".to_owned(),
        container_instance_arn: Some("arn:aws:ecs:eu-west-1:123456789012:container-instance/cluster/0".to_owned()),
        version_text: "Amazon ECS Agent - v1.105.1 (a8b3e7d3)".to_owned(),
    };
    let health = Arc::new(|| AgentHealth { stage: "running".to_owned(), checks: Vec::new() });
    let lookups = introspection::Lookups {
        pulls: Arc::new(|_| None),
        timings: Arc::new(|_, _| introspection::Timings::default()),
        clock: Arc::new(Timestamp::default),
        host: Arc::new(|| introspection::HostAnswer {
            kept_by: introspection::KeptBy::HostSetup,
            put_back: 7,
            ..introspection::HostAnswer::default()
        }),
    };
    let routes = introspection::router(health, identity, view, lookups);
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).expect("a port");
    let address = listener.local_addr().expect("an address");
    let settings = http::Settings::new("bench", Address::Port(0));
    let stop = CancellationToken::new();
    runtime.spawn(http::serve(Listener::Tcp(listener), settings, Audience::host_only(), routes.into(), stop));
    address
}

/// Nothing here asks for work.
#[derive(Debug)]
struct NoWork;

impl TaskProtection for NoWork {
    fn call(
        &self,
        _task: TaskArn,
        _role: CredentialsId,
        _call: ProtectionCall,
    ) -> BoxFuture<'static, Result<ProtectionAnswer, ProtectionError>> {
        unreachable!("only documents are asked for")
    }
}

impl FaultInjector for NoWork {
    fn host_interfaces(&self) -> std::io::Result<Interfaces> {
        unreachable!("only documents are asked for")
    }

    fn carry_out(
        &self,
        _network: FaultNetwork,
        _operation: FaultOperation,
    ) -> BoxFuture<'static, Result<FaultStatus, FaultError>> {
        unreachable!("only documents are asked for")
    }
}

/// Statistics as of a container with two processors, one disk and one network.
fn statistics() -> Statistics {
    let mut details = MemoryDetails::zero(CgroupVersion::V1);
    details.values.iter_mut().zip(1_000_000..).for_each(|(place, value)| *place = value);
    let cpu = CpuUsage {
        total: 123_456_789_012,
        per_cpu: vec![61_728_394_506; 2],
        kernel: 20_000_000_000,
        user: 90_000_000_000,
        system: 9_340_760_000_000,
        online: 2,
        ..CpuUsage::default()
    };
    let entry = |op: &str| BlockEntry { major: 254, minor: 0, op: op.into(), value: 12_345_678 };
    let usage = Usage {
        memory: MemoryUsage { usage: 12_345_678, max_usage: 23_456_789, failures: 0, limit: 67_108_864, details },
        block_io: BlockIo { service_bytes: Some(vec![entry("Read"), entry("Write")]), ..BlockIo::empty() },
        pids: Pids { current: 7, limit: 0 },
        networks: vec![Interface { name: "eth0".to_owned(), traffic: Traffic::default() }],
        cpu: cpu.clone(),
    };
    let rate = Some(NetworkRate { rx_bytes: 284.5, tx_bytes: 0.0 });
    let (read, previous_read) = (Moment(1_795_304_208_025_206_483), Some(Moment(1_795_304_207_022_357_204)));
    Statistics { read, previous_read, usage, previous_cpu: cpu, rate }
}

/// The server of port 51679 on loopback.
fn serve_tasks(runtime: &Runtime, view: watch::Receiver<Arc<View>>) -> SocketAddr {
    let known = Arc::new(statistics());
    let metadata = Metadata {
        place: Place { cluster: "cluster".to_owned(), vpc_id: "vpc-0123456789abcdef0".to_owned(), ..Place::default() },
        wall: Arc::new(|at| at),
        tags: Arc::new(|_| Box::pin(async { Ok(std::collections::BTreeMap::new()) })),
        stats: Arc::new(move |_| LastStatistics::Known(Arc::clone(&known))),
    };
    let audit = Audit { cluster: String::new(), container_instance: String::new(), sink: None };
    let rates = Rates { steady: 1_000_000_000, burst: 1_000_000_000 };
    let work = Work { protection: Arc::new(NoWork), faults: Arc::new(NoWork) };
    let sources = Sources::new(Tasks::new(view), metadata, Arc::new(|_| None), work, audit, rates, PeerCheckMode::Log);
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).expect("a port");
    let address = listener.local_addr().expect("an address");
    let settings = task_metadata::settings(Address::Port(0));
    let (answers, stop) = (task_metadata::answers(sources), CancellationToken::new());
    runtime.spawn(http::serve(Listener::Tcp(listener), settings, Audience::host_only(), answers, stop));
    address
}

/// A bare loop: reads until the end of a head, and writes these bytes.
fn bare(runtime: &Runtime, answer: Vec<u8>) -> SocketAddr {
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).expect("a port");
    let address = listener.local_addr().expect("an address");
    let answer = Arc::new(answer);
    runtime.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let answer = Arc::clone(&answer);
            connections.spawn(async move {
                let (mut buffer, mut length) = ([0; 4096], 0);
                while let Ok(read @ 1..) = stream.read(&mut buffer[length..]).await {
                    length += read;
                    if buffer[..length].ends_with(b"\r\n\r\n") {
                        length = 0;
                        if stream.write_all(&answer).await.is_err() {
                            break;
                        }
                    }
                }
            });
        }
    });
    address
}

fn request(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: localhost:51678\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n")
}

/// The whole answer to one request on a connection of its own.
fn answer(address: SocketAddr, path: &str) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).expect("a connection");
    let request = request(path).replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("sent");
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).expect("an answer");
    String::from_utf8(bytes).expect("text").replace("connection: close\r\n", "").into_bytes()
}

/// Requests a second over kept connections, with answers of this size.
fn rate(address: SocketAddr, path: &str, size: usize) -> f64 {
    let count = |_| {
        let request = request(path);
        move || {
            let mut stream = TcpStream::connect(address).expect("a connection");
            let (mut buffer, mut count, began) = (vec![0; size], 0_u32, Instant::now());
            while began.elapsed() < MEASURE {
                stream.write_all(request.as_bytes()).expect("sent");
                stream.read_exact(&mut buffer).expect("an answer of the same size");
                count += 1;
            }
            f64::from(count) / began.elapsed().as_secs_f64()
        }
    };
    let clients: Vec<_> = (0..CLIENTS).map(count).map(std::thread::spawn).collect();
    clients.into_iter().map(|client| client.join().expect("a client")).sum()
}

/// Requests a second over many kept connections, and the time below which 99 of 100 answers came.
fn rate_of_many(address: SocketAddr, path: &str, size: usize) -> (f64, Duration) {
    let client = |_| {
        let request = request(path);
        move || {
            let connect = |_| TcpStream::connect(address).expect("a connection");
            let mut streams: Vec<_> = (0..CONNECTIONS).map(connect).collect();
            let (mut buffer, mut times, began) = (vec![0; size], Vec::new(), Instant::now());
            while began.elapsed() < MEASURE {
                let sent: Vec<_> = streams
                    .iter_mut()
                    .map(|stream| {
                        stream.write_all(request.as_bytes()).expect("sent");
                        Instant::now()
                    })
                    .collect();
                for (stream, sent) in streams.iter_mut().zip(sent) {
                    stream.read_exact(&mut buffer).expect("an answer of the same size");
                    times.push(sent.elapsed());
                }
            }
            (times.len() as f64 / began.elapsed().as_secs_f64(), times)
        }
    };
    let clients: Vec<_> = (0..CLIENTS).map(client).map(std::thread::spawn).collect();
    let results: Vec<_> = clients.into_iter().map(|client| client.join().expect("a client")).collect();
    let mut times: Vec<_> = results.iter().flat_map(|(_, times)| times.iter().copied()).collect();
    times.sort_unstable();
    (results.iter().map(|(rate, _)| rate).sum(), times[times.len() * 99 / 100])
}

fn main() {
    let threads = |name| {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(2).enable_all().thread_name(name).build().expect("threads")
    };
    let (ours, theirs) = (threads("ours"), threads("bare"));
    let tasks = (0..TASKS).map(|number| Arc::new(task(number))).collect();
    let (_view, readers) = watch::channel(Arc::new(View { tasks, ..View::default() }));
    let tasks_at = serve_tasks(&ours, readers.clone());
    let address = serve(&ours, readers);
    for (address, path) in [(address, "/v1/metadata"), (address, "/v1/tasks"), (tasks_at, TASK), (tasks_at, STATS)] {
        let bytes = answer(address, path);
        let size = bytes.len();
        let bare = bare(&theirs, bytes);
        let mut rounds: Vec<(f64, f64)> =
            (0..ROUNDS).map(|_| (rate(address, path, size), rate(bare, path, size))).collect();
        rounds.sort_by(|a, b| (a.0 / a.1).total_cmp(&(b.0 / b.1)));
        let ratio = |(ours, bare): (f64, f64)| ours / bare;
        let (ours, bare) = rounds[ROUNDS / 2];
        println!(
            "{path:<14} {size:>6} bytes  {ours:>7.0} requests/s, bare loop {bare:>7.0}: {:.2} ({:.2} to {:.2})",
            ours / bare,
            ratio(rounds[0]),
            ratio(rounds[ROUNDS - 1]),
        );
    }
    over_many_connections(tasks_at, &theirs);
}

/// Prints the rate and the slowest hundredth of the answers about a task, each the median of the rounds, and the same of a bare loop.
fn over_many_connections(tasks_at: SocketAddr, theirs: &Runtime) {
    let bytes = answer(tasks_at, TASK);
    let size = bytes.len();
    let bare = bare(theirs, bytes);
    let rounds: Vec<_> =
        (0..ROUNDS).map(|_| [tasks_at, bare].map(|address| rate_of_many(address, TASK, size))).collect();
    let median = |mut values: Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values[ROUNDS / 2]
    };
    let rate = |nth: usize| median(rounds.iter().map(|both| both[nth].0).collect());
    let p99 = |nth: usize| median(rounds.iter().map(|both| both[nth].1.as_secs_f64() * 1000.0).collect());
    let ratio = median(rounds.iter().map(|[ours, bare]| ours.0 / bare.0).collect());
    println!(
        "{TASK} over {} connections: {:.0} requests/s, p99 {:.2} ms; bare loop {:.0}, p99 {:.2} ms: {ratio:.2}",
        CLIENTS * CONNECTIONS,
        rate(0),
        p99(0),
        rate(1),
        p99(1),
    );
}
