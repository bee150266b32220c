use super::*;
use crate::http::{self, Audience};
use ecs_core::model::usage::LastStatistics;
use ecs_core::model::view::{ContainerView, RoleView, TaskView, View};
use ecs_core::model::{ContainerStatus, RoleKind, TaskStatus};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

const ROLE: &str = "11111111-2222-3333-4444-555555555555";
const TASK: &str = "arn:aws:ecs:us-west-2:123456789012:task/judge/abc";

/// A view of one running task with one container. The credentials of its execution role are not in memory.
pub(super) fn view() -> View {
    let role = |kind, given: &[&str], current: &str| RoleView {
        kind,
        given: given.iter().map(|id| (*id).into()).collect(),
        current: current.into(),
    };
    let container = ContainerView {
        name: "web".into(),
        endpoint_id: Some("id-web".into()),
        runtime_id: Some("docker-web".into()),
        known: ContainerStatus::Running,
        ..ContainerView::default()
    };
    let task = TaskView {
        arn: TASK.into(),
        known: TaskStatus::Running,
        roles: vec![
            role(RoleKind::Task, &["role-web"], ROLE),
            role(RoleKind::Execution, &["execution-web"], "execution-web"),
        ],
        containers: vec![container],
        ..TaskView::default()
    };
    View { tasks: vec![Arc::new(task)], ..View::default() }
}

/// Facts about an instance of which nothing is known and that has no tags.
pub(super) fn metadata() -> Metadata {
    let tags: TagLookup = Arc::new(|_| Box::pin(async { Ok(BTreeMap::new()) }));
    Metadata { place: Place::default(), wall: Arc::new(|at| at), tags, stats: Arc::new(|_| LastStatistics::Untracked) }
}

pub(super) fn tasks() -> Tasks {
    Tasks::new(watch::channel(Arc::new(view())).1)
}

/// A server on loopback, and what it wrote to its audit log.
struct Server {
    address: SocketAddr,
    audited: Arc<Mutex<Vec<String>>>,
    view: watch::Sender<Arc<View>>,
    stop: CancellationToken,
    _server: JoinSet<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

#[derive(Debug)]
struct Answer {
    status: u16,
    headers: BTreeMap<String, String>,
    body: String,
}

impl Server {
    async fn start() -> Self {
        Self::with(Rates { steady: 40, burst: 60 }).await
    }

    async fn with(rates: Rates) -> Self {
        let (view, receiver) = watch::channel(Arc::new(view()));
        let audited = Arc::new(Mutex::new(Vec::new()));
        let lines = Arc::clone(&audited);
        let audit = Audit {
            cluster: "judge".to_owned(),
            container_instance: "arn:instance".to_owned(),
            sink: Some(Arc::new(move |line| lines.lock().unwrap().push(line))),
        };
        let credentials = |id: &ecs_core::model::CredentialsId| {
            (id.as_str() == ROLE).then(|| Credentials {
                role_arn: "arn:aws:iam::123456789012:role/taskRole".to_owned(),
                access_key_id: "ASIA9D1FE73AA0BF4200".into(),
                secret_access_key: "ef4ff541d00b4d72bcd401a908fb93f7".into(),
                session_token: "tok-8281ef0412034e43a0e27bb5615fd39b".into(),
                expiration: "2026-11-22T05:36:38Z".to_owned(),
            })
        };
        let (tasks, metadata) = (Tasks::new(receiver), metadata());
        let (credentials, work) = (Arc::new(credentials), fakes::work(&Arc::default()));
        let sources = Sources::new(tasks, metadata, credentials, work, audit, rates, PeerCheckMode::Enforce);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, stop) = (listener.local_addr().unwrap(), CancellationToken::new());
        let settings = settings(Address::Loopback(0));
        let served = http::serve(
            http::Listener::Tcp(listener),
            settings,
            Audience::containers(watch::channel(ecs_core::model::Bridges::default()).1),
            answers(sources),
            stop.clone(),
        );
        let mut server = JoinSet::new();
        server.spawn(served);
        Self { address, audited, view, stop, _server: server }
    }

