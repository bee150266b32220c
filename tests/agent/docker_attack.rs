//! A Docker daemon that misbehaves while tasks run: it is down, hangs, is slow, breaks off or sends invalid answers. A period in
//! which it does one of these is a *storm*.
//!
//! Whatever the daemon does, no report is false: no `STOPPED` for a container that runs, no `RUNNING` for one that does not. The
//! agent keeps answering on its introspection port, does not send the daemon too many calls, and recovers by itself.
//!
//! `ECS_AGENT_TEST_STORMS_ALONE=12` tests every kind of storm alone, `ECS_AGENT_TEST_STORMS` is the number of random storms in a
//! row, and `ECS_AGENT_TEST_SEED` repeats a random sequence.

use super::event_log::{EventLog, Reports, check_task};
use super::rig::{FOREVER, LIMIT, Plan, Rig, one_container, shell};
use ecs_local::TaskStatus;
use ecs_testing::dice::{Dice, count};
use ecs_testing::docker::docker;
use ecs_testing::docker_proxy::{Behaviour, DockerProxy};
use ecs_testing::wait::until;
use serde_json::json;
use std::time::{Duration, Instant};

/// Maximum number of calls to Docker in a second. An agent at rest makes none.
const CALLS_PER_SECOND: usize = 20;
/// Time limit until everything is reported after a storm: the longest wait between two tries, and some time for a loaded
/// machine.
const RECOVERY: Duration = Duration::from_secs(120);

const PAGE: Behaviour = Behaviour::Says("HTTP/1.1 502 Bad Gateway\r\nconnection: close\r\n\r\n<html>502</html>");
const NOBODY: Behaviour =
    Behaviour::Says("HTTP/1.1 404 Not Found\r\nconnection: close\r\n\r\n{\"message\":\"page not found\"}");
