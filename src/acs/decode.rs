//! One text frame to one meaning, and answers to text frames (spec `acs.md` §4). Pure.
//!
//! Owns validation of messages as wholes; tasks are translated in [`super::translate`]. The invariant: what fails validation is
//! dropped with a reason for the log, never acknowledged.

use super::translate::{self, PayloadTask};
use super::{HostFacts, Incoming, Outgoing, attachment, wire};
use crate::aws::roles::{RoleCredentials, RoleKind};
use crate::model::{Ack, CredentialsId, Secret, TaskArn};
use serde::Deserialize;
use serde_json::{Value, json};

/// As much of an error's text as goes to the log.
const SHOWN: usize = 256;

/// What a frame means to the session.
#[derive(Debug)]
pub(super) enum Frame {
    /// Answer at once; the note is for the log.
    Answer(String, Option<String>),
    /// For the agent.
    Deliver(Incoming),
    /// Recognised, nothing to do; the text is for the log.
    Note(String),
    /// Recognised, but it breaks a rule: neither done nor acknowledged.
    Invalid(String),
    /// Not recognised or malformed; does not count as a sign of life.
    Drop(String),
}

/// Why a message of a known type has no meaning.
enum Flaw {
    /// A member has the wrong JSON type.
    Shape(String),
    /// The members do not make a message.
    Rule(String),
}

/// Decodes one frame.
pub(super) fn frame(text: &str, host: &HostFacts, new_id: &mut dyn FnMut() -> String) -> Frame {
    let (kind, body) = match wire::envelope(text) {
        Ok(message) => message,
        Err(why) => return Frame::Drop(why),
    };
    match meaning(kind, &body, host, new_id) {
        Ok(frame) => frame,
        Err(Flaw::Rule(why)) => Frame::Invalid(format!("{kind}: {why}")),
        Err(Flaw::Shape(why)) => Frame::Drop(format!("{kind}: {why}")),
    }
}

fn meaning(kind: &str, body: &Value, host: &HostFacts, new_id: &mut dyn FnMut() -> String) -> Result<Frame, Flaw> {
    let header: wire::Header = shape(body)?;
    Ok(match kind {
        "HeartbeatMessage" => Frame::Answer(heartbeat_ack(&header), None),
        "PayloadMessage" => payload(header, body, host, new_id)?,
        "IAMRoleCredentialsMessage" => credentials(header, body)?,
        "TaskManifestMessage" => manifest(header, body)?,
        "TaskStopVerificationAck" => stop_verification(header, body)?,
        "PerformUpdateMessage" | "StageUpdateMessage" => update(&header)?,
        "AttachTaskNetworkInterfacesMessage" | "AttachInstanceNetworkInterfacesMessage" => {
            let is_for_task = kind == "AttachTaskNetworkInterfacesMessage";
            attachment::interfaces(&header, &shape(body)?, is_for_task).map_err(Flaw::Rule)?;
            attached(kind, &header)
        }
        "ConfirmAttachmentMessage" => {
            attachment::volume(&header, &shape(body)?).map_err(Flaw::Rule)?;
            attached(kind, &header)
        }
        _ => Frame::Note(note(kind, body)),
    })
}

fn shape<'a, T: Deserialize<'a>>(body: &'a Value) -> Result<T, Flaw> {
    wire::shape(body).map_err(Flaw::Shape)
}

/// Errors of ACS say what is wrong; that much of it goes to the log.
fn note(kind: &str, body: &Value) -> String {
    match wire::member(body, "message").and_then(Value::as_str) {
        Some(text) => format!("{kind} from ACS: {:?}", text.chars().take(SHOWN).collect::<String>()),
        None => format!("{kind} from ACS"),
    }
}

fn heartbeat_ack(header: &wire::Header) -> String {
    let body = if header.message_id.is_empty() { json!({}) } else { json!({"messageId": header.message_id}) };
    message("HeartbeatAckRequest", &body)
}

fn payload(
    header: wire::Header,
    body: &Value,
    host: &HostFacts,
    new_id: &mut dyn FnMut() -> String,
) -> Result<Frame, Flaw> {
    for (name, value) in [
        ("messageId", &header.message_id),
        ("clusterArn", &header.cluster_arn),
        ("containerInstanceArn", &header.container_instance_arn),
    ] {
        if value.is_empty() {
            return Err(Flaw::Rule(format!("{name} is not set")));
        }
    }
    let wire: wire::Payload = shape(body)?;
    let mut tasks: Vec<PayloadTask> = Vec::new();
    let mut roles = Vec::new();
    let mut acknowledged = Vec::new();
    let mut intact = true;
    for value in &wire.tasks {
        let task = translate::task(value, host, new_id);
        let malformed = matches!(&task, PayloadTask::Refused(refusal) if refusal.is_malformed);
        if !malformed {
            let held = [("roleCredentials", RoleKind::Task), ("executionRoleCredentials", RoleKind::Execution)];
            let held: Vec<_> = held.into_iter().filter_map(|(name, kind)| credentials_in(value, name, kind)).collect();
            // Those of a task that is not to run are acknowledged, so that they are not sent again, but not kept.
            acknowledged.extend(held.iter().map(|role| (role.id.clone(), role.expiration.clone())));
            roles.extend(held.into_iter().filter(|_| matches!(task, PayloadTask::Run(_))));
        }
        intact &= !malformed;
        tasks.push(task);
    }
    tasks.sort_by_key(|task| !matches!(task, PayloadTask::Stop(..)));
    let ack = ack(header, acknowledged);
    Ok(Frame::Deliver(Incoming::Payload { tasks, credentials: roles, ack, seq_num: wire.seq_num, intact }))
}

