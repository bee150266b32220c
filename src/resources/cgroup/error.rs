//! Why tasks cannot be limited on this host, or one task's limits cannot be set.
//!
//! Owns which of these errors may pass.

use super::super::systemd::SystemdError;
use crate::lane::LaneError;
use crate::model::Failure;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What a slice was to be when it was to be removed.
pub(super) const GONE: &str = "gone";

/// Why tasks cannot be limited on this host.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// A directory or file of the cgroup file system.
    #[error("{what} {}", path.display())]
    File {
        /// What was tried.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The kernel or its start parameters leave a controller out.
    #[error("the {controller} controller is not available in {}", root.display())]
    NoController {
        /// Its name.
        controller: &'static str,
        /// Where it was looked for.
        root: PathBuf,
    },
    /// systemd was not to be talked to, or refused.
    #[error("cannot {what} the slice {slice} by way of systemd")]
    Systemd {
        /// What was tried: `make` or `remove`.
        what: &'static str,
        /// Name of the slice.
        slice: String,
        /// Why not.
        #[source]
        source: SystemdError,
    },
    /// The id would be something else than one name.
    #[error("the task's id cannot be the name of a control group")]
    Unnameable,
    /// systemd answered, but did not do it in time.
    #[error("the slice {} is not {wanted} {} s after systemd was asked", path.display(), limit.as_secs())]
    NotDone {
        /// Where the kernel shows it.
        path: PathBuf,
        /// `there` or `gone`.
        wanted: &'static str,
        /// How long it was looked for.
        limit: Duration,
    },
    /// The file system hangs.
    #[error(transparent)]
    Lane(#[from] LaneError),
}

impl CgroupError {
    /// The host may still be able to limit tasks: something did not answer now. `false` = it cannot, and asking again is of no use.
    pub fn may_pass(&self) -> bool {
        use io::ErrorKind::{Interrupted, OutOfMemory, TimedOut, WouldBlock};
        match self {
            Self::Systemd { source, .. } => !source.is_refusal() && !source.is_out_of_reach(),
            Self::File { source, .. } => {
                matches!(source.kind(), Interrupted | OutOfMemory | TimedOut | WouldBlock)
            }
            // What cannot be seen after it was made is the group of another file system: a container has its own. What has been seen
            // and does not go is only slow.
            Self::NotDone { wanted, .. } => *wanted == GONE,
            Self::Lane(_) => true,
            Self::NoController { .. } | Self::Unnameable => false,
        }
    }

    /// For the reason of a task, or the log. What hangs, or a connection that breaks, may
    /// answer another time; what was refused will be refused again.
    pub(super) fn failure(&self, name: &str, text: String) -> Failure {
        match self {
            Self::Systemd { source, .. } if source.is_refusal() => Failure::permanent(name, text),
            Self::File { .. } | Self::NoController { .. } | Self::Unnameable => Failure::permanent(name, text),
            Self::Systemd { .. } | Self::Lane(_) | Self::NotDone { .. } => Failure::retryable(name, text),
        }
    }
}

/// An error of that file or directory.
pub(super) fn file_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CgroupError {
    let path = path.to_owned();
    move |source| CgroupError::File { what, path, source }
}
