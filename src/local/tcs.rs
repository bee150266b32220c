//! The server's end of the TCS websocket (spec `tcs.md` §1, §2, §5): checks each message of the agent, acknowledges or refuses it,
//! and keeps the connection open with heartbeats. This module owns only the connection; [`super::tcs_shapes`] owns the form of the
//! messages, [`super::telemetry`] what became of them. Invariants: a message counts only if its own signature is right, and if it is
//! about no task of another instance; published health reaches the containers that it names.

use super::answers::loggable;
use super::faults::Fault;
use super::instances::{Disconnect, InstanceStatus};
use super::records::Source;
use super::shared::Shared;
use super::signature;
use super::socket::{Socket, WRITE_TIMEOUT, close};
use super::state::State;
use super::tcs_shapes;
use super::telemetry::Extra;
use super::time::now;
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Uri, header};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_tungstenite::tungstenite::Message;

/// An accepted handshake.
#[derive(Clone, Debug)]
pub(super) struct AcceptedHandshake {
    /// The cluster and the ARN of the instance, as the agent named them.
    cluster: String,
    instance: String,
    /// Path, query and host of the connection. The agent signs its messages for them.
    uri: Uri,
    host: HeaderValue,
    /// The number of disconnections and of texts and bytes before this connection.
    disconnects: u64,
    extras: u64,
}

/// Accepts a handshake. An error is the exception and its text.
pub(super) fn accept_handshake(
    state: &mut State,
    query: &[(String, String)],
    request: &Request<Bytes>,
) -> Result<AcceptedHandshake, (&'static str, &'static str)> {
    let find =
        |name: &str| query.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone()).unwrap_or_default();
    let (cluster, arn) = (find("cluster"), find("containerInstance"));
    let unknown = ("ResourceValidationException", "The container instance is not registered in this cluster");
    let instance = state.instance_mut(&arn).ok_or(unknown)?;
    if Some(instance.cluster.as_str()) != cluster.rsplit('/').next() {
        return Err(unknown);
    }
    if instance.status == InstanceStatus::Inactive {
        return Err(("InactiveInstanceException", "The container instance was deregistered"));
    }
    let body: serde_json::Map<_, _> = query.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
    state.record_request(Source::TcsConnect, "connect", body.into(), loggable(request.headers()));
    let host = request.headers().get(header::HOST).cloned().unwrap_or(HeaderValue::from_static(""));
    let (disconnects, extras) = (state.tcs_disconnect.0, state.telemetry.last_extra());
    Ok(AcceptedHandshake { cluster, instance: arn, uri: request.uri().clone(), host, disconnects, extras })
}

/// Serves one connection to its end.
pub(super) async fn serve(shared: &Shared, mut socket: Socket, handshake: AcceptedHandshake) {
    let reason = run_connection(shared, &mut socket, &handshake).await;
    shared.change(|state| state.record(Source::TcsClose, reason, Value::Null));
}

