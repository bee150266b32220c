//! The whole state of the control plane, in memory. This module owns lookups and limits; [`super::api`] owns the meaning of
//! calls, [`super::acs`] that of messages. Invariant: every collection has a named limit.

use super::actions::Actions;
use super::definition::TaskDefinition;
use super::ec2::Ec2;
use super::ecr::Ecr;
use super::faults::Faults;
use super::ids::same_resource;
use super::instances::{Disconnect, Instance, InstanceStatus};
use super::interfaces::{InterfaceStatus, TaskInterface, Work, announcement};
use super::need::Need;
use super::records::{Record, Records, Source};
use super::role_credentials::{put_profile, renew};
use super::site::Site;
use super::stored::StoredValues;
use super::tasks::{Task, TaskStatus};
use super::telemetry::Telemetry;
use super::time::now;
use ecs_core::model::Secret;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::mpsc::{SyncSender, TrySendError};

/// Maximum number of clusters.
pub(super) const MAX_CLUSTERS: usize = 100;
/// Maximum number of container instances, including deregistered ones.
pub(super) const MAX_INSTANCES: usize = 200;
/// Maximum number of revisions of all task definitions.
pub(super) const MAX_DEFINITIONS: usize = 5000;
/// Maximum number of tasks. For a new task, the oldest stopped one is dropped.
pub(super) const MAX_TASKS: usize = 5000;
/// Maximum number of secrets.
pub(super) const MAX_SECRETS: usize = 1000;
/// Maximum number of resources with tags.
pub(super) const MAX_TAGGED: usize = 5000;

/// A registered task definition.
#[derive(Clone, Debug)]
pub(super) struct Definition {
    pub(super) spec: TaskDefinition,
    pub(super) arn: String,
    /// The number of the revision in its family, from 1.
    pub(super) revision: u32,
    /// Names of the attributes that an instance needs.
    pub(super) required: Vec<String>,
    /// When the revision was registered, in seconds since the epoch.
    pub(super) registered_at: f64,
    /// When the revision was deregistered, in seconds since the epoch; `None`: the revision is active.
    pub(super) deregistered_at: Option<f64>,
}

/// The state of the control plane.
#[derive(Debug)]
pub struct State {
    pub(super) site: Site,
    /// The status of each cluster, ACTIVE or INACTIVE, by name.
    pub(super) clusters: BTreeMap<String, &'static str>,
    pub(super) definitions: Vec<Definition>,
    /// The highest revision so far, by family.
    pub(super) revisions: BTreeMap<String, u32>,
    pub(super) instances: Vec<Instance>,
    pub(super) tasks: Vec<Task>,
    /// Tags by the ARN of their resource.
    pub(super) tags: BTreeMap<String, Vec<Value>>,
    pub(super) records: Records,
    /// The actions that policies allowed or denied.
    pub(super) actions: Actions,
    pub(super) faults: Faults,
    pub(super) ec2: Ec2,
    /// Repositories, images, identities and tokens.
    pub(super) ecr: Ecr,
    /// Values of Secrets Manager, by name.
    pub(super) secrets: BTreeMap<String, Secret>,
    /// Parameters of SSM and objects in S3.
    pub(super) stored: StoredValues,
    /// The last sequence number of a payload or manifest.
    pub(super) sequence: i64,
    /// Number of ACS connections so far.
    pub(super) acs_connections: u64,
    /// The last command to end TCS sockets: its running number, and how to end them.
    pub(super) tcs_disconnect: (u64, Option<Disconnect>),
    /// What agents published over TCS.
    pub(super) telemetry: Telemetry,
    /// Makes and removes the network interfaces of tasks; the error says why none can be made.
    pub(super) links: Result<SyncSender<Work>, String>,
    /// The name servers of tasks with network interfaces of their own.
    pub(super) name_servers: Vec<String>,
}

/// The first sequence number: the seconds since 2024. So numbers keep rising across restarts of the server: an agent ignores a
/// manifest that is older than the newest that it knows.
fn first_sequence() -> i64 {
    const YEAR_2024: f64 = 1_704_067_200.0;
    (now() - YEAR_2024).max(0.0) as i64
}

