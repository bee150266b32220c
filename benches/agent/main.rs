//! The whole agent: size, start-up, memory, and one task, a hundred tasks and a task of fifty containers against what Docker
//! alone needs, measured in the same run. Credentials of roles while tasks start, against a bare server (see `credentials`).
//! What watching containers costs (see `statistics`). A task with a network interface of its own (see `network`).
//!
//! `cargo bench --bench agent`, and with `--target x86_64-unknown-linux-musl` for the static binary. After `--`, name the parts
//! to run (`"50 containers"`); without names, all parts run. Needs what the agent's tests need (`./tests/run` installs it). For
//! the comparison with Docker, tasks through the agent alternate with the same creates, starts and stops directly through the
//! Docker API (see `floor`). `BENCH_ROUNDS` is the number of rounds: the speed of a small machine changes by a tenth or more, so
//! the standard error is printed. Each line ends with the target and with the value of the Go agent 1.105.1.
//! `BENCH_AGENT` names another program of the agent, such as that of an earlier version.

#![allow(clippy::print_stdout, reason = "a bench prints its figures")]

mod credentials;
mod floor;
mod network;
mod process;
mod statistics;

use ecs_local::{Options, Server, Source, TaskStatus};
use ecs_testing::docker::{Cluster, available, control_groups, docker, one_agent, unique};
use ecs_testing::registry::Registry;
use floor::Floor;
use process::{Agent, busy, cpu, program, pss_kib};
use serde_json::json;
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(60);
/// A command that runs until SIGTERM and then ends at once.
const STOPPABLE: &str = "trap 'exit 0' TERM; sleep 3600 & wait";
const STARTS: usize = 10;
const TASKS: usize = 15;
/// Containers at once: many tasks of one, and one task of many.
const SHAPES: [Shape; 2] = [
    Shape { name: "100 tasks", tasks: 100, containers: 1, memory: "20 MiB" },
    Shape { name: "50 containers", tasks: 1, containers: 50, memory: "" },
];
/// The default of `BENCH_ROUNDS`.
const ROUNDS: usize = 10;
/// Concurrent calls of Docker alone: 16 were not faster on two processors.
const AT_ONCE: usize = 8;
/// Long enough for the connections, the buffers and the first inventory to settle.
const IDLE: Duration = Duration::from_secs(5);

/// Tasks that are started at once.
#[derive(Clone, Copy, Debug)]
struct Shape {
    name: &'static str,
    tasks: usize,
    /// Containers of each task.
    containers: usize,
    /// The target for the agent's memory with all of them.
    memory: &'static str,
}

/// The times to start and to stop many containers.
#[derive(Clone, Copy, Debug)]
struct Pace {
    started: Duration,
    /// The processor time that the whole machine has used. It varies less than the elapsed time.
    work: Duration,
    stopped: Duration,
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.iter().position(|argument| argument == credentials::ECHO) {
        Some(at) => credentials::echo(arguments[at + 1].parse().expect("a size")),
        None => measure(),
    }
}

#[tokio::main]
async fn measure() {
    if !available("the agent's bench") {
        return;
    }
    ecs_agent::aws::install_tls();
    // As in the tests, one agent at a time runs on a host, because each needs port 51678.
    let _one_agent = one_agent();
    let size = std::fs::metadata(program()).expect("the binary is there").len();
    line("binary size", &format!("{:.2} MB", size as f64 / 1e6), "12 MB", "75.7 MB");
    if is_wanted("start") {
        start_up().await;
    }
    let registry = Registry::start(&[]);
    let image = registry.push_busybox("bench/busybox", &[]);
    if is_wanted("one task") {
        one_task(&image).await;
    }
    if is_wanted("awsvpc") {
        network::network(&image).await;
    }
    if is_wanted("credentials") {
        credentials::credentials(&image).await;
    }
    if is_wanted("statistics") {
        statistics::statistics(&image).await;
    }
    for shape in SHAPES.into_iter().filter(|shape| is_wanted(shape.name)) {
        many(&image, shape).await;
    }
}

/// The parts to run, without the options that Cargo adds.
fn is_wanted(part: &str) -> bool {
    let mut named = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).peekable();
    named.peek().is_none() || named.any(|name| name == part)
}

/// One row of the table.
fn line(what: &str, ours: &str, target: &str, go: &str) {
    println!("{what:<28} {ours:<34} target {target:<12} Go agent {go}");
}

fn mib(kib: u64) -> String {
    format!("{:.2} MiB", kib as f64 / 1024.0)
}

async fn server(cluster: &Cluster) -> Server {
    Server::start(Options { cluster: cluster.name.clone(), ..Options::default() }).await.expect("a control plane")
}

