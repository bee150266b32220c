//! The HTTP listener: who is served, how many at once, and for how long.
//!
//! Owns sockets, peers, places and time limits; knows no path and no answer. A server is a [`Settings`], an [`Audience`] and an axum
//! router; it listens on a port, or on a socket that only this host reaches. Invariants: a peer outside the audience gets no byte, a
//! connection lasts at most the head's limit plus the answer's, there are never more connections than places, and nobody but this host can
//! take the places kept for this host.
//!
//! Reading order: this file (settings), `address` (where it listens), `listener` (accepting, ending), `peer` (the audience), `route`
//! (what the kernel says about a peer), `places` (who makes room for whom), [`host_header`] (DNS rebinding), `tally` (log lines about
//! the refused).

mod address;
pub mod host_header;
mod listener;
mod peer;
mod places;
mod route;
mod tally;

pub use address::{Address, Listener, bind};
pub use listener::{run, serve};
pub use peer::{Audience, Standing};
pub use places::Limits;

use std::time::Duration;

/// What one server may cost. The default is that of the introspection server.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Name of the server in log lines.
    pub name: &'static str,
    /// Where it listens.
    pub address: Address,
    /// Connections at once.
    pub limits: Limits,
    /// A request's head must be complete after this time, counted from the accept.
    pub head_timeout: Duration,
    /// An answer must be taken after this time, counted from the end of `head_timeout`.
    pub answer_timeout: Duration,
    /// How long a stop waits for answers under way. It does not wait for heads.
    pub stop_grace: Duration,
    /// Largest head of a request in bytes; a larger one is refused with status 431.
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
            stop_grace: Duration::from_secs(1),
            // The longest sensible query is a task ARN.
            max_head: 16 * 1024,
        }
    }
}

#[cfg(test)]
mod tests;
