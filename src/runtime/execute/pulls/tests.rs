//! Shared calls without Docker: which requests share a call, what happens when a waiter leaves, and what each waiter gets.

use super::*;
use ecs_core::model::task::EcrAuth;
use std::sync::atomic::{AtomicU32, Ordering};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

fn request(image: &str) -> ImageRequest {
    ImageRequest {
        image: image.to_owned(),
        digest: None,
        auth: RegistryAuth::Engine,
        execution_credentials: None,
        asks_registry: true,
        accepts_cached: true,
        checks_host_after_failure: false,
    }
}

fn key(image: &str) -> RequestKey {
    RequestKey { step: Step::Pull, image: request(image), role: None }
}

/// [`Pulls`] with waiters, and control over the first call.
struct Harness {
    pulls: Pulls,
    /// Number of calls that were started.
    started: Arc<AtomicU32>,
    /// Ends the first call; the later ones never end.
    end: Option<oneshot::Sender<CallResult>>,
    /// Taken by the first call, which waits for it.
    ended: Option<oneshot::Receiver<CallResult>>,
    waiters: JoinSet<CallResult>,
}

impl Harness {
    fn new() -> Self {
        let (end, ended) = oneshot::channel();
        Self {
            pulls: Pulls::new(Arc::new(Clock::started(Timestamp::default(), None))),
            started: Arc::default(),
            end: Some(end),
            ended: Some(ended),
            waiters: JoinSet::new(),
        }
    }

    /// Adds a waiter for this key; returns once it waits.
    async fn join(&mut self, op: u64, key: RequestKey) -> tokio::task::AbortHandle {
        let (pulls, started, ended) = (self.pulls.clone(), self.started.clone(), self.ended.take());
        let labels = Labels { task: format!("task-{op}"), ..Labels::default() };
        let handle = self.waiters.spawn(async move {
            let start = |progress: watch::Sender<PullProgress>, _| async move {
                started.fetch_add(1, Ordering::Relaxed);
                progress.send_modify(|progress| progress.attempt = 1);
                match ended {
                    Some(ended) => ended.await.expect("the test ends it"),
                    None => std::future::pending().await,
                }
            };
            pulls.share(OpId(op), labels, key, None, start).await
        });
        let pulls = self.pulls.clone();
        let waits = async {
            while pulls.progress(OpId(op)).is_none_or(|progress| progress.attempt == 0) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(30), waits).await.expect("the call has begun");
        handle
    }

    async fn next(&mut self) -> Result<CallResult, tokio::task::JoinError> {
        let limit = std::time::Duration::from_secs(30);
        tokio::time::timeout(limit, self.waiters.join_next()).await.expect("the call ends").expect("there is a waiter")
    }
}

#[tokio::test]
async fn equal_requests_share_one_call_and_all_get_its_outcome() {
    let mut harness = Harness::new();
    for op in 1..=20 {
        harness.join(op, key("app:1")).await;
    }
    assert_eq!(harness.started.load(Ordering::Relaxed), 1);
    let failure = Failure::permanent("CannotPullContainerError", "no");
    harness.end.take().unwrap().send(Err(OpError::Failed(failure.clone()))).unwrap();
    for _ in 1..=20 {
        assert_eq!(harness.next().await.unwrap(), Err(OpError::Failed(failure.clone())));
    }
    assert!((1..=20).all(|op| harness.pulls.progress(OpId(op)).is_none()), "no waiter is left");
    harness.join(21, key("app:1")).await;
    assert_eq!(harness.started.load(Ordering::Relaxed), 2, "a call that has ended is not joined");
}

#[tokio::test]
async fn the_first_waiter_may_leave_and_the_others_get_their_image() {
    let mut harness = Harness::new();
    let first = harness.join(1, key("app:1")).await;
    harness.join(2, key("app:1")).await;
    first.abort();
    assert!(harness.next().await.unwrap_err().is_cancelled());
    assert_eq!(harness.pulls.progress(OpId(1)), None, "it has left");
    harness.join(3, key("app:1")).await;
    harness.end.take().unwrap().send(Ok(Output::Pulled)).unwrap();
    for _ in 2..=3 {
        assert_eq!(harness.next().await.unwrap(), Ok(Output::Pulled));
    }
    assert_eq!(harness.started.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_call_ends_when_the_last_waiter_has_left() {
    let mut harness = Harness::new();
    let only = harness.join(1, key("app:1")).await;
    only.abort();
    assert!(harness.next().await.unwrap_err().is_cancelled());
    let end = harness.end.take().unwrap();
    assert!(end.is_closed(), "the call was dropped");
    harness.join(2, key("app:1")).await;
    assert_eq!(harness.started.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn different_requests_have_calls_of_their_own() {
    let ecr = |registry_id: &str| {
        let auth = RegistryAuth::Ecr(EcrAuth { registry_id: registry_id.to_owned(), ..EcrAuth::default() });
        RequestKey { image: ImageRequest { auth, ..request("app:1") }, ..key("app:1") }
    };
    let changed = |change: fn(&mut RequestKey)| {
        let mut key = key("app:1");
        change(&mut key);
        key
    };
    let keys = [
        key("app:1"),
        key("app:2"),
        changed(|key| key.step = Step::Digest),
        changed(|key| key.image.digest = Some("sha256:1".to_owned())),
        changed(|key| key.image.asks_registry = false),
        changed(|key| key.role = Some("arn:role/a".to_owned())),
        changed(|key| key.role = Some("arn:role/b".to_owned())),
        ecr("1"),
        ecr("2"),
    ];
    let mut harness = Harness::new();
    for (op, key) in (1..).zip(&keys) {
        harness.join(op, key.clone()).await;
    }
    assert_eq!(harness.started.load(Ordering::Relaxed) as usize, keys.len());
}

#[tokio::test]
async fn a_panic_is_the_outcome_of_every_waiter() {
    let pulls = Pulls::new(Arc::new(Clock::started(Timestamp::default(), None)));
    let outcome = pulls.share(OpId(1), Labels::default(), key("app:1"), None, |_, _| async { panic!("a bug") }).await;
    assert!(matches!(outcome, Err(OpError::Unknown(failure)) if failure.name == "InternalError"));
}

/// Keeps what is recorded in spans.
#[derive(Clone, Default)]
struct Recorded(Arc<Mutex<Vec<String>>>);

impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for Recorded {
    fn on_record(
        &self,
        _: &tracing::span::Id,
        values: &tracing::span::Record<'_>,
        _: tracing_subscriber::layer::Context<'_, S>,
    ) {
        struct Names<'a>(&'a mut Vec<String>);
        impl tracing::field::Visit for Names<'_> {
            fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
                self.0.push(format!("{field}={value:?}"));
            }
        }
        values.record(&mut Names(&mut lock(&self.0)));
    }
}

#[tokio::test]
async fn the_lines_of_a_call_name_its_present_waiters() {
    use tracing_subscriber::layer::SubscriberExt as _;
    let recorded = Recorded::default();
    let _guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(recorded.clone()));
    let mut harness = Harness::new();
    let first = harness.join(1, key("app:1")).await;
    harness.join(2, key("app:1")).await;
    assert_eq!(lock(&recorded.0).last().map(String::as_str), Some("task=\"task-1, task-2\""));
    first.abort();
    assert!(harness.next().await.unwrap_err().is_cancelled());
    assert_eq!(lock(&recorded.0).last().map(String::as_str), Some("task=\"task-2\""), "the first one has left");
}
