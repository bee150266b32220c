//! Connects SDK clients to [`Signing`], which learns from their refused calls.
//!
//! The SDK's own clock correction is off, since it is limited to one client and few error codes. Owns the replacement: a
//! correction applies to all clients, refusals with any code count, and so do expired keys. It decides nothing: [`Signing`]
//! does. The invariant: an attempt is repeated only if its own answer requires it, within the number of attempts of the client.

use super::call_error::code_and_message;
use super::signing::{Refusal, Signing};
use aws_sdk_ecs::config::Intercept;
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::context::{
    AfterDeserializationInterceptorContextRef, BeforeDeserializationInterceptorContextMut,
    BeforeTransmitInterceptorContextRef, InterceptorContext,
};
use aws_smithy_runtime_api::client::retries::classifiers::{ClassifyRetry, RetryAction, RetryClassifierPriority};
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_runtime_api::http::Headers;
use aws_smithy_types::DateTime;
use aws_smithy_types::config_bag::{ConfigBag, Storable, StoreReplace};
use aws_smithy_types::date_time::Format;
use aws_smithy_types::retry::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

/// Passes the refusals of a client's calls to [`Signing`].
#[derive(Debug)]
pub(crate) struct Learning(pub(crate) Signing);

/// Allows the retry of an attempt whose answer led to a correction.
#[derive(Debug)]
pub(crate) struct Repeating {
    /// True: no attempt is retried for another reason, since the client is configured for a single attempt.
    pub(crate) nothing_else: bool,
}

/// The signature of one attempt. It is stored with the answer, since [`Repeating`] gets only the answer.
#[derive(Clone, Debug)]
struct Sent {
    at: SystemTime,
    key_id: String,
    /// True: the call may succeed if it is signed again.
    may_repeat: Arc<AtomicBool>,
}

impl Storable for Sent {
    type Storer = StoreReplace<Self>;
}

impl Sent {
    /// Reads the headers of a signed request; `None` if it is not signed.
    fn from_headers(headers: &Headers) -> Option<Self> {
        let at = time_of(headers.get("x-amz-date")?)?;
        let credential = headers.get("authorization")?.split_once("Credential=")?.1;
        let key_id = credential.split_once('/')?.0.to_owned();
        Some(Self { at, key_id, may_repeat: Arc::default() })
    }
}

/// Parses a time such as `20261128T193914Z`.
fn time_of(text: &str) -> Option<SystemTime> {
    let part = |from: usize, to: usize| text.get(from..to);
    let (year, month, day) = (part(0, 4)?, part(4, 6)?, part(6, 8)?);
    let (hour, minute, second) = (part(9, 11)?, part(11, 13)?, part(13, 15)?);
    let text = format!("{year}-{month}-{day}T{hour}:{minute}:{second}Z");
    DateTime::from_str(&text, Format::DateTime).ok()?.try_into().ok()
}

impl Intercept for Learning {
    fn name(&self) -> &'static str {
        "Learning"
    }

    fn read_after_signing(
        &self,
        context: &BeforeTransmitInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if let Some(sent) = Sent::from_headers(context.request().headers()) {
            config.interceptor_state().store_put(sent);
        }
        Ok(())
    }

    fn modify_before_deserialization(
        &self,
        context: &mut BeforeDeserializationInterceptorContextMut<'_>,
        _components: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if let Some(sent) = config.load::<Sent>() {
            context.response_mut().add_extension(sent.clone());
        }
        Ok(())
    }

    fn read_after_deserialization(
        &self,
        context: &AfterDeserializationInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let answer = context.response();
        let (Some(sent), Err(_)) = (answer.extension::<Sent>(), context.output_or_error()) else { return Ok(()) };
        let headers = answer.headers();
        let error_type = headers.get("x-amzn-errortype").unwrap_or_default();
        let (code, message) = code_and_message(error_type, answer.body().bytes().unwrap_or_default());
        let date = headers.get("date").filter(|_| headers.get("age").is_none());
        let refusal = Refusal { status: answer.status().as_u16(), date, code: &code, message: &message };
        if self.0.learn(sent.at, &sent.key_id, &refusal) {
            sent.may_repeat.store(true, Ordering::Relaxed);
        }
        Ok(())
    }
}

impl ClassifyRetry for Repeating {
    fn classify_retry(&self, context: &InterceptorContext) -> RetryAction {
        let sent = context.response().and_then(|answer| answer.extension::<Sent>());
        match sent.is_some_and(|sent| sent.may_repeat.load(Ordering::Relaxed)) {
            true => RetryAction::retryable_error(ErrorKind::ServerError),
            false if self.nothing_else && context.is_failed() => RetryAction::RetryForbidden,
            false => RetryAction::NoActionIndicated,
        }
    }

    fn name(&self) -> &'static str {
        "Repeating"
    }

    fn priority(&self) -> RetryClassifierPriority {
        RetryClassifierPriority::run_after(RetryClassifierPriority::http_status_code_classifier())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_a_signature_is_read() {
        let at = time_of("20261128T193914Z").unwrap();
        assert_eq!(DateTime::from(at).fmt(Format::DateTime).unwrap(), "2026-11-28T19:39:14Z");
        for text in ["", "2026", "20261128T1939", "20269928T193914Z", "üüüüüüüüüüüüüüü"] {
            assert_eq!(time_of(text), None, "{text}");
        }
    }
}
