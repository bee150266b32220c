//! The settings of the edge that creates resources.

use super::metadata_file::InstanceFacts;
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
