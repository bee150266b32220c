//! Everything the control plane knows, in memory. It owns lookups and bounds; what calls mean is in [`super::api`], what
//! messages mean in [`super::acs`]. Invariant: every collection has a named limit.

use super::definition::TaskDefinition;
use super::ec2::Ec2;
use super::faults::Faults;
use super::ids::same_resource;
use super::instances::{Instance, InstanceStatus, Kick};
use super::kept::Kept;
use super::need::Need;
use super::records::{Record, Records, Source};
use super::role_credentials::renew;
use super::site::Site;
use super::tasks::{Task, TaskStatus};
use super::time::now;
use crate::model::Secret;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Most clusters.
pub(super) const MAX_CLUSTERS: usize = 100;
/// Most container instances, deregistered ones included.
pub(super) const MAX_INSTANCES: usize = 200;
/// Most task definition revisions.
pub(super) const MAX_DEFINITIONS: usize = 5000;
/// Most tasks; stopped ones make room, oldest first.
pub(super) const MAX_TASKS: usize = 5000;
/// Most secrets.
pub(super) const MAX_SECRETS: usize = 1000;
/// Most resources with tags.
pub(super) const MAX_TAGGED: usize = 5000;

/// A registered task definition.
#[derive(Clone, Debug)]
pub(super) struct Definition {
    pub(super) spec: TaskDefinition,
    pub(super) arn: String,
    pub(super) revision: u32,
    pub(super) required: Vec<String>,
    pub(super) registered_at: f64,
    pub(super) deregistered_at: Option<f64>,
}

/// What is known now.
#[derive(Debug)]
pub struct State {
    pub(super) site: Site,
    /// Name to status: ACTIVE or INACTIVE.
    pub(super) clusters: BTreeMap<String, &'static str>,
    pub(super) definitions: Vec<Definition>,
    /// Highest revision ever given in each family.
    pub(super) revisions: BTreeMap<String, u32>,
    pub(super) instances: Vec<Instance>,
    pub(super) tasks: Vec<Task>,
    /// By ARN.
    pub(super) tags: BTreeMap<String, Vec<Value>>,
    pub(super) records: Records,
    pub(super) faults: Faults,
    pub(super) ec2: Ec2,
    /// Values of Secrets Manager, by name.
    pub(super) secrets: BTreeMap<String, Secret>,
    /// What SSM and S3 have.
    pub(super) kept: Kept,
    /// Sequence number of payloads and manifests.
    pub(super) sequence: i64,
    pub(super) sessions: u64,
    /// What TCS sockets are to do: the number of the order, and the order.
    pub(super) tcs_kick: (u64, Option<Kick>),
}

/// Sequence numbers start at the seconds since 2024, so that they go on rising when the server is started again: an agent ignores
/// a manifest that is older than the newest it knows.
fn first_sequence() -> i64 {
    const YEAR_2024: f64 = 1_704_067_200.0;
    (now() - YEAR_2024).max(0.0) as i64
}

impl State {
    pub(super) fn new(site: Site, cluster: &str) -> Self {
        Self {
            site,
            clusters: BTreeMap::from([(cluster.to_owned(), "ACTIVE")]),
            definitions: Vec::new(),
            revisions: BTreeMap::new(),
            instances: Vec::new(),
            tasks: Vec::new(),
            tags: BTreeMap::new(),
            records: Records::default(),
            faults: Faults::default(),
            ec2: Ec2::default(),
            secrets: BTreeMap::new(),
            kept: Kept::default(),
            sequence: first_sequence(),
            sessions: 0,
            tcs_kick: (0, None),
        }
    }

    /// Tasks, oldest first.
    pub fn tasks(&self) -> &[Task] {
        &self.tasks
    }

    /// The task of that ARN or id.
    pub fn task(&self, name: &str) -> Option<&Task> {
        self.tasks.iter().find(|task| same_resource(&task.arn, name))
    }

    /// Container instances, oldest first.
    pub fn instances(&self) -> &[Instance] {
        &self.instances
    }

    /// The container instance of that ARN or id.
    pub fn instance(&self, name: &str) -> Option<&Instance> {
        self.instances.iter().find(|instance| same_resource(&instance.arn, name))
    }

