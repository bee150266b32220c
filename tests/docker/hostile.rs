//! How each call behaves with a daemon that hangs, sends wrong or endless answers, breaks off, or is replaced. A script
//! determines each byte that the daemon sends.

use crate::{request, settings};
use ecs_agent::docker::{Docker, DockerError, Limits, Notice, PullJob};
use ecs_core::model::resource::{VolumeScope, VolumeSpec};
use ecs_core::model::{CreateRequest, OpError, RegistryCredentials, RunState, SecretValues, Span, Timestamp};
use ecs_testing::wait::until;
use serde_json::json;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

const LIMIT: Duration = Duration::from_secs(30);

/// How the daemon answers one request.
#[derive(Clone, Debug)]
enum Answer {
    /// These bytes, then the end.
    Bytes(String),
    /// These bytes, then nothing, with the connection left open.
    Hang(String),
    /// These bytes, then the last of them over and over.
    Flood(String, &'static str),
}

type Script = Arc<dyn Fn(&str) -> Answer + Send + Sync>;

/// A scripted daemon; it ends when dropped.
struct Daemon {
    endpoint: String,
    seen: Arc<Mutex<Vec<String>>>,
    _serving: JoinSet<()>,
}

impl Daemon {
    /// `script` gets the first line of each request.
    async fn start(script: impl Fn(&str) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("tcp://{}", listener.local_addr().unwrap());
        let (seen, mut serving) = (Arc::<Mutex<Vec<String>>>::default(), JoinSet::new());
        let (script, log): (Script, _) = (Arc::new(script), Arc::clone(&seen));
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let (script, log) = (Arc::clone(&script), Arc::clone(&log));
                connections.spawn(async move {
                    let _ = serve(client, script, &log).await; // the client may leave at any time
                });
            }
        });
        Self { endpoint, seen, _serving: serving }
    }

    fn seen(&self, part: &str) -> usize {
        self.seen.lock().unwrap().iter().filter(|line| line.contains(part)).count()
    }

    async fn edge(&self) -> Arc<Docker> {
        Arc::new(Docker::connect(short(&self.endpoint)).await.unwrap())
    }
}

async fn serve(mut client: TcpStream, script: Script, log: &Mutex<Vec<String>>) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.windows(4).any(|four| four == b"\r\n\r\n") {
        head.push(client.read_u8().await?);
    }
    let line = String::from_utf8_lossy(&head).lines().next().unwrap_or_default().to_owned();
    log.lock().unwrap().push(line.clone());
    match script(&line) {
        Answer::Bytes(bytes) => {
            client.write_all(bytes.as_bytes()).await?;
            client.shutdown().await?;
        }
        Answer::Hang(bytes) => {
            client.write_all(bytes.as_bytes()).await?;
            while client.read(&mut [0; 4096]).await? > 0 {}
            std::future::pending::<()>().await;
        }
        Answer::Flood(bytes, more) => {
            client.write_all(bytes.as_bytes()).await?;
            let block = more.repeat(65_536 / more.len());
            loop {
                client.write_all(block.as_bytes()).await?;
            }
        }
    }
    Ok(())
}

fn answer(status: &str, body: &str) -> Answer {
    Answer::Bytes(format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len()))
}

fn versions(lowest: &str, highest: &str) -> Answer {
    answer("200 OK", &json!({"Version": "99", "ApiVersion": highest, "MinAPIVersion": lowest}).to_string())
}

fn container(name: &str, state: serde_json::Value) -> String {
    let labels = json!({
        "com.amazonaws.ecs.task-arn": "t", "com.amazonaws.ecs.cluster": "c", "com.amazonaws.ecs.container-name": name,
    });
    json!({"Id": name, "Name": format!("/{name}"), "Config": {"Labels": labels}, "State": state}).to_string()
}

/// Settings with a different value for every limit, so that an error shows which limit applied.
fn short(endpoint: &str) -> ecs_agent::docker::Settings {
    let millis = Duration::from_millis;
    let mut settings = settings(endpoint, "c");
    settings.limits = Limits {
        version: millis(210),
        ping: millis(220),
        inspect: millis(230),
        inspect_after_event: millis(240),
        inspect_image: millis(250),
        list: millis(260),
        statistics: millis(265),
        stop_margin: millis(270),
        remove: millis(280),
        remove_image: millis(285),
        volume: millis(350),
        info: millis(360),
        plugins: millis(370),
        pull_begin: millis(380),
        load_image: millis(285),
        open_events: millis(290),
        quiet_events: millis(300),
    };
    settings.create_timeout = Span::millis(310);
    settings.start_timeout = Span::millis(320);
    settings.pull_timeout = Span::millis(330);
    settings.manifest_timeout = Span::millis(340);
    settings
}

