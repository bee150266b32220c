//! A broken TCS and a restart: tasks do not notice, and telemetry comes back.

use super::footprint::status;
use super::rig::{FOREVER, Plan, Rig, shell};
use super::telemetry::{PUBLISHED, connections, next_publication, published, quick};
use ecs_local::{Fault, Options, Source, State, TaskStatus};
use ecs_testing::docker_proxy::{DockerProxy, Hold};
use ecs_testing::registry::Registry;
use ecs_testing::wait::until;
use serde_json::json;
use std::time::{Duration, Instant};

/// Bytes in the place of a frame. The agent ends the connection by itself, or `cut`: the connection is cut after them.
const INJURIES: [(&str, &[u8], bool); 5] = [
    ("a frame that ends in the middle", b"\x81\x20half", true),
    ("an unknown opcode", &[0x83, 0], false),
    ("a frame of a gibibyte", &[0x82, 127, 0, 0, 0, 0, 0x40, 0, 0, 0], false),
    ("a continuation of nothing", &[0x80, 2, b'{', b'}'], false),
    ("HTTP", b"HTTP/1.1 200 OK\r\n\r\n", false),
];

/// What the health check says of TCS.
async fn telemetry(rig: &Rig) -> String {
    let health = rig.ask("/health").await;
    let mut checks = health["Checks"].as_array().unwrap().iter();
    checks.find(|check| check["Name"] == "telemetry").unwrap()["Text"].as_str().unwrap().to_owned()
}

