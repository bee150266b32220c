//! The view: a snapshot of the state for readers such as HTTP endpoints, without environment variables, settings or credentials.
//! It has the random ids under which containers ask the task metadata endpoint. No answer may contain the ids of another task.

use super::observation::{LastCheck, Mount, Network};
use super::port::PortBinding;
use super::task::NetworkMode;
use super::task::{Association, LogSettings};
use super::usage::Process;
use super::waiting::Waiting;
use super::{
    ContainerKind, ContainerName, ContainerStatus, CredentialsId, EndpointId, Health, Interface, RoleKind, RuntimeId,
    TaskArn, TaskStatus, TextMap, Timestamp,
};
use std::net::Ipv4Addr;
use std::sync::Arc;

/// Everything that readers may see, at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// Tasks may be missing: the agent has lost its state, and Docker has not listed their containers yet.
    pub is_incomplete: bool,
    /// When this view was made. It has been true since; a view that would show nothing new is not made.
    pub at: Timestamp,
    /// All tasks that the agent knows, in the order of their ARNs. The view of a task that has not changed is shared with earlier
    /// views.
    pub tasks: Vec<Arc<TaskView>>,
}

impl View {
    /// Whether both views share all tasks, so that one shows nothing that the other does not.
    pub fn shows_the_same(&self, other: &Self) -> bool {
        let mut pairs = self.tasks.iter().zip(&other.tasks);
        self.is_incomplete == other.is_incomplete
            && self.tasks.len() == other.tasks.len()
            && pairs.all(|(task, other)| Arc::ptr_eq(task, other))
    }
}

impl View {
    /// Whether programs of this task may still run. A task that is missing in an incomplete view may.
    pub fn may_run(&self, task: &TaskArn) -> bool {
        let shown = self.tasks.iter().find(|shown| shown.arn == *task);
        shown.map_or(self.is_incomplete, |shown| shown.known < TaskStatus::Stopped)
    }
}

/// The view of one task.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskView {
    /// ARN of the task.
    pub arn: TaskArn,
    /// Task definition family.
    pub family: String,
    /// Task definition revision.
    pub version: String,
    /// Name of the service that owns the task; empty for a standalone task.
    pub service_name: String,
    /// Launch type, such as `EC2`; empty if ECS named none.
    pub launch_type: String,
    /// CPU limit of the task as a whole in millionths of a vCPU; 0: none.
    pub cpu_micros: u64,
    /// Memory limit of the task as a whole in MiB; 0: none.
    pub memory: u64,
    /// Devices and other things that containers of the task may look up.
    pub associations: Vec<Association>,
    /// The network mode of the task.
    pub network: NetworkMode,
    /// The task's own network interfaces, the primary one first; empty unless the network mode is `awsvpc`.
    pub interfaces: Vec<Interface>,
    /// The task's address on the bridge between the host and its tasks; `None` if it has none, or none any more.
    pub local_address: Option<Ipv4Addr>,
    /// The network in the namespace of the pause container is set up. False for all other network modes.
    pub network_is_up: bool,
    /// True: programs in the task may start network faults.
    pub fault_injection: bool,
    /// The roles whose credentials the task may request now.
    pub roles: Vec<RoleView>,
    /// The status that the task should reach.
    pub desired: TaskStatus,
    /// The status that the task has reached.
    pub known: TaskStatus,
    /// When the first pull of the task began; `None` before.
    pub pull_started_at: Option<Timestamp>,
    /// When the last pull of the task ended; `None` before.
    pub pull_stopped_at: Option<Timestamp>,
    /// When the first essential container stopped; `None` before.
    pub execution_stopped_at: Option<Timestamp>,
    /// Since when a change waits that ECS has not accepted; `None`: ECS has accepted all that was to be reported.
    pub unreported_since: Option<Timestamp>,
    /// What the task and its containers wait for; empty if none of them waits.
    pub waits: Vec<Waiting>,
    /// The containers, in the order of the task definition.
    pub containers: Vec<ContainerView>,
}

/// A role of a task, with the ids of its credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoleView {
    /// The kind of the role.
    pub kind: RoleKind,
    /// The id of the latest credentials. They are not in memory between a restart of the agent and the moment at which ECS sends
    /// them again.
    pub current: CredentialsId,
    /// The ids that the task's containers, or their log drivers, were created with, each once. Whoever asks for one of them gets
    /// the latest credentials.
    pub given: Vec<CredentialsId>,
}

/// The view of one container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerView {
    /// Whether the container is the customer's or the agent's.
    pub kind: ContainerKind,
    /// The container's name in the task definition.
    pub name: ContainerName,
    /// ARN of the container; empty if ECS named none.
    pub arn: String,
    /// The container's id in the URLs of the task metadata endpoint; `None`: it has none.
    pub endpoint_id: Option<EndpointId>,
    /// Docker's id of the container; `None` before the create.
    pub runtime_id: Option<RuntimeId>,
    /// The first process of the container; `None` if it does not run, or if Docker has not named the process yet.
    pub process: Option<Process>,
    /// The name under which the container is or will be created in Docker.
    pub runtime_name: String,
    /// Image reference from the task definition.
    pub image: String,
    /// Id of the image (`sha256:…`); empty before the create.
    pub image_id: String,
    /// The status that the container should reach: `Running` or `Stopped`.
    pub desired: ContainerStatus,
    /// The status that the container has reached.
    pub known: ContainerStatus,
    /// RFC 3339 time of the creation, as Docker prints it; `None` if it is not known.
    pub created_at: Option<String>,
    /// RFC 3339 time of the start, as Docker prints it; `None` if it is not known.
    pub started_at: Option<String>,
    /// RFC 3339 time of the last end, as Docker prints it; `None` if it is not known.
    pub finished_at: Option<String>,
    /// CPU units (1024 = one vCPU).
    pub cpu: u32,
    /// Hard memory limit in MiB; 0: none.
    pub memory: u32,
    /// Docker has bound `ports`.
    pub ports_are_bound: bool,
    /// Ports as Docker bound them. While none is bound, the ports of the task definition, with an empty `bind_ip`.
    pub ports: Vec<PortBinding>,
    /// Mounts as Docker shows them.
    pub mounts: Vec<Mount>,
    /// The networks that the container is connected to; empty if they are not known.
    pub networks: Vec<Network>,
    /// Labels, without those that this agent uses for itself; empty before the create.
    pub labels: TextMap,
    /// The log driver as the task definition names it.
    pub log: LogSettings,
    /// Number of restarts by the restart policy; `None` if the container has no such policy.
    pub restarts: Option<u32>,
    /// The container has a health check whose result counts.
    pub has_health_check: bool,
    /// The last result of the health check.
    pub health: Health,
    /// When `health` last changed; `None` if it is not known.
    pub health_since: Option<Timestamp>,
    /// The health check after which `health` last changed.
    pub health_check: LastCheck,
    /// Exit code; `None` unless the container has stopped and the code is known.
    pub exit_code: Option<i32>,
    /// When the status of the container last changed.
    pub changed_at: Timestamp,
}
