//! A proxy in front of the Docker socket that holds chosen requests, before Docker sees them or after it has done them.

#![allow(dead_code, reason = "each test binary uses a part of it")]

use super::docker::TempDir;
use base64::Engine as _;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Where a request is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hold {
    /// Docker never sees it unless it is released.
    Before,
    /// Docker has done it; the answer is kept back.
    After,
}

#[derive(Debug)]
struct Rule {
    line: &'static [&'static str],
    hold: Hold,
}

#[derive(Debug, Default)]
struct Shared {
    rule: Mutex<Option<Rule>>,
    held: watch::Sender<bool>,
    seen: Mutex<Vec<String>>,
    /// First lines, and the credentials sent with them.
    credentials: Mutex<Vec<(String, serde_json::Value)>>,
}

/// The proxy; its socket is in a directory of its own.
#[derive(Debug)]
pub(crate) struct DockerProxy {
    directory: TempDir,
    shared: Arc<Shared>,
    _accepting: JoinSet<()>,
}

impl DockerProxy {
    /// Starts listening.
    pub(crate) fn start() -> Self {
        let directory = TempDir::new("ecs-test-proxy");
        let listener = UnixListener::bind(directory.path().join("docker.sock")).expect("a socket");
        let shared = Arc::new(Shared::default());
        let mut accepting = JoinSet::new();
        accepting.spawn(accept(listener, shared.clone()));
        Self { directory, shared, _accepting: accepting }
    }

    /// `DOCKER_HOST` for the agent.
    pub(crate) fn endpoint(&self) -> String {
        format!("unix://{}", self.directory.path().join("docker.sock").display())
    }

    /// Holds the next request whose first line contains all these parts; only one.
    pub(crate) fn hold(&self, line: &'static [&'static str], hold: Hold) {
        self.shared.held.send_replace(false);
        *self.shared.rule.lock().expect("not poisoned") = Some(Rule { line, hold });
    }

    /// Waits until the request is held. It stays so until its connection is cut.
    pub(crate) async fn held(&self) {
        let mut held = self.shared.held.subscribe();
        let wait = held.wait_for(|held| *held);
        tokio::time::timeout(std::time::Duration::from_secs(60), wait)
            .await
            .unwrap_or_else(|_| panic!("the request never came; seen: {:#?}", self.seen()))
            .expect("the proxy lives");
    }

    /// First lines of all requests so far.
    pub(crate) fn seen(&self) -> Vec<String> {
        self.shared.seen.lock().expect("not poisoned").clone()
    }

    /// The registry credentials of all requests whose first line contains `part`, as Docker decodes them.
    pub(crate) fn credentials(&self, part: &str) -> Vec<serde_json::Value> {
        let all = self.shared.credentials.lock().expect("not poisoned");
        all.iter().filter(|(line, _)| line.contains(part)).map(|(_, credentials)| credentials.clone()).collect()
    }
}

/// What stands in `X-Registry-Auth`, if it can be decoded.
fn registry_auth(head: &str) -> Option<serde_json::Value> {
    let mut headers = head.lines().filter_map(|line| line.split_once(": "));
    let (_, value) = headers.find(|(name, _)| name.eq_ignore_ascii_case("x-registry-auth"))?;
    let decoded = base64::engine::general_purpose::URL_SAFE.decode(value).ok()?;
    serde_json::from_slice(&decoded).ok()
}

async fn accept(listener: UnixListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        let shared = shared.clone();
        connections.spawn(async move {
            // A connection that breaks is the tests' daily bread.
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
        let hits = rule.as_ref().is_some_and(|rule| rule.line.iter().all(|part| line.contains(part)));
        if hits { rule.take().map(|rule| rule.hold) } else { None }
    };
    if hold == Some(Hold::Before) {
        return wait_for_the_end(client, shared).await;
    }
    let end_of_line = text.find("\r\n").map_or(0, |at| at + 2);
    let mut docker = UnixStream::connect("/var/run/docker.sock").await?;
    docker.write_all(&head[..end_of_line]).await?;
    docker.write_all(b"Connection: close\r\n").await?;
    docker.write_all(&head[end_of_line..]).await?;
    if hold == Some(Hold::After) {
        // The rest of the request (a body in a second packet) has to reach Docker, its answer not the agent.
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
    tokio::io::copy_bidirectional(&mut client, &mut docker).await?;
    Ok(())
}

/// Nothing happens until the agent is gone.
async fn wait_for_the_end(mut client: UnixStream, shared: &Shared) -> std::io::Result<()> {
    shared.held.send_replace(true);
    let mut buffer = [0; 4096];
    while client.read(&mut buffer).await? > 0 {}
    Ok(())
}
