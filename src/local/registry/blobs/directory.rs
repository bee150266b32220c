//! The files of a registry that is kept in a directory. This module owns their names, and the order in which they are written.
//! Everything here blocks, and runs on threads for that.
//!
//! `ecs-local-registry` marks the directory and is locked while a server uses it, `state.json` has all but layers and manifests,
//! `blobs/` one file for each layer (its digest and a number of its own), `manifests/` one for each manifest (see
//! [`super::manifest_files`]), `uploads/` what is not complete. Invariants: a file in `blobs/` or `manifests/` is complete and on disk
//! before it has its name, and so is each state. A file that this module did not name is never removed.

use super::open_error::OpenError;
use crate::ecr::Digest;
use crate::ids::new_id;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::{DirBuilder, DirEntry, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// Marks a directory of this program.
const MARKER: &str = "ecs-local-registry";
/// The text of the marker: the version of the layout.
const VERSION: &str = "1\n";
/// Everything but layers and manifests.
const STATE: &str = "state.json";
/// The next state, until it is complete.
const NEXT_STATE: &str = "state.json.new";
/// Complete layers.
const BLOBS: &str = "blobs";
/// Manifests.
pub(super) const MANIFESTS: &str = "manifests";
/// Layers and manifests that are not complete.
const UPLOADS: &str = "uploads";
/// All folders in the directory.
const FOLDERS: [&str; 3] = [BLOBS, MANIFESTS, UPLOADS];
/// The largest state that is read, in bytes.
const MAX_STATE: u64 = 1024 * 1024 * 1024;
/// The digits of the number of a file.
const NUMBER_LENGTH: usize = 32;

/// A directory that this process has locked.
#[derive(Debug)]
pub(crate) struct Directory {
    path: PathBuf,
    /// The manifests that have files.
    pub(super) manifests: Mutex<BTreeSet<Digest>>,
    lock: File,
}

impl Drop for Directory {
    /// Closing the file is not enough: a child that was forked a moment ago still has it open until it starts its program.
    fn drop(&mut self) {
        let _closed_anyway = self.lock.unlock();
    }
}

/// A layer's file in the directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// Its size in bytes.
    pub(super) size: u64,
    /// Its name in `blobs/`.
    pub(super) name: String,
}

/// A file in `uploads/`; removed when it is dropped.
#[derive(Debug)]
pub(super) struct Temporary {
    /// `None`: an upload that waits for its client has no open file, of which a process may have few only.
    file: Option<File>,
    path: PathBuf,
    number: String,
    is_kept: bool,
}

impl Temporary {
    /// The file, open at its end.
    pub(super) fn file(&mut self) -> io::Result<&mut File> {
        let file = match self.file.take() {
            Some(file) => file,
            None => OpenOptions::new().append(true).open(&self.path)?,
        };
        Ok(self.file.insert(file))
    }

    /// Closes the file until it is needed again.
    pub(super) fn close(&mut self) {
        self.file = None;
    }

    /// Gives the complete file its place: on disk first, then with its name. The caller syncs the folder.
    pub(super) fn place(mut self, target: &Path) -> io::Result<()> {
        self.file()?.sync_all()?;
        std::fs::rename(&self.path, target)?;
        self.is_kept = true;
        Ok(())
    }

    /// Removes the file on this thread.
    pub(super) fn remove(mut self) {
        self.is_kept = true;
        // If this fails, the next start removes it.
        let _removed = std::fs::remove_file(&self.path);
    }
}

