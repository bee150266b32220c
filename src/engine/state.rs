//! What the core remembers. Plain data; `apply` writes facts into it, `plan` reads it.
//!
//! Fields marked `#[serde(skip)]` are volatile: they describe this process (what is in flight, when to try again) and mean nothing
//! after a restart. Everything else is on disk before any effect that rests on it starts.

use super::event::Event;
use super::image::{Cleanup, TrackedImage};
use super::policy::Policy;
use super::restart::Restarts;
use crate::model::observation::Mount;
use crate::model::{
    ContainerName, ContainerSpec, ContainerStatus, CredentialsId, Failure, Health, Observation, OpId, PortBinding,
    ResourceStatus, RunState, RuntimeId, TaskArn, TaskSpec, TaskStatus, Tickets, Timestamp,
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Everything the core knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// Waits and limits; fixed for the life of the process.
    pub policy: Policy,
    /// What is remembered beyond single tasks; on disk.
    pub host: HostState,
    /// Every task from its payload until its clean-up; on disk, one document each. Boxed: planning takes a task out and puts it back.
    pub tasks: BTreeMap<TaskArn, Box<TaskState>>,
    /// No task wakes before this moment, so that not all of them need to be looked at in every step.
    pub wakes_from: Timestamp,
    /// The listing of all our containers: is one wanted, in flight, due?
    pub inventory: InventoryState,
    /// Containers with our names and no task, to be removed.
    pub orphans: BTreeMap<String, Orphan>,
    /// Ids of credentials that are in memory.
    pub credentials: BTreeSet<CredentialsId>,
    /// Message id of the last task manifest we asked back about.
    pub asked_manifest: Option<String>,
    /// Last operation id given out. Operations end with the process, so this need not be on disk.
    pub last_op: u64,
    /// Who waits for which operation.
    pub ops: BTreeMap<OpId, Owner>,
    /// Counts steps; orders "asked" and "touched".
    pub steps: u64,
    /// The clean-up of images under way.
    pub images: Cleanup,
    /// What ECS said while the tasks were not known again ([`HostState::lost`]); taken up after the inventory, in this order.
    pub held: Vec<Event>,
}

/// Names one stored document.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// [`HostState`].
    Host,
    /// One [`TaskState`].
    Task(TaskArn),
}

/// Facts beyond single tasks that outlive the process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostState {
    /// Highest sequence number seen in payloads and manifests; an older manifest is not believed.
    pub seq: i64,
    /// Number of the task that arrived last; orders the queue for admission.
    pub arrivals: u64,
    /// Images that were pulled with success, for `ECS_IMAGE_PULL_BEHAVIOR=once`.
    pub pulled_images: BTreeSet<String>,
    /// Images that tasks have used, by id.
    #[serde(default)]
    pub images: BTreeMap<String, TrackedImage>,
    /// Tasks may be missing here: the next inventory rebuilds those whose containers it finds.
    #[serde(default)]
    pub lost: bool,
}

