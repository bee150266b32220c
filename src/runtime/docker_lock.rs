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
//! link is never followed. An abstract socket has the right scope by itself, but any local user could take its name.
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
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
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
        let is_known = about.uid() == 0
            || about.uid() == self.user
            || Some(about.uid()) == self.socket_user
            || Some(about.gid()) == self.socket_group;
        // A second name could be one that somebody gave to a file of root.
        is_known && about.is_file() && about.nlink() == 1 && about.mode() & 0o007 == 0
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

/// The locks that this agent holds. They are free when this is dropped.
#[derive(Debug)]
pub(super) struct DockerLock {
    files: Vec<File>,
    places: Places,
    trust: Trust,
    engine: String,
    name: String,
}

impl DockerLock {
    /// Takes the lock for this engine and network namespace. Where no place can be used there is none, with a warning.
    ///
    /// # Errors
    /// Another agent holds it.
    pub(super) fn take(
        places: Places,
        trust: Trust,
        engine: &str,
        namespace: u64,
        holder: &Holder,
    ) -> Result<Self, Held> {
        let engine: String = engine.chars().filter(|c| c.is_ascii_alphanumeric() || "-:_".contains(*c)).collect();
        let engine = text::cut(&engine, MAX_ENGINE);
        let name = format!("{engine}.{namespace}.lock");
        let mut lock = Self { files: Vec::new(), places, trust, engine, name };
        let own = lock.own_path().and_then(|path| lock.hold(&path, true).transpose());
        match own {
            Some(held) => lock.files.push(held?),
            None => tracing::warn!(
                shared = %lock.places.shared.display(), other = %lock.places.open.display(),
                "no lock file can be made: a second agent on this Docker engine would not be noticed"
            ),
        }
        for path in lock.files_of_agents(|name| name == lock.name) {
            if let Some(file) = lock.hold(&path, false)? {
                lock.files.push(file);
            }
        }
        lock.describe(holder);
        Ok(lock)
    }

    /// Says who holds the lock.
    pub(super) fn describe(&self, holder: &Holder) {
        let text = serde_json::to_vec(&holder.clone().cleaned()).unwrap_or_default();
        for mut file in &self.files {
            let written = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| file.write_all(&text));
            if let Err(error) = written {
                tracing::warn!(%error, "the lock file cannot be written: a second agent will not know which one is the first");
            }
        }
    }

    /// Identities of agents that work with the same engine in other network namespaces. Removes files of agents that have gone.
    ///
    /// # Errors
    /// One of them has one of these identities.
    pub(super) fn others(&self, own: &BTreeSet<OwnerId>) -> Result<BTreeSet<OwnerId>, Held> {
        let is_other = |name: &str| {
            let rest =
                name.strip_prefix(&self.engine).is_some_and(|rest| rest.starts_with('.') && rest.ends_with(".lock"));
            rest && name != self.name
        };
        let mut live = BTreeSet::new();
        for path in self.files_of_agents(is_other) {
            let Some(file) = self.open(&path, false) else { continue };
            if file.try_lock().is_ok() {
                let _gone = std::fs::remove_file(&path);
                continue;
            }
            let holder = holder_of(&file);
            if !holder.identities.is_disjoint(own) {
                return Err(Held::Identity(holder));
            }
            live.extend(holder.identities);
        }
        Ok(live)
    }

    /// Where this agent's own file is: in the shared directory, else in one that belongs to this user.
    fn own_path(&self) -> Option<PathBuf> {
        let shared = &self.places.shared;
        let _exists = make_directory(shared);
        if is_private(shared, |user| user == 0 || user == self.trust.user) {
            let path = shared.join(&self.name);
            if self.open(&path, true).is_some() {
                return Some(path);
            }
        }
        let is_mine = |path: &PathBuf| is_private(path, |user| user == self.trust.user);
        let directory = match self.directories_of_agents().into_iter().find(is_mine) {
            Some(directory) => directory,
            None => {
                // A name that nobody can have taken before.
                let name = format!("{PREFIX}{}-{}", self.trust.user, uuid::Uuid::new_v4().simple());
                let path = self.places.open.join(name);
                make_directory(&path).ok()?;
                path
            }
        };
        Some(directory.join(&self.name))
    }

    /// Locks a file and keeps it; `None` if it cannot be used, is not to be believed, or is one that is held already.
    fn hold(&self, path: &Path, create: bool) -> Result<Option<File>, Held> {
        for attempt in 0..TRIES {
            if attempt > 0 {
                std::thread::sleep(BETWEEN_TRIES);
            }
            let Some(file) = self.open(path, create) else { return Ok(None) };
            let place = |about: &Metadata| (about.dev(), about.ino());
            let opened = file.metadata().ok().as_ref().map(place);
            if self.files.iter().any(|held| held.metadata().ok().as_ref().map(place) == opened) {
                return Ok(None);
            }
            // Whoever removes a file has locked it: one that was removed before the lock was ours is no lock.
            if file.try_lock().is_ok() && std::fs::symlink_metadata(path).ok().as_ref().map(place) == opened {
                return Ok(Some(file));
            }
        }
        let holder = self.open(path, false).map(|file| holder_of(&file)).unwrap_or_default();
        Err(Held::Engine(holder))
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

    /// Directories below the open one that may hold lock files.
    fn directories_of_agents(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(&self.places.open).into_iter().flatten().flatten();
        let agents = entries.filter(|entry| entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX)));
        agents.map(|entry| entry.path()).collect()
    }

    /// Lock files of that name, of whichever agent.
    fn files_of_agents(&self, is_wanted: impl Fn(&str) -> bool) -> Vec<PathBuf> {
        let directories = [self.places.shared.clone()].into_iter().chain(self.directories_of_agents());
        let is_directory = |path: &PathBuf| std::fs::symlink_metadata(path).is_ok_and(|about| about.is_dir());
        let files = directories.filter(is_directory).flat_map(|directory| {
            let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
            let wanted = entries.filter(|entry| entry.file_name().to_str().is_some_and(&is_wanted));
            wanted.take(MAX_FILES).map(|entry| entry.path()).collect::<Vec<_>>()
        });
        files.collect()
    }
}

/// Makes a directory in which others can look for lock files, whatever the umask of the service is.
fn make_directory(path: &Path) -> std::io::Result<()> {
    DirBuilder::new().mode(0o755).create(path)?;
    std::fs::set_permissions(path, Permissions::from_mode(0o755))
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
pub(super) fn form(is_service: bool, mounts: &str) -> String {
    let is_id = |word: &&str| word.len() == 64 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    let container = mounts.lines().find_map(|line| line.split_once("/containers/")?.1.split('/').next().filter(is_id));
    match container {
        Some(id) => format!("in container {}", &id[..12]),
        None if is_service => "the system service (-service)".to_owned(),
        None => "not the system service".to_owned(),
    }
}

#[cfg(test)]
mod tests;