impl State {
    pub(super) fn new(site: Site, cluster: &str) -> Self {
        let ecr = Ecr::new(&site.region, &site.account, site.registry_host());
        Self {
            site,
            clusters: BTreeMap::from([(cluster.to_owned(), "ACTIVE")]),
            definitions: Vec::new(),
            revisions: BTreeMap::new(),
            instances: Vec::new(),
            tasks: Vec::new(),
            tags: BTreeMap::new(),
            records: Records::default(),
            actions: Actions::default(),
            faults: Faults::default(),
            ec2: Ec2::default(),
            ecr,
            secrets: BTreeMap::new(),
            stored: StoredValues::default(),
            sequence: first_sequence(),
            acs_connections: 0,
            tcs_disconnect: (0, None),
            telemetry: Telemetry::default(),
            links: Err("the server has just been started".to_owned()),
            name_servers: Vec::new(),
        }
    }

    /// The time of this AWS, in seconds since the epoch.
    pub(super) fn time(&self) -> f64 {
        now() + self.ec2.clock_ahead as f64
    }

    /// The time of ECR, in seconds since the epoch: tokens and lifecycle policies follow it.
    pub(super) fn ecr_time(&self) -> f64 {
        now() + self.ecr.clock_ahead() as f64
    }

    /// How many seconds the clock of ECR is ahead of that of this AWS.
    pub(super) fn ecr_ahead(&self) -> i64 {
        self.ecr.clock_ahead() - self.ec2.clock_ahead
    }

    /// Sets the clock of this AWS ahead of the host's, and that of ECR ahead of it, in seconds. The caller carries out the lifecycle
    /// policies afterwards.
    pub(super) fn set_clocks(&mut self, ahead: i64, ecr_ahead: i64) {
        self.ec2.clock_ahead = ahead;
        self.ecr.set_clock_ahead(ahead.saturating_add(ecr_ahead));
    }

    /// Tasks, oldest first.
    pub fn tasks(&self) -> &[Task] {
        &self.tasks
    }

    /// The task with this ARN or id.
    pub fn task(&self, name: &str) -> Option<&Task> {
        self.tasks.iter().find(|task| same_resource(&task.arn, name))
    }

    /// Container instances, oldest first.
    pub fn instances(&self) -> &[Instance] {
        &self.instances
    }

    /// The container instance with this ARN or id.
    pub fn instance(&self, name: &str) -> Option<&Instance> {
        self.instances.iter().find(|instance| same_resource(&instance.arn, name))
    }

    /// All records, oldest first.
    pub fn records(&self) -> impl DoubleEndedIterator<Item = &Record> {
        self.records.iter()
    }

    /// The number of records that were dropped because of the limits.
    pub fn dropped_records(&self) -> u64 {
        self.records.dropped()
    }

    /// The calls that report state changes, oldest first.
    pub fn submissions(&self) -> impl DoubleEndedIterator<Item = &Record> {
        self.records().filter(|record| record.source == Source::Api && record.name.starts_with("Submit"))
    }

    /// The `message` parts of all messages of this type that the agent sent over ACS, oldest first.
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

    /// The definition with this `family`, `family:revision` or ARN. Without a revision: the newest active one.
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

    /// The need of all tasks of an instance that have not stopped.
    pub(super) fn held(&self, instance_arn: &str) -> Need {
        let mut held = Need::default();
        let living = self.tasks.iter().filter(|task| task.instance_arn == instance_arn);
        living.filter(|task| task.last_status != TaskStatus::Stopped).for_each(|task| held.add(&task.need));
        held
    }

    /// Number of tasks with this status that pass the filter.
    pub(super) fn count(&self, status: TaskStatus, filter: impl Fn(&Task) -> bool) -> usize {
        self.tasks.iter().filter(|task| task.last_status == status && filter(task)).count()
    }

    /// Sets the value of a secret.
    pub(super) fn put_secret(&mut self, name: &str, value: Secret) -> Result<(), String> {
        if name.is_empty() {
            return Err("this secret has no name".to_owned());
        }
        if self.secrets.len() >= MAX_SECRETS && !self.secrets.contains_key(name) {
            return Err(format!("there are {MAX_SECRETS} secrets already"));
        }
        self.secrets.insert(name.to_owned(), value);
        Ok(())
    }

