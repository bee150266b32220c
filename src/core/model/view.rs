//! The view: a snapshot of the state for readers such as HTTP endpoints, without environment variables, settings or credentials.
//! It has the random ids under which containers ask the task metadata endpoint. No answer may contain the ids of another task.

use super::observation::Mount;
use super::port::PortBinding;
use super::task::NetworkMode;
use super::waiting::Waiting;
use super::{
    ContainerKind, ContainerName, ContainerStatus, CredentialsId, EndpointId, Health, RoleKind, RuntimeId, TaskArn,
    TaskStatus, Timestamp,
};
use std::sync::Arc;

/// Everything that readers may see, at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
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
        self.tasks.len() == other.tasks.len() && pairs.all(|(task, other)| Arc::ptr_eq(task, other))
    }
}

impl View {
    /// Whether programs of this task may still run.
    pub fn may_run(&self, task: &TaskArn) -> bool {
        self.tasks.iter().any(|shown| shown.arn == *task && shown.known < TaskStatus::Stopped)
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
    /// The network mode of the task.
    pub network: NetworkMode,
    /// True: programs in the task may start network faults.
    pub fault_injection: bool,
    /// The roles whose credentials the task may request now.
    pub roles: Vec<RoleView>,
    /// The status that the task should reach.
    pub desired: TaskStatus,
    /// The status that the task has reached.
    pub known: TaskStatus,
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
    /// The id that the containers or their log drivers were created with. Whoever asks for it gets the latest credentials.
    pub given: CredentialsId,
}

/// The view of one container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerView {
    /// Whether the container is the customer's or the agent's.
    pub kind: ContainerKind,
    /// The container's name in the task definition.
    pub name: ContainerName,
    /// The container's id in the URLs of the task metadata endpoint; `None`: it has none.
    pub endpoint_id: Option<EndpointId>,
    /// Docker's id of the container; `None` before the create.
    pub runtime_id: Option<RuntimeId>,
    /// The name under which the container is or will be created in Docker.
    pub runtime_name: String,
    /// Image reference from the task definition.
    pub image: String,
    /// Id of the image (`sha256:…`); empty before the create.
    pub image_id: String,
    /// The status that the container has reached.
    pub known: ContainerStatus,
    /// RFC 3339 time of the creation, as Docker prints it; `None` if it is not known.
    pub created_at: Option<String>,
    /// RFC 3339 time of the start, as Docker prints it; `None` if it is not known.
    pub started_at: Option<String>,
    /// Ports as Docker bound them. While none is bound, the ports of the task definition, with an empty `bind_ip`.
    pub ports: Vec<PortBinding>,
    /// Mounts as Docker shows them.
    pub mounts: Vec<Mount>,
    /// The last result of the health check.
    pub health: Health,
    /// Exit code; `None` unless the container has stopped and the code is known.
    pub exit_code: Option<i32>,
    /// When the status of the container last changed.
    pub changed_at: Timestamp,
}
