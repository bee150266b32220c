//! The metadata file of a container (spec `container-metadata-file.md` §4).

use super::observation::Network;
use super::port::PortBinding;
use super::{ContainerName, RuntimeId, TaskArn};

/// What the metadata file of a running container says. The facts about the instance are added where the file is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetadataFile {
    /// ARN of the task.
    pub task: TaskArn,
    /// Task definition family.
    pub family: String,
    /// Task definition revision.
    pub version: String,
    /// The container's name in the task definition.
    pub container: ContainerName,
    /// What is known once the container runs; `None` before.
    pub running: Option<RunningContainer>,
}

/// The part of the file that is known once the container runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunningContainer {
    /// Docker's id of the container.
    pub runtime_id: RuntimeId,
    /// The container's name in Docker.
    pub runtime_name: String,
    /// Image reference from the task definition.
    pub image: String,
    /// Id of the image (`sha256:…`).
    pub image_id: String,
    /// Ports as Docker bound them.
    pub bindings: Vec<PortBinding>,
    /// The networks that the container is connected to.
    pub networks: Vec<Network>,
}
