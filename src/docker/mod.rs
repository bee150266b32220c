//! The Docker engine: takes requests and returns observations, both from the model. The only module that uses bollard and
//! Docker's API.
//!
//! Owns the connection, the API version and one method for each operation of the core. It decides nothing: it does not retry a
//! create, start or stop, and knows no status of a task. Invariant: every call has a time limit and is safe to repeat.
//!
//! Only bollard's types are used, since its client reads answers of any length into memory. Reading order: `create`, `observe`
//! and `outline` (pure translation; labels), `container` (the operations), `volume`, `stats`, `host` (facts about the engine), `images`
//! (pulls, digests, clean-up, the pause image), [`events`], [`auth`], `api` (the connection, and how every call is made).
//!
//! Every call and its limit (spec `docker-mapping.md` §10; `*` = set by the operator, shown with its default):
//!
//! | call | limit | if there is no answer in time |
//! | --- | --- | --- |
//! | version | 10 s | the caller tries again |
//! | ping | 5 s | error |
//! | create, start | 4 min\*, 3 min\* | unknown: the container is inspected |
//! | stop | grace + 2 min | unknown: the container is inspected |
//! | remove | 5 min | unknown: the container is inspected |
//! | volume: create, remove | 5 min | unknown: tried again |
//! | volume: inspect | 5 min | failed |
//! | info; list plugins | 10 s; 1 min | failed |
//! | inspect a container, also after create, start, stop | 30 s; 10 s after an event | failed (after create, start, stop: unknown) |
//! | list | 10 min | failed |
//! | statistics of a container | 18 s | failed |
//! | open the events | 30 s; reopened after 5 min without an event | opened again |
//! | image clean-up: list, remove an image | 10 min, 3 min | failed; unknown: tried again in the next cycle |
//! | inspect an image | 30 s (the Go agent has none) | failed |
//! | digest from the registry | 1 min\* with all attempts | failed |
//! | pull | 2 h\* with all attempts; 5 min to the first output; 1 min\* without progress | failed |
//! | load the pause image | 2 min | failed |
//! | tag | 30 s with all attempts | failed |

pub mod api;
pub mod auth;
mod container;
mod create;
pub mod events;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod host;
mod images;
mod observe;
mod outline;
mod stats;
mod volume;

pub use api::calls::Calls;
pub use api::error::DockerError;
pub use api::limits::Limits;
pub use api::unreachable::NoConnection;
pub use auth::AuthMap;
pub use events::Notice;
pub use images::image::ImageFacts;
pub use images::mirror::{Mirrors, registry_of, server_of};
pub use images::pause::{can_build_pause_image, pause_image};
pub use images::progress::PullJob;

use crate::lane::{Lane, Settings as LaneSettings};
use api::change::Changer;
use api::connection::Wire;
use api::endpoint::Endpoint;
use api::error::within;
use api::info::Info;
use api::read::Reader;
use api::version::VersionsInUse;
use create::ports::DynamicPorts;
use ecs_core::model::{OwnerMark, Owners, Span};
use events::pending::Changes;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

/// How many pulls run at the same time. The Go agent has no bound. The daemon fetches 3 layers at a time in any case, so more
/// pulls do not make it faster. But most pulls only find that all layers exist already, and they should not wait behind the few
/// large ones.
const PULLS: usize = 8;
/// How many look-ups of digests run at the same time. Each is one small request to a registry.
const LOOKUPS: usize = 16;
/// Threads that measure how full the disk of the daemon's data is.
const DISK: LaneSettings = LaneSettings { threads: 1, spare: 1, limit: Duration::from_secs(30) };
/// Threads that read files on paths from the operator's settings.
const FILES: LaneSettings = LaneSettings { threads: 1, spare: 2, limit: Duration::from_secs(30) };

