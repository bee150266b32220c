//! The file below the store: opening it, telling what is wrong with it, setting a broken one aside.
//!
//! Owns names, modes and the decision whether a file is broken (its content cannot be trusted, so it is set aside) or merely cannot
//! be used now (rights, a full disk: it is left alone). It knows no document. Invariants: nothing is ever deleted but the oldest of
//! many files that were set aside; a directory that was there before keeps its mode; and no link in the directory is followed.

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
/// Between that name and the time (s since 1970) at which a broken file was set aside.
pub(super) const ASIDE: &str = ".broken-";
/// Files set aside that are kept; the oldest go first.
const MAX_ASIDE: usize = 4;
/// Of every file that holds state: a task's plain environment is in it.
pub(super) const FILE_MODE: u32 = 0o600;
/// Group and others may write.
const OTHERS_WRITE: u32 = 0o022;
/// Only its owner may remove a file (`/tmp`).
const STICKY: u32 = 0o1000;
/// redb's page cache; a state is some hundred kilobytes.
const CACHE_BYTES: usize = 1 << 20;
/// What is said of a file over which redb panics.
const DAMAGED: &str = "its pages are damaged";

/// Why a file cannot be read.
#[derive(Debug)]
pub(super) enum FileError {
    /// Its content cannot be trusted; which part, without the content.
    Broken(String),
    /// It may be good, but cannot be used now.
    Unavailable(StoreError),
}

impl<E: Into<redb::Error>> From<E> for FileError {
    fn from(error: E) -> Self {
        match error.into() {
            redb::Error::Corrupted(what) => Self::Broken(what),
            // Not a database, or shorter than it says.
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
    /// Device and inode, to see that the file is still the one in the directory.
    pub(super) place: (u64, u64),
}

/// Opens or makes the file in `directory`, and checks every page of it.
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
        // A socket, or a device without a driver.
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
            // Half made, for want of space: the next try shall not take it for a broken one.
            if about.len() == 0 && std::fs::remove_file(&path).is_err() {
                tracing::warn!(path = %path.display(), "a state file that could not be made cannot be removed");
            }
            Err(error.into())
        }
    })?;
    Ok(Opened { database, place: place(&about) })
}

/// A database that is gone with the process.
pub(super) fn in_memory() -> Result<Database, DatabaseError> {
    builder().create_with_backend(redb::backends::InMemoryBackend::new())
}

pub(super) fn builder() -> redb::Builder {
    let mut builder = Database::builder();
    // A page that was altered on disk is found here, and not trusted until it makes redb panic.
    builder.set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true);
    builder
}

/// Runs what may panic over damaged pages.
pub(super) fn guarded<T>(work: impl FnOnce() -> Result<T, FileError>) -> Result<T, FileError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_panic| Err(FileError::Broken(DAMAGED.to_owned())))
}

/// Where the state file of that directory is now; `None` if it is gone.
pub(super) fn place_of(directory: &Path) -> Option<(u64, u64)> {
    std::fs::symlink_metadata(directory.join(FILE)).ok().as_ref().map(place)
}

fn place(about: &Metadata) -> (u64, u64) {
    (about.dev(), about.ino())
}

fn prepare(directory: &Path) -> std::io::Result<()> {
    if !directory.is_dir() {
        return DirBuilder::new().recursive(true).mode(0o700).create(directory);
    }
    // Somebody made it for more than this agent, perhaps (`/var/lib`): its mode is not ours to change. The files in it are 0600.
    let mode = directory.metadata()?.permissions().mode() & 0o7777;
    if mode & OTHERS_WRITE != 0 && mode & STICKY == 0 {
        let path = directory.display();
        tracing::warn!(%path, mode = format!("{mode:04o}"), "other users may replace the state in ECS_DATADIR; make it 0700");
    }
    Ok(())
}

/// It does not wait, should a queue have this name.
fn open_file(path: &Path) -> std::io::Result<File> {
    options().read(true).write(true).create(true).truncate(false).mode(FILE_MODE).open(path)
}

/// How a file of the data directory is opened: no link is followed.
pub(super) fn options() -> OpenOptions {
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOCTTY;
    let mut options = OpenOptions::new();
    options.custom_flags(i32::try_from(flags.bits()).unwrap_or_default());
    options
}

/// Moves what stands in the place of the state file out of the way; its new path.
pub(super) fn set_aside(directory: &Path) -> Result<PathBuf, StoreError> {
    aside(directory, |from, to| std::fs::rename(from, to))
}

/// Keeps a copy of a state file that can be read in part.
pub(super) fn copy_aside(directory: &Path) -> Result<PathBuf, StoreError> {
    aside(directory, |from, to| {
        let copied = copy(from, to);
        if copied.is_err() {
            // A part of a copy, tried again and again on a full disk, would push out whole ones.
            let _gone = std::fs::remove_file(to);
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

fn aside(directory: &Path, how: impl FnOnce(&Path, &Path) -> std::io::Result<()>) -> Result<PathBuf, StoreError> {
    let mut second = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let name = |second| directory.join(format!("{FILE}{ASIDE}{second}"));
    while name(second).symlink_metadata().is_ok() {
        second += 1;
    }
    let to = name(second);
    how(&directory.join(FILE), &to).map_err(|cause| StoreError::from_directory(directory, cause))?;
    forget_oldest(directory);
    Ok(to)
}

/// Only files: somebody's directory is not ours to delete.
fn forget_oldest(directory: &Path) {
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