/// How long a short task lives, from RunTask to its end.
async fn life(rig: &Rig, image: &str, why: &str) -> Duration {
    let began = Instant::now();
    rig.lives_once(image, 3, why).await;
    began.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tcs_that_sends_anything_costs_no_task_and_little() {
    let Some(rig) = Rig::start("telemetry chaos", Plan { options: Some(quick), ..Plan::default() }).await else {
        return;
    };
    let image = rig.image();
    next_publication(&rig, "metrics at first").await;
    life(&rig, &image, "the image is pulled").await;
    let calm = life(&rig, &image, "all is well").await;
    let (memory, log) = (status(rig.pid(), "VmRSS"), rig.log().len());
    for (name, bytes, is_cut) in INJURIES {
        let before = rig.server.read(connections);
        rig.server.send_tcs_bytes(bytes);
        if is_cut {
            tokio::time::sleep(Duration::from_millis(200)).await;
            rig.server.drop_tcs();
        }
        let took = life(&rig, &image, name).await;
        assert!(took <= calm * 3 + Duration::from_secs(2), "{name}: a task takes {took:?}, without it {calm:?}");
        let again = |state: &State| (connections(state) > before).then_some(());
        rig.server.wait_for(name, PUBLISHED, again).await.unwrap_or_else(|error| panic!("{error}\n{}", rig.log()));
    }
    // Half an answer, and 9 MB of nonsense.
    let before = rig.server.read(connections);
    rig.server.fail_next("tcs/publish", 1, &Fault::Truncated);
    let again = |state: &State| (connections(state) > before).then_some(());
    rig.server.wait_for("the next connection", PUBLISHED * 2, again).await.unwrap();
    for _ in 0..90 {
        rig.server.send_tcs_text(&"x".repeat(100_000));
    }
    life(&rig, &image, "while nonsense comes").await;
    next_publication(&rig, "metrics at the end").await;
    let (memory_now, log_now) = (status(rig.pid(), "VmRSS"), rig.log().len());
    assert!(memory_now <= memory + 8 * 1024, "KiB: {memory} before, {memory_now} after");
    assert!(log_now <= log + 64 * 1024, "the log has grown by {} bytes", log_now - log);
    assert!(!rig.log().contains("a part of the agent ended"), "{}", rig.log());
    let health = telemetry(&rig).await;
    assert!(health.starts_with("last message "), "{health}");
}

/// TCS sends nothing by itself.
fn silent(options: &mut Options, _: &Registry) {
    options.heartbeat = Duration::from_secs(3600);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_to_a_silent_tcs_does_not_count() {
    let plan = Plan { options: Some(silent), ..Plan::default() };
    let Some(mut rig) = Rig::without_agent("silent telemetry", plan).await else { return };
    rig.server.fail_next("tcs/publish", 1000, &Fault::Empty);
    rig.start_agent();
    rig.registered().await;
    for count in 1..3 {
        let connected = |state: &State| (connections(state) >= count).then_some(());
        rig.server.wait_for("a connection to TCS", PUBLISHED, connected).await.unwrap();
        // The agent may learn of it a moment later.
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(telemetry(&rig).await, "no message yet", "connection {count}");
        rig.server.drop_tcs();
    }
    rig.server.clear_faults();
    let has_message = async || telemetry(&rig).await.starts_with("last message ").then_some(());
    until("a message of TCS", PUBLISHED, has_message).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_does_not_make_the_instance_idle() {
    let proxy = DockerProxy::start();
    let endpoint = proxy.endpoint();
    let environment = [("DOCKER_HOST", endpoint.as_str())];
    let plan = Plan { environment: &environment, options: Some(quick), ..Plan::default() };
    let Some(mut rig) = Rig::start("telemetry restart", plan).await else { return };
    let definition = json!({"family": "test", "containerDefinitions": [shell("main", &rig.image(), FOREVER)]});
    let arn = rig.server.run_task(&definition).unwrap();
    let task = rig.task(&arn, TaskStatus::Running).await;
    let id = task.container("main").unwrap().runtime_id.clone().unwrap();
    let has_tasks = |after: u64| {
        move |state: &State| {
            let messages = published(state, "PublishMetricsRequest").filter(|record| record.number > after);
            messages.filter(|record| record.body["taskMetrics"].is_array()).map(|record| record.number).next()
        }
    };
    rig.server.wait_for("metrics", PUBLISHED * 2, has_tasks(0)).await.unwrap();
    rig.kill();
    let restart = rig.server.read(|state| state.records().last().map_or(0, |record| record.number));
    // Until Docker has shown the container, the agent has no figures of it.
    let path: &'static str = format!("/containers/{id}/json").leak();
    proxy.hold(vec![path].leak(), Hold::Before);
    rig.start_agent();
    proxy.held().await;
    let found = rig.server.wait_for("metrics after the restart", PUBLISHED * 3, has_tasks(restart)).await;
    let first = found.unwrap_or_else(|error| panic!("{error}\n{}", rig.log()));
    rig.server.read(|state| {
        let between = published(state, "PublishMetricsRequest").filter(|record| record.number > restart);
        let idle: Vec<_> = between.filter(|record| record.body["metadata"]["idle"] == true).collect();
        assert!(idle.is_empty(), "before {first}: {idle:#?}");
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_instance_is_idle_once_docker_has_shown_it() {
    let proxy = DockerProxy::start();
    let endpoint = proxy.endpoint();
    let environment = [("DOCKER_HOST", endpoint.as_str())];
    let plan = Plan { environment: &environment, options: Some(quick), ..Plan::default() };
    let Some(mut rig) = Rig::without_agent("slow inventory", plan).await else { return };
    // The first list shows which other agents have containers here.
    proxy.hold_later(1, &["GET", "/containers/json"], Hold::Before);
    rig.start_agent();
    proxy.held().await;
    rig.registered().await;
    tokio::time::sleep(Duration::from_secs(2)).await; // in which ACS is connected
    proxy.end_held();
    let first = rig.wait("the first message", |state| {
        let mut messages = state.records().filter(|record| record.source == Source::TcsIn);
        messages.next().map(|record| (record.name.clone(), record.body["metadata"]["idle"].clone()))
    });
    assert_eq!(first.await, ("PublishMetricsRequest".to_owned(), json!(true)), "{}", rig.log());
}
