//! Decodes frames and encodes answers (spec `acs.md` §4). Pure: from bytes to a [`Frame`], without I/O.
//!
//! Owns the validation of whole messages; [`super::translate`] translates tasks. The invariants: an invalid message is dropped
//! with a reason for the log and never acknowledged; a malformed task does not affect the other tasks of its message.

use super::limits::{MAX_CONTAINERS_OF_PAYLOAD, MAX_ID, MAX_LISTED, MAX_TASKS};
use super::translate::{self, ReceivedTask, Refusal};
use super::{HostFacts, Incoming, Outgoing, attachment, wire};
use crate::aws::identity::roles::RoleCredentials;
use crate::input::envelope::note;
use crate::input::json::{DecodeError, Raw};
use crate::websocket::Read;
use ecs_core::model::text::cleaned;
use ecs_core::model::{Ack, CredentialsId, RoleKind, Secret, TaskArn};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// The meaning of a frame for the session.
pub type Frame = Read<Incoming>;

/// Why a message of a known type is not accepted.
enum MessageError {
    /// A member has the wrong type.
    Shape(String),
    /// The members break a rule of the message.
    Rule(String),
}

/// Decodes one frame. Bytes that are not UTF-8 become U+FFFD. `new_id` gives each container its random endpoint id.
pub fn frame(bytes: &[u8], host: &HostFacts, new_id: &mut dyn FnMut() -> String) -> Frame {
    let text = String::from_utf8_lossy(bytes);
    let (kind, body) = match wire::envelope(&text) {
        Ok(message) => message,
        Err(why) => return Frame::Drop(cleaned(&why)),
    };
    match interpret(kind, body, host, new_id) {
        Ok(frame) => frame,
        Err(MessageError::Rule(why)) => Frame::Invalid(cleaned(&format!("{kind}: {why}"))),
        Err(MessageError::Shape(why)) => Frame::Drop(cleaned(&format!("{kind}: {why}"))),
    }
}

fn interpret(
    kind: &str,
    body: Raw<'_>,
    host: &HostFacts,
    new_id: &mut dyn FnMut() -> String,
) -> Result<Frame, MessageError> {
    let header = wire::Header::read(body).map_err(MessageError::Shape)?;
    Ok(match kind {
        "HeartbeatMessage" => Frame::Heartbeat(heartbeat_ack(&header), Incoming::Heartbeat),
        "PayloadMessage" => payload(header, body, host, new_id)?,
        "IAMRoleCredentialsMessage" => credentials(header, body)?,
        "TaskManifestMessage" => manifest(header, body)?,
        "TaskStopVerificationAck" => stop_verification(header, body)?,
        "PerformUpdateMessage" | "StageUpdateMessage" => update(&header)?,
        "AttachTaskNetworkInterfacesMessage" | "AttachInstanceNetworkInterfacesMessage" => {
            let is_for_task = kind == "AttachTaskNetworkInterfacesMessage";
            let message: wire::AttachInterfaces = decode_body(body)?;
            let announced = attachment::interfaces(&header, &message, is_for_task).map_err(MessageError::Rule)?;
            Frame::Deliver(Incoming::Attachments { announced, ack: ack(header, Vec::new()) }, None)
        }
        "ConfirmAttachmentMessage" => {
            attachment::volume(&header, &decode_body(body)?).map_err(MessageError::Rule)?;
            attachment_ack(kind, &header)
        }
        _ => Frame::Note(note("ACS", kind, body)),
    })
}

fn decode_body<T: DeserializeOwned>(body: Raw<'_>) -> Result<T, MessageError> {
    wire::decode(body).map_err(MessageError::Shape)
}

fn heartbeat_ack(header: &wire::Header) -> String {
    let body = if header.message_id.is_empty() { json!({}) } else { json!({"messageId": header.message_id}) };
    message("HeartbeatAckRequest", &body)
}

