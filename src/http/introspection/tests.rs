//! The answers, over a real socket, compared with those of the Go agent in the same situation.
//!
//! The recorded order of containers is the Go agent's map order. Ours is the order in the task definition, which is the same
//! here.

use super::*;
use crate::http::{self, Audience};
use ecs_core::model::agent_health::{AgentHealth, Check, Subject};
use ecs_core::model::interface::Interface;
use ecs_core::model::observation::Mount;
use ecs_core::model::task::NetworkMode;
use ecs_core::model::view::{ContainerView, TaskView};
use ecs_core::model::waiting::{Blocker, Waiting};
use ecs_core::model::{ContainerKind, ContainerStatus, PortBinding, Protocol, TaskStatus, Timestamp};
use serde_json::Value;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

const ARN: &str = "arn:aws:ecs:us-west-2:123456789012:task/judge/319892675625455485f5c720b4cd7692";
const WEB: &str = "1cc22cbf0108bdb58731612fad20d18f5f854e58b71f814f9aec7931e109787e";
const SIDE: &str = "3eb984c569de1673568ee4794f26d59a068515efdbbfaaeedc04eec18ddf0547";

/// A running server, with the sender that replaces its view.
struct Server {
    address: SocketAddr,
    view: watch::Sender<Arc<View>>,
    stop: CancellationToken,
    running: JoinSet<()>,
}

struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.into_iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("not JSON: {}", self.body))
    }
}

impl Server {
    async fn start(view: View) -> Self {
        let (sender, receiver) = watch::channel(Arc::new(view));
        Self::with(known(identity(), receiver), sender).await
    }

    async fn with(router: Router, view: watch::Sender<Arc<View>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let mut running = JoinSet::new();
        let settings = http::Settings::new("test", http::Address::Port(0));
        let listener = http::Listener::Tcp(listener);
        running.spawn(http::serve(listener, settings, Audience::host_only(), router.into(), stop.clone()));
        Self { address, view, stop, running }
    }

    async fn ask(&self, method: &str, target: &str) -> Answer {
        self.raw(&format!("{method} {target} HTTP/1.1\r\nHost: localhost:51678\r\nConnection: close\r\n\r\n")).await
    }

    async fn get(&self, target: &str) -> Answer {
        self.ask("GET", target).await
    }

    async fn raw(&self, request: &str) -> Answer {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or_default();
        Answer { status, head: head.to_owned(), body: body.to_owned() }
    }

    /// Asks and compares status, content type and body with a recorded answer.
    async fn compare(&self, target: &str, recorded: &str) {
        let path = format!("{}/tests/golden/introspection_{recorded}.json", env!("CARGO_MANIFEST_DIR"));
        let golden: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let answer = self.get(target).await;
        assert_eq!(answer.status, golden["status"], "{recorded}");
        assert_eq!(answer.header("content-type"), golden["content_type"].as_str(), "{recorded}");
        assert_eq!(answer.json(), golden["body"], "{recorded}");
    }
}

/// A healthy agent.
fn healthy() -> HealthLookup {
    Arc::new(|| AgentHealth { stage: "running".to_owned(), checks: Vec::new() })
}

/// The routes of a registered agent that is healthy.
fn known(identity: Identity, view: watch::Receiver<Arc<View>>) -> Router {
    router(healthy(), identity, view, lookups(Arc::new(Timestamp::default)))
}

fn lookups(clock: Clock) -> Lookups {
    let host = Arc::new(|| HostAnswer { kept_by: KeptBy::HostSetup, put_back: 7, ..HostAnswer::default() });
    Lookups { pulls: Arc::new(|_| None), timings: Arc::new(|_, _| Timings::default()), clock, host }
}

fn identity() -> Identity {
    Identity {
        cluster: "judge".to_owned(),
        container_instance_arn: Some(
            "arn:aws:ecs:us-west-2:123456789012:container-instance/judge/0123456789abcdef0123456789abcdef".to_owned(),
        ),
        version_text: "Amazon ECS Agent - v1.105.1 (*a8b3e7d3)".to_owned(),
    }
}

