//! A client of the registry that sends exactly what a test says, and the server that it talks to.

use crate::agent::{api, http, keys};
use base64::Engine;
use ecs_local::{Options, Server};
use reqwest::header::HeaderMap;
use serde_json::{Value, json};

/// The media type of an OCI manifest.
pub(super) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// The media type of an OCI index.
pub(super) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// The media type of a configuration.
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// The media type of a layer.
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// A client that has logged in.
#[derive(Clone)]
pub(super) struct Client {
    pub(super) base: String,
    pub(super) authorization: String,
    pub(super) http: reqwest::Client,
}

/// An answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
}

impl Answer {
    /// The text of a header; empty if it is missing.
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {} {}", self.status, String::from_utf8_lossy(&self.body)))
    }

    /// The status, and the code of the first error.
    pub(super) fn error(&self) -> (u16, String) {
        assert_eq!(self.header("content-type"), "application/json", "{self:?}");
        (self.status, self.json()["errors"][0]["code"].as_str().unwrap().to_owned())
    }

    pub(super) fn message(&self) -> String {
        self.json()["errors"][0]["message"].as_str().unwrap().to_owned()
    }
}

impl Client {
    /// A client of a registry at this address, with the password of a token.
    pub(super) fn new(base: &str, password: &str) -> Self {
        let encoded = base64::engine::general_purpose::STANDARD.encode(format!("AWS:{password}"));
        Self { base: base.to_owned(), authorization: format!("Basic {encoded}"), http: http() }
    }

    /// A client of the server's own registry, whose repositories it creates.
    pub(super) async fn login(server: &Server, repositories: &[&str]) -> Self {
        for name in repositories {
            let (status, body) = ecr(server, "CreateRepository", json!({"repositoryName": name})).await;
            assert_eq!(status, 200, "{body}");
        }
        Self::new(&server.url(), &password(server).await)
    }

    pub(super) async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Answer {
        self.try_send(method, path, headers, body).await.unwrap()
    }

    pub(super) async fn try_send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<reqwest::Body>,
    ) -> reqwest::Result<Answer> {
        let mut request = self.http.request(method.parse().unwrap(), format!("{}{path}", self.base));
        if !self.authorization.is_empty() {
            request = request.header("authorization", &self.authorization);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = request.body(body).send().await?;
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        Ok(Answer { status, headers, body: answer.bytes().await?.to_vec() })
    }

    pub(super) async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], Vec::new()).await
    }

    pub(super) async fn head(&self, path: &str) -> Answer {
        self.send("HEAD", path, &[], Vec::new()).await
    }

    pub(super) async fn delete(&self, path: &str) -> Answer {
        self.send("DELETE", path, &[], Vec::new()).await
    }

    /// Begins an upload. Returns the path to continue it.
    pub(super) async fn begin(&self, repository: &str) -> String {
        let answer = self.send("POST", &format!("/v2/{repository}/blobs/uploads/"), &[], Vec::new()).await;
        assert_eq!(answer.status, 202, "{answer:?}");
        answer.header("location").to_owned()
    }

    /// Pushes a layer in one request, and returns its digest.
    pub(super) async fn push_blob(&self, repository: &str, content: &[u8]) -> String {
        let digest = digest(content);
        let path = format!("/v2/{repository}/blobs/uploads/?digest={digest}");
        let answer = self.send("POST", &path, &[], content.to_vec()).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        digest
    }

    pub(super) async fn put_manifest(&self, repository: &str, reference: &str, kind: &str, manifest: &str) -> Answer {
        let path = format!("/v2/{repository}/manifests/{reference}");
        self.send("PUT", &path, &[("content-type", kind)], manifest.as_bytes().to_vec()).await
    }

    /// Pushes an image with one layer of this content. Returns the manifest's digest.
    pub(super) async fn push_image(&self, repository: &str, tag: &str, content: &str) -> String {
        self.push_blob(repository, content.as_bytes()).await;
        self.push_blob(repository, b"{}").await;
        let answer = self.put_manifest(repository, tag, MANIFEST, &manifest(content).to_string()).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        answer.header("docker-content-digest").to_owned()
    }
}

/// Makes a call of ECR as the session's user.
pub(super) async fn ecr(server: &Server, operation: &str, body: Value) -> (u16, Value) {
    let target = format!("AmazonEC2ContainerRegistry_V20150921.{operation}");
    api(&server.url(), &target, &body, Some(keys(server))).await.unwrap()
}

/// Moves ECR's clock ahead by so many hours. Rules are carried out, and layers that no image needs leave.
pub(super) async fn move_clock(server: &Server, hours: u32) {
    let request = http().post(format!("{}/_local/clock", server.url())).bearer_auth(server.token().expose());
    let body = json!({"ecrAheadSeconds": hours * 3600}).to_string();
    let answer = request.header("content-type", "application/json").body(body).send().await.unwrap();
    assert_eq!(answer.status(), 200);
}

/// The password of a new token.
pub(super) async fn password(server: &Server) -> String {
    let (status, body) = ecr(server, "GetAuthorizationToken", json!({})).await;
    assert_eq!(status, 200, "{body}");
    let token = body["authorizationData"][0]["authorizationToken"].as_str().unwrap();
    let decoded = base64::engine::general_purpose::STANDARD.decode(token).unwrap();
    String::from_utf8(decoded).unwrap().strip_prefix("AWS:").unwrap().to_owned()
}

/// A server with an empty registry in memory.
pub(super) async fn server() -> Server {
    Server::start(Options::default()).await.unwrap()
}

/// The digest of these bytes, by another implementation than that of the server.
pub(super) fn digest(content: &[u8]) -> String {
    use sha2::Digest;
    let hex: String = sha2::Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

fn descriptor(kind: &str, content: &[u8]) -> Value {
    json!({"mediaType": kind, "digest": digest(content), "size": content.len()})
}

/// A manifest with one layer of this content, and `{}` as configuration.
pub(super) fn manifest(content: &str) -> Value {
    json!({
        "schemaVersion": 2, "mediaType": MANIFEST,
        "config": descriptor(CONFIG, b"{}"), "layers": [descriptor(LAYER, content.as_bytes())],
    })
}

/// Bytes that cannot be guessed from their neighbours.
pub(super) fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    })
    .flatten()
    .take(length)
    .collect()
}
