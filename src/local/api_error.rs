//! An error of an AWS API: status, code and text.

use serde_json::{Value, json};

/// An error of an AWS API.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct ApiError {
    /// The HTTP status.
    pub status: u16,
    /// The error code, `__type` in the body.
    pub code: String,
    /// The text that people read.
    pub message: String,
}

impl ApiError {
    pub(super) fn new(status: u16, code: &str, message: impl Into<String>) -> Self {
        Self { status, code: code.to_owned(), message: message.into() }
    }

    pub(super) fn client(message: impl Into<String>) -> Self {
        Self::new(400, "ClientException", message)
    }

    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::new(400, "InvalidParameterException", message)
    }

    pub(super) fn no_cluster() -> Self {
        Self::new(400, "ClusterNotFoundException", "Cluster not found.")
    }

    /// The body of the error answer.
    pub(super) fn body(&self) -> Value {
        json!({"__type": self.code, "message": self.message})
    }
}
