//! A proxy in front of the Docker socket. It holds selected requests, before Docker receives them or after Docker has carried
//! them out, and imitates a daemon that is down, hangs, is slow, breaks off or sends wrong answers.

use super::docker::TempDir;
use base64::Engine as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// When a request is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// Before Docker receives the request; Docker never receives it.
    Before,
    /// After Docker has carried the request out; the answer is held back.
    After,
}

#[derive(Debug)]
struct Rule {
    line: &'static [&'static str],
    /// How many such requests are not held.
    spared: usize,
    hold: Hold,
}

/// How the daemon appears to behave, for every request until the behaviour is changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Behaviour {
    /// Normal.
    #[default]
    Clear,
    /// Nothing listens, and every connection is closed.
    Down,
    /// Requests, streams included, are accepted and not answered until the behaviour changes; then all are carried out, late.
    Hang,
    /// Each byte of an answer takes this many milliseconds.
    Slow(u64),
    /// Requests are carried out, and the answer ends after this many bytes.
    Cut(usize),
    /// Requests are carried out, and these bytes are the answer.
    Says(&'static str),
}

#[derive(Debug, Default)]
struct Shared {
    rule: Mutex<Option<Rule>>,
    held: watch::Sender<bool>,
    /// Ends the connections of held requests.
    ended: tokio::sync::Notify,
    behaviour: watch::Sender<Behaviour>,
    seen: Mutex<Vec<String>>,
    /// First lines, and the credentials sent with them.
    credentials: Mutex<Vec<(String, serde_json::Value)>>,
}

/// The proxy; its socket is in a directory of its own.
#[derive(Debug)]
pub struct DockerProxy {
    directory: TempDir,
    shared: Arc<Shared>,
    _accepting: JoinSet<()>,
}

impl DockerProxy {
    /// Starts listening.
    pub fn start() -> Self {
        let directory = TempDir::new("ecs-test-proxy");
        let path = directory.path().join("docker.sock");
        let shared = Arc::new(Shared::default());
        let mut accepting = JoinSet::new();
        let listener = UnixListener::bind(&path).expect("a socket");
        accepting.spawn(live(listener, path, shared.clone()));
        Self { directory, shared, _accepting: accepting }
    }

    /// Sets the behaviour.
    pub fn behave(&self, behaviour: Behaviour) {
        self.shared.behaviour.send_replace(behaviour);
    }

    /// `DOCKER_HOST` for the agent.
    pub fn endpoint(&self) -> String {
        format!("unix://{}", self.directory.path().join("docker.sock").display())
    }

    /// Holds the next request whose first line contains all these parts, and only that one.
    pub fn hold(&self, line: &'static [&'static str], hold: Hold) {
        self.hold_later(0, line, hold);
    }

    /// The same, but as many requests are not held before that one.
    pub fn hold_later(&self, spared: usize, line: &'static [&'static str], hold: Hold) {
        self.shared.held.send_replace(false);
        *self.shared.rule.lock().expect("not poisoned") = Some(Rule { line, spared, hold });
    }

    /// Waits until the request is held. It is held until its connection is closed, or ended by [`DockerProxy::end_held`].
    pub async fn held(&self) {
        let mut held = self.shared.held.subscribe();
        let wait = held.wait_for(|held| *held);
        tokio::time::timeout(std::time::Duration::from_secs(60), wait)
            .await
            .unwrap_or_else(|_| panic!("the request never came; seen: {:#?}", self.seen()))
            .expect("the proxy lives");
    }

    /// Ends the connection of a request that is held before Docker receives it.
    pub fn end_held(&self) {
        self.shared.ended.notify_waiters();
    }

    /// First lines of all requests so far.
    pub fn seen(&self) -> Vec<String> {
        self.shared.seen.lock().expect("not poisoned").clone()
    }

    /// The registry credentials of all requests whose first line contains `part`, as Docker decodes them.
    pub fn credentials(&self, part: &str) -> Vec<serde_json::Value> {
        let all = self.shared.credentials.lock().expect("not poisoned");
        all.iter().filter(|(line, _)| line.contains(part)).map(|(_, credentials)| credentials.clone()).collect()
    }
}

/// The decoded value of `X-Registry-Auth`; `None`: there is none that can be decoded.
fn registry_auth(head: &str) -> Option<serde_json::Value> {
    let mut headers = head.lines().filter_map(|line| line.split_once(": "));
    let (_, value) = headers.find(|(name, _)| name.eq_ignore_ascii_case("x-registry-auth"))?;
    let decoded = base64::engine::general_purpose::URL_SAFE.decode(value).ok()?;
    serde_json::from_slice(&decoded).ok()
}

/// Listens, except while the daemon is down.
async fn live(mut listener: UnixListener, path: PathBuf, shared: Arc<Shared>) {
    let mut behaviour = shared.behaviour.subscribe();
    loop {
        let down = async { behaviour.wait_for(|behaviour| *behaviour == Behaviour::Down).await.map(drop) };
        tokio::select! {
            () = accept(listener, shared.clone()) => return, // its connections end with it
            ended = down => if ended.is_err() { return },
        }
        let _ = std::fs::remove_file(&path);
        if behaviour.wait_for(|behaviour| *behaviour != Behaviour::Down).await.is_err() {
            return;
        }
        listener = UnixListener::bind(&path).expect("a socket");
    }
}

