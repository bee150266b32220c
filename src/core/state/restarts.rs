//! What is remembered of the restarts of one container.

use crate::model::{Failure, Timestamp};
use serde::{Deserialize, Serialize};

/// The restarts of one container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restarts {
    /// How many were decided.
    pub count: u32,
    /// When the last one was.
    pub last: Option<Timestamp>,
    /// The last one was decided, and the container has not been seen to run since.
    pub due: bool,
    /// When the last run that is known of began, in the engine's words.
    pub run: Option<String>,
    /// What the engine said of the end that the restart which is due answers.
    pub error: Option<Failure>,
}
