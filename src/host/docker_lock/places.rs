//! The directories for lock files, and whose files in them are trusted.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

/// The directories for lock files.
#[derive(Clone, Debug)]
pub struct Places {
    /// The directory that all agents of this host share. It is created if it is missing.
    pub shared: PathBuf,
    /// A directory that every user may write to.
    pub open: PathBuf,
}

impl Default for Places {
    fn default() -> Self {
        Self { shared: "/var/run/ecs-agent".into(), open: "/dev/shm".into() }
    }
}

/// The users and the group whose lock files are trusted, in addition to root.
#[derive(Clone, Copy, Debug)]
pub struct Trust {
    /// The user of this process.
    pub user: u32,
    /// The user that owns the engine's socket; `None` if the engine has no socket in the file system.
    pub socket_user: Option<u32>,
    /// The group that may use the engine's socket; `None` if no group may use it.
    pub socket_group: Option<u32>,
}

impl Trust {
    /// The trust of this process, which uses the engine at `endpoint`.
    pub fn new(endpoint: &str) -> Self {
        let socket = endpoint.strip_prefix("unix://").and_then(|path| std::fs::metadata(path).ok());
        let is_for_group = |metadata: &&Metadata| metadata.mode() & 0o060 == 0o060;
        Self {
            user: rustix::process::geteuid().as_raw(),
            socket_user: socket.as_ref().map(MetadataExt::uid),
            socket_group: socket.as_ref().filter(is_for_group).map(MetadataExt::gid),
        }
    }

    pub(super) fn trusts(&self, metadata: &Metadata) -> bool {
        // A file with a second name could be root's own, to which another user has made a hard link.
        self.is_known_owner(metadata) && metadata.is_file() && metadata.nlink() == 1 && metadata.mode() & 0o007 == 0
    }

    /// Lock files in this directory are inspected.
    pub(super) fn trusts_directory(&self, metadata: &Metadata) -> bool {
        self.is_known_owner(metadata) && metadata.is_dir() && metadata.mode() & 0o002 == 0
    }

    fn is_known_owner(&self, metadata: &Metadata) -> bool {
        metadata.uid() == 0
            || metadata.uid() == self.user
            || Some(metadata.uid()) == self.socket_user
            || Some(metadata.gid()) == self.socket_group
    }
}

/// One of the directories for lock files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// [`Places::shared`].
    Shared,
    /// [`Places::open`].
    Open,
}

impl Place {
    /// The place's name in logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Shared => "lock files below /var/run",
            Self::Open => "lock files below /dev/shm",
        }
    }
}