impl Directory {
    /// Opens the directory, or creates it, and removes what uploads left behind. Returns it with the layers in it.
    pub(super) fn open(path: &Path) -> Result<(Self, BTreeMap<Digest, Found>), OpenError> {
        let failed = |error| OpenError::Io(path.to_owned(), error);
        match DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(error)),
            Err(_) => {}
            Ok(()) => sync_parent(path).map_err(failed)?,
        }
        check_owner(path)?;
        // Before the mode: nobody should close a directory that is not a registry's.
        check_content(path)?;
        check_mode(path)?;
        let lock = mark(path)?;
        let directory = Self { path: path.to_owned(), manifests: Mutex::default(), lock };
        for name in FOLDERS {
            let below = path.join(name);
            match DirBuilder::new().mode(0o700).create(&below) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(OpenError::Io(below, error)),
                _ => check_owner(&below).and_then(|()| check_mode(&below))?,
            }
        }
        sync(path).map_err(failed)?;
        check_names(path, |name| [MARKER, STATE, NEXT_STATE].contains(&name) || FOLDERS.contains(&name))?;
        check_names(&path.join(UPLOADS), is_number)?;
        check_names(&path.join(BLOBS), |name| digest_in(name).is_some())?;
        check_names(&path.join(MANIFESTS), |name| digest_of(name).is_some())?;
        directory.remove_leftovers().map_err(failed)?;
        directory.find_manifests().map_err(failed)?;
        let found = directory.found().map_err(failed)?;
        Ok((directory, found))
    }

    /// Removes what a server that was killed did not complete.
    fn remove_leftovers(&self) -> io::Result<()> {
        remove_if_there(&self.path.join(NEXT_STATE))?;
        std::fs::read_dir(self.path.join(UPLOADS))?.try_for_each(|entry| remove_if_there(&entry?.path()))
    }

    /// The complete layers. If there are two files of one layer, the second is removed: the server was killed before it did so.
    fn found(&self) -> io::Result<BTreeMap<Digest, Found>> {
        let mut found: BTreeMap<Digest, Found> = BTreeMap::new();
        for entry in std::fs::read_dir(self.path.join(BLOBS))? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let Some(digest) = digest_in(&name) else { continue };
            let size = match entry.metadata() {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                metadata => metadata?.len(),
            };
            match found.get(&digest) {
                Some(other) if other.size >= size => remove_if_there(&entry.path())?,
                Some(other) => {
                    remove_if_there(&self.path.join(BLOBS).join(&other.name))?;
                    found.insert(digest, Found { size, name });
                }
                None => drop(found.insert(digest, Found { size, name })),
            }
        }
        Ok(found)
    }

    /// The path, for errors.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The path of the state, for errors.
    pub(crate) fn state_path(&self) -> PathBuf {
        self.path.join(STATE)
    }

    /// A new file for an upload.
    pub(super) fn temporary(&self) -> io::Result<Temporary> {
        let number = new_id();
        let path = self.path.join(UPLOADS).join(&number);
        let file = OpenOptions::new().append(true).create_new(true).mode(0o600).open(&path)?;
        Ok(Temporary { file: Some(file), path, number, is_kept: false })
    }

    /// Makes a complete upload a layer: on disk first, then with its name. Returns the name.
    pub(super) fn keep(&self, mut temporary: Temporary, digest: &Digest) -> io::Result<String> {
        temporary.file()?.sync_all()?;
        let name = format!("{}.{}", digest.hex(), temporary.number);
        let target = self.path.join(BLOBS).join(&name);
        std::fs::rename(&temporary.path, &target)?;
        temporary.path = target;
        // If this fails, the file is removed again.
        sync(&self.path.join(BLOBS))?;
        temporary.is_kept = true;
        Ok(name)
    }

    /// A layer's file is there, and has this size.
    pub(super) fn is_whole(&self, name: &str, size: u64) -> bool {
        std::fs::metadata(self.path.join(BLOBS).join(name)).is_ok_and(|found| found.is_file() && found.len() == size)
    }

    /// Opens a layer.
    pub(super) fn layer(&self, name: &str) -> io::Result<File> {
        File::open(self.path.join(BLOBS).join(name))
    }

    /// Removes a layer. Whoever has opened it can still read it.
    pub(super) fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.path.join(BLOBS).join(name))
    }

    /// Replaces the state. If the system stops at any instant, the old or the new one is there; the new one for sure only after
    /// [`Self::sync_state`].
    ///
    /// # Errors
    /// If it cannot be written, or could not be read again. The old one is there then.
    pub(crate) fn write_state(&self, text: &str) -> io::Result<()> {
        if text.len() as u64 > MAX_STATE {
            let message = format!("the state would have more than {MAX_STATE} bytes");
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
        }
        let next = self.path.join(NEXT_STATE);
        let write = || {
            let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&next)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            std::fs::rename(&next, self.path.join(STATE))
        };
        if let Err(error) = write() {
            // A half of it would take the room that it lacks.
            let _removed = std::fs::remove_file(&next);
            return Err(error);
        }
        Ok(())
    }

    /// Puts the name of the last state on disk.
    ///
    /// # Errors
    /// If this fails. Then the old or the new state is there.
    pub(crate) fn sync_state(&self) -> io::Result<()> {
        sync(&self.path)
    }

    /// The state; `None`: the directory is new.
    ///
    /// # Errors
    /// If it cannot be read, or is larger than any state that this program writes.
    pub(crate) fn read_state(&self) -> io::Result<Option<String>> {
        let file = match File::open(self.path.join(STATE)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut text = String::new();
        file.take(MAX_STATE + 1).read_to_string(&mut text)?;
        match text.len() as u64 > MAX_STATE {
            true => {
                Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("{STATE} has more than {MAX_STATE} bytes")))
            }
            false => Ok(Some(text)),
        }
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if self.is_kept {
            return;
        }
        // If this fails, the next start removes it.
        let path = std::mem::take(&mut self.path);
        let remove = move || drop(std::fs::remove_file(path));
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(remove)),
            Err(_) => remove(),
        }
    }
}

