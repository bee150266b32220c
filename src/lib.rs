//! # ecs-agent: the map
//!
//! The agent is one pure function and a ring of edges around it.
//!
//! ```text
//! ACS websocket ── acs ──────┐
//! Docker events ── docker ───┤ events            ┌─ docker   containers
//! outcomes ─────── runtime ──┼──────>  core  ────┼─ ecs      state changes
//! time ─────────── runtime ──┘        step()     └─ acs      acknowledgements
//!                                       │ effects, after the state is on disk
//!                                       └── store (commit), view (readers)
//! ```
//!
//! In reading order:
//!
//! * [`model`]: the words. Tasks, statuses, observations, reports. Plain data.
//! * [`core`]: every decision. `step(state, now, event) -> effects`.
//! * [`runtime`]: one loop: step, commit, publish, act; and the executor that turns effects into calls.
//! * [`docker`]: the container engine. [`store`]: the state on disk.
//! * [`acs`]: messages from the control plane. [`ecs`]: calls to it. [`aws`]: identity, credentials, clients. [`websocket`]: the
//!   signed connection.
//! * [`resources`]: what a task needs besides its containers: control groups, secrets, environment files, a log router's files,
//!   Kerberos tickets.
//! * [`config`]: one table of everything an operator can set.
//! * [`lane`]: threads for work that may block, so many and no more for each kind of it.
//! * [`http_server`]: who is served on a port, and within which limits. [`introspection`]: what `curl localhost:51678` sees.
//! * [`local`]: the embedded control plane behind `ecs-local`. The agent cannot tell it from AWS and nothing in it knows it.
//!
//! What is absent, on purpose: nothing under [`core`] can wait, read a clock, draw a random number or touch a file; no edge
//! knows the core, the configuration or another edge; no module but [`config`] reads the environment; no effect starts before
//! the state it rests on is on disk. `tests/layers` holds these.
//!
//! Where a comment cites a page, as in spec `acs.md` §4, the page is in `tests/spec`: it says what the Go agent, amazon-ecs-agent, does.

pub mod acs;
pub mod aws;
pub mod config;
pub mod core;
pub mod docker;
pub mod ecs;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod http_server;
pub mod introspection;
pub mod lane;
pub mod local;
pub mod model;
pub mod resources;
pub mod runtime;
pub mod store;
pub mod version;
pub mod websocket;