/// One task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskState {
    /// What was asked for.
    pub spec: TaskSpec,
    /// Place in the order of arrival.
    pub arrival: u64,
    /// What ECS wants, lowered for good when an essential container is lost. `Running` or `Stopped`.
    pub desired: TaskStatus,
    /// What is so. Never goes back.
    pub known: TaskStatus,
    /// When `known` changed last.
    pub known_at: Timestamp,
    /// It was `Running` once. ECS hears of that even if the task has stopped meanwhile.
    pub ran: bool,
    /// Last status ECS accepted.
    pub sent: TaskStatus,
    /// Why the task as a whole stopped, if that is not told by a container. Set once.
    pub reason: Option<String>,
    /// It was given its share of the host's CPU, memory and ports.
    pub admitted: bool,
    /// It has its share since before this process: the host may have had more to give then.
    #[serde(skip)]
    pub inherited: bool,
    /// Rebuilt from its containers after the state was lost: the specification holds no more than [`TaskSpec::outline`].
    #[serde(default)]
    pub reduced: bool,
    /// First pull began.
    pub pull_started_at: Option<Timestamp>,
    /// Last pull ended.
    pub pull_stopped_at: Option<Timestamp>,
    /// First essential container stopped.
    pub execution_stopped_at: Option<Timestamp>,
    /// Credentials of the execution role; the id may change when they are renewed.
    pub execution_credentials: Option<CredentialsId>,
    /// Ids that were replaced by that one and are to be dropped from memory.
    #[serde(skip)]
    pub retired_credentials: Vec<CredentialsId>,
    /// Same order as in `spec`.
    pub containers: Vec<ContainerState>,
    /// It was asked to stop when nobody knew it: nothing is known of its containers but these names, and that they do not run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub never_known: Vec<ContainerName>,
    /// Same order as in `spec`.
    #[serde(default)]
    pub resources: Vec<ResourceState>,
    /// The report in flight.
    #[serde(skip)]
    pub report: Option<ReportInFlight>,
    /// Failed reports in a row, and when to try again.
    #[serde(skip)]
    pub report_retry: Retry,
    /// When changes of containers alone are reported, without a change of the task.
    #[serde(skip)]
    pub drain_at: Option<Timestamp>,
    /// Its wait after the stop is over; what is left of it is being removed.
    #[serde(skip)]
    pub removing: bool,
    /// When this task must be planned again although nothing happens.
    #[serde(skip)]
    pub wake: Option<Timestamp>,
}

/// One container of a task.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerState {
    /// What we tell ECS: never goes back.
    pub known: ContainerStatus,
    /// What the engine last said: may go back, and then we act. `None`: it does not exist, or nothing is known of it.
    pub observed: Option<RunState>,
    /// Last status ECS accepted.
    pub sent: ContainerStatus,
    /// It ran once.
    pub ran: bool,
    /// A create was asked for at some time, so that something may be there to remove.
    pub create_asked: bool,
    /// Nothing is left of it in the engine.
    pub removed: bool,
    /// How often it was started again after it ended.
    #[serde(default)]
    pub restarts: Restarts,
    /// Why it cannot go on, or how it ended. The first one stays.
    pub failure: Option<Failure>,
    /// Resolving or pulling failed, which matters only if create then finds no image.
    pub pull_failure: Option<Failure>,
    /// The engine's id.
    pub runtime_id: Option<RuntimeId>,
    /// Digest of the image: that of its reference, or what the registry said.
    pub digest: Option<String>,
    /// Digest of the image on this host that it was created from. Told where there is no other; no news by itself, since a pull
    /// that failed may have left an old one in use.
    #[serde(default)]
    pub local_digest: Option<String>,
    /// Id of the image (`sha256:…`).
    pub image_id: String,
    /// Exit code, once it ran and ended.
    pub exit_code: Option<i32>,
    /// Result of its health check.
    pub health: Health,
    /// When it was first seen running, by our clock.
    pub running_since: Option<Timestamp>,
    /// Time of creation in the engine's words.
    pub created_at: Option<String>,
    /// Time of start in the engine's words.
    pub started_at: Option<String>,
    /// When `known` changed last.
    pub changed_at: Timestamp,
    /// Published ports.
    pub bindings: Vec<PortBinding>,
    /// Mounts.
    pub mounts: Vec<Mount>,
    /// Its last address in the engine's default network.
    #[serde(default)]
    pub address: Option<String>,
    /// What is in flight: at most one.
    #[serde(skip)]
    pub operation: Option<Operation>,
    /// Nothing is done to it before it was looked at: an outcome was unknown, or the agent has just started.
    #[serde(skip)]
    pub unsettled: bool,
    /// Failures in a row, and when to try again.
    #[serde(skip)]
    pub retry: Retry,
    /// What to say if it turns out that an operation with unknown outcome did not happen.
    #[serde(skip)]
    pub doubt: Option<(OperationKind, Failure)>,
    /// How often that was so in a row.
    #[serde(skip)]
    pub doubts: u32,
    /// The step in which we last did or learnt something; an older inventory does not speak for it.
    #[serde(skip)]
    pub touched: u64,
}

