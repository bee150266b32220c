//! The registration of this instance with ECS.

use serde::{Deserialize, Serialize};

/// The registration of this instance, which survives restarts. The names of its fields must never change, since they are the form
/// on disk (see `instance`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The configured cluster of the instance (name or ARN), or `default`.
    pub cluster: String,
    /// ARN of the container instance, as ECS returned it.
    pub container_instance_arn: String,
    /// Id of the EC2 instance that was registered; empty if it was unknown.
    #[serde(default)]
    pub ec2_instance_id: String,
    /// Availability zone of the instance, as ECS returned it; empty if it did not.
    #[serde(default)]
    pub availability_zone: String,
    /// Version of the agent that registered the instance; empty if that version did not have this field.
    #[serde(default)]
    pub agent_version: String,
}
