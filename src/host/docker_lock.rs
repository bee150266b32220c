//! Ensures that only one agent works with a Docker engine in a network namespace.
//!
//! Two agents on one engine would each try to stop the other's tasks. Agents in different network namespaces have their own
//! ports and addresses, and the labels of their containers keep them apart ([`Owners`](ecs_core::model::Owners)); in the same
//! namespace the second agent must not start. The lock is a file that stays locked with `flock` while the agent lives: `kill
//! -9` releases the lock, and a file that is left behind is no lock. The file's name consists of the engine's id and the
//! namespace's number, so that two sockets or proxies of one engine count as one engine.
//!
//! The file is below `/var/run/ecs-agent`, which the service shares with the container form (through its mount of `/var/run`).
//! An agent that may not write there uses a directory of its own below `/dev/shm`. Each agent takes its own lock first, and
//! then every other trusted lock of the same name, so of two agents that start at the same moment at most one goes on. A file
//! is trusted only if it belongs to root, to this user, or to the user or group that may use the engine anyway, and no other
//! user may open it: other users cannot keep the agent from starting. Links are never followed. The shared directory is
//! searched first and separately, and in `/dev/shm` the directories of other users are skipped: whatever those users put
//! there, agents that may use the shared directory find each other. An abstract socket would have the right scope by itself,
//! but any local user could take its name.
//!
//! The lock does not detect: an agent in a container that does not share `/var/run`; an agent whose user is neither root nor in
//! the socket's group; and, because a container has its own `/dev/shm`, an agent in a container next to an agent whose user may
//! not write to `/var/run`. Invariant: only a lock file that is held is ever written.

mod holder;
mod places;

pub use holder::{Holder, form};
pub use places::{Place, Places, Trust};

use ecs_core::model::{OwnerId, text};
use holder::holder_of;
use rustix::fs::OFlags;
use std::collections::BTreeSet;
use std::fs::{DirBuilder, File, Metadata, OpenOptions, Permissions};
use std::io::{ErrorKind, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown, fchown};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Number of attempts to take a lock. An agent that inspects another agent's file locks it for an instant, so a lock counts as
/// held only if all attempts fail.
const TRIES: u32 = 10;
/// Pause between these attempts.
const BETWEEN_TRIES: Duration = Duration::from_millis(100);
/// Prefix of the directories of agents that may not write to the shared one.
const PREFIX: &str = "ecs-agent-";
/// Upper limit of the lock files that are inspected in one directory.
const MAX_FILES: usize = 1024;
/// Upper limit of the entries that are read from one directory. Any user may fill the open one; the shared one is searched
/// separately.
const MAX_ENTRIES: usize = 100_000;
/// Upper limit of the agents' directories that are searched.
const MAX_DIRECTORIES: usize = 1024;
/// Upper limit of the engine's id in a file name, in bytes.
const MAX_ENGINE: usize = 128;

/// Another agent holds the lock, or has the same identity.
#[derive(Debug, thiserror::Error)]
pub enum Held {
    /// The other agent uses the same engine in the same network namespace.
    #[error(
        "another agent works with this Docker engine in this network namespace: {0}; stop it first, or give this one a network \
         namespace of its own"
    )]
    Engine(Holder),
    /// The other agent has the same identity, in another network namespace.
    #[error(
        "another agent has the identity of this data directory, perhaps because one is a copy of the other: {0}; give this one \
         an ECS_DATADIR of its own"
    )]
    Identity(Holder),
}

/// Identities of the agents that run on this host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Running {
    /// The identities that were found.
    pub identities: BTreeSet<OwnerId>,
    /// There may be more: something could not be inspected, or an agent has not written its identity yet.
    pub is_partial: bool,
}

/// Result of the check of this agent's own lock file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewed {
    /// The file exists, or this agent never had one.
    Unchanged,
    /// The file had been removed, and was created again.
    Recreated,
    /// The file had been removed, and cannot be created.
    Missing,
}

