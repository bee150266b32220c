use super::*;
use crate::acs::corpus;
use proptest::prelude::*;

fn decode(text: &str) -> Frame {
    frame(text, &HostFacts::default(), &mut || "id".to_owned())
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
    assert_eq!(tasks[0], PayloadTask::Stop("stop".into(), Vec::new()));
    assert!(matches!(&tasks[1], PayloadTask::Refused(refusal) if refusal.arn == Some("bad".into())));
    assert!(matches!(&tasks[2], PayloadTask::Run(spec) if spec.arn == "good".into()));
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
    let Incoming::Manifest { timeline, running, ack } = delivered(&manifest.to_string()) else { panic!("no manifest") };
    assert_eq!((ack.message_id.as_str(), ack.cluster.as_str(), timeline), ("man-1", "c", 7));
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
        assert!(matches!(decode(&text), Frame::Invalid(_)), "{text}");
    }
}

/// Name of the task at the end of its ARN, with what becomes of it.
fn outcome(task: &PayloadTask) -> String {
    match task {
        PayloadTask::Run(spec) => format!("run {}", spec.arn.task_id()),
        PayloadTask::Later(arn) => format!("later {}", arn.task_id()),
        PayloadTask::Stop(arn, _) => format!("stop {}", arn.task_id()),
        PayloadTask::Refused(refusal) => {
            format!("refused {} {}", refusal.arn.as_ref().map_or("", TaskArn::task_id), refusal.reason)
        }
    }
}

fn judge(case: &Value) {
    let about = &case["about"];
    let text = case["text"].as_str().map_or_else(|| case["message"].to_string(), str::to_owned);
    let says = case["says"].as_str().unwrap_or_default();
    match (case["outcome"].as_str().unwrap(), decode(&text)) {
        ("answer", Frame::Answer(answer, _)) => {
            assert_eq!(serde_json::from_str::<Value>(&answer).unwrap(), case["answer"], "{about}");
        }
        ("deliver", Frame::Deliver(Incoming::Payload { tasks, intact, ack, .. })) => {
            let (got, wanted) = (tasks.iter().map(outcome), case["tasks"].as_array().unwrap().iter());
            assert_eq!(got.len(), wanted.len(), "{about}");
            got.zip(wanted).for_each(|(got, wanted)| {
                assert!(got.starts_with(wanted.as_str().unwrap()), "{about}: {got}");
            });
            assert_eq!(json!(intact), case["acknowledged"], "{about}");
            assert_eq!(json!(ack.message_id), case["message"]["message"]["messageId"]);
        }
        ("deliver", Frame::Deliver(_)) => {}
        ("note", Frame::Note(said)) | ("invalid", Frame::Invalid(said)) | ("drop", Frame::Drop(said)) => {
            assert!(!says.is_empty() && said.contains(says), "{about}: {said}");
            assert!(said.len() < 400 && !said.contains('\n'), "{about}: {said}");
        }
        (_, other) => panic!("{about}: {other:?}"),
    }
}

#[test]
fn every_message_of_the_corpus_has_its_outcome() {
    let cases = corpus::cases();
    assert!(cases.len() > 300, "{} cases", cases.len());
    cases.iter().for_each(judge);
}

#[test]
fn the_recorded_payload_means_the_same_in_any_case_of_names() {
    fn shout(value: &Value) -> Value {
        match value {
            Value::Object(members) => members
                .iter()
                .map(|(name, value)| match name.as_str() {
                    "environment" | "labels" | "driverOpts" => (name.to_uppercase(), value.clone()),
                    _ => (name.to_uppercase(), shout(value)),
                })
                .collect(),
            Value::Array(list) => list.iter().map(shout).collect(),
            other => other.clone(),
        }
    }
    let mut message = recorded();
    message["message"]["tasks"][0].as_object_mut().unwrap().remove("roleCredentials"); // not supported yet
    let quiet = delivered(&message.to_string());
    assert!(matches!(&quiet, Incoming::Payload { tasks, .. } if matches!(tasks[0], PayloadTask::Run(_))), "{quiet:?}");
    assert_eq!(delivered(&shout(&message).to_string()), quiet);
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
            Value::Object(map) => queue.extend(map.iter().map(|(key, value)| (format!("{path}/{key}"), value.clone()))),
            Value::Array(array) => {
                queue.extend(array.iter().enumerate().map(|(index, value)| (format!("{path}/{index}"), value.clone())));
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
        text in "\\PC{0,200}", places in prop::collection::vec((any::<prop::sample::Index>(), any_json()), 1..4),
            cut in any::<prop::sample::Index>(), byte in any::<u8>(),
    ) {
        let _any_text_is_fine = decode(&text);
        let pointers = pointers();
        let mut message = recorded();
        for (place, value) in places {
            if let Some(member) = message.pointer_mut(&pointers[place.index(pointers.len())]) {
                *member = value;
            }
        }
        let text = message.to_string();
        let _any_message_is_fine = decode(&text);
        // Nor does one that was cut off, or that lost or changed a byte on its way.
        let mut bytes = text.into_bytes();
        let at = cut.index(bytes.len());
        bytes[at] = byte;
        let _changed = decode(&String::from_utf8_lossy(&bytes));
        bytes.remove(at);
        let _shorter = decode(&String::from_utf8_lossy(&bytes));
        bytes.truncate(at);
        let _cut_off = decode(&String::from_utf8_lossy(&bytes));
    }
}
