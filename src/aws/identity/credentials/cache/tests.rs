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

async fn id<P: ProvideCredentials>(cached: &Cached<P>) -> String {
    cached.credentials().await.map_or_else(
        |error| crate::aws::client::words::credentials_error(&error),
        |keys| keys.access_key_id().to_owned(),
    )
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

/// A metadata service that fails, or does not answer, from the second `OUTAGE.0` to the second `OUTAGE.1`. Its keys are valid for
/// an hour.
#[derive(Debug)]
struct Failing {
    began: Instant,
    hangs: bool,
    failures: AtomicUsize,
}

const OUTAGE: (u64, u64) = (3200, 3500);

impl ProvideCredentials for Failing {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(async {
            let at = self.began.elapsed().as_secs();
            if at < OUTAGE.0 {
                return Ok(keys("ONE", 3600));
            }
            if at >= OUTAGE.1 {
                return Ok(keys("TWO", 3600));
            }
            self.failures.fetch_add(1, Ordering::Relaxed);
            if self.hangs {
                std::future::pending::<()>().await;
            }
            gone()
        })
    }
}

/// Calls go on with the keys that they have, and newer ones are there before these end.
#[tokio::test(start_paused = true)]
async fn an_outage_shortly_before_the_end_ends_no_call() {
    for hangs in [false, true] {
        let began = Instant::now();
        let provider = Failing { began, hangs, failures: AtomicUsize::default() };
        let cached = Cached::new(provider, Signing::default());
        let (mut last_of_first, mut first_of_second) = (0, None);
        while began.elapsed() < Duration::from_secs(4000) {
            let key = id(&cached).await;
            let now = began.elapsed().as_secs();
            match key.as_str() {
                "ONE" => last_of_first = now,
                "TWO" => first_of_second = first_of_second.or(Some(now)),
                error => panic!("{now}: {error}"),
            }
            advance(Duration::from_secs(1)).await;
        }
        let failures = cached.provider.failures.load(Ordering::Relaxed);
        assert!(failures >= 4, "it is asked again while it fails: {failures}");
        let renewed = first_of_second.expect("newer keys");
        assert!(last_of_first < renewed && renewed < 3600, "hangs: {hangs}; {last_of_first}, {renewed}");
    }
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
