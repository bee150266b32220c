//! Where the start does what may block: each question has threads of its own, so a path that hangs holds nothing else.

use crate::lane::{Lane, Settings};
use std::time::Duration;

/// Threads that look at files at the start; each question has some of its own.
const FILES: Settings = Settings { threads: 1, spare: 0, limit: Duration::from_secs(10) };
/// The thread that opens and checks the state. Its file is small, and a disk may be slow.
const STATE: Settings = Settings { threads: 1, spare: 0, limit: Duration::from_secs(120) };
/// Bytes of a file that is read at the start; larger ones are something else.
pub(super) const MAX_FILE: u64 = 1 << 20;

/// Where files are looked at during the start: a path that hangs is given up, and holds nothing else.
pub(super) fn files() -> Lane {
    Lane::new("files of the start", FILES)
}

/// Where the state is opened and written during the start.
pub(super) fn disk() -> Lane {
    Lane::new("state", STATE)
}
