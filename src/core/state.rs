//! What the core remembers. Plain data; `apply` writes facts into it, `plan` reads it.
//!
//! What is kept in memory only is grouped: the field `live` of a task, a container and a resource holds what describes this process
//! (operations in flight, when to try again). It is never stored, so it is empty after a restart of the agent. Everything else in these
//! structs is on disk before any effect that rests on it starts.

mod container;
mod images;
mod operation;
mod restarts;
mod retry;

use super::event::Event;
use super::policy::Policy;
use crate::model::text::cleaned;
use crate::model::{
    ContainerKind, ContainerName, ContainerSpec, ContainerStatus, CredentialsId, Observation, OpId, ResourceSpec,
    ResourceStatus, RunState, TaskArn, TaskInfo, TaskSpec, TaskStatus, Tickets, Timestamp,
};
pub use container::{ContainerState, LiveContainer};
pub use images::{ImageCleanup, TrackedImage};
pub use operation::{OperationKind, Owner, PendingOperation, PendingResourceOperation, ResourceOperationKind};
pub use restarts::Restarts;
pub use retry::Retry;
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
    pub images: ImageCleanup,
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
    /// What was asked for of the task as a whole.
    pub spec: TaskInfo,
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
    /// Its containers, in the order of the task definition; those the agent adds come last.
    pub containers: Vec<Container>,
    /// It was asked to stop when nobody knew it: nothing is known of its containers but these names, and that they do not run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub never_known: Vec<ContainerName>,
    /// What else it needs.
    #[serde(default)]
    pub resources: Vec<Resource>,
    /// What is kept in memory only.
    #[serde(skip)]
    pub live: LiveTask,
}

/// What is kept of a task in memory only. After a restart of the agent it is empty. [`recover`](super::recover()) then sets `inherited`
/// from the stored `admitted` and has the task planned at once; planning and outcomes fill in the rest again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LiveTask {
    /// It has its share since before this process: the host may have had more to give then.
    pub inherited: bool,
    /// Ids that were replaced by that one and are to be dropped from memory.
    pub retired_credentials: Vec<CredentialsId>,
    /// The report in flight.
    pub report: Option<PendingReport>,
    /// Failed reports in a row, and when to try again.
    pub report_retry: Retry,
    /// When changes of containers alone are reported, without a change of the task.
    pub drain_at: Option<Timestamp>,
    /// Its wait after the stop is over; what is left of it is being removed.
    pub removing: bool,
    /// When this task must be planned again although nothing happens.
    pub wake: Option<Timestamp>,
}

/// One container of a task: what was asked for, and what is known of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    /// What was asked for.
    pub spec: ContainerSpec,
    /// What is known.
    pub state: ContainerState,
}

/// One resource of a task: what was asked for, and what is known of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resource {
    /// What was asked for.
    pub spec: ResourceSpec,
    /// What is known.
    pub state: ResourceState,
}

/// What is known of one resource of a task.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceState {
    /// How far it has come.
    pub known: ResourceStatus,
    /// A create was asked for at some time, so that something may be there to remove.
    pub create_asked: bool,
    /// What its making gave, for as long as it is there: containers are created with it, and its removal takes it back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tickets: Option<Tickets>,
    /// What is kept in memory only.
    #[serde(skip)]
    pub live: LiveResource,
}

/// What is kept of a resource in memory only. After a restart of the agent it is empty. Planning starts any operation again from the
/// stored `known` and `create_asked`, and the credentials that make a renewal due are sent again by ECS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LiveResource {
    /// Credentials have come since it was made or renewed last. Not kept: so are the credentials, and they come again.
    pub renewal_due: bool,
    /// What is in flight: at most one.
    pub operation: Option<PendingResourceOperation>,
    /// Its removal has begun.
    pub removing: bool,
    /// Failures in a row, of its making or of its removal, and when to try again.
    pub retry: Retry,
}

/// A report on its way to ECS, and what will be `sent` when it is accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingReport {
    /// Its outcome carries the same id.
    pub op: OpId,
    /// Status of the task.
    pub status: TaskStatus,
    /// Status of each container it speaks of, by index.
    pub containers: Vec<(usize, ContainerStatus)>,
}

/// The listing of all our containers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InventoryState {
    /// Events may have been missed: a listing is due now.
    pub events_missed: bool,
    /// The one in flight, and the step it was asked in.
    pub pending: Option<(OpId, u64)>,
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
    pub fn from_observation(seen: &Observation) -> Self {
        Self { task: seen.task.clone(), container: seen.container.clone(), op: None, retry: Retry::default() }
    }
}