fn ack(header: wire::Header, credentials: Vec<(CredentialsId, String)>) -> Ack {
    Ack {
        message_id: header.message_id,
        cluster: header.cluster_arn,
        container_instance: header.container_instance_arn,
        credentials,
    }
}

fn credentials_in(task: &Value, name: &str, kind: RoleKind) -> Option<RoleCredentials> {
    let wire: wire::RoleCredentials = wire::shape(wire::member(task, name)?).ok()?;
    Some(role_credentials(wire, kind)).filter(|role| !role.id.0.is_empty())
}

fn role_credentials(wire: wire::RoleCredentials, kind: RoleKind) -> RoleCredentials {
    RoleCredentials {
        id: wire.credentials_id.into(),
        role_arn: wire.role_arn,
        kind,
        access_key_id: Secret::new(wire.access_key_id),
        secret_access_key: Secret::new(wire.secret_access_key),
        session_token: Secret::new(wire.session_token),
        expiration: wire.expiration,
    }
}

fn credentials(header: wire::Header, body: &Value) -> Result<Frame, Flaw> {
    let wire: wire::Credentials = shape(body)?;
    let kind = match wire.role_type.as_str() {
        "TaskApplication" => RoleKind::Task,
        "TaskExecution" => RoleKind::Execution,
        _ => return Err(Flaw::Rule("roleType is unknown".to_owned())),
    };
    for (name, value) in [
        ("messageId", &header.message_id),
        ("taskArn", &wire.task_arn),
        ("credentialsId", &wire.role_credentials.credentials_id),
    ] {
        if value.is_empty() {
            return Err(Flaw::Rule(format!("{name} is not set")));
        }
    }
    Ok(Frame::Deliver(Incoming::Credentials {
        message_id: header.message_id,
        task: wire.task_arn.into(),
        credentials: Box::new(role_credentials(wire.role_credentials, kind)),
    }))
}

fn manifest(header: wire::Header, body: &Value) -> Result<Frame, Flaw> {
    let wire: wire::TaskList = shape(body)?;
    let running = wire.tasks.into_iter().filter(|task| task.desired_status == "RUNNING");
    let running = running.map(|task| TaskArn::from(task.task_arn)).collect();
    Ok(Frame::Deliver(Incoming::Manifest { timeline: wire.timeline, running, ack: ack(header, Vec::new()) }))
}

fn stop_verification(header: wire::Header, body: &Value) -> Result<Frame, Flaw> {
    let wire: wire::TaskList = shape(body)?;
    let tasks = wire.stop_tasks.into_iter().map(|task| TaskArn::from(task.task_arn)).collect();
    Ok(Frame::Deliver(Incoming::StopVerificationAck { message_id: header.message_id, tasks }))
}

/// The agent is updated by its package, never by ACS: what the reference says with `ECS_UPDATES_ENABLED=false`.
fn update(header: &wire::Header) -> Result<Frame, Flaw> {
    if header.message_id.is_empty() {
        return Err(Flaw::Rule("messageId is not set".to_owned()));
    }
    let body = json!({
        "cluster": header.cluster_arn, "containerInstance": header.container_instance_arn,
        "messageId": header.message_id, "reason": "Updates are disabled",
    });
    Ok(Frame::Answer(message("NackRequest", &body), Some("an update was refused: updates are disabled".to_owned())))
}

/// Compat: acknowledged at once, without waiting for the device; what does not come is left to expire.
fn attached(kind: &str, header: &wire::Header) -> Frame {
    let note = format!("{kind} is acknowledged, but this version of the agent attaches nothing");
    Frame::Answer(ack_request(&header.message_id, &header.cluster_arn, &header.container_instance_arn), Some(note))
}

fn ack_request(message_id: &str, cluster: &str, container_instance: &str) -> String {
    let body = json!({"cluster": cluster, "containerInstance": container_instance, "messageId": message_id});
    message("AckRequest", &body)
}

fn message(kind: &str, body: &Value) -> String {
    json!({"type": kind, "message": body}).to_string()
}

/// The frames of one answer.
pub(super) fn encode(outgoing: &Outgoing) -> Vec<String> {
    match outgoing {
        Outgoing::Ack(ack) => {
            let credentials = ack.credentials.iter();
            let credentials = credentials.map(|(id, expiration)| credentials_ack(&ack.message_id, id, expiration));
            credentials.chain([ack_request(&ack.message_id, &ack.cluster, &ack.container_instance)]).collect()
        }
        Outgoing::CredentialsAck(ack) => vec![credentials_ack(&ack.message_id, &ack.id, &ack.expiration)],
        Outgoing::StopVerification { message_id, cluster, candidates } => {
            let candidates: Vec<Value> = candidates
                .iter()
                .map(|arn| json!({"desiredStatus": "STOPPED", "taskArn": arn, "taskClusterArn": cluster}))
                .collect();
            let body = json!({"messageId": message_id, "stopCandidates": candidates});
            vec![message("TaskStopVerificationMessage", &body)]
        }
    }
}

fn credentials_ack(message_id: &str, id: &CredentialsId, expiration: &str) -> String {
    let body = json!({"messageId": message_id, "credentialsId": id, "expiration": expiration});
    message("IAMRoleCredentialsAckRequest", &body)
}

#[cfg(test)]
mod tests;