/// The settings of this edge. Time limits are for whole operations (spec `docker-mapping.md` §10, `images.md` §1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The daemon's address: `unix:///path` or `tcp://host:port`.
    pub endpoint: String,
    /// The cluster's name, a label on every container that the agent creates.
    pub cluster: String,
    /// The agent's region. It is injected as `AWS_REGION` and `AWS_DEFAULT_REGION` unless the task or the image sets one of
    /// them; `None` = no region is injected.
    pub region: Option<String>,
    /// The time limit for a create.
    pub create_timeout: Span,
    /// The time limit for a start.
    pub start_timeout: Span,
    /// The time limit for a pull with all its attempts.
    pub pull_timeout: Span,
    /// An attempt of a pull without progress for this long is given up, and the next one begins.
    pub pull_inactivity: Span,
    /// The time limit for the look-up of a digest at a registry, with all its attempts.
    pub manifest_timeout: Span,
    /// Containers do not block while the log router is slow.
    pub log_router_async: bool,
    /// The range from which host ports are chosen when a task does not name one.
    pub dynamic_ports: RangeInclusive<u16>,
    /// The path of the operator's archive of the pause image. If there is no such file, the agent builds the image itself.
    pub pause_archive: PathBuf,
    /// Labels for pause containers (`ECS_PAUSE_LABELS`).
    pub pause_labels: BTreeMap<String, String>,
    /// The name of the runtime for containers with GPUs (`ECS_NVIDIA_RUNTIME`).
    pub nvidia_runtime: String,
    /// Containers request GPUs from the engine as devices, as on hosts outside EC2.
    pub requests_gpus: bool,
    /// The instance has no IPv4 address.
    pub ipv6_only: bool,
    /// The limits of all other calls.
    pub limits: Limits,
}

/// The connection to one Docker daemon.
#[derive(Debug)]
pub struct Docker {
    wire: Arc<Wire>,
    reader: Reader,
    changer: Changer,
    changes: Changes,
    settings: Settings,
    /// The mark of this agent on the containers that it creates; `None` before [`Docker::with_owner`].
    owner: Option<OwnerMark>,
    /// The identities whose containers belong to this agent.
    owners: Owners,
    ports: DynamicPorts,
    /// The API versions in use; shared with `wire`, which negotiates them.
    versions: Arc<VersionsInUse>,
    /// The engine's facts; empty until they are first needed.
    info: tokio::sync::OnceCell<Info>,
    pulls: Semaphore,
    lookups: Semaphore,
    /// Held while the pause image is looked up and created, so that only one task does so at a time.
    pause_image: tokio::sync::Mutex<()>,
    /// When any pull last made progress.
    last_progress: watch::Sender<Instant>,
    /// Threads that measure how full the disk of the daemon's data is.
    disk: Lane,
    /// Threads that read files on paths from the operator's settings, and the directories of plugins.
    files: Lane,
}

impl Docker {
    /// Connects and agrees on the API versions. They are agreed again when the daemon refuses a version and when the event
    /// stream has ended.
    ///
    /// # Errors
    /// Fails if the endpoint is invalid, the client cannot be built, the daemon gives no usable answer in time, or the daemon
    /// and this agent have no API version in common.
    pub async fn connect(settings: Settings) -> Result<Self, DockerError> {
        let endpoint = Endpoint::parse(&settings.endpoint)?;
        let versions = Arc::new(VersionsInUse::default());
        let wire = Arc::new(Wire::new(&endpoint, Arc::clone(&versions), settings.limits.version)?);
        wire.negotiate().await?;
        let (reader, changer) = (Reader::new(Arc::clone(&wire)), Changer::new(Arc::clone(&wire)));
        let ports = DynamicPorts::new(settings.dynamic_ports.clone());
        Ok(Self {
            wire,
            reader,
            changer,
            changes: Changes::default(),
            settings,
            owner: None,
            owners: Owners::default(),
            ports,
            versions,
            info: tokio::sync::OnceCell::new(),
            pulls: Semaphore::new(PULLS),
            lookups: Semaphore::new(LOOKUPS),
            pause_image: tokio::sync::Mutex::default(),
            last_progress: watch::Sender::new(Instant::now()),
            disk: Lane::new("disk of Docker", DISK),
            files: Lane::new("files for Docker", FILES),
        })
    }

    /// Makes the agent create containers with its mark, and leave containers with another agent's mark alone. `data_directory`
    /// names the directory of this agent's data; empty if it keeps none.
    #[must_use]
    pub fn with_owner(mut self, owners: Owners, data_directory: &str) -> Self {
        self.owner = Some(OwnerMark { id: owners.own.clone(), data_directory: data_directory.to_owned() });
        self.owners = owners;
        self
    }

    /// The API versions to advertise to ECS, in ascending order, e.g. `1.17`.
    pub fn api_versions(&self) -> Vec<String> {
        self.versions.current().supported
    }

