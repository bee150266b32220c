//! Pulls and look-ups of digests against a scripted daemon: attempts, rate limits, stalls, limits.

use crate::faults::{daemon, failed_pull};
use crate::settings;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::Query;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use ecs_agent::docker::{Docker, PullJob};
use ecs_core::model::waiting::{PullPhase, PullProgress};
use ecs_core::model::{OpError, RegistryCredentials, Span, Timestamp};
use ecs_testing::wait::until;
use futures_util::{StreamExt, stream};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

const LIMIT: Duration = Duration::from_secs(30);
const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

type Progress = watch::Sender<PullProgress>;

fn job<'a>(image: &'a str, digest: Option<&'a str>, progress: &'a Progress) -> PullJob<'a> {
    PullJob { image, digest, waits_for_limits: true, progress, now: &Timestamp::default }
}

async fn pull(edge: &Docker, job: &PullJob<'_>) -> Result<(), String> {
    with_failure_text(edge.pull(job, || async { Ok(RegistryCredentials::default()) }).await)
}

async fn resolve(edge: &Docker, job: &PullJob<'_>) -> Result<Option<String>, String> {
    with_failure_text(edge.resolve_manifest(job, || async { Ok(RegistryCredentials::default()) }).await)
}

fn with_failure_text<T>(outcome: Result<T, OpError>) -> Result<T, String> {
    outcome.map_err(|error| match error {
        OpError::Failed(failure) => failure.to_string(),
        OpError::Unknown(failure) => panic!("a pull never is in doubt: {failure}"),
    })
}

/// Progress lines as Docker prints them.
fn lines(lines: &[Value]) -> Bytes {
    lines.iter().map(|line| format!("{line}\r\n")).collect::<String>().into()
}

fn layer(id: &str, status: &str) -> Value {
    json!({"id": id, "status": status, "progressDetail": {}})
}

fn refusal(text: &str) -> Bytes {
    lines(&[json!({"errorDetail": {"message": text}, "error": text})])
}

fn manifest(media_type: &str) -> String {
    json!({"Descriptor": {"mediaType": media_type, "digest": DIGEST, "size": 7}, "Platforms": []}).to_string()
}

/// A handler that counts its requests and passes their number, from 0, to `answer`.
fn counted<F, R>(counter: &Arc<AtomicUsize>, answer: F) -> impl Fn() -> std::future::Ready<R> + Clone + Send + 'static
where
    F: Fn(usize) -> R + Clone + Send + 'static,
    R: Send + 'static,
{
    let counter = counter.clone();
    move || std::future::ready(answer(counter.fetch_add(1, Ordering::Relaxed)))
}

#[tokio::test]
async fn a_limit_of_the_registry_is_waited_for_as_long_as_it_says() {
    let (pulls, lookups) = (Arc::default(), Arc::default());
    let text = "toomanyrequests: retry-after: 1.2s, allowed: 44000/minute";
    let create = counted(&pulls, move |number| if number == 0 { refusal(text) } else { lines(&[]) });
    let distribution = counted(&lookups, move |number| {
        if number == 0 {
            (StatusCode::TOO_MANY_REQUESTS, json!({"message": text}).to_string())
        } else {
            (StatusCode::OK, manifest("application/vnd.oci.image.manifest.v1+json"))
        }
    });
    let routes =
        Router::new().route("/images/create", post(create)).route("/distribution/{name}/json", get(distribution));
    let mut tasks = JoinSet::new();
    let mut limits = settings(&daemon(&mut tasks, routes).await, "c");
    limits.manifest_timeout = Span::millis(900); // the wait is not part of it
    let edge = Docker::connect(limits).await.unwrap();
    let (shown, looked) = (Progress::default(), Progress::default());
    let limited = async |progress: &Progress| {
        let mut progress = progress.subscribe();
        let seen = progress.wait_for(|shown| shown.phase == PullPhase::RateLimited && shown.limit_ends.is_some());
        tokio::time::timeout(LIMIT, seen).await.unwrap().unwrap().clone()
    };
    let (pull_job, look_job) = (job("app", None, &shown), job("app", None, &looked));
    let (pulled, seen, digest, looked_up) =
        tokio::join!(pull(&edge, &pull_job), limited(&shown), resolve(&edge, &look_job), limited(&looked));
    assert_eq!((pulled, digest), (Ok(()), Ok(Some(DIGEST.to_owned()))));
    for progress in [&seen, &looked_up] {
        assert!(progress.failure.as_ref().unwrap().contains(text), "{progress:?}");
        let (next, end) = (progress.next_try.unwrap(), progress.limit_ends.unwrap());
        assert!(next >= end - Span::millis(10), "not before the limit ends: {progress:?}");
    }
    assert_eq!(shown.borrow().attempt, 2);
    assert_eq!((pulls.load(Ordering::Relaxed), lookups.load(Ordering::Relaxed)), (2, 2));
}

