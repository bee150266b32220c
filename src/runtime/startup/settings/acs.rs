//! Settings of the ACS edge.

use super::super::instance::Instance;
use super::super::offers::Host;
use crate::acs::{HostFacts, session};
use crate::aws::client::signing::Signing;
use crate::config::Config;
use crate::runtime::Options;
use crate::store::Identity;
use crate::version;
use crate::websocket::{self, Contact, Timing};
use aws_credential_types::provider::SharedCredentialsProvider;

/// Settings of the session with ACS.
pub(crate) fn session(
    config: &Config,
    instance: &Instance,
    identity: &Identity,
    host: &Host,
    connection: websocket::session::Settings,
) -> session::Settings {
    session::Settings {
        cluster: identity.cluster.clone(),
        container_instance: identity.container_instance_arn.clone(),
        agent_version: version::REPORTED.to_owned(),
        agent_hash: version::COMMIT.to_owned(),
        docker_version: Some(host.offers.docker_version.clone()),
        host: host_facts(config, &instance.region, host),
        connection,
    }
}

/// Settings of the connection to ACS.
pub(crate) fn connection(
    config: &Config,
    region: &str,
    options: Options,
    credentials: SharedCredentialsProvider,
    signing: Signing,
    contact: Contact,
) -> websocket::session::Settings {
    websocket::session::Settings {
        websocket: websocket::Settings {
            region: region.to_owned(),
            proxy: super::aws::proxy(config),
            signing,
            accept_insecure_cert: options.accept_insecure_cert,
        },
        credentials,
        timing: Timing::default(),
        contact,
    }
}

/// The facts of this host that the translation of a task needs.
pub(crate) fn host_facts(config: &Config, region: &str, host: &Host) -> HostFacts {
    HostFacts {
        region: region.to_owned(),
        host_data_dir: config.host_data_dir.to_string_lossy().into_owned(),
        metadata_files: config.container_metadata,
        task_limits: host.offers.task_limits,
        memory_for_containers: config.propagate_task_memory_limit && host.cgroups.is_unified(),
        volume_plugin: config.volume_plugin_capabilities.iter().cloned().collect(),
        is_external: config.external,
        gpus: config.gpus,
        inferentia: config.inferentia,
        credential_specs: config.gmsa,
        task_networks: host.offers.networks.any,
    }
}
