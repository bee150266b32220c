//! When a failed operation may be tried again.

use crate::model::Timestamp;

/// Consecutive failures, and the moment before which nothing is tried again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retry {
    /// Number of consecutive failures.
    pub attempts: u32,
    /// The earliest moment for the next try; zero: at once.
    pub not_before: Timestamp,
}
