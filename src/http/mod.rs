//! The HTTP listener: which peers are served, how many at once, and for how long.
//!
//! Owns sockets, peers, slots and time limits; knows no path and no answer ([`introspection`] does). A server is a
//! [`Settings`], an [`Audience`] and [`Answers`]; it listens on a port, or on a socket that only this host reaches.
//! Invariants: a peer outside the audience gets no byte; a connection ends when no request arrives within the time limit of
//! the head, or when an answer is not taken within its own limit; an idle connection gives its slot to a new one; there are
//! never more connections than slots; only peers on this host can take the slots reserved for it, and only other peers those
//! reserved for others.
//!
//! Reading order: this file (settings), `address` (where a server listens), `listener` (accepting, ending), `activity` (what a
//! connection is doing), `peer` (the audience), `route` (the kernel's route to a peer), `bridge_ports` (which machines can be
//! behind a bridge), `slots` (which connection is closed for a new one), [`host_header`] (DNS rebinding), `serving` (whether the
//! server has its address), `tally` (limits log lines about refused connections), `answers` (what a server does with a request),
//! `path` (cleaning of paths), `json` and `answer` (encoding of answers), [`introspection`] (port 51678), [`task_metadata`]
//! (port 51679), [`metrics`] (port 51680).

mod activity;
mod address;
mod answer;
mod answers;
mod bridge_ports;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod host_header;
mod listener;
mod peer;
mod route;
mod serving;
mod slots;
mod tally;

pub use address::{Address, Listener, bind};
pub use answers::Answers;
pub use bridge_ports::with_containers_only;
pub use listener::{RemoteAddress, run, serve};
pub use peer::{Audience, PeerLocation};
pub use serving::Serving;
pub use slots::Limits;

use std::time::Duration;

/// The limits of one server.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Name of the server in log lines.
    pub name: &'static str,
    /// Where the server listens.
    pub address: Address,
    /// The bounds on simultaneous connections.
    pub limits: Limits,
    /// Time limit for the head of a request, counted from the accept or from the end of the previous answer. So this is also
    /// how long an idle connection is kept.
    pub head_timeout: Duration,
    /// Time limit for the answer and for the client to take it, counted from the head of the request.
    pub answer_timeout: Duration,
    /// The age at which a connection serves no further request.
    pub max_age: Duration,
    /// How long a stop waits for answers in progress. It does not wait for request heads.
    pub stop_grace: Duration,
    /// Maximum size of a request head in bytes; a larger one is refused with status 431.
    pub max_head: usize,
}

impl Settings {
    /// The usual limits for a server of this name at this address.
    pub fn new(name: &'static str, address: Address) -> Self {
        Self {
            name,
            address,
            limits: Limits::default(),
            head_timeout: Duration::from_secs(5),
            answer_timeout: Duration::from_secs(5),
            max_age: Duration::from_secs(60),
            stop_grace: Duration::from_secs(1),
            // The longest sensible query holds a task ARN.
            max_head: 16 * 1024,
        }
    }
}

pub mod introspection;
pub(super) mod json;
pub mod metrics;
pub(super) mod path;
pub mod task_metadata;
#[cfg(test)]
mod tests;
