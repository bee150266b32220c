//! Creates and removes the resources of tasks, each kind with the edge that supports it.
//!
//! Owns only the choice of the edge. Invariant: calls may be repeated; a resource that is in the wanted state already is a
//! success.

use super::edges::Edges;
use ecs_core::Output;
use ecs_core::model::{CreateRequest, Observation, OpError, ResourceKind, ResourceRequest};

/// Creates a resource.
pub(crate) async fn create(edges: &Edges, request: &ResourceRequest) -> Result<Output, OpError> {
    match &request.spec.kind {
        ResourceKind::Cgroup(spec) => edges.cgroups.create(&request.task, spec).await.map(|()| Output::Nothing),
        ResourceKind::Volume(spec) => {
            let (task, role, match_full) = (&request.task, request.role_id.as_ref(), edges.match_shared_volumes);
            let made = edges.docker.create_volume(task, spec, role, request.pause_pid, match_full).await;
            made.map(|()| Output::Nothing)
        }
        ResourceKind::Secrets(_) | ResourceKind::EnvironmentFiles(_) | ResourceKind::LogRouter(_) => {
            let role = request.execution_credentials.as_ref().and_then(|id| edges.roles.get(id));
            edges.resources.create(request, role.as_deref()).await?;
            Ok(Output::Nothing)
        }
        ResourceKind::CredentialSpecs(specs) => {
            let role = request.execution_credentials.as_ref().and_then(|id| edges.roles.get(id));
            let tickets = edges.resources.tickets(specs, role.as_deref()).await?;
            tracing::info!(task = request.task.task_id(), leases = tickets.leases.len(), "Kerberos tickets created");
            Ok(Output::Tickets(Box::new(tickets)))
        }
    }
}

/// Removes a resource.
pub(crate) async fn remove(edges: &Edges, request: &ResourceRequest) -> Result<Output, OpError> {
    match &request.spec.kind {
        ResourceKind::Cgroup(_) => edges.cgroups.remove(&request.task).await.map(|()| Output::Nothing),
        ResourceKind::Volume(spec) => edges.docker.remove_volume(spec).await.map(|()| Output::Nothing),
        ResourceKind::Secrets(_)
        | ResourceKind::EnvironmentFiles(_)
        | ResourceKind::LogRouter(_)
        | ResourceKind::CredentialSpecs(_) => {
            edges.resources.remove(request).await?;
            Ok(Output::Nothing)
        }
    }
}

/// Renews a resource before it expires, with the newest credentials.
pub(crate) async fn renew(edges: &Edges, request: &ResourceRequest) -> Result<Output, OpError> {
    let role = request.execution_credentials.as_ref().and_then(|id| edges.roles.get(id));
    if let Some(tickets) = &request.tickets {
        edges.resources.renew(tickets, role.as_deref()).await?;
        tracing::info!(task = request.task.task_id(), "Kerberos tickets renewed");
    }
    Ok(Output::Nothing)
}

/// Creates a container with the values that are never saved in the state, such as secrets.
pub(crate) async fn create_container(edges: &Edges, request: CreateRequest) -> Result<Observation, OpError> {
    let values = edges.resources.values(&request)?;
    let request = edges.resources.with_metadata_file(request).await;
    edges.docker.create(&request, &values).await.map_err(|error| values.hide(error))
}
