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
    let mut acknowledged = Vec::new();
    let mut intact = true;
    for value in &wire.tasks {
        let task = translate::task(value, new_id);
        let malformed = matches!(&task, PayloadTask::Refused(refusal) if refusal.reason.starts_with("Unrecognied"));
        if !malformed {
            let held = [("roleCredentials", RoleKind::Task), ("executionRoleCredentials", RoleKind::Execution)];
            let held: Vec<_> = held.into_iter().filter_map(|(name, kind)| credentials_in(value, name, kind)).collect();
            // Those of a task that is not to run are acknowledged, so that they are not sent again, but not kept.
            acknowledged.extend(held.iter().map(|role| (role.id.clone(), role.expiration.clone())));
            roles.extend(held.into_iter().filter(|_| matches!(task, PayloadTask::Run { .. })));
        }
        intact &= !malformed;
        tasks.push(task);
    }
    tasks.sort_by_key(|task| !matches!(task, PayloadTask::Stop(_)));
    let ack = Ack {
        message_id: header.message_id,
        cluster: header.cluster_arn,
        container_instance: header.container_instance_arn,
        credentials: acknowledged,
    };
    Some(Frame::Deliver(Incoming::Payload { tasks, credentials: roles, ack, seq_num: wire.seq_num, intact }))
}

