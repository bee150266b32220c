//! Why a task cannot be run, and the reason that ECS receives (spec `acs.md` §6).
//!
//! Owns the prefixes of the Go agent's reasons, which operators search for. It finds no errors: the other modules of
//! `translate` do.

/// Why a task cannot be run. The variants differ in the prefix of the reason.
#[derive(Debug)]
pub(super) enum TaskError {
    /// The task cannot be read; the Go agent cannot read it either.
    Malformed(String),
    /// The task can be read, but cannot be run. The Go agent detects this later.
    Unfit(String),
    /// The task contradicts itself or exceeds a maximum. The Go agent detects this when it initialises the task's resources, and
    /// uses the prefix of that.
    Resource(String),
    /// The complete reason for ECS, which gets no prefix.
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

/// The reason for a task that cannot be read. Compat: the misspelling is that of the Go agent, and operators search for it.
pub(in crate::acs) fn invalid(cause: &str) -> String {
    format!("UnrecogniedTaskError: Error loading task - {cause}")
}

/// The Go agent's reason for an error that it finds when it initialises the task's resources, before it accepts the task.
fn uninitialised(arn: &str, cause: &str) -> String {
    format!("resource cannot be initialized for task {arn}: {cause}")
}