async fn accept(listener: UnixListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        let shared = shared.clone();
        connections.spawn(async move {
            // A broken connection is normal in these tests.
            let _ = serve(client, &shared).await;
        });
        while connections.try_join_next().is_some() {}
    }
}

/// One request for each connection: `Connection: close` is added, so that none is reused.
async fn serve(mut client: UnixStream, shared: &Shared) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.windows(4).any(|four| four == b"\r\n\r\n") {
        let mut buffer = [0; 4096];
        let count = client.read(&mut buffer).await?;
        if count == 0 {
            return Ok(());
        }
        head.extend_from_slice(&buffer[..count]);
    }
    let text = String::from_utf8_lossy(&head).into_owned();
    let line = text.lines().next().unwrap_or_default().to_owned();
    shared.seen.lock().expect("not poisoned").push(line.clone());
    if let Some(credentials) = registry_auth(&text) {
        shared.credentials.lock().expect("not poisoned").push((line.clone(), credentials));
    }
    let hold = {
        let mut rule = shared.rule.lock().expect("not poisoned");
        match rule.as_mut().filter(|rule| rule.line.iter().all(|part| line.contains(part))) {
            Some(rule @ Rule { spared: 1.., .. }) => {
                rule.spared -= 1;
                None
            }
            Some(_) => rule.take().map(|rule| rule.hold),
            None => None,
        }
    };
    if hold == Some(Hold::Before) {
        return wait_for_the_end(client, shared).await;
    }
    let mut behaviour = shared.behaviour.subscribe();
    let _ = behaviour.wait_for(|behaviour| *behaviour != Behaviour::Hang).await;
    let end_of_line = text.find("\r\n").map_or(0, |at| at + 2);
    let mut docker = UnixStream::connect("/var/run/docker.sock").await?;
    docker.write_all(&head[..end_of_line]).await?;
    docker.write_all(b"Connection: close\r\n").await?;
    docker.write_all(&head[end_of_line..]).await?;
    if hold == Some(Hold::After) {
        // The rest of the request (a body in a second packet) must reach Docker; the answer must not reach the agent.
        let (mut from_client, mut to_client) = client.into_split();
        let (mut from_docker, mut to_docker) = docker.into_split();
        let mut answer = vec![0; 65536];
        tokio::select! {
            _ = tokio::io::copy(&mut from_client, &mut to_docker) => return Ok(()),
            count = from_docker.read(&mut answer) => { count?; }
        }
        shared.held.send_replace(true);
        let _ = tokio::io::copy(&mut from_client, &mut to_docker).await;
        return to_client.shutdown().await;
    }
    pass_on(client, docker, shared).await
}

/// Passes the rest of the request to Docker, and the answer to the agent as the behaviour permits.
async fn pass_on(client: UnixStream, docker: UnixStream, shared: &Shared) -> std::io::Result<()> {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_docker, mut to_docker) = docker.into_split();
    let request = async {
        let copied = tokio::io::copy(&mut from_client, &mut to_docker).await;
        // The agent has sent everything or has left; Docker continues in both cases.
        copied.map(drop)
    };
    let answer = async {
        let mut behaviour = shared.behaviour.subscribe();
        let (mut buffer, mut sent) = (vec![0; 16_384], 0);
        loop {
            let count = from_docker.read(&mut buffer).await?;
            if count == 0 {
                return to_client.shutdown().await;
            }
            let _ = behaviour.wait_for(|behaviour| *behaviour != Behaviour::Hang).await;
            let now = *behaviour.borrow();
            match now {
                Behaviour::Says(words) => {
                    to_client.write_all(words.as_bytes()).await?;
                    return to_client.shutdown().await;
                }
                Behaviour::Cut(bytes) if sent + count > bytes => {
                    to_client.write_all(&buffer[..bytes.saturating_sub(sent).min(count)]).await?;
                    return to_client.shutdown().await;
                }
                Behaviour::Slow(millis) => {
                    for byte in &buffer[..count] {
                        to_client.write_all(&[*byte]).await?;
                        let changed = behaviour.wait_for(|behaviour| *behaviour != now);
                        let _ = tokio::time::timeout(std::time::Duration::from_millis(millis), changed).await;
                    }
                }
                Behaviour::Clear | Behaviour::Down | Behaviour::Hang | Behaviour::Cut(_) => {
                    to_client.write_all(&buffer[..count]).await?;
                }
            }
            sent += count;
        }
    };
    tokio::pin!(request);
    tokio::pin!(answer);
    tokio::select! {
        ended = &mut answer => ended,
        ended = &mut request => { ended?; answer.await }
    }
}

/// Does nothing until the agent closes the connection.
async fn wait_for_the_end(mut client: UnixStream, shared: &Shared) -> std::io::Result<()> {
    let ended = shared.ended.notified();
    shared.held.send_replace(true);
    let closed = async {
        let mut buffer = [0; 4096];
        while client.read(&mut buffer).await? > 0 {}
        Ok(())
    };
    tokio::select! {
        () = ended => Ok(()),
        closed = closed => closed,
    }
}
