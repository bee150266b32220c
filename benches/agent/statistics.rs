//! What watching containers costs: processor time of the agent and of Docker for a minute with many tasks that do nothing, with
//! metrics and without, and the memory. The control plane takes the telemetry.

use super::process::{Agent, cpu, pss_kib};
use super::{all, connected, definition, id_of, line, mib, remove_control_groups, server};
use ecs_local::TaskStatus;
use ecs_testing::docker::{Cluster, docker};
use std::time::Duration;

/// How long each agent is measured.
const MINUTE: Duration = Duration::from_secs(60);
/// Long enough for Docker to settle after the starts, and for the agent to have published once.
const SETTLE: Duration = Duration::from_secs(25);
const TASKS: usize = 50;
const MANY_TASKS: usize = 200;
/// Pairs with metrics and without.
const ROUNDS: usize = 2;

/// What a minute took.
#[derive(Clone, Copy, Debug, Default)]
struct Minute {
    agent: Duration,
    docker: Duration,
    /// The agent's memory at its end.
    pss_kib: u64,
}

/// Prints the costs of statistics.
pub(crate) async fn statistics(image: &str) {
    docker(&["pull", "--quiet", image]);
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        without.push(minute(image, TASKS, false).await);
        with.push(minute(image, TASKS, true).await);
    }
    let many = minute(image, MANY_TASKS, true).await;
    let seconds = |name: &str, minutes: &[Minute], part: fn(&Minute) -> Duration, target: &str, go: &str| {
        let each: Vec<String> = minutes.iter().map(|it| format!("{:.2}", part(it).as_secs_f64())).collect();
        line(name, &format!("{} s/min", each.join(", ")), target, go);
    };
    seconds("agent, 50 tasks", &with, |it| it.agent, "0.15", "0.7 to 1.0");
    seconds("  without metrics", &without, |it| it.agent, "", "");
    seconds("Docker, 50 tasks", &with, |it| it.docker, "", "1.8 to 3.8");
    seconds("  without metrics", &without, |it| it.docker, "", "about 1.0");
    let sum =
        |minutes: &[Minute], part: fn(&Minute) -> Duration| minutes.iter().map(part).sum::<Duration>().as_secs_f64();
    let ratio = sum(&with, |it| it.docker) / sum(&without, |it| it.docker);
    line("  with / without", &format!("{ratio:.2}"), "0.9 to 1.1", "");
    line("memory with 50 tasks (PSS)", &mib(with[ROUNDS - 1].pss_kib), "12 MiB", "57 MiB");
    seconds("agent, 200 tasks", &[many], |it| it.agent, "", "");
    let ratio = many.agent.as_secs_f64() * ROUNDS as f64 / sum(&with, |it| it.agent);
    line("  of that with 50", &format!("{ratio:.1} times"), "4", "");
    line("memory with 200 tasks (PSS)", &mib(many.pss_kib), "", "");
}

/// A minute with that many tasks.
async fn minute(image: &str, tasks: usize, has_metrics: bool) -> Minute {
    let cluster = Cluster::new();
    let server = server(&cluster).await;
    let agent =
        Agent::start_with(&server, true, &[("ECS_DISABLE_METRICS", if has_metrics { "false" } else { "true" })]);
    connected(&server).await;
    let arns: Vec<String> =
        (0..tasks).map(|_| server.run_task(&definition(image)).expect("the task is placed")).collect();
    all(&server, &arns, TaskStatus::Running).await;
    tokio::time::sleep(SETTLE).await;
    let engine = std::fs::read_to_string("/var/run/docker.pid").expect("Docker's process");
    let (pid, engine) = (agent.child.id(), engine.trim().parse().expect("a number"));
    let before = [cpu(pid), cpu(engine)];
    tokio::time::sleep(MINUTE).await;
    let measured = Minute { agent: cpu(pid) - before[0], docker: cpu(engine) - before[1], pss_kib: pss_kib(pid) };
    arns.iter().for_each(|arn| server.stop_task(arn, "measured").expect("the task is known"));
    all(&server, &arns, TaskStatus::Stopped).await;
    drop((agent, cluster));
    remove_control_groups(&arns.iter().filter_map(|arn| id_of(arn)).collect::<Vec<_>>());
    measured
}
