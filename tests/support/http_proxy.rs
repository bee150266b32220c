//! A forward proxy. Only the proxy can resolve [`NAME`] and [`TLS_NAME`], which stand for loopback. Plain requests are passed on,
//! and `CONNECT` opens a real tunnel.

use base64::Engine;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// A host that no resolver knows. It is as long as its address, so that bodies keep their length when one replaces the other.
pub const NAME: &str = "ecs.proxy";
const ADDRESS: &str = "127.0.0.1";
/// Like [`NAME`], for tunnels: `https` and this name are together as long as `http` and the address.
pub const TLS_NAME: &str = "ecs.prox";

/// The proxy; all its connections end with it.
#[derive(Debug)]
pub struct HttpProxy {
    address: String,
    seen: Arc<Mutex<Vec<String>>>,
    refusal: Arc<Mutex<Option<String>>>,
    _accepting: JoinSet<()>,
}

impl HttpProxy {
    /// Starts listening, without authentication.
    pub async fn start() -> Self {
        Self::demanding(None).await
    }

    /// Starts listening. With a password, only the user `me` is let in.
    pub async fn demanding(password: Option<&str>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address").to_string();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let refusal = Arc::new(Mutex::new(None));
        let mut accepting = JoinSet::new();
        let key = password.map(|password| base64::engine::general_purpose::STANDARD.encode(format!("me:{password}")));
        let key = key.map(|key| format!("proxy-authorization: basic {key}"));
        accepting.spawn(accept(listener, seen.clone(), refusal.clone(), key));
        Self { address, seen, refusal, _accepting: accepting }
    }

    /// Answers every request with this text from now on (an empty text closes the connection). `None` passes requests on again.
    pub fn refuse_with(&self, answer: Option<&str>) {
        *self.refusal.lock().expect("not poisoned") = answer.map(str::to_owned);
    }

    /// The value for `HTTP_PROXY`, with a password that must not be shown.
    pub fn url(&self, password: &str) -> String {
        format!("http://me:{password}@{}", self.address)
    }

    /// First lines of all connections so far.
    pub fn seen(&self) -> Vec<String> {
        self.seen.lock().expect("not poisoned").clone()
    }
}

async fn accept(
    listener: TcpListener,
    seen: Arc<Mutex<Vec<String>>>,
    refusal: Arc<Mutex<Option<String>>>,
    key: Option<String>,
) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        let (seen, refusal, key) = (seen.clone(), refusal.clone(), key.clone());
        connections.spawn(async move {
            // A connection ends when one side closes it.
            let _ = serve(client, &seen, &refusal, key.as_deref()).await;
        });
    }
}

async fn serve(
    mut client: TcpStream,
    seen: &Mutex<Vec<String>>,
    refusal: &Mutex<Option<String>>,
    key: Option<&str>,
) -> std::io::Result<()> {
    let mut head = vec![0; 64 * 1024];
    let count = client.read(&mut head).await?;
    head.truncate(count);
    let text = String::from_utf8_lossy(&head).into_owned();
    let line = text.lines().next().unwrap_or_default().to_owned();
    seen.lock().expect("not poisoned").push(line.clone());
    let refused = refusal.lock().expect("not poisoned").clone();
    if let Some(answer) = refused {
        return client.write_all(answer.as_bytes()).await;
    }
    if key.is_some_and(|key| !text.lines().any(|line| line.eq_ignore_ascii_case(key))) {
        let refusal =
            b"HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic\r\nContent-Length: 0\r\n\r\n";
        return client.write_all(refusal).await;
    }
    if let Some(authority) = line.strip_prefix("CONNECT ").and_then(|rest| rest.split(' ').next()) {
        return tunnel(client, authority).await;
    }
    let target = line.split(' ').nth(1).and_then(|url| url.strip_prefix("http://")).unwrap_or_default();
    let authority = target.split(['/', '?']).next().unwrap_or_default().replace(NAME, ADDRESS);
    let mut server = TcpStream::connect(authority).await?;
    // Passed on unchanged, since the signature covers the host's name.
    server.write_all(&head).await?;
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = server.split();
    tokio::select! {
        ended = pass(from_client, to_server, NAME, NAME) => ended,
        ended = pass(from_server, to_client, ADDRESS, NAME) => ended,
    }
}

async fn tunnel(mut client: TcpStream, authority: &str) -> std::io::Result<()> {
    let mut server = TcpStream::connect(authority.replace(TLS_NAME, ADDRESS)).await?;
    client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await?;
    tokio::io::copy_bidirectional(&mut client, &mut server).await.map(|_| ())
}

/// Copies in one direction until the end, replacing one text by another of the same length.
pub async fn pass(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    old: &str,
    new: &str,
) -> std::io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let count = from.read(&mut buffer).await?;
        if count == 0 {
            return to.shutdown().await;
        }
        to.write_all(&replaced(&buffer[..count], old, new)).await?;
    }
}

/// The bytes with one text in the place of another of the same length.
fn replaced(bytes: &[u8], old: &str, new: &str) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let places: Vec<usize> =
        bytes.windows(old.len()).enumerate().filter(|(_, part)| *part == old.as_bytes()).map(|(at, _)| at).collect();
    for at in places {
        bytes[at..at + new.len()].copy_from_slice(new.as_bytes());
    }
    bytes
}