    async fn send(&self, request: &str) -> Answer {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        let mut lines = head.split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok()).unwrap_or_default();
        let headers = lines.filter_map(|line| line.split_once(": "));
        let headers = headers.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect();
        Answer { status, headers, body: body.to_owned() }
    }

    async fn get(&self, path: &str) -> Answer {
        self.send(&format!(
            "GET {path} HTTP/1.1\r\nHost: 169.254.170.2\r\nUser-Agent: sdk\r\nConnection: close\r\n\r\n"
        ))
        .await
    }

    async fn compare(&self, path: &str, golden: &str) {
        let file = format!("{}/tests/golden/{golden}.json", env!("CARGO_MANIFEST_DIR"));
        let golden: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
        let answer = self.get(path).await;
        let body = serde_json::from_str(&answer.body).unwrap_or_else(|_| json!(answer.body));
        let ours = json!({"status": answer.status, "content_type": answer.headers["content-type"], "body": body});
        assert_eq!(ours, golden, "{path}");
    }

    /// The lines of the audit log without their time and without the client's port.
    fn audited(&self) -> Vec<String> {
        let lines = self.audited.lock().unwrap();
        let shortened = |line: &String| {
            let columns: Vec<_> = line.split(' ').collect();
            format!("{} {}", columns[1], columns[3..].join(" "))
        };
        lines.iter().map(shortened).collect()
    }
}

#[tokio::test]
async fn the_recorded_answers_come_back() {
    let server = Server::start().await;
    server.compare(&format!("/v2/credentials/{ROLE}"), "credentials_v2").await;
    server.compare(&format!("/v1/credentials?id={ROLE}"), "credentials_v1").await;
    server.compare("/v1/credentials", "credentials_v1_empty").await;
    server.compare("/v2/credentials/", "credentials_v2_empty").await;
    server.compare("/v2/credentials/00000000-0000-0000-0000-000000000000", "credentials_v2_unknown").await;
    server.compare("/nothing/here", "tmds_not_found").await;
    server.compare("/v2/credentials", "tmds_not_found").await;
}

#[tokio::test]
async fn the_members_of_an_answer_keep_their_order() {
    let server = Server::start().await;
    let success = server.get("/v2/credentials/role-web").await;
    let expected = concat!(
        r#"{"RoleArn":"arn:aws:iam::123456789012:role/taskRole","AccessKeyId":"ASIA9D1FE73AA0BF4200","#,
        r#""SecretAccessKey":"ef4ff541d00b4d72bcd401a908fb93f7","Token":"tok-8281ef0412034e43a0e27bb5615fd39b","#,
        r#""Expiration":"2026-11-22T05:36:38Z"}"#
    );
    assert_eq!((success.status, success.body.as_str()), (200, expected), "the id that the container was created with");
    let missing = server.get("/v2/credentials/execution-web").await;
    let expected = r#"{"code":"CredentialsUninitialized","message":"CredentialsV2Request: Credentials uninitialized for ID","HTTPErrorCode":503}"#;
    assert_eq!((missing.status, missing.body.as_str()), (503, expected));
    let early = View { is_incomplete: true, ..View::default() };
    server.view.send_replace(Arc::new(early));
    assert_eq!(server.get("/v2/credentials/role-web").await.status, 503, "the state was lost");
    server.view.send_replace(Arc::default());
    assert_eq!(server.get("/v2/credentials/role-web").await.status, 400);
}

#[tokio::test]
async fn each_request_for_credentials_is_audited_without_its_id() {
    let server = Server::start().await;
    for path in [&format!("/v2/credentials/{ROLE}"), "/v1/credentials?id=execution-web", "/v2/credentials/guess", "/x"]
    {
        server.get(path).await;
    }
    let tail = "2 judge arn:instance";
    assert_eq!(
        server.audited(),
        [
            format!("200 \"/v2/credentials\" \"sdk\" {TASK} GetCredentials {tail}"),
            format!("503 \"/v1/credentials\" \"sdk\" {TASK} GetCredentialsExecutionRole {tail}"),
            format!("400 \"/v2/credentials\" \"sdk\" - GetCredentials {tail}"),
        ]
    );
}