    /// Adds a task. If there are too many tasks, drops the oldest stopped one.
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

    /// Why no task can have a network interface; `None`: they can.
    pub(super) fn why_no_links(&self) -> Option<&str> {
        self.links.as_ref().err().map(String::as_str)
    }

    /// A new network interface in this subnet; `None`: no address is free.
    pub(super) fn new_interface(&self, subnet: &str) -> Option<TaskInterface> {
        let living = self.tasks.iter().filter_map(|task| task.interface.as_ref());
        let living: Vec<_> = living.filter(|interface| interface.status != InterfaceStatus::Deleted).collect();
        TaskInterface::new(subnet, |address| living.iter().all(|interface| interface.link.address != address))
    }

    /// Begins to make the interface of a task.
    pub(super) fn make_interface(&self, task: &str) -> Result<(), String> {
        let links = self.links.as_ref().map_err(Clone::clone)?;
        let task = self.task(task).ok_or("no such task")?;
        let interface = task.interface.as_ref().ok_or("the task has no network interface")?;
        let work = Work::Make(task.arn.clone(), interface.link.clone());
        let problem = |error| match error {
            TrySendError::Full(_) => "too many network interfaces wait to be made",
            TrySendError::Disconnected(_) => "the thread that makes network interfaces has ended",
        };
        links.try_send(work).map_err(|error| problem(error).to_owned())
    }

    /// The interface of a task exists, or cannot be made. The agent learns of it.
    pub(super) fn interface_made(&mut self, task: &str, made: Result<(), String>) {
        let Some(task) = self.tasks.iter_mut().find(|known| known.arn == task) else { return };
        let Some(interface) = task.interface.as_mut().filter(|it| it.status == InterfaceStatus::Precreated) else {
            return;
        };
        if let Err(problem) = made {
            interface.status = InterfaceStatus::Deleted;
            task.mark_stopped(&format!("The network interface cannot be made: {problem}"), now());
            return;
        }
        interface.status = InterfaceStatus::Attaching;
        let sent = task.payload["elasticNetworkInterfaces"][0].clone();
        let (arn, cluster, instance) = (task.arn.clone(), task.cluster.clone(), task.instance_arn.clone());
        let addressed = self.addressed(&instance, &uuid::Uuid::new_v4().to_string());
        let message = announcement(&self.site, addressed, &arn, &cluster, &sent);
        if let Err(problem) = self.queue(&instance, "AttachTaskNetworkInterfacesMessage", message, true) {
            self.interface_is_over(&arn);
            if let Some(task) = self.task_mut(&arn) {
                task.mark_stopped(&problem, now());
            }
        }
    }

    /// The agent has reported these attachments of a task. The task is sent once its interface is attached.
    pub(super) fn attached(&mut self, task: &str, attachments: &Value) -> Result<(), String> {
        let Some(task) = self.tasks.iter_mut().find(|known| known.arn == task) else { return Ok(()) };
        let Some(interface) = task.interface.as_mut().filter(|it| it.status == InterfaceStatus::Attaching) else {
            return Ok(());
        };
        let arn = interface.attachment_arn(&self.site);
        let mut reported = attachments.as_array().into_iter().flatten();
        let is_attached =
            reported.any(|reported| reported["attachmentArn"] == arn.as_str() && reported["status"] == "ATTACHED");
        if !is_attached {
            return Ok(());
        }
        let (arn, payload, instance) = (task.arn.clone(), task.payload.clone(), task.instance_arn.clone());
        self.queue_payload(&instance, &[payload])?;
        let interface = self.task_mut(&arn).and_then(|task| task.interface.as_mut());
        interface.into_iter().for_each(|interface| interface.status = InterfaceStatus::Attached);
        Ok(())
    }

    /// The interface of a task is not needed any more.
    pub(super) fn interface_is_over(&mut self, task: &str) {
        let Some(task) = self.tasks.iter_mut().find(|known| known.arn == task) else { return };
        let Some(interface) = task.interface.as_mut().filter(|it| it.status != InterfaceStatus::Deleted) else {
            return;
        };
        interface.status = InterfaceStatus::Deleted;
        if let Ok(links) = &self.links {
            // There is room, since each living task has one link to remove.
            let _ended = links.try_send(Work::Remove(interface.link.clone()));
        }
    }

