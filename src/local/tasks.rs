//! The life of a task as ECS shows it: PENDING, RUNNING, STOPPED, with codes and reasons. This module owns the effect of the
//! agent's reports on a task, and the description of a task. Invariant: `last_status` never goes back, and a reported value is
//! never lost.

use super::interfaces::{InterfaceStatus, TaskInterface};
use super::need::Need;
use super::site::Site;
use serde_json::{Value, json};
use std::fmt;

/// The status of a task or container, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TaskStatus {
    /// The task is placed; the agent has not reported that it runs.
    Pending,
    /// The task runs.
    Running,
    /// The task has ended, or never started.
    Stopped,
}

impl TaskStatus {
    /// The status in the API's terms.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "PENDING",
            Self::Running => "RUNNING",
            Self::Stopped => "STOPPED",
        }
    }

    /// Parses the status in the API's terms.
    pub(super) fn parse(text: &str) -> Option<Self> {
        [Self::Pending, Self::Running, Self::Stopped].into_iter().find(|status| status.as_str() == text)
    }
}

impl fmt::Display for TaskStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One container of a task, as the agent has reported it.
#[derive(Clone, Debug)]
pub struct TaskContainer {
    /// The container's name in the task definition.
    pub name: String,
    /// The image in the task definition.
    pub image: String,
    /// The task stops when this container stops.
    pub essential: bool,
    /// The last reported status.
    pub last_status: TaskStatus,
    /// The exit code; `None` until it is reported.
    pub exit_code: Option<i64>,
    /// The reported reason of the stop; `None` if there was none.
    pub reason: Option<String>,
    /// The container's id in Docker; `None` until it is reported.
    pub runtime_id: Option<String>,
    /// The digest of the image; `None` until it is reported.
    pub image_digest: Option<String>,
    /// The published ports, in the API's shape.
    pub network_bindings: Vec<Value>,
    /// `HEALTHY`, `UNHEALTHY` or `UNKNOWN`; changes only when the agent publishes health.
    pub health_status: String,
    pub(super) arn: String,
    pub(super) cpu: String,
    pub(super) memory: Option<String>,
    pub(super) memory_reservation: Option<String>,
    /// The container has a health check, so its health counts for the task's.
    pub(super) health_check: bool,
}

/// One task.
#[derive(Clone, Debug)]
pub struct Task {
    /// The task's ARN, which identifies it.
    pub arn: String,
    /// The name of the task's cluster.
    pub cluster: String,
    /// The ARN of the instance on which the task was placed.
    pub instance_arn: String,
    /// The ARN of the definition's revision; empty for a scripted payload.
    pub definition_arn: String,
    /// The status that the agent reported last.
    pub last_status: TaskStatus,
    /// The status that the task should have: RUNNING or STOPPED.
    pub desired_status: TaskStatus,
    /// The containers, in the order of the definition.
    pub containers: Vec<TaskContainer>,
    /// Why the task stops: `EssentialContainerExited`, `UserInitiated` or `TaskFailedToStart`; `None` while it should run.
    pub stop_code: Option<String>,
    /// The reason for the stop in words; `None` while the task should run.
    pub stopped_reason: Option<String>,
    /// The task as it was sent in the payload.
    pub payload: Value,
    pub(super) group: String,
    pub(super) family: String,
    pub(super) started_by: Option<String>,
    pub(super) overrides: Value,
    /// CPU units.
    pub(super) cpu: String,
    /// Memory, in MiB.
    pub(super) memory: String,
    /// The resources that the task takes from its instance.
    pub(super) need: Need,
    /// Until when the task is protected, in seconds since the epoch; `None`: it is not.
    pub(super) protected_until: Option<f64>,
    /// Increased by every SubmitTaskStateChange.
    pub(super) version: u64,
    /// When the task was created. This and the following times are in seconds since the epoch.
    pub(super) created_at: f64,
    /// When the agent reported RUNNING; `None`: not yet.
    pub(super) started_at: Option<f64>,
    /// When the desired status became STOPPED; `None`: not yet.
    pub(super) stopping_at: Option<f64>,
    /// When the agent reported STOPPED; `None`: not yet.
    pub(super) stopped_at: Option<f64>,
    /// `pullStartedAt`, `pullStoppedAt`, `executionStoppedAt` as the agent sent them.
    pub(super) agent_times: serde_json::Map<String, Value>,
    /// The task's network interface; `None`: its network mode is not `awsvpc`.
    pub(super) interface: Option<TaskInterface>,
}