/// One resource of a task.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceState {
    /// How far it has come.
    pub known: ResourceStatus,
    /// A create was asked for at some time, so that something may be there to remove.
    pub create_asked: bool,
    /// What its making gave, for as long as it is there: containers are created with it, and its removal takes it back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tickets: Option<Tickets>,
    /// Credentials have come since it was made or renewed last. Not kept: so are the credentials, and they come again.
    #[serde(skip)]
    pub renewal_due: bool,
    /// What is in flight: at most one.
    #[serde(skip)]
    pub operation: Option<ResourceOperation>,
    /// Its removal has begun.
    #[serde(skip)]
    pub removing: bool,
    /// Failures in a row, of its making or of its removal, and when to try again.
    #[serde(skip)]
    pub retry: Retry,
}

/// Something in flight for a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResourceOperation {
    /// Its outcome carries the same id.
    pub id: OpId,
    /// What it is.
    pub kind: ResourceOperationKind,
    /// When it was asked for.
    pub since: Timestamp,
}

/// Operations on one resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResourceOperationKind {
    /// Making it.
    Create,
    /// Keeping it from ending.
    Renew,
    /// Removing it.
    Remove,
}

/// Something in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Its outcome carries the same id.
    pub id: OpId,
    /// What it is.
    pub kind: OperationKind,
    /// When it was asked for.
    pub since: Timestamp,
    /// The step in which it was asked for: what was learnt since is newer than a look.
    pub asked: u64,
}

/// Who waits for an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    /// The container of that index.
    Container(TaskArn, usize),
    /// The resource of that index.
    Resource(TaskArn, usize),
    /// The task's report.
    Report(TaskArn),
    /// The inventory.
    Inventory,
    /// The removal of an orphan.
    Orphan(String),
    /// The clean-up of images.
    Images,
}

/// Operations on one container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OperationKind {
    /// Finding the digest.
    ResolveDigest,
    /// Pulling the image.
    Pull,
    /// Creating.
    Create,
    /// Starting.
    Start,
    /// Stopping.
    Stop,
    /// Looking.
    Inspect,
    /// Removing.
    Remove,
}

impl OperationKind {
    /// It concerns the image and not yet a container.
    pub fn is_image_work(self) -> bool {
        matches!(self, Self::ResolveDigest | Self::Pull)
    }
}

/// A report on its way to ECS, and what will be `sent` when it is accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportInFlight {
    /// Its outcome carries the same id.
    pub op: OpId,
    /// Status of the task.
    pub status: TaskStatus,
    /// Status of each container it speaks of, by index.
    pub containers: Vec<(usize, ContainerStatus)>,
}

/// Failures in a row and the moment before which nothing is tried again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retry {
    /// Failures in a row.
    pub attempts: u32,
    /// Not before this.
    pub not_before: Timestamp,
}

/// The listing of all our containers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InventoryState {
    /// One is needed now.
    pub wanted: bool,
    /// The one in flight, and the step it was asked in.
    pub in_flight: Option<(OpId, u64)>,
    /// When the next one is due even if nothing was missed.
    pub due: Timestamp,
    /// Failures in a row, and when to try again.
    pub retry: Retry,
}

/// A container without a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Orphan {
    /// The task it was made for.
    pub task: TaskArn,
    /// Its name there.
    pub container: ContainerName,
    /// Its removal in flight.
    pub op: Option<OpId>,
    /// Failures in a row, and when to try again.
    pub retry: Retry,
}

impl Orphan {
    /// As it was found.
    pub fn of(seen: &Observation) -> Self {
        Self { task: seen.task.clone(), container: seen.container.clone(), op: None, retry: Retry::default() }
    }
}

