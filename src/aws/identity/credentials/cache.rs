//! A cache in front of a credentials provider, shared by all calls that are signed with the instance's keys.
//!
//! Owns the decision when to call the provider: not while its last answer is good, and never for two callers at the same time.
//! It does not know where the provider gets credentials from. Invariant: credentials are never dropped because a renewal
//! failed.

use crate::aws::client::signing::{RENEWAL_INTERVAL, Signing};
use crate::aws::client::words::{self, NoCredentials};
use crate::backoff::{Backoff, Shape};
use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, future};
use std::sync::{Mutex as StdMutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::Instant;

/// Credentials are renewed when they expire in less than this time.
const MARGIN: Duration = Duration::from_secs(300);
/// Credentials without an expiration (keys in a file) are read again after this time, so that a rotated file is noticed.
const REREAD: Duration = Duration::from_secs(60);
/// Minimum time between two calls of the provider while its answers are about to expire, or seem to have expired.
const MIN_INTERVAL: Duration = Duration::from_secs(15);
/// The pauses after failed calls of the provider. Without them, each caller would wait for the same failure.
const FAILURE_PAUSES: Shape =
    Shape { initial: Duration::from_secs(1), max: Duration::from_secs(30), factor: 2.0, jitter: 0.2 };
/// Time limit for one call of the provider, a chain of sources; IMDS alone may need several attempts.
const PATIENCE: Duration = Duration::from_secs(20);

/// A provider that calls another one only if there is no answer yet, if the last answer is about to expire or is to be read
/// again, or if AWS rejected it as expired.
///
/// The lifetime of an answer is computed when it arrives, so a later change of the host's clock has no effect.
#[derive(Debug)]
pub(crate) struct Cached<P> {
    provider: P,
    signing: Signing,
    state: StdMutex<State>,
    /// Locked by the caller that calls the provider.
    calling: Mutex<()>,
}

#[derive(Debug)]
struct State {
    /// The last credentials; `None` before the first successful call.
    current: Option<Current>,
    /// The last failure; `None` if the last call succeeded.
    failed: Option<Failed>,
    pauses: Backoff,
}

/// The last credentials of the provider.
#[derive(Clone, Debug)]
struct Current {
    credentials: Credentials,
    /// When they arrived.
    fetched: Instant,
    /// The time from their arrival to their expiration; `None` if they have no expiration.
    lifetime: Option<Duration>,
    /// True: AWS rejected them as expired. The expiration that the provider gives them does not count any more, since the SDK
    /// gives expired credentials of the instance role a new expiration at each fetch.
    is_rejected: bool,
}

/// The last failure of the provider.
#[derive(Clone, Debug)]
struct Failed {
    at: Instant,
    /// The time after `at` within which the provider is not called again.
    pause: Duration,
    error: String,
}

impl Current {
    /// Whether they may be used without a call of the provider.
    fn is_fresh(&self) -> bool {
        let good_for = match self.lifetime {
            None => REREAD,
            // If the host's clock is far ahead, every answer seems expired; only AWS knows.
            Some(Duration::ZERO) => MIN_INTERVAL,
            Some(lifetime) => lifetime.saturating_sub(MARGIN).max(MIN_INTERVAL.min(lifetime)),
        };
        !self.is_rejected && self.fetched.elapsed() < good_for
    }

    /// Whether they have not expired, as far as known.
    fn is_valid(&self) -> bool {
        !self.is_rejected && self.lifetime.is_none_or(|lifetime| self.fetched.elapsed() < lifetime)
    }
}

impl<P: ProvideCredentials> Cached<P> {
    pub(crate) fn new(provider: P, signing: Signing) -> Self {
        let state = State { current: None, failed: None, pauses: Backoff::new(FAILURE_PAUSES) };
        Self { provider, signing, state: StdMutex::new(state), calling: Mutex::new(()) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn credentials(&self) -> Result<Credentials, CredentialsError> {
        let began = Instant::now();
        if let Some(result) = self.without_call(began) {
            return result;
        }
        let is_refused = self.signing.keys_are_refused();
        let _turn = match self.calling.try_lock() {
            Ok(turn) => turn,
            Err(_) => {
                // Another caller is already calling the provider: credentials that are still valid are used meanwhile, and after
                // a failure the last ones.
                if let Some(credentials) = self.state().meanwhile().filter(|_| !is_refused) {
                    return Ok(credentials);
                }
                self.calling.lock().await
            }
        };
        // The result of the other caller's call, success or error, is used here too.
        if let Some(result) = self.without_call(began) {
            return result;
        }
        let answer = tokio::time::timeout(PATIENCE, self.provider.provide_credentials())
            .await
            .unwrap_or_else(|_| Err(CredentialsError::provider_timed_out(PATIENCE)));
        if self.signing.keys_are_refused()
            && let Some(current) = &mut self.state().current
        {
            current.is_rejected = true;
        }
        match answer {
            Ok(credentials) if self.is_rejected(&credentials) => {
                self.note_failure("AWS rejects them as expired, and the source has no others", RENEWAL_INTERVAL)
            }
            Ok(credentials) if self.is_current(&credentials) => {
                self.note_failure("the source has no newer ones", MIN_INTERVAL)
            }
            Ok(credentials) => Ok(self.store(credentials)),
            Err(error) => self.note_failure(&words::credentials_error(&error), Duration::ZERO),
        }
    }

    /// The result that needs no call of the provider: fresh credentials, or, after a recent failure, the last credentials or
    /// the error. A failure is recent if it happened after `began` (the start of this request), or if its pause is not over.
    /// `None`: a call is needed.
    fn without_call(&self, began: Instant) -> Option<Result<Credentials, CredentialsError>> {
        let state = self.state();
        let fresh = state.current.as_ref().filter(|current| current.is_fresh() && !self.signing.keys_are_refused());
        if let Some(current) = fresh {
            return Some(Ok(current.credentials.clone()));
        }
        let failed = state.failed.as_ref()?;
        let is_recent = failed.at >= began || failed.at.elapsed() < failed.pause;
        is_recent.then(|| state.last_resort(&failed.error))
    }

    /// Stores new credentials and returns them.
    fn store(&self, credentials: Credentials) -> Credentials {
        let now = self.signing.clock().now();
        let lifetime = credentials.expiry().map(|end| end.duration_since(now).unwrap_or_default());
        let mut state = self.state();
        state.current =
            Some(Current { credentials: credentials.clone(), fetched: Instant::now(), lifetime, is_rejected: false });
        state.failed = None;
        state.pauses.reset();
        self.signing.note_keys(Some(credentials.access_key_id()));
        credentials
    }

    /// Whether the answer has the key that AWS rejected as expired, whatever expiration it has now.
    fn is_rejected(&self, answer: &Credentials) -> bool {
        let state = self.state();
        state
            .current
            .as_ref()
            .is_some_and(|current| current.is_rejected && current.credentials.access_key_id() == answer.access_key_id())
    }

    /// Whether the answer is the current credentials again, so that nothing was renewed: if the metadata service fails, the SDK
    /// returns the last credentials of the instance role as if they were valid. This does not apply to keys without an
    /// expiration, which are the same at each call, nor to keys that seemed expired on arrival: the clock may have been
    /// corrected since.
    fn is_current(&self, answer: &Credentials) -> bool {
        self.state().current.as_ref().is_some_and(|current| {
            current.lifetime.is_some_and(|lifetime| !lifetime.is_zero())
                && current.credentials.access_key_id() == answer.access_key_id()
                && current.credentials.expiry() == answer.expiry()
        })
    }

    /// Notes a failure. The provider is then not called during a pause, which lasts `at_least` this long. Returns the last
    /// credentials; if there are none, the error.
    fn note_failure(&self, error: &str, at_least: Duration) -> Result<Credentials, CredentialsError> {
        self.signing.note_keys(None);
        let mut state = self.state();
        let pause = state.pauses.pause().max(at_least);
        if state.current.is_some() {
            tracing::warn!(
                error,
                attempt = state.pauses.attempt(),
                retry_in_s = crate::backoff::seconds(pause),
                "the credentials of this instance cannot be renewed; the last ones are still used"
            );
        }
        state.failed = Some(Failed { at: Instant::now(), pause, error: error.to_owned() });
        state.last_resort(error)
    }
}

impl State {
    /// The credentials to use during a call of the provider; `None`: the caller must wait for its answer.
    fn meanwhile(&self) -> Option<Credentials> {
        let current = self.current.as_ref().filter(|current| current.is_valid() || self.failed.is_some());
        current.map(|current| current.credentials.clone())
    }

    /// The last credentials, even if they seem to have expired: only AWS knows, and rejects them if so. Without any, the error.
    fn last_resort(&self, error: &str) -> Result<Credentials, CredentialsError> {
        let current = self.current.as_ref().map(|current| current.credentials.clone());
        current.ok_or_else(|| CredentialsError::not_loaded(NoCredentials(error.to_owned())))
    }
}

impl<P: ProvideCredentials> ProvideCredentials for Cached<P> {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(self.credentials())
    }
}

#[cfg(test)]
mod tests;