impl Task {
    /// The container with this name.
    pub fn container(&self, name: &str) -> Option<&TaskContainer> {
        self.containers.iter().find(|container| container.name == name)
    }

    /// The last part of the ARN.
    pub fn id(&self) -> &str {
        self.arn.rsplit('/').next().unwrap_or(&self.arn)
    }

    /// Applies a SubmitTaskStateChange.
    pub(super) fn apply_task_report(&mut self, body: &Value, now: f64) {
        self.version += 1;
        for time in ["pullStartedAt", "pullStoppedAt", "executionStoppedAt"] {
            if body[time].is_number() {
                self.agent_times.insert(time.to_owned(), body[time].clone());
            }
        }
        let status = body["status"].as_str().and_then(TaskStatus::parse);
        // A report that the task runs may have the end of an essential container, which makes ECS stop the task.
        if status == Some(TaskStatus::Running) && self.last_status < TaskStatus::Running {
            self.last_status = TaskStatus::Running;
            self.started_at = Some(now);
        }
        for change in body["containers"].as_array().into_iter().flatten() {
            self.apply_container_report(change, now);
        }
        if status == Some(TaskStatus::Stopped) {
            self.mark_stopped(body["reason"].as_str().unwrap_or_default(), now);
        }
    }

    /// Applies the report about one container.
    pub(super) fn apply_container_report(&mut self, change: &Value, now: f64) {
        let text = |name: &str| change[name].as_str().filter(|text| !text.is_empty()).map(str::to_owned);
        let Some(container) =
            self.containers.iter_mut().find(|c| Some(c.name.as_str()) == change["containerName"].as_str())
        else {
            return;
        };
        let status = change["status"].as_str().and_then(TaskStatus::parse).unwrap_or(TaskStatus::Pending);
        container.last_status = container.last_status.max(status);
        container.exit_code = change["exitCode"].as_i64().or(container.exit_code);
        container.reason = text("reason").or(container.reason.take());
        container.runtime_id = text("runtimeId").or(container.runtime_id.take());
        container.image_digest = text("imageDigest").or(container.image_digest.take());
        if let Some(bindings) = change["networkBindings"].as_array() {
            container.network_bindings.clone_from(bindings);
        }
        if container.essential
            && container.last_status == TaskStatus::Stopped
            && self.last_status == TaskStatus::Running
        {
            self.mark_stopping("EssentialContainerExited", "Essential container in task exited", now);
        }
    }

    /// Notes that the task should stop. A code and a reason that it already has stay.
    pub(super) fn mark_stopping(&mut self, code: &str, reason: &str, now: f64) {
        self.desired_status = TaskStatus::Stopped;
        self.stopping_at.get_or_insert(now);
        self.stop_code.get_or_insert_with(|| code.to_owned());
        self.stopped_reason.get_or_insert_with(|| reason.to_owned());
    }

    /// Notes that the task has stopped.
    pub(super) fn mark_stopped(&mut self, agent_reason: &str, now: f64) {
        if self.last_status == TaskStatus::Stopped {
            return;
        }
        let ran = self.started_at.is_some() || self.containers.iter().any(|c| c.essential && c.exit_code.is_some());
        match (agent_reason, ran) {
            ("", true) => self.mark_stopping("EssentialContainerExited", "Essential container in task exited", now),
            ("", false) => self.mark_stopping("TaskFailedToStart", "Task failed to start", now),
            (reason, true) => self.mark_stopping("EssentialContainerExited", reason, now),
            (reason, false) => self.mark_stopping("TaskFailedToStart", reason, now),
        }
        self.last_status = TaskStatus::Stopped;
        self.stopped_at = Some(now);
        for container in &mut self.containers {
            container.last_status = TaskStatus::Stopped;
        }
    }

