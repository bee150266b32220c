//! Telemetry of a real agent: what ECS gets over TCS, and that a broken TCS costs no task.

use super::health::healthcheck;
use super::port::run;
use super::rig::{FOREVER, LIMIT, Plan, Rig, shell};
use ecs_local::{Fault, Options, Record, Source, State, TaskStatus};
use ecs_testing::docker_proxy::{Behaviour, DockerProxy};
use ecs_testing::registry::Registry;
use ecs_testing::wait::until;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// Time for the next publication, which comes every 20 seconds.
pub(super) const PUBLISHED: Duration = Duration::from_secs(60);

/// ACS and TCS send heartbeats every second.
pub(super) fn quick(options: &mut Options, _: &Registry) {
    options.heartbeat = Duration::from_secs(1);
}

pub(super) fn published<'a>(state: &'a State, kind: &'a str) -> impl Iterator<Item = &'a Record> {
    state.records().filter(move |record| record.source == Source::TcsIn && record.name == kind)
}

/// Why messages were refused.
fn refused(state: &State) -> Vec<&Value> {
    state.records().filter(|record| record.name == "tcs/publish").map(|record| &record.body).collect()
}

pub(super) fn connections(state: &State) -> usize {
    state.records().filter(|record| record.source == Source::TcsConnect).count()
}

