//! The containers of tasks with what they use, as `/_local/top` shows them and `ecs-local top` draws them. This module joins the tasks
//! with the newest telemetry. Invariant: a value that no agent has sent is missing, and never zero.

use super::instances::InstanceStatus;
use super::state::State;
use super::tasks::{Task, TaskContainer, TaskStatus};
use super::telemetry::ContainerMetrics;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// All container instances, and the containers of all tasks that have not stopped.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Top {
    /// When this was put together, in seconds since the epoch.
    pub(crate) at: f64,
    pub(crate) instances: Vec<TopInstance>,
    pub(crate) containers: Vec<TopContainer>,
}

/// A container instance that is registered.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TopInstance {
    pub(crate) arn: String,
    /// The name of the cluster.
    pub(crate) cluster: String,
    /// The agent is connected.
    pub(crate) connected: bool,
    /// The age of its last message with metrics, in seconds; `None`: there was none.
    pub(crate) metrics_age_seconds: Option<f64>,
    /// In this message, the agent measured no container.
    pub(crate) is_idle: bool,
}

/// A container of a task. A value that is `None` was not sent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TopContainer {
    /// The name of the cluster.
    pub(crate) cluster: String,
    pub(crate) instance_arn: String,
    pub(crate) task_arn: String,
    /// Family and revision, as in `web:3`.
    pub(crate) definition: String,
    pub(crate) container: String,
    /// The last status of the container.
    pub(crate) status: String,
    /// The task is to stop.
    pub(crate) is_stopping: bool,
    pub(crate) exit_code: Option<i64>,
    /// `HEALTHY`, `UNHEALTHY` or `UNKNOWN`; `None`: the container has no health check.
    pub(crate) health: Option<String>,
    /// For how long the task has been running, in seconds; `None`: it does not run yet.
    pub(crate) running_seconds: Option<f64>,
    /// The age of the following values, in seconds.
    pub(crate) metrics_age_seconds: Option<f64>,
    /// In percent of the whole machine.
    pub(crate) cpu_percent: Option<f64>,
    pub(crate) memory_mib: Option<f64>,
    /// The limit of the container, or else of its task.
    pub(crate) memory_limit_mib: Option<u64>,
    pub(crate) received_bytes_per_second: Option<f64>,
    pub(crate) sent_bytes_per_second: Option<f64>,
    /// Bytes read from block devices since the start of the container.
    pub(crate) read_bytes: Option<u64>,
    /// Bytes written to block devices since the start of the container.
    pub(crate) written_bytes: Option<u64>,
    /// The number of restarts by the restart policy since the first message about the task.
    pub(crate) restarts: Option<u64>,
}

impl Top {
    /// What is known at this time, in seconds since the epoch.
    pub(crate) fn from_state(state: &State, now: f64) -> Self {
        let active = state.instances.iter().filter(|instance| instance.status != InstanceStatus::Inactive);
        let instances = active.map(|instance| {
            let last = state.telemetry.last_metrics(&instance.arn);
            TopInstance {
                arn: instance.arn.clone(),
                cluster: instance.cluster.clone(),
                connected: instance.connected(),
                metrics_age_seconds: last.map(|last| age(last.at, now)),
                is_idle: last.is_some_and(|last| last.is_idle),
            }
        });
        let tasks = state.tasks.iter().filter(|task| task.last_status != TaskStatus::Stopped);
        let containers = tasks.flat_map(|task| {
            task.containers.iter().map(move |container| TopContainer::from_state(state, task, container, now))
        });
        Self { at: now, instances: instances.collect(), containers: containers.collect() }
    }
}

impl TopContainer {
    fn from_state(state: &State, task: &Task, container: &TaskContainer, now: f64) -> Self {
        let known = state.telemetry.container(&task.arn, &container.name);
        let definition = task.definition_arn.rsplit('/').next().filter(|name| !name.is_empty());
        let shown = Self {
            cluster: task.cluster.clone(),
            instance_arn: task.instance_arn.clone(),
            task_arn: task.arn.clone(),
            definition: definition.unwrap_or(&task.family).to_owned(),
            container: container.name.clone(),
            status: container.last_status.to_string(),
            is_stopping: task.desired_status == TaskStatus::Stopped,
            exit_code: container.exit_code,
            health: container.health_check.then(|| container.health_status.clone()),
            running_seconds: task.started_at.map(|started| age(started, now)),
            memory_limit_mib: memory_limit(task, container),
            ..Self::default()
        };
        known.map_or(shown.clone(), |known| shown.with(known, now))
    }

    fn with(self, known: ContainerMetrics<'_>, now: f64) -> Self {
        let ContainerMetrics { at, metrics, restarts } = known;
        let network = &metrics["networkStatsSet"];
        let storage = |name: &str| counter(&metrics["storageStatsSet"][name]);
        Self {
            metrics_age_seconds: Some(age(at, now)),
            cpu_percent: average(&metrics["cpuStatsSet"]),
            memory_mib: average(&metrics["memoryStatsSet"]),
            received_bytes_per_second: average(&network["rxBytesPerSecond"]),
            sent_bytes_per_second: average(&network["txBytesPerSecond"]),
            read_bytes: storage("readSizeBytes"),
            written_bytes: storage("writeSizeBytes"),
            restarts,
            ..self
        }
    }
}

