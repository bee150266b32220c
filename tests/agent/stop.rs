//! SIGTERM in every phase: the agent ends with 0, and soon; containers run on.

use super::rig::{FOREVER, LIMIT, Plan, Rig, one_container};
use ecs_local::TaskStatus;
use ecs_testing::docker::inspect;
use ecs_testing::wait::until;
use std::net::TcpListener;
use std::time::{Duration, Instant};

/// The time limit of the stop of an agent with nothing to do.
const IDLE: Duration = Duration::from_millis(300);
/// The same for an agent that starts, or works on something.
const BUSY: Duration = Duration::from_secs(1);
/// A busy machine gets so many attempts to meet a limit.
const ATTEMPTS: usize = 4;

/// Starts the agent, waits until it is in a phase, and stops it, until that takes no longer than the limit.
async fn stops_within(rig: &mut Rig, limit: Duration, phase: &str, is_there: impl AsyncFn(&Rig)) {
    let mut took = Vec::new();
    for _ in 0..ATTEMPTS {
        rig.start_agent();
        is_there(rig).await;
        let began = Instant::now();
        assert_eq!(rig.terminate().code(), Some(0), "{phase}: {}", rig.log());
        took.push(began.elapsed());
        if took.last() <= Some(&limit) {
            return;
        }
    }
    panic!("{phase}: at most {limit:?} was expected: {took:?}\n{}", rig.log());
}

async fn logs(rig: &Rig, what: &str) {
    until(what, LIMIT, async || rig.log().contains(what).then_some(())).await;
}

/// Sets a variable for this phase only.
fn with(rig: &mut Rig, name: &str, value: &str) {
    std::fs::remove_file(rig.log_path()).unwrap_or_default();
    rig.environment.push((name.to_owned(), value.to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_during_the_start_takes_a_second_at_most() {
    let Some(mut rig) = Rig::without_agent("stop while it starts", Plan::default()).await else { return };
    // What it waits for accepts connections and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", silent.local_addr().unwrap());
    let phases = [
        ("AWS_EC2_METADATA_SERVICE_ENDPOINT", address.as_str(), "Loading configuration"),
        ("DOCKER_HOST", "unix:///nonexistent/docker.sock", "DOCKER_HOST"),
        ("ECS_BACKEND_HOST", address.as_str(), "Starting Amazon ECS Agent"),
    ];
    for (name, value, line) in phases {
        with(&mut rig, name, value);
        stops_within(&mut rig, BUSY, line, async |rig| {
            logs(rig, line).await;
            tokio::time::sleep(Duration::from_millis(500)).await;
        })
        .await;
        rig.environment.pop();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_takes_a_third_of_a_second_when_nothing_happens() {
    let Some(mut rig) = Rig::start("stop when idle", Plan::default()).await else { return };
    let arn = rig.server.run_task(&one_container(&rig.image(), FOREVER)).unwrap();
    let task = rig.task(&arn, TaskStatus::Running).await;
    let id = task.container("main").unwrap().runtime_id.clone().unwrap();
    let started = inspect(&id)["State"]["StartedAt"].clone();
    rig.terminate();
    stops_within(&mut rig, IDLE, "idle", async |rig| {
        rig.registered().await;
        tokio::time::sleep(Duration::from_secs(1)).await; // the inventory after the start is over
    })
    .await;
    let state = &inspect(&id)["State"];
    assert!(state["Running"] == true && state["StartedAt"] == started, "{state}");
}

/// Docker waits for half a minute before it kills the container. The next agent sees how that ended.
#[tokio::test(flavor = "multi_thread")]
async fn a_stop_does_not_wait_for_the_stop_of_a_container() {
    let plan = Plan { environment: &[("ECS_CONTAINER_STOP_TIMEOUT", "30s")], ..Plan::default() };
    let Some(mut rig) = Rig::start("stop while it stops", plan).await else { return };
    let arn = rig.server.run_task(&one_container(&rig.image(), "trap '' TERM; while :; do sleep 0.1; done")).unwrap();
    rig.task(&arn, TaskStatus::Running).await;
    rig.terminate();
    rig.server.stop_task(&arn, "enough").unwrap();
    stops_within(&mut rig, BUSY, "a container is stopped", async |rig| {
        rig.registered().await;
        tokio::time::sleep(Duration::from_secs(3)).await;
    })
    .await;
    rig.start_agent();
    let task = rig.task(&arn, TaskStatus::Stopped).await;
    assert_eq!(task.container("main").unwrap().exit_code, Some(137));
}
