//! The calls that change containers, images and volumes: all that are not GET.
//!
//! Owns the sending of a change. bollard is not used for this: it reads answers of any length into memory, and it cannot switch
//! to another API version when the daemon is replaced. Invariant: every change has a time limit, and a missing or broken answer
//! is an error, never success.

use super::connection::{Body, Request, Wire};
use super::error::{DockerError, within};
use super::version::VersionsInUse;
use bytes::Bytes;
use reqwest::Method;
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;

/// The client for changes.
#[derive(Clone, Debug)]
pub(crate) struct Changer {
    wire: Arc<Wire>,
}

impl Changer {
    pub(crate) fn new(wire: Arc<Wire>) -> Self {
        Self { wire }
    }

    /// Sends a POST without a body and returns the body of the answer.
    pub(crate) async fn post(
        &self,
        path: &[&str],
        query: &[(&str, &str)],
        limit: Duration,
    ) -> Result<Vec<u8>, DockerError> {
        let request = Request { method: &Method::POST, path, query, registry_auth: None, body: Body::Empty };
        within(limit, self.wire.fetch(VersionsInUse::changes, request)).await
    }

    /// Sends a POST with a JSON body.
    pub(crate) async fn post_json(&self, path: &[&str], body: &Value, limit: Duration) -> Result<(), DockerError> {
        let request = Request { method: &Method::POST, path, query: &[], registry_auth: None, body: Body::Json(body) };
        within(limit, self.wire.fetch(VersionsInUse::changes, request)).await.map(drop)
    }

    /// Creates a container. `wanted` is the API version that its settings were written for.
    pub(crate) async fn create(
        &self,
        name: &str,
        wanted: &str,
        body: &Value,
        limit: Duration,
    ) -> Result<Vec<u8>, DockerError> {
        let (path, query) = (["containers", "create"], [("name", name)]);
        let request =
            Request { method: &Method::POST, path: &path, query: &query, registry_auth: None, body: Body::Json(body) };
        let version = |versions: &VersionsInUse| versions.create(wanted).unwrap_or_else(|| wanted.to_owned());
        within(limit, self.wire.fetch(version, request)).await
    }

    /// Sends a POST with a tar archive as its body and returns the body of the answer.
    pub(crate) async fn upload(
        &self,
        path: &[&str],
        query: &[(&str, &str)],
        archive: Bytes,
        limit: Duration,
    ) -> Result<Vec<u8>, DockerError> {
        let request = Request { method: &Method::POST, path, query, registry_auth: None, body: Body::Tar(&archive) };
        within(limit, self.wire.fetch(VersionsInUse::changes, request)).await
    }

    /// Sends a DELETE.
    pub(crate) async fn delete(
        &self,
        path: &[&str],
        query: &[(&str, &str)],
        limit: Duration,
    ) -> Result<(), DockerError> {
        let request = Request { method: &Method::DELETE, path, query, registry_auth: None, body: Body::Empty };
        within(limit, self.wire.fetch(VersionsInUse::changes, request)).await.map(drop)
    }
}