    /// Everything that was said, oldest first.
    pub fn records(&self) -> impl DoubleEndedIterator<Item = &Record> {
        self.records.iter()
    }

    /// How many records were dropped to stay within the bounds.
    pub fn dropped_records(&self) -> u64 {
        self.records.dropped()
    }

    /// The calls that report state changes, oldest first.
    pub fn submissions(&self) -> impl DoubleEndedIterator<Item = &Record> {
        self.records().filter(|record| record.source == Source::Api && record.name.starts_with("Submit"))
    }

    /// Messages of that type the agent sent over ACS, oldest first: their `message` part.
    pub fn acs_messages<'a>(&'a self, kind: &'a str) -> impl DoubleEndedIterator<Item = &'a Value> {
        self.records()
            .filter(move |record| record.source == Source::AcsIn && record.name == kind)
            .map(|record| &record.body)
    }

    pub(super) fn record(&mut self, source: Source, name: &str, body: Value) {
        self.records.add(now(), source, name, body, BTreeMap::new());
    }

    pub(super) fn record_request(
        &mut self,
        source: Source,
        name: &str,
        body: Value,
        headers: BTreeMap<String, String>,
    ) {
        self.records.add(now(), source, name, body, headers);
    }

    pub(super) fn task_mut(&mut self, name: &str) -> Option<&mut Task> {
        self.tasks.iter_mut().find(|task| same_resource(&task.arn, name))
    }

    pub(super) fn instance_mut(&mut self, name: &str) -> Option<&mut Instance> {
        self.instances.iter_mut().find(|instance| same_resource(&instance.arn, name))
    }

    /// The definition called `family`, `family:revision` or by its ARN. Without a revision: the newest active one.
    pub(super) fn definition(&self, name: &str) -> Option<&Definition> {
        let name = name.rsplit('/').next().unwrap_or(name);
        match name.split_once(':') {
            Some((family, revision)) => {
                let revision: u32 = revision.parse().ok()?;
                self.definitions.iter().find(|d| d.spec.family == family && d.revision == revision)
            }
            None => self.definitions.iter().rfind(|d| d.spec.family == name && d.deregistered_at.is_none()),
        }
    }

    /// What the tasks of an instance hold of it.
    pub(super) fn held(&self, instance_arn: &str) -> Need {
        let mut held = Need::default();
        let living = self.tasks.iter().filter(|task| task.instance_arn == instance_arn);
        living.filter(|task| task.last_status != TaskStatus::Stopped).for_each(|task| held.add(&task.need));
        held
    }

    /// How many tasks that pass the filter have this status.
    pub(super) fn count(&self, status: TaskStatus, filter: impl Fn(&Task) -> bool) -> usize {
        self.tasks.iter().filter(|task| task.last_status == status && filter(task)).count()
    }

    /// Sets the value of a secret.
    pub(super) fn put_secret(&mut self, name: &str, value: Secret) -> Result<(), String> {
        if name.is_empty() {
            return Err("a secret has a name".to_owned());
        }
        if self.secrets.len() >= MAX_SECRETS && !self.secrets.contains_key(name) {
            return Err(format!("there are {MAX_SECRETS} secrets already"));
        }
        self.secrets.insert(name.to_owned(), value);
        Ok(())
    }

    /// Adds a task, making room if need be.
    pub(super) fn add_task(&mut self, task: Task) -> Result<(), String> {
        if self.tasks.len() >= MAX_TASKS {
            let stopped = self.tasks.iter().position(|task| task.last_status == TaskStatus::Stopped);
            let index = stopped.ok_or_else(|| format!("{MAX_TASKS} tasks run already"))?;
            let gone = self.tasks.remove(index);
            self.tags.remove(&gone.arn);
        }
        self.tasks.push(task);
        Ok(())
    }

    /// Queues a payload with these tasks for an instance; the message id.
    pub(super) fn queue_payload(&mut self, instance_arn: &str, tasks: &[Value]) -> Result<String, String> {
        self.sequence += 1;
        let (message_id, sequence) = (uuid::Uuid::new_v4().to_string(), self.sequence);
        let mut message = self.addressed(instance_arn, &message_id);
        message["seqNum"] = json!(sequence);
        message["timeline"] = json!(sequence);
        message["tasks"] = json!(tasks);
        self.queue(instance_arn, "PayloadMessage", message, true)?;
        Ok(message_id)
    }

