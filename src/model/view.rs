//! What readers (HTTP endpoints) may see of the state: a snapshot without environment, settings or credentials.

use super::observation::Mount;
use super::port::PortBinding;
use super::waiting::Waiting;
use super::{ContainerKind, ContainerName, ContainerStatus, Health, RuntimeId, TaskArn, TaskStatus, Timestamp};

/// Everything readers may see, as of one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// All tasks the agent knows, in the order of their ARNs.
    pub tasks: Vec<TaskView>,
}

/// One task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskView {
    /// Identity.
    pub arn: TaskArn,
    /// Task definition family.
    pub family: String,
    /// Task definition revision.
    pub version: String,
    /// What ECS wants.
    pub desired: TaskStatus,
    /// What is so.
    pub known: TaskStatus,
    /// What holds it up, if it is not where it should be.
    pub waits: Vec<Waiting>,
    /// Its containers in the order of the task definition.
    pub containers: Vec<ContainerView>,
}

/// One container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerView {
    /// Whose it is.
    pub kind: ContainerKind,
    /// Name in the task definition.
    pub name: ContainerName,
    /// The engine's id; `None` before create.
    pub runtime_id: Option<RuntimeId>,
    /// The name it is or will be created under.
    pub runtime_name: String,
    /// Image as in the task definition.
    pub image: String,
    /// `sha256:…`; empty before create.
    pub image_id: String,
    /// How far it has come.
    pub known: ContainerStatus,
    /// RFC 3339, from the engine.
    pub created_at: Option<String>,
    /// RFC 3339, from the engine.
    pub started_at: Option<String>,
    /// Ports as bound, or as asked for while none is bound (then `bind_ip` is empty).
    pub ports: Vec<PortBinding>,
    /// Mounts as seen.
    pub mounts: Vec<Mount>,
    /// Result of its health check.
    pub health: Health,
    /// Exit code, once stopped.
    pub exit_code: Option<i32>,
    /// When it was last seen to change.
    pub changed_at: Timestamp,
}