impl State {
    /// The last moment at which anything changed that is remembered.
    pub fn latest_moment(&self) -> Option<Timestamp> {
        let containers = self.tasks.values().flat_map(|task| &task.containers).map(|container| container.changed_at);
        containers.chain(self.tasks.values().map(|task| task.known_at)).max()
    }

    /// A new operation, and who waits for it.
    pub fn new_op(&mut self, owner: Owner) -> OpId {
        self.last_op += 1;
        let op = OpId(self.last_op);
        self.ops.insert(op, owner);
        op
    }
}

/// Names of pulled images that are remembered; one that is forgotten is pulled once more.
const MOST_PULLED_IMAGES: usize = 10_000;

impl HostState {
    /// Notes that an image came from its registry; true if that was not known.
    pub fn remember_pulled(&mut self, image: String) -> bool {
        if self.pulled_images.contains(&image) {
            return false;
        }
        if self.pulled_images.len() >= MOST_PULLED_IMAGES {
            self.pulled_images.pop_first();
        }
        self.pulled_images.insert(image)
    }
}

impl TaskState {
    /// A task that has just arrived.
    pub fn new(spec: TaskSpec, arrival: u64, now: Timestamp) -> Self {
        let containers = spec.containers.iter().map(|_| ContainerState::default()).collect();
        let resources = spec.resources.iter().map(|_| ResourceState::default()).collect();
        Self {
            execution_credentials: spec.execution_credentials.clone(),
            spec,
            arrival,
            desired: TaskStatus::Running,
            known: TaskStatus::None,
            known_at: now,
            ran: false,
            sent: TaskStatus::None,
            reason: None,
            admitted: false,
            inherited: false,
            reduced: false,
            pull_started_at: None,
            pull_stopped_at: None,
            execution_stopped_at: None,
            retired_credentials: Vec::new(),
            containers,
            never_known: Vec::new(),
            resources,
            report: None,
            report_retry: Retry::default(),
            drain_at: None,
            removing: false,
            wake: None,
        }
    }

    /// A task that is over before it began: to be reported as stopped, for this reason.
    pub fn stopped(arn: TaskArn, reason: Option<String>, arrival: u64, now: Timestamp) -> Self {
        let spec = TaskSpec { arn, ..TaskSpec::default() };
        Self { desired: TaskStatus::Stopped, known: TaskStatus::Stopped, reason, ..Self::new(spec, arrival, now) }
    }

    /// Index of the container of that name.
    pub fn index_of(&self, name: &ContainerName) -> Option<usize> {
        self.spec.containers.iter().position(|container| &container.name == name)
    }

    /// Containers with what was asked of them.
    pub fn pairs(&self) -> impl Iterator<Item = (&ContainerSpec, &ContainerState)> {
        self.spec.containers.iter().zip(&self.containers)
    }

    /// One of its containers runs, as far as the engine last said.
    pub fn is_seen_running(&self) -> bool {
        self.containers.iter().any(|container| container.observed == Some(RunState::Running))
    }

    /// The container must end, or has ended.
    pub fn wants_stop(&self, index: usize) -> bool {
        self.desired == TaskStatus::Stopped || self.containers[index].failure.is_some() || self.containers[index].over()
    }
}

impl ContainerState {
    /// It is known to be stopped.
    pub fn over(&self) -> bool {
        self.known == ContainerStatus::Stopped
    }

    /// Raises `known`; never lowers it.
    pub fn raise(&mut self, status: ContainerStatus, now: Timestamp) {
        if status > self.known {
            self.known = status;
            self.changed_at = now;
        }
    }

    /// The first failure stays; later ones are consequences.
    pub fn fail(&mut self, failure: Failure) {
        self.failure.get_or_insert(failure);
    }

