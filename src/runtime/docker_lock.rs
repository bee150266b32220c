//! One agent for one Docker engine, as seen from one network namespace.
//!
//! Two agents on one engine would each take the other's tasks for something to stop. In network namespaces of their own they have ports and
//! addresses of their own, and the labels of their containers keep them apart ([`Owners`](crate::model::Owners)); in the same one the second
//! must not start. The lock is a file that is locked with `flock` while the agent lives, so `kill -9` frees it and a file that stays behind
//! is no lock. Its name is made of the engine's own id and the namespace's number: two sockets or proxies of one engine are one engine.
//!
//! Where the file is: below `/var/run/ecs-agent`, which the service and the container form (by its mount of `/var/run`) share; for an agent
//! that may not write there, in a directory of its own below `/dev/shm`. Each agent takes its own lock first and then every other one of the
//! same name that it may believe, so two that start at the same moment cannot both go on. A file is believed only if it belongs to root, to
//! this user, or to the user or group that may use the engine anyway, and others may not open it: nobody else can keep the agent out, and a
//! link is never followed. The shared directory is looked at first and by itself, and in the open one directories of other users are skipped:
//! whatever they put there, agents that may use the shared directory meet. An abstract socket has the right scope by itself, but any local user could take its name.
//!
//! What it cannot see: an agent in a container that does not share `/var/run`; an agent whose user is neither root nor in the group of the
//! socket; and an agent in a container and one of a user that may not write to `/var/run`, each from the other: the `/dev/shm` of a container
//! is its own. Invariant: nothing is written but into a lock file that is held.

use crate::model::{OwnerId, text};
use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;
use std::fs::{DirBuilder, File, Metadata, OpenOptions, Permissions};
use std::io::{ErrorKind, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown, fchown};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Looking at another agent's file locks it for an instant: a lock counts as held only if it is for this long.
const TRIES: u32 = 10;
const BETWEEN_TRIES: Duration = Duration::from_millis(100);
/// How the directories of agents that may not write to the shared one begin.
const PREFIX: &str = "ecs-agent-";
/// The most bytes of a holder's description that are read: more than its words and the identities in `ecs-agent.owner` can come to.
const MAX_HOLDER: u64 = 256 * 1024;
/// The most lock files that are looked at in one directory.
const MAX_FILES: usize = 1024;
/// The most entries of one directory that are looked at. Anybody may fill the open one; the shared one is looked at first, and by itself.
const MAX_ENTRIES: usize = 100_000;
/// The most directories of agents that are looked at.
const MAX_DIRECTORIES: usize = 1024;
/// The most bytes of an engine's id in a file name.
const MAX_ENGINE: usize = 128;

/// Where lock files are.
#[derive(Clone, Debug)]
pub(super) struct Places {
    /// The directory that all agents of this host share; made if it is missing.
    pub(super) shared: PathBuf,
    /// A directory that everybody may write to.
    pub(super) open: PathBuf,
}

impl Default for Places {
    fn default() -> Self {
        Self { shared: "/var/run/ecs-agent".into(), open: "/dev/shm".into() }
    }
}

/// Whose lock files are believed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trust {
    /// The user of this process.
    pub(super) user: u32,
    /// The user that owns the engine's socket; `None` if it has no socket in the file system.
    pub(super) socket_user: Option<u32>,
    /// The group that may use the engine's socket; `None` if no group may.
    pub(super) socket_group: Option<u32>,
}

impl Trust {
    /// Of this process and the engine at `endpoint`.
    pub(super) fn new(endpoint: &str) -> Self {
        let socket = endpoint.strip_prefix("unix://").and_then(|path| std::fs::metadata(path).ok());
        let is_for_group = |about: &&Metadata| about.mode() & 0o060 == 0o060;
        Self {
            user: rustix::process::geteuid().as_raw(),
            socket_user: socket.as_ref().map(MetadataExt::uid),
            socket_group: socket.as_ref().filter(is_for_group).map(MetadataExt::gid),
        }
    }

    fn believes(&self, about: &Metadata) -> bool {
        // A second name could be one that somebody gave to a file of root.
        self.knows(about) && about.is_file() && about.nlink() == 1 && about.mode() & 0o007 == 0
    }

    /// Lock files in this directory are looked at.
    fn believes_directory(&self, about: &Metadata) -> bool {
        self.knows(about) && about.is_dir() && about.mode() & 0o002 == 0
    }

