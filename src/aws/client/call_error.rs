//! The errors of an AWS call that no SDK crate makes, and the parsing of error answers.
//!
//! Owns which errors are temporary, and their texts; `attempts` makes the retries. Invariant: of an answer, an error text holds
//! only the code and the message.

use super::signing::{self, MayBeRefusal, Refusal};
use super::words;
use crate::input::truncated::member_of_truncated;
use aws_credential_types::provider::error::CredentialsError;
use ecs_core::model::text::cleaned;
use serde_json::Value;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// The service refused the call. Its texts are cleaned; `date` is the service's time, `None` if unknown.
    #[error("{code}: {message}")]
    Refused { status: u16, request_id: String, code: String, message: String, date: Option<String> },
    /// There was no complete answer.
    #[error("{0}")]
    NoAnswer(String),
    /// The request could not be built: the client refuses an address, a key or a header.
    #[error("the request was not sent: {0}")]
    NotSent(String),
}

impl MayBeRefusal for CallError {
    fn refusal(&self) -> Option<Refusal<'_>> {
        match self {
            Self::Refused { status, code, message, date, .. } => {
                Some(Refusal { status: *status, date: date.as_deref(), code, message })
            }
            Self::NoAnswer(_) | Self::NotSent(_) => None,
        }
    }
}

impl From<CredentialsError> for CallError {
    fn from(error: CredentialsError) -> Self {
        Self::NotSent(words::credentials_error(&error))
    }
}

impl CallError {
    /// Whether a retry within seconds may succeed.
    pub(crate) fn is_retryable_soon(&self) -> bool {
        match self {
            Self::Refused { status, code, .. } => {
                *status >= 500 || *status == 429 || code.contains("Throttl") || code == "TooManyRequestsException"
            }
            Self::NoAnswer(_) => true,
            Self::NotSent(_) => false,
        }
    }

    /// Whether a later retry may succeed. This includes a refusal because of expired role credentials, since ECS sends new ones.
    pub(crate) fn is_retryable(&self) -> bool {
        let is_about_keys =
            self.refusal().is_some_and(|refusal| signing::means_keys_expired(refusal.code, refusal.message));
        self.is_retryable_soon() || is_about_keys
    }

    /// The text of the Go agent's SDK for this error, which operators search for. `operation` is `Service: Operation`;
    /// `modelled` lists the errors that the SDK has a type for.
    pub(crate) fn sdk_text(&self, operation: &str, modelled: &[&str]) -> String {
        match self {
            Self::Refused { status, request_id, code, message, .. } => format!(
                "operation error {operation}, https response error StatusCode: {status}, RequestID: {request_id}, {}{code}: {message}",
                if modelled.contains(&code.as_str()) { "" } else { "api error " },
            ),
            Self::NoAnswer(_) | Self::NotSent(_) => format!("operation error {operation}, {self}"),
        }
    }
}

/// The code and the text of an error answer; either may be empty. `error_type` is the header `x-amzn-errortype`. A truncated
/// answer is read as far as it goes.
pub(crate) fn code_and_message(error_type: &str, answer: &[u8]) -> (String, String) {
    let error: Value = serde_json::from_slice(answer).unwrap_or_default();
    let member = |name: &str| match &error {
        Value::Null => cleaned(&member_of_truncated(answer, name).unwrap_or_default()),
        whole => cleaned(whole.get(name).and_then(Value::as_str).unwrap_or_default()),
    };
    let code = if error_type.is_empty() { member("__type") } else { error_type.to_owned() };
    // `com.amazonaws.service#Code`, `Code:http://…` and `Code` are equivalent.
    let code = code.rsplit('#').next().unwrap_or_default().split(':').next().unwrap_or_default();
    let message = Some(member("message")).filter(|text| !text.is_empty()).unwrap_or_else(|| member("Message"));
    (cleaned(code), message)
}
