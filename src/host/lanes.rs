//! Threads for the start's work that may block. Each piece of work has threads of its own, so that a path that hangs delays
//! nothing else.

use crate::lane::{Lane, Settings};
use std::time::Duration;

/// The thread for one piece of work with files during the start.
const FILES: Settings = Settings { threads: 1, spare: 0, limit: Duration::from_secs(10) };
/// The thread that opens and checks the state. The file is small, but the disk may be slow.
const STATE: Settings = Settings { threads: 1, spare: 0, limit: Duration::from_secs(120) };
/// Upper limit, in bytes, of a file that is read during the start. A larger file cannot be the right one.
pub const MAX_FILE: u64 = 1 << 20;

/// A new lane for file accesses during the start. Work on a path that hangs is abandoned, and delays nothing else.
pub fn files() -> Lane {
    Lane::new("files of the start", FILES)
}

/// A new lane for opening and writing the state during the start.
pub fn disk() -> Lane {
    Lane::new("state", STATE)
}
