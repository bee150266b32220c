//! Corrections of the signing time and renewal of keys after refused calls.
//!
//! Every signed call uses [`Signing`]: calls that this crate signs through [`Signing::call`], calls of SDK clients through
//! `sdk_signing`. (The exception is STS, which the SDK's own credentials providers call.) Owns the decision whether a refused
//! call is to be signed again: if the clocks differ, or if there may be newer keys. It signs and sends nothing itself. The
//! invariant: only a refused call changes the time correction or makes keys count as expired, so a wrong date in a successful
//! answer does no harm.

use super::clock::ServiceClock;
use aws_credential_types::Credentials;
use aws_credential_types::provider::ProvideCredentials;
use aws_credential_types::provider::error::CredentialsError;
use ecs_core::model::Secret;
use reqwest::header::{AGE, DATE, HeaderMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};
use tokio::time::Instant;

/// Time limit for the provider of the keys to sign with.
const CREDENTIALS_LIMIT: Duration = Duration::from_secs(60);
/// Minimum time between two refusals that lead to a renewal of the instance's credentials. It is also the pause after a source
/// has returned the rejected credentials again.
pub(crate) const RENEWAL_INTERVAL: Duration = Duration::from_secs(60);
/// The error codes of AWS services for keys that have expired or are unknown.
const KEY_CODES: [&str; 9] = [
    "AuthFailure",
    "ExpiredToken",
    "ExpiredTokenException",
    "InvalidAccessKeyId",
    "InvalidClientTokenId",
    "InvalidToken",
    "RequestExpired",
    "TokenRefreshRequired",
    "UnrecognizedClientException",
];

/// The time correction and the state of the instance's keys; clones share them.
#[derive(Clone, Debug, Default)]
pub struct Signing {
    clock: ServiceClock,
    keys: Arc<Mutex<InstanceKeys>>,
}

/// The refusal of a signed call.
#[derive(Clone, Copy, Debug)]
pub struct Refusal<'a> {
    /// The HTTP status.
    pub status: u16,
    /// The header `Date` of the answer; `None` if it has none, or may come from a cache.
    pub date: Option<&'a str>,
    /// The code of the error, such as `ExpiredTokenException`; may be empty.
    pub code: &'a str,
    /// The text of the error.
    pub message: &'a str,
}

/// An error of a call that may be the refusal of its signature.
pub trait MayBeRefusal {
    /// The refusal; `None` if the error is not an answer of AWS.
    fn refusal(&self) -> Option<Refusal<'_>>;
}

/// The access key ids of the instance's credentials. Those of task roles are not included, since ECS renews them.
#[derive(Debug, Default)]
struct InstanceKeys {
    /// The current key id; empty before the first fetch.
    current: Secret,
    /// The previous key id; empty if there was none.
    previous: Secret,
    /// True: AWS rejected the current key as expired, and the provider has not been called since.
    is_refused: bool,
    /// When a refusal last led to a renewal; `None` if none has. New keys do not reset it, since a provider may issue new ones
    /// at each request.
    renewal_requested: Option<Instant>,
}

impl Signing {
    /// The clock for signatures.
    pub fn clock(&self) -> &ServiceClock {
        &self.clock
    }

    /// Makes a signed call: `attempt` gets the keys and the time to sign with. If its answer shows that either was wrong, a
    /// second attempt is made with newer keys and the corrected time.
    ///
    /// # Errors
    /// Fails with the error of the last attempt, or with that of the provider if it yields no keys within a minute.
    pub async fn call<T, E, F>(
        &self,
        provider: &impl ProvideCredentials,
        attempt: impl Fn(Credentials, SystemTime) -> F,
    ) -> Result<T, E>
    where
        E: MayBeRefusal + From<CredentialsError>,
        F: Future<Output = Result<T, E>>,
    {
        let keys = credentials(provider).await?;
        let signed_at = self.clock.now();
        let error = match attempt(keys.clone(), signed_at).await {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        let Some(refusal) = error.refusal() else { return Err(error) };
        let other_time = self.clock.learn(signed_at, refusal.status, refusal.date);
        if !other_time && !self.may_have_newer_keys(keys.access_key_id(), &refusal) {
            return Err(error);
        }
        let Ok(newer) = credentials(provider).await else { return Err(error) };
        if !other_time && newer.access_key_id() == keys.access_key_id() {
            return Err(error);
        }
        attempt(newer, self.clock.now()).await
    }

    /// Learns from the refusal of a call that was signed at this time with this access key id. True: the call may succeed if it
    /// is signed again.
    pub(crate) fn learn(&self, signed_at: SystemTime, key_id: &str, refusal: &Refusal<'_>) -> bool {
        self.clock.learn(signed_at, refusal.status, refusal.date) || self.may_have_newer_keys(key_id, refusal)
    }

    /// Notes the refusal if it is about expired keys of the instance. True: newer keys are available or will be requested.
    fn may_have_newer_keys(&self, key_id: &str, refusal: &Refusal<'_>) -> bool {
        means_keys_expired(refusal.code, refusal.message) && self.keys().note_refusal(key_id)
    }

    /// Whether AWS rejected the instance's credentials as expired, so that they must be renewed before use.
    pub(crate) fn keys_are_refused(&self) -> bool {
        self.keys().is_refused
    }

    /// Notes that the provider of the instance's credentials was called. `None`: it yielded no new ones.
    pub(crate) fn note_keys(&self, key_id: Option<&str>) {
        self.keys().note_keys(key_id);
    }

    fn keys(&self) -> MutexGuard<'_, InstanceKeys> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl InstanceKeys {
    /// Notes that AWS rejected this key as expired. True: newer keys are available or will be requested.
    fn note_refusal(&mut self, key_id: &str) -> bool {
        if key_id.is_empty() || key_id != self.current.expose() {
            return !key_id.is_empty() && key_id == self.previous.expose();
        }
        let is_too_soon = self.renewal_requested.is_some_and(|requested| requested.elapsed() < RENEWAL_INTERVAL);
        if !self.is_refused && !is_too_soon {
            tracing::warn!("AWS rejects the credentials of this instance as expired; newer ones are requested");
            self.is_refused = true;
            self.renewal_requested = Some(Instant::now());
        }
        self.is_refused
    }

    fn note_keys(&mut self, key_id: Option<&str>) {
        self.is_refused = false;
        if let Some(key_id) = key_id.filter(|key_id| *key_id != self.current.expose()) {
            self.previous = std::mem::replace(&mut self.current, Secret::from(key_id));
        }
    }
}

/// Whether this error of an AWS service means that the keys have expired or are unknown.
pub fn means_keys_expired(code: &str, message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    let token_is_rejected =
        message.contains("security token") && (message.contains("expired") || message.contains("invalid"));
    KEY_CODES.contains(&code)
        || token_is_rejected
        || (code.starts_with("InvalidSignature") && message.contains("expired"))
}

/// The `Date` of an answer from AWS; `None` if the answer has none, or is from a cache (it has an `Age`).
pub fn date_of(headers: &HeaderMap) -> Option<String> {
    let date = headers.get(DATE).filter(|_| !headers.contains_key(AGE))?;
    date.to_str().ok().map(str::to_owned)
}

/// The keys of the provider, or its error; a timeout counts as one.
async fn credentials(provider: &impl ProvideCredentials) -> Result<Credentials, CredentialsError> {
    let keys = tokio::time::timeout(CREDENTIALS_LIMIT, provider.provide_credentials()).await;
    keys.unwrap_or_else(|_| Err(CredentialsError::provider_timed_out(CREDENTIALS_LIMIT)))
}

#[cfg(test)]
mod tests;
