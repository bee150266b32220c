//! The form of the messages that an agent publishes over TCS, as in the service's model (spec `tcs.md` §4 to §6). Pure. This
//! module owns the tables of members and the rules between them. Invariant: an unknown member, a missing one and one of another
//! type are errors, so that an agent that sends something else is noticed.

use super::objects::kind_of;
use Shape::{Count, Each, Flag, Health, Number, Object, Text, Time};
use serde_json::Value;

/// Maximum number of tasks in a message.
const MAX_TASKS: usize = 10;
/// Maximum length of a message in bytes, without its envelope.
const MAX_BYTES: usize = 1024 * 1024;
/// Maximum difference in seconds between the time of a message and now.
const MAX_SKEW: f64 = 300.0;

/// The form of a value.
enum Shape {
    Text,
    Flag,
    /// A number that is not negative.
    Number,
    /// A whole number that is not negative.
    Count,
    /// Seconds since the epoch, with at most three decimals.
    Time,
    /// The health of a container.
    Health,
    /// A list with at least one item, and at most this many.
    Each(usize, &'static Shape),
    /// An object with these members; the flag says whether the member is required.
    Object(&'static [(&'static str, bool, Shape)]),
}

/// Statistics of measured values.
const SUMMARY: Shape =
    Object(&[("max", true, Number), ("min", true, Number), ("sampleCount", true, Count), ("sum", true, Number)]);
/// Statistics of a counter.
const COUNTER: Shape = Object(&[
    ("max", true, Count),
    ("min", true, Count),
    ("overflowMax", false, Count),
    ("overflowMin", false, Count),
    ("overflowSum", false, Count),
    ("sampleCount", true, Count),
    ("sum", true, Count),
]);
const NETWORK: Shape = Object(&[
    ("rxBytes", false, COUNTER),
    ("rxBytesPerSecond", false, SUMMARY),
    ("rxDropped", false, COUNTER),
    ("rxErrors", false, COUNTER),
    ("rxPackets", false, COUNTER),
    ("txBytes", false, COUNTER),
    ("txBytesPerSecond", false, SUMMARY),
    ("txDropped", false, COUNTER),
    ("txErrors", false, COUNTER),
    ("txPackets", false, COUNTER),
]);
const CONTAINER: Shape = Object(&[
    ("containerName", true, Text),
    ("cpuStatsSet", true, SUMMARY),
    ("memoryStatsSet", true, SUMMARY),
    ("networkStatsSet", false, NETWORK),
    ("restartStatsSet", false, Object(&[("restartCount", true, Count)])),
    ("storageStatsSet", false, Object(&[("readSizeBytes", true, COUNTER), ("writeSizeBytes", true, COUNTER)])),
]);
const TASK: Shape = Object(&[
    ("containerMetrics", true, Each(usize::MAX, &CONTAINER)),
    ("taskArn", true, Text),
    ("taskDefinitionFamily", true, Text),
    ("taskDefinitionVersion", true, Text),
]);
const METRICS: Shape = Object(&[
    (
        "metadata",
        true,
        Object(&[
            ("cluster", true, Text),
            ("containerInstance", true, Text),
            ("fin", true, Flag),
            ("idle", true, Flag),
            ("messageId", true, Text),
        ]),
    ),
    ("taskMetrics", false, Each(MAX_TASKS, &TASK)),
    ("timestamp", true, Time),
]);
const HEALTH: Shape = Object(&[
    (
        "metadata",
        true,
        Object(&[
            ("cluster", true, Text),
            ("containerInstance", true, Text),
            ("fin", true, Flag),
            ("messageId", true, Text),
        ]),
    ),
    (
        "tasks",
        true,
        Each(
            MAX_TASKS,
            &Object(&[
                (
                    "containers",
                    true,
                    Each(
                        usize::MAX,
                        &Object(&[
                            ("containerName", true, Text),
                            ("healthStatus", true, Health),
                            ("statusSince", true, Time),
                        ]),
                    ),
                ),
                ("taskArn", true, Text),
                ("taskDefinitionFamily", true, Text),
                ("taskDefinitionVersion", true, Text),
            ]),
        ),
    ),
    ("timestamp", true, Time),
]);
const STATUS: Shape = Object(&[
    (
        "metadata",
        true,
        Object(&[("cluster", true, Text), ("containerInstance", true, Text), ("requestId", true, Text)]),
    ),
    (
        "statuses",
        true,
        Each(
            10,
            &Object(&[
                ("lastStatusChange", true, Time),
                ("lastUpdated", true, Time),
                ("status", true, Text),
                ("type", true, Text),
            ]),
        ),
    ),
    ("timestamp", true, Time),
]);

