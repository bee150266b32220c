//! The reasons why a directory cannot be that of a registry.

use std::io;
use std::path::PathBuf;

/// The reason why a directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    /// The file system refuses.
    #[error("{}: {}", .0.display(), .1)]
    Io(PathBuf, #[source] io::Error),
    /// The path is a file, a link, or another user's.
    #[error("{}: it must be a directory of your own, and no link", .0.display())]
    NotOwn(PathBuf),
    /// Other users may read or change it; its mode is given.
    #[error("{}: its mode is {:o}, so other users can reach it; `chmod 700` it", .0.display(), .1)]
    OpenToOthers(PathBuf, u32),
    /// The directory has a file that is not a registry's.
    #[error("{}: `{}` is not a registry's; give an empty directory, or a registry's", .0.display(), .1)]
    Foreign(PathBuf, String),
    /// Another server has the lock.
    #[error("{}: another ecs-local uses it", .0.display())]
    InUse(PathBuf),
    /// Another version of this program wrote the directory.
    #[error("{}: another version of ecs-local wrote this directory", .0.display())]
    OtherVersion(PathBuf),
    /// A layer of a repository is missing, or has another size.
    #[error("{}: the file of layer {} is missing or damaged (it should have {} bytes); restore it, or give another directory",
        .0.display(), .1, .2)]
    MissingLayer(PathBuf, String, u64),
    /// There are layers, but no state that says whose they are.
    #[error("{}: this file is missing, but there are layers beside it; restore it, or give another directory", .0.display())]
    NoState(PathBuf),
    /// The server ends.
    #[error("ecs-local ends")]
    Stopped,
    /// The state cannot be read.
    #[error("{}: {}", .0.display(), .1)]
    State(PathBuf, String),
}
