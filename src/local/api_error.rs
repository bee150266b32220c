//! An error of an AWS API: status, code and text.

use super::suggestion::did_you_mean;
use ecs_core::model::text::without_numbers;
use serde_json::{Value, json};

/// An error of an AWS API.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct ApiError {
    /// The HTTP status.
    pub status: u16,
    /// The error code, `__type` in the body.
    pub code: String,
    /// The text that people read, without numbers of the operating system.
    pub message: String,
    /// Further members of the answer, for programs; `None`: there are none.
    pub(super) members: Option<Box<Value>>,
}

impl ApiError {
    pub(super) fn new(status: u16, code: &str, message: impl Into<String>) -> Self {
        let message = without_numbers(&message.into()).into_owned();
        Self { status, code: code.to_owned(), message, members: None }
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

    /// The call is not part of this service, which has the calls in `supported`.
    pub(super) fn unsupported(code: &str, operation: &str, service: &str, supported: &[&str]) -> Self {
        let suggestion = did_you_mean(operation, supported.iter().copied());
        let known = supported.join(", ");
        Self::new(400, code, format!("{operation} is not supported by this {service}.{suggestion} Supported: {known}."))
    }

    /// The body of the error answer.
    pub(super) fn body(&self) -> Value {
        let mut body = json!({"__type": self.code, "message": self.message});
        if let (Some(body), Some(Value::Object(members))) = (body.as_object_mut(), self.members.as_deref()) {
            body.extend(members.clone());
        }
        body
    }
}
