//! The task metadata server on port 51679: what containers ask at `169.254.170.2` (spec `task-metadata.md`).
//!
//! Owns the routes and the answers. Decides nothing about tasks: every answer is made from the newest published
//! [`View`](ecs_core::model::view::View), or by a function that the runtime passes in [`Sources`].
//!
//! Who asks is identified by the id in the URL alone, as with the Go agent; [`Tasks`] finds its task. Paths are decoded and
//! cleaned once, in `front`, before a route is chosen: a route never sees `..`, an empty segment, or an encoded slash that it
//! could mistake for a part of an id.
//!
//! Reading order: this file (sources, routes), `front` (what every request passes), `tasks` (lookups), then one file for each
//! group of paths.

#[cfg(test)]
mod fakes;
mod fault;
mod front;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod protection;
mod requests;
mod tasks;

pub use requests::{FaultInjector, TaskProtection, Work};
pub use tasks::{FoundContainer, FoundRole, Tasks};

use crate::http::answer::plain_text;
use axum::Router;
use axum::http::StatusCode;
use axum::response::Response;
use std::sync::Arc;

/// The port. It is not configurable, since the rules of the host's firewall lead to it.
pub const PORT: u16 = 51679;

/// Where the answers come from.
#[derive(Clone, Debug)]
pub struct Sources {
    /// The tasks that the agent knows.
    pub tasks: Tasks,
    /// The work that the runtime carries out.
    pub work: Work,
}

/// The routes of the port.
pub fn router(sources: Sources) -> Router {
    let routes = Router::new().merge(protection::routes()).merge(fault::routes()).fallback(not_found);
    front::guarded(routes.with_state(Arc::new(sources)))
}

/// The answer to an unknown path.
async fn not_found() -> Response {
    plain_text(StatusCode::NOT_FOUND, "404 page not found\n")
}
