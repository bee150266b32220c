//! When something that failed may be tried again.

use crate::model::Timestamp;

/// Failures in a row and the moment before which nothing is tried again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retry {
    /// Failures in a row.
    pub attempts: u32,
    /// Not before this.
    pub not_before: Timestamp,
}
