//! What the edge of resources needs to know of this host and its configuration.

use std::path::PathBuf;

/// What this edge needs to know.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Directory of the agent's data (`ECS_DATADIR`).
    pub data_dir: PathBuf,
    /// Name of the cluster.
    pub cluster: String,
    /// Id of the EC2 instance; empty if there is none.
    pub instance_id: String,
    /// Socket of the credentials fetcher (`CREDENTIALS_FETCHER_HOST_DIR`).
    pub credentials_fetcher: PathBuf,
}
