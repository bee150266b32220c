//! Looks at the daemon without trusting its vocabulary: plain GETs into untyped JSON.
//!
//! Owns the second client beside bollard's. bollard's answer types are closed: one status it has not heard of would hide a container
//! or end a stream. It changes nothing in the daemon. Invariant: every answer has a limit in time and in size.

use super::error::{DockerError, within};
use reqwest::{Client, Response, Url};
use serde_json::Value;
use std::path::PathBuf;
use std::time::Duration;

/// A thousand containers take about 5 MB.
const MAX_ANSWER_BYTES: usize = 64 << 20;

/// Where the daemon listens (`DOCKER_HOST`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    /// `unix:///var/run/docker.sock`
    Unix(PathBuf),
    /// `tcp://127.0.0.1:2375`; host and port.
    Tcp(String),
}

impl Endpoint {
    pub(super) fn parse(text: &str) -> Result<Self, DockerError> {
        if let Some(path) = text.strip_prefix("unix://").filter(|path| path.starts_with('/')) {
            return Ok(Self::Unix(path.into()));
        }
        let host = text.strip_prefix("tcp://").or_else(|| text.strip_prefix("http://"));
        match host.map(|host| host.trim_end_matches('/')) {
            Some(host) if !host.is_empty() && !host.contains('/') => Ok(Self::Tcp(host.to_owned())),
            _ => Err(DockerError::Unusable(format!(
                "the Docker endpoint {text:?} is neither unix:///path nor tcp://host:port"
            ))),
        }
    }
}

/// The reading client.
#[derive(Clone, Debug)]
pub(super) struct Reader {
    http: Client,
    base: Url,
}

impl Reader {
    pub(super) fn new(endpoint: &Endpoint) -> Result<Self, DockerError> {
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
            .tls_backend_preconfigured(tls)
            .no_proxy()
            .http1_only()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(Duration::from_secs(5))
            .pool_max_idle_per_host(0);
        let (builder, base) = match endpoint {
            Endpoint::Unix(path) => (builder.unix_socket(path.as_path()), "http://docker/".to_owned()),
            Endpoint::Tcp(host) => (builder, format!("http://{host}/")),
        };
        let http = builder.build().map_err(|error| unusable(&error))?;
        let base = Url::parse(&base).map_err(|error| unusable(&error))?;
        Ok(Self { http, base })
    }

    /// The same reader below `/v<version>`.
    pub(super) fn at_version(mut self, version: &str) -> Self {
        self.base.set_path(&format!("/v{version}"));
        self
    }

    /// Opens an answer; an error status is read and returned as an error.
    pub(super) async fn open(
        &self,
        path: &[&str],
        query: &[(&str, &str)],
        registry_auth: Option<&str>,
    ) -> Result<Response, DockerError> {
        let mut url = self.base.clone();
        // Segments are escaped one by one, so a name cannot become another path.
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path.iter().flat_map(|part| part.split('/')));
        }
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let request = self.http.get(url);
        let request = match registry_auth {
            Some(auth) => request.header("X-Registry-Auth", auth),
            None => request,
        };
        let response = request.send().await?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let body = read_bounded(response).await?;
        let message =
            match serde_json::from_slice::<Value>(&body).ok().as_ref().and_then(|v| v.get("message")?.as_str()) {
                Some(message) => message.trim().to_owned(),
                None => String::from_utf8_lossy(&body).trim().to_owned(),
            };
        Err(DockerError::Daemon { status: status.as_u16(), message })
    }

    /// A whole answer as JSON.
    pub(super) async fn get(
        &self,
        path: &[&str],
        query: &[(&str, &str)],
        limit: Duration,
    ) -> Result<Value, DockerError> {
        self.get_with(path, query, None, limit).await
    }

    pub(super) async fn get_with(
        &self,
        path: &[&str],
        query: &[(&str, &str)],
        registry_auth: Option<&str>,
        limit: Duration,
    ) -> Result<Value, DockerError> {
        within(limit, async {
            let body = read_bounded(self.open(path, query, registry_auth).await?).await?;
            serde_json::from_slice(&body).map_err(|error| DockerError::Cut(format!("unreadable answer: {error}")))
        })
        .await
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints() {
        assert_eq!(Endpoint::parse("unix:///run/docker.sock").unwrap(), Endpoint::Unix("/run/docker.sock".into()));
        for tcp in ["tcp://127.0.0.1:2375", "http://127.0.0.1:2375/"] {
            assert_eq!(Endpoint::parse(tcp).unwrap(), Endpoint::Tcp("127.0.0.1:2375".into()));
        }
        for bad in ["", "unix://relative", "ssh://host", "tcp://", "tcp://host/path", "/run/docker.sock"] {
            assert!(matches!(Endpoint::parse(bad), Err(DockerError::Unusable(_))), "{bad}");
        }
    }
}