    /// The health of the task: the worst health of its essential containers that have a health check.
    fn health_status(&self) -> &str {
        let mut states =
            self.containers.iter().filter(|c| c.essential && c.health_check).map(|c| c.health_status.as_str());
        let (mut result, mut any) = ("HEALTHY", false);
        for state in states.by_ref() {
            any = true;
            result = match (result, state) {
                (_, "UNHEALTHY") | ("UNHEALTHY", _) => "UNHEALTHY",
                ("HEALTHY", "HEALTHY") => "HEALTHY",
                _ => "UNKNOWN",
            };
        }
        if any { result } else { "UNKNOWN" }
    }

    /// The status in DescribeTasks. A task whose interface is not attached is still being provided for.
    fn shown_status(&self) -> &'static str {
        let is_attached = |interface: &TaskInterface| interface.status == InterfaceStatus::Attached;
        match self.last_status {
            TaskStatus::Pending if !self.interface.as_ref().is_none_or(is_attached) => "PROVISIONING",
            status => status.as_str(),
        }
    }

    /// The task as in DescribeTasks.
    pub(super) fn describe(&self, site: &Site, connected: bool) -> Value {
        let interface = self.interface.as_ref();
        let mut task = json!({
            "attachments": interface.map(|interface| interface.describe(site)).into_iter().collect::<Vec<_>>(),
            "attributes": [],
            "availabilityZone": site.availability_zone(),
            "clusterArn": site.arn(&format!("cluster/{}", self.cluster)),
            "connectivity": if connected { "CONNECTED" } else { "DISCONNECTED" },
            "containerInstanceArn": self.instance_arn,
            "containers": self.containers.iter().map(|container| container.describe(&self.arn, interface)).collect::<Vec<_>>(),
            "cpu": self.cpu,
            "memory": self.memory,
            "createdAt": self.created_at,
            "desiredStatus": self.desired_status.as_str(),
            "enableExecuteCommand": false,
            "group": self.group,
            "healthStatus": self.health_status(),
            "lastStatus": self.shown_status(),
            "launchType": "EC2",
            "overrides": self.overrides,
            "startedAt": self.started_at,
            "startedBy": self.started_by,
            "stopCode": self.stop_code,
            "stoppedReason": self.stopped_reason,
            "stoppingAt": self.stopping_at,
            "stoppedAt": self.stopped_at,
            "taskArn": self.arn,
            "taskDefinitionArn": self.definition_arn,
            "version": self.version,
        });
        for (name, value) in &self.agent_times {
            task[name] = value.clone();
        }
        super::definition::without_nulls(task)
    }
}

