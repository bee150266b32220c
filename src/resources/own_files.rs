//! The agent's own files in its data directory, which containers read.
//!
//! Owns how directories and files are made. Invariants: a file is complete or does not exist; no link is followed. Otherwise a
//! user who can create a link there could make the agent write files, or change the owner of directories, elsewhere.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

const FILE_MODE: u32 = 0o644;

/// Makes a directory with this mode, in a directory that exists. A directory that exists already stays as it is.
pub(super) fn make_directory(path: &Path, mode: u32) -> io::Result<()> {
    match fs::DirBuilder::new().mode(mode).create(path) {
        Ok(()) => fs::set_permissions(path, fs::Permissions::from_mode(mode)),
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        Err(_) if path.symlink_metadata()?.is_dir() => Ok(()),
        Err(_) => {
            let text = format!("{} is in the way: it is no directory (a link is not followed)", path.display());
            Err(io::Error::new(io::ErrorKind::NotADirectory, text))
        }
    }
}

/// Writes a file under a temporary name and renames it to its own, so that no reader sees an incomplete file. Both names are in
/// the same file system.
pub(super) fn write(temporary: &Path, file: &Path, bytes: &[u8]) -> io::Result<()> {
    // Removes an incomplete file that was left behind, or anything else of this name.
    match fs::remove_file(temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut opened = fs::OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(temporary)?;
    opened.set_permissions(fs::Permissions::from_mode(FILE_MODE))?;
    opened.write_all(bytes)?;
    opened.sync_all()?;
    fs::rename(temporary, file)?;
    match file.parent() {
        Some(directory) => fs::File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}
