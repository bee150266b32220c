//! The state of the core. Plain data: `apply` writes facts into it, `plan` reads it.
//!
//! The `live` field of a task, a container and a resource groups the parts that are kept in memory only (pending operations,
//! when to try again). It is never stored, so it is empty after a restart of the agent. Everything else in these structs is on
//! disk before any effect that depends on it starts.

mod attachment;
mod container;
mod images;
mod network;
mod operation;
mod restarts;
mod retry;

use super::event::Event;
use super::policy::Policy;
use crate::model::text::cleaned;
use crate::model::{
    ContainerKind, ContainerName, ContainerSpec, ContainerStatus, CredentialsId, MacAddress, Observation, OpId,
    ResourceSpec, ResourceStatus, RunState, TaskArn, TaskInfo, TaskSpec, TaskStatus, Tickets, Timestamp, is_default,
};
pub use attachment::{AttachmentRecord, AttachmentReport};
pub use container::{ContainerState, LiveContainer, MAX_REMOVALS};
pub use images::{ImageCleanup, TrackedImage};
pub use network::{LiveNetwork, NetworkOperationKind, NetworkState, NetworkStatus, PendingNetworkOperation};
pub use operation::{OperationKind, OperationOwner, PendingOperation, PendingResourceOperation, ResourceOperationKind};
pub(crate) use restarts::is_earlier;
pub use restarts::{NoRestart, Restarts};
pub use retry::Retry;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

/// Everything the core knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// The operator's settings; fixed for the life of the process.
    pub policy: Policy,
    /// Facts that concern no single task; on disk.
    pub host: HostState,
    /// Every task from its payload to its clean-up, by ARN; on disk, one document each. Boxed, because planning takes a task out
    /// of the map and puts it back.
    pub tasks: BTreeMap<TaskArn, Box<TaskState>>,
    /// No task has an earlier `wake` than this moment, so most steps need not look at every task.
    pub wakes_from: Timestamp,
    /// Whether an inventory, the listing of all containers of this agent, is due or pending.
    pub inventory: InventoryState,
    /// Orphans, by Docker's id: containers that have a name of this agent but belong to no task. They are removed.
    pub orphans: BTreeMap<String, Orphan>,
    /// Ids of the credentials that the agent holds in memory.
    pub credentials: BTreeSet<CredentialsId>,
    /// Message id of the last manifest that was acknowledged; `None` if there is none, or if ECS has answered which of the tasks
    /// that it did not list must stop.
    pub last_manifest: Option<String>,
    /// The last operation id that was assigned. Operations end with the process, so it is not stored.
    pub last_op: u64,
    /// The owner of each pending operation: the part of the state that its outcome is written to.
    pub ops: BTreeMap<OpId, OperationOwner>,
    /// Number of steps so far. `asked_in_step` and `touched` are numbers of steps.
    pub steps: u64,
    /// The clean-up of images.
    pub images: ImageCleanup,
    /// Messages of ECS that arrived while [`HostState::lost`] was set, in their order. They are applied after the inventory.
    pub held: Vec<Event>,
    /// The hardware addresses of the interfaces on the host, as last seen.
    pub interfaces: BTreeSet<MacAddress>,
    /// The reports of attachments that are due or pending, by the attachment's ARN.
    pub attachment_reports: BTreeMap<String, AttachmentReport>,
}

/// The key of one stored document.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// [`HostState`].
    Host,
    /// The [`TaskState`] of the task with this ARN.
    Task(TaskArn),
}

/// Facts that concern no single task and that outlive the process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostState {
    /// The highest sequence number seen in payloads and manifests. An older manifest is ignored.
    pub seq: i64,
    /// Number of tasks that have arrived. It gives each task its `arrival`, which orders the queue for admission.
    pub arrivals: u64,
    /// References of the images that were pulled successfully, for `ECS_IMAGE_PULL_BEHAVIOR=once`.
    pub pulled_images: BTreeSet<String>,
    /// Images that tasks have used, by image id.
    #[serde(default)]
    pub images: BTreeMap<String, TrackedImage>,
    /// The state on disk was lost, so tasks may be missing. The next inventory rebuilds the tasks whose containers it finds.
    #[serde(default)]
    pub lost: bool,
    /// The attachments that ECS has announced, by ARN.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attachments: BTreeMap<String, AttachmentRecord>,
    /// The last address of a task on the bridge that was given or returned; `None` before the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_local_address: Option<Ipv4Addr>,
}

