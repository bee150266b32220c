use super::super::tests::metadata;
use super::super::{Audit, Metadata, PeerCheckMode, Place, Rates, StatsLookup, TagLookup, TagsProblem, Tasks, answers};
use super::*;
use crate::http::Answers;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use ecs_core::model::observation::{Mount, Network};
use ecs_core::model::task::{Association, LogSettings};
use ecs_core::model::view::{ContainerView, TaskView, View};
use ecs_core::model::{
    ContainerKind, ContainerStatus, EndpointId, Health, PortBinding, Protocol, TaskStatus, TextMap, Timestamp,
};
use futures_util::FutureExt;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Mutex;
use tokio::sync::watch;

const ARN: &str = "arn:aws:ecs:us-west-2:123456789012:task/judge/319892675625455485f5c720b4cd7692";
const INSTANCE: &str = "arn:aws:ecs:us-west-2:123456789012:container-instance/judge/0123456789abcdef0123456789abcdef";
const WEB: &str = "1cc22cbf0108bdb58731612fad20d18f5f854e58b71f814f9aec7931e109787e";
const SIDE: &str = "3eb984c569de1673568ee4794f26d59a068515efdbbfaaeedc04eec18ddf0547";
/// Endpoint ids of the two containers.
const IDS: [&str; 2] = ["11111111-aaaa-4bbb-8ccc-dddddddddddd", "22222222-aaaa-4bbb-8ccc-dddddddddddd"];

