//! Follows the containers of one task in Docker: their output, their health, and their ends. This module owns the processes
//! `docker events` and `docker logs`. Invariant: output is shown as it comes, from the first container on; what a container
//! writes to standard error goes to standard error.

use super::child::{bound, output};
use super::container_output::follow_output;
use super::health::{EndlessWaits, unhealthy};
use super::output::{print_error, print_line};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// The time limit for the last output to arrive.
const OUTPUT_LIMIT: Duration = Duration::from_secs(5);

/// When each container ended last, by name, in nanoseconds since the epoch.
pub(super) type Ends = BTreeMap<String, u64>;

/// Follows the containers of a task.
#[derive(Debug)]
pub(super) struct Follower {
    events: JoinSet<()>,
    /// Ends the following when the ends of these containers have been seen.
    finish: oneshot::Sender<BTreeSet<String>>,
    ends: Arc<Mutex<Ends>>,
}

/// What Docker reports of a container.
#[derive(Debug, PartialEq, Eq)]
struct Event {
    action: Action,
    id: String,
    /// The container's name in the task definition.
    name: String,
    /// In nanoseconds since the epoch.
    at: u64,
}

#[derive(Debug, PartialEq, Eq)]
enum Action {
    Started,
    Ended,
    Health(String),
}

impl Follower {
    /// Follows the containers of a task from this moment on. `waits` are those for their health.
    pub(super) fn start(task: &str, since: SystemTime, quiet: bool, waits: EndlessWaits) -> Self {
        let (finish, finishing) = oneshot::channel();
        let ends = Arc::new(Mutex::new(Ends::new()));
        let since = since.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let since = format!("{}.{:09}", since.as_secs(), since.subsec_nanos());
        let label = format!("label=com.amazonaws.ecs.task-arn={task}");
        let mut command = bound("docker");
        command.args(["events", "--since", &since, "--filter", "type=container", "--filter", &label]);
        command.args(["--format", "{{json .}}"]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut running = JoinSet::new();
        let health = (!quiet).then_some(waits);
        running.spawn(events(command, Arc::clone(&ends), health, finishing));
        Self { events: running, finish, ends }
    }

    /// Waits for the last output of the containers that ran, and returns when each ended.
    pub(super) async fn finish(mut self, ran: BTreeSet<String>) -> Ends {
        let _sent = self.finish.send(ran);
        let _complete = timeout(OUTPUT_LIMIT, self.events.join_next()).await;
        self.events.shutdown().await;
        self.ends.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Reads Docker's events, and follows the output of each container that starts. `health`: `None`, if health is not shown.
async fn events(
    mut docker: Command,
    ends: Arc<Mutex<Ends>>,
    health: Option<EndlessWaits>,
    mut finish: oneshot::Receiver<BTreeSet<String>>,
) {
    let mut outputs = JoinSet::new();
    let mut child = docker.spawn().ok();
    let stream = child.as_mut().and_then(|child| child.stdout.take());
    let mut lines = stream.map(|stream| BufReader::new(stream).lines());
    let mut awaited: Option<BTreeSet<String>> = None;
    let mut ended: BTreeMap<String, u64> = BTreeMap::new();
    let mut started: BTreeSet<String> = BTreeSet::new();
    // Each tells the task that shows the output of a container when this run of it has ended.
    let mut runs: BTreeMap<String, oneshot::Sender<u64>> = BTreeMap::new();
    while let Some(lines) = &mut lines {
        let has_all = |ends: &Ends| awaited.iter().any(|names| names.iter().all(|name| ends.contains_key(name)));
        if has_all(&ends.lock().unwrap_or_else(PoisonError::into_inner)) {
            break;
        }
        let line = tokio::select! {
            names = &mut finish, if awaited.is_none() => {
                awaited = Some(names.unwrap_or_default());
                continue;
            }
            line = lines.next_line() => line,
        };
        let Ok(Some(line)) = line else {
            print_error("the output of the containers is not shown any more: `docker events` has ended");
            break;
        };
        let Some(event) = serde_json::from_str(&line).ok().as_ref().and_then(Event::read) else { continue };
        match event.action {
            Action::Started => {
                // The output of an earlier run is shown already. The first run may write before Docker reports its start.
                let since = ended.get(&event.id).copied();
                started.insert(event.name.clone());
                let (run, end) = oneshot::channel();
                runs.insert(event.id.clone(), run);
                outputs.spawn(follow_output(event.name, event.id, since, end));
            }
            Action::Ended => {
                ends.lock().unwrap_or_else(PoisonError::into_inner).insert(event.name, event.at);
                runs.remove(&event.id).map(|run| run.send(event.at));
                ended.insert(event.id, event.at);
            }
            Action::Health(new) => {
                let Some(waits) = &health else { continue };
                if new == "UNHEALTHY" {
                    let waiting = waits.get(&event.name).into_iter().flatten().filter(|name| !started.contains(*name));
                    outputs.spawn(show_unhealthy(event.name.clone(), event.id, waiting.cloned().collect()));
                } else {
                    print_line(&format!("container {}: {new}", event.name));
                }
            }
        }
    }
    drop(runs);
    while outputs.join_next().await.is_some() {}
}

/// Prints why a container is unhealthy, and which containers (`waiting`) wait for it without a time limit.
async fn show_unhealthy(name: String, id: String, waiting: Vec<String>) {
    let state = output("docker", &["inspect", "--format", "{{json .State.Health}}", &id]).await.unwrap_or_default();
    unhealthy(&name, &state, &waiting).iter().for_each(|line| print_line(line));
}

impl Event {
    /// Reads an event of `docker events`; `None` if it does not matter here.
    fn read(event: &Value) -> Option<Self> {
        let attributes = &event["Actor"]["Attributes"];
        let text = event["Action"].as_str()?;
        let action = match text {
            "start" => Action::Started,
            "die" => Action::Ended,
            _ => Action::Health(text.strip_prefix("health_status: ")?.to_uppercase()),
        };
        let id = event["Actor"]["ID"].as_str()?.to_owned();
        let name = attributes["com.amazonaws.ecs.container-name"].as_str().unwrap_or("container").to_owned();
        Some(Self { action, id, name, at: event["timeNano"].as_u64().unwrap_or(0) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn events_of_docker_are_understood() {
        let event = |action: &str, attributes: Value| {
            Event::read(&json!({"Action": action, "Actor": {"ID": "abc", "Attributes": attributes}, "timeNano": 7}))
        };
        let name = "com.amazonaws.ecs.container-name";
        let started = event("start", json!({name: "web"})).unwrap();
        assert_eq!((started.action, started.name.as_str(), started.at), (Action::Started, "web", 7));
        assert_eq!(event("die", json!({name: "web", "exitCode": "3"})).unwrap().action, Action::Ended);
        let health = event("health_status: healthy", json!({name: "web"})).unwrap();
        assert_eq!(health.action, Action::Health("HEALTHY".to_owned()));
        assert_eq!(event("exec_start: wget", json!({name: "web"})), None);
    }
}
