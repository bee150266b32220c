//! Says once, before the agent waits for Docker, what its container lacks of the host.
//!
//! [`ecs_core::container_form`] decides what that is. What is said here is not said again by the part that meets it.

use crate::config::Config;
use crate::host::container::{Places, facts};
use crate::host::data_dir;
use ecs_core::container_form::{Lacks, lacks};
use ecs_core::model::container_form::Wanted;

/// What is known about the agent's container.
#[derive(Clone, Debug, Default)]
pub(crate) struct ContainerForm(Option<Lacks>);

impl ContainerForm {
    /// Looks, and logs what is missing.
    pub(crate) async fn check(config: &Config) -> Self {
        let places = Places {
            engine: config.docker_host.clone(),
            data: config.data_dir.clone(),
            data_on_host: config.host_data_dir.join("data"),
            logs: config.log_paths(),
            fetcher: config.credentials_fetcher.clone(),
        };
        let Some(facts) = facts(places).await else { return Self(None) };
        let lacks = lacks(&facts, wanted(config));
        if let Some(text) = lacks.text() {
            tracing::warn!(add = lacks.flags(), "the container of this agent lacks something of its host: {text}");
        }
        if lacks.rules && facts.is_host_set_up && config.manage_firewall {
            tracing::info!("the firewall rules are left to others: this container can neither make nor check them");
        }
        Self(Some(lacks))
    }

    /// The container has a network of its own: whoever gets to its ports does so because the operator has published them, or is on the
    /// same network of Docker.
    pub(crate) fn has_own_network(&self) -> bool {
        self.0.as_ref().is_some_and(|lacks| lacks.network)
    }

    /// The processes of the host cannot be seen at `/proc`.
    pub(crate) fn has_own_processes(&self) -> bool {
        self.0.as_ref().is_some_and(|lacks| lacks.processes)
    }

    /// The rules of the firewall can be neither made nor checked.
    pub(crate) fn lacks_rules(&self) -> bool {
        self.0.as_ref().is_some_and(|lacks| lacks.rules)
    }

    /// No control groups can be made for tasks.
    pub(crate) fn lacks_limits(&self) -> bool {
        self.0.as_ref().is_some_and(|lacks| lacks.limits)
    }

    /// Warns if Docker does not find the agent's files. That of a container is known already.
    pub(crate) async fn check_data_dir(&self, config: &Config) {
        if self.0.is_none() {
            data_dir::check(&config.docker_host, &config.data_dir, &config.host_data_dir).await;
        }
    }
}

/// The work for which the configuration needs something of the host.
fn wanted(config: &Config) -> Wanted {
    Wanted {
        rules: config.manage_firewall,
        limits: config.task_limits != Some(false),
        // Whoever polls has chosen that Docker is asked rarely.
        statistics: !config.metrics_disabled && !config.poll_metrics,
        faults: !config.external,
        gpus: config.gpus,
        gmsa: config.gmsa,
        networks: config.task_eni && !config.external,
    }
}
