//! The HTTP connection to the daemon.
//!
//! Owns the version in every path and the reading of answers: their size is bounded, and an error status becomes
//! [`DockerError::Daemon`] with the beginning of its body. Time limits belong to the two users, [`super::read`] and
//! [`super::change`]. Invariant: a request that the daemon refused because of its version is sent once more in a version that
//! the daemon supports; since it was refused, nothing was done.

use super::calls::Calls;
use super::endpoint::Endpoint;
use super::error::{DockerError, within};
use super::unreachable::{NoConnection, expects_tls};
use super::version::{VersionsInUse, negotiate};
use crate::input::truncated::member_of_truncated;
use crate::lane::{Lane, Settings as LaneSettings};
use bytes::Bytes;
use ecs_core::model::text::{cleaned, cut};
use reqwest::{Client, Method, Response, StatusCode, Url};
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;

/// The longest answer, in bytes. A list of a thousand containers has about 5 MB.
const MAX_ANSWER_BYTES: usize = 64 << 20;
/// Threads that inspect the socket file, which usually is on a file system in memory.
pub(crate) const SOCKET_CHECK: LaneSettings = LaneSettings { threads: 1, spare: 1, limit: Duration::from_secs(5) };
/// The answers of TLS servers to plain HTTP: Go's server (Docker) and nginx.
const WANTS_TLS: [&str; 2] = ["HTTP request to an HTTPS server", "plain HTTP request was sent to HTTPS port"];
/// The longest address that the client can send, in bytes.
const MAX_ADDRESS: usize = 65_534;
/// How much of an answer with an error status is read, in bytes. A registry's text in it may have any length.
const MAX_ERROR_BYTES: usize = 64 << 10;
/// How much of an error that is not in Docker's form is kept, in bytes.
const MAX_PLAIN_BYTES: usize = 512;
/// How many idle connections are kept. In a burst of calls, a new connection for each would cost as much as the call itself. A
/// connection that the daemon closes leaves the pool; a call that is cut off has an unknown outcome on any connection.
const IDLE_CONNECTIONS: usize = 8;
/// How long an idle connection is kept.
const IDLE_LIMIT: Duration = Duration::from_secs(5);

/// A request to the daemon.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request<'a> {
    pub(crate) method: &'a Method,
    /// The segments of the path; a segment with slashes (an image name) becomes several.
    pub(crate) path: &'a [&'a str],
    pub(crate) query: &'a [(&'a str, &'a str)],
    /// The value of `X-Registry-Auth`; `None` = the header is not sent.
    pub(crate) registry_auth: Option<&'a str>,
    pub(crate) body: Body<'a>,
}

