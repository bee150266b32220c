//! The daemon's event stream, turned into observations.
//!
//! Owns the stream, its reopening, and the inspections that events call for. An event only says *which* container changed; its
//! new state comes from an inspection, unless the operation that caused the event inspects the container itself (`pending`).
//! Reading the stream never waits for inspections or for the receiver, since the daemon drops events of slow readers; in
//! between, changes are collected by container. Invariant: whenever an event may have been missed, [`Notice::EventsMissed`] is
//! sent afterwards.

mod outage;
pub(super) mod pending;

use super::Docker;
use super::api::error::{DockerError, within};
use super::create::{LABEL_CLUSTER, LABEL_CONTAINER, LABEL_TASK};
use super::observe;
use crate::backoff::Shape;
use ecs_core::model::{ContainerName, Observation, OpError, RunState, RuntimeId, TaskArn};
use futures_util::{StreamExt, stream};
use outage::{Line, Outage};
use pending::{Change, ContainerEvent};
use reqwest::Response;
use serde_json::{Value, json};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

/// A result of following the event stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// Events may have been missed, because the stream was opened, for the first time or again, or because a change could not be
    /// followed. The receiver should ask for an inventory. Later changes are reported as usual.
    EventsMissed,
    /// A container of this agent changed; this is its present state.
    Seen(Box<Observation>),
    /// A container of this agent was removed.
    Removed {
        /// The container's task.
        task: TaskArn,
        /// The container's name in its task.
        container: ContainerName,
        /// The engine's id of the container.
        runtime_id: RuntimeId,
        /// The exit code, if the container ended since it was last inspected.
        exit_code: Option<i32>,
    },
}

/// The events that are followed.
const ACTIONS: [&str; 6] = ["create", "start", "die", "stop", "destroy", "health_status"];
/// How many containers are inspected at the same time.
const INSPECTS_AT_ONCE: usize = 8;
/// The longest event that is read, in bytes.
const MAX_EVENT_BYTES: usize = 1 << 20;
/// Attempts never end: without events the agent would notice no change.
const REOPEN_BACKOFF: Shape =
    Shape { initial: Duration::from_millis(100), max: Duration::from_secs(10), factor: 2.0, jitter: 0.2 };

impl Docker {
    /// Follows the event stream until the receiver of `notices` is dropped.
    pub async fn watch(&self, notices: mpsc::Sender<Notice>) {
        tokio::select! {
            () = self.read_events() => {}
            () = self.inspect_changed(&notices) => {}
            () = notices.closed() => {}
        }
    }

    async fn read_events(&self) {
        // The daemon may send the head of its answer before it collects events; "since" covers that gap.
        let mut since = now();
        let (mut failures, mut attempt, mut outage) = (0, 0, Outage::default());
        loop {
            let opened = Instant::now();
            let ended = match self.open_events(&since).await {
                Ok(stream) => {
                    if let Some(gone) = outage.opened(Instant::now()) {
                        tracing::info!(gone_s = crate::backoff::seconds(gone), "Docker answers again");
                    }
                    self.changes.events_missed();
                    self.read_stream(stream, &mut since).await
                }
                Err(error) => Err(error),
            };
            if let Err(error) = ended {
                // Only a stream that lasted resets the delay: one that ends after each event must not cause a busy loop.
                let has_lasted = opened.elapsed() > REOPEN_BACKOFF.max;
                (failures, attempt) = if has_lasted { (0, 1) } else { (failures + 1, attempt + 1) };
                let pause = REOPEN_BACKOFF.delay(failures);
                let retry_in_s = crate::backoff::seconds(pause);
                match outage.failed(matches!(error, DockerError::Unreachable(_)), Instant::now()) {
                    Line::Ended => {
                        tracing::warn!(%error, attempt, retry_in_s, "the Docker event stream ended; opening it again");
                    }
                    Line::NoDaemon => tracing::warn!(
                        %error,
                        "Could not connect to docker daemon; the agent tries again until it answers, and says so then"
                    ),
                    Line::Again => tracing::debug!(%error, attempt, retry_in_s, "Docker still does not answer"),
                }
                sleep(pause).await;
                // Another daemon with other API versions may be running now. If it does not answer here, opening fails as well.
                if let Err(error) = self.wire.negotiate().await {
                    tracing::debug!(%error, "the Docker daemon does not report its API version");
                }
            }
        }
    }

