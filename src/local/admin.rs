//! `/_local/`: inspecting the server and injecting faults over HTTP. This module owns the paths and their JSON; the methods of
//! [`super::Server`] do the same. Invariants: nothing is answered without the token; a request that changes something needs
//! `Content-Type: application/json`, which a web page cannot make a browser send without a preflight request.

use super::admin_access::{self, GET_PATHS};
use super::answers::{header_text, text_answer};
use super::definition::decode;
use super::faults::{Delivery, FaultRequest};
use super::instances::Disconnect;
use super::keys::Signer;
use super::objects::kind_of;
use super::shared::Shared;
use super::signature;
use super::state::State;
use super::suggestion::did_you_mean;
use super::telemetry::Extra;
use super::time::now;
use super::top::Top;
use axum::body::Body;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Method, Request, Response};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::time::Duration;

/// The answer to `curl http://127.0.0.1:14566/`.
pub(super) const GREETING: &str = "\
ecs-local: the part of Amazon ECS that a laptop needs. State is in memory only, except for the registry with --registry-dir.
Use it:    AWS_ACCESS_KEY_ID=local AWS_SECRET_ACCESS_KEY=TOKEN aws ecs --endpoint-url http://THIS list-container-instances
Look in:   curl --user local:TOKEN http://THIS/_local/            help
TOKEN is what ecs-local printed when it started, or was given with --token or --token-file.
";

const HELP: &str = "\
GET  /_local/state                 clusters, instances, tasks: a summary
GET  /_local/records?after=N&source=S&name=X
                                   all calls and messages, in order (source: api, api-error, imds, acs-connect, acs-close, acs-in,
                                   acs-out, tcs-connect, tcs-close, tcs-in)
