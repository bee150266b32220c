//! The server's end of the ACS websocket (spec `acs.md` §1 to §4): sends the messages in the instance's outbox, handles
//! acknowledgements, answers stop verifications. This module owns one connection at a time for each instance; the outbox outlives
//! the connection. Invariant: every message on the socket is recorded.

use super::instances::{Disconnect, InstanceStatus};
use super::records::Source;
use super::shared::Shared;
use super::socket::{Socket, WRITE_TIMEOUT, close};
use super::state::State;
use super::tasks::TaskStatus;
use super::time::now;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::tungstenite::Message;

/// An accepted handshake.
#[derive(Debug)]
pub(super) struct AcceptedHandshake {
    /// The ARN of the instance.
    instance: String,
    /// The running number of the connection.
    connection: u64,
}

/// Accepts a handshake. An error is the exception and its text.
pub(super) fn accept_handshake(
    state: &mut State,
    query: &[(String, String)],
    headers: BTreeMap<String, String>,
) -> Result<AcceptedHandshake, (&'static str, &'static str)> {
    let find = |name: &str| query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    let cluster = find("clusterArn").unwrap_or_default();
    let name = cluster.rsplit('/').next().unwrap_or_default();
    if !state.clusters.contains_key(name) {
        return Err(("InvalidClusterException", "Cluster not found"));
    }
    let connection = state.acs_connections + 1;
    let unknown = ("InvalidInstanceException", "The container instance is not registered");
    let instance = state.instance_mut(find("containerInstanceArn").unwrap_or_default()).ok_or(unknown)?;
    if instance.cluster != name {
        return Err(unknown);
    }
    if instance.status == InstanceStatus::Inactive {
        return Err(("InactiveInstanceException", "The container instance was deregistered"));
    }
    instance.connect(connection);
    instance.agent_version = find("agentVersion").map(str::to_owned);
    instance.docker_version = find("dockerVersion").map(str::to_owned);
    let (arn, full_sync) = (instance.arn.clone(), instance.has_attribute("ecs.capability.full-sync"));
    state.acs_connections = connection;
    let body: serde_json::Map<_, _> = query.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
    state.record_request(Source::AcsConnect, "connect", body.into(), headers);
    if find("sendCredentials") == Some("true") {
        resend_credentials(state, &arn);
    }
    // Without a task on the instance there is nothing to compare, so no manifest is needed.
    if full_sync && state.tasks.iter().any(|task| task.instance_arn == arn) {
        // If the outbox is full, the manifest comes with the next connection.
        let _queued = state.queue_manifest(&arn);
    }
    Ok(AcceptedHandshake { instance: arn, connection })
}

/// Queues the credentials of all running tasks: an agent that has just started has none.
fn resend_credentials(state: &mut State, instance: &str) {
    let known = |task: &&super::Task| task.instance_arn == instance && task.last_status != TaskStatus::Stopped;
    let tasks: Vec<_> = state.tasks.iter().filter(known).map(|task| task.arn.clone()).collect();
    for arn in tasks {
        // If the outbox is full, the credentials come with the next connection.
        let _queued = state.queue_credentials(&arn);
    }
}

/// Serves one connection to its end.
pub(super) async fn serve(shared: &Shared, mut socket: Socket, handshake: AcceptedHandshake) {
    let reason = run_connection(shared, &mut socket, &handshake).await;
    shared.change(|state| {
        state.record(Source::AcsClose, &reason, Value::Null);
        if let Some(instance) = state.instance_mut(&handshake.instance) {
            instance.disconnect(handshake.connection);
        }
    });
}

