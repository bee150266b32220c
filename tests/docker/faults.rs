//! A scripted daemon for cases that are rare with a real one: it hangs, breaks off, or uses unknown words.

use crate::{request, settings};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::{get, post};
use ecs_agent::docker::{Docker, DockerError, Notice, PullJob};
use ecs_core::model::waiting::PullProgress;
use ecs_core::model::{Failure, OpError, RegistryCredentials, RunState, SecretValues, Span, Timestamp};
use ecs_testing::wait::until;
use futures_util::{StreamExt, stream};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;

const LIMIT: Duration = Duration::from_secs(30);

fn labels(name: &str) -> Value {
    json!({
        "com.amazonaws.ecs.task-arn": "t", "com.amazonaws.ecs.cluster": "c", "com.amazonaws.ecs.container-name": name,
    })
}

fn inspect(name: &str, state: Value) -> Value {
    json!({"Id": name, "Name": format!("/{name}"), "Image": "sha256:1", "Config": {"Labels": labels(name)}, "State": state})
}

/// Serves `routes` below both API versions in use, and returns the endpoint. The server ends when `tasks` is dropped.
pub(crate) async fn daemon(tasks: &mut JoinSet<()>, routes: Router) -> String {
    let version = json!({"Version": "99", "ApiVersion": "1.41", "MinAPIVersion": "1.12"}).to_string();
    let app =
        Router::new().route("/version", get(async || version)).nest("/v1.41", routes.clone()).nest("/v1.21", routes);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("tcp://{}", listener.local_addr().unwrap());
    tasks.spawn(async move { axum::serve(listener, app).await.unwrap() });
    endpoint
}

