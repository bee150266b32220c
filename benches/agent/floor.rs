//! What Docker alone needs: the same containers, created, started and stopped straight through its API.

use super::STOPPABLE;
use super::support::docker::unique;
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// A container of the floor.
#[derive(Debug)]
pub(crate) struct Floor {
    client: reqwest::Client,
    image: String,
    cluster: String,
}

impl Floor {
    pub(crate) fn new(image: &str, cluster: &str) -> Self {
        let client = reqwest::Client::builder().unix_socket("/var/run/docker.sock").build().expect("a client");
        Self { client, image: image.to_owned(), cluster: cluster.to_owned() }
    }

    async fn post(&self, path: &str, body: Option<&Value>) {
        let request = self.client.post(format!("http://docker/v1.41{path}"));
        let request = match body {
            Some(body) => request.json(body),
            None => request,
        };
        let answer = request.send().await.expect("Docker answers");
        assert!(answer.status().is_success(), "{path}: {}", answer.status());
    }

    /// Creates and starts one container; its name.
    pub(crate) async fn run(&self) -> String {
        let name = unique("ecs-bench");
        let body = json!({
            "Image": self.image,
            "Cmd": ["sh", "-c", STOPPABLE],
            "Labels": {"com.amazonaws.ecs.cluster": self.cluster},
            "HostConfig": {"Memory": 32 << 20, "CpuShares": 2},
        });
        self.post(&format!("/containers/create?name={name}"), Some(&body)).await;
        self.post(&format!("/containers/{name}/start"), None).await;
        name
    }

    pub(crate) async fn remove(&self, name: &str) {
        let url = format!("http://docker/v1.41/containers/{name}?force=true");
        self.client.delete(url).send().await.expect("Docker answers");
    }

    /// That many containers, so many at a time: until the last one is started, and until the last one is stopped.
    pub(crate) async fn many(&self, count: usize, at_once: usize) -> (Duration, Duration) {
        let begun = Instant::now();
        let runs = futures_util::stream::iter((0..count).map(|_| self.run()));
        let names: Vec<String> = runs.buffer_unordered(at_once).collect().await;
        let started = begun.elapsed();
        let begun = Instant::now();
        let paths: Vec<String> = names.iter().map(|name| format!("/containers/{name}/stop?t=30")).collect();
        let stops = futures_util::stream::iter(paths.iter().map(|path| self.post(path, None)));
        stops.buffer_unordered(at_once).collect::<Vec<()>>().await;
        let stopped = begun.elapsed();
        for name in &names {
            self.remove(name).await;
        }
        (started, stopped)
    }
}