/// The recorded situation: two containers, a static TCP and a dynamic UDP port, each bound on IPv4 and IPv6.
fn recorded(desired: TaskStatus, known: TaskStatus) -> View {
    let bound = |container_port, host_port, protocol| {
        let on = |ip: &str| PortBinding { container_port, host_port, bind_ip: ip.to_owned(), protocol };
        [on("0.0.0.0"), on("::")]
    };
    let web = ContainerView {
        ports: [bound(80, 28480, Protocol::Tcp), bound(81, 32768, Protocol::Udp)].concat(),
        created_at: Some("2026-11-21T23:36:38.630605819Z".to_owned()),
        started_at: Some("2026-11-21T23:36:38.971697346Z".to_owned()),
        image: "localhost:5001/judge/open:latest".to_owned(),
        image_id: "sha256:9cc0c78e30c408a5811a254937703654cb5055ee50b8386f3e6d6f3c10c7d186".to_owned(),
        ..container("web", WEB, "ecs-judge-family-7-web-d49fe3fdbfdec3f7a101")
    };
    let side = ContainerView {
        created_at: Some("2026-11-21T23:36:44.073600397Z".to_owned()),
        started_at: Some("2026-11-21T23:36:44.378609522Z".to_owned()),
        image: "localhost:5000/judge/private:latest".to_owned(),
        image_id: "sha256:ca7cc98e19a4634fb80fafd94bca301da3b74cb2661a491b5289a6766fefb4a3".to_owned(),
        ..container("side", SIDE, "ecs-judge-family-7-side-dcfbc080e8f489bb0d00")
    };
    view_of(vec![task(ARN, desired, known, vec![web, side])])
}

/// A view of these tasks.
pub(super) fn view_of(tasks: Vec<TaskView>) -> View {
    View { tasks: tasks.into_iter().map(Arc::new).collect(), ..View::default() }
}

fn task(arn: &str, desired: TaskStatus, known: TaskStatus, containers: Vec<ContainerView>) -> TaskView {
    TaskView {
        arn: arn.into(),
        family: "judge-family".to_owned(),
        version: "7".to_owned(),
        network: NetworkMode::default(),
        fault_injection: false,
        desired,
        known,
        containers,
        ..TaskView::default()
    }
}

fn container(name: &str, id: &str, runtime_name: &str) -> ContainerView {
    let volume = |name: &str| format!("ecs-judge-family-7-{name}");
    let mount = |volume: String, destination: &str| Mount {
        source: match volume.as_str() {
            "" => "/srv".to_owned(),
            volume => format!("/var/lib/docker/volumes/{volume}/_data"),
        },
        volume,
        destination: destination.to_owned(),
    };
    ContainerView {
        name: name.into(),
        runtime_id: Some(id.into()),
        runtime_name: runtime_name.to_owned(),
        image: "busybox".to_owned(),
        known: ContainerStatus::Running,
        mounts: vec![
            mount(volume("scratch-c2fe96a1c68dd6aeba01"), "/scratch"),
            mount(String::new(), "/host"),
            mount(volume("anon-e0a2f18481e799b2bf01"), "/anon"),
        ],
        ..ContainerView::default()
    }
}

#[tokio::test]
async fn the_recorded_answers_come_back() {
    let server = Server::start(recorded(TaskStatus::Running, TaskStatus::Running)).await;
    server.compare("/", "root").await;
    server.compare("/v1/metadata", "metadata").await;
    server.compare("/v1/tasks", "tasks").await;
    server.compare(&format!("/v1/tasks?taskarn={ARN}"), "tasks_by_arn").await;
    server.compare(&format!("/v1/tasks?dockerid={WEB}"), "tasks_by_dockerid").await;
    server.compare(&format!("/v1/tasks?dockerid={}", &WEB[..12]), "tasks_by_short_dockerid").await;
    server.compare("/v1/tasks?taskarn=arn:aws:ecs:us-west-2:1:task/none", "tasks_unknown").await;
    server.compare("/v1/tasks?dockerid=ffffffffffff", "tasks_short_ambiguous").await;
    server.compare(&format!("/v1/tasks?dockerid={WEB}&taskarn={ARN}"), "tasks_bad_query").await;
    server.view.send_replace(Arc::new(recorded(TaskStatus::Stopped, TaskStatus::Stopped)));
    server.compare(&format!("/v1/tasks?taskarn={ARN}"), "stopped_task").await;
}