async fn connected(server: &Server) {
    let connected = |state: &ecs_local::State| state.records().any(|r| r.source == Source::AcsConnect).then_some(());
    server.wait_for("the agent to connect", LIMIT, connected).await.expect("the agent connects");
}

async fn start_up() {
    // In a network namespace of its own, the agent may make its rules, which takes a dozen programs.
    let apart = std::env::var("ECS_TEST_DOCKER_NETWORK").is_ok_and(|namespace| !namespace.is_empty());
    let (mut registered, mut serving, mut idle) = (Vec::new(), Vec::new(), Vec::new());
    let mut with_rules = Vec::new();
    let starts = if apart { 2 * STARTS } else { STARTS };
    for start in 0..starts {
        let makes_rules = apart && start % 2 == 1;
        let cluster = Cluster::new();
        let server = server(&cluster).await;
        let begun = Instant::now();
        let agent =
            Agent::start_with(&server, true, &[("ECS_MANAGE_FIREWALL", if makes_rules { "true" } else { "false" })]);
        let call =
            |state: &ecs_local::State| state.records().any(|r| r.name == "RegisterContainerInstance").then_some(());
        server.wait_for("a registration", LIMIT, call).await.expect("the agent registers");
        if makes_rules {
            with_rules.push(begun.elapsed());
            continue;
        }
        registered.push(begun.elapsed());
        // Before the registration a connection is closed without an answer.
        while reqwest::get("http://127.0.0.1:51678/v1/metadata").await.is_err() {
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
    if apart {
        line("  with firewall rules", &spread(&mut with_rules), "50 ms", "");
    }
    line("exec to introspection", &spread(&mut serving), "", "320 ms");
    idle.sort_unstable();
    line("idle memory (PSS)", &mib(idle[idle.len() / 2]), "9 MiB", "43 MiB");
}

async fn one_task(image: &str) {
    let cluster = Cluster::new();
    let server = server(&cluster).await;
    let agent = Agent::start(&server);
    connected(&server).await;
    let docker = Floor::new(image, &cluster.name);
    let (mut ids, groups) = control_groups_of(TASKS + 1);
    let (mut through_agent, mut straight, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for (round, group) in groups.iter().enumerate() {
        let begun = Instant::now();
        let arn = server.run_task(&definition(image)).expect("the task is placed");
        let running = |state: &ecs_local::State| {
            state.task(&arn).filter(|task| task.last_status >= TaskStatus::Running).map(|task| task.last_status)
        };
        let status = server.wait_for("the task to run", LIMIT, running).await.expect("the task runs");
        assert_eq!(status, TaskStatus::Running, "the task runs");
        let agent = begun.elapsed();
        server.stop_task(&arn, "measured").expect("the task is known");
        let begun = Instant::now();
        let container = docker.run(group).await;
        let floor = begun.elapsed();
        docker.remove(&container).await;
        ids.extend(id_of(&arn));
        if round == 0 {
            continue; // warm-up: the first task fetches the image
        }
        through_agent.push(agent);
        straight.push(floor);
        ratios.push(agent.as_secs_f64() / floor.as_secs_f64());
        let stopped = |state: &ecs_local::State| {
            state.task(&arn).filter(|task| task.last_status == TaskStatus::Stopped).map(|_| ())
        };
        server.wait_for("the task to stop", LIMIT, stopped).await.expect("the task stops");
    }
    drop((agent, cluster));
    remove_control_groups(&ids);
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

/// Starts and stops many containers at once. Prints the time until the last task is reported RUNNING, the memory with all of
/// them, and the time until the last one is reported STOPPED. Docker alone is measured before and after each round, because the
/// speed of the machine changes within minutes.
async fn many(image: &str, shape: Shape) {
    let (mut ours, mut memory, mut used) = (Vec::new(), Vec::new(), Vec::new());
    docker(&["pull", "--quiet", image]);
    let mut floors = vec![straight_against_docker(image, shape).await];
    for _ in 0..rounds() {
        let (pace, pss, cpu) = many_through_the_agent(image, shape).await;
        used.push(cpu);
        ours.push(pace);
        memory.push(pss);
        floors.push(straight_against_docker(image, shape).await);
    }
    memory.sort_unstable();
    let name = shape.name;
    line(&format!("memory with {name} (PSS)"), &mib(memory[memory.len() / 2]), shape.memory, "");
    line("agent's CPU time in all", &spread(&mut used), "", "");
    compare(&format!("{name} to last RUNNING"), &ours, &floors, |pace| pace.started);
    compare("  work of the whole machine", &ours, &floors, |pace| pace.work);
    compare(&format!("{name} to last STOPPED"), &ours, &floors, |pace| pace.stopped);
}

async fn straight_against_docker(image: &str, shape: Shape) -> Pace {
    let cluster = Cluster::new(); // takes away what is left of it
    let (ids, groups) = control_groups_of(shape.tasks);
    let pace = Floor::new(image, &cluster.name).many(&groups, shape.containers, AT_ONCE).await;
    remove_control_groups(&ids);
    pace
}

/// Names of that many tasks, and of their control groups as the agent calls them.
fn control_groups_of(tasks: usize) -> (Vec<String>, Vec<String>) {
    let driver = docker(&["info", "--format", "{{.CgroupDriver}}"]);
    let ids: Vec<String> = (0..tasks).map(|_| unique("bench").replace('-', "")).collect();
    let group = |id: &String| match driver.trim() {
        "systemd" => format!("ecstasks-{id}.slice"),
        _ => format!("/ecs/{id}"),
    };
    let groups = ids.iter().map(group).collect();
    (ids, groups)
}

/// Prints the agent's times, and their ratios to the mean of the floors right before and right after each.
fn compare(what: &str, ours: &[Pace], floors: &[Pace], duration: impl Fn(&Pace) -> Duration) {
    let times = |paces: &[Pace]| -> Vec<Duration> { paces.iter().map(&duration).collect() };
    let (ours, floors) = (times(ours), times(floors));
    line(what, &spread(&mut ours.clone()), "", "");
    line("  Docker alone", &spread(&mut floors.clone()), "", "");
    let around = floors.windows(2).map(|two| (two[0] + two[1]).as_secs_f64() / 2.0);
    let ratios: Vec<f64> = ours.iter().zip(around).map(|(ours, floor)| ours.as_secs_f64() / floor).collect();
    let (mean, error) = mean_and_error(&ratios);
    line("  agent / Docker", &format!("{mean:.3} ± {error:.3} ({} rounds)", ratios.len()), "1.05", "");
}

/// The mean, and its standard error.
fn mean_and_error(values: &[f64]) -> (f64, f64) {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (count - 1.0).max(1.0);
    (mean, (variance / count).sqrt())
}

fn rounds() -> usize {
    std::env::var("BENCH_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(ROUNDS).max(1)
}

async fn many_through_the_agent(image: &str, shape: Shape) -> (Pace, u64, Duration) {
    let cluster = Cluster::new();
    let server = server(&cluster).await;
    let agent = Agent::start(&server);
    connected(&server).await;
    // The image is fetched before the clock runs, as it is there for the floor.
    let first = server.run_task(&definition(image)).expect("the task is placed");
    all(&server, std::slice::from_ref(&first), TaskStatus::Running).await;
    server.stop_task(&first, "measured").expect("the task is known");
    all(&server, std::slice::from_ref(&first), TaskStatus::Stopped).await;

    let used = cpu(agent.child.id());
    let (begun, worked) = (Instant::now(), busy());
    let arns: Vec<String> =
        (0..shape.tasks).map(|_| server.send_task(payload(image, shape)).expect("the task is sent")).collect();
    all(&server, &arns, TaskStatus::Running).await;
    let (started, work) = (begun.elapsed(), busy() - worked);
    tokio::time::sleep(IDLE).await;
    let memory = pss_kib(agent.child.id());
    let begun = Instant::now();
    for arn in &arns {
        server.stop_task(arn, "measured").expect("the task is known");
    }
    all(&server, &arns, TaskStatus::Stopped).await;
    let stopped = begun.elapsed();
    let cpu = cpu(agent.child.id()) - used;
    drop((agent, cluster));
    remove_control_groups(&arns.iter().chain([&first]).filter_map(|arn| id_of(arn)).collect::<Vec<_>>());
    (Pace { started, work, stopped }, memory, cpu)
}

/// The last part of an ARN.
fn id_of(arn: &str) -> Option<String> {
    arn.rsplit('/').next().map(str::to_owned)
}

/// Removes the control groups of ended tasks, which a killed agent leaves behind: thousands of them would make the next rounds
/// slower. (systemd removes its own.)
fn remove_control_groups(ids: &[String]) {
    for group in ids.iter().flat_map(|id| control_groups(&format!("/ecs/{id}"))) {
        std::fs::remove_dir(&group).expect("nothing is left in it");
    }
}

/// Waits until all tasks have exactly this status.
async fn all(server: &Server, arns: &[String], status: TaskStatus) {
    let reached = |state: &ecs_local::State| {
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
