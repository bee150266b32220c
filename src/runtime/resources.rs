//! What a task needs besides its containers, made and removed: which edge does which kind.
//!
//! Owns the choice only. The invariant: both calls may be repeated; what is so already is success.

use super::executor::Edges;
use crate::engine::Output;
use crate::model::{Failure, OpError, ResourceKind, ResourceRequest};

/// Makes a resource.
pub(super) async fn create(edges: &Edges, request: &ResourceRequest) -> Result<Output, OpError> {
    match &request.spec.kind {
        ResourceKind::Cgroup(spec) => edges.cgroups.create(&request.task, spec).await.map(|()| Output::Nothing),
        ResourceKind::Volume(spec) => {
            let made = edges.docker.create_volume(&request.task, spec, edges.match_shared_volumes).await;
            made.map(|()| Output::Nothing)
        }
        ResourceKind::Secrets(_)
        | ResourceKind::EnvironmentFiles(_)
        | ResourceKind::LogRouter(_)
        | ResourceKind::CredentialSpecs(_) => Err(unsupported(request)),
    }
}

/// Removes a resource.
pub(super) async fn remove(edges: &Edges, request: &ResourceRequest) -> Result<Output, OpError> {
    match &request.spec.kind {
        ResourceKind::Cgroup(_) => edges.cgroups.remove(&request.task).await.map(|()| Output::Nothing),
        ResourceKind::Volume(spec) => edges.docker.remove_volume(spec).await.map(|()| Output::Nothing),
        ResourceKind::Secrets(_)
        | ResourceKind::EnvironmentFiles(_)
        | ResourceKind::LogRouter(_)
        | ResourceKind::CredentialSpecs(_) => Ok(Output::Nothing),
    }
}

/// `acs::translate` refuses such tasks; one may still come from a state that a later version wrote.
fn unsupported(request: &ResourceRequest) -> OpError {
    let name = &request.spec.name;
    Failure::ends_task(format!(
        "UnsupportedTaskError: the resource {name} is not supported by this version of the agent"
    ))
    .into()
}
