//! Traces of tasks, sent by a real agent to a played collector, and the times at `/v1/debug/tasks`.

use super::rig::{FOREVER, LIMIT, Plan, Rig, one_container, shell};
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use ecs_local::TaskStatus;
use ecs_testing::wait::until;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::task::JoinSet;

/// A header's value, which nothing may show.
const KEY: &str = "collector-key-hunter2";
/// Reads requests with the classes of OpenTelemetry.
const READER: &str = include_str!("../clients/otlp.py");

/// What the collector does with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Accept,
    Busy,
    Refuse,
    Hang,
}

#[derive(Debug)]
struct Seen {
    answer: Answer,
    accepted: Vec<Value>,
    requests: usize,
}

/// A played collector.
struct Collector {
    seen: Arc<Mutex<Seen>>,
    url: String,
    _serving: JoinSet<()>,
}

impl Collector {
    async fn start(answer: Answer) -> Self {
        let seen = Arc::new(Mutex::new(Seen { answer, accepted: Vec::new(), requests: 0 }));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback(take).with_state(seen.clone());
        let mut serving = JoinSet::new();
        serving.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { seen, url, _serving: serving }
    }

    fn answers(&self, answer: Answer) {
        self.seen.lock().unwrap().answer = answer;
    }

    /// The bodies of the requests that were accepted.
    fn bodies(&self) -> Vec<Value> {
        self.seen.lock().unwrap().accepted.clone()
    }

    fn requests(&self) -> usize {
        self.seen.lock().unwrap().requests
    }

    /// All accepted spans of this task, in their order.
    fn spans(&self, arn: &str) -> Vec<Value> {
        let trace = arn.rsplit('/').next().unwrap();
        let bodies = self.bodies();
        let spans =
            bodies.iter().flat_map(|body| body["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().unwrap());
        spans.filter(|span| span["traceId"] == trace).cloned().collect()
    }

    /// Waits for a span with this name, and returns all of the task.
    async fn span(&self, rig: &Rig, arn: &str, name: &str) -> Vec<Value> {
        let found = async || {
            let spans = self.spans(arn);
            spans.iter().any(|span| span["name"] == name).then_some(spans)
        };
        match tokio::time::timeout(LIMIT, until(name, LIMIT * 2, found)).await {
            Ok(spans) => spans,
            Err(_) => panic!("no span `{name}`, only {:?}\n{}", names(&self.spans(arn)), rig.log()),
        }
    }
}

async fn take(State(seen): State<Arc<Mutex<Seen>>>, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    let answer = {
        let mut seen = seen.lock().unwrap();
        seen.requests += 1;
        seen.answer
    };
    assert_eq!((uri.path(), &headers["content-type"]), ("/v1/traces", &"application/json".parse().unwrap()));
    assert_eq!(headers["api-key"], KEY);
    match answer {
        Answer::Accept => {
            seen.lock().unwrap().accepted.push(serde_json::from_slice(&body).unwrap());
            axum::Json(json!({"partialSuccess": {}})).into_response()
        }
        Answer::Busy => (StatusCode::TOO_MANY_REQUESTS, [("retry-after", "1")], "busy").into_response(),
        Answer::Refuse => (StatusCode::BAD_REQUEST, format!("{KEY} may not")).into_response(),
        Answer::Hang => std::future::pending().await,
    }
}

async fn start(test: &str, collector: &Collector) -> Option<Rig> {
    let headers = format!("api-key={KEY}");
    let environment = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url.as_str()),
        ("OTEL_EXPORTER_OTLP_HEADERS", headers.as_str()),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "300"),
        ("OTEL_RESOURCE_ATTRIBUTES", "team=a%2Cb"),
        ("ECS_LOGLEVEL", "debug"),
    ];
    Rig::start(test, Plan { environment: &environment, ..Plan::default() }).await
}

fn names(spans: &[Value]) -> Vec<&str> {
    spans.iter().map(|span| span["name"].as_str().unwrap()).collect()
}

fn nanos(span: &Value, end: &str) -> u64 {
    span[format!("{end}TimeUnixNano")].as_str().unwrap().parse().unwrap()
}