fn volume(scope: VolumeScope) -> VolumeSpec {
    let (options, labels) = Default::default();
    VolumeSpec {
        runtime_name: "v".to_owned(),
        driver: String::new(),
        options,
        labels,
        scope,
        with_role: false,
        in_network: false,
    }
}

fn main_container() -> CreateRequest {
    request("c", "main", "app", &["true"], json!({}))
}

/// The outcome of a failed call: `failed` or `unknown`, and the text.
fn outcome<T: std::fmt::Debug>(result: Result<T, OpError>) -> (&'static str, String) {
    match result.expect_err("there was no answer") {
        OpError::Failed(failure) => ("failed", failure.to_string()),
        OpError::Unknown(failure) => ("unknown", failure.to_string()),
    }
}

#[test]
fn the_limits_are_those_of_the_go_agent() {
    let secs = Duration::from_secs;
    let limits = Limits {
        version: secs(10),
        ping: secs(5),
        inspect: secs(30),
        inspect_after_event: secs(10),
        inspect_image: secs(30),
        list: secs(10 * 60),
        statistics: secs(18),
        stop_margin: secs(2 * 60),
        remove: secs(5 * 60),
        remove_image: secs(3 * 60),
        volume: secs(5 * 60),
        info: secs(10),
        plugins: secs(60),
        pull_begin: secs(5 * 60),
        load_image: secs(2 * 60),
        open_events: secs(30),
        quiet_events: secs(5 * 60),
    };
    assert_eq!(Limits::default(), limits);
}