    /// Copies what an observation tells beyond the state of the process.
    pub fn remember(&mut self, seen: &Observation) {
        self.runtime_id = Some(seen.runtime_id.clone());
        self.image_id.clone_from(&seen.image_id);
        if seen.image_digest.is_some() {
            self.local_digest.clone_from(&seen.image_digest);
        }
        if seen.created_at.is_some() {
            self.created_at.clone_from(&seen.created_at);
        }
        // Compat: the first start stays, however often it is started again.
        if seen.started_at.is_some() && (self.restarts.count == 0 || self.started_at.is_none()) {
            self.started_at.clone_from(&seen.started_at);
        }
        self.mounts.clone_from(&seen.mounts);
        if !seen.bindings.is_empty() {
            self.bindings.clone_from(&seen.bindings);
        }
        if seen.address.is_some() {
            self.address.clone_from(&seen.address);
        }
        if seen.health != Health::Unknown {
            self.health = seen.health;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::sample::{NOW, seen};
    use crate::model::Span;

    #[test]
    fn the_memory_of_pulled_images_is_bounded() {
        let mut host = HostState::default();
        let names: Vec<String> = (0..MOST_PULLED_IMAGES).map(|nth| format!("{nth:05}")).collect();
        assert!(names.iter().all(|name| host.remember_pulled(name.clone())));
        assert!(!host.remember_pulled("00000".to_owned()), "it is known");
        assert_eq!(host.pulled_images.len(), MOST_PULLED_IMAGES);
        assert!(host.remember_pulled("z".to_owned()));
        assert_eq!(host.pulled_images.len(), MOST_PULLED_IMAGES);
        assert!(host.pulled_images.contains("z") && host.pulled_images.contains("09999"));
    }

    #[test]
    fn a_status_is_raised_once_and_never_lowered() {
        let mut container = ContainerState::default();
        container.raise(ContainerStatus::Created, NOW);
        assert_eq!((container.known, container.changed_at), (ContainerStatus::Created, NOW));
        let later = NOW + Span::secs(1);
        for same_or_less in [ContainerStatus::Created, ContainerStatus::Pulled] {
            container.raise(same_or_less, later);
            assert_eq!((container.known, container.changed_at), (ContainerStatus::Created, NOW));
        }
    }

    #[test]
    fn the_latest_moment_is_that_of_any_task_or_container() {
        use crate::engine::sample::{container, task};
        let mut state = State::default();
        assert_eq!(state.latest_moment(), None);
        let mut task = task(vec![container("a", &[])]);
        (task.known_at, task.containers[0].changed_at) = (Timestamp(5), Timestamp(7));
        state.tasks.insert("task".into(), Box::new(task));
        assert_eq!(state.latest_moment(), Some(Timestamp(7)));
        state.tasks.get_mut(&"task".into()).unwrap().known_at = Timestamp(9);
        assert_eq!(state.latest_moment(), Some(Timestamp(9)));
    }

    #[test]
    fn a_look_that_tells_less_does_not_make_us_forget() {
        let mut container = ContainerState::default();
        let mut full = seen("task", "a", "id", RunState::Running);
        full.health = Health::Healthy;
        full.bindings = vec![PortBinding {
            container_port: 80,
            host_port: 8080,
            bind_ip: String::new(),
            protocol: crate::model::Protocol::Tcp,
        }];
        (full.created_at, full.started_at) = (Some("then".to_owned()), Some("later".to_owned()));
        full.address = Some("172.17.0.2".to_owned());
        container.remember(&full);
        assert_eq!(container.runtime_id, Some(RuntimeId::from("id")));
        container.remember(&Observation { started_at: None, ..seen("task", "a", "id", RunState::Exited) });
        assert_eq!((container.health, &container.bindings), (Health::Healthy, &full.bindings));
        assert_eq!((&container.created_at, &container.address), (&full.created_at, &full.address));
        assert_eq!(container.started_at, full.started_at);
        full.health = Health::Unhealthy;
        container.remember(&full);
        assert_eq!(container.health, Health::Unhealthy);
    }
}