/// The locks that this agent holds. They are released when this is dropped.
#[derive(Debug)]
pub struct DockerLock {
    held: Mutex<Vec<File>>,
    /// This agent's own lock file, which shows other agents that it runs; `None` if it has none.
    own: Mutex<Option<PathBuf>>,
    places: Places,
    trust: Trust,
    engine: String,
    name: String,
}

impl Drop for DockerLock {
    /// Closing the files is not enough: a child that was forked a moment ago still has them open until it starts its program.
    fn drop(&mut self) {
        for file in lock(&self.held).iter() {
            let _closed_anyway = file.unlock();
        }
    }
}

impl DockerLock {
    /// The lock for this engine and network namespace. Locks nothing yet: call [`DockerLock::take_in`] for both places, in their
    /// order.
    pub fn new(places: Places, trust: Trust, engine: &str, namespace: u64) -> Self {
        let engine: String = engine.chars().filter(|c| c.is_ascii_alphanumeric() || "-:_".contains(*c)).collect();
        let engine = text::cut(&engine, MAX_ENGINE);
        let name = format!("{engine}.{namespace}.lock");
        Self { held: Mutex::default(), own: Mutex::default(), places, trust, engine, name }
    }

    /// Takes the lock files in this place. Returns false if this agent has a file of its own neither there nor in an earlier
    /// place.
    ///
    /// # Errors
    /// Another agent holds one of them.
    pub fn take_in(&self, place: Place, holder: &Holder) -> Result<bool, Held> {
        if lock(&self.own).is_none() {
            let path = match place {
                Place::Shared => self.own_shared_path(),
                Place::Open => self.own_open_path(),
            };
            if let Some(path) = path
                && let Some(file) = self.hold(&path, true)?
            {
                lock(&self.held).push(file);
                *lock(&self.own) = Some(path);
            }
        }
        let (paths, is_partial) = self.files_in(place, |name| name == self.name);
        if is_partial {
            self.warn_partial(place);
        }
        for path in paths {
            if let Some(file) = self.hold(&path, false)? {
                lock(&self.held).push(file);
            }
        }
        self.describe(holder);
        Ok(lock(&self.own).is_some())
    }

    /// Creates the lock file again if it was removed: systemd before 235 removes `/run/ecs-agent` when the unit stops, and
    /// logind removes a user's files in `/dev/shm` when the user logs out.
    ///
    /// # Errors
    /// Another agent has taken the lock meanwhile. The call may be repeated.
    pub fn renew(&self, holder: &Holder) -> Result<Renewed, Held> {
        let Some(path) = lock(&self.own).clone() else { return Ok(Renewed::Unchanged) };
        let found = std::fs::symlink_metadata(&path).ok().as_ref().map(inode);
        let is_found = |file: &File| found.is_some() && file.metadata().ok().as_ref().map(inode) == found;
        if lock(&self.held).iter().any(is_found) {
            return Ok(Renewed::Unchanged);
        }
        *lock(&self.own) = None;
        lock(&self.held).retain(|file| file.metadata().is_ok_and(|metadata| metadata.nlink() > 0));
        let taken = self.take_in(Place::Shared, holder).and_then(|_| self.take_in(Place::Open, holder));
        lock(&self.own).get_or_insert(path);
        taken.map(|has_file| if has_file { Renewed::Recreated } else { Renewed::Missing })
    }