impl TaskContainer {
    fn describe(&self, task: &str, interface: Option<&TaskInterface>) -> Value {
        json!({
            "containerArn": self.arn,
            "taskArn": task,
            "name": self.name,
            "image": self.image,
            "imageDigest": self.image_digest,
            "runtimeId": self.runtime_id,
            "lastStatus": self.last_status.as_str(),
            "exitCode": self.exit_code,
            "reason": self.reason,
            "networkBindings": self.network_bindings,
            "networkInterfaces": interface.map(TaskInterface::for_container).into_iter().collect::<Vec<_>>(),
            "healthStatus": self.health_status,
            "cpu": self.cpu,
            "memory": self.memory,
            "memoryReservation": self.memory_reservation,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payload::scripted_task;

    fn task() -> Task {
        let site = Site::example();
        let payload = json!({"arn": "arn:aws:ecs:us-west-2:1:task/c/t", "containers": [
            {"name": "main", "image": "i", "essential": true}, {"name": "side", "image": "i", "essential": false},
        ]});
        scripted_task(&site, "c", "instance", payload, 1.0)
    }

    fn golden(name: &str) -> Vec<Value> {
        let path = format!("{}/../../tests/golden/{name}", env!("CARGO_MANIFEST_DIR"));
        serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
    }

    #[test]
    fn recorded_ends_get_their_code_and_reason() {
        for (file, code, reason, exit) in [
            (
                "submit_task_stopped_exit_code.json",
                "EssentialContainerExited",
                "Essential container in task exited",
                Some(42),
            ),
            ("submit_task_stopped_start_failure.json", "TaskFailedToStart", "Task failed to start", None),
            ("submit_task_stopped_pull_failure.json", "TaskFailedToStart", "Task failed to start", None),
            (
                "submit_task_stopped_secret_failure.json",
                "TaskFailedToStart",
                "Fetching secret data from SSM Parameter Store in us-west-2: invalid parameters: /judge/none",
                None,
            ),
        ] {
            let mut task = task();
            for body in golden(file) {
                task.apply_task_report(&body, 2.0);
            }
            assert_eq!(task.last_status, TaskStatus::Stopped, "{file}");
            assert_eq!(task.desired_status, TaskStatus::Stopped, "{file}");
            assert_eq!(task.stop_code.as_deref(), Some(code), "{file}");
            assert_eq!(task.stopped_reason.as_deref(), Some(reason), "{file}");
            assert_eq!(task.container("main").unwrap().exit_code, exit, "{file}");
        }
    }

    #[test]
    fn a_status_never_goes_back() {
        let mut task = task();
        task.apply_task_report(
            &json!({"status": "STOPPED", "containers": [{"containerName": "main", "status": "STOPPED"}]}),
            2.0,
        );
        task.apply_task_report(
            &json!({"status": "RUNNING", "containers": [{"containerName": "main", "status": "RUNNING"}]}),
            3.0,
        );
        assert_eq!(task.last_status, TaskStatus::Stopped);
        assert_eq!(task.container("main").unwrap().last_status, TaskStatus::Stopped);
        assert_eq!(task.started_at, None);
    }

    #[test]
    fn the_users_reason_stays() {
        let mut task = task();
        task.apply_task_report(&json!({"status": "RUNNING"}), 2.0);
        task.mark_stopping("UserInitiated", "enough", 3.0);
        task.apply_task_report(&json!({"status": "STOPPED", "reason": ""}), 4.0);
        assert_eq!(
            (task.stop_code.as_deref(), task.stopped_reason.as_deref()),
            (Some("UserInitiated"), Some("enough"))
        );
        let described = task.describe(&Site::example(), true);
        assert_eq!(described["stoppingAt"], 3.0);
        assert_eq!(described["stoppedAt"], 4.0);
        assert_eq!(described["startedAt"], 2.0);
    }

    #[test]
    fn an_essential_exit_is_seen_before_the_task_stopped() {
        let mut task = task();
        task.apply_task_report(&json!({"status": "RUNNING"}), 2.0);
        task.apply_task_report(
            &json!({"status": "RUNNING", "containers": [{"containerName": "main", "status": "STOPPED"}]}),
            3.0,
        );
        assert_eq!((task.last_status, task.desired_status), (TaskStatus::Running, TaskStatus::Stopped));
    }

    #[test]
    fn a_container_may_start_and_end_in_the_first_report() {
        let mut task = task();
        let change = |status: &str| json!({"containerName": "main", "status": status});
        task.apply_task_report(
            &json!({"status": "RUNNING", "containers": [change("RUNNING"), change("STOPPED")]}),
            2.0,
        );
        assert_eq!(task.container("main").unwrap().last_status, TaskStatus::Stopped);
        assert_eq!((task.last_status, task.desired_status), (TaskStatus::Running, TaskStatus::Stopped));
    }
}
