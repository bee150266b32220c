//! Why a task cannot be run, and the reason that ECS receives (spec `acs.md` §6).
//!
//! Owns the prefixes of the Go agent's reasons, which people search for. The modules that translate the parts of a task find the
//! errors.

/// Why a task cannot be run. The variants differ in the prefix of the reason.
#[derive(Debug)]
pub(super) enum TaskError {
    /// The task is malformed: the Go agent cannot read it either.
    Malformed(String),
    /// It can be read, and cannot be run. The Go agent finds out later.
    Unfit(String),
    /// The parts of the task contradict each other.
    Resource(String),
    /// The complete reason for ECS.
    Reason(String),
}

impl TaskError {
    /// The reason for ECS, and whether the task is malformed.
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

/// Compat: the misspelling is that of the Go agent, and people search for it.
pub(in crate::acs) fn invalid(cause: &str) -> String {
    format!("UnrecogniedTaskError: Error loading task - {cause}")
}

/// The reason of the Go agent for an error in a resource that it finds before it accepts the task.
fn uninitialised(arn: &str, cause: &str) -> String {
    format!("resource cannot be initialized for task {arn}: {cause}")
}