    /// Writes a description of this agent into the lock files that it holds.
    pub fn describe(&self, holder: &Holder) {
        let text = serde_json::to_vec(&holder.clone().cleaned()).unwrap_or_default();
        for mut file in lock(&self.held).iter() {
            let written = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| file.write_all(&text));
            if let Err(error) = written {
                tracing::warn!(
                    %error,
                    "the lock file cannot be written: a second agent cannot report which agent holds the lock"
                );
            }
        }
    }

    /// Identities of other agents that use the same engine and have their lock file in this place. Removes the files of agents
    /// that have ended.
    ///
    /// # Errors
    /// Another agent has one of the identities in `own`.
    pub fn others_in(&self, place: Place, own: &BTreeSet<OwnerId>) -> Result<Running, Held> {
        let is_for_engine = |name: &str| {
            name.strip_prefix(&self.engine).is_some_and(|rest| rest.starts_with('.') && rest.ends_with(".lock"))
        };
        let (paths, is_partial) = self.files_in(place, is_for_engine);
        let mut running = Running { is_partial, ..Running::default() };
        for path in paths {
            let Some(file) = self.open(&path, false) else {
                // The file is trusted, but this process may not open it.
                running.is_partial |=
                    std::fs::symlink_metadata(&path).is_ok_and(|metadata| self.trust.trusts(&metadata));
                continue;
            };
            if self.is_held(&file) {
                continue;
            }
            if file.try_lock().is_ok() {
                let _gone = std::fs::remove_file(&path);
                continue;
            }
            let holder = holder_of(&file);
            if !holder.identities.is_disjoint(own) {
                return Err(Held::Identity(holder));
            }
            running.is_partial |= holder.identities.is_empty();
            running.identities.extend(holder.identities);
        }
        if is_partial {
            self.warn_partial(place);
        }
        Ok(running)
    }

    fn warn_partial(&self, place: Place) {
        let path = match place {
            Place::Shared => &self.places.shared,
            Place::Open => &self.places.open,
        };
        tracing::warn!(
            path = %path.display(),
            "not every lock file can be inspected; another agent on this Docker engine may not be noticed"
        );
    }

    /// Path of this agent's own file in the shared directory; `None` if the agent may not create one there.
    fn own_shared_path(&self) -> Option<PathBuf> {
        let shared = &self.places.shared;
        let _exists = make_directory(shared, None);
        let path = shared.join(&self.name);
        let is_usable = is_private(shared, |user| user == 0 || user == self.trust.user);
        (is_usable && self.open(&path, true).is_some()).then_some(path)
    }

    /// Path of this agent's own file below the open directory, in a directory that belongs to this user; `None` if that cannot
    /// be created.
    fn own_open_path(&self) -> Option<PathBuf> {
        let is_mine = |path: &PathBuf| is_private(path, |user| user == self.trust.user);
        let directory = match self.directories_in(Place::Open).0.into_iter().find(is_mine) {
            Some(directory) => {
                // The socket's group may have changed since the directory was made.
                give_to_group(&directory, self.trust.socket_group);
                directory
            }
            None => {
                // A random name, so that no other user can have taken it before.
                let name = format!("{PREFIX}{}-{}", self.trust.user, uuid::Uuid::new_v4().simple());
                let path = self.places.open.join(name);
                make_directory(&path, self.trust.socket_group).ok()?;
                path
            }
        };
        Some(directory.join(&self.name))
    }

    /// Locks a file. `None` if it cannot be used, is not trusted, or is held by this agent already.
    fn hold(&self, path: &Path, create: bool) -> Result<Option<File>, Held> {
        for attempt in 0..TRIES {
            if attempt > 0 {
                std::thread::sleep(BETWEEN_TRIES);
            }
            let Some(file) = self.open(path, create) else { return Ok(None) };
            if self.is_held(&file) {
                return Ok(None);
            }
            // An agent locks a file before it removes it. A file that was removed before it was locked here is no lock.
            if file.try_lock().is_ok() && leads_to(path, &file) {
                return Ok(Some(file));
            }
        }
        let holder = self.open(path, false).map(|file| holder_of(&file)).unwrap_or_default();
        Err(Held::Engine(holder))
    }

    fn is_held(&self, file: &File) -> bool {
        let wanted = file.metadata().ok().as_ref().map(inode);
        lock(&self.held).iter().any(|held| held.metadata().ok().as_ref().map(inode) == wanted)
    }

    fn open(&self, path: &Path, create: bool) -> Option<File> {
        let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(create).truncate(false).mode(0o600).custom_flags(flags);
        let file = options.open(path).ok()?;
        let metadata = file.metadata().ok().filter(|metadata| self.trust.trusts(metadata))?;
        // Users of the engine, and only they, must be able to see that it is locked.
        if create && metadata.uid() == self.trust.user {
            let is_shared = self.trust.socket_group.is_some_and(|group| fchown(&file, None, Some(group)).is_ok());
            let mode = if is_shared { 0o660 } else { 0o600 };
            file.set_permissions(Permissions::from_mode(mode)).ok()?;
        }
        Some(file)
    }

    /// The directories with lock files in this place, and whether there may be more. Directories of users who are not trusted do
    /// not count: such a user could create any number.
    fn directories_in(&self, place: Place) -> (Vec<PathBuf>, bool) {
        if place == Place::Shared {
            let is_directory = std::fs::symlink_metadata(&self.places.shared).is_ok_and(|metadata| metadata.is_dir());
            return (is_directory.then(|| self.places.shared.clone()).into_iter().collect(), false);
        }
        let (agents, mut is_partial) = entries_of(&self.places.open, |name| name.starts_with(PREFIX));
        let is_trusted = |path: &PathBuf| {
            std::fs::symlink_metadata(path).is_ok_and(|metadata| self.trust.trusts_directory(&metadata))
        };
        let mut found: Vec<PathBuf> = agents.into_iter().filter(is_trusted).take(MAX_DIRECTORIES + 1).collect();
        is_partial |= found.len() > MAX_DIRECTORIES;
        found.truncate(MAX_DIRECTORIES);
        (found, is_partial)
    }

    /// The lock files of all agents in this place whose names are wanted, and whether there may be more.
    fn files_in(&self, place: Place, is_wanted: impl Fn(&str) -> bool) -> (Vec<PathBuf>, bool) {
        let (directories, mut is_partial) = self.directories_in(place);
        let mut files = Vec::new();
        for directory in directories {
            let (mut found, is_part) = entries_of(&directory, &is_wanted);
            is_partial |= is_part || found.len() > MAX_FILES;
            found.truncate(MAX_FILES);
            files.append(&mut found);
        }
        (files, is_partial)
    }
}