/// A task with an interface of its own. Its pause container is not listed.
#[tokio::test]
async fn the_recorded_task_with_an_interface_comes_back() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/awsvpc/tmds.json");
    let golden: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let recorded = &golden["introspection /v1/tasks"];
    let shown = &recorded["Tasks"][0];
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let mut containers: Vec<ContainerView> = Vec::new();
    for container in shown["Containers"].as_array().unwrap() {
        containers.push(ContainerView {
            name: text(&container["Name"]).into(),
            runtime_id: Some(text(&container["DockerId"]).into()),
            runtime_name: text(&container["DockerName"]),
            image: text(&container["Image"]),
            image_id: text(&container["ImageID"]),
            created_at: Some(text(&container["CreatedAt"])),
            started_at: Some(text(&container["StartedAt"])),
            known: ContainerStatus::Running,
            ..ContainerView::default()
        });
    }
    let pause = ContainerView { kind: ContainerKind::Pause, name: "pause".into(), ..containers[0].clone() };
    containers.push(pause);
    let arn = text(&shown["Arn"]);
    let mut task = task(&arn, TaskStatus::Running, TaskStatus::Running, containers);
    task.network = NetworkMode::Awsvpc;
    task.interfaces = vec![Interface { ipv4: vec![[10, 0, 1, 100].into()], ..Interface::default() }];
    let server = Server::start(view_of(vec![task])).await;
    assert_eq!(&server.get("/v1/tasks").await.json(), recorded);
    // 75 s after the stop of the task, with a clean-up wait of 1 min.
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/awsvpc/after_cleanup.json");
    let golden: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    server.view.send_replace(Arc::new(view_of(Vec::new())));
    assert_eq!(server.get("/v1/tasks").await.json(), golden["tasks"]);
}