const NOTHING: Behaviour = Behaviour::Says("HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
const EMPTY_OBJECT: Behaviour = Behaviour::Says("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{}");
const EMPTY_LIST: Behaviour = Behaviour::Says("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n[]");
const CHUNKS: Behaviour = Behaviour::Says("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n");

/// The kinds of storm. The first [`ALONE`] are also tested one by one.
const STORMS: [Behaviour; 12] = [
    Behaviour::Down,
    Behaviour::Hang,
    Behaviour::Slow(100),
    EMPTY_OBJECT,
    EMPTY_LIST,
    NOBODY,
    PAGE,
    NOTHING,
    CHUNKS,
    Behaviour::Cut(0),
    Behaviour::Cut(60),
    Behaviour::Cut(400),
];
const ALONE: u64 = 5;

fn environment(endpoint: &str) -> [(&'static str, &str); 4] {
    [
        ("DOCKER_HOST", endpoint),
        ("ECS_ENGINE_TASK_CLEANUP_WAIT_DURATION", "2s"),
        ("ECS_CONTAINER_STOP_TIMEOUT", "2s"),
        ("ECS_IMAGE_PULL_BEHAVIOR", "prefer-cached"),
    ]
}

/// An agent behind the proxy, and an image that is on this host already.
async fn scene(test: &str) -> Option<(DockerProxy, Rig, String)> {
    let proxy = DockerProxy::start();
    let endpoint = proxy.endpoint();
    let rig = Rig::start(test, Plan { environment: &environment(&endpoint), ..Plan::default() }).await?;
    let image = rig.image();
    docker(&["pull", &image]);
    Some((proxy, rig, image))
}

/// The container of a task that runs, by its Docker id.
async fn running(rig: &Rig, arn: &str) -> String {
    rig.task(arn, TaskStatus::Running).await.container("main").unwrap().runtime_id.clone().unwrap()
}

async fn rest(rig: &Rig) {
    until("every task to be reported stopped", RECOVERY, async || {
        let alive = |task: &ecs_local::Task| task.last_status != TaskStatus::Stopped;
        (!rig.server.read(|state| state.tasks().iter().any(alive))).then_some(())
    })
    .await;
    until("Docker to be empty", RECOVERY, async || rig.containers().is_empty().then_some(())).await;
    until("the state to be empty", RECOVERY, async || {
        let shown = rig.introspect("/v1/tasks").await;
        shown["Tasks"].as_array().is_some_and(Vec::is_empty).then_some(())
    })
    .await;
}

/// Checks the laws of [`check_task`] for all tasks.
fn check_all(rig: &Rig, event_log: &EventLog, reports: &mut Reports) {
    reports.collect(rig);
    let events = event_log.events();
    rig.server.read(|state| state.tasks().iter().for_each(|task| check_task(task, &events, reports, &[])));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_agent_waits_for_a_daemon_that_is_not_there_yet() {
    let proxy = DockerProxy::start();
    proxy.behave(Behaviour::Down);
    let endpoint = proxy.endpoint();
    let Some(mut rig) =
        Rig::without_agent("docker down", Plan { environment: &environment(&endpoint), ..Plan::default() }).await
    else {
        return;
    };
    rig.start_agent();
    for behaviour in [Behaviour::Down, PAGE, EMPTY_OBJECT] {
        proxy.behave(behaviour);
        let tries = || {
            rig.log().matches("Could not connect to docker daemon").count()
                + rig.log().matches("Could not get supported docker versions.").count()
        };
        let before = tries();
        until("another try", LIMIT, async || (tries() > before).then_some(())).await;
    }
    // As with the Go agent: an agent has no identity before it has registered, and it does not register without Docker.
    assert!(rig.server.read(|state| state.instances().is_empty()), "nothing is promised to ECS without Docker");
    proxy.behave(Behaviour::Clear);
    rig.registered().await;
    let image = rig.image();
    let arn = rig.server.run_task(&one_container(&image, "exit 3")).unwrap();
    assert_eq!(rig.task(&arn, TaskStatus::Stopped).await.container("main").unwrap().exit_code, Some(3));
}

/// Tests one storm with four tasks: one keeps running, one ends during the storm, one begins during it and one is stopped during
/// it.
async fn test_storm(proxy: &DockerProxy, rig: &Rig, image: &str, behaviour: Behaviour) {
    let run = |command: &str| rig.server.run_task(&one_container(image, command)).unwrap();
    let (stays, ends, stopped) = (run(FOREVER), run(FOREVER), run(FOREVER));
    let (stays_id, ends_id) = (running(rig, &stays).await, running(rig, &ends).await);
    running(rig, &stopped).await;
    proxy.behave(behaviour);
    let (began, calls) = (Instant::now(), proxy.seen().len());
    let begins = run("exit 9");
    rig.server.stop_task(&stopped, "in the storm").unwrap();
    docker(&["kill", "--signal", "KILL", &ends_id]);
    until("the storm to pass", LIMIT, async || (began.elapsed() > Duration::from_secs(3)).then_some(())).await;
    rig.introspect("/v1/tasks").await;
    let calls = proxy.seen().len() - calls;
    assert!(calls < 4 * CALLS_PER_SECOND, "{behaviour:?}: {calls} calls in 3 s: {:#?}", proxy.seen());
    assert_eq!(rig.statuses(&stays), ["PENDING", "RUNNING"], "{behaviour:?}: it runs all the time");
    proxy.behave(Behaviour::Clear);
    let code = async |arn: &str| {
        let what = format!("{behaviour:?}: the end of {arn}");
        let ended = until(&what, RECOVERY, async || {
            rig.server.read(|s| s.task(arn).filter(|t| t.last_status == TaskStatus::Stopped).cloned())
        });
        ended.await.container("main").unwrap().exit_code
    };
    assert_eq!(code(&ends).await, Some(137), "{behaviour:?}");
    assert_eq!(code(&begins).await, Some(9), "{behaviour:?}");
    assert!(code(&stopped).await.is_some(), "{behaviour:?}");
    assert_eq!(rig.statuses(&stays), ["PENDING", "RUNNING"], "{behaviour:?}");
    assert_eq!(docker(&["inspect", "--format", "{{.State.Running}}", &stays_id]), "true");
    rig.server.stop_task(&stays, "the end").unwrap();
    assert!(code(&stays).await.is_some(), "{behaviour:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_storm_passes_and_no_report_is_false() {
    let Some((proxy, rig, image)) = scene("storms").await else { return };
    let (event_log, mut reports) = (EventLog::begin(&rig), Reports::default());
    for behaviour in &STORMS[..count("ECS_AGENT_TEST_STORMS_ALONE", ALONE) as usize] {
        test_storm(&proxy, &rig, &image, *behaviour).await;
    }
    rest(&rig).await;
    check_all(&rig, &event_log, &mut reports);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_schedule_of_storms_makes_the_agent_lie() {
    let Some((proxy, rig, image)) = scene("storm schedule").await else { return };
    let mut dice = Dice::thrown("ECS_AGENT_TEST_SEED");
    let (event_log, mut reports) = (EventLog::begin(&rig), Reports::default());
    let (mut endless, mut story) = (Vec::new(), Vec::new());
    for _ in 0..count("ECS_AGENT_TEST_STORMS", 15) {
        let mut roll = |limit: usize| dice.below(limit as u64) as usize;
        for _ in 0..roll(4) {
            let code = 1 + roll(100);
            let (command, is_endless) = match roll(3) {
                0 => (FOREVER.to_owned(), true),
                tenths => (format!("sleep 0.{}; exit {code}", tenths * roll(5)), false),
            };
            let containers = [shell("main", &image, &command)];
            let arn = rig.server.run_task(&json!({"family": "storm", "containerDefinitions": containers})).unwrap();
            if is_endless {
                endless.push(arn);
            }
        }
        if !endless.is_empty() && roll(3) == 0 {
            let chosen = roll(endless.len());
            rig.server.stop_task(&endless.swap_remove(chosen), "by chance").unwrap();
        }
        for behaviour in [STORMS[roll(STORMS.len())], Behaviour::Clear] {
            let (began, length) = (Instant::now(), Duration::from_millis(100 + roll(1_400) as u64));
            story.push((behaviour, length));
            proxy.behave(behaviour);
            until("the behaviour to change", LIMIT, async || (began.elapsed() >= length).then_some(())).await;
        }
        rig.introspect("/v1/tasks").await;
    }
    eprintln!("{story:?}");
    endless.iter().for_each(|arn| rig.server.stop_task(arn, "the end").unwrap());
    rest(&rig).await;
    check_all(&rig, &event_log, &mut reports);
    eprintln!("{} storms, {} tasks", story.len() / 2, rig.server.read(|state| state.tasks().len()));
}
