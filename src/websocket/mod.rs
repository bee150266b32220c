//! A session over a signed websocket of the control plane: connect, converse, reconnect (spec `acs.md` §1 to §3).
//!
//! Owns everything about the connection that does not depend on its messages: handshake, timers, queues, the meaning of its end.
//! The messages belong to a [`Protocol`]: ACS or TCS. The invariants: a pause follows every failed attempt and every short
//! connection; the agent never waits for the control plane.
//!
//! Reading order: `protocol` (what a session must know about its messages), [`session`] (when to connect), `connect` (the
//! handshake), `conversation` (one connection), `ending` (what its end means), `timing`, `exchange` (queues to and from the agent), `contact` (for the health
//! check), `any_text` (text frames that are not UTF-8). The tests of the session are those of ACS, in `src/acs/session/tests`,
//! and of TCS, in `src/tcs/session/tests.rs`.

mod any_text;
mod connect;
mod contact;
mod conversation;
mod ending;
mod exchange;
mod protocol;
pub mod session;
#[cfg(test)]
pub(crate) mod tests;
mod timing;

#[cfg(any(test, fuzzing))]
pub use any_text::websocket_stream;
pub use connect::{ConnectError, MAX_MESSAGE, Settings, Socket, connect};
pub use contact::{Contact, Seen};
pub use protocol::{Change, Protocol, Read};
pub use session::EndpointError;
pub use timing::Timing;

#[cfg(test)]
pub(crate) use connect::over;
#[cfg(test)]
pub(crate) use ending::NextStep;
#[cfg(test)]
pub(crate) use exchange::{Exchange, MAX_WAITING, MAX_WAITING_BYTES};
