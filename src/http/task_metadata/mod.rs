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
//! group of paths: `v2` and `by_id` (versions 3 and 4), with their shapes in `task`, `container` and `associations`, `documents`
//! (encoded tasks), `tags` (what ECS is asked for), `place` (facts about the instance).

mod associations;
mod by_id;
mod container;
mod documents;
mod front;
mod log;
mod place;
mod tags;
mod task;
mod tasks;
mod v2;

pub use documents::Documents;
pub use place::{Place, Wall};
pub use tags::{TagLookup, TagQuestion, TagsProblem, TagsResult};
pub use tasks::{FoundContainer, FoundRole, Tasks};

use crate::http::answer::plain_text;
use axum::Router;
use axum::http::StatusCode;
use axum::response::Response;
use std::sync::Arc;

/// The port. It is not configurable, since the rules of the host's firewall lead to it.
pub const PORT: u16 = 51679;

/// Where the answers come from.
#[derive(Clone)]
pub struct Sources {
    /// The tasks that the agent knows.
    pub tasks: Tasks,
    /// The facts about this instance.
    pub place: Arc<Place>,
    /// The encoded documents of tasks; none at first.
    pub documents: Arc<Documents>,
    /// Converts the moments in views.
    pub wall: Wall,
    /// Asks ECS for tags.
    pub tag_lookup: TagLookup,
}

impl std::fmt::Debug for Sources {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sources").field("place", &self.place).finish_non_exhaustive()
    }
}

/// The versions whose callers are known by an id in the path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    V3,
    V4,
}

/// The routes of the port.
pub fn router(sources: Sources) -> Router {
    let documents = v2::routes::<Arc<Sources>>().merge(by_id::routes(Version::V3)).merge(by_id::routes(Version::V4));
    let routes = documents.fallback(not_found);
    front::guarded(routes.with_state(Arc::new(sources)))
}

/// The answer to an unknown path.
async fn not_found() -> Response {
    plain_text(StatusCode::NOT_FOUND, "404 page not found\n")
}