pub(super) async fn next_publication(rig: &Rig, why: &str) {
    let after = rig.server.read(|state| state.records().last().map_or(0, |record| record.number));
    let is_new =
        |state: &State| published(state, "PublishMetricsRequest").any(|record| record.number > after).then_some(());
    if let Err(error) = rig.server.wait_for(why, PUBLISHED * 2, is_new).await {
        panic!("{error}\n{}", rig.log());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ecs_sees_the_health_of_containers_and_of_docker() {
    let proxy = DockerProxy::start();
    let endpoint = proxy.endpoint();
    let environment = [("DOCKER_HOST", endpoint.as_str())];
    let plan = Plan { environment: &environment, options: Some(quick), ..Plan::default() };
    let Some(rig) = Rig::start("telemetry", plan).await else { return };
    rig.wait("an idle instance", |state| {
        published(state, "PublishMetricsRequest").any(|record| record.body["metadata"]["idle"] == true).then_some(())
    })
    .await;
    // Twelve tasks: more than one message takes. The container of the first one has no health check.
    let image = rig.image();
    let mut tasks = Vec::new();
    for number in 0..12 {
        let mut container = shell("main", &image, FOREVER);
        if number > 0 {
            let command = if number == 1 { "exit 1" } else { "exit 0" };
            container["healthCheck"] = json!({"command": ["CMD-SHELL", command], "interval": 5, "retries": 1});
        }
        tasks.push(rig.server.run_task(&json!({"family": "test", "containerDefinitions": [container]})).unwrap());
    }
    let expected = |number: usize| match number {
        0 => "UNKNOWN",
        1 => "UNHEALTHY",
        _ => "HEALTHY",
    };
    let seen = |state: &State| {
        let mut pairs = tasks.iter().enumerate().map(|(number, arn)| {
            state.task(arn).is_some_and(|task| task.container("main").unwrap().health_status == expected(number))
        });
        pairs.all(|is_right| is_right).then_some(())
    };
    if let Err(error) = rig.server.wait_for("the health of all tasks", PUBLISHED * 2, seen).await {
        panic!("{error}\n{:#}", rig.server.telemetry()["tasks"]);
    }
    let status = |wanted: &'static str| {
        move |state: &State| {
            let statuses = published(state, "PublishInstanceStatusRequest").map(|record| &record.body["statuses"][0]);
            statuses.last().is_some_and(|status| status["status"] == wanted).then_some(())
        }
    };
    rig.wait("Docker to be well", status("OK")).await;
    proxy.behave(Behaviour::Hang);
    rig.wait("Docker to be impaired", status("IMPAIRED")).await;
    proxy.behave(Behaviour::Clear);
    rig.wait("Docker to be well again", status("OK")).await;
    rig.server.read(|state| {
        assert_eq!(refused(state), Vec::<&Value>::new());
        let health: Vec<_> = published(state, "PublishHealthRequest").collect();
        let parts = health.iter().filter(|record| record.body["metadata"]["fin"] == false);
        for part in parts {
            let id = &part.body["metadata"]["messageId"];
            let all = health.iter().filter(|record| record.body["metadata"]["messageId"] == *id);
            let sizes: Vec<_> = all.map(|record| record.body["tasks"].as_array().unwrap().len()).collect();
            assert_eq!(sizes, [10, 1], "eleven tasks in two messages");
        }
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_tcs_costs_no_task_and_recovers() {
    let Some(mut rig) = Rig::without_agent("telemetry faults", Plan { options: Some(quick), ..Plan::default() }).await
    else {
        return;
    };
    let gone = Fault::Error(400, "InactiveInstanceException".to_owned(), "gone".to_owned());
    // Refused, cut, throttled, an error page, nonsense: each is one attempt.
    for fault in [Fault::ServerError, Fault::Drop, Fault::Throttle, Fault::Page(503), Fault::Malformed] {
        rig.server.fail_next("tcs", 1, &fault);
    }
    rig.start_agent();
    rig.registered().await;
    let image = rig.image();
    rig.lives_once(&image, 3, "while TCS refuses").await;
    let (code, text) = healthcheck("-healthcheck");
    assert_eq!(code, Some(0), "{text}");
    // Five attempts take about 1 + 2 + 4 + 8 + 16 s.
    let connected = |state: &State| (connections(state) > 0).then_some(());
    rig.server.wait_for("TCS after five refusals", PUBLISHED, connected).await.unwrap();
    next_publication(&rig, "metrics after refusals").await;
    // Answers of all kinds, while tasks run.
    for fault in [Fault::Malformed, Fault::Page(200), Fault::Throttle, Fault::ServerError, Fault::Empty, gone] {
        rig.server.fail_next("tcs/publish", 1, &fault);
    }
    rig.server.send_tcs_text("nonsense");
    rig.server.send_tcs_text(r#"{"type":"StopTelemetrySessionMessage","message":{"message":"stop\u001b[2J"}}"#);
    rig.server.send_tcs_text(&"x".repeat(100_000));
    rig.lives_once(&image, 4, "while TCS answers nonsense").await;
    let before = rig.server.read(connections);
    rig.server.drop_tcs();
    rig.server
        .wait_for("another connection", LIMIT, |state| (connections(state) > before).then_some(()))
        .await
        .unwrap();
    rig.server.clear_faults();
    next_publication(&rig, "metrics after nonsense").await;
    rig.server.fail_next("tcs/publish", 1, &Fault::LoseAnswer);
    rig.lives_once(&image, 5, "while TCS cuts").await;
    next_publication(&rig, "metrics after a cut").await;
    let log = rig.log();
    assert!(log.contains("a message of TCS was dropped") && log.contains("Failed to connect to TCS"), "{log}");
    assert!(!log.contains('\u{1b}') && !log.contains("a part of the agent ended"), "{log}");
    assert_eq!(rig.server.read(|state| refused(state).len()), 0, "every message was right");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hanging_tcs_delays_neither_tasks_nor_the_end() {
    let Some(mut rig) = Rig::without_agent("telemetry hangs", Plan { options: Some(quick), ..Plan::default() }).await
    else {
        return;
    };
    rig.server.fail_next("tcs", 100, &Fault::Slow(Duration::from_secs(3600)));
    rig.start_agent();
    rig.registered().await;
    let arn =
        rig.server.run_task(&json!({"family": "test", "containerDefinitions": [shell("main", &rig.image(), FOREVER)]}));
    rig.task(&arn.unwrap(), TaskStatus::Running).await;
    let health = rig.ask("/health").await;
    let check = |name: &str| {
        let checks = health["Checks"].as_array().unwrap();
        checks.iter().find(|check| check["Name"] == name).unwrap()["Text"].as_str().unwrap().to_owned()
    };
    assert_eq!(check("telemetry"), "no message yet");
    assert_eq!(check("task metadata"), "port 51679 is open");
    let tried = async || rig.log().contains("Failed to connect to TCS").then_some(());
    until("the attempt to be given up after 30 s", LIMIT, tried).await;
    let (code, text) = healthcheck("-healthcheck");
    assert_eq!((code, text.trim()), (Some(0), "healthy: running"));
    let status = rig.terminate();
    assert!(status.success(), "{status}: a hanging TCS does not delay the end");
}

/// The statistics of a container as the API of Docker gives them, without a wait.
fn docker_stats(id: &str) -> Value {
    let url = format!("http://docker/containers/{id}/stats?stream=false&one-shot=true");
    let (asked, text) = run(&["curl", "-s", "--unix-socket", "/var/run/docker.sock", &url]);
    assert!(asked, "{text}");
    serde_json::from_str(&text).unwrap()
}

/// A number in a value; 0 if it is missing, as the devices of an idle container.
fn number(value: &Value, pointer: &str) -> f64 {
    value.pointer(pointer).and_then(Value::as_f64).unwrap_or_default()
}

/// The bytes that all interfaces of a container have received.
fn received(stats: &Value) -> f64 {
    stats["networks"].as_object().unwrap().values().map(|network| number(network, "/rx_bytes")).sum()
}

/// The bytes that all interfaces of a container have sent.
fn sent(stats: &Value) -> f64 {
    stats["networks"].as_object().unwrap().values().map(|network| number(network, "/tx_bytes")).sum()
}

fn written(stats: &Value) -> f64 {
    let entries = stats["blkio_stats"]["io_service_bytes_recursive"].as_array().into_iter().flatten();
    let writes = entries.filter(|entry| entry["op"].as_str().is_some_and(|op| op.eq_ignore_ascii_case("write")));
    writes.map(|entry| number(entry, "/value")).sum()
}

/// Memory in MiB as `docker stats` shows it.
fn memory(stats: &Value) -> f64 {
    let details = &stats["memory_stats"]["stats"];
    let cache =
        if details.get("cache").is_some() { number(details, "/cache") } else { number(details, "/inactive_file") };
    (number(stats, "/memory_stats/usage") - cache) / 1_048_576.0
}

/// Waits until ecs-local shows metrics of the task that came after this moment. Returns when they came, and those of the container.
async fn metrics_after(rig: &Rig, arn: &str, after: f64) -> (f64, Value) {
    let newer = async || {
        let task = rig.server.telemetry()["tasks"][arn].take();
        let at = task["at"].as_f64().filter(|at| *at > after && task["metrics"].is_array())?;
        Some((at, task["metrics"][0].clone()))
    };
    until("metrics of the task", PUBLISHED, newer).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_metrics_are_those_that_docker_shows() {
    let Some(rig) = Rig::start("telemetry values", Plan { options: Some(quick), ..Plan::default() }).await else {
        return;
    };
    // Keeps 32 MiB and one processor busy, has written 8 MiB, and exchanges 50 KB a second with the gateway.
    let command = "dd if=/dev/zero of=/f bs=1M count=8 conv=fsync; while :; do :; done & \
                   gateway=$(ip route | sed -n 's/^default via \\([^ ]*\\).*/\\1/p'); \
                   ping -q -s 1000 -i 0.02 $gateway >/dev/null & \
                   (head -c 33554432 /dev/zero; sleep 3600) | tail -c 33554432 >/dev/null";
    let mut container = shell("main", &rig.image(), command);
    container["memory"] = json!(128);
    // Without a share of its own, a container has two of 1,024: on a busy machine its pings would wait for a processor, and come in bursts.
    container["cpu"] = json!(1024);
    let arn = rig.server.run_task(&json!({"family": "test", "containerDefinitions": [container]})).unwrap();
    let task = rig.task(&arn, TaskStatus::Running).await;
    let id = task.container("main").unwrap().runtime_id.clone().unwrap();
    let (mut after, _) = metrics_after(&rig, &arn, 0.0).await;
    let (mut before, mut asked) = (docker_stats(&id), Instant::now());
    let (mut compared, mut starved) = (0, 0);
    while compared < 2 {
        let (next, metrics) = metrics_after(&rig, &arn, after).await;
        let (now, now_asked) = (docker_stats(&id), Instant::now());
        let between = |ours: f64, value: fn(&Value) -> f64, what: &str| {
            let (low, high) = (value(&before), value(&now));
            assert!(low * 0.95 - 1.0 <= ours && ours <= high * 1.05 + 1.0, "{what}: {ours}, Docker: {low} to {high}");
        };
        let seconds = (now_asked - asked).as_secs_f64();
        // A container that got no processor exchanged nothing that could be compared. A busy machine may do this, but not always.
        if (sent(&now) - sent(&before)) / seconds < 10_000.0 {
            starved += 1;
            assert!(starved < 5, "no traffic in {starved} of {} intervals", starved + compared);
            (after, before, asked) = (next, now, now_asked);
            continue;
        }
        between(number(&metrics, "/networkStatsSet/rxBytes/max"), received, "received");
        between(number(&metrics, "/networkStatsSet/txBytes/max"), sent, "sent");
        for (way, value) in [("rx", received as fn(&Value) -> f64), ("tx", sent)] {
            let docker = (value(&now) - value(&before)) / seconds;
            let set = &metrics["networkStatsSet"][format!("{way}BytesPerSecond")];
            let ours = number(set, "/sum") / number(set, "/sampleCount");
            assert!((ours - docker).abs() <= 0.05 * docker, "{way}: {ours} bytes a second, Docker: {docker}");
        }
        between(number(&metrics, "/storageStatsSet/writeSizeBytes/max"), written, "written");
        let (cpu, mem) = (&metrics["cpuStatsSet"], &metrics["memoryStatsSet"]);
        between(number(mem, "/sum") / number(mem, "/sampleCount"), memory, "memory");
        // Docker's counter over the same interval: the kernel's time that the container used, of all processors.
        let counter = |stats: &Value| number(stats, "/cpu_stats/cpu_usage/total_usage");
        let system = |stats: &Value| number(stats, "/cpu_stats/system_cpu_usage");
        let docker = 100.0 * (counter(&now) - counter(&before)) / (system(&now) - system(&before));
        let ours = number(cpu, "/sum") / number(cpu, "/sampleCount");
        assert!((ours - docker).abs() <= 0.05 * docker + 1.0, "CPU: {ours} %, Docker: {docker} %");
        assert!(number(cpu, "/sampleCount") >= 10.0, "about one sample a second: {cpu}");
        compared += 1;
        (after, before, asked) = (next, now, now_asked);
    }
    assert_eq!(rig.server.read(|state| refused(state).len()), 0);
}
