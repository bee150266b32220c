//! The whole agent: size, start-up, memory, and one task against what Docker alone needs, measured in the same run.
//!
//! `cargo bench --bench agent`. Needs what the agent's tests need (`./tests/run` installs it). The comparison with Docker is
//! paired: a task through the agent, then the same create and start straight against the Docker API, in turn.

#![allow(clippy::print_stdout, reason = "a bench prints its figures")]

#[path = "../tests/support"]
mod support {
    pub(crate) mod docker;
    pub(crate) mod registry;
}

use ecs_agent::local::{Options, Server, Source, TaskStatus};
use serde_json::{Value, json};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use support::docker::{Cluster, TempDir, available, one_agent, unique};
use support::registry::Registry;

const BINARY: &str = env!("CARGO_BIN_EXE_ecs-agent");
const LIMIT: Duration = Duration::from_secs(60);
/// Runs until SIGTERM, and ends at once then.
const STOPPABLE: &str = "trap 'exit 0' TERM; sleep 3600 & wait";
const STARTS: usize = 10;
const TASKS: usize = 15;
/// Long enough for connections, buffers and the first inventory to have come and gone.
const IDLE: Duration = Duration::from_secs(5);

struct Agent {
    child: Child,
    _data: TempDir,
}

impl Agent {
    fn start(server: &Server) -> Self {
        let data = TempDir::new("ecs-bench");
        let child = Command::new(BINARY)
            .env_clear()
            .envs(server.environment())
            .env("ECS_DATADIR", data.path())
            .env("ECS_CONFIG_FILE", "/dev/null")
            .env("ECS_LOGLEVEL", "error")
            .stdout(Stdio::null())
            .spawn()
            .expect("the agent starts");
        Self { child, _data: data }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::main]
async fn main() {
    if !available("the agent's bench") {
        return;
    }
    ecs_agent::aws::install_tls();
    // One agent at a time on a host, as in the tests: port 51678 is its own.
    let _one_agent = one_agent();
    let size = std::fs::metadata(BINARY).expect("the binary is there").len();
    println!("binary size              {:>8.2} MB", size as f64 / 1e6);
    start_up().await;
    let registry = Registry::start(&[]);
    let image = registry.push_busybox("bench/busybox", &[]);
    one_task(&image).await;
}

async fn server(cluster: &Cluster) -> Server {
    Server::start(Options { cluster: cluster.name.clone(), ..Options::default() }).await.expect("a control plane")
}

async fn connected(server: &Server) {
    let connected =
        |state: &ecs_agent::local::State| state.records().any(|r| r.source == Source::AcsConnect).then_some(());
    server.wait_for("the agent to connect", LIMIT, connected).await.expect("the agent connects");
}

async fn start_up() {
    let (mut registered, mut serving, mut idle) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..STARTS {
        let cluster = Cluster::new();
        let server = server(&cluster).await;
        let begun = Instant::now();
        let agent = Agent::start(&server);
        let call = |state: &ecs_agent::local::State| {
            state.records().any(|r| r.name == "RegisterContainerInstance").then_some(())
        };
        server.wait_for("a registration", LIMIT, call).await.expect("the agent registers");
        registered.push(begun.elapsed());
        while std::net::TcpStream::connect("127.0.0.1:51678").is_err() {
            assert!(begun.elapsed() < LIMIT, "introspection does not answer");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        serving.push(begun.elapsed());
        connected(&server).await;
        if idle.len() < 3 {
            tokio::time::sleep(IDLE).await;
            idle.push(pss_kib(agent.child.id()));
        }
    }
    println!("exec to registered       {}", spread(&mut registered));
    println!("exec to introspection    {}", spread(&mut serving));
    idle.sort_unstable();
    println!("idle memory (PSS)        {:>8.2} MiB", idle[idle.len() / 2] as f64 / 1024.0);
}

/// Proportional set size of a process.
fn pss_kib(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("the agent's memory map");
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:")).expect("a Pss line");
    line.trim().trim_end_matches("kB").trim().parse().expect("a number")
}

async fn one_task(image: &str) {
    let cluster = Cluster::new();
    let server = server(&cluster).await;
    let _agent = Agent::start(&server);
    connected(&server).await;
    let (mut through_agent, mut straight, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..=TASKS {
        let task = json!({
            "family": "bench",
            "containerDefinitions": [{"name": "main", "image": image, "memory": 32, "command": ["sh", "-c", STOPPABLE]}],
        });
        let begun = Instant::now();
        let arn = server.run_task(&task).expect("the task is placed");
        let running = |state: &ecs_agent::local::State| {
            state.task(&arn).filter(|task| task.last_status >= TaskStatus::Running).map(|task| task.last_status)
        };
        let status = server.wait_for("the task to run", LIMIT, running).await.expect("the task runs");
        assert_eq!(status, TaskStatus::Running, "the task runs");
        let agent = begun.elapsed();
        server.stop_task(&arn, "measured").expect("the task is known");
        let floor = straight_to_docker(image, &cluster.name).await;
        if round == 0 {
            continue; // warm-up: the first task fetches the image
        }
        through_agent.push(agent);
        straight.push(floor);
        ratios.push(agent.as_secs_f64() / floor.as_secs_f64());
        let stopped = |state: &ecs_agent::local::State| {
            state.task(&arn).filter(|task| task.last_status == TaskStatus::Stopped).map(|_| ())
        };
        server.wait_for("the task to stop", LIMIT, stopped).await.expect("the task stops");
    }
    println!("payload to RUNNING       {}", spread(&mut through_agent));
    println!("Docker alone, same steps {}", spread(&mut straight));
    ratios.sort_by(f64::total_cmp);
    println!("agent / Docker           {:>8.2} (median of pairs)", ratios[ratios.len() / 2]);
}

/// Creates and starts the same container with two calls of the Docker API.
async fn straight_to_docker(image: &str, cluster: &str) -> Duration {
    let client = reqwest::Client::builder().unix_socket("/var/run/docker.sock").build().expect("a client");
    let name = unique("ecs-bench");
    let body: Value = json!({
        "Image": image,
        "Cmd": ["sh", "-c", STOPPABLE],
        "Labels": {"com.amazonaws.ecs.cluster": cluster},
        "HostConfig": {"Memory": 32 << 20, "CpuShares": 2},
    });
    let begun = Instant::now();
    let url = format!("http://docker/v1.41/containers/create?name={name}");
    let created = client.post(url).json(&body).send().await.expect("Docker answers");
    assert!(created.status().is_success(), "create: {}", created.status());
    let url = format!("http://docker/v1.41/containers/{name}/start");
    let started = client.post(url).send().await.expect("Docker answers");
    assert!(started.status().is_success(), "start: {}", started.status());
    let took = begun.elapsed();
    let url = format!("http://docker/v1.41/containers/{name}?force=true");
    client.delete(url).send().await.expect("Docker answers");
    took
}

/// `median (min to max)` in milliseconds.
fn spread(times: &mut [Duration]) -> String {
    times.sort_unstable();
    let ms = |time: Duration| time.as_secs_f64() * 1000.0;
    format!("{:>8.1} ms ({:.1} to {:.1})", ms(times[times.len() / 2]), ms(times[0]), ms(times[times.len() - 1]))
}
