//! A cache in front of a credentials provider, shared by all calls that are signed with the instance's keys.
//!
//! Owns the decision when to call the provider: not while its last answer is good, and never for two callers at the same time.
//! It does not know where the provider gets credentials from. Invariant: credentials are never dropped because a renewal
//! failed.

use crate::aws::client::signing::{RENEWAL_INTERVAL, Signing};
use crate::backoff::{Backoff, Shape};
use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, future};
use ecs_core::model::with_causes;
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
            Err(error) => self.note_failure(&with_causes(&error), Duration::ZERO),
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
                ?pause,
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
        current.ok_or_else(|| CredentialsError::not_loaded(error.to_owned()))
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
mod tests {
    use super::*;
    use crate::aws::client::clock::tests::http_date;
    use crate::aws::client::signing::Refusal;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::SystemTime;
    use tokio::time::advance;

    #[derive(Debug)]
    struct Scripted(StdMutex<Vec<Result<Credentials, CredentialsError>>>);

    impl ProvideCredentials for Scripted {
        fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
        where
            Self: 'a,
        {
            future::ProvideCredentials::ready(self.0.lock().unwrap().remove(0))
        }
    }

    fn keys(id: &str, lifetime: u64) -> Credentials {
        Credentials::new(id, "s", None, Some(SystemTime::now() + Duration::from_secs(lifetime)), "test")
    }

    /// The cache in front of these answers; a surplus call panics.
    fn cached(answers: Vec<Result<Credentials, CredentialsError>>) -> (Cached<Scripted>, Signing) {
        let signing = Signing::default();
        (Cached::new(Scripted(StdMutex::new(answers)), signing.clone()), signing)
    }

    /// The number of unused answers.
    fn left(cached: &Cached<Scripted>) -> usize {
        cached.provider.0.lock().unwrap().len()
    }

    fn gone() -> Result<Credentials, CredentialsError> {
        Err(CredentialsError::not_loaded("gone"))
    }

    async fn id(cached: &Cached<Scripted>) -> String {
        cached.credentials().await.map_or_else(|error| with_causes(&error), |keys| keys.access_key_id().to_owned())
    }

    #[tokio::test(start_paused = true)]
    async fn credentials_are_renewed_shortly_before_they_expire() {
        let (cached, _) = cached(vec![Ok(keys("ONE", 200)), Ok(keys("TWO", 3600)), Ok(keys("THREE", 3600))]);
        assert_eq!(id(&cached).await, "ONE");
        assert_eq!(id(&cached).await, "ONE", "200 seconds are within the margin, but the provider was called just now");
        advance(MIN_INTERVAL).await;
        assert_eq!((id(&cached).await, id(&cached).await), ("TWO".to_owned(), "TWO".to_owned()));
        advance(Duration::from_secs(3600) - MARGIN - Duration::from_secs(2)).await;
        assert_eq!(id(&cached).await, "TWO");
        advance(Duration::from_secs(2)).await;
        assert_eq!(id(&cached).await, "THREE");
    }

