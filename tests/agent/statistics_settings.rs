//! The settings of statistics, telemetry and health checks, from the variable to what ECS and containers see.

use super::rig::{FOREVER, LIMIT, Plan, Rig, shell};
use super::statistics::ask;
use ecs_local::{Record, Source, State, TaskStatus};
use ecs_testing::wait::until;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// Time for the next publication, which comes every 20 seconds.
const PUBLISHED: Duration = Duration::from_secs(60);

/// A task of one container that runs until it is stopped. Returns its ARN and Docker's id of the container.
async fn run(rig: &Rig) -> (String, String) {
    let arn = rig.server.run_task(&super::rig::one_container(&rig.image(), FOREVER)).unwrap();
    let task = rig.task(&arn, TaskStatus::Running).await;
    (arn, task.container("main").unwrap().runtime_id.clone().unwrap())
}

/// The next message of this kind over TCS that the condition holds for, after everything up to now.
async fn published(rig: &Rig, kind: &str, is_it: impl Fn(&Value) -> bool) -> Value {
    let after = rig.server.read(|state| state.records().last().map_or(0, |record| record.number));
    let is_new = |record: &&Record| {
        record.number > after && record.source == Source::TcsIn && record.name == kind && is_it(&record.body)
    };
    let found = |state: &State| state.records().find(is_new).map(|record| record.body.clone());
    rig.server.wait_for(kind, PUBLISHED, found).await.unwrap()
}

/// When the first readings were seen, counted from when the container was known to run.
async fn readings(id: &str, wanted: usize) -> Vec<Duration> {
    let (began, mut last, mut found) = (Instant::now(), None, Vec::new());
    until("readings", 2 * LIMIT, async || {
        let read = ask(id, "v4", "/stats").1["read"].as_str().map(str::to_owned);
        if read.is_some() && read != last {
            (last, ()) = (read, found.push(began.elapsed()));
        }
        (found.len() == wanted).then_some(())
    })
    .await;
    found
}

/// The longest and the shortest time between two.
fn gaps(times: &[Duration]) -> (Duration, Duration) {
    let gaps = times.windows(2).map(|pair| pair[1] - pair[0]);
    (gaps.clone().min().unwrap(), gaps.max().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn counters_are_read_as_seldom_as_the_operator_wants() {
    let environment = [("ECS_POLL_METRICS", "true"), ("ECS_POLLING_METRICS_WAIT_DURATION", "5s")];
    let plan = Plan { environment: &environment, ..Plan::default() };
    let Some(rig) = Rig::start("polling", plan).await else { return };
    let (arn, id) = run(&rig).await;
    let times = readings(&id, 4).await;
    assert!(times[0] < Duration::from_secs(4), "the first one does not wait: {times:?}");
    // The second one may come at any time: the other containers' turn.
    let (shortest, largest) = gaps(&times[1..]);
    assert!(shortest >= Duration::from_secs(4) && largest <= Duration::from_secs(9), "{times:?}");
    let samples = |message: &Value| {
        let task = message["taskMetrics"].as_array()?.iter().find(|task| task["taskArn"] == arn)?;
        task["containerMetrics"][0]["memoryStatsSet"]["sampleCount"].as_u64()
    };
    published(&rig, "PublishMetricsRequest", |message| samples(message).is_some()).await;
    let message = published(&rig, "PublishMetricsRequest", |message| samples(message).is_some()).await;
    assert!((2..=5).contains(&samples(&message).unwrap()), "20 seconds have four readings: {message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_time_between_readings_counts_only_with_polling() {
    let environment = [("ECS_POLLING_METRICS_WAIT_DURATION", "20s")];
    let plan = Plan { environment: &environment, ..Plan::default() };
    let Some(rig) = Rig::start("no polling", plan).await else { return };
    let (_, id) = run(&rig).await;
    let times = readings(&id, 5).await;
    assert!(gaps(&times).1 < Duration::from_secs(4), "{times:?}");
}

/// Without metrics and without the offer of health checks: ECS still hears that the instance lives, and the health of a container that
/// it sends a health check for all the same.
#[tokio::test(flavor = "multi_thread")]
async fn metrics_and_health_checks_can_be_turned_off() {
    let offer = "ecs.capability.container-health-check";
    let offers = |rig: &Rig| {
        rig.server.read(|state| {
            let registered = state.records().find(|record| record.name == "RegisterContainerInstance").unwrap();
            let attributes = registered.body["attributes"].as_array().unwrap();
            attributes.iter().any(|attribute| attribute["name"] == offer)
        })
    };
    {
        let Some(rig) = Rig::start("health checks on", Plan::default()).await else { return };
        assert!(offers(&rig));
    }
    let environment = [("ECS_DISABLE_METRICS", "true"), ("ECS_DISABLE_DOCKER_HEALTH_CHECK", "true")];
    let plan = Plan { environment: &environment, ..Plan::default() };
    let rig = Rig::start("health checks off", plan).await.unwrap();
    assert!(!offers(&rig));
    let mut container = shell("main", &rig.image(), FOREVER);
    container["healthCheckType"] = json!("docker");
    let check = json!({"Healthcheck": {"Test": ["CMD-SHELL", "true"], "Interval": 1_000_000_000, "Retries": 1}});
    container["dockerConfig"] = json!({"config": check.to_string(), "version": "1.17"});
    let task = json!({"family": "test", "version": "1", "desiredStatus": "RUNNING", "networkMode": "bridge",
        "containers": [container]});
    let arn = rig.server.send_task(task).unwrap();
    let task = rig.task(&arn, TaskStatus::Running).await;
    let id = task.container("main").unwrap().runtime_id.clone().unwrap();
    let health = |message: &Value| message["tasks"][0]["containers"][0]["healthStatus"] == "HEALTHY";
    let message = published(&rig, "PublishHealthRequest", health).await;
    assert_eq!(message["tasks"][0]["taskArn"], json!(arn));
    let message = published(&rig, "PublishMetricsRequest", |_| true).await;
    assert_eq!((&message["metadata"]["idle"], message.get("taskMetrics")), (&json!(true), None), "{message}");
    let unable = json!(format!("Unable to get container stats for: {id}"));
    assert_eq!(ask(&id, "v4", "/stats"), (500, unable));
}
