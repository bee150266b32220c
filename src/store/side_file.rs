//! Small files beside the state file, each with a copy of a part of it, in case the state file is damaged or removed.
//!
//! Owns how these files are read and written. It does not know their content: `owners` and `instance` do. Invariants: a file is
//! written completely or not at all, and no link in the directory is followed. After a power cut a file may have its previous
//! content; the state file has the newest.

use super::file::{FILE_MODE, options};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Maximum size of such a file in bytes. Of a longer file, only the beginning is read, which is not a valid document.
const MAX_BYTES: u64 = 64 * 1024;

/// The document in the file `name`; `None` if this is missing, a link, not a regular file, or unreadable. The call never waits.
pub(super) fn read<T: DeserializeOwned>(directory: &Path, name: &str) -> Option<T> {
    let file = options().read(true).open(directory.join(name)).ok()?;
    file.metadata().ok().filter(|about| about.is_file())?;
    let mut bytes = Vec::new();
    file.take(MAX_BYTES).read_to_end(&mut bytes).ok()?;
    serde_json::from_slice(&bytes).ok()
}

/// Writes the document to the file `name`, unless it is there already. An error is only logged, together with `consequence`: what
/// happens if the file is missing when it is needed.
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
        let path = directory.join(name);
        tracing::warn!(%error, path = %path.display(), "a file beside the state cannot be written; {consequence}");
    }
}

/// Removes the file `name`. A missing file is no error.
pub(super) fn remove(directory: &Path, name: &str) -> std::io::Result<()> {
    match std::fs::remove_file(directory.join(name)) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(()) => File::open(directory)?.sync_all(),
    }
}

fn try_write(directory: &Path, name: &str, document: &impl Serialize) -> std::io::Result<()> {
    let new = format!("{name}.new");
    // A file that is already there may belong to another user, who could change it later. So it is removed, not overwritten.
    remove(directory, &new)?;
    let new = directory.join(new);
    let written = (|| {
        let mut file = options().write(true).create_new(true).mode(FILE_MODE).open(&new)?;
        file.write_all(&serde_json::to_vec(document)?)?;
        file.sync_all()?;
        std::fs::rename(&new, directory.join(name))
    })();
    if written.is_err() {
        let _removed = std::fs::remove_file(&new);
    }
    written
}
