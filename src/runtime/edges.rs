//! The edges that carry out the core's operations: Docker, ECS, and everything else that a task needs.

use super::clock::Clock;
use super::ownership::Ownership;
use super::registry_credentials::Registries;
use crate::aws::roles::RoleStore;
use crate::docker::Docker;
use crate::ecs::report;
use crate::model::Span;
use crate::resources::Resources;
use crate::resources::cgroup::Cgroups;
use std::sync::Arc;

/// The edges, and the settings of their calls.
#[derive(Debug)]
pub(super) struct Edges {
    /// The container engine.
    pub(super) docker: Docker,
    /// Sources of registry credentials.
    pub(super) registries: Registries,
    /// Secrets, environment files, log routers, Kerberos tickets.
    pub(super) resources: Resources,
    /// Credentials of tasks' roles.
    pub(super) roles: RoleStore,
    /// The client of the ECS API.
    pub(super) ecs: aws_sdk_ecs::Client,
    /// Settings for the reports of state changes to ECS.
    pub(super) report: report::Settings,
    /// Converts the core's timestamps to wall time.
    pub(super) clock: Arc<Clock>,
    /// Grace period of a stop when the task definition sets none (`ECS_CONTAINER_STOP_TIMEOUT`).
    pub(super) stop_timeout: Span,
    /// Control groups of tasks.
    pub(super) cgroups: Cgroups,
    /// An existing shared volume must match the task definition in full (`ECS_SHARED_VOLUME_MATCH_FULL_CONFIG`).
    pub(super) match_shared_volumes: bool,
    /// The lock on the container engine. It is held as long as any call can be made.
    pub(super) ownership: Arc<Ownership>,
}