    async fn open_events(&self, since: &str) -> Result<Response, DockerError> {
        let cluster = format!("{LABEL_CLUSTER}={}", self.settings.cluster);
        let filters = json!({"type": ["container"], "event": ACTIONS, "label": [LABEL_TASK, cluster]}).to_string();
        let query = [("since", since), ("filters", &filters)];
        within(self.settings.limits.open_events, self.reader.open(&["events"], &query, None)).await
    }

    /// Reads until the stream ends (`Err`), or until no event has arrived for too long (`Ok`).
    async fn read_stream(&self, mut stream: Response, since: &mut String) -> Result<(), DockerError> {
        let mut buffer = Vec::new();
        loop {
            let Ok(chunk) = timeout(self.settings.limits.quiet_events, stream.chunk()).await else { return Ok(()) };
            let Some(chunk) = chunk? else { return Err(DockerError::Cut("end of stream".to_owned())) };
            let mut unread = buffer.len(); // no line ends before this offset
            buffer.extend_from_slice(&chunk);
            while let Some(end) = buffer[unread..].iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = buffer.drain(..=unread + end).collect();
                unread = 0;
                // An unreadable line is skipped; the periodic inventory covers what it may have announced.
                let Ok(event) = serde_json::from_slice::<Value>(&line) else { continue };
                if let Some(nanos) = event.get("timeNano").and_then(Value::as_u64) {
                    *since = seconds(nanos);
                }
                let is_ours = self.owners.owns(observe::owner(&event["Actor"]["Attributes"]).as_ref());
                if let Some(event) = container_event(&event).filter(|_| is_ours) {
                    self.changes.record(event);
                }
            }
            if buffer.len() > MAX_EVENT_BYTES {
                *since = now(); // otherwise it would be sent again; the inventory covers it
                return Err(DockerError::Cut("an event is too long".to_owned()));
            }
        }
    }

    /// Inspects changed containers and sends the results. Ends when the receiver is dropped.
    async fn inspect_changed(&self, notices: &mpsc::Sender<Notice>) {
        loop {
            let pending = self.changes.take().await;
            if pending.events_missed && notices.send(Notice::EventsMissed).await.is_err() {
                return;
            }
            let inspections = pending.changed.into_iter().map(|(id, change)| self.inspect_change(id, change));
            let mut inspections = stream::iter(inspections).buffer_unordered(INSPECTS_AT_ONCE);
            while let Some(inspected) = inspections.next().await {
                match inspected {
                    Ok(None) => {}
                    Ok(Some(notice)) => {
                        if notices.send(notice).await.is_err() {
                            return;
                        }
                    }
                    Err(()) => self.changes.events_missed(),
                }
            }
        }
    }

    /// Inspects one changed container. `Err`: its state could not be determined.
    async fn inspect_change(&self, id: String, change: Change) -> Result<Option<Notice>, ()> {
        match timeout(self.settings.limits.inspect_after_event, self.inspect(&id)).await {
            Ok(Ok(Some(seen))) => Ok(Some(Notice::Seen(Box::new(with_exit_code(seen, change.exit_code))))),
            // A missing container counts as removed only if there was an event that says so.
            Ok(Ok(None)) => {
                let Change { exit_code, removed } = change;
                Ok(removed.map(|(task, container)| Notice::Removed {
                    task,
                    container,
                    runtime_id: id.into(),
                    exit_code,
                }))
            }
            Ok(Err(OpError::Failed(failure) | OpError::Unknown(failure))) => {
                tracing::warn!(dockerId = id, error = %failure, "a container changed and cannot be inspected");
                // The receiver will ask for an inventory; the pause keeps this from becoming a busy loop.
                sleep(REOPEN_BACKOFF.delay(3)).await;
                Err(())
            }
            Err(_) => {
                tracing::warn!(dockerId = id, "a container changed and its inspection gets no answer");
                Err(())
            }
        }
    }
}

