//! The result of parsing an operator's text, for every parser of a kind ([`super::kind`], `lists`).
//!
//! This module owns the six results; `resolve` owns the consequences.

/// The result of parsing a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Parsed {
    /// The text counts as not set: the next source is read.
    Unset,
    /// The canonical value.
    Value(String),
    /// The value is used as it is written, as by the Go agent, but something else was probably meant. `instead` says what follows.
    Doubtful { value: String, instead: &'static str },
    /// Another value is used, which `instead` describes.
    Adjusted { value: String, instead: String },
    /// The default is used, even if a source with lower precedence has a value.
    Reset,
    /// The text cannot be used: the next source is read, and after the last source the default is used.
    Rejected,
}
