//! Small files beside the state file, for the day on which that one is damaged or removed.
//!
//! Owns how they are read and written. The state file holds the same documents; what a copy means is said where it is made (`owners`,
//! `instance`). Invariants: a copy is written whole or not at all, and no link in the directory is followed. After a power cut the copy may
//! be the one before: the state file has the newest.

use super::file::{FILE_MODE, options};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// A longer file is cut there, and then cannot be read.
const MAX_BYTES: u64 = 64 * 1024;

/// The document in that file; `None` if the file is missing, is a link or no plain file, or cannot be read. The call does not wait.
pub(super) fn read<T: DeserializeOwned>(directory: &Path, name: &str) -> Option<T> {
    let file = options().read(true).open(directory.join(name)).ok()?;
    file.metadata().ok().filter(|about| about.is_file())?;
    let mut bytes = Vec::new();
    file.take(MAX_BYTES).read_to_end(&mut bytes).ok()?;
    serde_json::from_slice(&bytes).ok()
}

/// Writes the file, unless it holds this document already. Without the copy the state file alone has it; `consequence` says what that
/// means, for the log.
pub(super) fn write<T: Serialize + DeserializeOwned + PartialEq>(
    directory: &Path,
    name: &str,
    document: &T,
    consequence: &str,
) {
    if read::<T>(directory, name).as_ref() == Some(document) {
        return;
    }
    if let Err(error) = try_write(directory, name, document) {
        tracing::warn!(%error, path = %directory.join(name).display(), "a file beside the state cannot be written; {consequence}");
    }
}

/// Removes the file. Its absence is no error.
pub(super) fn remove(directory: &Path, name: &str) -> std::io::Result<()> {
    match std::fs::remove_file(directory.join(name)) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(()) => File::open(directory)?.sync_all(),
    }
}

fn try_write(directory: &Path, name: &str, document: &impl Serialize) -> std::io::Result<()> {
    let half = format!("{name}.new");
    // A file that was left over or planted there goes: if somebody else owned it, it would still be theirs afterwards.
    remove(directory, &half)?;
    let half = directory.join(half);
    let written = (|| {
        let mut file = options().write(true).create_new(true).mode(FILE_MODE).open(&half)?;
        file.write_all(&serde_json::to_vec(document)?)?;
        file.sync_all()?;
        std::fs::rename(&half, directory.join(name))
    })();
    if written.is_err() {
        let _removed = std::fs::remove_file(&half);
    }
    written
}