GET  /_local/submissions           the agent's reports, in order
GET  /_local/telemetry             metrics and health over TCS: the newest of each task, and the last 200 messages
GET  /_local/top                   containers of tasks that have not stopped, with their newest values: what `ecs-local top` shows
GET  /_local/actions               what callers did or were denied: principal, action, resource, outcome, how often
GET  /_local/accounts              accounts, the addresses of their registries, access keys (secret: the token)
GET  /_local/identities            users and roles with a policy
POST /_local/faults                {\"operation\": \"SubmitTaskStateChange\", \"count\": 2, \"fault\": \"throttle\"}
                                   operation: any API operation, acs, tcs (handshakes), tcs/publish (the agent's messages), imds, *,
                                   registry (/v2/), or of it only registry/manifests or registry/blobs: what pulls ask for
                                   fault: throttle, server-error, access-denied, malformed, empty, truncated, drop,
                                   lose-answer, slow (+ seconds), page (+ status), error (+ status, code, message)
POST /_local/clock                 {\"aheadSeconds\": 7200}   AWS refuses signatures from another time
                                   {\"ecrAheadSeconds\": 691200}   only ECR's clock: tokens expire, lifecycle policies run at once
POST /_local/metadata              {\"path\": \"spot/instance-action\", \"text\": \"...\"}   no text: not there
POST /_local/instance-tags         {\"team\": \"blue\"}   tags of the EC2 instance
POST /_local/delivery              {\"delaySeconds\": 3, \"duplicate\": true, \"reorder\": true, \"loseAcks\": 2}
POST /_local/faults/clear          {}
POST /_local/sockets/drop          {\"which\": \"acs\"}      acs, tcs or both
POST /_local/sockets/close         {\"which\": \"acs\", \"code\": 1000, \"reason\": \"bye\"}
POST /_local/acs                   {\"type\": \"HeartbeatMessage\", \"message\": {...}}, or {\"text\": \"not JSON\"}
POST /_local/tcs                   {\"type\": \"HeartbeatMessage\", \"message\": {...}}, or {\"text\": \"not JSON\"}, or {\"base64\": ...}, bytes
                                   in the place of a frame, to all TCS connections
POST /_local/tasks                 a payload task, sent unchecked
POST /_local/manifest              {}
POST /_local/credentials           {\"task\": \"ARN or id\"}   new credentials for its roles
POST /_local/secrets               {\"name\": \"hub\", \"value\": \"{\\\"username\\\": ...}\"}   for Secrets Manager
POST /_local/parameters            {\"name\": \"/team/key\", \"value\": \"...\"}   for SSM
POST /_local/objects               {\"bucket\": \"b\", \"key\": \"app.env\", \"text\": \"A=1\\n\"}   for S3
POST /_local/identities            {\"user\": \"alice\", \"account\": \"123456789012\", \"policy\": {\"Statement\": [...]}}   gives keys
                                   {\"role\": \"ecsInstanceRole\", \"policy\": {...}}   a role without a policy may do everything
POST /_local/identities/remove     {\"arn\": \"arn:aws:iam::123456789012:user/alice\"}
POST /_local/sessions              {\"role\": \"arn:aws:iam::123456789012:role/web\", \"session\": \"me\"}   temporary keys of a role, or of a
                                   service: {\"service\": \"codebuild.amazonaws.com\", \"sourceAccount\": \"...\", \"sourceArn\": \"...\"}
POST /_local/actions/clear         {}
POST needs the header Content-Type: application/json. Every request needs the token: curl --user local:TOKEN, or Authorization: Bearer TOKEN.
";

/// The answer to a request without the token.
const NO_TOKEN: &str = "\
This needs the token that ecs-local printed when it started (or was given with --token or --token-file):
curl --user local:TOKEN, or the header Authorization: Bearer TOKEN
";

/// The paths of POST, for suggestions.
const POST_PATHS: [&str; 16] = [
    "faults",
    "faults/clear",
    "clock",
    "metadata",
    "instance-tags",
    "delivery",
    "sockets/drop",
    "sockets/close",
    "acs",
    "tcs",
    "tasks",
    "manifest",
    "credentials",
    "secrets",
    "parameters",
    "objects",
];

/// Maximum difference of a clock, in seconds: a hundred years.
const MAX_AHEAD: i64 = 100 * 366 * 24 * 3600;

/// Maximum number of records in one answer.
const MAX_ANSWER: usize = 1000;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[derive(Default)]
struct DeliveryRequest {
    delay_seconds: f64,
    duplicate: bool,
    reorder: bool,
    lose_acks: u32,
}

/// How far clocks are ahead of the host's; `None`: as before.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ClockRequest {
    ahead_seconds: Option<i64>,
    ecr_ahead_seconds: Option<i64>,
}

/// The request has the token: as a password (Basic), as a Bearer token, or as the secret of its signature.
fn has_token(shared: &Shared, request: &Request<Bytes>) -> bool {
    let (scheme, value) = header_text(request.headers(), "authorization").split_once(' ').unwrap_or_default();
    match scheme {
        "Basic" => {
            let decoded = STANDARD.decode(value.trim()).unwrap_or_default();
            let text = String::from_utf8(decoded).unwrap_or_default();
            text.split_once(':').is_some_and(|(_, password)| shared.keys.is_token(password))
        }
        "Bearer" => shared.keys.is_token(value.trim()),
        _ => {
            let time = shared.read(|state| state.ec2.time(now()));
            signature::check(request, &shared.keys, time).is_ok_and(|signer| matches!(signer, Signer::User { .. }))
        }
    }
}

/// The path below `/_local`.
fn path(request: &Request<Bytes>) -> &str {
    request.uri().path().trim_start_matches("/_local").trim_matches('/')
}

/// The request sets clocks: if it succeeds, lifecycle policies are carried out before it is answered.
pub(super) fn sets_clocks(request: &Request<Bytes>) -> bool {
    request.method() == Method::POST && path(request) == "clock"
}

/// Answers a request below `/_local`.
pub(super) fn answer(shared: &Shared, request: &Request<Bytes>) -> Response<Body> {
    if !has_token(shared, request) {
        return text_answer(401, NO_TOKEN);
    }
    let path = path(request);
    let result = match *request.method() {
        Method::GET if path.is_empty() => return text_answer(200, HELP),
        Method::GET => get(shared, path, request.uri().query().unwrap_or_default()),
        Method::POST if !header_text(request.headers(), "content-type").starts_with("application/json") => {
            Err("POST needs the header Content-Type: application/json".to_owned())
        }
        Method::POST => {
            let body = if request.body().is_empty() { Ok(json!({})) } else { serde_json::from_slice(request.body()) };
            let place = |error: serde_json::Error| format!("line {}, column {}", error.line(), error.column());
            let body = body.map_err(|error| format!("the body is not JSON: {}", place(error)));
            let object = body.and_then(|body| match body {
                Value::Object(_) => Ok(body),
                other => Err(format!("the body must be an object: {{ ... }}, not {}", kind_of(&other))),
            });
            object.and_then(|body| post(shared, path, body))
        }
        _ => Err("use GET or POST".to_owned()),
    };
    match result {
        Ok(value) => text_answer(200, format!("{value:#}\n")),
        Err(problem) => text_answer(400, format!("{problem}\nGET /_local/ for help\n")),
    }
}

fn get(shared: &Shared, path: &str, query: &str) -> Result<Value, String> {
    match path {
        "state" => Ok(shared.read(summary)),
        "telemetry" => Ok(shared.read(|state| state.telemetry.show())),
        "top" => Ok(shared.read(|state| json!(Top::from_state(state, now())))),
        "submissions" => Ok(shared.read(|state| json!(state.submissions().collect::<Vec<_>>()))),
        "records" => {
            let query: Vec<(String, String)> = url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
            let find = |name: &str| query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
            let after: u64 = find("after").map_or(Ok(0), str::parse).map_err(|_| "after: a number")?;
            Ok(shared.read(|state| {
                let selected = state.records().filter(|record| {
                    record.number > after
                        && find("name").is_none_or(|name| record.name == name)
                        && find("source").is_none_or(|source| json!(record.source) == source)
                });
                json!({"dropped": state.dropped_records(), "records": selected.take(MAX_ANSWER).collect::<Vec<_>>()})
            }))
        }
        other => admin_access::get(shared, other).ok_or_else(|| {
            let paths = ["state", "records", "submissions", "telemetry", "top"].into_iter().chain(GET_PATHS);
            format!("no such path: GET /_local/{other}.{}", did_you_mean(other, paths))
        }),
    }
}

fn summary(state: &State) -> Value {
    let instances: Vec<_> = state
        .instances()
        .iter()
        .map(|i| {
            json!({
                "containerInstanceArn": i.arn, "status": i.status.as_str(), "agentConnected": i.connected(),
                "registrations": i.registrations, "unacknowledged": i.unacknowledged(),
            })
        })
        .collect();
    let tasks: Vec<_> = state.tasks().iter().map(|task| task.describe(&state.site, true)).collect();
    json!({"clusters": state.clusters, "containerInstances": instances, "tasks": tasks})
}

fn post(shared: &Shared, path: &str, body: Value) -> Result<Value, String> {
    match path {
        "faults" => {
            let request: FaultRequest = read(body)?;
            let fault = request.fault()?;
            shared.change(|state| state.faults.add(&request.operation, request.count, &fault));
        }
        "clock" => set_clocks(shared, &read(body)?)?,
        "metadata" => {
            let path = body["path"].as_str().ok_or("path: a path below meta-data/")?;
            shared.change(|state| state.ec2.set_metadata(path, body["text"].as_str().map(str::to_owned)));
        }
        "instance-tags" => {
            let tags = read(body)?;
            shared.change(|state| state.ec2.tags = tags);
        }
        "faults/clear" => shared.change(|state| state.faults.clear()),
        "delivery" => {
            let request: DeliveryRequest = read(body)?;
            let delay =
                Duration::try_from_secs_f64(request.delay_seconds).map_err(|error| format!("delaySeconds: {error}"))?;
            let delivery = Delivery {
                delay,
                duplicate: request.duplicate,
                reorder: request.reorder,
                lose_acks: request.lose_acks,
            };
            shared.change(|state| state.faults.delivery = delivery);
        }
        "sockets/drop" => disconnect(shared, &body, &Disconnect::Drop),
        "sockets/close" => {
            let code = body["code"].as_u64().and_then(|code| u16::try_from(code).ok()).unwrap_or(1000);
            disconnect(shared, &body, &Disconnect::Close(code, body["reason"].as_str().unwrap_or_default().to_owned()));
        }
        "acs" => match (body["text"].as_str(), body["type"].as_str()) {
            (Some(text), _) => shared.change(|state| {
                let instance = state.any_instance().ok_or("no container instance is registered")?.arn.clone();
                state.queue_text(&instance, text)
            })?,
            (None, Some(kind)) => shared.send_message(kind, body["message"].clone())?,
            (None, None) => return Err("needed: type and message, or text".to_owned()),
        },
        "tcs" => send_tcs(shared, &body)?,
        "tasks" => return Ok(json!({"taskArn": shared.send_task(body)?})),
        "manifest" => {
            let id = shared.change(|state| {
                let instance = state.any_instance().ok_or("no container instance is registered")?.arn.clone();
                state.queue_manifest(&instance)
            })?;
            return Ok(json!({"messageId": id}));
        }
        "credentials" => {
            let roles = shared.change(|state| state.queue_credentials(body["task"].as_str().unwrap_or_default()))?;
            return Ok(json!({"roles": roles}));
        }
        "secrets" | "parameters" | "objects" => put_value(shared, path, &body)?,
        "identities" => return admin_access::put_identity(shared, &read(body)?),
        "identities/remove" => return admin_access::remove_identity(shared, &body),
        "sessions" => return admin_access::session(shared, &read(body)?),
        "actions/clear" => shared.change(|state| state.actions.clear()),
        other => {
            let paths = POST_PATHS.into_iter().chain(admin_access::POST_PATHS);
            return Err(format!("no such path: POST /_local/{other}.{}", did_you_mean(other, paths)));
        }
    }
    Ok(json!({"ok": true}))
}

/// Sets the clock of this AWS, that of ECR, or both. Whoever has the request answered carries out the lifecycle policies.
fn set_clocks(shared: &Shared, request: &ClockRequest) -> Result<(), String> {
    let ahead = [request.ahead_seconds, request.ecr_ahead_seconds];
    if ahead == [None, None] || !ahead.into_iter().flatten().all(|seconds| (-MAX_AHEAD..=MAX_AHEAD).contains(&seconds))
    {
        return Err(format!("needed: aheadSeconds, ecrAheadSeconds, or both: whole numbers of up to {MAX_AHEAD}"));
    }
    shared.change(|state| {
        let ahead = request.ahead_seconds.unwrap_or(state.ec2.clock_ahead);
        state.set_clocks(ahead, request.ecr_ahead_seconds.unwrap_or(state.ecr_ahead()));
    });
    Ok(())
}

/// Reads the body of a request.
fn read<T: DeserializeOwned>(body: Value) -> Result<T, String> {
    decode("The body", body)
}

/// Stores a secret, a parameter or an object.
fn put_value(shared: &Shared, path: &str, body: &Value) -> Result<(), String> {
    let text = |member: &str| body[member].as_str().ok_or_else(|| format!("needed: {member}, a string"));
    match path {
        "secrets" => {
            let (name, value) = (text("name")?, text("value")?.into());
            shared.change(|state| state.put_secret(name, value))
        }
        "parameters" => {
            let (name, value) = (text("name")?, text("value")?.into());
            shared.change(|state| state.stored.put_parameter(name, value))
        }
        _ => {
            let (bucket, key, text) = (text("bucket")?, text("key")?, text("text")?.into());
            shared.change(|state| state.stored.put_object(bucket, key, text))
        }
    }
}

/// Sends a message or a text over all TCS connections.
fn send_tcs(shared: &Shared, body: &Value) -> Result<(), String> {
    let extra = match (&body["base64"], body["text"].as_str(), body["type"].as_str()) {
        (Value::String(coded), ..) => Extra::Bytes(STANDARD.decode(coded).map_err(|error| format!("base64: {error}"))?),
        (_, Some(text), _) => Extra::Text(text.to_owned()),
        (_, None, Some(_)) => Extra::Text(json!({"type": body["type"], "message": body["message"]}).to_string()),
        (_, None, None) => return Err("needed: type and message, text, or base64".to_owned()),
    };
    shared.change(|state| state.telemetry.add_extra(extra));
    Ok(())
}

/// Disconnects the sockets that `which` names: `acs`, `tcs`, or both.
fn disconnect(shared: &Shared, body: &Value, disconnect: &Disconnect) {
    let which = body["which"].as_str();
    shared.disconnect(which != Some("tcs"), which != Some("acs"), disconnect);
}