    fn knows(&self, about: &Metadata) -> bool {
        about.uid() == 0
            || about.uid() == self.user
            || Some(about.uid()) == self.socket_user
            || Some(about.gid()) == self.socket_group
    }
}

/// What the agent that holds a lock says about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Holder {
    /// Process id, in its own namespace of processes.
    pub(super) pid: u32,
    /// How it runs: as a service, in which container.
    pub(super) form: String,
    /// `ECS_DATADIR`.
    pub(super) data_dir: String,
    /// Cluster it works for.
    pub(super) cluster: String,
    /// Identities whose containers are its own; empty until it has read its data.
    pub(super) identities: BTreeSet<OwnerId>,
}

impl Holder {
    /// Its words are short and without control characters.
    fn cleaned(self) -> Self {
        let Self { pid, form, data_dir, cluster, identities } = self;
        let [form, data_dir, cluster] = [form, data_dir, cluster].map(|field| text::cleaned(&field));
        Self { pid, form, data_dir, cluster, identities }
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.pid == 0 {
            return f.write_str("an agent that did not say which");
        }
        let Self { pid, form, data_dir, cluster, identities: _ } = self;
        write!(f, "process {pid}, {form}, ECS_DATADIR {data_dir}, cluster {cluster}")
    }
}

/// Another agent holds the lock, or the identity.
#[derive(Debug, thiserror::Error)]
pub(super) enum Held {
    /// The same engine and network namespace.
    #[error(
        "another agent works with this Docker engine in this network namespace: {0}; stop it first, or give this one a network namespace of its own"
    )]
    Engine(Holder),
    /// The same identity, in another namespace.
    #[error(
        "another agent has the identity of this data directory, perhaps because one is a copy of the other: {0}; give this one an ECS_DATADIR of its own"
    )]
    Identity(Holder),
}

/// Which of the places for lock files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// [`Places::shared`].
    Shared,
    /// [`Places::open`].
    Open,
}

impl Place {
    /// In words.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Shared => "lock files below /var/run",
            Self::Open => "lock files below /dev/shm",
        }
    }
}

/// Identities of agents that run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Running {
    /// Those that were found.
    pub(super) identities: BTreeSet<OwnerId>,
    /// There may be more: something could not be looked at, or an agent has not said its identity yet.
    pub(super) is_partial: bool,
}

/// What a look at this agent's own lock file found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Renewed {
    /// It is there; or there never was one.
    There,
    /// It was removed, and is made anew.
    Made,
    /// It was removed and cannot be made.
    Missing,
}

/// The locks that this agent holds. They are free when this is dropped.
#[derive(Debug)]
pub(super) struct DockerLock {
    held: Mutex<Vec<File>>,
    /// The file that this agent made, of which others know that it runs; `None` if there is none.
    own: Mutex<Option<PathBuf>>,
    places: Places,
    trust: Trust,
    engine: String,
    name: String,
}

impl DockerLock {
    /// For this engine and network namespace. Nothing is locked before [`DockerLock::take_in`] both places, in their order.
    pub(super) fn new(places: Places, trust: Trust, engine: &str, namespace: u64) -> Self {
        let engine: String = engine.chars().filter(|c| c.is_ascii_alphanumeric() || "-:_".contains(*c)).collect();
        let engine = text::cut(&engine, MAX_ENGINE);
        let name = format!("{engine}.{namespace}.lock");
        Self { held: Mutex::default(), own: Mutex::default(), places, trust, engine, name }
    }

