//! The connection to the daemon, and how every call over it is made.
//!
//! All changes go through `change` and all reads through `read`, which accepts unknown values; long answers arrive line by
//! line through `lines`. Reading order: `endpoint`, `connection`, [`calls`] (counts them), `version`, `read`, `change`, `lines`, `limits` (time
//! limits), `info` (facts about the engine), [`error`] with `unreachable`.

pub mod calls;
pub(super) mod change;
pub(super) mod connection;
pub(super) mod endpoint;
pub mod error;
pub(super) mod info;
pub(super) mod limits;
pub(super) mod lines;
pub(super) mod read;
pub(super) mod unreachable;
pub(super) mod version;