#[tokio::test]
async fn every_call_to_a_daemon_that_hangs_ends_at_its_own_limit() {
    let head = "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n";
    // The daemon sends nothing, or only the beginning of an answer.
    for beginning in ["", "HTTP/1.1 200", head, &format!("{head}{{\"Id\": ")] {
        let hang = beginning.to_owned();
        let looks_at_images = std::sync::atomic::AtomicUsize::new(0);
        let daemon = Daemon::start(move |line| match line {
            line if line.contains("/version") => versions("1.12", "1.41"),
            // The first inspection of the image hangs. The one before the create is answered, so that the create itself is sent.
            line if line.contains("/images/")
                && looks_at_images.fetch_add(1, std::sync::atomic::Ordering::Relaxed) > 0 =>
            {
                answer("404 Not Found", r#"{"message": "No such image: app"}"#)
            }
            // A container is inspected before it is removed.
            line if line.contains("/containers/there/json") => {
                answer("200 OK", &container("there", json!({"Running": false})))
            }
            _ => Answer::Hang(hang.clone()),
        })
        .await;
        let edge = daemon.edge().await;
        let waited = |name: &str, what: &str, millis: u32| {
            format!("{name}: Could not transition to {what}; timed out after waiting {millis}ms")
        };
        let timed_out = |what: &str, millis: u32| waited("DockerTimeoutError", what, millis);
        let began = Instant::now();
        assert_eq!(outcome(edge.inspect("main").await), ("failed", timed_out("inspecting", 230)));
        assert_eq!(outcome(edge.image_present("app").await), ("failed", timed_out("inspecting", 250)));
        assert_eq!(outcome(edge.inventory().await), ("failed", timed_out("listing", 260)));
        assert_eq!(outcome(edge.stop("main", Span::millis(10)).await), ("unknown", timed_out("stopped", 280)));
        assert_eq!(outcome(edge.remove("there").await), ("unknown", timed_out("removing", 280)));
        assert_eq!(
            outcome(edge.create(&main_container(), &SecretValues::default()).await),
            ("unknown", timed_out("created", 310))
        );
        assert_eq!(outcome(edge.start("main").await), ("unknown", timed_out("started", 320)));
        let task = main_container().task;
        let (own, found) = (volume(VolumeScope::Task), volume(VolumeScope::Shared { autoprovision: false }));
        let made = edge.create_volume(&task, &own, None, 0, false).await;
        assert_eq!(outcome(made), ("unknown", timed_out("creating volume", 350)));
        assert_eq!(outcome(edge.remove_volume(&own).await), ("unknown", timed_out("removing volume", 350)));
        let (kind, text) = outcome(edge.create_volume(&task, &found, None, 0, false).await);
        assert!(kind == "failed" && text.ends_with("inspecting volume; timed out after waiting 350ms"), "{text}");
        assert_eq!(outcome(edge.cgroup_driver().await), ("failed", timed_out("info", 360)));
        assert_eq!(outcome(edge.volume_drivers().await), ("failed", timed_out("listing plugins", 370)));
        let progress = tokio::sync::watch::Sender::default();
        let job = PullJob {
            image: "app",
            digest: None,
            waits_for_limits: false,
            progress: &progress,
            now: &Timestamp::default,
        };
        let pulled = edge.pull(&job, || async { Ok(RegistryCredentials::default()) }).await;
        assert_eq!(outcome(pulled), ("failed", timed_out("pulled", 330)));
        let (kind, text) = outcome(edge.resolve_manifest(&job, || async { Ok(RegistryCredentials::default()) }).await);
        assert!(kind == "failed" && text.contains("MANIFEST_PULLED; timed out after waiting "), "{text}");
        let statistics = edge.statistics(&"main".into()).await.unwrap_err();
        assert!(
            matches!(statistics, DockerError::Timeout(limit) if limit == Duration::from_millis(265)),
            "{statistics}"
        );
        if beginning.len() < head.len() {
            let ping = edge.ping().await.unwrap_err();
            assert!(matches!(ping, DockerError::Timeout(limit) if limit == Duration::from_millis(220)), "{ping}");
        }
        assert!(began.elapsed() < LIMIT);
    }
    let silent = Daemon::start(|_| Answer::Hang(String::new())).await;
    let error = Docker::connect(short(&silent.endpoint)).await.unwrap_err();
    assert!(matches!(error, DockerError::Timeout(limit) if limit == Duration::from_millis(210)), "{error}");
}

/// The two forms in which Docker passes on a registry's message: as an error status, and as a line of the progress.
fn passes_on(message: &str) -> [(&'static str, Answer); 2] {
    let line = json!({"errorDetail": {"message": message}, "error": message}).to_string();
    let progress = format!("{}\r\n{line}\r\n", json!({"status": "Pulling", "id": "latest"}));
    [
        ("status", answer("500 Internal Server Error", &json!({"message": message}).to_string())),
        ("progress", answer("200 OK", &progress)),
    ]
}

#[tokio::test]
async fn errors_of_megabytes_are_cut_and_cleaned() {
    let message = format!("denied:\n2026 ERROR forged \u{1b}[2J{}", "ä".repeat(5 << 20));
    let [(_, other), _] = passes_on(&format!("denied:\n{}", "y".repeat(3 << 20)));
    for (how, reply) in passes_on(&message) {
        let other = other.clone();
        let daemon = Daemon::start(move |line| match line {
            line if line.contains("/version") => versions("1.12", "1.41"),
            line if line.contains("/images/create") => reply.clone(),
            _ => other.clone(),
        })
        .await;
        let mut patient = short(&daemon.endpoint);
        (patient.limits, patient.pull_timeout, patient.manifest_timeout) =
            (Limits::default(), Span::secs(3), Span::secs(3));
        let edge = Docker::connect(patient).await.unwrap();
        let progress = tokio::sync::watch::Sender::default();
        let job = PullJob {
            image: "app",
            digest: None,
            waits_for_limits: false,
            progress: &progress,
            now: &Timestamp::default,
        };
        let mut texts = vec![
            outcome(edge.inspect("main").await).1,
            outcome(edge.create_volume(&main_container().task, &volume(VolumeScope::Task), None, 0, false).await).1,
            edge.ping().await.unwrap_err().to_string(),
        ];
        // These calls retry until their time limit; meanwhile the failure of the last attempt is shown.
        outcome(edge.pull(&job, || async { Ok(RegistryCredentials::default()) }).await);
        texts.extend(progress.borrow().failure.clone());
        outcome(edge.resolve_manifest(&job, || async { Ok(RegistryCredentials::default()) }).await);
        texts.extend(progress.borrow().failure.clone());
        assert_eq!(texts.len(), 5);
        for text in texts {
            assert!(text.len() <= 4200 && !text.contains(char::is_control), "{how}: {} bytes", text.len());
            assert!(text.contains("denied: ") && text.ends_with(" [cut]"), "{how}: {}", &text[..60]);
        }
    }
}

/// Invalid answers, each with a description.
fn nonsense() -> Vec<(&'static str, Answer)> {
    let ok = "HTTP/1.1 200 OK\r\n";
    vec![
        ("no answer", Answer::Bytes(String::new())),
        ("half a head", Answer::Bytes("HTTP/1.1 200".to_owned())),
        ("not HTTP", Answer::Bytes("SSH-2.0-OpenSSH_9.2\r\n".to_owned())),
        ("cut after the head", Answer::Bytes(format!("{ok}content-length: 9\r\n\r\n"))),
        ("cut in the body", Answer::Bytes(format!("{ok}content-length: 900\r\n\r\n{{\"Id\": \"main\""))),
        ("bad chunks", Answer::Bytes(format!("{ok}transfer-encoding: chunked\r\n\r\nzz\r\n{{}}\r\n"))),
        ("cut between chunks", Answer::Bytes(format!("{ok}transfer-encoding: chunked\r\n\r\n2\r\n{{}}\r\n"))),
        ("a proxy's page", answer("502 Bad Gateway", "<html><body>502 Bad Gateway</body></html>")),
        ("a page that is not there", answer("404 Not Found", "<html>404</html>")),
        ("nothing, not found", answer("404 Not Found", "")),
        ("nothing, broken", answer("500 Internal Server Error", "")),
        ("a flood", Answer::Flood(format!("{ok}connection: close\r\n\r\n"), " ")),
    ]
}

#[tokio::test]
async fn nonsense_is_never_taken_for_a_fact() {
    let looks_only = ["", "null", "{}", "[{}]", "7", "\"main\"", "{\"Id\": 7}", "not json", "{\"message\": \"odd\"}"]
        .map(|body| ("not a container", answer("200 OK", body)));
    let another = container("other", json!({"Running": false, "StartedAt": "2026-01-01T00:00:00Z"}));
    let stateless = container("main", json!({"StartedAt": "2026-01-01T00:00:00Z", "ExitCode": -1}));
    let lies = [("another container", answer("200 OK", &another)), ("no state", answer("200 OK", &stateless))];
    let unknown_path = ("a path it does not know", answer("404 Not Found", "{\"message\":\"page not found\"}"));
    for (what, reply) in nonsense().into_iter().chain(looks_only).chain(lies).chain([unknown_path]) {
        let script = reply.clone();
        let daemon = Daemon::start(move |line| match line {
            line if line.contains("/version") => versions("1.12", "1.41"),
            line if line.starts_with("GET") => script.clone(),
            _ => answer("204 No Content", ""),
        })
        .await;
        let mut patient = short(&daemon.endpoint);
        patient.limits = Limits::default(); // a flood must end at the size limit, not at the time limit
        let edge = Docker::connect(patient).await.unwrap();
        assert_eq!(outcome(edge.inspect("main").await).0, "failed", "{what}: {reply:?}");
        // The start and the stop were accepted, and their result cannot be inspected.
        assert_eq!(outcome(edge.start("main").await).0, "unknown", "{what}: {reply:?}");
        assert_eq!(outcome(edge.stop("main", Span::secs(1)).await).0, "unknown", "{what}: {reply:?}");
        match edge.inventory().await {
            Err(OpError::Failed(_)) => {}
            Ok(seen) => assert!(seen.is_empty(), "{what}: {seen:?}"),
            Err(OpError::Unknown(failure)) => panic!("{what}: a list changes nothing: {failure}"),
        }
    }
}

#[tokio::test]
async fn a_change_that_is_answered_with_nonsense_may_have_happened() {
    let alive = container("main", json!({"Running": true}));
    for (what, reply) in nonsense() {
        let (script, alive) = (reply.clone(), alive.clone());
        let daemon = Daemon::start(move |line| match line {
            line if line.contains("/version") => versions("1.12", "1.41"),
            line if line.starts_with("GET") => answer("200 OK", &alive),
            _ => script.clone(),
        })
        .await;
        let edge = daemon.edge().await;
        for (call, result) in [
            ("create", edge.create(&main_container(), &SecretValues::default()).await.map(drop)),
            ("start", edge.start("main").await.map(drop)),
            ("stop", edge.stop("main", Span::secs(1)).await.map(drop)),
            ("remove", edge.remove("main").await),
            (
                "make a volume",
                edge.create_volume(&main_container().task, &volume(VolumeScope::Task), None, 0, false).await,
            ),
            ("remove a volume", edge.remove_volume(&volume(VolumeScope::Task)).await),
        ] {
            assert_eq!(outcome(result).0, "unknown", "{call}, {what}: {reply:?}");
        }
    }
}

#[tokio::test]
async fn a_daemon_of_another_version_is_spoken_to_in_its_own() {
    let ranges = [("1.12", "1.41"), ("1.44", "1.52"), ("1.24", "1.40")];
    let turn = Arc::new(Mutex::new(0));
    let now = Arc::clone(&turn);
    let alive = container("main", json!({"Running": true}));
    let daemon = Daemon::start(move |line| {
        let (lowest, highest) = ranges[*now.lock().unwrap()];
        let minor = |text: &str| text.trim_start_matches("1.").parse::<u32>().unwrap();
        if line.starts_with("GET /version ") {
            return versions(lowest, highest);
        }
        let spoken = line.split('/').nth(1).unwrap().trim_start_matches('v').to_owned();
        let refusal = if minor(&spoken) < minor(lowest) {
            format!("client version {spoken} is too old. Minimum supported API version is {lowest}, please upgrade your client to a newer version")
        } else if minor(&spoken) > minor(highest) {
            format!("client version {spoken} is too new. Maximum supported API version is {highest}")
        } else if line.contains("/json") {
            return answer("200 OK", &alive);
        } else {
            return answer("204 No Content", "");
        };
        answer("400 Bad Request", &json!({"message": refusal}).to_string())
    })
    .await;
    let edge = daemon.edge().await;
    for (number, (looks, changes)) in [("1.41", "1.21"), ("1.44", "1.44"), ("1.40", "1.24")].into_iter().enumerate() {
        *turn.lock().unwrap() = number;
        // The first request after the replacement is a change.
        let seen = edge.start("main").await.unwrap();
        assert_eq!(seen.state, RunState::Running, "{changes}");
        assert!(daemon.seen(&format!("POST /v{changes}/containers/main/start")) == 1, "{:?}", daemon.seen);
        assert!(daemon.seen(&format!("GET /v{looks}/containers/main/json")) >= 1, "{:?}", daemon.seen);
        edge.remove("main").await.unwrap();
        assert_eq!(daemon.seen(&format!("DELETE /v{changes}/")), 1);
    }
    assert_eq!(daemon.seen("GET /version "), 3, "asked again only after a refusal: {:?}", daemon.seen);
}

#[tokio::test]
async fn a_create_speaks_the_version_of_its_settings() {
    let alive = container("c-main", json!({"Running": false}));
    let daemon = Daemon::start(move |line| match line {
        line if line.contains("/version") => versions("1.12", "1.41"),
        line if line.starts_with("GET") => answer("200 OK", &alive),
        _ => answer("201 Created", "{}"),
    })
    .await;
    let edge = daemon.edge().await;
    for (wanted, spoken) in [("", "1.21"), ("1.17", "1.21"), ("1.30", "1.30")] {
        let mut request = main_container();
        request.spec.engine_settings.api_version = wanted.to_owned();
        let before = daemon.seen(&format!("POST /v{spoken}/containers/create"));
        // The script's container belongs to another task, so the created one cannot be inspected.
        assert_eq!(outcome(edge.create(&request, &SecretValues::default()).await).0, "unknown");
        assert_eq!(daemon.seen(&format!("POST /v{spoken}/containers/create")), before + 1, "{wanted}");
    }
    let mut request = main_container();
    request.spec.engine_settings.api_version = "1.44".to_owned();
    let text = "CannotGetDockerClientVersionError: docker client factory: client not found for docker version: 1.44";
    assert_eq!(outcome(edge.create(&request, &SecretValues::default()).await), ("failed", text.to_owned()));
}

#[tokio::test]
async fn a_daemon_that_refuses_every_version_is_not_asked_for_ever() {
    let refusal = json!({"message": "client version 1.41 is too old. Minimum supported API version is 9"}).to_string();
    let daemon = Daemon::start(move |line| match line {
        line if line.contains("/version") => versions("1.12", "1.41"),
        _ => answer("400 Bad Request", &refusal),
    })
    .await;
    let edge = daemon.edge().await;
    assert_eq!(outcome(edge.inspect("main").await).0, "failed");
    assert_eq!((daemon.seen("/containers/main"), daemon.seen("GET /version ")), (2, 2));
}

/// Follows the events of a daemon until `enough` returns true, and returns the notices.
async fn follow(edge: &Docker, mut enough: impl FnMut(&[Notice]) -> bool) -> Vec<Notice> {
    let (sender, mut receiver) = tokio::sync::mpsc::channel(8);
    let mut notices = Vec::new();
    let listen = until("the notices", LIMIT, async || {
        if let Ok(Some(notice)) = tokio::time::timeout(Duration::from_millis(20), receiver.recv()).await {
            notices.push(notice);
        }
        enough(&notices).then_some(())
    });
    tokio::select! {
        () = edge.watch(sender) => panic!("it follows forever"),
        () = listen => {}
    }
    notices
}

fn events(lines: &[serde_json::Value]) -> Answer {
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    Answer::Hang(format!("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{text}"))
}

fn event(action: &str, id: &str, time: i64) -> serde_json::Value {
    let labels = json!({"com.amazonaws.ecs.task-arn": "t", "com.amazonaws.ecs.container-name": id, "exitCode": "-9"});
    json!({"Type": "container", "Action": action, "Actor": {"ID": id, "Attributes": labels}, "timeNano": time})
}

#[tokio::test]
async fn events_only_say_where_to_look() {
    let alive = container("alive", json!({"Running": true}));
    let last = container("last", json!({"Running": true}));
    let daemon = Daemon::start(move |line| match line {
        line if line.contains("/version") => versions("1.12", "1.41"),
        line if line.contains("/events") => events(&[
            event("destroy", "alive", 9),
            event("die", "alive", -9),
            event("die", "alive", i64::MAX),
            event("start", "stranger", 1),
            event("die", "stranger", 1),
            event("die", "gone", 2),
            event("destroy", "gone", 2),
            event("destroy", "gone", 2),
            json!({"Type": "container", "Action": "die", "Actor": {"ID": "../../info", "Attributes": []}}),
            event("start", "last", 3),
        ]),
        line if line.contains("/containers/alive/") => answer("200 OK", &alive),
        line if line.contains("/containers/last/") => answer("200 OK", &last),
        _ => answer("404 Not Found", "{\"message\": \"No such container: x\"}"),
    })
    .await;
    let mut patient = short(&daemon.endpoint);
    patient.limits = Limits::default();
    let edge = Docker::connect(patient).await.unwrap();
    let notices = follow(&edge, |notices| notices.len() >= 4).await;
    let (mut gaps, mut gone, mut running) = (0, Vec::new(), Vec::new());
    for notice in notices {
        match notice {
            Notice::EventsMissed => gaps += 1,
            Notice::Removed { runtime_id, exit_code, .. } => gone.push((runtime_id.to_string(), exit_code)),
            Notice::Seen(seen) => {
                assert_eq!((seen.state, seen.exit_code), (RunState::Running, None));
                running.push(seen.runtime_id.to_string());
            }
        }
    }
    running.sort();
    assert_eq!(
        (gaps, gone, running),
        (1, vec![("gone".to_owned(), Some(-9))], vec!["alive".to_owned(), "last".to_owned()])
    );
}

#[tokio::test]
async fn a_stream_that_never_lasts_is_opened_ever_more_slowly() {
    let short_lived = |line: &str| match line {
        line if line.contains("/version") => versions("1.12", "1.41"),
        line if line.contains("/events") => {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as i64;
            answer("200 OK", &format!("{}\n", event("start", "stranger", now)))
        }
        _ => answer("404 Not Found", "{\"message\": \"No such container: x\"}"),
    };
    let refused = |line: &str| match line {
        line if line.contains("/version") => versions("1.12", "1.41"),
        _ => answer("503 Service Unavailable", "<html>"),
    };
    let flooded = |line: &str| match line {
        line if line.contains("/version") => versions("1.12", "1.41"),
        line if line.contains("/events") => {
            Answer::Flood("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n".to_owned(), "x")
        }
        _ => answer("404 Not Found", "{\"message\": \"No such container: x\"}"),
    };
    for daemon in [Daemon::start(short_lived).await, Daemon::start(refused).await, Daemon::start(flooded).await] {
        let edge = daemon.edge().await;
        let began = Instant::now();
        follow(&edge, |_| began.elapsed() > Duration::from_secs(4)).await;
        // After 0.2, 0.6, 1.4 and 3.0 seconds, and up to a fifth later.
        let opened = daemon.seen("/events");
        assert!((2..=5).contains(&opened), "{opened} openings: {:?}", daemon.seen);
    }
}

#[tokio::test]
async fn a_quiet_stream_and_one_that_never_begins_are_reopened() {
    for head in ["HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n", ""] {
        let daemon = Daemon::start(move |line| match line {
            line if line.contains("/version") => versions("1.12", "1.41"),
            _ => Answer::Hang(head.to_owned()),
        })
        .await;
        let edge = daemon.edge().await;
        follow(&edge, |_| daemon.seen("/events") >= 3).await;
    }
}