#[tokio::test]
async fn paths_are_cleaned_before_a_route_is_chosen() {
    let server = Server::start().await;
    for (path, location) in [
        ("//v2//credentials/x?a=b", "/v2/credentials/x?a=b"),
        ("/v2/credentials/../../v4/x", "/v4/x"),
        ("/v2/credentials/%2e%2e/x", "/v2/x"),
        ("/v2/credentials/a%20b/./", "/v2/credentials/a%20b/"),
    ] {
        let answer = server.get(path).await;
        assert_eq!((answer.status, answer.headers["location"].as_str()), (301, location), "{path}");
        assert!(!answer.headers.contains_key("x-rate-limit-limit") && answer.body.is_empty());
    }
    // An encoded slash separates segments, and an id may contain a slash, but no id is a part of another.
    for path in ["/v2%2Fcredentials%2Frole-web", "/v2/credentials/role%2Dweb"] {
        assert_eq!(server.get(path).await.status, 200, "{path}");
    }
    for path in
        ["/v2/credentials/role-web/", "/v2/credentials/x/role-web", "/v2/credentials/role-we", "/v2/credentials/%zz"]
    {
        assert_eq!(server.get(path).await.status, 400, "{path}");
    }
}

#[tokio::test]
async fn every_answer_names_the_limit_and_the_peer() {
    let server = Server::start().await;
    for path in ["/x", "/v2/credentials/role-web"] {
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 1.2.3.4\r\nConnection: close\r\n\r\n");
        let headers = server.send(&request).await.headers;
        let limits =
            ["limit", "duration", "request-forwarded-for"].map(|name| headers[&format!("x-rate-limit-{name}")].clone());
        assert_eq!(limits, ["40.00", "1", "1.2.3.4"]);
        assert!(headers["x-rate-limit-request-remote-addr"].starts_with("127.0.0.1:"));
    }
}

#[tokio::test]
async fn too_many_requests_are_refused_and_audited() {
    let server = Server::with(Rates { steady: 1, burst: 3 }).await;
    for _ in 0..3 {
        assert_eq!(server.get("/v2/credentials/role-web").await.status, 200);
    }
    let refused = server.get("/v2/credentials/role-web").await;
    assert_eq!((refused.status, refused.body.as_str()), (429, "You have reached maximum request limit."));
    assert_eq!(refused.headers["content-type"], "text/plain; charset=utf-8");
    assert_eq!(refused.headers["retry-after"], "1");
    assert_eq!(refused.headers["x-rate-limit-limit"], "1.00");
    assert_eq!(server.get("/v2/credentials/execution-web").await.status, 503, "another id");
    let audited = server.audited();
    assert_eq!(audited[3], "429 \"/v2/credentials\" \"sdk\" - TooManyRequests 2 judge arn:instance", "{audited:?}");
}

#[tokio::test]
async fn guesses_are_limited_and_known_ids_are_not() {
    let server = Server::with(Rates { steady: 1000, burst: 1000 }).await;
    let mut asked = 0;
    // One more guess is allowed for each second that this takes.
    let refused = loop {
        let path = if asked % 2 == 0 { format!("/v2/credentials/x{asked}") } else { format!("/v4/x{asked}") };
        let answer = server.get(&path).await;
        if answer.status == 429 {
            break answer;
        }
        asked += 1;
        assert!([400, 404].contains(&answer.status) && asked < 500, "{answer:?}");
    };
    assert!(asked >= 20 && refused.headers["retry-after"] == "1", "{asked} {refused:?}");
    assert_eq!(server.get("/v2/credentials/role-web").await.status, 200);
}

#[tokio::test]
async fn idle_connections_shut_no_task_out() {
    let server = Server::start().await;
    let mut idle = Vec::new();
    for n in 0..700 {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        let address = std::net::Ipv4Addr::new(127, 0, 2, u8::try_from(n % 8).unwrap() + 1);
        socket.bind((address, 0).into()).unwrap();
        let mut stream = socket.connect(server.address).await.unwrap();
        // Every other one has begun a request.
        if n % 2 == 0 {
            let _closed_already = stream.write_all(b"GET /v2/credentials/role-web HTTP/1.1\r\nHo").await;
        }
        idle.push(stream);
    }
    assert_eq!(server.get("/v2/credentials/role-web").await.status, 200);
}

#[tokio::test]
async fn a_huge_url_and_a_broken_request_are_refused() {
    let server = Server::start().await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let (mut reader, mut writer) = stream.split();
    let huge = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(1 << 20));
    let sent = async { writer.write_all(huge.as_bytes()).await };
    let mut answer = Vec::new();
    let _reset = tokio::join!(sent, reader.read_to_end(&mut answer));
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    assert_eq!(server.send("GET\r\n\r\n").await.status, 400);
    assert_eq!(server.get("/v2/credentials/role-web").await.status, 200);
}
