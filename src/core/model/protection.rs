//! Task protection: what a container asks for, and what ECS answers (spec `task-metadata.md` §8).

/// What a container asks ECS about the protection of its own task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProtectionCall {
    /// Whether the task is protected, and until when.
    Get,
    /// A change.
    Update {
        /// True: the task is to be protected from a scale-in or a deployment.
        enabled: bool,
        /// How long the protection lasts, in minutes; `None`: as long as ECS chooses. ECS checks the range.
        expires_in_minutes: Option<i64>,
    },
}

/// The answer of ECS. With one task in the request, ECS lists one entry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProtectionAnswer {
    /// The protection of each task.
    pub tasks: Vec<ProtectedTask>,
    /// The tasks for which ECS did not carry out the request.
    pub failures: Vec<ProtectionFailure>,
}

/// The protection of one task.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProtectedTask {
    /// ARN of the task; `None` if ECS names none.
    pub task: Option<String>,
    /// True: the task is protected.
    pub enabled: bool,
    /// When the protection ends, in RFC 3339; `None`: it has no end, or there is none.
    pub expires_at: Option<String>,
}

/// Why ECS did not carry out a request for one task.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProtectionFailure {
    /// ARN of the task; `None` if ECS names none.
    pub task: Option<String>,
    /// Details in words; `None` if there are none.
    pub detail: Option<String>,
    /// The reason, such as `TASK_NOT_VALID`; `None` if there is none.
    pub reason: Option<String>,
}

/// Why there is no answer of ECS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProtectionError {
    /// The task has no role, or its credentials have not arrived yet.
    NoCredentials,
    /// ECS did not answer in time.
    TimedOut,
    /// ECS refused the call.
    Refused {
        /// HTTP status of the answer.
        status: u16,
        /// Id of the request; empty if ECS named none.
        request_id: String,
        /// Code of the error, such as `AccessDeniedException`.
        code: String,
        /// The text of the error.
        message: String,
    },
    /// Any other cause, as one clean line.
    Failed(String),
}