/// The state of one task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskState {
    /// The specification of the task as a whole.
    pub spec: TaskInfo,
    /// The task's number in the order of arrival, from 1.
    pub arrival: u64,
    /// The status that the task should reach: `Running` or `Stopped`. It becomes `Stopped` for good when ECS asks for that or an
    /// essential container is lost.
    pub desired: TaskStatus,
    /// The status that the task has reached. It never goes back.
    pub known: TaskStatus,
    /// When `known` last changed.
    pub known_at: Timestamp,
    /// The task has been `Running` at least once. `RUNNING` is reported to ECS even if the task has stopped since.
    pub ran: bool,
    /// The last status of the task that ECS has accepted.
    pub sent: TaskStatus,
    /// Why the task as a whole stopped; `None` if the failures of its containers explain it. Set once.
    pub reason: Option<String>,
    /// The task has been admitted: it holds its share of the host's CPU, memory, ports and GPUs until it has stopped.
    pub admitted: bool,
    /// The task was rebuilt from its containers after the state was lost. Its specification holds no more than
    /// [`TaskSpec::outline`].
    #[serde(default)]
    pub reduced: bool,
    /// When the first pull of the task began; `None` before.
    pub pull_started_at: Option<Timestamp>,
    /// When the last pull of the task ended; `None` before the first has ended.
    pub pull_stopped_at: Option<Timestamp>,
    /// When the first essential container stopped; `None` before.
    pub execution_stopped_at: Option<Timestamp>,
    /// Id of the credentials of the task execution role; `None` if the task has no such role. A renewal may change the id.
    pub execution_credentials: Option<CredentialsId>,
    /// Id of the latest credentials of the task role; `None` if the task has no such role, or has stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role_credentials: Option<CredentialsId>,
    /// The containers, in the order of the task definition; those that the agent adds come last.
    pub containers: Vec<Container>,
    /// Names of the containers of a task that ECS asked to stop and that was unknown here. Nothing else is known of them, except
    /// that they do not run. Empty for all other tasks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub never_known: Vec<ContainerName>,
    /// What the task needs besides containers.
    #[serde(default)]
    pub resources: Vec<Resource>,
    /// The network that the containers share, if the task has interfaces of its own.
    #[serde(default, skip_serializing_if = "is_default")]
    pub network: NetworkState,
    /// The part of the state that is kept in memory only.
    #[serde(skip)]
    pub live: LiveTask,
}

/// The part of a task's state that is kept in memory only. After a restart of the agent it is empty.
/// [`recover`](super::recover()) then copies the stored `admitted` to `inherited` and has the task planned at once; planning and
/// outcomes fill in the rest again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LiveTask {
    /// The task was admitted before this process started. The host may have been larger then.
    pub inherited: bool,
    /// Earlier values of `execution_credentials`. These credentials are dropped from memory when no operation needs them any
    /// more.
    pub retired_credentials: Vec<CredentialsId>,
    /// The pending report; `None` if there is none.
    pub report: Option<PendingReport>,
    /// Consecutive failed reports, and when to try again.
    pub report_retry: Retry,
    /// When changes of containers are reported even without a change of the task; `None` if there are no such changes.
    pub report_containers_at: Option<Timestamp>,
    /// Since when a change is due to be reported that ECS has not accepted; `None` if there is none.
    pub unreported_since: Option<Timestamp>,
    /// The clean-up has begun: the wait after the task's stop is over, and its containers and resources are being removed.
    pub removing: bool,
    /// Pending operations on the task's network, and failed ones.
    pub network: LiveNetwork,
    /// When the task must be planned again if no event concerns it before; `None`: not without an event.
    pub wake: Option<Timestamp>,
}

