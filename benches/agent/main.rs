//! The whole agent: size, start-up, memory, and one task, a hundred tasks and a task of fifty containers against what Docker alone
//! needs, measured in the same run.
//!
//! `cargo bench --bench agent`, and with `--target x86_64-unknown-linux-musl` for the static binary. After `--` may come the parts to
//! run (`"50 containers"`); without any, all are. Needs what the agent's tests need (`./tests/run` installs it). The comparison with
//! Docker is paired: tasks through the agent, then the same creates, starts and stops straight against the Docker API, in turn. Each line ends with what we aim at and what the Go agent 1.105.1 needed.

#![allow(clippy::print_stdout, reason = "a bench prints its figures")]

mod floor;
#[path = "../../tests/support"]
mod support {
    pub(crate) mod docker;
    pub(crate) mod registry;
}

use ecs_agent::local::{Options, Server, Source, TaskStatus};
use floor::Floor;
use serde_json::json;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use support::docker::{Cluster, TempDir, available, one_agent};
use support::registry::Registry;

const BINARY: &str = env!("CARGO_BIN_EXE_ecs-agent");
const LIMIT: Duration = Duration::from_secs(60);
/// Runs until SIGTERM, and ends at once then.
const STOPPABLE: &str = "trap 'exit 0' TERM; sleep 3600 & wait";
const STARTS: usize = 10;
const TASKS: usize = 15;
/// Containers at once: many tasks of one, and one task of many.
const SHAPES: [Shape; 2] = [
    Shape { name: "100 tasks", tasks: 100, containers: 1, memory: "20 MiB" },
    Shape { name: "50 containers", tasks: 1, containers: 50, memory: "" },
];
const ROUNDS: usize = 7;
/// Calls in flight of the floor: what is quickest depends on the machine, so the quicker one counts.
const AT_ONCE: [usize; 2] = [8, 16];
/// Long enough for connections, buffers and the first inventory to have come and gone.
const IDLE: Duration = Duration::from_secs(5);

/// Tasks that are started at once.
#[derive(Clone, Copy, Debug)]
struct Shape {
    name: &'static str,
    tasks: usize,
    /// Containers of each task.
    containers: usize,
    /// What the agent's memory may be with all of them.
    memory: &'static str,
}

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
    line("binary size", &format!("{:.2} MB", size as f64 / 1e6), "12 MB", "75.7 MB");
    if is_wanted("start") {
        start_up().await;
    }
    let registry = Registry::start(&[]);
    let image = registry.push_busybox("bench/busybox", &[]);
    if is_wanted("one task") {
        one_task(&image).await;
    }
    for shape in SHAPES.into_iter().filter(|shape| is_wanted(shape.name)) {
        many(&image, shape).await;
    }
}

/// Cargo adds options of its own, which name no part.
fn is_wanted(part: &str) -> bool {
    let mut named = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).peekable();
    named.peek().is_none() || named.any(|name| name == part)
}

/// One row of the table.
fn line(what: &str, ours: &str, aim: &str, go: &str) {
    println!("{what:<28} {ours:<34} aim {aim:<12} Go agent {go}");
}

fn mib(kib: u64) -> String {
    format!("{:.2} MiB", kib as f64 / 1024.0)
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
    line("exec to registered", &spread(&mut registered), "50 ms", "260 ms");
    line("exec to introspection", &spread(&mut serving), "", "320 ms");
    idle.sort_unstable();
    line("idle memory (PSS)", &mib(idle[idle.len() / 2]), "9 MiB", "43 MiB");
}

/// Proportional set size of a process.
fn pss_kib(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("the agent's memory map");
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:")).expect("a Pss line");
    line.trim().trim_end_matches("kB").trim().parse().expect("a number")
}

/// Processor time a process has used, in user and kernel mode.
fn cpu(pid: u32) -> Duration {
    /// The kernel's unit of these figures on every Linux port that matters.
    const TICK: Duration = Duration::from_millis(10);
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("the agent's times");
    let after_name = text.rsplit_once(')').expect("a name").1;
    let ticks: u32 =
        after_name.split_whitespace().skip(11).take(2).map(|it| it.parse::<u32>().expect("a number")).sum();
    TICK * ticks
}

