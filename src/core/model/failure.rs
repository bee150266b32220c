//! Failures of operations, with the names and texts that customers and ECS know.
//!
//! The names and texts come from the Go agent's catalogue of reasons (spec `task-engine.md` §15). `reasons.md` beside this file
//! lists the reasons that this agent gives, with the tests that prove them. Log messages are made elsewhere.

use super::text::{MAX_TEXT, cleaned, without_numbers};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Why an operation failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The name in the catalogue, such as `CannotPullContainerError`; empty for a reason without a name.
    pub name: String,
    /// The text after the name, which ECS shows to the customer. It holds no secrets; the constructors clean and bound it, and
    /// leave out numbers of the operating system.
    pub message: String,
    /// The kind, which decides how the core reacts.
    pub kind: FailureKind,
}

/// The kinds of failures that the core treats differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FailureKind {
    /// The operation was refused or failed, and a repetition would not help.
    Permanent,
    /// A later repetition may succeed (throttled, unreachable, 5xx).
    Retryable,
    /// The operation was not attempted, because an earlier one on the same object has not ended. A later repetition may succeed.
    Busy,
    /// The container cannot be created because its image is not on this host.
    ImageMissing,
    /// Something that the whole task needs is not available: the task stops, and the message is its reason.
    EndsTask,
}

/// The error of an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpError {
    /// The operation was not done.
    Failed(Failure),
    /// There was no answer: the operation may have been done, or may still be done. The failure applies if it turns out that the
    /// operation was not done.
    Unknown(Failure),
}

impl OpError {
    /// The failure, whether the outcome is known or not.
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
    /// A failure after which a repetition would not help.
    pub fn permanent(name: &str, message: impl Into<String>) -> Self {
        Self { name: name.to_owned(), message: reason(message), kind: FailureKind::Permanent }
    }

    /// A failure that ends the task. The message becomes the task's reason, without a name before it.
    pub fn ends_task(message: impl Into<String>) -> Self {
        Self { name: String::new(), message: reason(message), kind: FailureKind::EndsTask }
    }

    /// The same failure with another message.
    pub fn with_message(self, message: impl Into<String>) -> Self {
        Self { message: reason(message), ..self }
    }

    /// A failure after which a later repetition may succeed.
    pub fn retryable(name: &str, message: impl Into<String>) -> Self {
        Self { name: name.to_owned(), message: reason(message), kind: FailureKind::Retryable }
    }

    /// An operation that was not attempted, because an earlier one on the same object has not ended.
    pub fn busy(name: &str, message: impl Into<String>) -> Self {
        Self { name: name.to_owned(), message: reason(message), kind: FailureKind::Busy }
    }
}

impl fmt::Display for Failure {
    /// `Name: message`, the form of a container's `reason` in ECS.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.name.is_empty() { f.write_str(&self.message) } else { write!(f, "{}: {}", self.name, self.message) }
    }
}

fn reason(text: impl Into<String>) -> String {
    cleaned(&without_numbers(&text.into()))
}

/// An error and its causes in one clean and bounded line, for a log or the reason of an exit. The outermost error alone often
/// says no more than "error sending request". Numbers of the operating system are left out, and so is a cause with which the text
/// ends already.
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = cleaned(&without_numbers(&error.to_string()));
    let mut cause = error.source();
    while let Some(error) = cause {
        if text.len() >= MAX_TEXT {
            break;
        }
        let more = cleaned(&without_numbers(&error.to_string()));
        if !text.ends_with(&more) {
            text = cleaned(&format!("{text}: {more}"));
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    #[test]
    fn no_reason_holds_a_number_of_the_operating_system() {
        let text = format!("a: {}: b", io::Error::from_raw_os_error(13));
        let made = [
            Failure::permanent("N", text.clone()),
            Failure::retryable("N", text.clone()),
            Failure::busy("N", text.clone()),
            Failure::ends_task(text.clone()),
            Failure::permanent("N", "x").with_message(text.clone()),
        ];
        assert!(made.iter().all(|failure| failure.message == "a: Permission denied: b"), "{made:?}");
        assert_eq!(with_causes(&io::Error::other(text)), "a: Permission denied: b");
    }

    #[test]
    fn a_cause_that_the_text_ends_with_is_not_repeated() {
        #[derive(Debug)]
        struct Outer(&'static str, io::Error);
        impl fmt::Display for Outer {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.0)
            }
        }
        impl std::error::Error for Outer {
            fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
                Some(&self.1)
            }
        }
        for (outer, inner, text) in [
            ("secret arn: operation error x", "operation error x", "secret arn: operation error x"),
            ("secret arn", "operation error x", "secret arn: operation error x"),
            ("operation error x: y", "operation error x", "operation error x: y: operation error x"),
        ] {
            assert_eq!(with_causes(&Outer(outer, io::Error::other(inner))), text);
        }
    }
}
