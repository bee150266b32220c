//! Batches, refusals, pauses and losses, against a scripted collector.

use super::super::outbox::MAX_WAITING;
use super::*;
use crate::aws::tests::fake::{Answer, Fake};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::task::JoinSet;

fn span(number: u64) -> Span {
    Span {
        trace: [1; 16],
        id: (number + 1).to_be_bytes(),
        parent: None,
        name: "pull",
        start_millis: number,
        end_millis: number + 1,
        error: None,
        attributes: Vec::new(),
    }
}

fn settings(url: &str) -> Settings {
    Settings {
        url: url.parse().unwrap(),
        headers: vec![("api-key".to_owned(), "hunter2".into())],
        limit: Duration::from_millis(500),
        resource: Vec::new(),
        version: "1".to_owned(),
        proxy: ProxySettings::default(),
    }
}

struct Rig {
    outbox: Outbox,
    stop: CancellationToken,
    running: JoinSet<()>,
}

fn start(url: &str) -> Rig {
    let outbox = Outbox::default();
    let exporter = Exporter::new(settings(url), outbox.clone()).unwrap();
    let (stop, mut running) = (CancellationToken::new(), JoinSet::new());
    let stopped = stop.clone();
    running.spawn(async move { exporter.run(stopped).await });
    Rig { outbox, stop, running }
}

/// Waits, in real time.
async fn until(what: &str, is_done: impl Fn() -> bool) {
    for _ in 0..1_500 {
        if is_done() {
            return;
        }
        sleep(Duration::from_millis(20)).await;
    }
    panic!("{what} does not come");
}

fn spans_in(request: &crate::aws::tests::fake::Request) -> usize {
    request.json()["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().unwrap().len()
}

#[tokio::test]
async fn spans_that_come_together_are_sent_together() {
    let collector = Fake::start(|_| Answer::text(200, "{}")).await;
    let mut rig = start(&format!("{}/v1/traces", collector.url()));
    rig.outbox.push(vec![span(0), span(1)]);
    rig.outbox.push(vec![span(2)]);
    until("a request", || !collector.requests().is_empty()).await;
    let request = collector.requests().remove(0);
    assert_eq!((request.method.as_str(), request.path.as_str(), spans_in(&request)), ("POST", "/v1/traces", 3));
    assert_eq!(request.header("api-key"), Some("hunter2"));
    assert_eq!(request.header("content-type"), Some("application/json"));
    // What waits when the agent stops is sent too.
    rig.outbox.push(vec![span(3)]);
    rig.stop.cancel();
    rig.running.join_next().await.unwrap().unwrap();
    assert_eq!((collector.requests().len(), rig.outbox.dropped()), (2, 0));
}

#[tokio::test]
async fn only_some_refusals_are_tried_again() {
    for (status, attempts) in [(429, 2), (502, 2), (503, 2), (504, 2), (400, 1), (401, 1), (500, 1), (302, 1)] {
        let collector = Fake::start(move |request| match request.number {
            0 => Answer::text(status, "hunter2 is no key").with("retry-after", "0"),
            _ => Answer::text(200, ""),
        })
        .await;
        let exporter = Exporter::new(settings(&collector.url()), Outbox::default()).unwrap();
        let mut losses = Losses { logged_at: None, logged: 0, is_failing: false };
        exporter.send(&[span(0)], &mut losses).await;
        assert_eq!(collector.requests().len(), attempts, "{status}");
        assert_eq!(exporter.outbox.dropped(), u64::from(attempts == 1), "{status}");
    }
}

#[tokio::test]
async fn an_answer_that_repeats_a_header_is_not_shown() {
    let collector = Fake::start(|request| match request.number {
        0 => Answer::text(401, "hunter2 is no key"),
        1 => Answer::text(400, "no\nspans"),
        2 => Answer::text(403, "t0kens-are-secret has expired"),
        3 => Answer::text(200, r#"{"partialSuccess":{"rejectedSpans":"1","errorMessage":"not with hunter2"}}"#),
        _ => Answer::text(200, r#"{"partialSuccess":{"rejectedSpans":"1","errorMessage":"too old"}}"#),
    })
    .await;
    let mut settings = settings(&collector.url());
    settings.headers.push(("authorization".to_owned(), "Bearer t0kens-are-secret".into()));
    let exporter = Exporter::new(settings, Outbox::default()).unwrap();
    for wanted in [
        "127.0.0.1: HTTP 401: [not shown]",
        "127.0.0.1: HTTP 400: no spans",
        "127.0.0.1: HTTP 403: [not shown]",
        "127.0.0.1: [not shown]",
        "127.0.0.1: too old",
    ] {
        match exporter.attempt("{}").await {
            Attempt::Refused(error) | Attempt::Accepted(Some(error)) => assert_eq!(error, wanted),
            Attempt::Accepted(None) | Attempt::Later(..) => panic!("not {wanted}"),
        }
    }
    assert_eq!(exporter.outbox.dropped(), 2);
    let shown = format!("{exporter:?}");
    assert!(!shown.contains("hunter2"), "{shown}");
}

#[tokio::test]
async fn a_collector_that_hangs_or_is_not_there_is_given_up() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let hangs = format!("http://{}", listener.local_addr().unwrap());
    for (url, part) in [(hangs.as_str(), "no answer within 0.5 s"), ("http://127.0.0.1:1", "refused")] {
        let exporter = Exporter::new(settings(url), Outbox::default()).unwrap();
        match exporter.attempt("{}").await {
            Attempt::Later(error, None) => assert!(error.contains(part), "{error}"),
            _ => panic!("{url}"),
        }
    }
    let mut unusable = settings("http://127.0.0.1:1");
    unusable.headers = vec![("a b".to_owned(), "hunter2".into())];
    let error = Exporter::new(unusable, Outbox::default()).unwrap_err();
    assert_eq!(error, "OTEL_EXPORTER_OTLP_HEADERS: the header `a b` cannot be sent");
}

/// A collector is down for long: the queue fills up, what does not fit is counted, and afterwards spans arrive again.
#[tokio::test]
async fn the_queue_is_bounded_and_losses_are_counted() {
    let outbox = Outbox::default();
    for number in 0..MAX_WAITING as u64 + 10 {
        outbox.push(vec![span(number)]);
    }
    outbox.push(vec![span(0); 7]);
    assert_eq!((outbox.len(), outbox.dropped()), (MAX_WAITING, 17));
    assert_eq!(outbox.take(5).iter().map(|span| span.start_millis).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
    outbox.push(vec![span(0); 7]);
    assert_eq!((outbox.len(), outbox.dropped()), (MAX_WAITING - 5, 24), "spans of one task stay together");

    let calls = Arc::new(AtomicUsize::new(0));
    let counted = calls.clone();
    let collector = Fake::start(move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
        Answer::text(200, "")
    })
    .await;
    let exporter = Exporter::new(settings(&collector.url()), outbox.clone()).unwrap();
    let (stop, mut running) = (CancellationToken::new(), JoinSet::new());
    let stopped = stop.clone();
    running.spawn(async move { exporter.run(stopped).await });
    until("the rest", || outbox.len() == 0 && calls.load(Ordering::Relaxed) == 8).await;
    assert_eq!(collector.requests().iter().map(spans_in).collect::<Vec<_>>(), [128, 128, 128, 128, 128, 128, 128, 123]);
    stop.cancel();
}
