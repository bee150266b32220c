//! A scripted HTTP server for tests: it records every request, and a closure answers it.

use crate::aws::client::sdk::{AgentName, Settings};
use crate::aws::identity::roles::{RoleCredentials, RoleKind};
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use std::sync::{Arc, Mutex};
use tokio::task::JoinSet;

/// One recorded request.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) number: usize,
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap()
    }

    /// The operation of a JSON 1.1 call.
    pub(crate) fn operation(&self) -> &str {
        self.header("x-amz-target").and_then(|target| target.rsplit('.').next()).unwrap_or_default()
    }
}

/// An answer of the fake server.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    status: u16,
    headers: Vec<(&'static str, String)>,
    content_type: &'static str,
    body: String,
    date: Option<String>,
}

impl Answer {
    pub(crate) fn text(status: u16, body: &str) -> Self {
        Self { status, headers: Vec::new(), content_type: "text/plain", body: body.to_owned(), date: None }
    }

    pub(crate) fn json(status: u16, body: &serde_json::Value) -> Self {
        Self {
            status,
            headers: Vec::new(),
            content_type: "application/x-amz-json-1.1",
            body: body.to_string(),
            date: None,
        }
    }

    /// The same answer with another `Date`.
    pub(crate) fn dated(self, date: String) -> Self {
        Self { date: Some(date), ..self }
    }

    /// The same answer with one more header.
    pub(crate) fn with(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }

    /// An AWS error: `__type` and message.
    pub(crate) fn error(status: u16, code: &str, message: &str) -> Self {
        Self::json(status, &serde_json::json!({"__type": code, "message": message}))
    }
}

/// The credentials of the execution role in the recordings, with this id.
pub(crate) fn role(id: &str) -> RoleCredentials {
    RoleCredentials {
        id: id.into(),
        role_arn: "arn:aws:iam::123456789012:role/execRole".to_owned(),
        kind: RoleKind::Execution,
        access_key_id: "ASIA09438B6F6D524562".into(),
        secret_access_key: "608f".into(),
        session_token: "tok".into(),
        expiration: String::new(),
    }
}

/// The settings of the recorded agent, with the fake server as the endpoint of every service.
pub(crate) fn settings(fake: &Fake) -> Settings {
    let agent =
        AgentName { version: "1.105.1".to_owned(), hash: "*a8b3e7d3".to_owned(), os_family: "LINUX".to_owned() };
    Settings { region: "us-west-2".to_owned(), agent, endpoint_url: Some(fake.url()), ..Settings::default() }
}

/// A recorded request.
pub(crate) fn golden(name: &str) -> serde_json::Value {
    let path = format!("{}/tests/golden/{name}.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// Region, service and protocol of a signature's scope.
pub(crate) fn scope(authorization: &str) -> Vec<String> {
    let scope = authorization.split(',').next().unwrap();
    scope.split('/').skip(2).map(str::to_owned).collect()
}

type Script = dyn Fn(&Request) -> Answer + Send + Sync;

struct Shared {
    script: Box<Script>,
    seen: Mutex<Vec<Request>>,
}

/// The fake server; it stops when it is dropped.
pub(crate) struct Fake {
    port: u16,
    shared: Arc<Shared>,
    _running: JoinSet<()>,
}

impl Fake {
    pub(crate) async fn start(script: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Self {
        let shared = Arc::new(Shared { script: Box::new(script), seen: Mutex::new(Vec::new()) });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let router = Router::new().fallback(answer).with_state(Arc::clone(&shared));
        let mut running = JoinSet::new();
        running.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { port, shared, _running: running }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.shared.seen.lock().unwrap().clone()
    }
}

async fn answer(
    State(shared): State<Arc<Shared>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let request = {
        let mut seen = shared.seen.lock().unwrap();
        let request = Request {
            number: seen.len(),
            method: method.to_string(),
            path: uri.path().to_owned(),
            query: uri.query().unwrap_or_default().to_owned(),
            headers,
            body: String::from_utf8_lossy(&body).into_owned(),
        };
        seen.push(request.clone());
        request
    };
    let answer = (shared.script)(&request);
    let status = StatusCode::from_u16(answer.status).unwrap();
    // The SDK's own IMDS client requires the lifetime of the token; other callers ignore it.
    let headers = [("content-type", answer.content_type), ("x-aws-ec2-metadata-token-ttl-seconds", "21600")];
    let mut response = (status, headers, answer.body).into_response();
    for (name, value) in answer.headers {
        response.headers_mut().insert(name, value.parse().unwrap());
    }
    if let Some(date) = answer.date {
        response.headers_mut().insert("date", date.parse().unwrap());
    }
    response
}
