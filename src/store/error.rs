//! Why the store cannot be used. Each error names what the operator can do.

use std::fmt;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Why the store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The directory or the file cannot be created or opened.
    #[error("the data directory {path} (ECS_DATADIR) cannot be used; it must be a directory this process may write to")]
    Unusable {
        /// The data directory.
        path: PathBuf,
        /// The error of the operating system.
        #[source]
        cause: std::io::Error,
    },
    /// Another agent uses the state file.
    #[error("the state file {path} is in use by another agent; run one agent per data directory (ECS_DATADIR)")]
    InUse {
        /// The state file.
        path: PathBuf,
    },
    /// The state was written by a newer agent.
    #[error(
        "the state was written by {writer} in a form that this version, {own}, cannot read (schema {found}; it reads up to {known}); start {writer} again"
    )]
    Newer {
        /// Schema on disk.
        found: u32,
        /// Highest schema that this build reads.
        known: u32,
        /// The version that wrote the file.
        writer: Writer,
        /// Version of this build.
        own: &'static str,
    },
    /// A newly created state file cannot be read.
    #[error("the state file {path} is broken again right after it was created: {what}")]
    Corrupt {
        /// The state file.
        path: PathBuf,
        /// The broken part, without its content.
        what: String,
    },
    /// A read or write failed (disk full, I/O error).
    #[error("the state could not be written or read")]
    Io(#[from] Box<redb::Error>),
}

/// The version of the agent that wrote a state file; `None` if the file does not contain it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Writer(pub Option<String>);

impl fmt::Display for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(version) => write!(f, "ecs-agent {version}"),
            None => f.write_str("the newer ecs-agent that ran here last"),
        }
    }
}

impl StoreError {
    pub(super) fn from_directory(directory: &Path, cause: std::io::Error) -> Self {
        Self::Unusable { path: directory.to_owned(), cause }
    }

    /// Whether the cause is a full disk or a used-up quota, so that a later attempt may succeed.
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
