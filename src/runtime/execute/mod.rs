//! Carries out the effects of the core: each becomes a call of an edge, and each call one outcome.
//!
//! Reading order: `executor` (from effect to outcome), `edges` (the targets of the calls), `pulls`, `registry_credentials` and
//! `resources` (calls that take more than one edge).

pub(super) mod edges;
pub(super) mod executor;
mod networks;
pub(super) mod pulls;
pub(super) mod registry_credentials;
mod resources;
