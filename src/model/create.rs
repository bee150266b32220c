//! What the engine's edge needs to create one container. Plain data that the core builds and the edge reads.
//!
//! Names are already decided here (spec `docker-mapping.md` §2), so that creating twice finds the first container again.

use super::{ContainerSpec, TaskArn};

/// One container to be created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateRequest {
    /// The task it belongs to.
    pub task: TaskArn,
    /// Task definition family, for the labels.
    pub family: String,
    /// Task definition revision, for the labels.
    pub version: String,
    /// The name to create it under.
    pub runtime_name: String,
    /// What was asked for.
    pub spec: ContainerSpec,
    /// Docker links: the linked container's runtime name, and the alias it is reachable under.
    pub links: Vec<(String, String)>,
}