fn payload(
    header: wire::Header,
    body: Raw<'_>,
    host: &HostFacts,
    new_id: &mut dyn FnMut() -> String,
) -> Result<Frame, MessageError> {
    for (name, value) in [
        ("messageId", &header.message_id),
        ("clusterArn", &header.cluster_arn),
        ("containerInstanceArn", &header.container_instance_arn),
    ] {
        if value.is_empty() {
            return Err(MessageError::Rule(format!("{name} is not set")));
        }
    }
    let list = wire::list(body, "tasks", MAX_TASKS).map_err(MessageError::Shape)?;
    let (seq_num, mut notes) = match wire::member::<i64>(body, "seqNum") {
        Ok(number) => (number, Vec::new()),
        Err(why) => (0, vec![format!("the payload is not acknowledged: {why}")]),
    };
    if list.omitted > 0 {
        let omitted = list.omitted;
        notes.push(format!("{omitted} tasks of a payload are ignored: it has more than {MAX_TASKS}"));
    }
    let (is_intact, containers_left) = (notes.is_empty(), MAX_CONTAINERS_OF_PAYLOAD);
    let mut collected = Collected { is_intact, containers_left, ..Collected::default() };
    for raw in list.items {
        collected.add(raw, translate::task(raw, host, new_id));
    }
    collected.tasks.sort_by_key(|task| !matches!(task, ReceivedTask::Stop(..)));
    let ack = ack(header, collected.acknowledged);
    let (tasks, credentials, intact) = (collected.tasks, collected.roles, collected.is_intact);
    let note = (!notes.is_empty()).then(|| cleaned(&notes.join("; ")));
    Ok(Frame::Deliver(Incoming::Payload { tasks, credentials, ack, seq_num, intact }, note))
}

/// The tasks of a payload that are translated so far, and what follows from them.
#[derive(Default)]
struct Collected {
    tasks: Vec<ReceivedTask>,
    /// The role credentials of the tasks to run.
    roles: Vec<RoleCredentials>,
    /// The id and the expiration of all role credentials, for the acknowledgement.
    acknowledged: Vec<(CredentialsId, String)>,
    /// True: no task is malformed, and none was ignored because of a limit.
    is_intact: bool,
    /// Number of containers that the tasks still to come may have together.
    containers_left: usize,
}

impl Collected {
    fn add(&mut self, raw: Raw<'_>, task: ReceivedTask) {
        let task = self.within_limit(task);
        let is_malformed = matches!(&task, ReceivedTask::Refused(refusal) if refusal.is_malformed);
        if !is_malformed {
            let names = [("roleCredentials", RoleKind::Task), ("executionRoleCredentials", RoleKind::Execution)];
            let roles: Vec<_> = names.into_iter().filter_map(|(name, kind)| credentials_in(raw, name, kind)).collect();
            // Credentials of a task that does not run are acknowledged, so that ECS does not send them again, but not stored.
            self.acknowledged.extend(roles.iter().map(|role| (role.id.clone(), role.expiration.clone())));
            self.roles.extend(roles.into_iter().filter(|_| matches!(task, ReceivedTask::Run(_))));
        }
        self.is_intact &= !is_malformed;
        self.tasks.push(task);
    }

    /// Refuses the task if the payload has too many containers, which would take far more memory than their JSON text.
    fn within_limit(&mut self, task: ReceivedTask) -> ReceivedTask {
        let (containers, task) = match task {
            ReceivedTask::Run(spec) if spec.containers.len() > self.containers_left => {
                let reason = translate::invalid(&format!(
                    "the tasks of this payload have more than {MAX_CONTAINERS_OF_PAYLOAD} containers"
                ));
                (0, ReceivedTask::Refused(Refusal { arn: Some(spec.arn), reason, is_malformed: false }))
            }
            ReceivedTask::Run(spec) => (spec.containers.len(), ReceivedTask::Run(spec)),
            ReceivedTask::Stop(arn, mut names) => {
                names.truncate(self.containers_left);
                (names.len(), ReceivedTask::Stop(arn, names))
            }
            other => (0, other),
        };
        self.containers_left -= containers;
        task
    }
}

fn ack(header: wire::Header, credentials: Vec<(CredentialsId, String)>) -> Ack {
    Ack {
        message_id: header.message_id,
        cluster: header.cluster_arn,
        container_instance: header.container_instance_arn,
        credentials,
    }
}