/// Checks a message of an agent in this cluster with this container instance. `now` is in seconds since the epoch. Returns the type
/// of the acknowledgement. An error names the member and the problem.
pub(super) fn check(kind: &str, message: &Value, place: (&str, &str), now: f64) -> Result<&'static str, String> {
    let (shape, ack) = match kind {
        "PublishMetricsRequest" => (METRICS, "AckPublishMetric"),
        "PublishHealthRequest" => (HEALTH, "AckPublishHealth"),
        "PublishInstanceStatusRequest" => (STATUS, "AckPublishInstanceStatus"),
        _ => return Err("The type of the message is not known.".to_owned()),
    };
    let bytes = message.to_string().len();
    if bytes > MAX_BYTES {
        return Err(format!("The message has {bytes} bytes, more than {MAX_BYTES}."));
    }
    shape.check("message", message)?;
    let metadata = &message["metadata"];
    for (name, expected) in [("cluster", place.0), ("containerInstance", place.1)] {
        if metadata[name] != expected {
            return Err(format!("metadata.{name} is not that of the connection."));
        }
    }
    let skew = message["timestamp"].as_f64().unwrap_or_default() - now;
    if skew.abs() > MAX_SKEW {
        return Err("timestamp is too far from the time.".to_owned());
    }
    if kind == "PublishMetricsRequest" {
        let (is_idle, has_tasks) = (metadata["idle"] == true, message.get("taskMetrics").is_some());
        if is_idle == has_tasks {
            return Err("taskMetrics: an idle instance has none, and another one has some.".to_owned());
        }
        if is_idle && metadata["fin"] == false {
            return Err("metadata.fin: a message of an idle instance is the last one.".to_owned());
        }
    }
    Ok(ack)
}

impl Shape {
    fn check(&self, place: &str, value: &Value) -> Result<(), String> {
        let expected = match self {
            Text if value.as_str().is_some_and(|text| !text.is_empty()) => return Ok(()),
            Text => "a text that is not empty",
            Flag if value.is_boolean() => return Ok(()),
            Flag => "true or false",
            Number if value.as_f64().is_some_and(|number| number >= 0.0) => return Ok(()),
            Number => "a number from 0",
            Count if value.as_u64().is_some() => return Ok(()),
            Count => "a whole number from 0",
            Time if value.as_f64().is_some_and(is_time) => return Ok(()),
            Time => "seconds since the epoch with at most three decimals",
            Health if matches!(value.as_str(), Some("HEALTHY" | "UNHEALTHY" | "UNKNOWN")) => return Ok(()),
            Health => "HEALTHY, UNHEALTHY or UNKNOWN",
            Each(max, shape) => return each(place, value, *max, shape),
            Object(members) => return object(place, value, members),
        };
        Err(format!("{place}: expected is {expected}, not {}.", kind_of(value)))
    }
}

fn is_time(seconds: f64) -> bool {
    let millis = seconds * 1000.0;
    seconds > 0.0 && (millis - millis.round()).abs() < 0.001
}

fn each(place: &str, value: &Value, max: usize, shape: &Shape) -> Result<(), String> {
    let items = value.as_array().ok_or_else(|| format!("{place}: expected is a list, not {}.", kind_of(value)))?;
    if items.is_empty() || items.len() > max {
        return Err(format!("{place}: there are {} items.", items.len()));
    }
    items.iter().enumerate().try_for_each(|(index, item)| shape.check(&format!("{place}[{index}]"), item))
}

