//! What the calls of the core go to: Docker, ECS, and everything beside them that a task needs.

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

/// What the calls go to.
#[derive(Debug)]
pub(super) struct Edges {
    /// The container engine.
    pub(super) docker: Docker,
    /// Credentials for registries.
    pub(super) registries: Registries,
    /// Secrets, environment files, log routers.
    pub(super) resources: Resources,
    /// Credentials of tasks' roles.
    pub(super) roles: RoleStore,
    /// The ECS API.
    pub(super) ecs: aws_sdk_ecs::Client,
    /// How state changes are said.
    pub(super) report: report::Settings,
    /// Turns the core's moments into wall time.
    pub(super) clock: Arc<Clock>,
    /// Grace of a stop when the task definition says nothing (`ECS_CONTAINER_STOP_TIMEOUT`).
    pub(super) stop_timeout: Span,
    /// Control groups of tasks.
    pub(super) cgroups: Cgroups,
    /// Existing shared volumes must be as asked for (`ECS_SHARED_VOLUME_MATCH_FULL_CONFIG`).
    pub(super) match_shared_volumes: bool,
    /// The lock on the container engine: held as long as anything can be called.
    pub(super) ownership: Arc<Ownership>,
}