/// JSON equality does not see the order of keys, what is left out, or a final newline; scripts with `grep` and `cut` do.
#[tokio::test]
async fn bodies_are_byte_for_byte() {
    let mut fresh = container("new", WEB, "ecs-judge-family-7-new-00");
    fresh.mounts.clear();
    fresh.started_at = Some("0001-01-01T00:00:00Z".to_owned());
    fresh.image = "a<b>&c".to_owned();
    fresh.ports =
        vec![PortBinding { container_port: 80, host_port: 0, bind_ip: String::new(), protocol: Protocol::Tcp }];
    let pause = ContainerView { kind: ContainerKind::Pause, ..container("pause", "pauseid", "ecs-judge-pause") };
    let not_created = ContainerView { runtime_id: None, ..container("later", "", "ecs-judge-family-7-later-00") };
    let tasks = vec![task("arn:t/1", TaskStatus::Running, TaskStatus::Created, vec![fresh, pause, not_created])];
    let server = Server::start(view_of(tasks)).await;
    let single = r#"{"Arn":"arn:t/1","DesiredStatus":"RUNNING","KnownStatus":"PENDING","Family":"judge-family","Version":"7","Containers":[{"DockerId":"1cc22cbf0108bdb58731612fad20d18f5f854e58b71f814f9aec7931e109787e","DockerName":"ecs-judge-family-7-new-00","Name":"new","Image":"a\u003cb\u003e\u0026c","ImageID":"","Ports":[{"ContainerPort":80,"Protocol":"tcp"}]}]}"#;
    let zero = r#"{"Arn":"","KnownStatus":"","Family":"","Version":"","Containers":null}"#;
    let cases = [
        ("/v1/tasks", format!(r#"{{"Tasks":[{single}]}}"#)),
        ("/v1/tasks?taskarn=arn:t/1", single.to_owned()),
        ("/v1/tasks?taskarn=arn%3At%2F1", single.to_owned()),
        ("/v1/tasks?taskarn=", zero.to_owned()),
        ("/v1/tasks?TaskArn=x", format!(r#"{{"Tasks":[{single}]}}"#)),
        ("/", r#"{"AvailableCommands":["/v1/metadata","/v1/tasks","/license"]}"#.to_owned()),
    ];
    for (target, expected) in cases {
        assert_eq!(server.get(target).await.body, expected, "{target}");
    }
    server.view.send_replace(Arc::new(View::default()));
    assert_eq!(server.get("/v1/tasks").await.body, r#"{"Tasks":[]}"#);
}

#[tokio::test]
async fn an_instance_without_arn_says_null() {
    let (sender, receiver) = watch::channel(Arc::new(View::default()));
    let nameless = Identity { container_instance_arn: None, ..identity() };
    let server = Server::with(known(nameless, receiver), sender).await;
    let expected =
        r#"{"Cluster":"judge","ContainerInstanceArn":null,"Version":"Amazon ECS Agent - v1.105.1 (*a8b3e7d3)"}"#;
    assert_eq!(server.get("/v1/metadata").await.body, expected);
}

#[tokio::test]
async fn short_ids_are_prefixes_and_long_ids_are_whole() {
    let server = Server::start(recorded(TaskStatus::Running, TaskStatus::Running)).await;
    let cases = [
        (String::new(), 400), // a prefix of both containers
        ("1".to_owned(), 200),
        (SIDE[..12].to_owned(), 200),
        (SIDE[..13].to_owned(), 404),
        (SIDE.to_owned(), 200),
        (format!("{WEB}&dockerid={}", &SIDE[..13]), 200), // the first counts
    ];
    for (id, status) in cases {
        assert_eq!(server.get(&format!("/v1/tasks?dockerid={id}")).await.status, status, "{id:?}");
    }
    server.view.send_replace(Arc::new(View::default()));
    assert_eq!(server.get("/v1/tasks?dockerid=").await.status, 404);
}

#[tokio::test]
async fn paths_of_ours_that_are_not_there_are_not_found() {
    let server = Server::start(View::default()).await;
    let bare = ["/metrics", "/metrics?x=y", "/v1/debug"];
    let slash = ["/metrics/", "/metrics/?x=y", "/health/", "/v1/debug/", "/v1/debug/tasks/", "/v1/debug/host/"];
    for target in [&bare[..], &slash, &["/metrics/x", "/health/live", "/v1/debug/other"]].concat() {
        let answer = server.get(target).await;
        assert_eq!(answer.status, 404, "{target}");
        assert!(!answer.body.contains("AvailableCommands"), "{target}");
    }
    assert_eq!(server.get("/v1/debug/tasks").await.status, 200);
    let host = server.get("/v1/debug/host").await.json();
    assert_eq!(host, serde_json::json!({"KeptBy": "HostSetup", "PutBack": 7, "Missing": [], "Remarks": []}));
}

#[tokio::test]
async fn the_socket_serves_health_and_nothing_else() {
    let server = Server::with(health_router(healthy()), watch::channel(Arc::new(View::default())).0).await;
    assert_eq!(server.get("/health").await.status, 200);
    assert_eq!(server.ask("HEAD", "/health?x=y").await.status, 200);
    for target in ["/", "/v1/metadata", "/v1/tasks", "/metrics", "//health", "/health/", "/license"] {
        let answer = server.get(target).await;
        assert_eq!(answer.status, 404, "{target}");
        assert!(!answer.body.contains("AvailableCommands"), "{target}");
    }
}

#[tokio::test]
async fn health_is_the_same_on_the_port_and_on_the_socket() {
    let checks = vec![Check::unhealthy(Subject::Docker, "no answer for 61 s".to_owned())];
    let ill: HealthLookup = Arc::new(move || AgentHealth { stage: "running".to_owned(), checks: checks.clone() });
    let (view, receiver) = watch::channel(Arc::new(View::default()));
    let port = router(ill.clone(), identity(), receiver, lookups(Arc::new(Timestamp::default)));
    for routes in [port, health_router(ill)] {
        let server = Server::with(routes, view.clone()).await;
        let answer = server.get("/health").await;
        assert_eq!((answer.status, answer.header("content-type")), (503, Some("application/json")));
        let expected = r#"{"Agent":"ecs-agent","Healthy":false,"Stage":"running","Checks":[{"Name":"Docker","Healthy":false,"Text":"no answer for 61 s"}]}"#;
        assert_eq!(answer.body, expected);
        assert_eq!(server.ask("HEAD", "/health").await.status, 503);
    }
}

/// The clock of the view is far from the wall clock: ages and remaining times are still right.
#[tokio::test]
async fn debug_shows_as_many_ended_tasks_as_wanted() {
    let finished = |view: &View, limit: usize| {
        let moment = Moment { at: "2026-11-30T12:00:00Z".to_owned(), seconds: Some(0.25) };
        let phase = PhaseTiming { at: moment.at.clone(), seconds: None, attempts: 2, result: None };
        let timing = || TaskTiming {
            arn: ARN.into(),
            family: "f".to_owned(),
            version: "7".to_owned(),
            is_restored: false,
            moments: vec![("Received", Moment { at: moment.at.clone(), ..moment })],
            containers: vec![ContainerTiming {
                name: "web".into(),
                moments: Vec::new(),
                phases: vec![("Pull", PhaseTiming { at: phase.at.clone(), ..phase })],
            }],
        };
        Timings {
            tasks: vec![Some(timing()); view.tasks.len()],
            finished: (0..limit.min(1_000)).map(|_| timing()).collect(),
        }
    };
    let view = recorded(TaskStatus::Running, TaskStatus::Running);
    let (sender, receiver) = watch::channel(Arc::new(view));
    let lookups = Lookups { timings: Arc::new(finished), ..lookups(Arc::new(Timestamp::default)) };
    let server = Server::with(router(healthy(), identity(), receiver, lookups), sender).await;
    for (query, count) in [("", 100), ("?limit=2", 2), ("?x=1&limit=0", 0), ("?limit=99999", 1_000)] {
        let shown = server.get(&format!("/v1/debug/tasks{query}")).await.json();
        assert_eq!(shown["Finished"].as_array().unwrap().len(), count, "{query}");
        let times = serde_json::json!({
            "Received": {"At": "2026-11-30T12:00:00Z", "Seconds": 0.25},
            "Containers": [{"Name": "web", "Phases": {"Pull": {"At": "2026-11-30T12:00:00Z", "Attempts": 2}}}],
        });
        assert_eq!(shown["Tasks"][0]["Timings"], times);
        if count > 0 {
            let task = serde_json::json!({"Arn": ARN, "Family": "f", "Revision": "7", "Timings": times});
            assert_eq!(shown["Finished"][0], task);
        }
    }
    let refused = server.get("/v1/debug/tasks?limit=all").await;
    assert_eq!((refused.status, refused.body.as_str()), (400, "limit must be a whole number such as 20\n"));
}

#[tokio::test]
async fn debug_ages_are_by_the_clock_of_the_view() {
    for start in [Timestamp(1_000), Timestamp(32_503_680_000_000)] {
        let wait = Waiting { container: None, blocker: Blocker::NextTry(Timestamp(start.0 + 50_000)), since: start };
        let waiting = TaskView { waits: vec![wait], ..task(ARN, TaskStatus::Running, TaskStatus::None, Vec::new()) };
        let (view, receiver) = watch::channel(Arc::new(view_of(vec![waiting])));
        let clock: Clock = Arc::new(move || Timestamp(start.0 + 42_000));
        let server = Server::with(router(healthy(), identity(), receiver, lookups(clock)), view).await;
        let shown = server.get("/v1/debug/tasks").await.json();
        let wait = &shown["Tasks"][0]["Waits"][0];
        assert_eq!((&wait["AgeSeconds"], &wait["NextTryInSeconds"]), (&Value::from(42), &Value::from(8)), "{shown}");
    }
}

#[tokio::test]
async fn a_request_for_another_host_is_refused() {
    let server = Server::start(View::default()).await;
    let status = async |host: &str, target: &str| {
        server.raw(&format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")).await.status
    };
    for host in ["127.0.0.1:51678", "localhost", "ip-10-0-0-1.ec2.internal", "host.docker.internal:51678", "[::1]"] {
        assert_eq!(status(host, "/v1/tasks").await, 200, "{host}");
    }
    for target in ["/v1/tasks", "/health", "/metrics", "/"] {
        assert_eq!(status("rebind.example.com", target).await, 403, "{target}");
    }
    assert_eq!(status("localhost", "http://rebind.example.com/v1/tasks").await, 403);
    assert_eq!(server.raw("GET /v1/tasks HTTP/1.0\r\n\r\n").await.status, 200, "no name is no other name");
}

#[tokio::test]
async fn every_method_is_answered_and_no_path_is_unknown() {
    let server = Server::start(View::default()).await;
    for method in ["GET", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"] {
        let answer = server.ask(method, "/v1/tasks").await;
        assert_eq!((answer.status, answer.body.as_str()), (200, r#"{"Tasks":[]}"#), "{method}");
    }
    let head = server.ask("HEAD", "/v1/metadata").await;
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    for target in ["/v1/metadata/", "/v1/foo", "/debug/pprof/", "/V1/TASKS"] {
        let answer = server.get(target).await;
        assert_eq!((answer.status, answer.body.as_str()), (200, COMMANDS), "{target}");
    }
}

#[tokio::test]
async fn dirty_paths_are_redirected_with_their_query() {
    let server = Server::start(View::default()).await;
    let answer = server.get("//v1//tasks?taskarn=a&b=%22").await;
    assert_eq!(answer.status, 301);
    assert_eq!(answer.header("location"), Some("/v1/tasks?taskarn=a&b=%22"));
    assert_eq!(answer.body, "<a href=\"/v1/tasks?taskarn=a&amp;b=%22\">Moved Permanently</a>.\n\n");
}

#[tokio::test]
async fn the_licence_does_not_depend_on_a_directory() {
    let answer = Server::start(View::default()).await.get("/license").await;
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("text/plain")));
    assert!(answer.body.contains("Apache License") && answer.body.ends_with(&format!("{}\n", "=".repeat(80))));
}

#[tokio::test]
async fn a_panic_is_an_empty_500_and_the_server_goes_on() {
    let broken = any(async || -> Response { panic!("planted") });
    let catches_panics = axum::middleware::from_fn(async |request, next: axum::middleware::Next| {
        catch_panic("a test", next.run(request)).await
    });
    let router = Router::new().route("/broken", broken).fallback(async || "fine").layer(catches_panics);
    let (sender, _) = watch::channel(Arc::new(View::default()));
    let server = Server::with(router, sender).await;
    let answer = server.get("/broken").await;
    assert_eq!((answer.status, answer.body.as_str(), answer.header("connection")), (500, "", Some("close")));
    assert_eq!(server.get("/").await.body, "fine");
}

#[tokio::test]
async fn a_head_without_end_is_cut_off() {
    let server = Server::start(View::default()).await;
    let long = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(20 * 1024));
    assert!((400..500).contains(&server.raw(&long).await.status));
    assert_eq!(server.get("/").await.status, 200);
}

#[tokio::test]
async fn stop_ends_the_server_and_closes_the_port() {
    let mut server = Server::start(View::default()).await;
    assert_eq!(server.get("/").await.status, 200);
    server.stop.cancel();
    let limit = std::time::Duration::from_secs(30);
    tokio::time::timeout(limit, server.running.join_next()).await.expect("stops");
    // A program that another test starts at this moment has the socket until it runs.
    let is_closed = async || TcpStream::connect(server.address).await.err();
    ecs_testing::wait::until("the port to close", limit, is_closed).await;
}
