//! A problem with an operator's setting: the variable, its place, the shape of its value, the expected form, the consequence, and
//! how much that matters.
//!
//! Invariant: a problem holds no secret, so every problem may be logged. `shown` decides what of a value it may hold.

use ecs_core::model::text::cleaned;
use std::fmt;

/// How much a problem matters. One rule for every problem, and for every setting without effect:
///
/// | severity | the agent | exit code of `check-config` |
/// |---|---|---|
/// | `Fatal` | does not start | 2 |
/// | `Changes` | does not do what is written: it uses another value; ignores a line, a name, a file or a part of one; lacks a feature or turns it off; or AWS refuses it. Or it does what is written, and that is probably not what is meant: a text that is no region, quotation marks in a path, settings that contradict each other | 2 |
/// | `Notice` | does what is written, which is only unusual: an old name or path, the same line twice, white space that is removed, a setting that asks for nothing this agent does anyway | 0, with `-strict` 2 |
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The agent does what is written.
    Notice,
    /// The agent does not do what is written, or probably not what is meant.
    Changes,
    /// The agent does not start (exit code 1, spec `config.md` §1.3).
    Fatal,
}

impl Severity {
    /// The word for it in the report.
    pub fn word(self) -> &'static str {
        match self {
            Self::Notice => "note",
            Self::Changes => "warning",
            Self::Fatal => "fatal",
        }
    }

    /// `check-config` ends with code 2.
    pub fn counts(self, is_strict: bool) -> bool {
        is_strict || self >= Self::Changes
    }
}

/// A problem. `Display` makes the line for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The variable's name; empty for a line or a file as a whole.
    pub variable: String,
    /// The place of the setting: `environment`, a `file:line`, or a file.
    pub place: String,
    /// The value, or its shape, such as `a text of 12 characters`.
    pub shape: String,
    /// The expected form.
    pub expected: String,
    /// The consequence, such as "the default `3h` is used".
    pub instead: String,
    /// How much it matters.
    pub severity: Severity,
}

impl Problem {
    /// The agent must not start.
    pub fn is_fatal(&self) -> bool {
        self.severity == Severity::Fatal
    }

    /// What was found, and what was expected, without the consequence.
    pub fn finding(&self) -> String {
        let Self { variable, place, shape, expected, .. } = self;
        let space = if variable.is_empty() { "" } else { " " };
        // Names of variables and files come from outside, so the text is cleaned.
        cleaned(&format!("{variable}{space}({place}): {shape}; expected {expected}"))
    }

    /// Makes the problem fatal.
    pub(super) fn fatal(self) -> Self {
        Self { severity: Severity::Fatal, instead: NO_START.to_owned(), ..self }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&cleaned(&format!("{}; {}", self.finding(), self.instead)))
    }
}

/// The consequence of a fatal problem.
pub(super) const NO_START: &str = "the agent does not start";