async fn run_connection(shared: &Shared, socket: &mut Socket, handshake: &AcceptedHandshake) -> &'static str {
    let mut changed = shared.changed.subscribe();
    let mut sent = handshake.extras;
    let mut heartbeat = Instant::now() + shared.options.heartbeat;
    loop {
        changed.borrow_and_update();
        match shared.read(|state| {
            (state.tcs_disconnect.0 > handshake.disconnects).then(|| state.tcs_disconnect.1.clone()).flatten()
        }) {
            Some(Disconnect::Drop) => return "dropped on purpose",
            Some(Disconnect::Close(code, reason)) => {
                close(socket, code, &reason).await;
                return "closed on purpose";
            }
            None => {}
        }
        let extras;
        (extras, sent) = shared.read(|state| (state.telemetry.extras_after(sent), state.telemetry.last_extra()));
        for extra in extras {
            let is_sent = match extra {
                Extra::Text(text) => send(socket, text).await,
                Extra::Bytes(bytes) => send_bytes(socket, &bytes).await,
            };
            if !is_sent {
                return "write failed";
            }
        }
        tokio::select! {
            () = shared.stop.cancelled() => return "server stopped",
            _ = changed.changed() => {}
            () = sleep_until(heartbeat) => {
                heartbeat = Instant::now() + shared.options.heartbeat;
                if !send(socket, message("HeartbeatMessage", &json!({"healthy": true}))).await {
                    return "write failed";
                }
            }
            incoming = socket.next() => match incoming {
                Some(Ok(Message::Text(text))) => match answer(shared, handshake, text.as_str()).await {
                    Answer::Nothing => {}
                    Answer::Text(text) => if !send(socket, text).await { return "write failed" },
                    Answer::Half(text) => {
                        send_bytes(socket, &half_frame(&text)).await;
                        return "cut on purpose";
                    }
                    Answer::Cut => return "cut on purpose",
                },
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

async fn send(socket: &mut Socket, text: String) -> bool {
    matches!(timeout(WRITE_TIMEOUT, socket.send(Message::text(text))).await, Ok(Ok(())))
}

/// Sends bytes as they are, in the place of a frame.
async fn send_bytes(socket: &mut Socket, bytes: &[u8]) -> bool {
    let stream = socket.get_mut();
    let sending = async { stream.write_all(bytes).await.is_ok() && stream.flush().await.is_ok() };
    matches!(timeout(WRITE_TIMEOUT, sending).await, Ok(true))
}

/// A frame with this text that ends in the middle.
fn half_frame(text: &str) -> Vec<u8> {
    let mut frame = vec![0x81, 126];
    frame.extend(u16::try_from(text.len()).unwrap_or(u16::MAX).to_be_bytes());
    frame.extend(text.bytes().take(text.len() / 2));
    frame
}

/// What a message of the agent is answered with.
enum Answer {
    Text(String),
    Nothing,
    /// Half of this text, then the connection is cut.
    Half(String),
    /// The connection is cut.
    Cut,
}

fn message(kind: &str, body: &Value) -> String {
    json!({"type": kind, "message": body}).to_string()
}

/// The answer to a message of the agent, or the fault in its place.
async fn answer(shared: &Shared, handshake: &AcceptedHandshake, text: &str) -> Answer {
    let refuse = |kind: &str, text: &str| Answer::Text(message(kind, &json!({"message": text})));
    let accept = || shared.change(|state| received(state, handshake, text));
    match shared.change(|state| state.faults.take_named(PUBLISH)) {
        Some(Fault::Drop) => return Answer::Cut,
        Some(Fault::LoseAnswer) => {
            accept();
            return Answer::Cut;
        }
        Some(Fault::Empty) => {
            accept();
            return Answer::Nothing;
        }
        Some(Fault::Slow(wait)) => sleep(wait).await,
        Some(Fault::Malformed) => return Answer::Text("{\"this is\": not JSON".to_owned()),
        Some(Fault::Truncated) => return Answer::Half(message("AckPublishMetric", &json!({"message": "OK"}))),
        Some(Fault::Page(_)) => return Answer::Text("<html><body>Sign in</body></html>".to_owned()),
        Some(Fault::Throttle) => return refuse("ThrottlingException", "Rate exceeded"),
        Some(Fault::ServerError) => return refuse("ServerException", "Service Unavailable. Please try again later."),
        Some(Fault::AccessDenied) => return refuse("AccessDeniedException", "Forbidden"),
        Some(Fault::Error(_, code, text)) => return refuse(&code, &text),
        None => {}
    }
    Answer::Text(accept())
}

/// The name under which faults of published messages are added.
pub(super) const PUBLISH: &str = "tcs/publish";

/// Handles one frame: signed header lines, an empty line, the envelope. Returns the answer.
fn received(state: &mut State, handshake: &AcceptedHandshake, text: &str) -> String {
    let body = text.split_once("\r\n\r\n").map_or(text, |(_, body)| body);
    let envelope = serde_json::from_str::<Value>(body).unwrap_or_default();
    let kind = envelope["type"].as_str().unwrap_or_default().to_owned();
    let published = &envelope["message"];
    let checked =
        check_signature(state, handshake, text).map_err(|problem| ("BadRequestException", problem)).and_then(|()| {
            let place = (handshake.cluster.as_str(), handshake.instance.as_str());
            let acknowledgement = tcs_shapes::check(&kind, published, place, now());
            let checked = acknowledgement.and_then(|ack| check_tasks(state, handshake, published).map(|()| ack));
            checked.map_err(|problem| ("InvalidParameterException", problem))
        });
    let shown = if envelope.is_null() { json!(text) } else { published.clone() };
    let name = if kind.is_empty() { "(no type)" } else { kind.as_str() };
    state.record(Source::TcsIn, name, shown.clone());
    let problem = checked.as_ref().err().map(|(_, problem)| problem.clone());
    state.telemetry.add(now(), name, problem.as_deref(), shown);
    match checked {
        Ok(ack) => {
            if kind == "PublishHealthRequest" {
                keep_health(state, published);
            }
            message(ack, &json!({"message": "OK"}))
        }
        Err((exception, problem)) => {
            state.record(Source::ApiError, PUBLISH, json!({"__type": exception, "message": problem}));
            message(exception, &json!({"message": problem}))
        }
    }
}

/// Checks the signature of a message. An error is the reason.
fn check_signature(state: &State, handshake: &AcceptedHandshake, text: &str) -> Result<(), String> {
    let (head, body) = text.split_once("\r\n\r\n").ok_or("The message has no header.")?;
    let mut headers = HeaderMap::new();
    for line in head.split("\r\n") {
        let parsed = line.split_once(": ").and_then(|(name, value)| {
            Some((HeaderName::from_bytes(name.as_bytes()).ok()?, HeaderValue::from_str(value).ok()?))
        });
        let (name, value) = parsed.ok_or("A line of the header is not NAME: VALUE.")?;
        if headers.insert(name, value).is_some() {
            return Err("A header comes twice.".to_owned());
        }
    }
    if headers.get(header::HOST) != Some(&handshake.host) {
        return Err("The header Host is not that of the connection.".to_owned());
    }
    let mut request = Request::new(Bytes::copy_from_slice(body.as_bytes()));
    (*request.uri_mut(), *request.headers_mut()) = (handshake.uri.clone(), headers);
    let checked = signature::check(&request, &state.site.keys, state.ec2.time(now()));
    checked.map(drop).map_err(|refused| refused.error().message)
}

/// Checks that no task of the message is on another instance. An error is the reason. A task that is not known here may have been
/// started by an earlier session.
fn check_tasks(state: &State, handshake: &AcceptedHandshake, message: &Value) -> Result<(), String> {
    for list in ["taskMetrics", "tasks"] {
        for (index, published) in message[list].as_array().into_iter().flatten().enumerate() {
            let task = published["taskArn"].as_str().and_then(|arn| state.task(arn));
            if task.is_some_and(|task| task.instance_arn != handshake.instance) {
                return Err(format!("message.{list}[{index}].taskArn: the task is on another container instance."));
            }
        }
    }
    Ok(())
}

/// Passes published health on to the containers.
fn keep_health(state: &mut State, message: &Value) {
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

    fn golden(name: &str) -> Value {
        let path = format!("{}/../../tests/golden/{name}.json", env!("CARGO_MANIFEST_DIR"));
        serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
    }

    fn handshake(message: &Value) -> AcceptedHandshake {
        let metadata = &message["metadata"];
        AcceptedHandshake {
            cluster: metadata["cluster"].as_str().unwrap().to_owned(),
            instance: metadata["containerInstance"].as_str().unwrap().to_owned(),
            uri: Uri::from_static("/tcs/ws?cluster=judge"),
            host: HeaderValue::from_static("127.0.0.1:14566"),
            disconnects: 0,
            extras: 0,
        }
    }

    #[test]
    fn the_recorded_health_reaches_its_container() {
        let golden = golden("tcs_publish_health");
        let arn = &golden["message"]["tasks"][0]["taskArn"];
        let mut state = State::new(Site::example(), "judge");
        let payload =
            json!({"arn": arn, "containers": [{"name": "web", "essential": true, "healthCheckType": "docker"}]});
        let task = scripted_task(&state.site, "judge", "instance", payload, 1.0);
        state.add_task(task).unwrap();
        keep_health(&mut state, &golden["message"]);
        assert_eq!(state.tasks[0].containers[0].health_status, "HEALTHY");
        assert_eq!(state.tasks[0].describe(&state.site, true)["healthStatus"], "HEALTHY");
    }

    #[test]
    fn a_message_about_another_instances_task_is_refused() {
        for (name, list) in [("tcs_publish_health", "tasks"), ("tcs_publish_metrics_tasks", "taskMetrics")] {
            let message = golden(name)["message"].take();
            let mut state = State::new(Site::example(), "judge");
            let (ours, arn) = (handshake(&message), &message[list][0]["taskArn"]);
            assert_eq!(check_tasks(&state, &ours, &message), Ok(()), "a task that is not known");
            let payload = json!({"arn": arn, "containers": [{"name": "web", "essential": true}]});
            let task = scripted_task(&state.site, "judge", &ours.instance, payload, 1.0);
            state.add_task(task).unwrap();
            assert_eq!(check_tasks(&state, &ours, &message), Ok(()));
            state.tasks[0].instance_arn = "another".to_owned();
            let problem = check_tasks(&state, &ours, &message).unwrap_err();
            assert_eq!(problem, format!("message.{list}[0].taskArn: the task is on another container instance."));
        }
    }

    #[test]
    fn half_a_frame_says_how_long_it_should_be() {
        assert_eq!(half_frame("abcd"), [0x81, 126, 0, 4, b'a', b'b']);
    }

    #[test]
    fn a_message_without_its_own_signature_is_refused() {
        let golden = golden("tcs_publish_health");
        let body = json!({"type": golden["type"], "message": golden["message"]});
        let handshake = handshake(&golden["message"]);
        let lines = |host: &str| format!("Host: {host}\r\nX-Amz-Date: 20261121T233657Z\r\n\r\n{body}");
        let table = [
            (body.to_string(), "no header"),
            (lines("127.0.0.1:14566"), "is not signed"),
            (lines("127.0.0.1:1"), "Host is not that of the connection"),
            (format!("Host 127.0.0.1\r\n\r\n{body}"), "not NAME: VALUE"),
            (format!("Host: a\r\nHost: b\r\n\r\n{body}"), "comes twice"),
            ("nonsense".to_owned(), "no header"),
        ];
        for (text, reason) in table {
            let mut state = State::new(Site::example(), "judge");
            let answer: Value = serde_json::from_str(&received(&mut state, &handshake, &text)).unwrap();
            assert_eq!(answer["type"], "BadRequestException", "{text}");
            let found = answer["message"]["message"].as_str().unwrap();
            assert!(found.contains(reason), "{found}: {text}");
            let shown = state.telemetry.show();
            assert_eq!((&shown["received"], &shown["refused"]), (&json!(1), &json!(1)));
        }
    }
}
