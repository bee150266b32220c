//! Why a task cannot be run, and the reason ECS gets for it (spec `acs.md` §6).
//!
//! Owns the beginnings of the Go agent's reasons, for which people search. What is wrong with a task is found where that part of it is
//! translated.

/// Why a task cannot be run, by how the Go agent says it.
#[derive(Debug)]
pub(super) enum TaskError {
    /// It is no task: the Go agent cannot read it either.
    Malformed(String),
    /// It can be read, and cannot be run. The Go agent finds out later.
    Unfit(String),
    /// Its parts do not fit together.
    Resource(String),
    /// The reason for ECS, as it is.
    Reason(String),
}

impl TaskError {
    /// The reason for ECS, and whether it is no task at all.
    pub(super) fn reason_for(self, arn: &str) -> (String, bool) {
        match self {
            Self::Malformed(cause) => (invalid(&cause), true),
            Self::Unfit(cause) => (invalid(&cause), false),
            Self::Resource(cause) => (uninitialised(arn, &cause), false),
            Self::Reason(reason) => (reason, false),
        }
    }
}

impl From<String> for TaskError {
    fn from(cause: String) -> Self {
        Self::Unfit(cause)
    }
}

impl From<&str> for TaskError {
    fn from(cause: &str) -> Self {
        Self::Unfit(cause.to_owned())
    }
}

/// Compat: the spelling is that of the Go agent, and people search for it.
pub(in crate::acs) fn invalid(cause: &str) -> String {
    format!("UnrecogniedTaskError: Error loading task - {cause}")
}

/// What the Go agent finds wrong with a resource before it takes the task up.
fn uninitialised(arn: &str, cause: &str) -> String {
    format!("resource cannot be initialized for task {arn}: {cause}")
}
