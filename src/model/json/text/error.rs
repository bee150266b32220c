//! Why a text cannot be read as JSON, and the bounds of what is read.

use std::fmt;

/// Levels that may be nested. The Go agent's bound.
pub const MAX_DEPTH: usize = 10_000;

/// Values in one document. A task definition has at most 64 KiB, which is room for half as many.
pub const MAX_VALUES: usize = 20_000;

/// Why a text cannot be read as JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextError {
    /// What is wrong, and how many bytes into the text.
    Syntax(&'static str, usize),
    /// More than [`MAX_DEPTH`] levels.
    TooDeep,
    /// More than [`MAX_VALUES`] values.
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