fn credentials_in(task: Raw<'_>, name: &str, kind: RoleKind) -> Option<RoleCredentials> {
    let wire: wire::RoleCredentials = wire::decode(task.member(name)?).ok()?;
    Some(role_credentials(wire, kind)).filter(|role| (1..=MAX_ID).contains(&role.id.0.len()))
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

fn credentials(header: wire::Header, body: Raw<'_>) -> Result<Frame, MessageError> {
    let wire: wire::Credentials = decode_body(body)?;
    let kind = match wire.role_type.as_str() {
        "TaskApplication" => RoleKind::Task,
        "TaskExecution" => RoleKind::Execution,
        _ => return Err(MessageError::Rule("roleType is unknown".to_owned())),
    };
    for (name, value) in [
        ("messageId", &header.message_id),
        ("taskArn", &wire.task_arn),
        ("credentialsId", &wire.role_credentials.credentials_id),
    ] {
        if value.is_empty() {
            return Err(MessageError::Rule(format!("{name} is not set")));
        }
        if value.len() > MAX_ID {
            return Err(MessageError::Rule(format!("{name} has {} bytes, more than {MAX_ID}", value.len())));
        }
    }
    let credentials = Box::new(role_credentials(wire.role_credentials, kind));
    let incoming = Incoming::Credentials { message_id: header.message_id, task: wire.task_arn.into(), credentials };
    Ok(Frame::Deliver(incoming, None))
}

/// A manifest is accepted completely or not at all, since tasks that are missing from it may be stopped.
fn manifest(header: wire::Header, body: Raw<'_>) -> Result<Frame, MessageError> {
    let list = wire::list(body, "tasks", MAX_LISTED).map_err(MessageError::Shape)?;
    if list.omitted > 0 {
        return Err(MessageError::Rule(format!("it names more than {MAX_LISTED} tasks")));
    }
    let timeline = wire::member(body, "timeline").map_err(MessageError::Shape)?;
    let tasks = identifiers(list, "tasks").collect::<Result<Vec<_>, _>>().map_err(MessageError::Shape)?;
    let running = tasks.into_iter().filter(|task| task.desired_status == "RUNNING");
    let running = running.map(|task| TaskArn::from(task.task_arn)).collect();
    Ok(Frame::Deliver(Incoming::Manifest { timeline, running, ack: ack(header, Vec::new()) }, None))
}

/// Decodes the items of a list as task identifiers. An error names the list and the position.
fn identifiers<'a>(
    list: wire::List<'a>,
    name: &'static str,
) -> impl Iterator<Item = Result<wire::TaskIdentifier, String>> + 'a {
    list.items.into_iter().enumerate().map(move |(index, item)| {
        item.decode().map_err(|error: DecodeError| error.inside(&format!("{name}[{index}]")).to_string())
    })
}

/// All readable tasks are to be stopped, even if others are unreadable.
fn stop_verification(header: wire::Header, body: Raw<'_>) -> Result<Frame, MessageError> {
    let list = wire::list(body, "stopTasks", MAX_LISTED).map_err(MessageError::Shape)?;
    let mut notes = Vec::new();
    if list.omitted > 0 {
        notes.push(format!("{} tasks to stop are ignored: the message names more than {MAX_LISTED}", list.omitted));
    }
    let (mut tasks, mut unread) = (Vec::new(), 0_usize);
    for task in identifiers(list, "stopTasks") {
        match task {
            Ok(task) => tasks.push(TaskArn::from(task.task_arn)),
            Err(why) => {
                if unread == 0 {
                    notes.push(format!("a task to stop cannot be read: {why}"));
                }
                unread += 1;
            }
        }
    }
    if unread > 1 {
        notes.push(format!("neither can {} more", unread - 1));
    }
    let note = (!notes.is_empty()).then(|| cleaned(&notes.join("; ")));
    Ok(Frame::Deliver(Incoming::StopVerificationAck { message_id: header.message_id, tasks }, note))
}

/// Refuses an update, like the Go agent with `ECS_UPDATES_ENABLED=false`: a package updates this agent, never ACS.
fn update(header: &wire::Header) -> Result<Frame, MessageError> {
    if header.message_id.is_empty() {
        return Err(MessageError::Rule("messageId is not set".to_owned()));
    }
    let body = json!({
        "cluster": header.cluster_arn, "containerInstance": header.container_instance_arn,
        "messageId": header.message_id, "reason": "Updates are disabled",
    });
    Ok(Frame::Answer(message("NackRequest", &body), Some("an update was refused: updates are disabled".to_owned())))
}

/// Compat: acknowledged at once, without waiting for the device; ECS lets an attachment expire that is never used.
fn attachment_ack(kind: &str, header: &wire::Header) -> Frame {
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

/// The texts of an answer, each to be sent as one frame.
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
