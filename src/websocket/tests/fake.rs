//! A websocket server for tests: it passes every accepted connection to the test, or refuses all of them.

use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

/// Credentials to sign with, including a session token.
pub(crate) fn keys() -> SharedCredentialsProvider {
    let token = Some("token".to_owned());
    SharedCredentialsProvider::new(Credentials::new("ASIAINSTANCEROLE0001", "secret", token, None, "test"))
}

/// The answer of a server that refuses every handshake.
#[derive(Clone, Debug)]
pub(crate) struct Refusal {
    pub(crate) status: u16,
    pub(crate) body: String,
}

/// The server's side of one connection.
pub(crate) struct Peer {
    pub(crate) uri: String,
    pub(crate) headers: HeaderMap,
    pub(crate) socket: WebSocketStream<TokioIo<Upgraded>>,
}

impl Peer {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

struct Accepted {
    uri: String,
    headers: HeaderMap,
    upgrade: OnUpgrade,
}

struct Shared {
    refusal: Option<Refusal>,
    accepted: mpsc::UnboundedSender<Accepted>,
}

/// The server; it ends when dropped.
pub(crate) struct Server {
    pub(crate) port: u16,
    accepted: mpsc::UnboundedReceiver<Accepted>,
    _running: JoinSet<()>,
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::run(None).await
    }

    pub(crate) async fn refusing(refusal: Refusal) -> Self {
        Self::run(Some(refusal)).await
    }

    async fn run(refusal: Option<Refusal>) -> Self {
        let (sender, accepted) = mpsc::unbounded_channel();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared { refusal, accepted: sender });
        let router = Router::new().fallback(answer).with_state(shared);
        let mut running = JoinSet::new();
        running.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { port, accepted, _running: running }
    }

    /// The next connection; waits for it for at most ten seconds.
    pub(crate) async fn next(&mut self) -> Peer {
        let limit = std::time::Duration::from_secs(10);
        let accepted =
            tokio::time::timeout(limit, self.accepted.recv()).await.expect("no connection was made").unwrap();
        let upgraded = accepted.upgrade.await.unwrap();
        let socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await;
        Peer { uri: accepted.uri, headers: accepted.headers, socket }
    }
}

async fn answer(State(shared): State<Arc<Shared>>, mut request: Request) -> Response {
    if let Some(refusal) = &shared.refusal {
        let status = axum::http::StatusCode::from_u16(refusal.status).unwrap();
        return (status, refusal.body.clone()).into_response();
    }
    let upgrade = hyper::upgrade::on(&mut request);
    let key = request.headers().get("sec-websocket-key").unwrap().as_bytes();
    let response = Response::builder()
        .status(101)
        .header("connection", "upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-accept", derive_accept_key(key))
        .body(Body::empty())
        .unwrap();
    let accepted = Accepted { uri: request.uri().to_string(), headers: request.headers().clone(), upgrade };
    shared.accepted.send(accepted).unwrap();
    response
}
