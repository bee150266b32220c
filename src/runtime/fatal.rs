//! Why the process ends, and whether the service manager is to start it again.

/// Why the process ends, and with which exit code (spec `registration.md` §1: 1 = restart me, 5 = do not).
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Fatal {
    /// Exit code.
    pub code: u8,
    /// For the log.
    pub message: String,
}

impl Fatal {
    pub(crate) fn restartable(message: String) -> Self {
        Self { code: 1, message }
    }

    /// The configuration cannot be used; what is wrong with it has been told.
    pub fn unusable_configuration() -> Self {
        Self::restartable("the configuration cannot be used".to_owned())
    }

    pub(crate) fn terminal(message: String) -> Self {
        Self { code: 5, message }
    }
}