    #[tokio::test(start_paused = true)]
    async fn a_wrong_clock_does_not_end_credentials() {
        // On a host that is three hours ahead, these seem to have expired long ago.
        let ended = Credentials::new("ONE", "s", None, Some(SystemTime::now() - Duration::from_secs(7200)), "test");
        let (cached, signing) = cached(vec![Ok(ended.clone()), Ok(ended.clone()), Ok(ended)]);
        for _ in 0..5 {
            assert_eq!(id(&cached).await, "ONE");
        }
        assert_eq!(left(&cached), 2, "the provider is called once, not at each request");
        assert!(signing.clock().learn(SystemTime::now(), 403, Some(&http_date(-3 * 3600))));
        advance(MIN_INTERVAL).await;
        assert_eq!(id(&cached).await, "ONE");
        advance(Duration::from_secs(3000)).await;
        assert_eq!(id(&cached).await, "ONE", "by the time of AWS they are valid for an hour");
        assert_eq!(left(&cached), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn rejected_credentials_are_renewed() {
        let (cached, signing) =
            cached(vec![Ok(keys("ONE", 36000)), Ok(keys("ONE", 36000)), Ok(keys("TWO", 36000)), gone()]);
        let expired = Refusal { status: 400, date: None, code: "ExpiredTokenException", message: "" };
        let refused = |key: &str| signing.learn(SystemTime::now(), key, &expired);
        assert_eq!(id(&cached).await, "ONE");
        assert!(refused("ONE"));
        assert_eq!(id(&cached).await, "ONE", "the metadata service has no newer ones yet");
        for _ in 0..20 {
            assert!(!refused("ONE"));
            assert_eq!(id(&cached).await, "ONE");
        }
        assert_eq!(left(&cached), 2, "the provider is not called again within a minute");
        advance(Duration::from_secs(60)).await;
        assert!(refused("ONE"));
        assert_eq!(id(&cached).await, "TWO");
        assert!(!refused("TWO"), "a refusal of the new key does not lead to a call at once");
        advance(Duration::from_secs(60)).await;
        // A failed renewal keeps the last credentials.
        assert!(refused("TWO"));
        assert_eq!((id(&cached).await, id(&cached).await), ("TWO".to_owned(), "TWO".to_owned()));
    }

    fn expired() -> Refusal<'static> {
        Refusal { status: 400, date: None, code: "ExpiredToken", message: "" }
    }

    /// The behaviour of the SDK for expired credentials that the metadata service still returns.
    #[tokio::test(start_paused = true)]
    async fn a_new_expiration_of_rejected_keys_is_ignored() {
        let (cached, signing) = cached(vec![
            Ok(keys("ONE", 21600)),
            Ok(keys("ONE", 22000)),
            Ok(keys("ONE", 43200)),
            gone(),
            Ok(keys("TWO", 21600)),
        ]);
        assert_eq!(id(&cached).await, "ONE");
        assert!(signing.learn(SystemTime::now(), "ONE", &expired()));
        // The next call of the provider needs no second refusal, and at most one is made in a minute.
        for left_over in [3, 2, 1] {
            for _ in 0..5 {
                assert_eq!(id(&cached).await, "ONE");
            }
            assert_eq!(left(&cached), left_over);
            assert!(!cached.state().current.as_ref().unwrap().is_valid());
            advance(RENEWAL_INTERVAL).await;
        }
        assert_eq!(id(&cached).await, "TWO");
        advance(Duration::from_secs(20000)).await;
        assert_eq!((id(&cached).await, left(&cached)), ("TWO".to_owned(), 0), "the new expiration counts");
    }

    #[tokio::test(start_paused = true)]
    async fn rejected_keys_without_expiration_are_renewed() {
        let endless = || Ok(Credentials::new("ONE", "s", Some("t".to_owned()), None, "test"));
        let (cached, signing) = cached(vec![endless(), endless(), endless(), Ok(keys("TWO", 3600))]);
        assert_eq!(id(&cached).await, "ONE");
        assert!(signing.learn(SystemTime::now(), "ONE", &expired()));
        for wanted in [2, 1] {
            assert_eq!((id(&cached).await, id(&cached).await), ("ONE".to_owned(), "ONE".to_owned()));
            assert_eq!(left(&cached), wanted);
            advance(RENEWAL_INTERVAL).await;
        }
        assert_eq!(id(&cached).await, "TWO");
    }

    /// The metadata service is unavailable when AWS rejects the credentials as expired.
    #[tokio::test(start_paused = true)]
    async fn a_failure_does_not_make_rejected_keys_valid() {
        let (cached, signing) = cached(vec![Ok(keys("ONE", 21600)), gone(), Ok(keys("TWO", 3600))]);
        assert_eq!(id(&cached).await, "ONE");
        advance(Duration::from_secs(3600)).await;
        assert!(signing.learn(SystemTime::now(), "ONE", &expired()));
        assert_eq!((id(&cached).await, left(&cached)), ("ONE".to_owned(), 1));
        advance(Duration::from_secs(2)).await;
        assert_eq!((id(&cached).await, left(&cached)), ("TWO".to_owned(), 0));
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_failed_renewal_the_last_credentials_are_used() {
        let (cached, _) = cached(vec![Ok(keys("ONE", 200)), gone(), gone(), Ok(keys("TWO", 3600))]);
        assert_eq!(id(&cached).await, "ONE");
        advance(MIN_INTERVAL).await;
        for _ in 0..10 {
            assert_eq!(id(&cached).await, "ONE");
        }
        assert_eq!(left(&cached), 2);
        advance(Duration::from_secs(2)).await;
        assert_eq!((id(&cached).await, id(&cached).await), ("ONE".to_owned(), "ONE".to_owned()));
        assert_eq!(left(&cached), 1);
        advance(Duration::from_secs(3)).await;
        assert_eq!(id(&cached).await, "TWO");
    }

    #[tokio::test(start_paused = true)]
    async fn the_same_credentials_again_are_a_failed_renewal() {
        let same = keys("ONE", 1000);
        let again = || Ok(same.clone());
        let (cached, _) = cached(vec![again(), again(), again(), again(), Ok(keys("TWO", 3600))]);
        assert_eq!(id(&cached).await, "ONE");
        advance(Duration::from_secs(700)).await;
        for wanted in [3, 2] {
            for _ in 0..5 {
                assert_eq!(id(&cached).await, "ONE");
            }
            assert_eq!(left(&cached), wanted, "one call, then a pause");
            assert!(cached.state().failed.as_ref().is_some_and(|failed| failed.pause >= MIN_INTERVAL));
            let lifetime = cached.state().current.as_ref().and_then(|current| current.lifetime).unwrap();
            assert!(lifetime > Duration::from_secs(990), "the lifetime is that at the arrival: {lifetime:?}");
            advance(MIN_INTERVAL).await;
        }
        advance(Duration::from_secs(400)).await;
        assert!(!cached.state().current.as_ref().unwrap().is_valid());
        // The credentials have expired and a renewal has failed: a caller does not wait while another one calls the provider.
        let turn = cached.calling.lock().await;
        assert_eq!(id(&cached).await, "ONE");
        drop(turn);
        assert_eq!((id(&cached).await, left(&cached)), ("ONE".to_owned(), 1));
        advance(Duration::from_secs(40)).await;
        assert_eq!((id(&cached).await, left(&cached)), ("TWO".to_owned(), 0));
        assert!(cached.state().failed.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn without_any_credentials_a_failure_is_remembered() {
        let (cached, _) = cached(vec![gone(), Ok(keys("ONE", 3600))]);
        for _ in 0..10 {
            assert!(id(&cached).await.contains("gone"));
        }
        assert_eq!(left(&cached), 1);
        advance(Duration::from_secs(2)).await;
        assert_eq!(id(&cached).await, "ONE");
    }

    /// A metadata service that does not answer for two seconds.
    #[derive(Debug, Default)]
    struct Silent(AtomicUsize);

    impl ProvideCredentials for Silent {
        fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
        where
            Self: 'a,
        {
            future::ProvideCredentials::new(async {
                self.0.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_secs(2)).await;
                gone()
            })
        }
    }

    #[tokio::test(start_paused = true)]
    async fn concurrent_callers_share_one_renewal() {
        let (cached, began) = (Cached::new(Silent::default(), Signing::default()), Instant::now());
        let answers = futures_util::future::join_all((0..20).map(|_| cached.credentials())).await;
        assert!(answers.iter().all(Result::is_err));
        assert_eq!((cached.provider.0.load(Ordering::Relaxed), began.elapsed().as_secs()), (1, 2));
        // Credentials that are still valid are used without waiting while another caller fetches newer ones.
        cached.store(keys("ONE", 200));
        advance(MIN_INTERVAL).await;
        let (first, second) = tokio::join!(cached.credentials(), async {
            let began = Instant::now();
            (cached.credentials().await.unwrap().access_key_id().to_owned(), began.elapsed())
        });
        assert_eq!(first.unwrap().access_key_id(), "ONE");
        assert_eq!(second, ("ONE".to_owned(), Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn keys_without_expiration_are_read_again_in_a_minute() {
        let endless = |id: &str| Ok(Credentials::new(id, "s", None, None, "test"));
        let (cached, _) = cached(vec![endless("ONE"), endless("TWO")]);
        assert_eq!(id(&cached).await, "ONE");
        advance(Duration::from_secs(59)).await;
        assert_eq!(id(&cached).await, "ONE");
        advance(Duration::from_secs(1)).await;
        assert_eq!(id(&cached).await, "TWO");
    }
}