    /// Queues the credentials of a task's roles once more, made anew.
    pub(super) fn queue_credentials(&mut self, task_arn: &str) -> Result<usize, String> {
        let site = self.site.clone();
        let task = self.task_mut(task_arn).ok_or("no such task")?;
        let (task_arn, instance) = (task.arn.clone(), task.instance_arn.clone());
        let mut fresh = Vec::new();
        for (member, kind) in [("roleCredentials", "TaskApplication"), ("executionRoleCredentials", "TaskExecution")] {
            if task.payload[member].is_object() {
                renew(&site, &mut task.payload[member]);
                fresh.push((kind, task.payload[member].clone()));
            }
        }
        let cluster = site.arn(&format!("cluster/{}", task.cluster));
        for (kind, credentials) in &fresh {
            let message = json!({
                "messageId": uuid::Uuid::new_v4().to_string(), "taskArn": task_arn, "taskClusterArn": cluster,
                "roleType": kind, "roleCredentials": credentials,
            });
            self.queue(&instance, "IAMRoleCredentialsMessage", message, true)?;
        }
        Ok(fresh.len())
    }

    /// Queues the list of all tasks the instance should have; the message id.
    pub(super) fn queue_manifest(&mut self, instance_arn: &str) -> Result<String, String> {
        self.sequence += 1;
        let (message_id, sequence) = (uuid::Uuid::new_v4().to_string(), self.sequence);
        let mut message = self.addressed(instance_arn, &message_id);
        let cluster = message["clusterArn"].clone();
        let living =
            self.tasks.iter().filter(|t| t.instance_arn == instance_arn && t.last_status != TaskStatus::Stopped);
        let tasks: Vec<_> = living
            .map(|t| json!({"taskArn": t.arn, "taskClusterArn": cluster, "desiredStatus": t.desired_status.as_str()}))
            .collect();
        message["timeline"] = json!(sequence);
        message["tasks"] = json!(tasks);
        self.queue(instance_arn, "TaskManifestMessage", message, false)?;
        Ok(message_id)
    }

    /// Queues any message for an instance.
    pub(super) fn queue(
        &mut self,
        instance_arn: &str,
        kind: &str,
        message: Value,
        wants_ack: bool,
    ) -> Result<(), String> {
        let delivery = self.faults.delivery.clone();
        let instance = self.instance_mut(instance_arn).ok_or("no such container instance")?;
        instance.outbox.push(json!({"type": kind, "message": message}), wants_ack, &delivery)
    }

    /// Queues text that need not be a message.
    pub(super) fn queue_text(&mut self, instance_arn: &str, text: &str) -> Result<(), String> {
        let delivery = self.faults.delivery.clone();
        let instance = self.instance_mut(instance_arn).ok_or("no such container instance")?;
        instance.outbox.push(json!({"raw": text}), false, &delivery)
    }

    /// The message waits for an instance, and is a payload.
    pub(super) fn is_payload(&self, instance_arn: &str, message_id: &str) -> bool {
        self.instance(instance_arn).is_some_and(|instance| instance.outbox.holds_payload(message_id))
    }

    /// The first instance that takes tasks and is connected.
    pub(super) fn any_instance(&self) -> Option<&Instance> {
        let mut active = self.instances.iter().filter(|instance| instance.status != InstanceStatus::Inactive);
        let first = active.clone().next();
        active.find(|instance| instance.connected()).or(first)
    }

    /// The members all messages to an instance share.
    fn addressed(&self, instance_arn: &str, message_id: &str) -> Value {
        let cluster = self.instance(instance_arn).map(|instance| instance.cluster.as_str()).unwrap_or_default();
        json!({
            "clusterArn": self.site.arn(&format!("cluster/{cluster}")),
            "containerInstanceArn": instance_arn,
            "messageId": message_id,
            "generatedAt": (now() * 1000.0) as u64,
        })
    }
}
