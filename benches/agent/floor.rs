//! The floor: the time that Docker alone needs for the same containers, created, started and stopped directly through its API.
//! Docker has the same work for them as for the agent's: they are in the control group of their task, and their `/dev/shm` is
//! shareable, as for every container created with the version of the API that ECS names (1.21), which takes a mount on the host
//! for each.

use super::{Pace, STOPPABLE, busy};
use ecs_testing::docker::unique;
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use std::time::Instant;

/// A client that creates, starts and stops containers directly through the Docker API.
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

    /// Creates and starts one container in this control group, and returns its name.
    pub(crate) async fn run(&self, control_group: &str) -> String {
        self.create(control_group, &json!({"Cmd": ["sh", "-c", STOPPABLE]})).await
    }

    /// Creates and starts one container in this control group, with these members beside the usual ones, and returns its name.
    pub(crate) async fn create(&self, control_group: &str, members: &Value) -> String {
        let name = unique("ecs-bench");
        let mut body = json!({
            "Image": self.image,
            "Labels": {"com.amazonaws.ecs.cluster": self.cluster},
            "HostConfig": {"Memory": 32 << 20, "CpuShares": 2, "CgroupParent": control_group, "IpcMode": "shareable"},
        });
        for (member, value) in members.as_object().into_iter().flatten() {
            match value.as_object() {
                Some(inner) => inner.iter().for_each(|(name, value)| body[member][name] = value.clone()),
                None => body[member] = value.clone(),
            }
        }
        self.post(&format!("/containers/create?name={name}"), Some(&body)).await;
        self.post(&format!("/containers/{name}/start"), None).await;
        name
    }

    /// The process of a running container.
    pub(crate) async fn pid(&self, name: &str) -> u64 {
        let answer = self.client.get(format!("http://docker/v1.41/containers/{name}/json")).send().await;
        let shown: Value = answer.expect("Docker answers").json().await.expect("a container");
        shown["State"]["Pid"].as_u64().expect("a process")
    }

    pub(crate) async fn remove(&self, name: &str) {
        let url = format!("http://docker/v1.41/containers/{name}?force=true");
        self.client.delete(url).send().await.expect("Docker answers");
    }

    /// Runs `runs_each` containers in each of these control groups, `at_once` at a time: the time until the last one is started,
    /// and until the last one is stopped.
    pub(crate) async fn many(&self, control_groups: &[String], runs_each: usize, at_once: usize) -> Pace {
        let (begun, worked) = (Instant::now(), busy());
        let all = control_groups.iter().flat_map(|group| std::iter::repeat_n(group, runs_each));
        let runs = futures_util::stream::iter(all.map(|group| self.run(group)));
        let names: Vec<String> = runs.buffer_unordered(at_once).collect().await;
        let (started, work) = (begun.elapsed(), busy() - worked);
        let begun = Instant::now();
        let paths: Vec<String> = names.iter().map(|name| format!("/containers/{name}/stop?t=30")).collect();
        let stops = futures_util::stream::iter(paths.iter().map(|path| self.post(path, None)));
        stops.buffer_unordered(at_once).collect::<Vec<()>>().await;
        let stopped = begun.elapsed();
        for name in &names {
            self.remove(name).await;
        }
        Pace { started, work, stopped }
    }
}