/// The body of a request.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Body<'a> {
    Empty,
    Json(&'a Value),
    Tar(&'a Bytes),
}

/// The connection to one daemon.
#[derive(Debug)]
pub(crate) struct Wire {
    http: Client,
    tls: rustls::ClientConfig,
    endpoint: Endpoint,
    /// Threads that inspect the socket when there is no connection.
    socket_checks: Lane,
    base: Url,
    versions: Arc<VersionsInUse>,
    version_limit: Duration,
    calls: Calls,
}

impl Wire {
    pub(crate) fn new(
        endpoint: &Endpoint,
        versions: Arc<VersionsInUse>,
        version_limit: Duration,
    ) -> Result<Self, DockerError> {
        let unusable = |error: &dyn std::error::Error| {
            DockerError::Unusable(format!("the Docker client cannot be built: {error}"))
        };
        // Plain HTTP only. An empty root store keeps reqwest from loading the system's certificates for nothing.
        let tls = rustls::ClientConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
            .with_safe_default_protocol_versions()
            .map_err(|error| unusable(&error))?
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        let builder = Client::builder()
            .tls_backend_preconfigured(tls.clone())
            .no_proxy()
            .http1_only()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(Duration::from_secs(5))
            .pool_max_idle_per_host(IDLE_CONNECTIONS)
            .pool_idle_timeout(IDLE_LIMIT);
        let (builder, base) = match endpoint {
            Endpoint::Unix(path) => (builder.unix_socket(path.as_path()), "http://docker/".to_owned()),
            Endpoint::Tcp(host) => (builder, format!("http://{host}/")),
        };
        let http = builder.build().map_err(|error| unusable(&error))?;
        let base = Url::parse(&base).map_err(|error| unusable(&error))?;
        Ok(Self {
            http,
            tls,
            endpoint: endpoint.clone(),
            socket_checks: Lane::new("socket of Docker", SOCKET_CHECK),
            base,
            versions,
            version_limit,
            calls: Calls::default(),
        })
    }

    /// Asks for the daemon's versions and uses the chosen ones from now on.
    pub(crate) async fn negotiate(&self) -> Result<(), DockerError> {
        let request =
            Request { method: &Method::GET, path: &["version"], query: &[], registry_auth: None, body: Body::Empty };
        let running = self.calls.begin(request.method, request.path);
        let answer = within(self.version_limit, async { parse(&read_bounded(self.send(None, request).await?).await?) });
        let answer = answer.await;
        running.ended(&answer);
        match answer {
            Ok(answer) => {
                self.versions.set(negotiate(&answer)?);
                Ok(())
            }
            Err(DockerError::Cut(_) | DockerError::Timeout(_)) if expects_tls(&self.endpoint, &self.tls).await => {
                Err(DockerError::Unreachable(NoConnection::tls().at(&self.endpoint, &self.socket_checks).await))
            }
            Err(error) => Err(error),
        }
    }

    /// The calls so far.
    pub(crate) fn calls(&self) -> &Calls {
        &self.calls
    }

    /// Sends a request, in the version that `version` selects from those in use, and returns the whole answer.
    pub(crate) async fn fetch(
        &self,
        version: impl Fn(&VersionsInUse) -> String,
        request: Request<'_>,
    ) -> Result<Vec<u8>, DockerError> {
        let running = self.calls.begin(request.method, request.path);
        let answer = async { read_bounded(self.exchange(version, request).await?).await }.await;
        running.ended(&answer);
        answer
    }

    /// As [`Wire::fetch`], but returns the opened answer: the call counts as ended with its head.
    pub(crate) async fn open(
        &self,
        version: impl Fn(&VersionsInUse) -> String,
        request: Request<'_>,
    ) -> Result<Response, DockerError> {
        let running = self.calls.begin(request.method, request.path);
        let answer = self.exchange(version, request).await;
        running.ended(&answer);
        answer
    }

    async fn exchange(
        &self,
        version: impl Fn(&VersionsInUse) -> String,
        request: Request<'_>,
    ) -> Result<Response, DockerError> {
        match self.send(Some(version(&self.versions)), request).await {
            // The daemon was replaced by one with other versions.
            Err(error) if error.is_version_refusal() => {
                self.negotiate().await?;
                self.send(Some(version(&self.versions)), request).await
            }
            answer => answer,
        }
    }

    async fn send(&self, version: Option<String>, asked: Request<'_>) -> Result<Response, DockerError> {
        let mut url = self.base.clone();
        // Each segment is escaped by itself, so a name cannot lead to another path.
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty();
            segments.extend(version.map(|version| format!("v{version}")));
            segments.extend(asked.path.iter().flat_map(|part| part.split('/')));
        }
        if !asked.query.is_empty() {
            url.query_pairs_mut().extend_pairs(asked.query);
        }
        if url.as_str().len() > MAX_ADDRESS {
            let (what, length) = (asked.path.first().unwrap_or(&""), url.as_str().len());
            return Err(DockerError::Unusable(format!(
                "the request was not sent to the Docker daemon: its address ({what}) has {length} bytes, {MAX_ADDRESS} at most: \
                 shorten the name in it"
            )));
        }
        let mut request = self.http.request(asked.method.clone(), url);
        if let Some(auth) = asked.registry_auth {
            request = request.header("X-Registry-Auth", auth);
        }
        request = match asked.body {
            Body::Empty => request,
            Body::Json(value) => request.json(value),
            Body::Tar(archive) => request.header("Content-Type", "application/x-tar").body(archive.clone()),
        };
        let response = match request.send().await.map_err(DockerError::from) {
            Err(DockerError::Unreachable(why)) => {
                return Err(DockerError::Unreachable(why.at(&self.endpoint, &self.socket_checks).await));
            }
            answer => answer?,
        };
        let status = response.status();
        // Docker answers 304 if the state is already as requested.
        if status.is_success() || status == StatusCode::NOT_MODIFIED {
            return Ok(response);
        }
        let body = read_beginning(response, MAX_ERROR_BYTES).await?;
        let text = String::from_utf8_lossy(&body);
        if status == StatusCode::BAD_REQUEST && WANTS_TLS.iter().any(|wanted| text.contains(wanted)) {
            return Err(DockerError::Unreachable(NoConnection::tls().at(&self.endpoint, &self.socket_checks).await));
        }
        Err(refusal(status.as_u16(), &body))
    }
}

