//! The restarts of one container by its restart policy.

use crate::model::{Failure, Span, Timestamp};
use serde::{Deserialize, Serialize};
use std::fmt;

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

/// Why a restart policy does not start a container again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoRestart {
    /// The exit code is not known.
    ExitCodeUnknown,
    /// The container was never seen running.
    NeverRan,
    /// The policy ignores this exit code.
    ExitCodeIgnored(i32),
    /// The container has not run long enough.
    TooSoon {
        /// The time since its last start.
        ran: Span,
        /// `restartAttemptPeriod` of the policy.
        period: Span,
    },
}

impl fmt::Display for NoRestart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ExitCodeUnknown => f.write_str("its exit code is not known"),
            Self::NeverRan => f.write_str("it was never seen running"),
            Self::ExitCodeIgnored(code) => write!(f, "the policy ignores exit code {code}"),
            Self::TooSoon { ran, period } => {
                let [ran, period] = [ran, period].map(|span| span.0 as f64 / 1000.0);
                write!(f, "it ran for {ran} s, and the policy wants {period} s")
            }
        }
    }
}

/// Whether the first of two of Docker's times is before the second.
pub(crate) fn is_earlier(first: &str, second: &str) -> bool {
    order(first) < order(second)
}

/// A form of Docker's RFC 3339 times that sorts correctly as text. Docker leaves out zeros at the end of the fraction, so the
/// `Z` after it must not take part in the comparison.
fn order(time: &str) -> &str {
    time.trim_end_matches('Z')
}
