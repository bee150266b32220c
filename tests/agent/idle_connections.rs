//! Ten thousand idle connections to the port of task metadata, from processes of this host: tasks in network mode host are such.

use super::footprint::{descriptors, status};
use super::rig::{FOREVER, LIMIT, one_container, shell};
use super::roles::Scene;
use ecs_agent::http::task_metadata::PORT;
use ecs_local::TaskStatus;
use ecs_testing::wait::until;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;
use std::collections::VecDeque;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};
use tokio::net::TcpSocket;
use tokio::task::JoinSet;

const CONNECTIONS: usize = 10_000;
/// The most connections that the server keeps.
const SLOTS: usize = 512;
/// What the agent may need for the connections that it keeps, in KiB: 64 for each, with what the allocator keeps. It needs half of
/// that. In three rounds, a KiB that each of the other connections left behind would be more.
const MEMORY: usize = SLOTS * 64;

/// Ten thousand connections from many addresses of this host. Every other one has begun a request. Until this is dropped, new ones
/// take the place of the oldest, since the agent closes idle connections after some seconds.
struct Flood(JoinSet<()>);

impl Flood {
    async fn open() -> Self {
        let mut streams = VecDeque::with_capacity(CONNECTIONS);
        while streams.len() < CONNECTIONS {
            streams.push_back(idle_connection(streams.len()).await);
        }
        let mut going_on = JoinSet::new();
        going_on.spawn(async move {
            for number in 0.. {
                streams.pop_front();
                streams.push_back(idle_connection(number).await);
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        });
        Self(going_on)
    }

    async fn close(mut self) {
        self.0.shutdown().await;
    }
}

async fn idle_connection(number: usize) -> tokio::net::TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    let from = Ipv4Addr::new(127, 0, 2, u8::try_from(number % 100).unwrap() + 1);
    socket.bind((from, 0).into()).unwrap();
    let stream = socket.connect(SocketAddr::from(([127, 0, 0, 1], PORT))).await.unwrap();
    if number.is_multiple_of(2) {
        // The agent may have closed it already.
        let _ = stream.try_write(b"GET /v4/x/task HTTP/1.1\r\nHo");
    }
    stream
}

/// Lets this process have enough files. Only here, since an agent inherits the limit.
fn allow_many_files() {
    let wanted = 2 * CONNECTIONS as u64;
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let maximum = maximum.map(|maximum| maximum.max(wanted));
    setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum }).expect("root may have many files");
}

/// How long 99 of 100 answers of the introspection port take at most.
async fn p99_of_introspection() -> Duration {
    let ask = || {
        let begun = Instant::now();
        let mut stream = TcpStream::connect("127.0.0.1:51678").unwrap();
        stream.write_all(b"GET /v1/tasks HTTP/1.0\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.0 200") || answer.starts_with("HTTP/1.1 200"), "{answer}");
        begun.elapsed()
    };
    let measured = tokio::task::spawn_blocking(move || {
        let mut times: Vec<_> = (0..200).map(|_| ask()).collect();
        times.sort_unstable();
        times[times.len() * 99 / 100]
    });
    measured.await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_idle_connections_shut_no_task_out() {
    let Some(scene) = Scene::start("idle connections", "log").await else { return };
    let definition =
        json!({"family": "asks", "containerDefinitions": [shell("main", &scene.image.reference, FOREVER)]});
    let arn = scene.rig.server.run_task(&definition).unwrap();
    let task = scene.rig.task(&arn, TaskStatus::Running).await;
    let web = task.container("main").unwrap().runtime_id.clone().unwrap();
    let asks = || scene.exec(&web, "wget -qO- $ECS_CONTAINER_METADATA_URI_V4/task 2>&1 || true");
    let answer = asks();
    assert!(answer.contains(&arn), "{answer}");
    allow_many_files();
    let pid = scene.rig.pid();
    let memory = || status(pid, "VmRSS");
    let (files, resident, quick) = (descriptors(pid), memory(), p99_of_introspection().await);

    for round in 0..3 {
        let flood = Flood::open().await;
        for _ in 0..5 {
            let answer = asks();
            assert!(answer.contains(&arn), "a container is served: {answer}");
        }
        let slower = p99_of_introspection().await;
        let more = (descriptors(pid) - files, memory().saturating_sub(resident));
        eprintln!(
            "round {round}: {} more files, {} KiB more, introspection p99 {quick:?}, then {slower:?}",
            more.0, more.1
        );
        assert!(more.0 > SLOTS / 2, "the connections are kept: {more:?}");
        assert!(more.0 <= SLOTS + 40 && more.1 <= MEMORY, "{more:?}");
        assert!(slower <= 4 * quick + Duration::from_millis(250), "{quick:?} {slower:?}");
        let next = scene.rig.server.run_task(&one_container(&scene.image.reference, "exit 3")).unwrap();
        let ended = scene.rig.task(&next, TaskStatus::Stopped).await;
        assert_eq!(ended.container("main").unwrap().exit_code, Some(3), "the core goes on");
        flood.close().await;
        until("the end of all connections", LIMIT, async || (descriptors(pid) <= files + 40).then_some(())).await;
        assert!(asks().contains(&arn));
        assert!(memory() <= resident + MEMORY, "{resident} KiB, then {} KiB", memory());
    }
}