/// The error for an error status. Docker gives a reason, as JSON or, below API 1.23, as plain text. Markup or an empty body
/// comes from something else, such as a proxy, and leaves open what Docker did.
pub(crate) fn refusal(status: u16, body: &[u8]) -> DockerError {
    let message = match serde_json::from_slice::<Value>(body) {
        Ok(answer) => answer.get("message").and_then(Value::as_str).map(str::to_owned),
        // The JSON is incomplete, since only the beginning of the answer was read.
        Err(_) if body.trim_ascii_start().starts_with(b"{") => member_of_truncated(body, "message"),
        Err(_) => None,
    };
    if let Some(message) = message {
        return DockerError::Daemon { status, message: cleaned(message.trim()) };
    }
    match cut(String::from_utf8_lossy(body).trim(), MAX_PLAIN_BYTES) {
        text if text.is_empty() || text.starts_with('<') => {
            DockerError::Cut(format!("an answer with status {status} that is not the daemon's"))
        }
        message => DockerError::Daemon { status, message },
    }
}

/// Reads the first `max` bytes of an answer.
async fn read_beginning(mut response: Response, max: usize) -> Result<Vec<u8>, DockerError> {
    let mut body = Vec::new();
    while body.len() < max
        && let Some(chunk) = response.chunk().await?
    {
        body.extend_from_slice(&chunk[..chunk.len().min(max - body.len())]);
    }
    Ok(body)
}

/// Reads a whole answer, up to [`MAX_ANSWER_BYTES`].
async fn read_bounded(mut response: Response) -> Result<Vec<u8>, DockerError> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if body.len() + chunk.len() > MAX_ANSWER_BYTES {
            return Err(DockerError::Cut("the answer is too long".to_owned()));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

pub(crate) fn parse(body: &[u8]) -> Result<Value, DockerError> {
    serde_json::from_slice(body).map_err(|error| DockerError::Cut(format!("unreadable answer: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[tokio::test]
    async fn a_request_with_too_long_a_name_is_not_sent() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let endpoint = Endpoint::Tcp(listener.local_addr().unwrap().to_string());
        let wire = Wire::new(&endpoint, Arc::default(), Duration::from_secs(1)).unwrap();
        let (name, escaped) = ("v".repeat(70_000), "ä".repeat(12_000));
        for (path, query) in [(["volumes", &name], ("a", "b")), (["volumes", "v"], ("filters", escaped.as_str()))] {
            let request = Request {
                method: &Method::DELETE,
                path: &path,
                query: &[query],
                registry_auth: None,
                body: Body::Empty,
            };
            let error = wire.send(None, request).await.unwrap_err();
            let DockerError::Unusable(text) = &error else { panic!("{error:?}") };
            assert!(text.contains("was not sent") && text.contains("(volumes)") && text.len() < 300, "{text}");
        }
        assert!(listener.accept().is_err(), "nobody was even connected to");
    }

    #[test]
    fn only_an_answer_in_docker_s_form_is_a_refusal() {
        let table = [
            (r#"{"message": " No such image: a\n"}"#, Some("No such image: a")),
            ("no such id: b\n", Some("no such id: b")),
            (r#"{"message": "a\nb\u001b[2J c"}"#, Some("a b [2J c")),
            (r#"{"message": "cut in the mid"#, Some("cut in the mid")),
            ("", None),
            ("\r\n", None),
            (" <html><body>502 Bad Gateway</body></html>", None),
        ];
        for (body, message) in table {
            match (refusal(404, body.as_bytes()), message) {
                (DockerError::Daemon { status: 404, message }, Some(wanted)) => assert_eq!(message, wanted),
                (DockerError::Cut(_), None) => {}
                (other, _) => panic!("{body}: {other:?}"),
            }
        }
        for (body, limit) in [("é".repeat(9_000), 512), (json!({"message": "é".repeat(9_000)}).to_string(), 4096)] {
            let DockerError::Daemon { message, .. } = refusal(500, body.as_bytes()) else { panic!("it is a text") };
            assert!((limit - 8..=limit).contains(&message.len()), "{}", message.len());
        }
    }

    #[tokio::test]
    async fn an_error_of_any_length_is_read_no_further_than_needed() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = Endpoint::Tcp(listener.local_addr().unwrap().to_string());
        // The body never ends, so a reader that waits for its end would never get an error.
        let endless = async {
            use tokio::io::{AsyncReadExt, AsyncWriteExt};
            let (mut socket, _) = listener.accept().await.unwrap();
            let _request = socket.read(&mut [0; 4096]).await.unwrap();
            socket.write_all(b"HTTP/1.1 500 Internal Server Error\r\n\r\n{\"message\":\"denied: ").await.unwrap();
            while socket.write_all(&[b'x'; 65_536]).await.is_ok() {}
        };
        let wire = Wire::new(&endpoint, Arc::default(), Duration::from_secs(60)).unwrap();
        let (refused, ()) = tokio::join!(wire.negotiate(), endless);
        let Err(DockerError::Daemon { status: 500, message }) = refused else { panic!("{refused:?}") };
        assert!(message.starts_with("denied: xxx") && message.len() <= ecs_core::model::text::MAX_TEXT);
    }
}