#[tokio::test]
async fn one_broken_container_does_not_hide_the_others() {
    let list = json!([
        {"Id": "good", "Names": ["/good"], "State": "running", "Status": "Up", "Labels": labels("good")},
        {"Id": "bad", "Names": ["/bad"], "State": "exited", "Status": "Exited (4) 1 second ago", "Labels": labels("bad")},
        {"Id": "gone", "Names": ["/gone"], "State": "removing", "Status": "", "Labels": labels("gone")},
        {"Id": "new", "Names": ["/new"], "State": "hibernating", "Status": "?", "Labels": labels("new")},
        7,
    ]);
    let inspect_one = async |Path(id): Path<String>| match id.as_str() {
        "good" => inspect("good", json!({"Running": true})).to_string().into_response(),
        "bad" => (StatusCode::INTERNAL_SERVER_ERROR, r#"{"message": "layer lost"}"#).into_response(),
        "new" => inspect("new", json!({"Status": "hibernating", "Running": true, "Health": {"Status": "odd"}}))
            .to_string()
            .into_response(),
        _ => (StatusCode::NOT_FOUND, r#"{"message": "No such container"}"#).into_response(),
    };
    let routes = Router::new()
        .route("/containers/json", get(async move || list.to_string()))
        .route("/containers/{id}/json", get(inspect_one));
    let mut tasks = JoinSet::new();
    let edge = Docker::connect(settings(&daemon(&mut tasks, routes).await, "c")).await.unwrap();
    let mut seen: Vec<_> =
        edge.inventory().await.unwrap().into_iter().map(|o| (o.runtime_name, o.state, o.exit_code)).collect();
    seen.sort();
    let wanted = [
        ("bad".to_owned(), RunState::Exited, Some(4)),
        ("good".to_owned(), RunState::Running, None),
        ("new".to_owned(), RunState::Running, None),
    ];
    assert_eq!(seen, wanted);
}

#[tokio::test]
async fn no_answer_to_a_change_leaves_its_outcome_unknown() {
    let hang = post(async || std::future::pending::<()>().await);
    let routes = Router::new()
        .route("/containers/create", hang.clone())
        .route("/containers/{id}/start", post(async || StatusCode::NO_CONTENT))
        .route("/containers/{id}/stop", post(async || StatusCode::NO_CONTENT))
        .route("/containers/{id}/json", get(async || (StatusCode::INTERNAL_SERVER_ERROR, "{}")))
        .route("/images/{id}/json", get(async || (StatusCode::NOT_FOUND, "{}")));
    let mut tasks = JoinSet::new();
    let mut limits = settings(&daemon(&mut tasks, routes).await, "c");
    limits.create_timeout = Span::millis(250);
    let edge = Docker::connect(limits).await.unwrap();
    let edge = Arc::new(edge);
    let (there, main) = (Arc::clone(&edge), request("c", "main", "app", &["true"], json!({})));
    let mut creates = JoinSet::new();
    creates.spawn(async move { there.create(&main, &SecretValues::default()).await });
    let Err(OpError::Unknown(failure)) = creates.join_next().await.unwrap().unwrap() else {
        panic!("a create that timed out may still happen")
    };
    let text = "DockerTimeoutError: Could not transition to created; timed out after waiting 250ms";
    assert_eq!(failure.to_string(), text);
    let Err(OpError::Unknown(started)) = edge.start("main").await else { panic!("it was started and cannot be seen") };
    let Err(OpError::Unknown(stopped)) = edge.stop("main", Span::secs(1)).await else { panic!("it was stopped") };
    for failure in [started, stopped] {
        let text = failure.to_string();
        assert!(text.starts_with("CannotInspectContainerError: Error response from daemon: "), "{text}");
    }
}

#[tokio::test]
async fn a_name_taken_by_a_create_that_still_runs_is_not_a_failure() {
    let conflict = r#"{"message": "Conflict. The container name \"/c-main\" is already in use by container \"1\"."}"#;
    let routes = Router::new()
        .route("/containers/create", post(async move || (StatusCode::CONFLICT, conflict)))
        .route("/containers/{id}/json", get(async || (StatusCode::NOT_FOUND, r#"{"message": "No such container"}"#)))
        .route("/images/{id}/json", get(async || r#"{"Id": "sha256:1"}"#));
    let mut tasks = JoinSet::new();
    let edge = Docker::connect(settings(&daemon(&mut tasks, routes).await, "c")).await.unwrap();
    let Err(OpError::Unknown(failure)) =
        edge.create(&request("c", "main", "app", &["true"], json!({})), &SecretValues::default()).await
    else {
        panic!("the earlier create may still succeed")
    };
    assert!(failure.to_string().starts_with("CannotCreateContainerError: Error response from daemon: Conflict."));
}

/// Pulls `app`, waiting for rate limits, and returns the failure.
pub(crate) async fn failed_pull(edge: &Docker, progress: &watch::Sender<PullProgress>) -> Failure {
    let job = PullJob { image: "app", digest: None, waits_for_limits: true, progress, now: &Timestamp::default };
    match edge.pull(&job, || async { Ok(RegistryCredentials::default()) }).await {
        Err(OpError::Failed(failure)) => failure,
        other => panic!("it cannot succeed: {other:?}"),
    }
}

#[tokio::test]
async fn a_pull_that_stands_still_is_tried_again_and_ends() {
    let attempts = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&attempts);
    let stall = post(async move || {
        counted.fetch_add(1, Ordering::Relaxed);
        let line = Bytes::from_static(b"{\"status\": \"Pulling\"}\r\n");
        let progress = stream::iter([Ok::<_, std::io::Error>(line)]).chain(stream::pending());
        Body::from_stream(progress)
    });
    let mut tasks = JoinSet::new();
    let mut limits = settings(&daemon(&mut tasks, Router::new().route("/images/create", stall)).await, "c");
    (limits.pull_inactivity, limits.pull_timeout) = (Span::millis(50), Span::secs(3));
    let edge = Docker::connect(limits).await.unwrap();
    let failure = failed_pull(&edge, &watch::Sender::default()).await;
    let text = "DockerTimeoutError: Could not transition to pulled; timed out after waiting 3s";
    assert_eq!(failure.to_string(), text);
    assert_eq!(attempts.load(Ordering::Relaxed), 2, "1.1 s to 1.3 s after the first, the third would come too late");
}

#[tokio::test]
async fn an_error_within_the_progress_fails_the_pull() {
    let line = concat!(
        "{\"status\": \"Pulling\"}\r\n",
        "{\"error\": \"x\", \"errorDetail\": {\"message\": \"Get \\\"https://p-starport-layer-bucket.s3/k?sig=s\\\": denied\"}}\r\n",
    );
    let mut tasks = JoinSet::new();
    let routes = Router::new().route("/images/create", post(async move || line));
    let edge = Docker::connect(settings(&daemon(&mut tasks, routes).await, "c")).await.unwrap();
    let failure = failed_pull(&edge, &watch::Sender::default()).await;
    let text = "CannotPullContainerError: Get REDACTED ECR URL related to app denied";
    assert_eq!(failure.to_string(), text);
}

#[tokio::test]
async fn the_event_stream_is_opened_again_and_says_so() {
    let opened = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&opened);
    let events = get(async move |axum::extract::RawQuery(query): axum::extract::RawQuery| {
        let number = count.fetch_add(1, Ordering::Relaxed);
        let query = query.unwrap_or_default();
        // The second request asks for all events since the last one that was seen.
        assert!(number == 0 || query.contains("since=7.000000009&"), "{query}");
        let event =
            json!({"Type": "container", "Action": "start", "timeNano": 7_000_000_009_u64, "Actor": {"ID": "good"}});
        let odd = json!({"Type": "hologram", "Action": "start", "Actor": {"ID": "odd"}});
        let text = format!("{odd}\nnonsense\n{event}\n");
        let ends = stream::iter([Ok::<_, std::io::Error>(Bytes::from(text))]);
        if number == 0 { Body::from_stream(ends) } else { Body::from_stream(ends.chain(stream::pending())) }
    });
    let inspect_one = get(async || inspect("good", json!({"Running": true})).to_string());
    let mut tasks = JoinSet::new();
    let routes = Router::new().route("/events", events).route("/containers/{id}/json", inspect_one);
    let edge = Docker::connect(settings(&daemon(&mut tasks, routes).await, "c")).await.unwrap();
    let (sender, mut notices) = tokio::sync::mpsc::channel(1);
    let story = async {
        let mut gaps = 0;
        let mut seen = 0;
        until("both openings and their events", LIMIT, async || {
            match tokio::time::timeout(Duration::from_millis(100), notices.recv()).await {
                Ok(Some(Notice::EventsMissed)) => gaps += 1,
                Ok(Some(Notice::Seen(what))) => {
                    assert_eq!(what.runtime_id.as_str(), "good");
                    seen += 1;
                }
                Ok(Some(Notice::Removed { .. }) | None) => panic!("nothing was removed"),
                Err(_) => {}
            }
            (gaps == 2 && seen == 2).then_some(())
        })
        .await;
        drop(notices);
    };
    tasks.spawn(async move { edge.watch(sender).await });
    story.await;
    assert_eq!(opened.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn a_daemon_without_a_common_version_is_refused() {
    let app = Router::new().route("/version", get(async || r#"{"ApiVersion": "2.0", "MinAPIVersion": "2.0"}"#));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("tcp://{}", listener.local_addr().unwrap());
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { axum::serve(listener, app).await.unwrap() });
    assert!(matches!(Docker::connect(settings(&endpoint, "c")).await, Err(DockerError::NoVersion(_))));
}
