//! The steps of a change: each has a name, and a failure says which one it was.

use ecs_netlink::{Errno, Error};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// A step that failed: `name the interface 06:00:00:00:01:01 eth0: File exists (EEXIST)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepFailure {
    /// What was to be done, as a request.
    pub step: String,
    /// Why it could not be done.
    pub cause: String,
}

impl fmt::Display for StepFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.step, self.cause)
    }
}

impl std::error::Error for StepFailure {}

/// The result of a step.
pub(super) type Done<T = ()> = Result<T, StepFailure>;

/// Why a step cannot be done.
#[derive(Clone, Debug)]
pub(super) enum Cause {
    /// The kernel's answer.
    Kernel(Error),
    /// Something else, in words.
    Text(String),
}

impl From<Error> for Cause {
    fn from(error: Error) -> Self {
        Self::Kernel(error)
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kernel(error) if error.is(Errno::PERM) => write!(f, "{error}: this process lacks CAP_NET_ADMIN"),
            Self::Kernel(error) => error.fmt(f),
            Self::Text(text) => f.write_str(text),
        }
    }
}

/// The current step of a change.
#[derive(Debug, Default)]
pub(super) struct Steps {
    current: Mutex<Option<(String, Instant)>>,
    is_given_up: AtomicBool,
}

impl Steps {
    /// Takes a step.
    ///
    /// # Errors
    /// The step's, under its name; or the change was given up, and the step was not taken.
    pub(super) fn take<T>(&self, step: impl Into<String>, work: impl FnOnce() -> Result<T, Cause>) -> Done<T> {
        let step = step.into();
        if self.is_given_up.load(Ordering::Relaxed) {
            return Err(StepFailure { step, cause: "given up, because the kernel was too slow".to_owned() });
        }
        self.take_anyway(step, work)
    }

    /// The same for the way back, which is not given up.
    pub(super) fn take_anyway<T>(&self, step: impl Into<String>, work: impl FnOnce() -> Result<T, Cause>) -> Done<T> {
        let step = step.into();
        *self.lock() = Some((step.clone(), Instant::now()));
        work().map_err(|cause| StepFailure { step, cause: cause.to_string() })
    }

    /// The name of the current step, and for how long it has been taken. The name is empty before the first step.
    pub(super) fn current(&self) -> (String, Duration) {
        let current = self.lock();
        current.as_ref().map_or_else(Default::default, |(step, began)| (step.clone(), began.elapsed()))
    }

    /// No further step is taken, except those of the way back.
    pub(super) fn give_up(&self) {
        self.is_given_up.store(true, Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, Option<(String, Instant)>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