fn with_exit_code(mut seen: Observation, from_event: Option<i32>) -> Observation {
    if seen.state == RunState::Exited && seen.exit_code.is_none() {
        seen.exit_code = from_event;
    }
    seen
}

/// Parses an event: the container that it concerns, and the facts that only the event has.
fn container_event(event: &Value) -> Option<ContainerEvent> {
    if event.get("Type").and_then(Value::as_str).is_some_and(|kind| kind != "container") {
        return None;
    }
    let attributes = event.pointer("/Actor/Attributes");
    let attribute = |name: &str| attributes.and_then(|all| all.get(name)).and_then(Value::as_str);
    let id =
        event.pointer("/Actor/ID").or_else(|| event.get("id")).and_then(Value::as_str).filter(|id| !id.is_empty())?;
    let action = event.get("Action").or_else(|| event.get("status")).and_then(Value::as_str)?;
    let action = action.split(':').next().unwrap_or(action);
    let action = ACTIONS.into_iter().find(|known| *known == action)?;
    let mut change = Change::default();
    if action == "die" {
        change.exit_code = attribute("exitCode").and_then(|code| code.parse().ok());
    }
    if action == "destroy" {
        change.removed = Some((attribute(LABEL_TASK)?.into(), attribute(LABEL_CONTAINER)?.into()));
    }
    Some(ContainerEvent { id: id.to_owned(), name: attribute("name").unwrap_or_default().to_owned(), action, change })
}

fn now() -> String {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("{}.{:09}", since_epoch.as_secs(), since_epoch.subsec_nanos())
}

fn seconds(nanos: u64) -> String {
    format!("{}.{:09}", nanos / 1_000_000_000, nanos % 1_000_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(action: &str, attributes: Value) -> Value {
        json!({"Type": "container", "Action": action, "Actor": {"ID": "c1", "Attributes": attributes}, "timeNano": 1_500_000_000_u64})
    }

    #[test]
    fn events_say_which_container_changed() {
        for action in ["create", "start", "stop", "health_status: healthy", "health_status: dizzy"] {
            let parsed = container_event(&event(action, json!({"name": "ecs-web"}))).unwrap();
            assert_eq!(
                (parsed.id.as_str(), parsed.name.as_str(), parsed.change),
                ("c1", "ecs-web", Change::default()),
                "{action}"
            );
            assert!(action.starts_with(parsed.action));
        }
        let died = container_event(&event("die", json!({"exitCode": "137"}))).unwrap().change;
        assert_eq!(died.exit_code, Some(137));
        let labels = json!({LABEL_TASK: "t", LABEL_CONTAINER: "web"});
        let removed = container_event(&event("destroy", labels)).unwrap().change.removed;
        assert_eq!(removed, Some(("t".into(), "web".into())));
        // The shape before API 1.22.
        assert!(container_event(&json!({"status": "start", "id": "c1"})).is_some());
    }

    #[test]
    fn unknown_events_are_skipped() {
        let other_type = json!({"Type": "hologram", "Action": "start", "Actor": {"ID": "c1"}});
        let no_id = json!({"Type": "container", "Action": "start", "Actor": {"ID": ""}});
        for event in [other_type, no_id, event("exec_start: true", json!({})), event("beam_up", json!({})), json!(7)] {
            assert_eq!(container_event(&event), None, "{event}");
        }
        // A signal or running out of memory does not end a container by itself; its end has an event of its own.
        for action in ["kill", "oom", "pause", "unpause", "restart", "rename", "update", "top", "attach", "exec_die"] {
            assert_eq!(container_event(&event(action, json!({"signal": "1", "exitCode": "1"}))), None, "{action}");
        }
    }

    #[test]
    fn times_are_written_for_docker() {
        assert_eq!(seconds(1_500_000_042), "1.500000042");
        let (secs, nanos) = now().split_once('.').map(|(s, n)| (s.len(), n.len())).unwrap();
        assert!(secs >= 10 && nanos == 9);
    }
}