/// The only span with this name.
fn only<'a>(spans: &'a [Value], name: &str) -> &'a Value {
    let found: Vec<&Value> = spans.iter().filter(|span| span["name"] == name).collect();
    assert_eq!(found.len(), 1, "{name} in {:?}", names(spans));
    found[0]
}

fn healthy_task(image: &str) -> Value {
    let mut container = shell("main", image, FOREVER);
    container["healthCheck"] = json!({"command": ["CMD-SHELL", "exit 0"], "interval": 5, "retries": 1});
    json!({"family": "traced", "containerDefinitions": [container]})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_is_one_trace_from_its_arrival_to_its_end() {
    let collector = Collector::start(Answer::Busy).await;
    let Some(mut rig) = start("traces", &collector).await else { return };
    let arn = rig.server.run_task(&healthy_task(&rig.image())).unwrap();
    rig.task(&arn, TaskStatus::Running).await;
    until("a request", LIMIT, async || (collector.requests() > 0).then_some(())).await;
    collector.answers(Answer::Accept);
    // The container is checked after five seconds.
    let spans = collector.span(&rig, &arn, "healthy").await;
    let parents = [
        ("admission", "task start"),
        ("container", "task start"),
        ("digest", "container"),
        ("pull", "container"),
        ("create", "container"),
        ("start", "container"),
        ("healthy", "container"),
        ("report", "task start"),
    ];
    assert_eq!(only(&spans, "task start")["parentSpanId"], Value::Null);
    for (name, parent) in parents {
        let (span, parent) = (only(&spans, name), only(&spans, parent));
        assert_eq!(span["parentSpanId"], parent["spanId"], "{name}");
        assert!(nanos(span, "start") >= nanos(parent, "start") && nanos(span, "end") >= nanos(span, "start"), "{name}");
        assert!(name == "healthy" || nanos(span, "end") <= nanos(parent, "end"), "{name}");
    }
    let phases = ["digest", "pull", "create", "start", "healthy"].map(|name| only(&spans, name));
    for pair in phases.windows(2) {
        // Docker may show that a container runs before it has answered the start.
        let is_later =
            nanos(pair[1], "start") >= nanos(pair[0], if pair[1]["name"] == "healthy" { "start" } else { "end" });
        assert!(is_later, "{} before {}", pair[1]["name"], pair[0]["name"]);
    }
    let resource = &collector.bodies()[0]["resourceSpans"][0]["resource"]["attributes"];
    let attribute = |key: &str| {
        let found = resource.as_array().unwrap().iter().find(|attribute| attribute["key"] == key);
        found.map(|attribute| attribute["value"]["stringValue"].clone())
    };
    assert_eq!((attribute("service.name"), attribute("team")), (Some(json!("ecs-agent")), Some(json!("a,b"))));

    let shown = rig.introspect("/v1/debug/tasks").await;
    let times = &shown["Tasks"][0]["Timings"];
    for mark in ["Received", "Admitted", "Running", "RunningReported"] {
        assert!(times[mark]["Seconds"].is_number() && times[mark]["At"].is_string(), "{mark}: {times:#}");
    }
    let pull = nanos(only(&spans, "pull"), "end") - nanos(only(&spans, "pull"), "start");
    let shown_pull = times["Containers"][0]["Phases"]["Pull"]["Seconds"].as_f64().unwrap();
    assert!((pull as f64 / 1e9 - shown_pull).abs() < 0.0005, "{pull} and {shown_pull}");

    // Another process of the agent sends the end of the same trace.
    rig.kill();
    rig.start_agent();
    rig.registered().await;
    let shown = rig.introspect("/v1/debug/tasks").await;
    let times = &shown["Tasks"][0]["Timings"];
    assert_eq!((&times["Restored"], &times["Received"], &shown["Finished"]), (&json!(true), &Value::Null, &json!([])));
    rig.server.stop_task(&arn, "seen enough").unwrap();
    let spans = collector.span(&rig, &arn, "task stop").await;
    let stop = only(&spans, "task stop");
    assert_eq!(stop["parentSpanId"], only(&spans, "task start")["spanId"]);
    let children = spans.iter().filter(|span| span["parentSpanId"] == stop["spanId"]);
    assert_eq!(children.map(|span| span["name"].as_str().unwrap()).collect::<Vec<_>>(), ["stop", "report"]);
    let shown = rig.introspect("/v1/debug/tasks?limit=1").await;
    assert_eq!(shown["Finished"][0]["Arn"], arn);
    assert!(shown["Finished"][0]["Timings"]["StoppedReported"]["At"].is_string(), "{shown:#}");
    assert!(!rig.log().contains(KEY), "the log shows a header");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_never_runs_is_a_trace_with_an_error() {
    let collector = Collector::start(Answer::Accept).await;
    let Some(rig) = start("traces of failures", &collector).await else { return };
    let image = format!("{}-missing", rig.image());
    let arn = rig.server.run_task(&one_container(&image, "exit 0")).unwrap();
    rig.task(&arn, TaskStatus::Stopped).await;
    let spans = collector.span(&rig, &arn, "task start").await;
    for name in ["task start", "container", "pull"] {
        let span = only(&spans, name);
        let text = span["status"]["message"].as_str().unwrap_or_default();
        assert!(span["status"]["code"] == 2 && text.contains("CannotPull"), "{span:#}");
    }
}

/// Tasks run as if there were no collector, and what is lost is logged without the header.
#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_hangs_or_refuses_delays_no_task() {
    let collector = Collector::start(Answer::Hang).await;
    let Some(rig) = start("traces lost", &collector).await else { return };
    let image = rig.image();
    for number in 0..3 {
        let began = std::time::Instant::now();
        rig.lives_once(&image, number, "while the collector hangs").await;
        assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
        tokio::time::sleep(Duration::from_secs(3)).await;
    }
    let lost = "traces are lost";
    let logged = async || rig.log().contains(lost).then_some(());
    if tokio::time::timeout(LIMIT, until(lost, LIMIT * 2, logged)).await.is_err() {
        panic!("nothing is logged:\n{}", rig.log());
    }
    assert!(rig.log().contains("no answer within 0.3 s"), "{}", rig.log());
    collector.answers(Answer::Refuse);
    rig.lives_once(&image, 9, "while the collector refuses").await;
    let before = collector.requests();
    until("a refusal", LIMIT, async || (collector.requests() > before).then_some(())).await;
    collector.answers(Answer::Accept);
    let arn = rig.server.run_task(&one_container(&image, "exit 0")).unwrap();
    collector.span(&rig, &arn, "task stop").await;
    assert!(!rig.log().contains(KEY), "the log shows a header");
}

/// OpenTelemetry's own classes read what the agent sends. Ids are base64 in protobuf's JSON and hexadecimal in OTLP's, which is the
/// one difference that the script removes.
pub(super) async fn are_read_by_opentelemetry(python: &str) {
    let collector = Collector::start(Answer::Accept).await;
    let Some(rig) = start("clients: traces", &collector).await else { return };
    let arn = rig.server.run_task(&healthy_task(&rig.image())).unwrap();
    collector.span(&rig, &arn, "task start").await;
    rig.server.stop_task(&arn, "seen enough").unwrap();
    collector.span(&rig, &arn, "task stop").await;
    let input = serde_json::to_vec(&collector.bodies()).unwrap();
    let mut child =
        Command::new(python).args(["-c", READER]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), &input).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "the requests cannot be read");
    let read: BTreeMap<String, Value> = serde_json::from_slice(&output.stdout).unwrap();
    let sent = collector.spans(&arn);
    assert_eq!(read.len(), sent.len());
    for span in &sent {
        let found = &read[span["spanId"].as_str().unwrap()];
        assert_eq!(found["trace"], span["traceId"]);
        assert_eq!(found["name"], span["name"]);
        assert_eq!(found["parent"].as_str().unwrap(), span["parentSpanId"].as_str().unwrap_or_default());
        assert_eq!(
            (found["start"].as_u64(), found["end"].as_u64()),
            (Some(nanos(span, "start")), Some(nanos(span, "end")))
        );
        assert_eq!((&found["kind"], &found["service"]), (&json!("SPAN_KIND_INTERNAL"), &json!("ecs-agent")));
    }
}