async fn one_task(image: &str) {
    let cluster = Cluster::new();
    let server = server(&cluster).await;
    let _agent = Agent::start(&server);
    connected(&server).await;
    let docker = Floor::new(image, &cluster.name);
    let (mut through_agent, mut straight, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..=TASKS {
        let begun = Instant::now();
        let arn = server.run_task(&definition(image)).expect("the task is placed");
        let running = |state: &ecs_agent::local::State| {
            state.task(&arn).filter(|task| task.last_status >= TaskStatus::Running).map(|task| task.last_status)
        };
        let status = server.wait_for("the task to run", LIMIT, running).await.expect("the task runs");
        assert_eq!(status, TaskStatus::Running, "the task runs");
        let agent = begun.elapsed();
        server.stop_task(&arn, "measured").expect("the task is known");
        let begun = Instant::now();
        let container = docker.run().await;
        let floor = begun.elapsed();
        docker.remove(&container).await;
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
    line("payload to RUNNING", &spread(&mut through_agent), "", "370 ms");
    line("  Docker alone", &spread(&mut straight), "", "260 ms");
    ratios.sort_by(f64::total_cmp);
    line("  agent / Docker", &format!("{:.2} (median of pairs)", ratios[ratios.len() / 2]), "1.05", "1.42");
}

fn definition(image: &str) -> serde_json::Value {
    json!({
        "family": "bench",
        "containerDefinitions": [{"name": "main", "image": image, "memory": 32, "command": ["sh", "-c", STOPPABLE]}],
    })
}

/// A task as ECS sends it: more containers than a task definition may have without a raised quota.
fn payload(image: &str, shape: Shape) -> serde_json::Value {
    let container = |nth: usize| {
        json!({
            "name": format!("c{nth}"), "image": image, "memory": 32, "essential": true, "overrides": "{}",
            "command": ["sh", "-c", STOPPABLE], "dockerConfig": {"config": "{}", "hostConfig": "{}"},
        })
    };
    let containers: Vec<_> = (0..shape.containers).map(container).collect();
    json!({"family": "bench", "version": "1", "desiredStatus": "RUNNING", "overrides": "{}", "containers": containers})
}

/// Many at once: until the last one is reported RUNNING, memory with all of them, until the last one is reported STOPPED.
async fn many(image: &str, shape: Shape) {
    let (mut starts, mut stops, mut memory, mut used) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut floors: Vec<(Vec<Duration>, Vec<Duration>)> = AT_ONCE.iter().map(|_| Default::default()).collect();
    for _ in 0..ROUNDS {
        let (started, stopped, pss, cpu) = many_through_the_agent(image, shape).await;
        used.push(cpu);
        starts.push(started);
        stops.push(stopped);
        memory.push(pss);
        let cluster = Cluster::new();
        for (at_once, floor) in AT_ONCE.iter().zip(&mut floors) {
            let (started, stopped) =
                Floor::new(image, &cluster.name).many(shape.tasks * shape.containers, *at_once).await;
            floor.0.push(started);
            floor.1.push(stopped);
        }
    }
    memory.sort_unstable();
    let name = shape.name;
    line(&format!("memory with {name} (PSS)"), &mib(memory[memory.len() / 2]), shape.memory, "");
    let (floor_starts, floor_stops): (Vec<_>, Vec<_>) = floors.into_iter().unzip();
    compare(&format!("{name} to last RUNNING"), &starts, &floor_starts);
    compare(&format!("{name} to last STOPPED"), &stops, &floor_stops);
    line("agent's CPU time for both", &spread(&mut used), "", "");
}

/// Times of ours, by round, against the quicker floor. The machine's pace changes within minutes, so each is compared with that of its
/// own round.
fn compare(what: &str, ours: &[Duration], floors: &[Vec<Duration>]) {
    line(what, &spread(&mut ours.to_vec()), "", "");
    for (at_once, times) in AT_ONCE.iter().zip(floors) {
        line(&format!("  Docker alone, {at_once} at a time"), &spread(&mut times.clone()), "", "");
    }
    let floor = floors.iter().min_by_key(|times| median(times.to_vec())).expect("a floor was measured");
    let mut ratios: Vec<f64> =
        ours.iter().zip(floor).map(|(ours, floor)| ours.as_secs_f64() / floor.as_secs_f64()).collect();
    ratios.sort_by(f64::total_cmp);
    let (least, most) = (ratios[0], ratios[ratios.len() - 1]);
    let text = format!("{:.2} ({least:.2} to {most:.2}, pairs)", ratios[ratios.len() / 2]);
    line("  agent / Docker", &text, "1.05", "");
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

async fn many_through_the_agent(image: &str, shape: Shape) -> (Duration, Duration, u64, Duration) {
    let cluster = Cluster::new();
    let server = server(&cluster).await;
    let agent = Agent::start(&server);
    connected(&server).await;
    // The image is fetched before the clock runs, as it is there for the floor.
    let first = server.run_task(&definition(image)).expect("the task is placed");
    all(&server, std::slice::from_ref(&first), TaskStatus::Running).await;
    server.stop_task(&first, "measured").expect("the task is known");
    all(&server, &[first], TaskStatus::Stopped).await;

    let used = cpu(agent.child.id());
    let begun = Instant::now();
    let arns: Vec<String> =
        (0..shape.tasks).map(|_| server.send_task(payload(image, shape)).expect("the task is sent")).collect();
    all(&server, &arns, TaskStatus::Running).await;
    let started = begun.elapsed();
    tokio::time::sleep(IDLE).await;
    let memory = pss_kib(agent.child.id());
    let begun = Instant::now();
    for arn in &arns {
        server.stop_task(arn, "measured").expect("the task is known");
    }
    all(&server, &arns, TaskStatus::Stopped).await;
    (started, begun.elapsed(), memory, cpu(agent.child.id()) - used)
}

/// Waits until all of them have come exactly this far.
async fn all(server: &Server, arns: &[String], status: TaskStatus) {
    let reached = |state: &ecs_agent::local::State| {
        let statuses = || arns.iter().filter_map(|arn| state.task(arn)).map(|task| task.last_status);
        assert!(statuses().all(|known| known <= status), "a task stopped by itself");
        (statuses().filter(|known| *known == status).count() == arns.len()).then_some(())
    };
    server.wait_for("all tasks to come this far", LIMIT, reached).await.expect("all tasks come this far");
}

/// `median (min to max)` in milliseconds.
fn spread(times: &mut [Duration]) -> String {
    times.sort_unstable();
    let ms = |time: Duration| time.as_secs_f64() * 1000.0;
    format!("{:.1} ms ({:.1} to {:.1})", ms(times[times.len() / 2]), ms(times[0]), ms(times[times.len() - 1]))
}
