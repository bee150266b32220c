//! The state file as a file: opens it, finds out what is wrong with it, and sets a broken one aside (renames it).
//!
//! Owns names, modes and the decision whether a file is broken (its content cannot be trusted, so it is set aside) or only
//! unusable at the moment (permissions, a full disk: it is left alone). It does not know the documents in the file. Invariants:
//! no state is deleted, except the oldest of several files that were set aside; an existing directory keeps its mode; no link in
//! the directory is followed.

use super::error::StoreError;
use redb::{Database, DatabaseError};
use std::fs::{DirBuilder, File, Metadata, OpenOptions, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// Name of the file in the data directory. The Go agent's file is `agent.db`; this one must not be mistaken for it.
pub(super) const FILE: &str = "ecs-agent.redb";
/// Stands between [`FILE`] and the time (seconds since 1970) in the name of a file that was set aside.
pub(super) const ASIDE: &str = ".broken-";
/// Maximum number of files that were set aside and are kept; the oldest are deleted.
const MAX_ASIDE: usize = 4;
/// The mode of every file with state: the state contains the plain environment of tasks.
pub(super) const FILE_MODE: u32 = 0o600;
/// The mode bits that let the group and others write.
const OTHERS_WRITE: u32 = 0o022;
/// The mode bit of a directory in which only the owner of a file may remove it, such as `/tmp`.
const STICKY: u32 = 0o1000;
/// Size of redb's page cache in bytes. The state is in memory anyway; what is read from the file is read at the start.
const CACHE_BYTES: usize = 128 << 10;
/// The error text for a file whose content makes redb panic.
const DAMAGED: &str = "its pages are damaged";

/// Why a file cannot be used.
#[derive(Debug)]
pub(super) enum FileError {
    /// Its content cannot be trusted. The text names the cause, without any content.
    Broken(String),
    /// It may be intact, but cannot be used now.
    Unavailable(StoreError),
}

impl<E: Into<redb::Error>> From<E> for FileError {
    fn from(error: E) -> Self {
        match error.into() {
            redb::Error::Corrupted(what) => Self::Broken(what),
            // The file is not a database, or is truncated.
            redb::Error::Io(cause) if matches!(cause.kind(), ErrorKind::InvalidData | ErrorKind::UnexpectedEof) => {
                Self::Broken(cause.to_string())
            }
            other @ (redb::Error::UpgradeRequired(_)
            | redb::Error::TableTypeMismatch { .. }
            | redb::Error::TableIsMultimap(_)
            | redb::Error::TypeDefinitionChanged { .. }) => Self::Broken(other.to_string()),
            other => Self::Unavailable(StoreError::Io(Box::new(other))),
        }
    }
}

/// An open file.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) database: Database,
    /// Device and inode, to find out whether the file is still the one in the directory.
    pub(super) file_id: (u64, u64),
}

/// Opens or creates the file in `directory`, and checks all its pages.
pub(super) fn open(directory: &Path) -> Result<Opened, FileError> {
    let path = directory.join(FILE);
    let unusable = |cause| FileError::Unavailable(StoreError::from_directory(directory, cause));
    prepare(directory).map_err(unusable)?;
    let file = match open_file(&path) {
        Err(cause) if cause.kind() == ErrorKind::IsADirectory => {
            return Err(FileError::Broken("it is a directory".to_owned()));
        }
        Err(_) if path.is_symlink() => {
            return Err(FileError::Broken("it is a symbolic link, which is not followed".to_owned()));
        }
        // The error for a socket, or for a device without a driver.
        Err(cause) if cause.raw_os_error() == Some(rustix::io::Errno::NXIO.raw_os_error()) => {
            return Err(FileError::Broken("it is not a file".to_owned()));
        }
        opened => opened.map_err(unusable)?,
    };
    let about = file.metadata().map_err(unusable)?;
    if !about.is_file() {
        return Err(FileError::Broken("it is not a file".to_owned()));
    }
    file.set_permissions(Permissions::from_mode(FILE_MODE)).map_err(unusable)?;
    let backend = redb::backends::FileBackend::new(file)?;
    let database = guarded(|| match builder().create_with_backend(backend) {
        Ok(database) => Ok(database),
        Err(DatabaseError::DatabaseAlreadyOpen) => {
            Err(FileError::Unavailable(StoreError::InUse { path: path.clone() }))
        }
        Err(error) => {
            // A new file that is incomplete, for example because the disk is full: later it would look like a broken one.
            if about.len() == 0 && std::fs::remove_file(&path).is_err() {
                tracing::warn!(path = %path.display(), "an incomplete new state file cannot be removed");
            }
            Err(error.into())
        }
    })?;
    Ok(Opened { database, file_id: file_id(&about) })
}

/// A database in memory.
pub(super) fn in_memory() -> Result<Database, DatabaseError> {
    builder().create_with_backend(redb::backends::InMemoryBackend::new())
}