/// A recording: `tests/golden/tmds_<name>.json`.
fn golden(name: &str) -> Value {
    let path = format!("{}/tests/golden/{name}.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// The clocks agree in these tests.
fn moment(text: &str) -> Timestamp {
    let time = aws_smithy_types::DateTime::from_str(text, aws_smithy_types::date_time::Format::DateTime).unwrap();
    Timestamp(time.to_millis().unwrap() as u64)
}

fn labels(container: &str, more: &[(&str, &str)]) -> TextMap {
    let own = [
        ("com.amazonaws.ecs.cluster", "judge"),
        ("com.amazonaws.ecs.container-name", container),
        ("com.amazonaws.ecs.task-arn", ARN),
        ("com.amazonaws.ecs.task-definition-family", "judge-family"),
        ("com.amazonaws.ecs.task-definition-version", "7"),
    ];
    let all = own.iter().chain(more).map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    all.collect::<BTreeMap<_, _>>().into()
}

fn mounts() -> Vec<Mount> {
    let mount = |volume: &str, destination: &str| Mount {
        source: match volume {
            "" => "/srv".to_owned(),
            _ => format!("/var/lib/docker/volumes/ecs-judge-family-7-{volume}/_data"),
        },
        volume: if volume.is_empty() { String::new() } else { format!("ecs-judge-family-7-{volume}") },
        destination: destination.to_owned(),
    };
    vec![
        mount("scratch-c2fe96a1c68dd6aeba01", "/scratch"),
        mount("", "/host"),
        mount("anon-e0a2f18481e799b2bf01", "/anon"),
    ]
}

fn bridge(ipv4: &str) -> Vec<Network> {
    vec![Network { name: "bridge".to_owned(), ipv4: ipv4.to_owned(), ipv6: String::new() }]
}

fn web() -> ContainerView {
    let bound = |container_port, host_port, protocol| {
        ["0.0.0.0", "::"].map(|ip| PortBinding { container_port, host_port, bind_ip: ip.to_owned(), protocol })
    };
    ContainerView {
        name: "web".into(),
        endpoint_id: Some(EndpointId::from(IDS[0])),
        runtime_id: Some(WEB.into()),
        runtime_name: "ecs-judge-family-7-web-d49fe3fdbfdec3f7a101".to_owned(),
        image: "localhost:5001/judge/open:latest".to_owned(),
        image_id: "sha256:9cc0c78e30c408a5811a254937703654cb5055ee50b8386f3e6d6f3c10c7d186".to_owned(),
        desired: ContainerStatus::Running,
        known: ContainerStatus::Running,
        created_at: Some("2026-11-21T23:36:38.630605819Z".to_owned()),
        started_at: Some("2026-11-21T23:36:38.971697346Z".to_owned()),
        cpu: 128,
        memory: 64,
        ports_are_bound: true,
        ports: [bound(80, 28480, Protocol::Tcp), bound(81, 32768, Protocol::Udp)].concat(),
        mounts: mounts(),
        networks: bridge("172.17.0.2"),
        labels: labels("web", &[("my", "label")]),
        log: LogSettings {
            driver: "json-file".to_owned(),
            options: BTreeMap::from([("max-size".to_owned(), "1m".to_owned())]).into(),
        },
        has_health_check: true,
        health: Health::Healthy,
        health_since: Some(moment("2026-11-21T23:36:40.025Z")),
        ..ContainerView::default()
    }
}

fn side() -> ContainerView {
    ContainerView {
        name: "side".into(),
        endpoint_id: Some(EndpointId::from(IDS[1])),
        runtime_id: Some(SIDE.into()),
        runtime_name: "ecs-judge-family-7-side-dcfbc080e8f489bb0d00".to_owned(),
        image: "localhost:5000/judge/private:latest".to_owned(),
        image_id: "sha256:ca7cc98e19a4634fb80fafd94bca301da3b74cb2661a491b5289a6766fefb4a3".to_owned(),
        desired: ContainerStatus::Running,
        known: ContainerStatus::Running,
        created_at: Some("2026-11-21T23:36:44.073600397Z".to_owned()),
        started_at: Some("2026-11-21T23:36:44.378609522Z".to_owned()),
        cpu: 10,
        memory: 32,
        mounts: mounts(),
        networks: bridge("172.17.0.3"),
        labels: labels("side", &[]),
        ..ContainerView::default()
    }
}

/// The recorded task.
fn task_with(containers: Vec<ContainerView>) -> TaskView {
    TaskView {
        arn: ARN.into(),
        family: "judge-family".to_owned(),
        version: "7".to_owned(),
        launch_type: "EC2".to_owned(),
        cpu_micros: 500_000,
        memory: 256,
        desired: TaskStatus::Running,
        known: TaskStatus::Running,
        pull_started_at: Some(moment("2026-11-21T23:36:38.540Z")),
        pull_stopped_at: Some(moment("2026-11-21T23:36:44.059Z")),
        containers,
        ..TaskView::default()
    }
}

fn place() -> Place {
    Place {
        cluster: "judge".to_owned(),
        container_instance: INSTANCE.to_owned(),
        availability_zone: "us-west-2b".to_owned(),
        availability_zone_id: "usw2-az2".to_owned(),
        vpc_id: "vpc-0123456789abcdef0".to_owned(),
    }
}

fn no_tags() -> TagLookup {
    metadata().tags
}

struct Server {
    answers: Answers,
    view: watch::Sender<Arc<View>>,
}

impl Server {
    fn new(task: TaskView, place: Place, tags: TagLookup) -> Self {
        Self::with(task, Metadata { place, tags, ..metadata() })
    }

    fn with(task: TaskView, metadata: Metadata) -> Self {
        let view = Arc::new(View { tasks: vec![Arc::new(task)], ..View::default() });
        let (view, readers) = watch::channel(view);
        let audit = Audit { cluster: String::new(), container_instance: String::new(), sink: None };
        let rates = Rates { steady: 1000, burst: 1000 };
        let work = crate::http::task_metadata::fakes::work(&Arc::default());
        let sources =
            Sources::new(Tasks::new(readers), metadata, Arc::new(|_| None), work, audit, rates, PeerCheckMode::Off);
        Self { answers: answers(sources), view }
    }

    fn recorded() -> Self {
        Self::new(task_with(vec![web(), side()]), place(), no_tags())
    }

    /// With these statistics of every container.
    fn recorded_with(stats: StatsLookup) -> Self {
        Self::with(task_with(vec![web(), side()]), Metadata { place: place(), stats, ..metadata() })
    }

    /// Status, content type and body.
    async fn ask(&self, path: &str) -> (u16, String, String) {
        let request = Request::builder().uri(path).body(Body::empty()).unwrap();
        let answer = self.answers.answer(request).await;
        let kind = answer.headers()["content-type"].to_str().unwrap().to_owned();
        let status = answer.status().as_u16();
        let body = to_bytes(answer.into_body(), usize::MAX).await.unwrap();
        (status, kind, String::from_utf8(body.to_vec()).unwrap())
    }

    async fn json(&self, path: &str) -> Value {
        let (status, _, body) = self.ask(path).await;
        assert_eq!(status, 200, "{path}: {body}");
        serde_json::from_str(&body).unwrap()
    }

    /// Compares an answer with a recording. The agent's clock has milliseconds, so its times have no more.
    async fn compare(&self, path: &str, name: &str) {
        let (status, kind, body) = self.ask(path).await;
        let body: Value = serde_json::from_str(&body).unwrap_or(Value::String(body));
        let mut recorded = golden(name);
        cut_times(&mut recorded["body"]);
        assert_eq!(json!({"status": status, "content_type": kind, "body": body}), recorded, "{path}");
    }
}

/// Cuts to milliseconds the recorded times of the agent itself, and sorts containers: the Go agent lists them in any order.
fn cut_times(value: &mut Value) {
    match value {
        Value::Object(object) => {
            for (name, member) in object.iter_mut() {
                match member {
                    Value::String(text)
                        if ["PullStartedAt", "PullStoppedAt", "statusSince"].contains(&name.as_str()) =>
                    {
                        *text = moment(text).rfc3339();
                    }
                    _ => cut_times(member),
                }
            }
            if let Some(Value::Array(containers)) = object.get_mut("Containers") {
                containers.sort_by_key(|container| container["Name"] != "web");
            }
        }
        Value::Array(values) => values.iter_mut().for_each(cut_times),
        _ => {}
    }
}

#[tokio::test]
async fn the_recorded_documents_come_back() {
    let server = Server::recorded();
    let [web, side] = IDS;
    for (path, name) in [
        (format!("/v3/{web}"), "tmds_v3_container"),
        (format!("/v3/{side}"), "tmds_v3_container_side"),
        (format!("/v3/{web}/task"), "tmds_v3_task"),
        (format!("/v3/{side}/taskWithTags"), "tmds_v3_task_with_tags"),
        (format!("/v3/{web}/associations/elastic-inference"), "tmds_v3_associations"),
        (format!("/v4/{web}"), "tmds_v4_container"),
        (format!("/v4/{side}"), "tmds_v4_container_side"),
        (format!("/v4/{side}/task"), "tmds_v4_task"),
        (format!("/v4/{web}/taskWithTags"), "tmds_v4_task_with_tags"),
        (format!("/v4/{web}/associations/elastic-inference"), "tmds_v4_associations"),
    ] {
        server.compare(&path, name).await;
    }
}

#[tokio::test]
async fn the_recorded_errors_come_back() {
    let server = Server::recorded();
    for (path, name) in [
        ("/v3/nope", "tmds_v3_unknown"),
        ("/v3/nope/task", "tmds_v3_unknown_task"),
        ("/v3/nope/stats", "tmds_v3_unknown_stats"),
        ("/v4/nope", "tmds_v4_unknown"),
        ("/v4/nope/task", "tmds_v4_unknown_task"),
        ("/v4/nope/stats", "tmds_v4_unknown_stats"),
    ] {
        server.compare(path, name).await;
    }
}

/// A task with a value for every member, except for a failure of its own tags. The tags of the instance are refused.
fn full() -> Server {
    let container = ContainerView {
        exit_code: Some(0),
        finished_at: Some("2026-11-21T23:37:00Z".to_owned()),
        arn: "arn:aws:ecs:us-west-2:123456789012:container/judge/c".to_owned(),
        restarts: Some(0),
        ..web()
    };
    let task = TaskView {
        service_name: "shop".to_owned(),
        execution_stopped_at: Some(moment("2026-11-21T23:37:00Z")),
        ..task_with(vec![container])
    };
    let tags: TagLookup = Arc::new(|question| {
        let [code, message, request_id] = ["x", "y", "z"].map(str::to_owned);
        let answer = match question.resource == INSTANCE {
            true => Err(TagsProblem { code, message, status: Some(400), request_id }),
            false => Ok(BTreeMap::from([("team".to_owned(), "a<b".to_owned())])),
        };
        async { answer }.boxed()
    });
    Server::new(task, place(), tags)
}

/// Checks that the body has these keys in this order; other keys may be between them.
fn check_order(body: &str, keys: &str) {
    let mut rest = body;
    for key in keys.split_whitespace() {
        let at = rest.find(&format!("\"{key}\":"));
        rest = &rest[at.unwrap_or_else(|| panic!("{key} is not after the others in {body}")) + 1..];
    }
}

/// The members that containers of both versions have first.
const FIRST: &str = "DockerId Name DockerName Image ImageID Ports Labels DesiredStatus KnownStatus ExitCode Limits CreatedAt \
                     StartedAt FinishedAt Type";

/// The order is that of the Go agent (spec `task-metadata.md` §4.2, §6.2).
#[tokio::test]
async fn members_of_a_container_are_in_order() {
    let server = full();
    let v3 = server.ask(&format!("/v3/{}", IDS[0])).await.2;
    check_order(
        &v3,
        &format!("{FIRST} Networks NetworkMode IPv4Addresses Health status statusSince Volumes DockerName Source"),
    );
    let v4 = server.ask(&format!("/v4/{}", IDS[0])).await.2;
    check_order(&v4, &format!("{FIRST} Health Volumes LogDriver LogOptions ContainerARN Networks RestartCount"));
    check_order(&v4, "Ports ContainerPort Protocol HostPort HostIp");
}

/// The order is that of the Go agent (spec `task-metadata.md` §4.1, §6.1).
#[tokio::test]
async fn members_of_a_task_are_in_order() {
    let server = full();
    let v4 = server.ask(&format!("/v4/{}/taskWithTags", IDS[0])).await.2;
    check_order(
        &v4,
        "Cluster TaskARN Family Revision DesiredStatus KnownStatus Limits CPU Memory PullStartedAt PullStoppedAt \
         ExecutionStoppedAt AvailabilityZone TaskTags LaunchType Errors ErrorField ErrorCode ErrorMessage StatusCode RequestId \
         ResourceARN Containers VPCID ServiceName FaultInjectionEnabled AvailabilityZoneID",
    );
    assert!(v4.contains(r#""TaskTags":{"team":"a\u003cb"}"#) && v4.contains(INSTANCE), "{v4}");
    let v3 = server.ask(&format!("/v3/{}/taskWithTags", IDS[0])).await.2;
    check_order(&v3, "KnownStatus Containers PullStartedAt AvailabilityZone TaskTags");
    for member in ["Errors", "VPCID", "LaunchType", "LogDriver", "RestartCount", "HostIp", "ContainerARN"] {
        assert!(!v3.contains(&format!("\"{member}\"")), "{member} is a member of version 4: {v3}");
    }
}

#[tokio::test]
async fn what_is_not_known_is_left_out() {
    let bare = ContainerView {
        runtime_id: Some("id".into()),
        endpoint_id: Some(EndpointId::from(IDS[0])),
        networks: bridge(""),
        has_health_check: true,
        ports: web().ports,
        ..ContainerView::default()
    };
    let pulled = ContainerView { name: "later".into(), known: ContainerStatus::Pulled, ..ContainerView::default() };
    let waiting =
        ContainerView { name: "last".into(), known: ContainerStatus::ManifestPulled, ..ContainerView::default() };
    let pause =
        ContainerView { kind: ContainerKind::Pause, runtime_id: Some("pause".into()), ..ContainerView::default() };
    let task = TaskView { arn: ARN.into(), containers: vec![bare, pulled, waiting, pause], ..TaskView::default() };
    let server = Server::new(task, Place::default(), no_tags());
    let container = json!({
        "DockerId": "id", "Name": "", "DockerName": "", "Image": "", "ImageID": "", "DesiredStatus": "NONE",
        "KnownStatus": "NONE", "Limits": {"CPU": 2, "Memory": 0}, "Type": "NORMAL", "Health": {},
        "Networks": [{"NetworkMode": "bridge", "IPv4Addresses": [""]}],
    });
    let [v3, v4] = [format!("/v3/{}", IDS[0]), format!("/v4/{}", IDS[0])];
    assert_eq!(server.json(&v3).await, container);
    assert_eq!(server.json(&v4).await, container);
    let names = |task: &Value| {
        let all = task["Containers"].as_array().unwrap().iter();
        all.map(|container| (container["DockerId"].clone(), container["Type"].clone())).collect::<Vec<_>>()
    };
    let [id, later] = [(json!("id"), json!("NORMAL")), (json!(""), json!("NORMAL"))];
    let pause = (json!("pause"), json!("NAMESPACE_PAUSE"));
    let task = server.json(&format!("{v4}/task")).await;
    assert_eq!(names(&task), [id.clone(), pause.clone(), later]);
    let keys: Vec<_> = task.as_object().unwrap().keys().map(String::as_str).collect();
    let always = [
        "Cluster",
        "Containers",
        "DesiredStatus",
        "Family",
        "FaultInjectionEnabled",
        "KnownStatus",
        "Revision",
        "TaskARN",
    ];
    assert_eq!(keys, always);
    assert_eq!(names(&server.json(&format!("{v3}/task")).await), [id, pause]);
}

#[tokio::test]
async fn limits_of_a_task_are_numbers_as_go_writes_them() {
    for (cpu_micros, memory, text) in [
        (250_000, 0, r#""Limits":{"CPU":0.25}"#),
        (2_000_000, 512, r#""Limits":{"CPU":2,"Memory":512}"#),
        (0, 64, r#""Limits":{"Memory":64}"#),
        (1_500_000, 1, r#""Limits":{"CPU":1.5,"Memory":1}"#),
    ] {
        let task = TaskView { cpu_micros, memory, ..task_with(vec![web()]) };
        let body = Server::new(task, place(), no_tags()).ask(&format!("/v4/{}/task", IDS[0])).await.2;
        assert!(body.contains(text), "{body}");
    }
}

#[tokio::test]
async fn health_and_addresses_are_shown_in_full() {
    let mut container = web();
    container.health = Health::Unhealthy;
    container.health_check.exit_code = 7;
    container.health_check.output = "line 1\nline <2>\n".to_owned();
    container.networks.push(Network {
        name: "own".to_owned(),
        ipv4: "10.0.0.2".to_owned(),
        ipv6: "fd00::2".to_owned(),
    });
    let server = Server::new(task_with(vec![container]), place(), no_tags());
    let v4 = server.json(&format!("/v4/{}", IDS[0])).await;
    assert_eq!(v4["Health"]["exitCode"], 7);
    assert_eq!(v4["Health"]["output"], "line 1\nline <2>\n");
    assert_eq!(
        v4["Networks"][1],
        json!({"NetworkMode": "own", "IPv4Addresses": ["10.0.0.2"], "IPv6Addresses": ["fd00::2"]})
    );
    let v3 = server.json(&format!("/v3/{}", IDS[0])).await;
    assert_eq!(v3["Networks"][1], json!({"NetworkMode": "own", "IPv4Addresses": ["10.0.0.2"]}));
}

#[tokio::test]
async fn statistics_are_answered_with_what_is_known() {
    let in_both = |text: &str| {
        let mut ids: Vec<_> = [web(), side()].into_iter().filter_map(|container| container.runtime_id).collect();
        ids.sort();
        let members: Vec<_> = ids.iter().map(|id| format!("\"{}\":{text}", id.as_str())).collect();
        format!("{{{}}}", members.join(","))
    };
    let unable = format!("\"Unable to get container stats for: {WEB}\"");
    let id = IDS[0];
    for (known, version, status, container, in_task) in [
        (LastStatistics::Untracked, "v3", 400, unable.as_str(), "null"),
        (LastStatistics::Untracked, "v4", 500, &unable, "{}"),
        (LastStatistics::Waiting, "v3", 200, "null", "null"),
        (LastStatistics::Waiting, "v4", 200, "{}", "{}"),
    ] {
        let server = Server::recorded_with(Arc::new(move |_| known.clone()));
        let expected = (status, "application/json".to_owned(), container.to_owned());
        assert_eq!(server.ask(&format!("/{version}/{id}/stats")).await, expected);
        let expected = (200, "application/json".to_owned(), in_both(in_task));
        assert_eq!(server.ask(&format!("/{version}/{id}/task/stats")).await, expected);
    }
    let server = Server::recorded_with(Arc::new(|_| LastStatistics::Known(Arc::default())));
    let shown = server.json(&format!("/v4/{id}/stats")).await;
    assert_eq!((&shown["id"], &shown["num_procs"]), (&json!(WEB), &json!(0)));
}

#[tokio::test]
async fn unknown_networks_are_an_error_only_of_the_container() {
    let container = ContainerView { networks: Vec::new(), ..web() };
    let server = Server::new(task_with(vec![container]), place(), no_tags());
    let text = |start: &str| format!("\"{start}nable to generate network response for container '{WEB}'\"");
    let error = |text| (500, "application/json".to_owned(), text);
    assert_eq!(server.ask(&format!("/v3/{}", IDS[0])).await, error(text("U")));
    assert_eq!(server.ask(&format!("/v4/{}", IDS[0])).await, error(text("u")));
    for version in ["v3", "v4"] {
        let task = server.json(&format!("/{version}/{}/task", IDS[0])).await;
        assert_eq!(task["Containers"][0].get("Networks"), None);
    }
}

#[tokio::test]
async fn associations_are_served_as_ecs_sent_them() {
    let association = |kind: &str, name: &str, container: &str, content: &str| Association {
        kind: kind.to_owned(),
        name: name.to_owned(),
        containers: vec![container.into()],
        content: content.to_owned(),
    };
    let associations = vec![
        association("elastic-inference", "dev1", "web", r#"{"endpoint": "e",  "odd" : 1}"#),
        association("elastic-inference", "dev/2", "side", "not JSON"),
        association("gpu", "0", "web", ""),
    ];
    let task = TaskView { associations, ..task_with(vec![web(), side()]) };
    let server = Server::new(task, place(), no_tags());
    let [web, side] = IDS;
    let names = |id: &str, kind: &str| format!("/v4/{id}/associations/{kind}");
    for (path, body) in [
        (names(web, "elastic-inference"), r#"{"Associations":["dev1"]}"#),
        (names(side, "elastic-inference"), r#"{"Associations":["dev/2"]}"#),
        (names(web, "gpu"), r#"{"Associations":["0"]}"#),
        (names(side, "gpu"), r#"{"Associations":null}"#),
        (names(side, ""), r#"{"Associations":null}"#),
        (names(side, "elastic-inference/dev1"), r#"{"endpoint": "e",  "odd" : 1}"#),
        (names(web, "elastic-inference/dev/2"), "not JSON"),
        (names(web, "gpu/0"), ""),
    ] {
        for version in ["v3", "v4"] {
            let path = path.replace("v4", version);
            assert_eq!(server.ask(&path).await, (200, "application/json".to_owned(), body.to_owned()), "{path}");
        }
    }
    let refused = |text: &str| (400, "application/json".to_owned(), json!(text).to_string());
    let table = [
        (
            "/v3/x/associations/gpu".to_owned(),
            "V3 container associations handler: unable to get container id from request: unable to get docker ID from v3 endpoint \
             ID: x",
        ),
        (
            "/v4/x/associations/gpu/0".to_owned(),
            "V4 container associations handler: unable to get task arn from request: unable to get task Arn from v3 endpoint ID: x",
        ),
        (
            format!("{}/", names(web, "gpu")),
            "V4 container associations handler: unable to get association name from request",
        ),
        (
            names(web, "gpu/1"),
            "Unable to write container association response: unable to get association from association type gpu and association \
             name 1",
        ),
    ];
    for (path, text) in table {
        assert_eq!(server.ask(&path).await, refused(text), "{path}");
    }
}

#[tokio::test]
async fn an_empty_id_and_a_slash_at_the_end_find_nothing() {
    let server = Server::recorded();
    let unable = "container metadata handler: unable to get container ID from request: unable to get docker ID from v3 endpoint ID: ";
    assert_eq!(server.ask("/v3/").await.2, json!(format!("V3 {unable}")).to_string());
    assert_eq!(server.ask("/v4/").await.2, json!(format!("V4 {unable}")).to_string());
    for path in ["/v3", "/v4", "/v4/x/", "/v4/x/task/", "/v4/x/tasks", "/v4/x/taskwithtags", "/v4/x/associations"] {
        let wanted = (404, "text/plain; charset=utf-8".to_owned(), "404 page not found\n".to_owned());
        assert_eq!(server.ask(path).await, wanted, "{path}");
    }
}

/// The instance comes first. Version 4 names the container that asks.
#[tokio::test]
async fn tags_are_asked_for_one_after_the_other() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let log = asked.clone();
    let lookup: TagLookup = Arc::new(move |question| {
        log.lock().unwrap().push(question.clone());
        async { Ok(BTreeMap::from([("a".to_owned(), "b".to_owned())])) }.boxed()
    });
    let server = Server::new(task_with(vec![web()]), place(), lookup);
    for version in ["v3", "v4"] {
        let task = server.json(&format!("/{version}/{}/taskWithTags", IDS[0])).await;
        assert_eq!((&task["TaskTags"], &task["ContainerInstanceTags"]), (&json!({"a": "b"}), &json!({"a": "b"})));
    }
    server.json(&format!("/v4/{}/task", IDS[0])).await;
    let asked = asked.lock().unwrap();
    let shown: Vec<_> =
        asked.iter().map(|question| (question.resource.as_str(), question.container.as_deref())).collect();
    assert_eq!(shown, [(INSTANCE, None), (ARN, None), (INSTANCE, Some("web")), (ARN, Some("web"))]);
}

#[tokio::test(start_paused = true)]
async fn tags_that_do_not_come_are_an_error_in_time() {
    let never: TagLookup = Arc::new(|_| std::future::pending().boxed());
    let server = Server::new(task_with(vec![web()]), place(), never);
    let started = tokio::time::Instant::now();
    let task = server.json(&format!("/v4/{}/taskWithTags", IDS[0])).await;
    assert!(started.elapsed() < std::time::Duration::from_secs(5));
    let fields: Vec<_> = task["Errors"].as_array().unwrap().iter().map(|error| error["ErrorField"].clone()).collect();
    assert_eq!(fields, ["ContainerInstanceTags", "TaskTags"]);
    let message = task["Errors"][1]["ErrorMessage"].as_str().unwrap();
    assert!(message.starts_with(&format!("GetResourceTags failed for {ARN}: no answer")), "{message}");
}

#[tokio::test]
async fn a_change_of_the_task_is_shown_at_once() {
    let server = Server::recorded();
    let path = format!("/v4/{}/task", IDS[0]);
    assert_eq!(server.json(&path).await["KnownStatus"], "RUNNING");
    let stopped = TaskView { known: TaskStatus::Stopped, ..task_with(vec![web(), side()]) };
    server.view.send_replace(Arc::new(View { tasks: vec![Arc::new(stopped)], ..View::default() }));
    assert_eq!(server.json(&path).await["KnownStatus"], "STOPPED");
    server.view.send_replace(Arc::new(View::default()));
    assert_eq!(server.ask(&path).await.0, 404);
}
