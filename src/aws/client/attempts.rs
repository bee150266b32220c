//! The attempts of an AWS call that no SDK crate makes ([`super::json_call`], [`crate::aws::services::s3`]).
//!
//! Owns the number of attempts, the pauses between them, the client, and the headers with the number of the attempt. The caller
//! owns the request and the time limit of one attempt. Invariant: a request that a service refuses for good, or that cannot be
//! sent, is not retried.

use super::call_error::CallError;
use super::sdk::Sdk;
use super::transport;
use super::words::Peer;
use crate::backoff::{Backoff, Shape};
use ecs_core::model::with_causes;
use std::time::Duration;
use tokio::time::sleep;
use url::Url;

const ATTEMPTS: u32 = 3;
const PAUSES: Shape =
    Shape { initial: Duration::from_millis(500), max: Duration::from_secs(2), factor: 2.0, jitter: 1.0 };

/// The headers with the number of one attempt.
pub(crate) type Numbered = [(&'static str, String); 2];

/// The HTTP client for one URL, and the errors of its requests.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    /// Sends the requests.
    pub(crate) http: reqwest::Client,
    peer: Peer,
}

impl Client {
    /// The client for this URL.
    pub(crate) fn new(sdk: &Sdk, url: &Url) -> Result<Self, CallError> {
        let client = transport::reqwest_builder(&sdk.settings.proxy, url);
        let client = client.map_err(|error| CallError::NotSent(error.to_string()))?;
        let http = client.build().map_err(|error| CallError::NotSent(with_causes(&error)))?;
        Ok(Self { http, peer: Peer::new(&sdk.settings.proxy, url) })
    }

    /// The error of a request without an answer: either the client refused to send it, or it was lost.
    pub(crate) fn lost(&self, error: reqwest::Error) -> CallError {
        // Without the address: its query may be a signature.
        let error = error.without_url();
        if error.is_builder() {
            CallError::NotSent(with_causes(&error))
        } else {
            CallError::NoAnswer(self.peer.failed(&error))
        }
    }

    /// The error of a request without an answer within this time.
    pub(crate) fn late(&self, limit: Duration) -> CallError {
        CallError::NoAnswer(self.peer.late(limit))
    }
}

/// The result of the first successful attempt of `once`, or the error of the last one. `what` names the call in the log.
pub(crate) async fn first<T, F>(what: &str, once: impl Fn(Numbered) -> F) -> Result<T, CallError>
where
    F: Future<Output = Result<T, CallError>>,
{
    let invocation = uuid::Uuid::new_v4().to_string();
    let mut pauses = Backoff::new(PAUSES);
    let mut attempt = 1;
    loop {
        let request = format!("attempt={attempt}; max={ATTEMPTS}");
        let headers = [("amz-sdk-invocation-id", invocation.clone()), ("amz-sdk-request", request)];
        let error = match once(headers).await {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        if attempt == ATTEMPTS || !error.is_retryable_soon() {
            return Err(error);
        }
        tracing::debug!(what, %error, attempt, "a call failed; trying again");
        sleep(pauses.pause()).await;
        attempt += 1;
    }
}