/// The path is a directory of this user.
fn check_owner(path: &Path) -> Result<(), OpenError> {
    let found = std::fs::symlink_metadata(path).map_err(|error| OpenError::Io(path.to_owned(), error))?;
    if !found.is_dir() || found.uid() != rustix::process::geteuid().as_raw() {
        return Err(OpenError::NotOwn(path.to_owned()));
    }
    Ok(())
}

/// No other user can read or change the directory.
fn check_mode(path: &Path) -> Result<(), OpenError> {
    let found = std::fs::symlink_metadata(path).map_err(|error| OpenError::Io(path.to_owned(), error))?;
    match found.mode() & 0o077 {
        0 => Ok(()),
        _ => Err(OpenError::OpenToOthers(path.to_owned(), found.mode() & 0o777)),
    }
}

/// The directory has the marker, or is empty.
fn check_content(path: &Path) -> Result<(), OpenError> {
    let failed = |error| OpenError::Io(path.to_owned(), error);
    if !path.join(MARKER).exists()
        && let Some(name) = first_name(path).map_err(failed)?
    {
        return Err(OpenError::Foreign(path.to_owned(), name));
    }
    Ok(())
}

/// Locks the directory's marker. An empty directory gets one.
fn mark(path: &Path) -> Result<File, OpenError> {
    let marker = path.join(MARKER);
    let failed = |error| OpenError::Io(marker.clone(), error);
    // Opening something else, such as a pipe, might wait.
    if std::fs::symlink_metadata(&marker).is_ok_and(|found| !found.is_file()) {
        return Err(OpenError::Foreign(path.to_owned(), MARKER.to_owned()));
    }
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let no_link = i32::try_from(rustix::fs::OFlags::NOFOLLOW.bits()).unwrap_or_default();
    let mut lock = options.custom_flags(no_link).open(&marker).map_err(failed)?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(OpenError::InUse(path.to_owned())),
        Err(TryLockError::Error(error)) => return Err(failed(error)),
    }
    let mut version = String::new();
    (&lock).take(64).read_to_string(&mut version).map_err(failed)?;
    match version.as_str() {
        // An earlier server was killed before it wrote the version.
        "" => lock.write_all(VERSION.as_bytes()).and_then(|()| lock.sync_all()).map_err(failed)?,
        VERSION => {}
        _ => return Err(OpenError::OtherVersion(marker)),
    }
    Ok(lock)
}

/// The name of a file in the directory. The marker of a server that starts at this moment does not count.
fn first_name(path: &Path) -> io::Result<Option<String>> {
    let is_other = |entry: &io::Result<DirEntry>| entry.as_ref().map_or(true, |entry| entry.file_name() != MARKER);
    let first = std::fs::read_dir(path)?.find(is_other).transpose()?;
    Ok(first.map(|entry| entry.file_name().to_string_lossy().into_owned()))
}

/// Everything in the folder has a name of this program; and all but the folders are files.
fn check_names(folder: &Path, is_own: impl Fn(&str) -> bool) -> Result<(), OpenError> {
    let failed = |error| OpenError::Io(folder.to_owned(), error);
    let has_own_kind = |entry: &DirEntry, name: &OsStr| -> io::Result<bool> {
        let kind = entry.file_type()?;
        Ok(kind.is_file() || (kind.is_dir() && FOLDERS.iter().any(|own| *own == name)))
    };
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name();
        let is_ours = name.to_str().is_some_and(&is_own) && has_own_kind(&entry, &name).map_err(failed)?;
        if !is_ours {
            return Err(OpenError::Foreign(folder.to_owned(), name.to_string_lossy().into_owned()));
        }
    }
    Ok(())
}

fn is_number(name: &str) -> bool {
    name.len() == NUMBER_LENGTH && name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// The digest in the name of a layer's file.
fn digest_in(name: &str) -> Option<Digest> {
    let (hex, _) = name.split_once('.').filter(|(_, number)| is_number(number))?;
    digest_of(hex)
}

/// The digest with these hexadecimal digits.
pub(super) fn digest_of(hex: &str) -> Option<Digest> {
    format!("sha256:{hex}").parse().ok()
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Puts the name of a new folder on disk.
fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    sync(parent.unwrap_or(Path::new(".")))
}

/// Puts the names in a folder on disk.
pub(super) fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests;
