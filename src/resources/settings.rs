//! The settings of the edge that creates resources.

use std::path::PathBuf;

/// The settings of this edge.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// The agent's data directory (`ECS_DATADIR`).
    pub data_dir: PathBuf,
    /// The name of the cluster.
    pub cluster: String,
    /// The id of the EC2 instance; empty if there is none.
    pub instance_id: String,
    /// The socket of the credentials fetcher (`CREDENTIALS_FETCHER_HOST_DIR`).
    pub credentials_fetcher: PathBuf,
    /// What metadata files say about this instance.
    pub instance: InstanceFacts,
}

/// The facts about this instance that every file contains. Empty: not known, and then left out.
#[derive(Clone, Debug, Default)]
pub struct InstanceFacts {
    /// The cluster as the operator named it; empty if the operator named none.
    pub cluster: String,
    /// ARN of the container instance.
    pub container_instance: String,
    /// Availability zone of the registration, such as `us-west-2b`.
    pub availability_zone: String,
    /// Private IPv4 address of the instance.
    pub private_ipv4: String,
    /// Public IPv4 address of the instance.
    pub public_ipv4: String,
}
