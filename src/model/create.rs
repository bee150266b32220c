//! Everything the container engine needs to create one container.

use super::{ContainerSpec, TaskArn, TaskSpec};

/// A container to create, with the names that were decided before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CreateRequest {
    /// The task it belongs to.
    pub task: TaskArn,
    /// Task definition family.
    pub family: String,
    /// Task definition revision.
    pub version: String,
    /// The name to create it under.
    pub runtime_name: String,
    /// What it is.
    pub spec: ContainerSpec,
    /// Links: name the target was created under, and the alias it is to be reachable by.
    pub links: Vec<(String, String)>,
    /// The containers whose volumes it mounts: name the other was created under, and whether read-only.
    pub volumes_from: Vec<(String, bool)>,
    /// Name of the task's pause container, if it has one.
    pub pause: Option<String>,
    /// It runs below the task's control group.
    pub in_task_cgroup: bool,
    /// Address of the task's log router, once it is known.
    pub router_address: Option<String>,
    /// What the container shall tell of its task if the agent's state is lost.
    pub outline: TaskSpec,
}