fn object(place: &str, value: &Value, members: &[(&'static str, bool, Shape)]) -> Result<(), String> {
    let found = value.as_object().ok_or_else(|| format!("{place}: expected is an object, not {}.", kind_of(value)))?;
    if let Some(unknown) = found.keys().find(|name| !members.iter().any(|(known, ..)| known == name)) {
        return Err(format!("{place}: the member {unknown} is not known."));
    }
    for (name, is_required, shape) in members {
        match found.get(*name) {
            Some(value) => shape.check(&format!("{place}.{name}"), value)?,
            None if *is_required => return Err(format!("{place}: the member {name} is missing.")),
            None => {}
        }
    }
    // Of statistics only.
    match ["min", "max", "sampleCount"].map(|name| found.get(name).and_then(Value::as_f64)) {
        [Some(min), Some(max), _] if min > max => Err(format!("{place}: min is above max.")),
        [_, _, Some(0.0)] => Err(format!("{place}: there are no samples.")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn golden(name: &str) -> Value {
        let path = format!("{}/../../tests/golden/{name}.json", env!("CARGO_MANIFEST_DIR"));
        serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
    }

    fn checked(kind: &Value, message: &Value) -> Result<&'static str, String> {
        let place =
            ("judge", "arn:aws:ecs:us-west-2:123456789012:container-instance/judge/0123456789abcdef0123456789abcdef");
        check(kind.as_str().unwrap(), message, place, 1_795_304_200.0)
    }

    #[test]
    fn the_recorded_messages_are_accepted() {
        for (name, ack) in [
            ("tcs_publish_metrics_idle", "AckPublishMetric"),
            ("tcs_publish_metrics_tasks", "AckPublishMetric"),
            ("tcs_publish_health", "AckPublishHealth"),
            ("tcs_publish_instance_status", "AckPublishInstanceStatus"),
        ] {
            let golden = golden(name);
            assert_eq!(checked(&golden["type"], &golden["message"]), Ok(ack), "{name}");
        }
    }

    #[test]
    fn each_deviation_is_named() {
        let metrics = golden("tcs_publish_metrics_tasks");
        let cpu = "/taskMetrics/0/containerMetrics/0/cpuStatsSet";
        let table = [
            ("/metadata/cluster", json!("other"), "metadata.cluster is not that of the connection"),
            ("/metadata/messageId", json!(""), "message.metadata.messageId: expected is a text that is not empty"),
            ("/metadata/idle", json!(true), "an idle instance has none"),
            ("/metadata/fin", json!("true"), "message.metadata.fin: expected is true or false, not a string"),
            ("/timestamp", json!(1_795_304_200.000_5), "three decimals"),
            ("/timestamp", json!(1_795_300_000), "too far from the time"),
            ("/taskMetrics", json!([]), "there are 0 items"),
            ("/taskMetrics", json!(vec![json!({}); 11]), "there are 11 items"),
            ("/taskMetrics/0/taskArn", Value::Null, "message.taskMetrics[0].taskArn: expected is a text"),
            (cpu, json!({"max": 1, "min": 0, "sum": 1}), "the member sampleCount is missing"),
            (cpu, json!({"max": 1, "min": 2, "sum": 1, "sampleCount": 1}), "min is above max"),
            (cpu, json!({"max": 0, "min": 0, "sum": 0, "sampleCount": 0}), "there are no samples"),
            (cpu, json!({"max": 1, "min": -1, "sum": 1, "sampleCount": 1}), "a number from 0"),
            (cpu, json!({"max": 1, "min": 1, "sum": 1, "sampleCount": 1.5}), "a whole number from 0"),
            (cpu, json!({"max": 1, "min": 1, "sum": 1, "sampleCount": 1, "mean": 1}), "the member mean is not known"),
        ];
        for (pointer, value, problem) in table {
            let mut message = metrics["message"].clone();
            *message.pointer_mut(pointer).unwrap() = value;
            let found = checked(&metrics["type"], &message).unwrap_err();
            assert!(found.contains(problem), "{pointer}: {found}");
        }
        assert!(checked(&json!("PublishNothing"), &json!({})).unwrap_err().contains("type"));
        let long = json!({"metadata": "x".repeat(MAX_BYTES)});
        assert!(checked(&metrics["type"], &long).unwrap_err().contains("more than"));
        let mut health = golden("tcs_publish_health");
        health["message"]["tasks"][0]["containers"][0]["healthStatus"] = json!("FINE");
        assert!(checked(&health["type"], &health["message"]).unwrap_err().contains("HEALTHY, UNHEALTHY or UNKNOWN"));
    }
}
