//! The two roles of a task.

use serde::{Deserialize, Serialize};

/// The purpose of a role of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum RoleKind {
    /// The task role: used by the containers.
    Task,
    /// The task execution role: used on behalf of the task by the agent (pulls, secrets) and by Docker (logs).
    Execution,
}

impl RoleKind {
    /// The name in messages of ACS and in the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Task => "TaskApplication",
            Self::Execution => "TaskExecution",
        }
    }
}