/// The limit of a container's memory, in MiB; `None`: it has none.
fn memory_limit(task: &Task, container: &TaskContainer) -> Option<u64> {
    let own = container.memory.as_ref().and_then(|text| text.parse().ok());
    own.filter(|mib| *mib > 0).or_else(|| task.payload["memory"].as_u64().filter(|mib| *mib > 0))
}

fn age(at: f64, now: f64) -> f64 {
    (now - at).max(0.0)
}

/// The average of a set of samples.
fn average(set: &Value) -> Option<f64> {
    let (sum, count) = (set["sum"].as_f64()?, set["sampleCount"].as_f64()?);
    (count > 0.0).then(|| sum / count)
}

/// The last value of a counter, which only rises: the largest one, with what exceeds the largest number of the protocol.
fn counter(set: &Value) -> Option<u64> {
    Some(set["max"].as_u64()?.saturating_add(set["overflowMax"].as_u64().unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payload::scripted_task;
    use crate::site::Site;
    use serde_json::json;

    fn golden(name: &str) -> Value {
        let path = format!("{}/../../tests/golden/{name}.json", env!("CARGO_MANIFEST_DIR"));
        serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
    }

    #[test]
    fn a_task_has_the_values_that_its_agent_sent() {
        let mut state = State::new(Site::example(), "c");
        let payload = json!({"arn": "arn:aws:ecs:us-west-2:1:task/c/t", "family": "web", "memory": 512, "containers": [
            {"name": "main", "image": "i", "essential": true, "memory": 64, "healthCheckType": "docker"},
            {"name": "side", "image": "i", "essential": false},
        ]});
        let task = scripted_task(&state.site, "c", "instance", payload, 1.0);
        state.add_task(task).unwrap();
        let before = Top::from_state(&state, 5.0);
        assert_eq!((before.containers.len(), before.instances.len()), (2, 0));
        assert_eq!(before.containers[0].cpu_percent, None);
        assert_eq!(before.containers.iter().map(|c| c.memory_limit_mib).collect::<Vec<_>>(), [Some(64), Some(512)]);
        assert_eq!(before.containers[0].health.as_deref(), Some("UNKNOWN"));
        assert_eq!((before.containers[1].health.as_deref(), before.containers[1].status.as_str()), (None, "PENDING"));

        let set = |sum: f64, count: u64| json!({"min": 0, "max": sum, "sum": sum, "sampleCount": count});
        let metrics = json!({
            "containerName": "main", "cpuStatsSet": set(30.0, 20), "memoryStatsSet": set(200.0, 20),
            "networkStatsSet": {"rxBytesPerSecond": set(4000.0, 20)},
            "storageStatsSet": {"readSizeBytes": {"max": 7, "overflowMax": 0}, "writeSizeBytes": {"max": i64::MAX, "overflowMax": 1}},
        });
        let task = json!({"taskArn": "arn:aws:ecs:us-west-2:1:task/c/t", "containerMetrics": [metrics]});
        state.telemetry.add(6.0, "PublishMetricsRequest", None, json!({"taskMetrics": [task]}));
        let top = Top::from_state(&state, 8.5);
        let main = &top.containers[0];
        assert_eq!((main.cpu_percent, main.memory_mib, main.metrics_age_seconds), (Some(1.5), Some(10.0), Some(2.5)));
        assert_eq!((main.received_bytes_per_second, main.sent_bytes_per_second), (Some(200.0), None));
        assert_eq!((main.read_bytes, main.written_bytes), (Some(7), Some(1 << 63)));
        assert_eq!(top.containers[1].cpu_percent, None);
        assert_eq!(serde_json::from_value::<Top>(json!(top)).unwrap(), top);
    }

    #[test]
    fn recorded_messages_have_every_value() {
        let message = golden("tcs_publish_metrics_tasks")["message"].clone();
        let task = &message["taskMetrics"][0];
        let (arn, container) = (task["taskArn"].as_str().unwrap(), &task["containerMetrics"][0]);
        let mut state = State::new(Site::example(), "c");
        let payload =
            json!({"arn": arn, "containers": [{"name": container["containerName"], "image": "i", "essential": true}]});
        let task = scripted_task(&state.site, "c", "instance", payload, 1.0);
        state.add_task(task).unwrap();
        state.telemetry.add(6.0, "PublishMetricsRequest", None, message.clone());
        let shown = &Top::from_state(&state, 6.0).containers[0];
        assert!(shown.cpu_percent.is_some() && shown.memory_mib.is_some() && shown.read_bytes.is_some(), "{shown:?}");
    }
}