/// One container of a task: its specification and its state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    /// The specification of the container; only its outline if the task was rebuilt.
    pub spec: ContainerSpec,
    /// The known facts about the container.
    pub state: ContainerState,
}

/// One resource of a task: its specification and its state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resource {
    /// The specification of the resource; only its outline if the task was rebuilt.
    pub spec: ResourceSpec,
    /// The known facts about the resource.
    pub state: ResourceState,
}

/// The state of one resource of a task.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceState {
    /// The status that the resource has reached.
    pub known: ResourceStatus,
    /// The creation has been requested, so there may be something to remove.
    pub create_asked: bool,
    /// The Kerberos tickets that the creation yielded; `None` while the resource does not exist, and for all other kinds.
    /// Containers are created with them, and the removal of the resource releases their leases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tickets: Option<Tickets>,
    /// The part of the state that is kept in memory only.
    #[serde(skip)]
    pub live: LiveResource,
}

/// The part of a resource's state that is kept in memory only. After a restart of the agent it is empty. The stored `known` and
/// `create_asked` are enough for planning to start an operation again, and ECS sends the credentials that make a renewal due
/// again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LiveResource {
    /// Credentials have arrived since the resource was last created or renewed.
    pub renewal_due: bool,
    /// The pending operation; `None` if there is none.
    pub operation: Option<PendingResourceOperation>,
    /// A removal has been requested at least once.
    pub removing: bool,
    /// Consecutive failures of the creation, the renewal or the removal, and when to try again.
    pub retry: Retry,
}

/// A pending report. When ECS accepts it, these statuses become the `sent` statuses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingReport {
    /// The report's operation; its outcome carries the same id.
    pub op: OpId,
    /// The reported status of the task.
    pub status: TaskStatus,
    /// The index and the reported status of each container in the report.
    pub containers: Vec<(usize, ContainerStatus)>,
}

/// The inventory: the listing of all containers of this agent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InventoryState {
    /// Events may have been missed, so an inventory is due now.
    pub events_missed: bool,
    /// The pending inventory and the number of the step that requested it; `None` if there is none.
    pub pending: Option<(OpId, u64)>,
    /// When the next regular inventory is due.
    pub due: Timestamp,
    /// Consecutive failures, and when to try again.
    pub retry: Retry,
}

/// A container that has a name of this agent but belongs to no task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Orphan {
    /// The task that the container was created for.
    pub task: TaskArn,
    /// The container's name in that task.
    pub container: ContainerName,
    /// The pending removal; `None` if there is none.
    pub op: Option<OpId>,
    /// Consecutive failed removals, and when to try again.
    pub retry: Retry,
}

impl Orphan {
    /// An orphan as an inventory found it.
    pub fn from_observation(seen: &Observation) -> Self {
        Self { task: seen.task.clone(), container: seen.container.clone(), op: None, retry: Retry::default() }
    }
}

impl State {
    /// The latest moment at which the status of a task or a container changed; `None` if there is no task.
    pub fn latest_moment(&self) -> Option<Timestamp> {
        let containers = self.tasks.values().flat_map(|task| task.states()).map(|container| container.changed_at);
        containers.chain(self.tasks.values().map(|task| task.known_at)).max()
    }

    /// Registers a new operation for its owner and returns its id.
    pub fn new_op(&mut self, owner: OperationOwner) -> OpId {
        self.last_op += 1;
        let op = OpId(self.last_op);
        self.ops.insert(op, owner);
        op
    }
}

/// The largest number of references in [`HostState::pulled_images`]. An image whose reference was dropped is pulled once more.
const MAX_PULLED_IMAGES: usize = 10_000;