    /// The engine's version, e.g. `20.10.24`.
    pub fn server_version(&self) -> String {
        self.versions.current().server
    }

    /// The calls to the daemon so far.
    pub fn calls(&self) -> &Calls {
        self.wire.calls()
    }

    /// Checks that the daemon answers.
    ///
    /// # Errors
    /// Fails if the daemon cannot be reached, answers with an error, or does not answer in time.
    pub async fn ping(&self) -> Result<(), DockerError> {
        within(self.settings.limits.ping, self.reader.open(&["_ping"], &[], None)).await.map(drop)
    }
}

/// The body of the create call, for tests that translate a payload.
#[cfg(test)]
pub(crate) fn create_body(
    request: &ecs_core::model::CreateRequest,
) -> Result<bollard::models::ContainerCreateBody, ecs_core::model::Failure> {
    let starts: Vec<u16> = request.spec.port_ranges.iter().map(|range| 65_535 - (range.count() - 1)).collect();
    let context = create::CreateContext {
        cluster: "cluster",
        owner: None,
        region: Some("us-iso-east-1"),
        image_env: &[],
        image_health_check: None,
        host_ports: &vec![4_711; request.spec.ports.len()],
        cgroup_parent: Some("/ecs/task"),
        range_starts: &starts,
        pause_labels: &BTreeMap::from([("mine".to_owned(), "label".to_owned())]),
        nvidia_runtime: "nvidia",
        requests_gpus: true,
        selinux: false,
        ipv6_only: false,
        log_driver: create::log::Driver { is_async: true, server: "20.10.24" },
    };
    create::body(request, &ecs_core::model::SecretValues::default(), &context)
}

#[cfg(test)]
mod tests {
    use super::api::connection;
    use super::*;
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE;
    use std::time::Duration;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    /// Answers the first `count` requests with 404 and returns their heads.
    async fn heads(listener: &TcpListener, count: usize) -> Vec<String> {
        let mut heads = Vec::new();
        while heads.len() < count {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.windows(4).any(|four| four == b"\r\n\r\n") {
                head.push(socket.read_u8().await.unwrap());
            }
            socket
                .write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
                .await
                .unwrap();
            heads.push(String::from_utf8(head).unwrap());
        }
        heads
    }

    const LIMIT: Duration = Duration::from_secs(5);

    fn at_1_41() -> Arc<VersionsInUse> {
        let answer = serde_json::json!({"Version": "v", "ApiVersion": "1.41", "MinAPIVersion": "1.41"});
        let versions = VersionsInUse::default();
        versions.set(api::version::negotiate(&answer).unwrap());
        Arc::new(versions)
    }

