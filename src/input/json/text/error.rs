//! Why a text cannot be parsed as JSON, and the bounds of the parser.

use std::fmt;

/// The largest number of nested levels, as in the Go agent.
pub const MAX_DEPTH: usize = 10_000;

/// The largest number of values in one document. A task definition has at most 64 KiB, which is enough for half as many.
pub const MAX_VALUES: usize = 20_000;

/// Why a text cannot be parsed as JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextError {
    /// What is wrong, in words, and its offset in bytes.
    Syntax(&'static str, usize),
    /// The text has more than [`MAX_DEPTH`] levels.
    TooDeep,
    /// The text has more than [`MAX_VALUES`] values.
    TooManyValues,
}

impl fmt::Display for TextError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Syntax(what, at) => write!(f, "{what} at byte {at}"),
            Self::TooDeep => write!(f, "it nests deeper than {MAX_DEPTH} levels"),
            Self::TooManyValues => write!(f, "it has more than {MAX_VALUES} values"),
        }
    }
}

impl std::error::Error for TextError {}
