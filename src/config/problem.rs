//! A problem with an operator's setting: the variable, its place, the shape of its value, the expected form, and the
//! consequence.
//!
//! Invariant: a problem never holds the value, only its shape, so every problem may be logged.

use ecs_core::model::text::cleaned;
use std::fmt;

/// A problem. `Display` makes the line for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The variable's name; empty for a line or a file as a whole.
    pub variable: String,
    /// The place of the setting: `environment`, a `file:line`, or a file.
    pub place: String,
    /// The shape of the value, such as `a text of 12 characters`.
    pub shape: String,
    /// The expected form.
    pub expected: String,
    /// The consequence, such as `the default 3h is used`.
    pub instead: String,
    /// True: the agent must not start (exit code 1, spec `config.md` §1.3).
    pub fatal: bool,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { variable, place, shape, expected, instead, fatal: _ } = self;
        let space = if variable.is_empty() { "" } else { " " };
        // Names of variables and files come from outside, so the text is cleaned.
        f.write_str(&cleaned(&format!("{variable}{space}({place}): {shape}; expected {expected}; {instead}")))
    }
}

/// The consequence of a fatal problem.
pub(super) const NO_START: &str = "the agent does not start";

/// Describes the shape of a value without the value.
pub(super) fn shape(value: &str) -> String {
    let length = value.chars().count();
    let plural = if length == 1 { "" } else { "s" };
    let mut text = format!("a text of {length} character{plural}");
    let quoted = |mark: char| length > 1 && value.starts_with(mark) && value.ends_with(mark);
    if quoted('"') || quoted('\'') {
        text.push_str(" in quotation marks (they are part of the value here)");
    } else if value.trim() != value {
        text.push_str(" with white space around it");
    }
    text
}

/// Like [`shape`], with the position of an error in the JSON. The message of serde_json may quote the value, so only the
/// position is used.
pub(super) fn json_shape(value: &str) -> String {
    match serde_json::from_str::<serde::de::IgnoredAny>(value) {
        Ok(_) => format!("{}, valid JSON of another form", shape(value)),
        Err(error) => format!("{}, not valid JSON at column {}", shape(value), error.column()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shape_says_enough_and_nothing_of_the_value() {
        assert_eq!(shape("x"), "a text of 1 character");
        assert_eq!(shape("gr\u{fc}n"), "a text of 4 characters");
        assert_eq!(shape("\"5m\""), "a text of 4 characters in quotation marks (they are part of the value here)");
        assert_eq!(shape("5m "), "a text of 3 characters with white space around it");
        assert_eq!(json_shape("{\"a\":}"), "a text of 6 characters, not valid JSON at column 6");
        assert_eq!(json_shape("[1]"), "a text of 3 characters, valid JSON of another form");
    }
}
