//! Why the store cannot be used. Each error names what the operator can do.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Why the store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The directory or file cannot be made or opened.
    #[error("the data directory {path} (ECS_DATADIR) cannot be used; it must be a directory this process may write to")]
    Unusable {
        /// The path.
        path: PathBuf,
        /// What the system said.
        #[source]
        cause: std::io::Error,
    },
    /// Another agent has it open.
    #[error("the state file {path} is in use by another agent; run one agent per data directory (ECS_DATADIR)")]
    InUse {
        /// The path.
        path: PathBuf,
    },
    /// It was written by a newer agent.
    #[error(
        "the state was written by a newer agent (schema {found}, this one knows {known}); start that version again"
    )]
    Newer {
        /// Schema on disk.
        found: u32,
        /// Schema of this build.
        known: u32,
    },
    /// What was written cannot be read back.
    #[error("the state file {path} is broken again right after it was made: {what}")]
    Corrupt {
        /// The path.
        path: PathBuf,
        /// Which part, without its content.
        what: String,
    },
    /// A read or write failed (disk full, I/O error).
    #[error("the state could not be written or read")]
    Io(#[from] Box<redb::Error>),
}

impl StoreError {
    pub(super) fn of_directory(directory: &Path, cause: std::io::Error) -> Self {
        Self::Unusable { path: directory.to_owned(), cause }
    }

    /// It is for want of space, which may come.
    pub fn is_full(&self) -> bool {
        let cause = match self {
            Self::Unusable { cause, .. } => cause,
            Self::Io(error) => match &**error {
                redb::Error::Io(cause) => cause,
                _ => return false,
            },
            Self::InUse { .. } | Self::Newer { .. } | Self::Corrupt { .. } => return false,
        };
        matches!(cause.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
    }
}
