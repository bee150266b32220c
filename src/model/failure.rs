//! What went wrong with an operation, in the words customers and ECS already know.
//!
//! Which of the catalogue's reasons the agent gives, and what proves it, is in `reasons.md` beside this file.
//!
//! The names and texts are a catalogue (spec `task-engine.md` §15). What a log says is made elsewhere.

use super::text::{MAX_TEXT, cleaned};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Why an operation failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The catalogue's name, e.g. `CannotPullContainerError`. Empty for a bare reason.
    pub name: String,
    /// The text behind the name, free of secrets, cleaned and bounded by the constructors; ECS shows it to the customer.
    pub message: String,
    /// What the planner does about it.
    pub kind: FailureKind,
}

/// The differences between failures that the planner acts on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FailureKind {
    /// It was refused or did not work; nothing more is known.
    Permanent,
    /// Trying again later is worth it (throttled, unreachable, 5xx).
    Retryable,
    /// The container cannot be created because its image is not on this host.
    ImageMissing,
    /// What the whole task needs is not to be had: it stops, and the message is its reason.
    EndsTask,
}

/// How an operation at an edge ended when it did not succeed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpError {
    /// It did not happen.
    Failed(Failure),
    /// No answer: it may have happened, or may still happen. The failure is what to say if it turns out that it did not.
    Unknown(Failure),
}

impl OpError {
    /// What to say of it, or what to say if it turns out that it did not happen.
    pub fn into_failure(self) -> Failure {
        match self {
            Self::Failed(failure) | Self::Unknown(failure) => failure,
        }
    }
}

impl From<Failure> for OpError {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl Failure {
    /// A failure that is not worth repeating.
    pub fn permanent(name: &str, message: impl Into<String>) -> Self {
        Self { name: name.to_owned(), message: cleaned(&message.into()), kind: FailureKind::Permanent }
    }

    /// A failure that ends the task; the message, without a name, is the task's reason.
    pub fn ends_task(message: impl Into<String>) -> Self {
        Self { name: String::new(), message: cleaned(&message.into()), kind: FailureKind::EndsTask }
    }

    /// The same failure in other words.
    pub fn with_message(self, message: impl Into<String>) -> Self {
        Self { message: cleaned(&message.into()), ..self }
    }

    /// A failure that may pass.
    pub fn retryable(name: &str, message: impl Into<String>) -> Self {
        Self { name: name.to_owned(), message: cleaned(&message.into()), kind: FailureKind::Retryable }
    }
}

impl fmt::Display for Failure {
    /// `Name: message`, the form of a container's `reason` in ECS.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.name.is_empty() { f.write_str(&self.message) } else { write!(f, "{}: {}", self.name, self.message) }
    }
}

/// An error and its causes in one clean and bounded line, for a log or the reason of an exit: the outermost alone often says no more than
/// "error sending request".
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = cleaned(&error.to_string());
    let mut cause = error.source();
    while let Some(error) = cause {
        if text.len() >= MAX_TEXT {
            break;
        }
        text = cleaned(&format!("{text}: {error}"));
        cause = error.source();
    }
    text
}
