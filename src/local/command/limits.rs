//! The limits of this process.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The number of files that this program has use for: connections, and files of layers.
const WANTED: u64 = 16_384;

/// Allows this process more open files than the usual 1024, as far as its user may.
pub(super) fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let current = limit.maximum.map_or(WANTED, |maximum| maximum.min(WANTED));
    if limit.current.is_some_and(|now| now < current) {
        // If it is refused, the program runs with what it has.
        let _raised = setrlimit(Resource::Nofile, Rlimit { current: Some(current), maximum: limit.maximum });
    }
}