/// The settings with which databases are opened.
pub(super) fn builder() -> redb::Builder {
    let mut builder = Database::builder();
    // Without this check, a page that was altered on disk would be noticed late: when it makes redb panic.
    builder.set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true);
    builder
}

/// Runs work on a database. A panic, which damaged pages cause, becomes an error.
pub(super) fn guarded<T>(work: impl FnOnce() -> Result<T, FileError>) -> Result<T, FileError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_panic| Err(FileError::Broken(DAMAGED.to_owned())))
}

/// Device and inode of the state file in `directory`; `None` if there is no such file.
pub(super) fn file_id_in(directory: &Path) -> Option<(u64, u64)> {
    std::fs::symlink_metadata(directory.join(FILE)).ok().as_ref().map(file_id)
}

/// Size in bytes of the state file in `directory`; `None` if there is no such file.
pub(super) fn bytes_in(directory: &Path) -> Option<u64> {
    Some(std::fs::symlink_metadata(directory.join(FILE)).ok()?.len())
}

fn file_id(about: &Metadata) -> (u64, u64) {
    (about.dev(), about.ino())
}

/// Creates the directory if it is missing. Warns if other users may change its content.
fn prepare(directory: &Path) -> std::io::Result<()> {
    // The system would say "File exists", or "Not a directory" of a part of the path that it does not name.
    let is_file = |path: &Path| path.metadata().is_ok_and(|found| !found.is_dir());
    if let Some(path) = directory.ancestors().find(|path| is_file(path)) {
        let text = format!("{} is a file", path.display());
        return Err(std::io::Error::new(std::io::ErrorKind::NotADirectory, text));
    }
    if !directory.is_dir() {
        return DirBuilder::new().recursive(true).mode(0o700).create(directory);
    }
    // An existing directory keeps its mode, since others may use it too (`/var/lib`). The files that the agent creates are 0600.
    let mode = directory.metadata()?.permissions().mode() & 0o7777;
    if mode & OTHERS_WRITE != 0 && mode & STICKY == 0 {
        let path = directory.display();
        tracing::warn!(%path, mode = format!("{mode:04o}"), "other users may replace the state in ECS_DATADIR; make it 0700");
    }
    Ok(())
}

/// Opens or creates the state file. The call does not wait, even if a named pipe has this name.
fn open_file(path: &Path) -> std::io::Result<File> {
    options().read(true).write(true).create(true).truncate(false).mode(FILE_MODE).open(path)
}

/// The options with which files of the data directory are opened: no link is followed, and no call waits.
pub(super) fn options() -> OpenOptions {
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOCTTY;
    let mut options = OpenOptions::new();
    options.custom_flags(i32::try_from(flags.bits()).unwrap_or_default());
    options
}

/// Sets aside whatever has the name of the state file. Returns its new path.
pub(super) fn set_aside(directory: &Path) -> Result<PathBuf, StoreError> {
    aside(directory, |from, to| std::fs::rename(from, to))
}

/// Sets aside a copy of the state file, because only parts of the file can be read. Returns the path of the copy.
pub(super) fn copy_aside(directory: &Path) -> Result<PathBuf, StoreError> {
    aside(directory, |from, to| {
        let copied = copy(from, to);
        if copied.is_err() {
            // On a full disk, repeated attempts would replace complete copies by incomplete ones.
            let _removed = std::fs::remove_file(to);
        }
        copied
    })
}

fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    let mut from = options().read(true).open(from)?;
    let mut to = options().write(true).create_new(true).mode(FILE_MODE).open(to)?;
    std::io::copy(&mut from, &mut to)?;
    to.sync_all()
}

/// Calls `how` with the path of the state file and a new path for a file that is set aside. Returns the new path.
fn aside(directory: &Path, how: impl FnOnce(&Path, &Path) -> std::io::Result<()>) -> Result<PathBuf, StoreError> {
    let mut second = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let name = |second| directory.join(format!("{FILE}{ASIDE}{second}"));
    while name(second).symlink_metadata().is_ok() {
        second += 1;
    }
    let to = name(second);
    how(&directory.join(FILE), &to).map_err(|cause| StoreError::from_directory(directory, cause))?;
    delete_oldest(directory);
    Ok(to)
}

/// Deletes all files that were set aside except the newest [`MAX_ASIDE`]. A directory that was set aside is never
/// deleted: it may be somebody's.
fn delete_oldest(directory: &Path) {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let is_aside = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let is_file = path.symlink_metadata().is_ok_and(|about| about.is_file());
        name.starts_with(&format!("{FILE}{ASIDE}")) && is_file
    };
    let mut old: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(is_aside).collect();
    old.sort();
    for path in old.iter().rev().skip(MAX_ASIDE) {
        if let Err(error) = std::fs::remove_file(path) {
            tracing::warn!(%error, path = %path.display(), "an old broken state file cannot be removed");
        }
    }
}