    /// ECS has waited long enough for the interface of a task. The text is that of ECS.
    pub(super) fn interface_expired(&mut self, task: &str) {
        let Some(task) = self.tasks.iter_mut().find(|known| known.arn == task) else { return };
        let is_awaited = |interface: &TaskInterface| {
            matches!(interface.status, InterfaceStatus::Precreated | InterfaceStatus::Attaching)
        };
        if task.interface.as_ref().is_some_and(is_awaited) {
            task.mark_stopped("Timeout waiting for network interface provisioning to complete.", now());
            let arn = task.arn.clone();
            self.interface_is_over(&arn);
        }
    }

    /// No interface is needed any more, and no new one is made.
    pub(super) fn end_interfaces(&mut self) {
        let tasks: Vec<String> = self.tasks.iter().map(|task| task.arn.clone()).collect();
        tasks.iter().for_each(|task| self.interface_is_over(task));
        self.links = Err("the server is about to end".to_owned());
    }

    /// Queues a payload with these tasks for an instance. Returns the message id.
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

    /// The tasks with a task role that have not stopped.
    pub(super) fn tasks_with_role(&self) -> Vec<String> {
        let living = self.tasks.iter().filter(|task| task.last_status != TaskStatus::Stopped);
        living.filter(|task| task.payload["roleCredentials"].is_object()).map(|task| task.arn.clone()).collect()
    }

    /// The ids, secret keys and session tokens of the latest credentials of all roles in tasks.
    pub(super) fn role_secrets(&self) -> Vec<Secret> {
        let roles = self
            .tasks
            .iter()
            .flat_map(|task| ["roleCredentials", "executionRoleCredentials"].map(|member| &task.payload[member]));
        let secrets =
            roles.flat_map(|role| ["credentialsId", "secretAccessKey", "sessionToken"].map(|member| &role[member]));
        secrets.filter_map(|secret| secret.as_str().map(Into::into)).collect()
    }

    /// Queues new credentials for the roles of a task. Returns the number of roles.
    pub(super) fn queue_credentials(&mut self, task_arn: &str) -> Result<usize, String> {
        let site = self.site.clone();
        let task = self.task_mut(task_arn).ok_or("no such task")?;
        let (task_arn, instance) = (task.arn.clone(), task.instance_arn.clone());
        let session = task_arn.rsplit('/').next().unwrap_or_default();
        let mut fresh = Vec::new();
        for (member, kind) in [("roleCredentials", "TaskApplication"), ("executionRoleCredentials", "TaskExecution")] {
            if task.payload[member].is_object() {
                renew(&site, &mut task.payload[member], session);
                if member == "roleCredentials" {
                    put_profile(&site, &mut task.payload[member]);
                }
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

    /// Queues a manifest of all tasks that the instance should have. Returns the message id.
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
        needs_ack: bool,
    ) -> Result<(), String> {
        let delivery = self.faults.delivery.clone();
        let instance = self.instance_mut(instance_arn).ok_or("no such container instance")?;
        instance.outbox.push(json!({"type": kind, "message": message}), needs_ack, &delivery)
    }

    /// Queues any text, which need not be a message.
    pub(super) fn queue_text(&mut self, instance_arn: &str, text: &str) -> Result<(), String> {
        let delivery = self.faults.delivery.clone();
        let instance = self.instance_mut(instance_arn).ok_or("no such container instance")?;
        instance.outbox.push(json!({"raw": text}), false, &delivery)
    }

    /// A payload with this message id is queued for the instance.
    pub(super) fn is_payload(&self, instance_arn: &str, message_id: &str) -> bool {
        self.instance(instance_arn).is_some_and(|instance| instance.outbox.holds_payload(message_id))
    }

    /// The first connected instance. If none is connected, the first that is not deregistered.
    pub(super) fn any_instance(&self) -> Option<&Instance> {
        let mut active = self.instances.iter().filter(|instance| instance.status != InstanceStatus::Inactive);
        let first = active.clone().next();
        active.find(|instance| instance.connected()).or(first)
    }

    /// A message with the members that all messages to an instance share.
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
