//! Flights without a Docker: who boards which, who may leave, and what everybody hears.

use super::*;
use crate::model::task::EcrAuth;
use std::sync::atomic::{AtomicU32, Ordering};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

fn request(image: &str) -> ImageRequest {
    ImageRequest {
        image: image.to_owned(),
        digest: None,
        auth: RegistryAuth::Engine,
        execution_credentials: None,
        fresh: true,
        cached_serves: true,
        looks_after_failure: false,
    }
}

fn route(image: &str) -> Route {
    Route { step: Step::Pull, image: request(image), role: None }
}

/// Pulls, how many calls began, and the end of the first of them.
struct Airport {
    pulls: Pulls,
    begun: Arc<AtomicU32>,
    end: Option<oneshot::Sender<Landing>>,
    waiting: Option<oneshot::Receiver<Landing>>,
    passengers: JoinSet<Landing>,
}

impl Airport {
    fn new() -> Self {
        let (end, waiting) = oneshot::channel();
        Self {
            pulls: Pulls::new(Arc::new(Clock::started(Timestamp::default(), None))),
            begun: Arc::default(),
            end: Some(end),
            waiting: Some(waiting),
            passengers: JoinSet::new(),
        }
    }

    /// One more who wants that; returns once it waits.
    async fn board(&mut self, op: u64, route: Route) -> tokio::task::AbortHandle {
        let (pulls, begun, waiting) = (self.pulls.clone(), self.begun.clone(), self.waiting.take());
        let handle = self.passengers.spawn(async move {
            let start = |shown: watch::Sender<PullProgress>, _| async move {
                begun.fetch_add(1, Ordering::Relaxed);
                shown.send_modify(|shown| shown.attempt = 1);
                match waiting {
                    Some(waiting) => waiting.await.expect("the test ends it"),
                    None => std::future::pending().await,
                }
            };
            pulls.board(OpId(op), route, None, start).await
        });
        let pulls = self.pulls.clone();
        let waits = async {
            while pulls.progress(OpId(op)).is_none_or(|progress| progress.attempt == 0) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(30), waits).await.expect("it boards");
        handle
    }

    async fn next(&mut self) -> Result<Landing, tokio::task::JoinError> {
        let limit = std::time::Duration::from_secs(30);
        tokio::time::timeout(limit, self.passengers.join_next()).await.expect("it lands").expect("somebody is aboard")
    }
}

#[tokio::test]
async fn who_wants_the_same_shares_one_call_and_everybody_hears_its_outcome() {
    let mut airport = Airport::new();
    for op in 1..=20 {
        airport.board(op, route("app:1")).await;
    }
    assert_eq!(airport.begun.load(Ordering::Relaxed), 1);
    let failure = Failure::permanent("CannotPullContainerError", "no");
    airport.end.take().unwrap().send(Err(OpError::Failed(failure.clone()))).unwrap();
    for _ in 1..=20 {
        assert_eq!(airport.next().await.unwrap(), Err(OpError::Failed(failure.clone())));
    }
    assert!((1..=20).all(|op| airport.pulls.progress(OpId(op)).is_none()), "nobody waits any more");
    airport.board(21, route("app:1")).await;
    assert_eq!(airport.begun.load(Ordering::Relaxed), 2, "what has ended is not boarded");
}

#[tokio::test]
async fn the_first_may_leave_and_the_others_still_get_their_image() {
    let mut airport = Airport::new();
    let first = airport.board(1, route("app:1")).await;
    airport.board(2, route("app:1")).await;
    first.abort();
    assert!(airport.next().await.unwrap_err().is_cancelled());
    assert_eq!(airport.pulls.progress(OpId(1)), None, "it is not aboard any more");
    airport.board(3, route("app:1")).await;
    airport.end.take().unwrap().send(Ok(Output::Pulled)).unwrap();
    for _ in 2..=3 {
        assert_eq!(airport.next().await.unwrap(), Ok(Output::Pulled));
    }
    assert_eq!(airport.begun.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_call_ends_when_the_last_has_left() {
    let mut airport = Airport::new();
    let only = airport.board(1, route("app:1")).await;
    only.abort();
    assert!(airport.next().await.unwrap_err().is_cancelled());
    let end = airport.end.take().unwrap();
    assert!(end.is_closed(), "the call was let go");
    airport.board(2, route("app:1")).await;
    assert_eq!(airport.begun.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn what_differs_in_anything_is_a_call_of_its_own() {
    let ecr = |registry_id: &str| {
        let auth = RegistryAuth::Ecr(EcrAuth { registry_id: registry_id.to_owned(), ..EcrAuth::default() });
        Route { image: ImageRequest { auth, ..request("app:1") }, ..route("app:1") }
    };
    let of = |change: fn(&mut Route)| {
        let mut route = route("app:1");
        change(&mut route);
        route
    };
    let routes = [
        route("app:1"),
        route("app:2"),
        of(|route| route.step = Step::Digest),
        of(|route| route.image.digest = Some("sha256:1".to_owned())),
        of(|route| route.image.fresh = false),
        of(|route| route.role = Some("arn:role/a".to_owned())),
        of(|route| route.role = Some("arn:role/b".to_owned())),
        ecr("1"),
        ecr("2"),
    ];
    let mut airport = Airport::new();
    for (op, route) in (1..).zip(&routes) {
        airport.board(op, route.clone()).await;
    }
    assert_eq!(airport.begun.load(Ordering::Relaxed) as usize, routes.len());
}

#[tokio::test]
async fn a_panic_is_everybody_s_outcome() {
    let pulls = Pulls::new(Arc::new(Clock::started(Timestamp::default(), None)));
    let landing = pulls.board(OpId(1), route("app:1"), None, |_, _| async { panic!("a bug") }).await;
    assert!(matches!(landing, Err(OpError::Unknown(failure)) if failure.name == "InternalError"));
}
