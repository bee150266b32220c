//! The HTTP connection to the daemon, below what is asked over it.
//!
//! Owns the version in every path, and how an answer is taken: bounded in size, an error status, of which only the beginning is read,
//! as [`DockerError::Daemon`]. Limits in time belong to its two users, [`super::read`] and [`super::change`]. Invariant: a request that
//! the daemon refused for its version is sent once more in a version it speaks; it was refused, so nothing was done.

use super::endpoint::Endpoint;
use super::error::{DockerError, within};
use super::unreachable::{NoConnection, speaks_tls};
use super::version::{Spoken, negotiate};
use crate::lane::{Lane, Settings as LaneSettings};
use crate::model::text::{cleaned, cut, member_of_beginning};
use bytes::Bytes;
use reqwest::{Client, Method, Response, StatusCode, Url};
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;

/// A thousand containers take about 5 MB.
const MAX_ANSWER_BYTES: usize = 64 << 20;
/// Looking at a socket file. It is on a file system in memory, unless the operator named something odd.
pub(super) const LOOK: LaneSettings = LaneSettings { threads: 1, spare: 1, limit: Duration::from_secs(5) };
/// What servers with TLS answer to plain HTTP: Go's, which is Docker's, and nginx.
const WANTS_TLS: [&str; 2] = ["HTTP request to an HTTPS server", "plain HTTP request was sent to HTTPS port"];
/// The longest address a client can send.
const MAX_ADDRESS: usize = 65_534;
/// So much of an answer with an error status is read. The text in it may be a registry's, and as long as that likes.
const MAX_ERROR_BYTES: usize = 64 << 10;
/// So much is kept of an error that is not in Docker's form.
const MAX_PLAIN_BYTES: usize = 512;
/// Connections kept for the next call, and for how long. A connection for each call costs as much as the call where many come at once;
/// one that the daemon closes meanwhile leaves the pool, and a call that is cut off is of unknown outcome on any connection.
const IDLE_CONNECTIONS: usize = 8;
const IDLE_LIMIT: Duration = Duration::from_secs(5);

/// What is asked of the daemon.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request<'a> {
    pub(super) method: &'a Method,
    /// Segments; one with slashes (an image name) becomes several.
    pub(super) path: &'a [&'a str],
    pub(super) query: &'a [(&'a str, &'a str)],
    /// `X-Registry-Auth`.
    pub(super) registry_auth: Option<&'a str>,
    pub(super) body: Body<'a>,
}

/// What goes with it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Body<'a> {
    Empty,
    Json(&'a Value),
    Tar(&'a Bytes),
}

/// The connection.
#[derive(Debug)]
pub(super) struct Wire {
    http: Client,
    tls: rustls::ClientConfig,
    endpoint: Endpoint,
    /// Looks at the socket when there is no connection.
    look: Lane,
    base: Url,
    spoken: Arc<Spoken>,
    version_limit: Duration,
}

impl Wire {
    pub(super) fn new(endpoint: &Endpoint, spoken: Arc<Spoken>, version_limit: Duration) -> Result<Self, DockerError> {
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
            look: Lane::new("socket of Docker", LOOK),
            base,
            spoken,
            version_limit,
        })
    }

    /// Asks which versions the daemon speaks, and speaks them from now on.
    pub(super) async fn negotiate(&self) -> Result<(), DockerError> {
        let request =
            Request { method: &Method::GET, path: &["version"], query: &[], registry_auth: None, body: Body::Empty };
        let answer = within(self.version_limit, async { parse(&read_bounded(self.send(None, request).await?).await?) });
        match answer.await {
            Ok(answer) => {
                self.spoken.set(negotiate(&answer)?);
                Ok(())
            }
            Err(DockerError::Cut(_) | DockerError::Timeout(_)) if speaks_tls(&self.endpoint, &self.tls).await => {
                Err(DockerError::Unreachable(NoConnection::tls().at(&self.endpoint, &self.look).await))
            }
            Err(error) => Err(error),
        }
    }

    /// Opens an answer, in the version that `version` takes from those spoken now.
    pub(super) async fn open(
        &self,
        version: impl Fn(&Spoken) -> String,
        request: Request<'_>,
    ) -> Result<Response, DockerError> {
        match self.send(Some(version(&self.spoken)), request).await {
            // Another daemon has taken the place of the one that was asked before.
            Err(error) if error.is_version_refusal() => {
                self.negotiate().await?;
                self.send(Some(version(&self.spoken)), request).await
            }
            answer => answer,
        }
    }

    async fn send(&self, version: Option<String>, asked: Request<'_>) -> Result<Response, DockerError> {
        let mut url = self.base.clone();
        // Segments are escaped one by one, so a name cannot become another path.
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
                "the request was not sent to the Docker daemon: its address ({what}) has {length} bytes, {MAX_ADDRESS} at most: shorten the name in it"
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
                return Err(DockerError::Unreachable(why.at(&self.endpoint, &self.look).await));
            }
            answer => answer?,
        };
        let status = response.status();
        // Docker says "it is so already" with a 304.
        if status.is_success() || status == StatusCode::NOT_MODIFIED {
            return Ok(response);
        }
        let body = read_beginning(response, MAX_ERROR_BYTES).await?;
        let text = String::from_utf8_lossy(&body);
        if status == StatusCode::BAD_REQUEST && WANTS_TLS.iter().any(|wanted| text.contains(wanted)) {
            return Err(DockerError::Unreachable(NoConnection::tls().at(&self.endpoint, &self.look).await));
        }
        Err(refusal(status.as_u16(), &body))
    }
}

/// An error status. Docker says why: in JSON, or as plain text below API 1.23. Markup, or nothing at all, is somebody else's answer
/// (a proxy between), and leaves open what Docker did.
pub(super) fn refusal(status: u16, body: &[u8]) -> DockerError {
    let message = match serde_json::from_slice::<Value>(body) {
        Ok(answer) => answer.get("message").and_then(Value::as_str).map(str::to_owned),
        // Too long to be read to its end.
        Err(_) if body.trim_ascii_start().starts_with(b"{") => member_of_beginning(body, "message"),
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

/// The beginning of an answer; the rest is not read.
async fn read_beginning(mut response: Response, max: usize) -> Result<Vec<u8>, DockerError> {
    let mut body = Vec::new();
    while body.len() < max
        && let Some(chunk) = response.chunk().await?
    {
        body.extend_from_slice(&chunk[..chunk.len().min(max - body.len())]);
    }
    Ok(body)
}

pub(super) async fn read_bounded(mut response: Response) -> Result<Vec<u8>, DockerError> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if body.len() + chunk.len() > MAX_ANSWER_BYTES {
            return Err(DockerError::Cut("the answer is too long".to_owned()));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

pub(super) fn parse(body: &[u8]) -> Result<Value, DockerError> {
    serde_json::from_slice(body).map_err(|error| DockerError::Cut(format!("unreadable answer: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[tokio::test]
    async fn a_name_that_fits_into_no_address_is_not_sent() {
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
    fn only_docker_can_refuse() {
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
        // It goes on for ever: whoever waits for the end of it never gets an error.
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
        assert!(message.starts_with("denied: xxx") && message.len() <= crate::model::text::MAX_TEXT);
    }
}