#[tokio::test]
async fn everything_else_is_tried_as_often_as_the_go_agent_does() {
    let (pulls, lookups, impatient) = (Arc::default(), Arc::default(), Arc::default());
    let create = counted(&pulls, |_| refusal("manifest for app not found"));
    let distribution =
        counted(&lookups, |_| (StatusCode::INTERNAL_SERVER_ERROR, json!({"message": "odd"}).to_string()));
    let limited = counted(&impatient, |_| (StatusCode::TOO_MANY_REQUESTS, r#"{"message": "toomanyrequests"}"#));
    let routes = Router::new()
        .route("/images/create", post(create))
        .route("/distribution/app:latest/json", get(distribution))
        .route("/distribution/cached:latest/json", get(limited));
    let mut tasks = JoinSet::new();
    let edge = Docker::connect(settings(&daemon(&mut tasks, routes).await, "c")).await.unwrap();
    let progress = [(); 3].map(|()| Progress::default());
    let cached = PullJob {
        image: "cached",
        digest: None,
        waits_for_limits: false,
        progress: &progress[2],
        now: &Timestamp::default,
    };
    let (pull_job, look_job) = (job("app", None, &progress[0]), job("app", None, &progress[1]));
    let started = tokio::time::Instant::now();
    let (pulled, digest, impatiently) =
        tokio::join!(pull(&edge, &pull_job), resolve(&edge, &look_job), resolve(&edge, &cached));
    assert_eq!(pulled.unwrap_err(), "CannotPullContainerError: manifest for app not found");
    assert_eq!(digest.unwrap_err(), "CannotPullImageManifestError: Error response from daemon: odd");
    let text = "CannotPullImageManifestError: Error response from daemon: toomanyrequests";
    assert_eq!(impatiently.unwrap_err(), text, "where a local image serves, a limit is a failure like any other");
    let counts = [&pulls, &lookups, &impatient].map(|count| count.load(Ordering::Relaxed));
    assert_eq!(counts, [5, 9, 9]);
    assert!(started.elapsed() < Duration::from_secs(25), "{:?}", started.elapsed());
    assert_eq!(progress[0].borrow().attempt, 5);
}

#[tokio::test]
async fn a_digest_is_asked_for_only_where_it_can_be_used() {
    let table = [
        ("1.34", "application/vnd.oci.image.manifest.v1+json", None, 0),
        ("1.35", "application/vnd.oci.image.manifest.v1+json", Some(DIGEST), 1),
        ("1.41", "application/vnd.docker.distribution.manifest.v2+json", Some(DIGEST), 1),
        ("1.41", "application/vnd.docker.distribution.manifest.v1+json", None, 1),
        ("1.41", "application/vnd.docker.distribution.manifest.v1+prettyjws", None, 1),
    ];
    for (version, media_type, wanted, calls) in table {
        let count = Arc::default();
        let answer = counted(&count, move |_| manifest(media_type));
        let version_text = json!({"ApiVersion": version, "MinAPIVersion": "1.12", "Version": "x"}).to_string();
        let routes = Router::new().route("/distribution/app:1/json", get(answer));
        let app = Router::new()
            .route("/version", get(async move || version_text))
            .nest("/v1.21", routes.clone())
            .nest(&format!("/v{version}"), routes);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("tcp://{}", listener.local_addr().unwrap());
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { axum::serve(listener, app).await.unwrap() });
        let edge = Docker::connect(settings(&endpoint, "c")).await.unwrap();
        let progress = Progress::default();
        let digest = resolve(&edge, &job("app:1", None, &progress)).await.unwrap();
        assert_eq!((digest.as_deref(), count.load(Ordering::Relaxed)), (wanted, calls), "{version} {media_type}");
        let by_digest = format!("app@{DIGEST}");
        let digest = resolve(&edge, &job(&by_digest, None, &progress)).await.unwrap();
        assert_eq!(digest.as_deref(), Some(DIGEST));
        assert_eq!(count.load(Ordering::Relaxed), calls, "a reference by digest needs no call");
    }
}

#[tokio::test]
async fn a_registry_that_hangs_is_left_when_the_time_is_over() {
    let hang = get(async || std::future::pending::<()>().await);
    let mut tasks = JoinSet::new();
    let routes = Router::new().route("/distribution/{name}/json", hang);
    let mut limits = settings(&daemon(&mut tasks, routes).await, "c");
    limits.manifest_timeout = Span::millis(300);
    let edge = Docker::connect(limits).await.unwrap();
    let text = resolve(&edge, &job("app", None, &Progress::default())).await.unwrap_err();
    let start = "DockerTimeoutError: Could not transition to MANIFEST_PULLED; timed out after waiting 3";
    assert!(text.starts_with(start) && text.ends_with("ms"), "{text}");
}

/// Pulls from a daemon that sends no progress line, and not even a head unless `head`. Returns the outcome, the number of
/// requests and the time.
async fn pull_without_a_line(head: bool) -> (Result<(), String>, usize, Duration) {
    let requests = Arc::new(AtomicUsize::new(0));
    let counter = requests.clone();
    let create = async move || -> Response {
        counter.fetch_add(1, Ordering::Relaxed);
        if !head {
            std::future::pending::<()>().await;
        }
        Body::from_stream(stream::pending::<Result<Bytes, std::io::Error>>()).into_response()
    };
    let mut tasks = JoinSet::new();
    let mut limits = settings(&daemon(&mut tasks, Router::new().route("/images/create", post(create))).await, "c");
    limits.limits.pull_begin = Duration::from_millis(250);
    let edge = Docker::connect(limits).await.unwrap();
    let started = tokio::time::Instant::now();
    let outcome = pull(&edge, &job("app", None, &Progress::default())).await;
    (outcome, requests.load(Ordering::Relaxed), started.elapsed())
}

#[tokio::test]
async fn a_pull_without_a_line_ends_at_pull_begin() {
    let text = "DockerTimeoutError: Could not transition to pullBegin; timed out after waiting 250ms";
    let (silent, headed) = tokio::join!(pull_without_a_line(false), pull_without_a_line(true));
    for (outcome, requests, took) in [silent, headed] {
        assert_eq!((outcome, requests), (Err(text.to_owned()), 5), "tried five times, and without a hint");
        assert!(took < LIMIT, "not the 60 seconds of a pull that stands still: {took:?}");
    }
}

#[tokio::test]
async fn what_is_pulled_by_digest_gets_its_name_within_five_tries() {
    let pulled = async |Query(query): Query<BTreeMap<String, String>>| {
        assert_eq!(query["fromImage"], format!("r.io/app@{DIGEST}"));
        lines(&[])
    };
    for (failures, wanted) in [(0, Ok(())), (4, Ok(())), (5, Err(()))] {
        let tags = Arc::default();
        let tag = counted(&tags, move |number| {
            if number < failures {
                return (StatusCode::INTERNAL_SERVER_ERROR, r#"{"message": "busy"}"#).into_response();
            }
            StatusCode::CREATED.into_response()
        });
        let routes = Router::new()
            .route("/images/create", post(pulled))
            .route(&format!("/images/r.io/app@{DIGEST}/tag"), post(tag));
        let mut tasks = JoinSet::new();
        let edge = Docker::connect(settings(&daemon(&mut tasks, routes).await, "c")).await.unwrap();
        let outcome = pull(&edge, &job("r.io/app:1", Some(DIGEST), &Progress::default())).await;
        assert_eq!(tags.load(Ordering::Relaxed), (failures + 1).min(5));
        let text = format!(
            "CannotPullContainerError: failed to tag image 'r.io/app@{DIGEST}' as 'r.io/app:1': Error response from daemon: busy"
        );
        assert_eq!(outcome, wanted.map_err(|()| text));
    }
}

/// Pulls an image whose only layer waits for its turn at the daemon; if `other_moves`, another image is fetched slowly at the
/// same time. Returns the number of attempts and the outcome.
async fn wait_beside(other_moves: bool) -> (usize, Result<(), String>) {
    let attempts = Arc::new(AtomicUsize::new(0));
    let counter = attempts.clone();
    let create = async move |Query(query): Query<BTreeMap<String, String>>| -> Response {
        let tick = Duration::from_millis(50);
        if query["fromImage"] == "large:latest" {
            let ticks = stream::unfold(0, move |number| async move {
                tokio::time::sleep(tick).await;
                let line =
                    json!({"id": "a", "status": "Downloading", "progressDetail": {"current": number, "total": 30}});
                (number < 30).then(|| (Ok::<_, std::io::Error>(lines(&[line])), number + 1))
            });
            return Body::from_stream(ticks).into_response();
        }
        counter.fetch_add(1, Ordering::Relaxed);
        let first =
            lines(&[layer("latest", "Pulling from small"), layer("b", "Pulling fs layer"), layer("b", "Waiting")]);
        let turn = stream::once(async move {
            tokio::time::sleep(20 * tick).await;
            Ok(lines(&[layer("b", "Pull complete")]))
        });
        Body::from_stream(stream::iter([Ok::<_, std::io::Error>(first)]).chain(turn)).into_response()
    };
    let mut tasks = JoinSet::new();
    let mut limits = settings(&daemon(&mut tasks, Router::new().route("/images/create", post(create))).await, "c");
    (limits.pull_inactivity, limits.pull_timeout) = (Span::millis(400), Span::millis(1900));
    let edge = Docker::connect(limits).await.unwrap();
    let (shown, other) = (Progress::default(), Progress::default());
    let (small, large) = (job("small", None, &shown), job("large", None, &other));
    let beside = async {
        if other_moves {
            pull(&edge, &large).await.unwrap();
        }
    };
    let (outcome, ()) = tokio::join!(pull(&edge, &small), beside);
    (attempts.load(Ordering::Relaxed), outcome)
}

#[tokio::test]
async fn a_pull_that_waits_for_another_s_layers_does_not_stand_still() {
    assert_eq!(wait_beside(true).await, (1, Ok(())));
    let (attempts, alone) = wait_beside(false).await;
    assert!(alone.is_err() && attempts >= 1, "silence while nothing else moves is a stand-still: {attempts} {alone:?}");
}

/// Pulls an image whose only layer is last said to be in this state, again and again if `repeats`, for a second. Returns the number of
/// attempts and the outcome.
async fn stand_still(status: &'static str, repeats: bool) -> (usize, Result<(), String>) {
    let attempts = Arc::new(AtomicUsize::new(0));
    let counter = attempts.clone();
    let create = async move || -> Response {
        counter.fetch_add(1, Ordering::Relaxed);
        let ticks = stream::unfold(0, move |number| async move {
            tokio::time::sleep(Duration::from_millis(50)).await;
            let line = json!({"id": "a", "status": status, "progressDetail": {"current": 7, "total": 9}});
            let line = match number {
                // The first line of every pull, with the tag in the place of a layer's id.
                0 => lines(&[layer("latest", "Pulling from app"), line]),
                _ if repeats => lines(&[line]),
                _ => Bytes::new(),
            };
            (number < 20).then(|| (Ok::<_, std::io::Error>(line), number + 1))
        });
        Body::from_stream(ticks).into_response()
    };
    let mut tasks = JoinSet::new();
    let mut limits = settings(&daemon(&mut tasks, Router::new().route("/images/create", post(create))).await, "c");
    (limits.pull_inactivity, limits.pull_timeout) = (Span::millis(300), Span::secs(60));
    let edge = Docker::connect(limits).await.unwrap();
    let outcome = pull(&edge, &job("app", None, &Progress::default())).await;
    (attempts.load(Ordering::Relaxed), outcome)
}

/// The daemon repeats the state of each layer with the containerd image store, even if no byte arrives.
#[tokio::test]
async fn a_download_that_only_repeats_itself_stands_still() {
    let stalled = "CannotPullContainerError: inactivity time exceeded timeout while pulling image";
    let (repeated, silent) = tokio::join!(stand_still("Downloading", true), stand_still("Downloading", false));
    assert_eq!([repeated, silent], [(5, Err(stalled.to_owned())), (5, Err(stalled.to_owned()))]);
}

/// With the containerd image store, engines before 28 are silent while they unpack.
#[tokio::test]
async fn unpacking_what_is_fetched_is_no_stand_still() {
    assert_eq!(stand_still("Download complete", false).await, (1, Ok(())));
}

#[tokio::test]
async fn at_most_eight_pulls_run_and_the_others_are_shown_as_queued() {
    const PULLS: usize = 8;
    let (running, gate) = (Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(0)));
    let (counter, held) = (running.clone(), gate.clone());
    let create = async move || {
        counter.fetch_add(1, Ordering::Relaxed);
        held.acquire().await.unwrap().forget();
        lines(&[])
    };
    let mut tasks = JoinSet::new();
    let routes = Router::new().route("/images/create", post(create));
    let edge = Arc::new(Docker::connect(settings(&daemon(&mut tasks, routes).await, "c")).await.unwrap());
    let progress: Vec<Arc<Progress>> = (0..PULLS + 3).map(|_| Arc::default()).collect();
    let mut pulls = JoinSet::new();
    for (number, progress) in progress.iter().cloned().enumerate() {
        let (edge, image) = (edge.clone(), format!("app-{number}"));
        pulls.spawn(async move { pull(&edge, &job(&image, None, &progress)).await });
    }
    let phases = |phase| progress.iter().filter(|progress| progress.borrow().phase == phase).count();
    until("eight pulls", LIMIT, async || (running.load(Ordering::Relaxed) == PULLS).then_some(())).await;
    assert_eq!((phases(PullPhase::Asking), phases(PullPhase::Queued)), (PULLS, 3));
    gate.add_permits(1);
    until("the next", LIMIT, async || (running.load(Ordering::Relaxed) == PULLS + 1).then_some(())).await;
    gate.add_permits(PULLS + 2);
    while let Some(pulled) = pulls.join_next().await {
        assert_eq!(pulled.unwrap(), Ok(()));
    }
    assert_eq!(running.load(Ordering::Relaxed), PULLS + 3);
}

#[tokio::test]
async fn a_daemon_that_babbles_fails_the_attempt() {
    let attempts = Arc::default();
    let create = counted(&attempts, |number| match number {
        0 => Bytes::from_static(b"{\"status\": \"Pulling\"}\r\n<html>502 Bad Gateway</html>\r\n"),
        _ => lines(&[json!({"status": "Status: Image is up to date"})]),
    });
    let mut tasks = JoinSet::new();
    let routes = Router::new().route("/images/create", post(create));
    let edge = Docker::connect(settings(&daemon(&mut tasks, routes).await, "c")).await.unwrap();
    let progress = Progress::default();
    assert_eq!(pull(&edge, &job("app", None, &progress)).await, Ok(()));
    assert_eq!(attempts.load(Ordering::Relaxed), 2);
    assert!(progress.borrow().failure.is_some(), "why the first failed is still shown");
}

#[tokio::test]
async fn the_limit_of_the_whole_ends_also_a_wait_for_the_registry() {
    let routes = Router::new().route("/images/create", post(async || refusal("toomanyrequests: slow down")));
    let mut tasks = JoinSet::new();
    let mut limits = settings(&daemon(&mut tasks, routes).await, "c");
    limits.pull_timeout = Span::secs(2);
    let edge = Docker::connect(limits).await.unwrap();
    let progress = Progress::default();
    let failure = failed_pull(&edge, &progress).await;
    assert_eq!(failure.to_string(), "DockerTimeoutError: Could not transition to pulled; timed out after waiting 2s");
    let reason = progress.borrow().failure.clone().unwrap();
    assert_eq!(reason, "CannotPullContainerError: toomanyrequests: slow down");
}
