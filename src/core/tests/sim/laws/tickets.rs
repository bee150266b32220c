//! Kerberos tickets: a container is created with the ticket that was created for it, and exactly the leases of the task are
//! released.
//!
//! A lease whose creation got no answer, or whose answer was lost with the agent, belongs to no task: the credentials fetcher
//! has no call that lists it.

use super::effects::Broken;
use crate::world::World;
use ecs_core::model::{CreateRequest, ResourceRequest};

/// Judges the creation of a container.
pub(super) fn created(world: &World, request: &CreateRequest) -> Broken {
    let spec = request.spec.credential_spec.as_ref()?;
    let has = |path: &String| world.fetcher.has(&request.task, spec, path);
    let law = "a container is created with the ticket that was made for it";
    (!request.ticket.as_ref().is_some_and(has)).then(|| (law, format!("{} {:?}", request.runtime_name, request.ticket)))
}

/// Judges a renewal.
pub(super) fn renewed(world: &World, request: &ResourceRequest) -> Broken {
    let what = || format!("{} {}", request.task, request.spec.name);
    if !is_its_own(world, request) {
        return Some(("only tickets of the task are renewed", what()));
    }
    let id = request.execution_credentials.as_ref();
    let is_missing = id.is_none_or(|id| !world.credentials.contains(id));
    (is_missing && !world.burst).then(|| ("credentials are there before they are used", what()))
}

/// Judges a removal.
pub(super) fn given_back(world: &World, request: &ResourceRequest) -> Broken {
    let law = "the lease that is given back is the one that was made";
    (!is_its_own(world, request)).then(|| (law, format!("{:?} of {}", request.tickets, request.task)))
}

/// The request has no lease of another task or resource.
fn is_its_own(world: &World, request: &ResourceRequest) -> bool {
    let owner = (request.task.clone(), request.spec.name.clone());
    let mut leases = request.tickets.iter().flat_map(|tickets| &tickets.leases);
    leases.all(|lease| world.fetcher.leases.get(lease).is_none_or(|it| *it == owner))
}
