//! The task metadata server on port 51679: what containers ask at `169.254.170.2` (spec `task-metadata.md`).
//!
//! Owns the routes and the answers. Decides nothing about tasks: every answer is made from the newest published
//! [`View`](ecs_core::model::view::View), or by a function that the runtime passes in [`Sources`].
//!
//! Who asks is identified by the id in the URL alone, as with the Go agent (spec `task-metadata.md` §2);
//! [`Tasks`] finds its task. Paths are decoded and cleaned once, in `front`, before a route is chosen: a route never sees `..`,
//! an empty segment, or an encoded slash that it could mistake for a part of an id.
//!
//! Reading order: this file (routes), `sources`, `front` (what every request passes), `subject` (what a path is about), `limiter`,
//! `tasks` (lookups), `audit`, `counts`, then one file for each group of paths: `credentials` with `peer_check`, `v2`, and `by_id` (versions
//! 3 and 4). The shapes of these are in `task`, `container`, `network`, `stats` and `associations`; `documents` keeps encoded tasks, `tags` is what
//! ECS is asked for, `place` has facts about the instance, and `log` writes errors. `protection` and `fault` have work done for
//! containers (`requests`).

mod associations;
mod audit;
mod by_id;
mod container;
mod counts;
mod credentials;
mod documents;
#[cfg(test)]
mod fakes;
mod fault;
mod front;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz_path;
mod limiter;
mod log;
mod network;
mod peer_check;
mod place;
mod protection;
mod requests;
mod sources;
mod stats;
mod subject;
mod tags;
mod task;
mod tasks;
mod v2;
mod version;

pub use audit::{Audit, AuditSink};
pub use counts::Requests;
pub use limiter::Rates;
pub(super) use network::{Addresses, task_addresses};
pub use peer_check::PeerCheckMode;
pub use place::{Metadata, Place, Wall};
pub use requests::{FaultInjector, TaskProtection, Work};
pub use sources::{Credentials, CredentialsLookup, Sources};
pub use stats::StatsLookup;
pub use tags::{TagLookup, TagQuestion, TagsProblem, TagsResult};
pub use tasks::{FoundContainer, FoundRole, Tasks};

use crate::http::answer::plain_text;
use crate::http::{Address, Answers, Limits, Settings};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use std::sync::Arc;
use std::time::Duration;
use version::Version;

/// The port. It is not configurable, since the rules of the host's firewall lead to it.
pub const PORT: u16 = 51679;

/// The settings of the server at this address.
pub fn settings(address: Address) -> Settings {
    Settings {
        // Each task may keep some connections open, and tasks in network mode host share one address. A process may have 1024 open
        // files if nobody says otherwise, and the agent needs the rest.
        limits: Limits { total: 512, reserved_for_host: 128, reserved_for_others: 128, per_peer: 32 },
        // The Go agent ends an answer after 5 s. The longest calls to AWS and to programs of the host take that long.
        answer_timeout: Duration::from_secs(7),
        ..Settings::new("task metadata", address)
    }
}

/// The answers of the port.
pub fn answers(sources: Sources) -> Answers {
    let sources = Arc::new(sources);
    let documents = v2::routes().merge(by_id::routes(Version::V3)).merge(by_id::routes(Version::V4));
    let work = protection::routes().merge(fault::routes());
    let routes = credentials::routes().merge(documents).merge(work).fallback(not_found);
    front::guarded(routes.with_state(Arc::clone(&sources)), sources)
}

/// The answer to an unknown path.
async fn not_found() -> Response {
    let no_sniff = [(header::X_CONTENT_TYPE_OPTIONS, "nosniff")];
    (no_sniff, plain_text(StatusCode::NOT_FOUND, "404 page not found\n")).into_response()
}

#[cfg(test)]
mod tests;
