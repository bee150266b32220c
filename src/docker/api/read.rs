//! Reads from the daemon: plain GETs into untyped JSON.
//!
//! Owns reading only; it changes nothing in the daemon. bollard's answer types are not used because they are closed: one unknown
//! status would hide a container or end a stream. Invariant: every answer is bounded in time and in size.

use super::connection::{Body, Request, Wire, parse};
use super::error::{DockerError, within};
use super::version::VersionsInUse;
use reqwest::{Method, Response};
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;

/// The client for reads.
#[derive(Clone, Debug)]
pub(crate) struct Reader {
    wire: Arc<Wire>,
}

impl Reader {
    pub(crate) fn new(wire: Arc<Wire>) -> Self {
        Self { wire }
    }

    /// Sends a GET and returns the opened answer; an error status becomes an error. The caller sets the time limit.
    pub(crate) async fn open(
        &self,
        path: &[&str],
        query: &[(&str, &str)],
        registry_auth: Option<&str>,
    ) -> Result<Response, DockerError> {
        let request = Request { method: &Method::GET, path, query, registry_auth, body: Body::Empty };
        self.wire.open(VersionsInUse::reads, request).await
    }

    /// Sends a GET and returns the whole answer as JSON.
    pub(crate) async fn get(
        &self,
        path: &[&str],
        query: &[(&str, &str)],
        limit: Duration,
    ) -> Result<Value, DockerError> {
        self.get_with(path, query, None, limit).await
    }

    /// As [`Reader::get`], with registry credentials.
    pub(crate) async fn get_with(
        &self,
        path: &[&str],
        query: &[(&str, &str)],
        registry_auth: Option<&str>,
        limit: Duration,
    ) -> Result<Value, DockerError> {
        let request = Request { method: &Method::GET, path, query, registry_auth, body: Body::Empty };
        parse(&within(limit, self.wire.fetch(VersionsInUse::reads, request)).await?)
    }
}