    #[tokio::test]
    async fn every_path_begins_with_the_version_exactly_once() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = Endpoint::Tcp(listener.local_addr().unwrap().to_string());
        let wire = Arc::new(Wire::new(&endpoint, at_1_41(), LIMIT).unwrap());
        let (reader, changer) = (Reader::new(Arc::clone(&wire)), Changer::new(wire));
        let calls = async {
            changer.post(&["images", "host:5000/a/b", "tag"], &[("repo", "r")], LIMIT).await.unwrap_err();
            reader.get(&["containers", "c", "json"], &[("size", "0")], LIMIT).await.unwrap_err();
            changer.post(&["containers", "c", "start"], &[], LIMIT).await.unwrap_err();
            changer.delete(&["containers", "c"], &[("v", "1")], LIMIT).await.unwrap_err();
        };
        let (heads, ()) = tokio::join!(heads(&listener, 4), calls);
        let lines: Vec<_> = heads.iter().map(|head| head.lines().next().unwrap()).collect();
        let wanted = [
            "POST /v1.41/images/host:5000/a/b/tag?repo=r HTTP/1.1",
            "GET /v1.41/containers/c/json?size=0 HTTP/1.1",
            "POST /v1.41/containers/c/start HTTP/1.1",
            "DELETE /v1.41/containers/c?v=1 HTTP/1.1",
        ];
        assert_eq!(lines, wanted);
    }

    #[tokio::test]
    async fn registry_credentials_are_sent_in_the_url_safe_alphabet() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = Endpoint::Tcp(listener.local_addr().unwrap().to_string());
        let wire = Wire::new(&endpoint, at_1_41(), LIMIT).unwrap();
        let password = "~~~???>>>ÿÿÿ";
        let credentials = ecs_core::model::RegistryCredentials {
            username: "me".to_owned(),
            password: password.into(),
            ..ecs_core::model::RegistryCredentials::default()
        };
        let auth = images::image::registry_auth(&credentials);
        let request = connection::Request {
            method: &reqwest::Method::POST,
            path: &["images", "create"],
            query: &[("fromImage", "a:1")],
            registry_auth: Some(&auth),
            body: connection::Body::Empty,
        };
        let (heads, refused) = tokio::join!(heads(&listener, 1), wire.open(VersionsInUse::changes, request));
        refused.unwrap_err();
        assert_eq!(heads[0].lines().next().unwrap(), "POST /v1.41/images/create?fromImage=a%3A1 HTTP/1.1");
        let line = heads[0].lines().find(|line| line.to_lowercase().starts_with("x-registry-auth:")).unwrap();
        let decoded = URL_SAFE.decode(line.split_once(": ").unwrap().1).unwrap();
        let sent: serde_json::Value = serde_json::from_slice(&decoded).unwrap();
        assert_eq!(sent["password"], password);
    }

    #[tokio::test]
    async fn a_missing_socket_is_unreachable() {
        let settings = settings("unix:///nonexistent/docker.sock");
        assert!(matches!(Docker::connect(settings).await, Err(DockerError::Unreachable(_))));
    }

    #[tokio::test]
    async fn nothing_is_created_if_the_image_cannot_be_inspected() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let docker_settings = settings(&format!("tcp://{}", listener.local_addr().unwrap()));
        let engine = async {
            let mut lines = Vec::new();
            loop {
                let (mut socket, _) = listener.accept().await.unwrap();
                let mut head = Vec::new();
                while !head.windows(4).any(|four| four == b"\r\n\r\n") {
                    head.push(socket.read_u8().await.unwrap());
                }
                let line = String::from_utf8_lossy(&head).lines().next().unwrap_or_default().to_owned();
                let (status, body) = match line.contains("/version") {
                    true => ("200 OK", r#"{"Version": "v", "ApiVersion": "1.41", "MinAPIVersion": "1.12"}"#),
                    false => ("500 Internal Server Error", r#"{"message": "busy"}"#),
                };
                let length = body.len();
                let answer =
                    format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}");
                socket.write_all(answer.as_bytes()).await.unwrap();
                let is_look = line.contains("/images/");
                lines.push(line);
                // A create would follow the inspection at once.
                if is_look && tokio::time::timeout(Duration::from_millis(300), listener.accept()).await.is_err() {
                    return lines;
                }
                assert!(lines.len() < 5, "{lines:?}");
            }
        };
        let create = async {
            let docker = Docker::connect(docker_settings).await.unwrap();
            let spec = ecs_core::model::ContainerSpec { image: "app:1".into(), ..Default::default() };
            let request = ecs_core::model::CreateRequest { spec, runtime_name: "c".into(), ..Default::default() };
            docker.create(&request, &ecs_core::model::SecretValues::default()).await
        };
        let (lines, created) = tokio::join!(engine, create);
        let Err(ecs_core::model::OpError::Failed(failure)) = created else { panic!("{created:?}") };
        assert_eq!(failure.to_string(), "CannotInspectImageError: Error response from daemon: busy");
        assert_eq!(failure.kind, ecs_core::model::FailureKind::Retryable);
        assert!(!lines.iter().any(|line| line.contains("/containers/create")), "{lines:?}");
    }

    fn settings(endpoint: &str) -> Settings {
        Settings {
            endpoint: endpoint.into(),
            cluster: "c".into(),
            region: None,
            create_timeout: Span::secs(1),
            start_timeout: Span::secs(1),
            pull_timeout: Span::secs(1),
            pull_inactivity: Span::secs(1),
            manifest_timeout: Span::secs(1),
            dynamic_ports: 49153..=65535,
            pause_archive: PathBuf::new(),
            pause_labels: BTreeMap::new(),
            nvidia_runtime: "nvidia".to_owned(),
            requests_gpus: false,
            ipv6_only: false,
            log_router_async: true,
            limits: Limits::default(),
        }
    }
}
