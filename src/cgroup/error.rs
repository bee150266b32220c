//! The errors of control groups: tasks cannot be limited on this host, or one task's limits cannot be set.
//!
//! Owns the decision which of these errors are temporary.

use super::super::systemd::SystemdError;
use crate::lane::LaneError;
use ecs_core::model::Failure;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The wanted state of a slice that is being removed.
pub(crate) const GONE: &str = "gone";

/// Why a control group cannot be created or removed.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// An operation on a directory or file of the cgroup file system failed.
    #[error("{what} {}", path.display())]
    File {
        /// The failed operation, such as `cannot write`.
        what: &'static str,
        /// The directory or file.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// The kernel lacks a controller, or its parameters disable it.
    #[error("the {controller} controller is not available in {}", root.display())]
    NoController {
        /// The controller's name.
        controller: &'static str,
        /// The cgroup file system in which it was looked for.
        root: PathBuf,
    },
    /// systemd could not be reached, or refused.
    #[error("cannot {what} the slice {slice} through systemd")]
    Systemd {
        /// The failed operation: `create` or `remove`.
        what: &'static str,
        /// The slice's name.
        slice: String,
        /// systemd's error.
        #[source]
        source: SystemdError,
    },
    /// The task's id is not a plain name: as a path, it could lead to another directory.
    #[error("the task's id cannot be the name of a control group")]
    Unnameable,
    /// systemd answered, but did not finish in time.
    #[error("the slice {} is not {wanted} {} s after systemd was asked", path.display(), limit.as_secs())]
    NotDone {
        /// The slice's directory in the cgroup file system.
        path: PathBuf,
        /// The wanted state: `there` or `gone`.
        wanted: &'static str,
        /// The time limit.
        limit: Duration,
    },
    /// The file system does not answer.
    #[error(transparent)]
    Lane(#[from] LaneError),
}

impl CgroupError {
    /// The error is temporary, because something did not answer; the host may still be able to limit tasks. `false` = another
    /// attempt would fail as well.
    pub fn is_temporary(&self) -> bool {
        use io::ErrorKind::{Interrupted, OutOfMemory, TimedOut, WouldBlock};
        match self {
            Self::Systemd { source, .. } => !source.is_refusal() && !source.is_out_of_reach(),
            Self::File { source, .. } => {
                matches!(source.kind(), Interrupted | OutOfMemory | TimedOut | WouldBlock)
            }
            // A group that does not appear was created in another cgroup file system than the one that this container sees. A
            // group that is not gone in time is only removed slowly.
            Self::NotDone { wanted, .. } => *wanted == GONE,
            Self::Lane(_) => true,
            Self::NoController { .. } | Self::Unnameable => false,
        }
    }

    /// Converts to a failure. It is retryable if something hung or a connection broke; a refusal is permanent.
    pub(crate) fn failure(&self, name: &str, text: String) -> Failure {
        match self {
            Self::Systemd { source, .. } if source.is_refusal() => Failure::permanent(name, text),
            Self::File { .. } | Self::NoController { .. } | Self::Unnameable => Failure::permanent(name, text),
            Self::Systemd { .. } | Self::Lane(_) | Self::NotDone { .. } => Failure::retryable(name, text),
        }
    }
}

/// Makes the error for an operation on a file or directory.
pub(crate) fn file_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CgroupError {
    let path = path.to_owned();
    move |source| CgroupError::File { what, path, source }
}