impl State {
    /// The last moment at which anything changed that is remembered.
    pub fn latest_moment(&self) -> Option<Timestamp> {
        let containers = self.tasks.values().flat_map(|task| task.states()).map(|container| container.changed_at);
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
const MAX_PULLED_IMAGES: usize = 10_000;

impl HostState {
    /// Notes that an image came from its registry; true if that was not known.
    pub fn remember_pulled(&mut self, image: String) -> bool {
        if self.pulled_images.contains(&image) {
            return false;
        }
        if self.pulled_images.len() >= MAX_PULLED_IMAGES {
            self.pulled_images.pop_first();
        }
        self.pulled_images.insert(image)
    }
}

impl TaskState {
    /// A task that has just arrived.
    pub fn new(spec: TaskSpec, arrival: u64, now: Timestamp) -> Self {
        let info = spec.info();
        let container = |spec| Container { spec, state: ContainerState::default() };
        let resource = |spec| Resource { spec, state: ResourceState::default() };
        Self {
            execution_credentials: spec.execution_credentials,
            containers: spec.containers.into_iter().map(container).collect(),
            resources: spec.resources.into_iter().map(resource).collect(),
            spec: info,
            arrival,
            desired: TaskStatus::Running,
            known: TaskStatus::None,
            known_at: now,
            ran: false,
            sent: TaskStatus::None,
            reason: None,
            admitted: false,
            reduced: false,
            pull_started_at: None,
            pull_stopped_at: None,
            execution_stopped_at: None,
            never_known: Vec::new(),
            live: LiveTask::default(),
        }
    }

    /// A task that is over before it began: to be reported as stopped, for this reason.
    pub fn stopped(arn: TaskArn, reason: Option<String>, arrival: u64, now: Timestamp) -> Self {
        let spec = TaskSpec { arn, ..TaskSpec::default() };
        // It quotes the task definition, which may have names of any length.
        let reason = reason.map(|reason| cleaned(&reason));
        Self { desired: TaskStatus::Stopped, known: TaskStatus::Stopped, reason, ..Self::new(spec, arrival, now) }
    }

    /// Index of the container of that name.
    pub fn index_of(&self, name: &ContainerName) -> Option<usize> {
        self.containers.iter().position(|container| &container.spec.name == name)
    }

    /// Index of the resource of that name.
    pub fn resource_index(&self, name: &str) -> Option<usize> {
        self.resources.iter().position(|resource| resource.spec.name == name)
    }

    /// Containers: what was asked for and what is known.
    pub fn pairs(&self) -> impl Iterator<Item = (&ContainerSpec, &ContainerState)> {
        self.containers.iter().map(|container| (&container.spec, &container.state))
    }

    /// What was asked for of each container.
    pub fn specs(&self) -> impl Iterator<Item = &ContainerSpec> {
        self.containers.iter().map(|container| &container.spec)
    }

    /// What is known of each container.
    pub fn states(&self) -> impl Iterator<Item = &ContainerState> {
        self.containers.iter().map(|container| &container.state)
    }

    /// What is known of each container, to be changed.
    pub fn states_mut(&mut self) -> impl Iterator<Item = &mut ContainerState> {
        self.containers.iter_mut().map(|container| &mut container.state)
    }

    /// The name that a container of it is or will be created under.
    pub fn runtime_name(&self, container: &ContainerName) -> String {
        self.spec.runtime_name(container)
    }

    /// The tickets that are held for it.
    pub fn tickets(&self) -> impl Iterator<Item = &Tickets> {
        self.resources.iter().filter_map(|resource| resource.state.tickets.as_ref())
    }

    /// What its containers say of it, for an agent that has lost its state: the outline, and what has to be given back.
    pub fn outline(&self) -> TaskSpec {
        let containers = self.specs().map(ContainerSpec::outline).collect();
        let resources = self.resources.iter().filter_map(|resource| resource.spec.outline()).collect();
        let leases = self.tickets().flat_map(|tickets| tickets.leases.clone()).collect();
        TaskSpec { leases, ..self.spec.with(containers, resources) }
    }

    /// The container in whose namespaces the others live, if there is one.
    pub fn pause(&self) -> Option<&ContainerSpec> {
        self.specs().find(|container| container.kind == ContainerKind::Pause)
    }

    /// One of its containers runs, as far as the engine last said.
    pub fn is_seen_running(&self) -> bool {
        self.states().any(|container| container.observed == Some(RunState::Running))
    }

    /// What the container is asked for by: the engine's id once known, which names one incarnation, where the name may be taken by a later one.
    pub fn target(&self, index: usize) -> String {
        match &self.containers[index].state.runtime_id {
            Some(id) if self.containers[index].state.observed.is_some() => id.as_str().to_owned(),
            Some(_) | None => self.spec.runtime_name(&self.containers[index].spec.name),
        }
    }

    /// Nothing remains to be done for the container but its removal.
    pub fn has_reached_target(&self, index: usize) -> bool {
        let container = &self.containers[index].state;
        if self.must_stop(index) {
            return container.is_stopped() && container.observed != Some(RunState::Running);
        }
        container.known == ContainerStatus::Running && !container.restarts.due
    }

    /// The container must end, or has ended.
    pub fn must_stop(&self, index: usize) -> bool {
        let container = &self.containers[index].state;
        self.desired == TaskStatus::Stopped || container.failure.is_some() || container.is_stopped()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_of_pulled_images_is_bounded() {
        let mut host = HostState::default();
        let names: Vec<String> = (0..MAX_PULLED_IMAGES).map(|nth| format!("{nth:05}")).collect();
        assert!(names.iter().all(|name| host.remember_pulled(name.clone())));
        assert!(!host.remember_pulled("00000".to_owned()), "it is known");
        assert_eq!(host.pulled_images.len(), MAX_PULLED_IMAGES);
        assert!(host.remember_pulled("z".to_owned()));
        assert_eq!(host.pulled_images.len(), MAX_PULLED_IMAGES);
        assert!(host.pulled_images.contains("z") && host.pulled_images.contains("09999"));
    }

    #[test]
    fn the_latest_moment_is_that_of_any_task_or_container() {
        use crate::core::sample::{container, task};
        let mut state = State::default();
        assert_eq!(state.latest_moment(), None);
        let mut task = task(vec![container("a", &[])]);
        (task.known_at, task.containers[0].state.changed_at) = (Timestamp(5), Timestamp(7));
        state.tasks.insert("task".into(), Box::new(task));
        assert_eq!(state.latest_moment(), Some(Timestamp(7)));
        state.tasks.get_mut(&"task".into()).unwrap().known_at = Timestamp(9);
        assert_eq!(state.latest_moment(), Some(Timestamp(9)));
    }
}
