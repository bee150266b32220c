//! The error that ends the process, and its exit code, which tells the service manager whether to start the agent again.

/// An error that ends the process, with its exit code (spec `registration.md` §1: 1 = start again, 5 = do not).
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Fatal {
    /// Exit code.
    pub code: u8,
    /// The reason, for the log; empty if it has been printed already.
    pub message: String,
}

impl Fatal {
    pub(crate) fn restartable(message: String) -> Self {
        Self { code: 1, message }
    }

    /// A restart cannot help.
    pub(crate) fn is_terminal(&self) -> bool {
        self.code == 5
    }

    pub(crate) fn terminal(message: String) -> Self {
        Self { code: 5, message }
    }
}
