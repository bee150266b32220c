//! Tests of the texts, with the recordings of the Go agent.

use super::*;
use crate::tcs::health::ContainerHealth;
use crate::tcs::metrics::{ContainerMetrics, Counter, Direction, Network, Storage, Summary};
use crate::tcs::status::Condition;
use ecs_core::model::Health;
use serde_json::{Value, json};

fn golden(name: &str) -> Value {
    let path = format!("{}/tests/golden/{name}.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

/// A time of the recording: seconds with up to three decimals.
fn moment(value: &Value) -> Timestamp {
    Timestamp((value.as_f64().unwrap() * 1000.0).round() as u64)
}

fn place(golden: &Value) -> Place {
    let metadata = &golden["message"]["metadata"];
    Place { cluster: text(&metadata["cluster"]), container_instance: text(&metadata["containerInstance"]) }
}

/// The recorded message is the only one that is made from this.
fn is_recorded(golden: &Value, outgoing: &Outgoing) {
    let message = &golden["message"];
    let metadata = &message["metadata"];
    let id = metadata["messageId"].as_str().or(metadata["requestId"].as_str()).unwrap();
    let ours = texts(&place(golden), outgoing, id, moment(&message["timestamp"]));
    let [ours] = &ours[..] else { panic!("{} messages", ours.len()) };
    assert!(ours.starts_with(&format!(r#"{{"type":{},"message":{{"#, golden["type"])), "{ours}");
    // The members of a parsed value are in alphabetical order, as Go writes them; a number keeps its form.
    assert!(ours.ends_with(&format!(r#""message":{message}}}"#)), "{ours}\n{message}");
}

#[test]
fn an_idle_instance_sends_the_recorded_message() {
    is_recorded(&golden("tcs_publish_metrics_idle"), &Outgoing::Idle);
}

#[test]
fn the_status_is_the_recorded_one() {
    let golden = golden("tcs_publish_instance_status");
    let status = &golden["message"]["statuses"][0];
    let ours = InstanceStatus {
        condition: Condition::Ok,
        previous_check: moment(&status["lastUpdated"]),
        changed: moment(&status["lastStatusChange"]),
    };
    is_recorded(&golden, &Outgoing::Status(ours));
    for (condition, name) in [(Condition::Initializing, "INITIALIZING"), (Condition::Impaired, "IMPAIRED")] {
        let sent = texts(&place(&golden), &Outgoing::Status(InstanceStatus { condition, ..ours }), "id", Timestamp(1));
        assert!(sent[0].contains(&format!(r#""status":"{name}""#)), "{}", sent[0]);
    }
}

#[test]
fn the_health_is_the_recorded_one() {
    let golden = golden("tcs_publish_health");
    let task = &golden["message"]["tasks"][0];
    let container = &task["containers"][0];
    let health = TaskHealth {
        arn: text(&task["taskArn"]).as_str().into(),
        family: text(&task["taskDefinitionFamily"]),
        version: text(&task["taskDefinitionVersion"]),
        containers: vec![ContainerHealth {
            name: text(&container["containerName"]).as_str().into(),
            health: Health::Healthy,
            since: Some(moment(&container["statusSince"])),
        }],
    };
    is_recorded(&golden, &Outgoing::Health(vec![health.clone()]));
    // Without a result, the time is that of the message.
    let mut fresh = health;
    (fresh.containers[0].health, fresh.containers[0].since) = (Health::Unknown, None);
    let sent = texts(&place(&golden), &Outgoing::Health(vec![fresh]), "id", Timestamp(7_500));
    assert!(sent[0].contains(r#""healthStatus":"UNKNOWN","statusSince":7.5"#), "{}", sent[0]);
}

fn summary(value: &Value) -> Option<Summary> {
    let number = |name: &str| value[name].as_f64().unwrap();
    let count = value["sampleCount"].as_u64()?;
    Some(Summary { min: number("min"), max: number("max"), sum: number("sum"), count })
}

fn counter(value: &Value) -> Counter {
    let number = |name: &str| value[name].as_i64().unwrap();
    Counter {
        min: number("min"),
        overflow_min: number("overflowMin"),
        max: number("max"),
        overflow_max: number("overflowMax"),
        sum: number("sum"),
        overflow_sum: number("overflowSum"),
        count: value["sampleCount"].as_u64().unwrap(),
    }
}

fn direction(network: &Value, prefix: &str) -> Direction {
    let member = |name: &str| &network[format!("{prefix}{name}")];
    Direction {
        bytes: counter(member("Bytes")),
        packets: counter(member("Packets")),
        dropped: counter(member("Dropped")),
        errors: counter(member("Errors")),
        bytes_per_second: summary(member("BytesPerSecond")),
    }
}

fn task(value: &Value) -> TaskMetrics {
    let container = |value: &Value| {
        let (network, storage) = (&value["networkStatsSet"], &value["storageStatsSet"]);
        ContainerMetrics {
            name: text(&value["containerName"]).as_str().into(),
            cpu: summary(&value["cpuStatsSet"]),
            memory: summary(&value["memoryStatsSet"]),
            network: network
                .is_object()
                .then(|| Network { received: direction(network, "rx"), sent: direction(network, "tx") }),
            storage: storage.is_object().then(|| Storage {
                read: counter(&storage["readSizeBytes"]),
                written: counter(&storage["writeSizeBytes"]),
            }),
            restarts: value["restartStatsSet"]["restartCount"].as_u64().map(|count| count as u32),
        }
    };
    TaskMetrics {
        arn: text(&value["taskArn"]).as_str().into(),
        family: text(&value["taskDefinitionFamily"]),
        version: text(&value["taskDefinitionVersion"]),
        containers: value["containerMetrics"].as_array().unwrap().iter().map(container).collect(),
    }
}

#[test]
fn the_metrics_of_a_task_are_the_recorded_ones() {
    let golden = golden("tcs_publish_metrics_tasks");
    let tasks = golden["message"]["taskMetrics"].as_array().unwrap().iter().map(task).collect();
    is_recorded(&golden, &Outgoing::Metrics(tasks));
}

#[test]
fn other_recorded_metrics_lack_only_what_does_not_run_here() {
    for (name, later) in [
        ("ebs/tcs_publish_metrics", "volumeMetrics"),
        ("service_connect/tcs_publish_metrics", "serviceConnectMetricsWrapper"),
    ] {
        let mut golden = golden(name);
        let tasks = golden["message"]["taskMetrics"].as_array_mut().unwrap();
        let removed: Vec<_> = tasks.iter_mut().filter_map(|task| task.as_object_mut().unwrap().remove(later)).collect();
        assert!(!removed.is_empty(), "{name}");
        let tasks = tasks.iter().map(task).collect();
        is_recorded(&golden, &Outgoing::Metrics(tasks));
    }
}

#[test]
fn restarts_are_sent_and_what_is_not_known_is_left_out() {
    let restarts = |restarts| ContainerMetrics { name: "web".into(), restarts, ..ContainerMetrics::default() };
    let tasks = vec![TaskMetrics { containers: vec![restarts(Some(2)), restarts(None)], ..TaskMetrics::default() }];
    let place = Place { cluster: "c".to_owned(), container_instance: "i".to_owned() };
    let sent = texts(&place, &Outgoing::Metrics(tasks), "id", Timestamp(1_000));
    let sent: Value = serde_json::from_str(&sent[0]).unwrap();
    assert_eq!(
        sent["message"]["taskMetrics"][0]["containerMetrics"],
        json!([{"containerName": "web", "restartStatsSet": {"restartCount": 2}}, {"containerName": "web"}])
    );
    assert_eq!(sent["message"]["timestamp"], 1);
}

/// Tasks whose families have this length.
fn tasks(count: usize, family: usize) -> Vec<TaskMetrics> {
    let task = |index: usize| TaskMetrics {
        arn: index.to_string().as_str().into(),
        family: "f".repeat(family),
        ..TaskMetrics::default()
    };
    (0..count).map(task).collect()
}

/// The number of tasks of each message. Checks what all messages of one publication promise.
fn sizes(sent: &[String], list: &str) -> Vec<usize> {
    let mut arns = Vec::new();
    let sizes = sent.iter().enumerate().map(|(index, sent_text)| {
        let message: Value = serde_json::from_str::<Value>(sent_text).unwrap()["message"].take();
        assert_eq!(message["metadata"]["messageId"], "id");
        assert_eq!(message["metadata"]["fin"], index + 1 == sent.len());
        assert_ne!(message["metadata"]["idle"], true);
        let tasks = message[list].as_array().unwrap();
        arns.extend(tasks.iter().map(|task| text(&task["taskArn"])));
        tasks.len()
    });
    let sizes: Vec<usize> = sizes.collect();
    assert_eq!(arns, (0..arns.len()).map(|index| index.to_string()).collect::<Vec<_>>(), "all, in order");
    sizes
}

#[test]
fn ten_tasks_fill_a_message_and_the_last_one_says_so() {
    let place = Place { cluster: "c".to_owned(), container_instance: "i".to_owned() };
    for (count, expected) in
        [(1, vec![1]), (10, vec![10]), (11, vec![10, 1]), (20, vec![10, 10]), (25, vec![10, 10, 5])]
    {
        let tasks = tasks(count, 3);
        let health = tasks.iter().map(|task| TaskHealth {
            arn: task.arn.clone(),
            family: task.family.clone(),
            version: String::new(),
            containers: Vec::new(),
        });
        let health = Outgoing::Health(health.collect());
        assert_eq!(sizes(&texts(&place, &health, "id", Timestamp(0)), "tasks"), expected);
        let sent = texts(&place, &Outgoing::Metrics(tasks), "id", Timestamp(0));
        assert_eq!(sizes(&sent, "taskMetrics"), expected);
    }
}

#[test]
fn a_message_has_at_most_a_mebibyte() {
    let place = Place { cluster: "c".to_owned(), container_instance: "i".to_owned() };
    let sent = |family| texts(&place, &Outgoing::Metrics(tasks(9, family)), "id", Timestamp(0));
    assert_eq!(sizes(&sent(300_000), "taskMetrics"), [3, 3, 3]);
    // A single task may need more; it is sent alone.
    assert_eq!(sizes(&sent(MAX_BYTES), "taskMetrics"), [1; 9]);
    // The limit counts the message without its envelope, to the byte.
    let body = |text: &String| serde_json::from_str::<Value>(text).unwrap()["message"].to_string().len();
    let rest = body(&sent(0)[0]) + 1; // `fin` is false, which has one more letter
    let limit = (MAX_BYTES - rest) / 9;
    let full = sent(limit);
    assert_eq!((full.len(), body(&full[0]) <= MAX_BYTES), (1, true));
    assert!(body(&full[0]) + 10 > MAX_BYTES, "{}", body(&full[0]));
    assert_eq!(sizes(&sent(limit + 1), "taskMetrics"), [8, 1]);
}