fn credentials_in(task: &Value, name: &str, kind: RoleKind) -> Option<RoleCredentials> {
    let wire: wire::RoleCredentials = serde_json::from_value(task.get(name)?.clone()).ok()?;
    Some(role_credentials(wire, kind)).filter(|role| !role.id.0.is_empty())
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decode(text: &str) -> Frame {
        frame(text, &mut || "id".to_owned())
    }

    fn recorded() -> Value {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/acs_payload_sent.json");
        serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
    }

    fn delivered(text: &str) -> Incoming {
        match decode(text) {
            Frame::Deliver(incoming) => incoming,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_bad_task_does_not_spoil_the_others_and_stops_come_first() {
        let mut message = recorded();
        let good = json!({"arn": "good", "desiredStatus": "RUNNING", "containers": [{"name": "c", "image": "i"}],
            "executionRoleCredentials": {"credentialsId": "e", "roleArn": "r", "expiration": "soon", "sessionToken": null}});
        let bad = json!({"arn": "bad", "desiredStatus": "RUNNING", "containers": 5});
        let stop = json!({"arn": "stop", "desiredStatus": "STOPPED",
            "roleCredentials": {"credentialsId": "t", "roleArn": "r", "expiration": "late"}});
        message["message"]["tasks"] = json!([bad, good, stop]);
        let Incoming::Payload { tasks, credentials, ack, seq_num, intact } = delivered(&message.to_string()) else {
            panic!("no payload")
        };
        assert_eq!(tasks[0], PayloadTask::Stop("stop".into()));
        assert!(matches!(&tasks[1], PayloadTask::Refused(refusal) if refusal.arn == Some("bad".into())));
        assert!(matches!(&tasks[2], PayloadTask::Run { spec, .. } if spec.arn == "good".into()));
        assert_eq!((seq_num, intact, credentials.len()), (2, false, 1));
        assert_eq!(ack.credentials, [("e".into(), "soon".to_owned()), ("t".into(), "late".to_owned())]);
        assert_eq!(ack.message_id, message["message"]["messageId"].as_str().unwrap());
    }

    #[test]
    fn no_key_is_printed() {
        let mut message = recorded();
        message["message"]["tasks"][0]["cpu"] = json!(0);
        let text = format!("{:?}", decode(&message.to_string()));
        assert!(!text.contains("608f84fb") && !text.contains("tok-"), "{text}");
    }

    #[test]
    fn manifests_and_verifications() {
        let tasks = json!([{"taskArn": "a", "desiredStatus": "RUNNING"}, {"TaskArn": "b", "desiredStatus": "STOPPED"}]);
        let manifest = json!({"type": "TaskManifestMessage", "message": {
            "MessageId": "man-1", "clusterArn": "c", "containerInstanceArn": "i", "timeline": 7, "tasks": tasks}});
        let Incoming::Manifest { message_id, timeline, running, .. } = delivered(&manifest.to_string()) else {
            panic!("no manifest")
        };
        assert_eq!((message_id.as_str(), timeline), ("man-1", 7));
        assert_eq!(running.into_iter().collect::<Vec<_>>(), ["a".into()]);
        let ack = json!({"type": "TaskStopVerificationAck", "message": {"messageId": "man-1", "stopTasks": tasks}});
        let expected =
            Incoming::StopVerificationAck { message_id: "man-1".to_owned(), tasks: vec!["a".into(), "b".into()] };
        assert_eq!(delivered(&ack.to_string()), expected);
    }

    #[test]
    fn credentials_messages_need_their_members() {
        let message = |role_type: &str, id: &str| {
            json!({"type": "IAMRoleCredentialsMessage", "message": {"messageId": "cred-1", "taskArn": "t",
                "roleType": role_type, "roleCredentials": {"credentialsId": id, "expiration": "x"}}})
            .to_string()
        };
        let Incoming::Credentials { credentials, .. } = delivered(&message("TaskExecution", "id-1")) else {
            panic!("no credentials")
        };
        assert_eq!((credentials.id.as_str(), credentials.kind), ("id-1", RoleKind::Execution));
        for text in [message("Other", "id-1"), message("TaskApplication", "")] {
            assert!(matches!(decode(&text), Frame::Drop(_)), "{text}");
        }
    }

    #[test]
    fn what_is_noted_and_what_is_dropped() {
        for text in [
            r#"{"type":"CloseMessage","message":{}}"#,
            r#"{"InactiveInstanceException":"gone"}"#,
            r#"{"type":"AttachTaskNetworkInterfacesMessage","message":{"messageId":"x"}}"#,
            r#"{"type":"ConfirmAttachmentMessage","message":{"messageId":"x"}}"#,
        ] {
            assert!(matches!(decode(text), Frame::Note(_)), "{text}");
        }
        for text in [
            "",
            "{",
            "[]",
            "{}",
            r#"{"type":"Unknown"}"#,
            r#"{"type":"PayloadMessage","message":{}}"#,
            r#"{"type":"HeartbeatMessage","message":{"messageId":5}}"#,
        ] {
            assert!(matches!(decode(text), Frame::Drop(_)), "{text}");
        }
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            "\\PC{0,12}".prop_map(Value::from),
            Just(Value::from("{\"Command\": [\"x\"]}")),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::hash_map("\\PC{0,8}", inner, 0..4).prop_map(|map| map.into_iter().collect()),
            ]
        })
    }

    /// Every member of the recorded task and its containers, to be overwritten one by one.
    fn pointers() -> Vec<String> {
        let mut list = Vec::new();
        let mut queue = vec![(String::new(), recorded())];
        while let Some((path, value)) = queue.pop() {
            match &value {
                Value::Object(map) => {
                    queue.extend(map.iter().map(|(key, value)| (format!("{path}/{key}"), value.clone())))
                }
                Value::Array(array) => {
                    queue.extend(
                        array.iter().enumerate().map(|(index, value)| (format!("{path}/{index}"), value.clone())),
                    );
                }
                _ => {}
            }
            list.push(path);
        }
        list
    }

    proptest! {
        #[test]
        fn no_text_and_no_changed_member_panics(
            text in "\\PC{0,200}", places in prop::collection::vec((any::<prop::sample::Index>(), any_json()), 1..4)
        ) {
            let _any_text_is_fine = decode(&text);
            let pointers = pointers();
            let mut message = recorded();
            for (place, value) in places {
                if let Some(member) = message.pointer_mut(&pointers[place.index(pointers.len())]) {
                    *member = value;
                }
            }
            let _any_message_is_fine = decode(&message.to_string());
        }
    }
}