async fn run_connection(shared: &Shared, socket: &mut Socket, handshake: &AcceptedHandshake) -> String {
    let mut changed = shared.changed.subscribe();
    let mut heartbeat = Instant::now() + shared.options.heartbeat;
    loop {
        changed.borrow_and_update();
        let turn = shared.change_if(|state| due(state, handshake, shared.options.redeliver));
        match turn.disconnect {
            Some(Disconnect::Drop) => return "dropped on purpose".to_owned(),
            Some(Disconnect::Close(code, reason)) => {
                close(socket, code, &reason).await;
                return format!("closed on purpose: {code} {reason}");
            }
            None => {}
        }
        for message in turn.messages {
            if !send(socket, &message).await {
                return "write failed".to_owned();
            }
        }
        tokio::select! {
            () = shared.stop.cancelled() => {
                close(socket, 1001, "ConnectionExpired: server is going away").await;
                return "server stopped".to_owned();
            }
            _ = changed.changed() => {}
            () = sleep_until(turn.next.map_or(heartbeat, |next| next.min(heartbeat))) => {
                if Instant::now() >= heartbeat {
                    heartbeat = Instant::now() + shared.options.heartbeat;
                    let message = json!({"healthy": true, "messageId": uuid::Uuid::new_v4().to_string()});
                    // If the outbox is full, there is no heartbeat this time.
                    let _queued = shared.change(|state| state.queue(&handshake.instance, "HeartbeatMessage", message, false));
                }
            }
            incoming = socket.next() => match incoming {
                Some(Ok(Message::Text(text))) => shared.change(|state| received(state, &handshake.instance, text.as_str())),
                Some(Ok(Message::Close(frame))) => {
                    // The library answers with its own close frame; flushing sends it.
                    let _sent = timeout(WRITE_TIMEOUT, socket.flush()).await;
                    return frame.map_or_else(|| "closed by the agent".to_owned(), |f| format!("closed by the agent: {} {}", f.code, f.reason));
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => return error.to_string(),
                None => return "end of stream".to_owned(),
            },
        }
    }
}

/// The work of one iteration of the loop.
struct Turn {
    /// Messages to send now.
    messages: Vec<Value>,
    /// When the next message may become due; `None`: no message waits.
    next: Option<Instant>,
    /// How to end the connection; `None`: it stays open.
    disconnect: Option<Disconnect>,
}

/// Takes the work that is due on this connection. The second value is true if the state has changed.
fn due(state: &mut State, handshake: &AcceptedHandshake, redeliver: Duration) -> (Turn, bool) {
    let delivery = state.faults.delivery.clone();
    let Some(instance) = state.instance_mut(&handshake.instance) else {
        return (Turn { messages: Vec::new(), next: None, disconnect: Some(Disconnect::Drop) }, false);
    };
    let disconnect = match &mut instance.acs_connection {
        Some(connection) if connection.number == handshake.connection => connection.disconnect.take(),
        // A newer connection has replaced this one.
        _ => Some(Disconnect::Close(1000, "ConnectionReplaced".to_owned())),
    };
    if disconnect.is_some() {
        return (Turn { messages: Vec::new(), next: None, disconnect }, true);
    }
    let messages = instance.outbox.due(Instant::now(), redeliver, &delivery);
    let next = instance.outbox.next(redeliver, &delivery);
    for message in &messages {
        state.record(Source::AcsOut, message["type"].as_str().unwrap_or_default(), message["message"].clone());
    }
    let has_messages = !messages.is_empty();
    (Turn { messages, next, disconnect: None }, has_messages)
}

/// Handles one message of the agent.
fn received(state: &mut State, instance: &str, text: &str) {
    let Ok(envelope) = serde_json::from_str::<Value>(text) else {
        state.record(Source::AcsIn, "(no JSON)", json!(text));
        return;
    };
    let kind = envelope["type"].as_str().unwrap_or_default();
    let message = &envelope["message"];
    state.record(Source::AcsIn, kind, message.clone());
    match kind {
        "AckRequest" | "NackRequest" | "IAMRoleCredentialsAckRequest" => {
            let id = message["messageId"].as_str().unwrap_or_default();
            // AckRequest acknowledges a payload; the credentials in it are acknowledged separately, under the same id.
            let is_in_payload = kind == "IAMRoleCredentialsAckRequest" && state.is_payload(instance, id);
            if !is_in_payload && state.faults.delivery.lose_acks > 0 {
                state.faults.delivery.lose_acks -= 1;
            } else if !is_in_payload && let Some(instance) = state.instance_mut(instance) {
                instance.outbox.acknowledge(id);
            }
        }
        "TaskStopVerificationMessage" => verify_stops(state, instance, message),
        _ => {}
    }
}

/// Confirms the stops of tasks that should stop. A task that the server does not know keeps running: the server loses its tasks
/// when it ends, the agent does not.
fn verify_stops(state: &mut State, instance: &str, message: &Value) {
    let candidates = message["stopCandidates"].as_array().into_iter().flatten();
    let stop: Vec<_> = candidates
        .filter(|candidate| {
            let task = candidate["taskArn"].as_str().and_then(|arn| state.task(arn));
            task.is_some_and(|task| {
                task.desired_status == TaskStatus::Stopped || task.last_status == TaskStatus::Stopped
            })
        })
        .cloned()
        .collect();
    let answer = json!({"messageId": message["messageId"], "generatedAt": (now() * 1000.0) as u64, "stopTasks": stop});
    // If the outbox is full, the agent asks again after the next manifest.
    let _queued = state.queue(instance, "TaskStopVerificationAck", answer, false);
}

async fn send(socket: &mut Socket, message: &Value) -> bool {
    matches!(timeout(WRITE_TIMEOUT, socket.send(Message::text(wire(message)))).await, Ok(Ok(())))
}

/// The text of a message on the wire. A message that was queued as text is sent unchanged and need not be JSON.
fn wire(message: &Value) -> String {
    match message["raw"].as_str() {
        Some(text) => text.to_owned(),
        None => message.to_string(),
    }
}
