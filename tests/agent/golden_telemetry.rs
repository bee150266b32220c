//! What the agent publishes over TCS, compared with the recordings of the Go agent.

use super::difference::Kind::{Any, Extra, Missing, Value as Other};
use super::difference::{Allowed, assert_same, by_name, golden};
use super::recorded_task::{Life, TASK, life};
use ecs_local::Source;
use serde_json::{Value, json};

/// What differs in each message.
const ALWAYS: [Allowed; 2] = [("metadata/messageId", Other, "random"), ("timestamp", Other, "now")];

/// The only published message of this kind that the condition holds for, or the first of several.
fn published(life: &Life, kind: &str, is_it: impl Fn(&Value) -> bool) -> Value {
    life.published(kind).into_iter().find(is_it).expect("it was published")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_telemetry_link_is_opened_as_recorded() {
    let Some(life) = life().await else { return };
    let recorded = golden("tcs_connect");
    let connect = life.records.iter().find(|record| record.source == Source::TcsConnect).unwrap();
    const QUERY: &[Allowed] = &[
        ("agentHash", Other, "the commit of this agent"),
        ("dockerVersion", Any, "the version of this host's engine"),
    ];
    assert_same("query of the handshake", &recorded["query"], &life.renamed(&connect.body), QUERY);
    const HANDSHAKE: &[Allowed] = &[
        ("authorization", Other, "the day; the signature is left out of the log"),
        ("sec-websocket-key", Other, "random"),
        ("x-amz-date", Other, "now"),
        ("user-agent", Missing, "the Go agent sends the name of its HTTP library"),
        ("accept", Extra, "the HTTP client adds it"),
    ];
    let headers = recorded["headers"].as_object().unwrap().iter();
    let lower: Value =
        headers.map(|(name, value)| (name.to_lowercase(), value.clone())).collect::<serde_json::Map<_, _>>().into();
    assert_same("headers of the handshake", &lower, &life.renamed(&json!(connect.headers)), HANDSHAKE);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_published_message_is_accepted() {
    let Some(life) = life().await else { return };
    let refused: Vec<_> = life.records.iter().filter(|record| record.name == "tcs/publish").collect();
    assert!(refused.is_empty(), "{refused:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_instance_says_so_as_recorded() {
    let Some(life) = life().await else { return };
    let ours = life.published("PublishMetricsRequest").remove(0);
    assert_same("idle", &golden("tcs_publish_metrics_idle")["message"], &ours, &ALWAYS);
}

#[tokio::test(flavor = "multi_thread")]
async fn health_is_published_as_recorded() {
    let Some(life) = life().await else { return };
    let is_healthy = |message: &Value| message["tasks"][0]["containers"][0]["healthStatus"] == "HEALTHY";
    let ours = published(life, "PublishHealthRequest", is_healthy);
    let [id, now] = ALWAYS;
    let allowed = [id, now, ("tasks/0/containers/0/statusSince", Other, "when it became healthy")];
    assert_same("health", &golden("tcs_publish_health")["message"], &ours, &allowed);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_state_of_the_instance_is_published_as_recorded() {
    let Some(life) = life().await else { return };
    let ours = published(life, "PublishInstanceStatusRequest", |message| message["statuses"][0]["status"] == "OK");
    const ALLOWED: &[Allowed] = &[
        ("metadata/requestId", Other, "random"),
        ("timestamp", Other, "now"),
        ("statuses/0/lastStatusChange", Other, "a time"),
        ("statuses/0/lastUpdated", Other, "a time"),
    ];
    assert_same("status", &golden("tcs_publish_instance_status")["message"], &ours, ALLOWED);
}

/// The metrics of the recorded task in a message, its containers by name.
fn metrics(message: &Value) -> Option<Value> {
    let tasks = message["taskMetrics"].as_array()?;
    let mut task = tasks.iter().find(|task| task["taskArn"] == TASK)?.clone();
    let containers = by_name(&task["containerMetrics"], |container| {
        (container["containerName"].as_str().unwrap().to_owned(), container.clone())
    });
    task["containerMetrics"] = containers;
    Some(task)
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_published_in_the_recorded_form() {
    let Some(life) = life().await else { return };
    let recorded = golden("tcs_publish_metrics_tasks")["message"].take();
    let has_both = |message: &Value| {
        metrics(message).is_some_and(|task| task["containerMetrics"].as_object().is_some_and(|all| all.len() == 2))
    };
    let ours = published(life, "PublishMetricsRequest", has_both);
    const MEASURED: &str = "measured";
    const ALLOWED: &[Allowed] = &[
        ("containerMetrics/*/cpuStatsSet/*", Any, MEASURED),
        ("containerMetrics/*/memoryStatsSet/*", Any, MEASURED),
        ("containerMetrics/*/networkStatsSet/*/*", Any, MEASURED),
        ("containerMetrics/*/storageStatsSet/*/*", Any, MEASURED),
    ];
    assert_same("metrics", &metrics(&recorded).unwrap(), &metrics(&ours).unwrap(), ALLOWED);
    assert_same("metadata", &recorded["metadata"], &ours["metadata"], &[("messageId", Other, "random")]);
}
