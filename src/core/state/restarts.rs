//! The restarts of one container by its restart policy.

use crate::model::{Failure, Timestamp};
use serde::{Deserialize, Serialize};

/// The restarts of one container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restarts {
    /// Number of restarts that were decided.
    pub count: u32,
    /// When the last restart was decided; `None` if there was none.
    pub last: Option<Timestamp>,
    /// The last restart was decided, and the container has not been seen running since.
    pub due: bool,
    /// When the last known run began, as Docker writes it; `None` if no run is known.
    pub run: Option<String>,
    /// Docker's error for the end that caused the due restart; `None` if there was none.
    pub error: Option<Failure>,
}
