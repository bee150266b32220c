//! The edges that carry out the core's operations: Docker, ECS, and everything else that a task needs.

use super::registry_credentials::Registries;
use crate::aws::identity::roles::RoleStore;
use crate::cgroup::Cgroups;
use crate::docker::Docker;
use crate::ecs::report;
use crate::metrics::Metrics;
use crate::network::Network;
use crate::resources::Resources;
use crate::runtime::clock::Clock;
use crate::runtime::startup::ownership::Ownership;
use ecs_core::model::Span;
use std::sync::Arc;

/// The edges, and the settings of their calls.
#[derive(Debug)]
pub(crate) struct Edges {
    /// The container engine.
    pub(crate) docker: Docker,
    /// Sources of registry credentials.
    pub(crate) registries: Registries,
    /// Secrets, environment files, log routers, Kerberos tickets.
    pub(crate) resources: Resources,
    /// Credentials of tasks' roles.
    pub(crate) roles: RoleStore,
    /// The client of the ECS API.
    pub(crate) ecs: aws_sdk_ecs::Client,
    /// Settings for the reports of state changes to ECS.
    pub(crate) report: report::Settings,
    /// Converts the core's timestamps to wall time.
    pub(crate) clock: Arc<Clock>,
    /// Grace period of a stop when the task definition sets none (`ECS_CONTAINER_STOP_TIMEOUT`).
    pub(crate) stop_timeout: Span,
    /// Networks of tasks with network interfaces of their own.
    pub(crate) network: Network,
    /// Control groups of tasks.
    pub(crate) cgroups: Cgroups,
    /// An existing shared volume must match the task definition in full (`ECS_SHARED_VOLUME_MATCH_FULL_CONFIG`).
    pub(crate) match_shared_volumes: bool,
    /// The lock on the container engine. It is held as long as any call can be made.
    pub(crate) ownership: Arc<Ownership>,
    /// What is counted on the way.
    pub(crate) metrics: Arc<Metrics>,
}
