//! The settings of the networks of tasks.

use crate::config::Config;
use crate::network;
use std::path::Path;

/// The processes of the host, as an agent in a container of ecs-init sees them.
const PROCESSES_OF_HOST: &str = "/host/proc";

/// Settings of the networks of tasks.
pub(crate) fn settings(config: &Config) -> network::Settings {
    let defaults = network::Settings::default();
    let mounted = Path::new(PROCESSES_OF_HOST);
    network::Settings {
        block_metadata: config.awsvpc_block_imds,
        additional_routes: config.awsvpc_local_routes.clone(),
        processes: if mounted.join("1").exists() { mounted.to_owned() } else { defaults.processes.clone() },
        ..defaults
    }
}
