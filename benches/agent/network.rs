//! A task with a network interface of its own, from its payload to RUNNING, against the same containers made by hand: Docker creates
//! and starts the pause container and the other one, and two calls of `ip` prepare the network in between. The device is there
//! before the clock runs, in both cases, as one that ECS has attached.

use super::process::Agent;
use super::{
    Floor, LIMIT, STOPPABLE, TASKS, connected, control_groups_of, id_of, line, remove_control_groups, server, spread,
};
use ecs_local::{Server, Source, State, TaskStatus};
use ecs_testing::docker::Cluster;
use serde_json::json;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The bridge to which the devices of tasks made by hand lead.
const BRIDGE: &str = "ecs-bench";
/// The image that the agent has made for its own pause containers.
const PAUSE: &str = "amazon/amazon-ecs-pause:0.1.0";

pub(crate) async fn network(image: &str) {
    let cluster = Cluster::new();
    let server = server(&cluster).await;
    let agent = Agent::start_with(&server, true, &[("ECS_ENABLE_TASK_ENI", "true")]);
    connected(&server).await;
    let docker = Floor::new(image, &cluster.name);
    ip(&[], "link add ecs-bench type bridge\naddress add 198.19.0.1/16 dev ecs-bench\nlink set ecs-bench up\n");
    let (mut ids, groups) = control_groups_of(TASKS + 1);
    let (mut through_agent, mut by_hand, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for (round, group) in groups.iter().enumerate() {
        let (arn, agent) = through_the_agent(&server, image).await;
        let hand = made_by_hand(&docker, group, round).await;
        ids.extend(id_of(&arn));
        if round == 0 {
            continue; // warm-up: the first task fetches the image, and makes that of the pause container
        }
        through_agent.push(agent);
        by_hand.push(hand);
        ratios.push(agent.as_secs_f64() / hand.as_secs_f64());
    }
    ip(&[], "link delete ecs-bench\n");
    drop((agent, cluster));
    remove_control_groups(&ids);
    line("awsvpc: payload to RUNNING", &spread(&mut through_agent), "", "");
    line("  by hand", &spread(&mut by_hand), "", "");
    ratios.sort_by(f64::total_cmp);
    line("  agent / by hand", &format!("{:.2} (median of pairs)", ratios[ratios.len() / 2]), "1.05", "");
}

/// Runs one task, and stops it. Returns its ARN, and the time from its payload to its report of RUNNING, as the control plane saw them.
async fn through_the_agent(server: &Server, image: &str) -> (String, Duration) {
    let definition = json!({
        "family": "bench", "networkMode": "awsvpc",
        "containerDefinitions": [{"name": "main", "image": image, "memory": 32, "command": ["sh", "-c", STOPPABLE]}],
    });
    let last = |state: &State| state.records().map(|record| record.number).max().unwrap_or_default();
    let before = server.read(last);
    let arn = server.run_task(&definition).expect("the task is placed");
    let reached = |status: TaskStatus| {
        let arn = arn.clone();
        move |state: &State| state.task(&arn).filter(|task| task.last_status >= status).map(|task| task.last_status)
    };
    let status = server.wait_for("the task to run", LIMIT, reached(TaskStatus::Running)).await.expect("the task runs");
    assert_eq!(status, TaskStatus::Running, "the task runs");
    let took = server.read(|state| {
        let new = || state.records().filter(|record| record.number > before);
        let sent = new().find(|record| record.source == Source::AcsOut && record.name == "PayloadMessage");
        let is_report = |body: &serde_json::Value| body["status"] == "RUNNING" && body["task"] == arn.as_str();
        let reported = new().find(|record| record.name == "SubmitTaskStateChange" && is_report(&record.body));
        reported.expect("a report").at - sent.expect("a payload").at
    });
    server.stop_task(&arn, "measured").expect("the task is known");
    server.wait_for("the task to stop", LIMIT, reached(TaskStatus::Stopped)).await.expect("the task stops");
    (arn, Duration::from_secs_f64(took))
}

async fn made_by_hand(docker: &Floor, group: &str, round: usize) -> Duration {
    let (device, outside, link) = (format!("benchi{round}"), format!("bencho{round}"), format!("benchl{round}"));
    ip(
        &[],
        &format!(
            "link add {device} type veth peer name {outside}\nlink set {outside} master {BRIDGE}\nlink set {outside} up\n"
        ),
    );
    let begun = Instant::now();
    let pause = docker.create(group, &json!({"Image": PAUSE, "HostConfig": {"NetworkMode": "none"}})).await;
    let pid = docker.pid(&pause).await.to_string();
    ip(
        &[],
        &format!(
            "link set {device} netns {pid}\nlink add {link} type veth peer name ecs-eth0 netns {pid}\n\
             link set {link} master ecs-bridge\nlink set {link} up\n"
        ),
    );
    let nth = round + 2;
    ip(
        &["nsenter", "-t", &pid, "-n"],
        &format!(
            "link set {device} name eth0\naddress add 198.19.1.{nth}/16 dev eth0\nlink set eth0 up\n\
             route add default via 198.19.0.1 dev eth0\naddress add 169.254.175.{nth}/22 dev ecs-eth0\nlink set ecs-eth0 up\n\
             route add 169.254.170.2/32 dev ecs-eth0\n"
        ),
    );
    let body = json!({"HostConfig": {"NetworkMode": format!("container:{pause}")}, "Cmd": ["sh", "-c", STOPPABLE]});
    let main = docker.create(group, &body).await;
    let took = begun.elapsed();
    docker.remove(&main).await;
    docker.remove(&pause).await;
    took
}

/// Carries out these commands of `ip`, by one process, after the words of `before`.
fn ip(before: &[&str], commands: &str) {
    let words = [before, &["ip", "-batch", "-"]].concat();
    let mut child = Command::new(words[0]).args(&words[1..]).stdin(Stdio::piped()).spawn().expect("ip starts");
    child.stdin.take().expect("its input").write_all(commands.as_bytes()).expect("it reads");
    assert!(child.wait().expect("its end").success(), "{commands}");
}
