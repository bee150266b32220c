//! What became of an operator's text: the answer of every parser of a kind ([`super::kind`], `lists`).
//!
//! Owns the five answers. What follows from them is the matter of `resolve`.

/// What became of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Parsed {
    /// Counts as not set: the next source is asked.
    Unset,
    /// Taken.
    Value(String),
    /// Something else is taken; `instead` says what.
    Adjusted { value: String, instead: String },
    /// The default is taken, whatever a lower source says.
    Reset,
    /// Not usable: the next source is asked, then the default is taken.
    Rejected,
}
