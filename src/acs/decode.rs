//! One text frame to one meaning, and answers to text frames (spec `acs.md` §4). Pure.
//!
//! Owns validation of messages as wholes; tasks are translated in [`super::translate`]. The invariant: what fails validation is
//! dropped with a reason for the log, never acknowledged.

use super::translate::{self, PayloadTask};
use super::{Incoming, Outgoing, wire};
use crate::aws::roles::{RoleCredentials, RoleKind};
use crate::model::{Ack, TaskArn};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// What a frame means to the session.
#[derive(Debug)]
pub(super) enum Frame {
    /// Answer at once.
    Answer(String),
    /// For the agent.
    Deliver(Incoming),
    /// Recognised, nothing to do; the text is for the log.
    Note(String),
    /// Not recognised or malformed; does not count as a sign of life.
    Drop(&'static str),
}

/// Decodes one frame.
pub(super) fn frame(text: &str, new_id: &mut dyn FnMut() -> String) -> Frame {
    let Some((kind, body)) = wire::envelope(text) else { return Frame::Drop("not a message of the protocol") };
    let Some(header) = parse::<wire::Header>(&body) else { return Frame::Drop("malformed message") };
    let result = match kind.as_str() {
        "HeartbeatMessage" => {
            Some(Frame::Answer(message("HeartbeatAckRequest", &json!({"messageId": header.message_id}))))
        }
        "PayloadMessage" => payload(header, &body, new_id),
        "IAMRoleCredentialsMessage" => credentials(header, &body),
        "TaskManifestMessage" => manifest(header, &body),
        "TaskStopVerificationAck" => stop_verification(header, &body),
        "PerformUpdateMessage" | "StageUpdateMessage" => Some(update(&header)),
        "AttachTaskNetworkInterfacesMessage"
        | "AttachInstanceNetworkInterfacesMessage"
        | "ConfirmAttachmentMessage" => {
            Some(Frame::Note(format!("{kind} is not acknowledged: this version of the agent attaches nothing")))
        }
        _ => Some(Frame::Note(format!("{kind} from ACS"))),
    };
    result.unwrap_or(Frame::Drop("malformed message"))
}

fn parse<T: DeserializeOwned>(body: &Value) -> Option<T> {
    // In-band errors may have a bare text as body.
    let body = if body.is_object() { body.clone() } else { json!({}) };
    serde_json::from_value(body).ok()
}

fn payload(header: wire::Header, body: &Value, new_id: &mut dyn FnMut() -> String) -> Option<Frame> {
    if header.message_id.is_empty() || header.cluster_arn.is_empty() || header.container_instance_arn.is_empty() {
        return None;
    }
    let wire: wire::Payload = parse(body)?;
    let mut tasks: Vec<PayloadTask> = Vec::new();
    let mut roles = Vec::new();
    let mut intact = true;
    for value in &wire.tasks {
        let task = translate::task(value, new_id);
        if let PayloadTask::Run { .. } = &task {
            let role = value.get("executionRoleCredentials").and_then(|role| serde_json::from_value(role.clone()).ok());
            roles.extend(role.map(|role| role_credentials(role, RoleKind::Execution)));
        }
        intact &= !matches!(&task, PayloadTask::Refused(refusal) if refusal.reason.starts_with("Unrecognied"));
        tasks.push(task);
    }
    tasks.sort_by_key(|task| !matches!(task, PayloadTask::Stop(_)));
    let credentials = roles.iter().map(|role| (role.id.clone(), role.expiration.clone())).collect();
    let ack = Ack {
        message_id: header.message_id,
        cluster: header.cluster_arn,
        container_instance: header.container_instance_arn,
        credentials,
    };
    Some(Frame::Deliver(Incoming::Payload { tasks, credentials: roles, ack, seq_num: wire.seq_num, intact }))
}

fn role_credentials(wire: wire::RoleCredentials, kind: RoleKind) -> RoleCredentials {
    RoleCredentials {
        id: wire.credentials_id.into(),
        role_arn: wire.role_arn,
        kind,
        access_key_id: crate::model::Secret::new(wire.access_key_id),
        secret_access_key: crate::model::Secret::new(wire.secret_access_key),
        session_token: crate::model::Secret::new(wire.session_token),
        expiration: wire.expiration,
    }
}

fn credentials(header: wire::Header, body: &Value) -> Option<Frame> {
    let wire: wire::Credentials = parse(body)?;
    let kind = match wire.role_type.as_str() {
        "TaskApplication" => RoleKind::Task,
        "TaskExecution" => RoleKind::Execution,
        _ => return None,
    };
    if header.message_id.is_empty() || wire.task_arn.is_empty() || wire.role_credentials.credentials_id.is_empty() {
        return None;
    }
    Some(Frame::Deliver(Incoming::Credentials {
        message_id: header.message_id,
        task: wire.task_arn.into(),
        credentials: Box::new(role_credentials(wire.role_credentials, kind)),
    }))
}

fn manifest(header: wire::Header, body: &Value) -> Option<Frame> {
    let wire: wire::TaskList = parse(body)?;
    let running = wire.tasks.into_iter().filter(|task| task.desired_status == "RUNNING");
    Some(Frame::Deliver(Incoming::Manifest {
        message_id: header.message_id,
        timeline: wire.timeline,
        cluster: header.cluster_arn,
        container_instance: header.container_instance_arn,
        running: running.map(|task| TaskArn::from(task.task_arn)).collect(),
    }))
}

fn stop_verification(header: wire::Header, body: &Value) -> Option<Frame> {
    let wire: wire::TaskList = parse(body)?;
    let tasks = wire.stop_tasks.into_iter().map(|task| TaskArn::from(task.task_arn)).collect();
    Some(Frame::Deliver(Incoming::StopVerificationAck { message_id: header.message_id, tasks }))
}

fn update(header: &wire::Header) -> Frame {
    if header.message_id.is_empty() {
        return Frame::Note("an update without messageId".to_owned());
    }
    let body = json!({
        "cluster": header.cluster_arn, "containerInstance": header.container_instance_arn,
        "messageId": header.message_id, "reason": "Updates are disabled",
    });
    Frame::Answer(message("NackRequest", &body))
}

fn message(kind: &str, body: &Value) -> String {
    json!({"type": kind, "message": body}).to_string()
}

/// The frames of one answer.
pub(super) fn encode(outgoing: &Outgoing) -> Vec<String> {
    let credentials_ack = |message_id: &str, id: &str, expiration: &str| {
        let body = json!({"messageId": message_id, "credentialsId": id, "expiration": expiration});
        message("IAMRoleCredentialsAckRequest", &body)
    };
    match outgoing {
        Outgoing::Ack(ack) => {
            let body = json!({
                "cluster": ack.cluster, "containerInstance": ack.container_instance, "messageId": ack.message_id
            });
            let credentials = ack.credentials.iter();
            let credentials = credentials.map(|(id, expiration)| credentials_ack(&ack.message_id, &id.0, expiration));
            credentials.chain([message("AckRequest", &body)]).collect()
        }
        Outgoing::CredentialsAck { message_id, credentials_id, expiration } => {
            vec![credentials_ack(message_id, &credentials_id.0, expiration)]
        }
        Outgoing::StopVerification { message_id, cluster, candidates } => {
            let candidates: Vec<Value> = candidates
                .iter()
                .map(|arn| json!({"desiredStatus": "STOPPED", "taskArn": arn, "taskClusterArn": cluster}))
                .collect();
            vec![message(
                "TaskStopVerificationMessage",
                &json!({"messageId": message_id, "stopCandidates": candidates}),
            )]
        }
    }
}