impl HostState {
    /// Records that an image was pulled from its registry; true if that is new.
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
            role_credentials: spec.role_credentials,
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
            network: NetworkState { local_address: spec.local_address, ..NetworkState::default() },
            live: LiveTask::default(),
        }
    }

    /// A task that is stopped before it begins. It is reported to ECS as stopped, for this reason.
    pub fn stopped(arn: TaskArn, reason: Option<String>, arrival: u64, now: Timestamp) -> Self {
        let spec = TaskSpec { arn, ..TaskSpec::default() };
        // The reason quotes the task definition, which may have names of any length.
        let reason = reason.map(|reason| cleaned(&reason));
        Self { desired: TaskStatus::Stopped, known: TaskStatus::Stopped, reason, ..Self::new(spec, arrival, now) }
    }

    /// The index of the container with this name.
    pub fn index_of(&self, name: &ContainerName) -> Option<usize> {
        self.containers.iter().position(|container| &container.spec.name == name)
    }

    /// The index of the resource with this name.
    pub fn resource_index(&self, name: &str) -> Option<usize> {
        self.resources.iter().position(|resource| resource.spec.name == name)
    }

    /// The specification and the state of each container.
    pub fn pairs(&self) -> impl Iterator<Item = (&ContainerSpec, &ContainerState)> {
        self.containers.iter().map(|container| (&container.spec, &container.state))
    }

    /// The specification of each container.
    pub fn specs(&self) -> impl Iterator<Item = &ContainerSpec> {
        self.containers.iter().map(|container| &container.spec)
    }

    /// The state of each container.
    pub fn states(&self) -> impl Iterator<Item = &ContainerState> {
        self.containers.iter().map(|container| &container.state)
    }

    /// The state of each container, mutable.
    pub fn states_mut(&mut self) -> impl Iterator<Item = &mut ContainerState> {
        self.containers.iter_mut().map(|container| &mut container.state)
    }

    /// The Kerberos tickets that the task holds.
    pub fn tickets(&self) -> impl Iterator<Item = &Tickets> {
        self.resources.iter().filter_map(|resource| resource.state.tickets.as_ref())
    }

    /// The outline of the task with the leases to release and its address on the bridge, for the labels of its containers. An agent that has lost its state
    /// reads it there.
    pub fn outline(&self) -> TaskSpec {
        let containers = self.specs().map(ContainerSpec::outline).collect();
        let resources = self.resources.iter().filter_map(|resource| resource.spec.outline()).collect();
        let leases = self.tickets().flat_map(|tickets| tickets.leases.clone()).collect();
        let local_address = self.network.local_address;
        TaskSpec { leases, local_address, associations: Vec::new(), ..self.spec.with(containers, resources) }
    }

    /// The pause container, whose namespaces the others share; `None` if the task has none.
    pub fn pause(&self) -> Option<&ContainerSpec> {
        self.specs().find(|container| container.kind == ContainerKind::Pause)
    }

    /// A container of the task runs, according to its last observation.
    pub fn is_seen_running(&self) -> bool {
        self.states().any(|container| container.observed == Some(RunState::Running))
    }

    /// The target of operations on the container: Docker's id while the container is seen, else its name. The id belongs to one
    /// incarnation, and a later one may have the same name.
    pub fn target(&self, index: usize) -> String {
        match &self.containers[index].state.runtime_id {
            Some(id) if self.containers[index].state.observed.is_some() => id.as_str().to_owned(),
            Some(_) | None => self.spec.runtime_name(&self.containers[index].spec.name),
        }
    }

    /// The container has reached the status that it should have; only its removal may remain.
    pub fn has_reached_target(&self, index: usize) -> bool {
        let container = &self.containers[index].state;
        if self.must_stop(index) {
            return container.is_stopped() && container.observed != Some(RunState::Running);
        }
        container.known == ContainerStatus::Running && !container.restarts.due
    }

    /// The container should stop, or has stopped.
    pub fn must_stop(&self, index: usize) -> bool {
        let container = &self.containers[index].state;
        self.desired == TaskStatus::Stopped || container.failure.is_some() || container.is_stopped()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_pulled_images_is_bounded() {
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
        use crate::sample::{container, task};
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
