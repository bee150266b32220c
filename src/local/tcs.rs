//! The server's end of the TCS websocket (spec `tcs.md` §1, §2, §5): receives metrics and health, keeps the connection open
//! with heartbeats, and acknowledges nothing. This module owns only the connection. Invariant: published health reaches the
//! containers that it names.

use super::instances::Disconnect;
use super::records::Source;
use super::shared::Shared;
use super::socket::{Socket, WRITE_TIMEOUT, close};
use super::state::State;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::tungstenite::Message;

/// Serves one connection to its end.
pub(super) async fn serve(shared: &Shared, mut socket: Socket) {
    let reason = run_connection(shared, &mut socket).await;
    shared.change(|state| state.record(Source::TcsClose, reason, Value::Null));
}

async fn run_connection(shared: &Shared, socket: &mut Socket) -> &'static str {
    let mut changed = shared.changed.subscribe();
    let earlier_disconnects = shared.read(|state| state.tcs_disconnect.0);
    let mut heartbeat = Instant::now() + shared.options.heartbeat;
    loop {
        changed.borrow_and_update();
        match shared.read(|state| {
            (state.tcs_disconnect.0 > earlier_disconnects).then(|| state.tcs_disconnect.1.clone()).flatten()
        }) {
            Some(Disconnect::Drop) => return "dropped on purpose",
            Some(Disconnect::Close(code, reason)) => {
                close(socket, code, &reason).await;
                return "closed on purpose";
            }
            None => {}
        }
        tokio::select! {
            () = shared.stop.cancelled() => return "server stopped",
            _ = changed.changed() => {}
            () = sleep_until(heartbeat) => {
                heartbeat = Instant::now() + shared.options.heartbeat;
                let message = json!({"type": "HeartbeatMessage", "message": {"healthy": true}});
                if !matches!(timeout(WRITE_TIMEOUT, socket.send(Message::text(message.to_string()))).await, Ok(Ok(()))) {
                    return "write failed";
                }
            }
            incoming = socket.next() => match incoming {
                Some(Ok(Message::Text(text))) => shared.change(|state| received(state, text.as_str())),
                Some(Ok(Message::Close(_))) => {
                    // The library answers with its own close frame; flushing sends it.
                    let _sent = timeout(WRITE_TIMEOUT, socket.flush()).await;
                    return "closed by the agent";
                }
                Some(Ok(_)) => {}
                Some(Err(_)) => return "read failed",
                None => return "end of stream",
            },
        }
    }
}

/// Handles one frame: signed header lines, an empty line, the envelope.
fn received(state: &mut State, text: &str) {
    let body = text.split_once("\r\n\r\n").map_or(text, |(_, body)| body);
    let Ok(envelope) = serde_json::from_str::<Value>(body) else {
        state.record(Source::TcsIn, "(no JSON)", json!(text));
        return;
    };
    let kind = envelope["type"].as_str().unwrap_or_default();
    let message = &envelope["message"];
    state.record(Source::TcsIn, kind, message.clone());
    if kind != "PublishHealthRequest" {
        return;
    }
    for published in message["tasks"].as_array().into_iter().flatten() {
        let Some(task) = published["taskArn"].as_str().and_then(|arn| state.task_mut(arn)) else { continue };
        for published_container in published["containers"].as_array().into_iter().flatten() {
            let found = task
                .containers
                .iter_mut()
                .find(|c| Some(c.name.as_str()) == published_container["containerName"].as_str());
            if let (Some(container), Some(health)) = (found, published_container["healthStatus"].as_str()) {
                health.clone_into(&mut container.health_status);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payload::scripted_task;
    use crate::site::Site;

    #[test]
    fn the_recorded_health_reaches_its_container() {
        let path = format!("{}/../../tests/golden/tcs_publish_health.json", env!("CARGO_MANIFEST_DIR"));
        let golden: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let arn = &golden["message"]["tasks"][0]["taskArn"];
        let mut state = State::new(Site::example(), "judge");
        let payload =
            json!({"arn": arn, "containers": [{"name": "web", "essential": true, "healthCheckType": "docker"}]});
        let task = scripted_task(&state.site, "judge", "instance", payload, 1.0);
        state.add_task(task).unwrap();
        let envelope = json!({"type": golden["type"], "message": golden["message"]});
        received(&mut state, &format!("Host: h\r\nX-Amz-Date: d\r\n\r\n{envelope}"));
        assert_eq!(state.tasks[0].containers[0].health_status, "HEALTHY");
        assert_eq!(state.tasks[0].describe(&state.site, true)["healthStatus"], "HEALTHY");
    }
}
