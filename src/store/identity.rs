//! The registration of this instance with ECS.

use serde::{Deserialize, Serialize};

/// The registration of this instance. It outlives restarts. The names of its fields are a form on disk that never changes (`instance`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Name of the cluster that the instance is registered in.
    pub cluster: String,
    /// ARN of the container instance, as ECS returned it.
    pub container_instance_arn: String,
    /// Id of the EC2 instance that was registered; empty if it was unknown.
    #[serde(default)]
    pub ec2_instance_id: String,
    /// Availability zone of the instance, as ECS returned it; empty if it did not.
    #[serde(default)]
    pub availability_zone: String,
    /// Version of the agent that registered the instance; empty if it was written before this field existed.
    #[serde(default)]
    pub agent_version: String,
}
