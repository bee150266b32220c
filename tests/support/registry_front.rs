//! A proxy in front of a registry. It refuses, delays, cuts or slows selected requests.

use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// A fault in the answer to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// This status line, and a body in the form of a registry's errors with this code and message.
    Refuse(&'static str, &'static str, String),
    /// Status 200 with this body.
    Garbage(&'static str),
    /// The request hangs: no answer until [`RegistryFront::release`].
    Hang,
    /// The connection is closed after this many bytes of the answer.
    Cut(usize),
    /// This many bytes of the answer in each interval.
    Slow(usize, Duration),
}

#[derive(Debug)]
struct Rule {
    parts: Vec<String>,
    fault: Fault,
    /// The number of requests to which the rule still applies.
    left: usize,
}

#[derive(Debug, Default)]
struct Shared {
    rules: Mutex<Vec<Rule>>,
    /// How often hanging requests were released.
    releases: watch::Sender<u64>,
}

/// The front; ends with all its connections when dropped.
#[derive(Debug)]
pub struct RegistryFront {
    /// `127.0.0.1:<port>`, for image references.
    pub host: String,
    shared: Arc<Shared>,
    _accepting: JoinSet<()>,
}

impl RegistryFront {
    /// Starts listening in front of this registry.
    pub async fn start(registry: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let host = listener.local_addr().expect("an address").to_string();
        let shared = Arc::new(Shared::default());
        let mut accepting = JoinSet::new();
        accepting.spawn(accept(listener, registry.to_owned(), shared.clone()));
        Self { host, shared, _accepting: accepting }
    }

    /// The reference of a registry's image as it is pulled through the front.
    pub fn image(&self, image: &str) -> String {
        format!("{}/{}", self.host, image.split_once('/').expect("host and name").1)
    }

    /// Gives this fault to the next `times` requests whose first line contains all these parts.
    pub fn inject(&self, parts: &[&str], times: usize, fault: Fault) {
        let parts = parts.iter().map(|part| (*part).to_owned()).collect();
        self.shared.rules.lock().expect("not poisoned").push(Rule { parts, fault, left: times });
    }

    /// Lets the requests that hang now continue; later ones hang as before.
    pub fn release(&self) {
        self.shared.releases.send_modify(|releases| *releases += 1);
    }

    /// Removes all faults and lets hanging requests continue.
    pub fn clear(&self) {
        self.shared.rules.lock().expect("not poisoned").clear();
        self.release();
    }
}

async fn accept(listener: TcpListener, registry: String, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        let (registry, shared) = (registry.clone(), shared.clone());
        connections.spawn(async move {
            // A broken connection is normal here.
            let _ = serve(client, &registry, &shared).await;
        });
        while connections.try_join_next().is_some() {}
    }
}

/// One request for each connection: `Connection: close` is added, so that none is reused.
async fn serve(mut client: TcpStream, registry: &str, shared: &Shared) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.windows(4).any(|four| four == b"\r\n\r\n") {
        if client.read_buf(&mut head).await? == 0 {
            return Ok(());
        }
        // Docker tries TLS first, and would wait long for an answer. Only this answer, a web server's, makes every engine go on
        // without TLS.
        if head.starts_with(&[0x16]) {
            client.write_all(b"HTTP/1.0 400 Bad Request\r\n\r\n").await?;
            client.shutdown().await?;
            return tokio::io::copy(&mut client, &mut tokio::io::sink()).await.map(drop);
        }
    }
    let text = String::from_utf8_lossy(&head).into_owned();
    let line = text.lines().next().unwrap_or_default().to_owned();
    let fault = hit(&mut shared.rules.lock().expect("not poisoned"), &line);
    match &fault {
        Some(Fault::Refuse(status, code, message)) => {
            let body = serde_json::json!({"errors": [{"code": code, "message": message}]}).to_string();
            return answer(client, status, &body).await;
        }
        Some(Fault::Garbage(body)) => return answer(client, "200 OK", body).await,
        Some(Fault::Hang) => {
            let mut releases = shared.releases.subscribe();
            let _ = releases.changed().await;
        }
        Some(Fault::Cut(_) | Fault::Slow(..)) | None => {}
    }
    // If the registry is down, the client's connection is closed.
    let mut server = TcpStream::connect(registry).await?;
    let end_of_line = text.find("\r\n").map_or(0, |at| at + 2);
    server.write_all(&head[..end_of_line]).await?;
    server.write_all(b"Connection: close\r\n").await?;
    server.write_all(&head[end_of_line..]).await?;
    match fault {
        Some(Fault::Cut(bytes)) => pass(server, client, bytes, bytes, Duration::ZERO).await,
        Some(Fault::Slow(bytes, interval)) => pass(server, client, usize::MAX, bytes, interval).await,
        Some(Fault::Refuse(..) | Fault::Garbage(_) | Fault::Hang) | None => {
            tokio::io::copy_bidirectional(&mut client, &mut server).await.map(drop)
        }
    }
}

fn hit(rules: &mut [Rule], line: &str) -> Option<Fault> {
    let hits = |rule: &&mut Rule| rule.left > 0 && rule.parts.iter().all(|part| line.contains(part));
    let rule = rules.iter_mut().find(hits)?;
    rule.left -= 1;
    Some(rule.fault.clone())
}

async fn answer(mut client: TcpStream, status: &str, body: &str) -> std::io::Result<()> {
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    client.write_all(head.as_bytes()).await?;
    client.write_all(body.as_bytes()).await?;
    client.shutdown().await
}

/// Passes on at most `max_bytes` of the answer, `at_once` bytes in each interval.
async fn pass(
    mut from: TcpStream,
    mut to: TcpStream,
    max_bytes: usize,
    at_once: usize,
    interval: Duration,
) -> std::io::Result<()> {
    let mut buffer = vec![0; at_once];
    let mut left = max_bytes;
    while left > 0 {
        let room = buffer.len().min(left);
        let count = from.read(&mut buffer[..room]).await?;
        if count == 0 {
            break;
        }
        to.write_all(&buffer[..count]).await?;
        left -= count;
        tokio::time::sleep(interval).await;
    }
    Ok(())
}
