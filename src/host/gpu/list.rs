//! The form of the list of GPUs, and its place.

use serde::{Deserialize, Serialize};

/// Path of the file, on the host and in the container of ecs-init.
pub(super) const FILE: &str = "/var/lib/ecs/gpu/nvidia-gpu-info.json";

/// The content of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gpus {
    /// Version of the driver; empty if unknown.
    #[serde(rename = "DriverVersion", default)]
    pub driver: String,
    /// Ids of the GPUs, as tasks get them.
    #[serde(rename = "GPUIDs", default)]
    pub ids: Vec<String>,
}