    /// Takes the lock as far as it is in this place. False if this agent has a lock file neither there nor in an earlier place.
    ///
    /// # Errors
    /// Another agent holds it.
    pub(super) fn take_in(&self, place: Place, holder: &Holder) -> Result<bool, Held> {
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
            self.warn_of_part(place);
        }
        for path in paths {
            if let Some(file) = self.hold(&path, false)? {
                lock(&self.held).push(file);
            }
        }
        self.describe(holder);
        Ok(lock(&self.own).is_some())
    }

    /// Makes the lock file anew if it was removed: systemd before 235 removes `/run/ecs-agent` when the unit stops, logind what a user left
    /// in `/dev/shm`.
    ///
    /// # Errors
    /// Another agent has taken the lock meanwhile. The same call may be made again.
    pub(super) fn renew(&self, holder: &Holder) -> Result<Renewed, Held> {
        let Some(path) = lock(&self.own).clone() else { return Ok(Renewed::There) };
        let there = std::fs::symlink_metadata(&path).ok().as_ref().map(inode);
        let is_ours = |file: &File| there.is_some() && file.metadata().ok().as_ref().map(inode) == there;
        if lock(&self.held).iter().any(is_ours) {
            return Ok(Renewed::There);
        }
        *lock(&self.own) = None;
        lock(&self.held).retain(|file| file.metadata().is_ok_and(|about| about.nlink() > 0));
        let taken = self.take_in(Place::Shared, holder).and_then(|_| self.take_in(Place::Open, holder));
        lock(&self.own).get_or_insert(path);
        taken.map(|is_made| if is_made { Renewed::Made } else { Renewed::Missing })
    }

    /// Says who holds the lock.
    pub(super) fn describe(&self, holder: &Holder) {
        let text = serde_json::to_vec(&holder.clone().cleaned()).unwrap_or_default();
        for mut file in lock(&self.held).iter() {
            let written = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| file.write_all(&text));
            if let Err(error) = written {
                tracing::warn!(%error, "the lock file cannot be written: a second agent will not know which one is the first");
            }
        }
    }

    /// Identities of other agents that work with the same engine and have their lock file in this place. Removes files of agents that have
    /// gone.
    ///
    /// # Errors
    /// One of them has one of these identities.
    pub(super) fn others_in(&self, place: Place, own: &BTreeSet<OwnerId>) -> Result<Running, Held> {
        let is_of_engine = |name: &str| {
            name.strip_prefix(&self.engine).is_some_and(|rest| rest.starts_with('.') && rest.ends_with(".lock"))
        };
        let (paths, is_partial) = self.files_in(place, is_of_engine);
        let mut running = Running { is_partial, ..Running::default() };
        for path in paths {
            let Some(file) = self.open(&path, false) else {
                // Somebody's whom we believe, and we may not open it.
                running.is_partial |= std::fs::symlink_metadata(&path).is_ok_and(|about| self.trust.believes(&about));
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
            self.warn_of_part(place);
        }
        Ok(running)
    }

    fn warn_of_part(&self, place: Place) {
        let path = match place {
            Place::Shared => &self.places.shared,
            Place::Open => &self.places.open,
        };
        tracing::warn!(path = %path.display(), "not every lock file of agents can be looked at; another agent on this Docker engine may not be noticed");
    }

    /// Where this agent's own file is in the shared directory; `None` if it may not make one there.
    fn own_shared_path(&self) -> Option<PathBuf> {
        let shared = &self.places.shared;
        let _exists = make_directory(shared, None);
        let path = shared.join(&self.name);
        let is_usable = is_private(shared, |user| user == 0 || user == self.trust.user);
        (is_usable && self.open(&path, true).is_some()).then_some(path)
    }

    /// Where this agent's own file is in a directory that belongs to this user, in the open one.
    fn own_open_path(&self) -> Option<PathBuf> {
        let is_mine = |path: &PathBuf| is_private(path, |user| user == self.trust.user);
        let directory = match self.directories_in(Place::Open).0.into_iter().find(is_mine) {
            Some(directory) => {
                // The group of the socket may have changed since it was made.
                show_to(&directory, self.trust.socket_group);
                directory
            }
            None => {
                // A name that nobody can have taken before.
                let name = format!("{PREFIX}{}-{}", self.trust.user, uuid::Uuid::new_v4().simple());
                let path = self.places.open.join(name);
                make_directory(&path, self.trust.socket_group).ok()?;
                path
            }
        };
        Some(directory.join(&self.name))
    }

    /// Locks a file; `None` if it cannot be used, is not to be believed, or is one that is held already.
    fn hold(&self, path: &Path, create: bool) -> Result<Option<File>, Held> {
        for attempt in 0..TRIES {
            if attempt > 0 {
                std::thread::sleep(BETWEEN_TRIES);
            }
            let Some(file) = self.open(path, create) else { return Ok(None) };
            if self.is_held(&file) {
                return Ok(None);
            }
            // Whoever removes a file has locked it: one that was removed before the lock was ours is no lock.
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
        let about = file.metadata().ok().filter(|about| self.trust.believes(about))?;
        // Whoever may use the engine shall be able to see that it is locked, and nobody else.
        if create && about.uid() == self.trust.user {
            let is_shared = self.trust.socket_group.is_some_and(|group| fchown(&file, None, Some(group)).is_ok());
            let mode = if is_shared { 0o660 } else { 0o600 };
            file.set_permissions(Permissions::from_mode(mode)).ok()?;
        }
        Some(file)
    }

    /// Directories with lock files in this place; whether there may be more. Those of users who are not believed count for nothing: such a
    /// user could make any number.
    fn directories_in(&self, place: Place) -> (Vec<PathBuf>, bool) {
        if place == Place::Shared {
            let is_directory = std::fs::symlink_metadata(&self.places.shared).is_ok_and(|about| about.is_dir());
            return (is_directory.then(|| self.places.shared.clone()).into_iter().collect(), false);
        }
        let (agents, mut is_partial) = entries_of(&self.places.open, |name| name.starts_with(PREFIX));
        let is_believed =
            |path: &PathBuf| std::fs::symlink_metadata(path).is_ok_and(|about| self.trust.believes_directory(&about));
        let mut found: Vec<PathBuf> = agents.into_iter().filter(is_believed).take(MAX_DIRECTORIES + 1).collect();
        is_partial |= found.len() > MAX_DIRECTORIES;
        found.truncate(MAX_DIRECTORIES);
        (found, is_partial)
    }

    /// Lock files of that name in this place, of whichever agent; whether there may be more.
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

/// Entries of a directory by name; whether there may be more. A directory that is not there has none.
fn entries_of(directory: &Path, is_wanted: impl Fn(&str) -> bool) -> (Vec<PathBuf>, bool) {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) => return (Vec::new(), error.kind() != ErrorKind::NotFound),
    };
    let (mut found, mut looked_at) = (Vec::new(), 0);
    for entry in entries {
        looked_at += 1;
        let Ok(entry) = entry else { return (found, true) };
        if looked_at > MAX_ENTRIES {
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

fn inode(about: &Metadata) -> (u64, u64) {
    (about.dev(), about.ino())
}

/// This path is a name of this file.
fn leads_to(path: &Path, file: &File) -> bool {
    let opened = file.metadata().ok().as_ref().map(inode);
    opened.is_some() && std::fs::symlink_metadata(path).ok().as_ref().map(inode) == opened
}

/// Makes a directory in which others can look for lock files, whatever the umask of the service is.
fn make_directory(path: &Path, group: Option<u32>) -> std::io::Result<()> {
    DirBuilder::new().mode(0o755).create(path)?;
    show_to(path, group);
    std::fs::set_permissions(path, Permissions::from_mode(0o755))
}

/// By the group of its directory an agent of the same group sees that it may believe it.
fn show_to(directory: &Path, group: Option<u32>) {
    if group.is_some() {
        let _is_no_member = chown(directory, None, group);
    }
}

/// Only its owner, one of these users, may put something into this directory.
fn is_private(path: &Path, is_owner: impl Fn(u32) -> bool) -> bool {
    std::fs::symlink_metadata(path)
        .is_ok_and(|about| about.is_dir() && is_owner(about.uid()) && about.mode() & 0o022 == 0)
}

/// What the holder says. Whatever else is in the file says nothing.
fn holder_of(file: &File) -> Holder {
    let mut bytes = Vec::new();
    let mut reader = file;
    let read = reader.rewind().and_then(|()| reader.take(MAX_HOLDER).read_to_end(&mut bytes));
    // An object, and nothing that could be read as one.
    let object: Option<serde_json::Map<_, _>> = read.ok().and_then(|_| serde_json::from_slice(&bytes).ok());
    let holder: Option<Holder> = object.and_then(|object| serde_json::from_value(object.into()).ok());
    holder.unwrap_or_default().cleaned()
}

/// How this agent runs, in words. `mounts` is its `/proc/self/mountinfo`: Docker mounts files of a container from a directory of its name.
/// What is mounted *on* such a directory is no sign: a host has the shared memory of its containers there.
pub(super) fn form(is_service: bool, mounts: &str) -> String {
    let is_id = |word: &&str| word.len() == 64 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    let container = mounts.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(3);
        let (source, mounted_on) = (fields.next()?, fields.next()?);
        let is_of_a_container = ["/etc/hostname", "/etc/hosts", "/etc/resolv.conf"].contains(&mounted_on);
        source.split_once("/containers/").filter(|_| is_of_a_container)?.1.split('/').next().filter(is_id)
    });
    match container {
        Some(id) => format!("in container {}", &id[..12]),
        None if is_service => "the system service (-service)".to_owned(),
        None => "not the system service".to_owned(),
    }
}

#[cfg(test)]
mod tests;