/// The entries of a directory whose names are wanted, and whether there may be more. A missing directory has none.
fn entries_of(directory: &Path, is_wanted: impl Fn(&str) -> bool) -> (Vec<PathBuf>, bool) {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) => return (Vec::new(), error.kind() != ErrorKind::NotFound),
    };
    let (mut found, mut count) = (Vec::new(), 0);
    for entry in entries {
        count += 1;
        let Ok(entry) = entry else { return (found, true) };
        if count > MAX_ENTRIES {
            return (found, true);
        }
        if entry.file_name().to_str().is_some_and(&is_wanted) {
            found.push(entry.path());
        }
    }
    (found, false)
}

fn lock<T>(value: &Mutex<T>) -> MutexGuard<'_, T> {
    value.lock().unwrap_or_else(PoisonError::into_inner)
}

fn inode(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

/// The path leads to this open file.
fn leads_to(path: &Path, file: &File) -> bool {
    let opened = file.metadata().ok().as_ref().map(inode);
    opened.is_some() && std::fs::symlink_metadata(path).ok().as_ref().map(inode) == opened
}

/// Creates a directory that other users can search for lock files, whatever the service's umask.
fn make_directory(path: &Path, group: Option<u32>) -> std::io::Result<()> {
    DirBuilder::new().mode(0o755).create(path)?;
    give_to_group(path, group);
    std::fs::set_permissions(path, Permissions::from_mode(0o755))
}

/// Gives the directory to the socket's group, by which another agent of that group recognises it as trusted.
fn give_to_group(directory: &Path, group: Option<u32>) {
    if group.is_some() {
        let _is_no_member = chown(directory, None, group);
    }
}

/// Only the directory's owner may create files in it, and the owner is an accepted user.
fn is_private(path: &Path, is_owner: impl Fn(u32) -> bool) -> bool {
    std::fs::symlink_metadata(path)
        .is_ok_and(|metadata| metadata.is_dir() && is_owner(metadata.uid()) && metadata.mode() & 0o022 == 0)
}

#[cfg(test)]
mod tests;
