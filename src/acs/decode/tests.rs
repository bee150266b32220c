use super::*;
use crate::acs::limits::MAX_TEXT;
use ecs_testing::corpus;
use proptest::prelude::*;

fn decode(text: &str) -> Frame {
    decode_bytes(text.as_bytes())
}

fn decode_bytes(bytes: &[u8]) -> Frame {
    frame(bytes, &HostFacts::default(), &mut || "id".to_owned())
}

fn recorded() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/acs_payload_sent.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn delivered(text: &str) -> Incoming {
    match decode(text) {
        Frame::Deliver(incoming, _) => incoming,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_bad_task_does_not_affect_others_and_stops_come_first() {
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
    assert_eq!(tasks[0], ReceivedTask::Stop("stop".into(), Vec::new()));
    assert!(matches!(&tasks[1], ReceivedTask::Refused(refusal) if refusal.arn == Some("bad".into())));
    assert!(matches!(&tasks[2], ReceivedTask::Run(spec) if spec.arn == "good".into()));
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

/// The outcome of a task, with its id and, if it is refused, the reason.
fn outcome(task: &ReceivedTask) -> String {
    match task {
        ReceivedTask::Run(spec) => format!("run {}", spec.arn.task_id()),
        ReceivedTask::Later(arn) => format!("later {}", arn.task_id()),
        ReceivedTask::Stop(arn, _) => format!("stop {}", arn.task_id()),
        ReceivedTask::Refused(refusal) => {
            format!("refused {} {}", refusal.arn.as_ref().map_or("", TaskArn::task_id), refusal.reason)
        }
    }
}

/// Checks one case of the corpus.
fn check(case: &Value) {
    let about = &case["about"];
    let text = case["text"].as_str().map_or_else(|| case["message"].to_string(), str::to_owned);
    let part = case["says"].as_str().unwrap_or_default();
    match (case["outcome"].as_str().unwrap(), decode(&text)) {
        ("answer", Frame::Answer(answer, _) | Frame::Heartbeat(answer, _)) => {
            assert_eq!(serde_json::from_str::<Value>(&answer).unwrap(), case["answer"], "{about}");
        }
        ("deliver", Frame::Deliver(Incoming::Payload { tasks, intact, ack, .. }, note)) => {
            let (got, wanted) = (tasks.iter().map(outcome), case["tasks"].as_array().unwrap().iter());
            assert_eq!(got.len(), wanted.len(), "{about}");
            got.zip(wanted).for_each(|(got, wanted)| {
                assert!(got.starts_with(wanted.as_str().unwrap()), "{about}: {got}");
            });
            assert_eq!(json!(intact), case["acknowledged"], "{about}");
            if case["message"].is_object() {
                assert_eq!(json!(ack.message_id), case["message"]["message"]["messageId"]);
            }
            assert!(note.unwrap_or_default().contains(part), "{about}");
        }
        ("deliver", Frame::Deliver(_, note)) => assert!(note.unwrap_or_default().contains(part), "{about}"),
        ("note", Frame::Note(remark)) | ("invalid", Frame::Invalid(remark)) | ("drop", Frame::Drop(remark)) => {
            assert!(!part.is_empty() && remark.contains(part), "{about}: {remark}");
            assert!(remark.len() < 400 && !remark.contains('\n'), "{about}: {remark}");
        }
        (_, other) => panic!("{about}: {other:?}"),
    }
}

#[test]
fn every_message_of_the_corpus_has_its_outcome() {
    let cases = corpus::cases();
    assert!(cases.len() > 300, "{} cases", cases.len());
    cases.iter().for_each(check);
}

#[test]
fn the_recorded_payload_means_the_same_in_any_case_of_names() {
    fn in_upper_case(value: &Value) -> Value {
        match value {
            Value::Object(members) => members
                .iter()
                .map(|(name, value)| match name.as_str() {
                    "environment" | "labels" | "driverOpts" => (name.to_uppercase(), value.clone()),
                    _ => (name.to_uppercase(), in_upper_case(value)),
                })
                .collect(),
            Value::Array(list) => list.iter().map(in_upper_case).collect(),
            other => other.clone(),
        }
    }
    let mut message = recorded();
    message["message"]["tasks"][0].as_object_mut().unwrap().remove("roleCredentials"); // not supported yet
    let original = delivered(&message.to_string());
    assert!(
        matches!(&original, Incoming::Payload { tasks, .. } if matches!(tasks[0], ReceivedTask::Run(_))),
        "{original:?}"
    );
    assert_eq!(delivered(&in_upper_case(&message).to_string()), original);
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

/// The text of a payload with these tasks, JSON texts joined with commas.
fn payload_of(tasks: &str) -> String {
    format!(
        r#"{{"type":"PayloadMessage","message":{{"messageId":"m","clusterArn":"c","containerInstanceArn":"i","seqNum":3,"tasks":[{tasks}]}}}}"#
    )
}

/// The outcome of each task, whether the payload is acknowledged, and the text for the log.
fn outcomes(tasks: &str) -> (Vec<String>, bool, String) {
    match decode(&payload_of(tasks)) {
        Frame::Deliver(Incoming::Payload { tasks, intact, .. }, note) => {
            (tasks.iter().map(outcome).collect(), intact, note.unwrap_or_default())
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_unreadable_task_does_not_affect_the_others() {
    let good = r#"{"arn":"t/good","desiredStatus":"RUNNING","containers":[{"name":"a","image":"cut \ud83d"}]}"#;
    let deep = "[".repeat(10_001) + &"]".repeat(10_001);
    let many = "0,".repeat(20_000) + "0";
    let long = "x".repeat(MAX_TEXT);
    for (members, why) in [
        (r#""family": NaN"#.to_owned(), "json: an unexpected character at byte"),
        (r#""family": "\q hunter2""#.to_owned(), "json: an unknown escape in a string at byte"),
        ("\"family\": \"hunter2\n\"".to_owned(), "json: a control character in a string at byte"),
        (format!("\"new\": {deep}"), "json: it nests deeper than 10000 levels"),
        (format!("\"new\": [{many}]"), "json: it has more than 20000 values"),
        (format!("\"new\": \"{long}\""), "it has 10486"),
        (r#""memory": 1.5"#.to_owned(), "json: cannot unmarshal number into memory, an integer is expected"),
    ] {
        let bad = format!(r#"{{"arn":"t/bad","desiredStatus":"RUNNING",{members}}}"#);
        let (tasks, intact, note) = outcomes(&format!("{bad},{good}"));
        assert!(
            tasks[0].starts_with(&format!("refused bad UnrecogniedTaskError: Error loading task - {why}")),
            "{tasks:?}"
        );
        assert!(!tasks[0].contains("hunter2") && tasks[0].len() < 200, "{tasks:?}");
        assert_eq!((tasks[1].as_str(), intact, note.as_str()), ("run good", false, ""), "{why}");
        // The same task can be stopped.
        let (tasks, intact, _) = outcomes(&bad.replace("RUNNING", "STOPPED"));
        assert_eq!((tasks[0].as_str(), intact), ("stop bad", true), "{why}");
    }
}

#[test]
fn tasks_above_the_limit_are_ignored_and_logged_once() {
    let tasks = |count: usize| {
        (0..count).map(|n| format!(r#"{{"arn":"t/{n}","desiredStatus":"STOPPED"}}"#)).collect::<Vec<_>>()
    };
    let (taken, intact, note) = outcomes(&tasks(MAX_TASKS).join(","));
    assert_eq!((taken.len(), intact, note.as_str()), (MAX_TASKS, true, ""));
    let (taken, intact, note) = outcomes(&tasks(MAX_TASKS + 7).join(","));
    let wanted = "7 tasks of a payload are ignored: it has more than 1000";
    assert_eq!((taken.len(), intact, note.as_str()), (MAX_TASKS, false, wanted));
    let (taken, intact, note) = outcomes(&vec!["0"; 2_000_000].join(","));
    let nameless = "refused  UnrecogniedTaskError: Error loading task - the task has no ARN";
    assert!(taken.len() == MAX_TASKS && taken.iter().all(|task| task == nameless) && !intact);
    assert!(note.starts_with("1999000 tasks"), "{note}");
}

#[test]
fn tasks_with_too_many_containers_are_refused() {
    let task = |name: &str, containers: usize, status: &str| {
        let containers: Vec<_> = (0..containers).map(|n| format!(r#"{{"name":"c{n}","image":"i"}}"#)).collect();
        format!(r#"{{"arn":"t/{name}","desiredStatus":"{status}","containers":[{}]}}"#, containers.join(","))
    };
    let (tasks, intact, _) = outcomes(&[task("a", 100, "RUNNING"), task("b", 101, "RUNNING")].join(","));
    assert_eq!((tasks[0].as_str(), intact), ("run a", true));
    assert_eq!(
        tasks[1],
        "refused b UnrecogniedTaskError: Error loading task - the task has 101 containers, more than 100"
    );
    let all: Vec<_> = (0..101).map(|n| task(&n.to_string(), 100, "RUNNING")).collect();
    let (tasks, ..) = outcomes(&all.join(","));
    assert_eq!(tasks[99], "run 99");
    assert!(tasks[100].ends_with("the tasks of this payload have more than 10000 containers"), "{}", tasks[100]);
    let Incoming::Payload { tasks, .. } = delivered(&payload_of(&task("s", 300, "STOPPED"))) else {
        panic!("no payload")
    };
    assert!(matches!(&tasks[0], ReceivedTask::Stop(_, names) if names.len() == 100), "{tasks:?}");
}

#[test]
fn the_length_of_ids_is_limited() {
    let long = "x".repeat(MAX_ID + 1);
    for text in [
        format!(r#"{{"type":"HeartbeatMessage","message":{{"messageId":"{long}"}}}}"#),
        format!(r#"{{"type":"TaskManifestMessage","message":{{"clusterArn":"{long}"}}}}"#),
    ] {
        let Frame::Drop(why) = decode(&text) else { panic!("not dropped") };
        assert!(why.ends_with("has 2049 bytes, more than 2048"), "{why}");
    }
    let (tasks, intact, _) = outcomes(&format!(r#"{{"arn":"{long}","desiredStatus":"STOPPED"}}"#));
    assert_eq!(
        (tasks[0].as_str(), intact),
        ("refused  UnrecogniedTaskError: Error loading task - the task has no ARN", false)
    );
    let role = |id: &str| {
        let role = json!({"credentialsId": id, "roleArn": "r", "expiration": "x".repeat(MAX_TEXT)});
        json!({"type": "IAMRoleCredentialsMessage", "message": {"messageId": "m", "taskArn": "t", "roleType": "TaskExecution",
            "roleCredentials": role}})
        .to_string()
    };
    let Frame::Drop(why) = decode(&role("id")) else { panic!("not dropped") };
    assert!(why.contains("bytes, more than 1048576"), "{why}");
    let Frame::Invalid(why) = decode(&role(&long).replace(&"x".repeat(MAX_TEXT), "")) else { panic!("not refused") };
    assert!(why.contains("credentialsId has 2049 bytes, more than 2048"), "{why}");
}

#[test]
fn the_number_of_listed_tasks_is_limited() {
    let list = |count: usize| vec![json!({"taskArn": "t", "desiredStatus": "RUNNING"}); count];
    let manifest = |tasks: &[Value]| {
        decode(
            &json!({"type": "TaskManifestMessage", "message": {"messageId": "m", "timeline": 1.0, "tasks": tasks}})
                .to_string(),
        )
    };
    assert!(matches!(manifest(&list(MAX_LISTED)), Frame::Deliver(Incoming::Manifest { timeline: 1, .. }, None)));
    let Frame::Invalid(why) = manifest(&list(MAX_LISTED + 1)) else { panic!("half a manifest would stop tasks") };
    assert_eq!(why, "TaskManifestMessage: it names more than 10000 tasks");
    let Frame::Drop(why) = manifest(&[json!({"taskArn": "a"}), json!({"taskArn": 7})]) else {
        panic!("half a manifest")
    };
    assert_eq!(why, "TaskManifestMessage: json: cannot unmarshal number into tasks[1].taskArn, a string is expected");
    let stops = |tasks: &[Value]| {
        let text =
            json!({"type": "TaskStopVerificationAck", "message": {"messageId": "m", "stopTasks": tasks}}).to_string();
        match decode(&text) {
            Frame::Deliver(Incoming::StopVerificationAck { tasks, .. }, note) => {
                (tasks.len(), note.unwrap_or_default())
            }
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(stops(&list(MAX_LISTED)), (MAX_LISTED, String::new()));
    let wanted = "2 tasks to stop are ignored: the message names more than 10000";
    assert_eq!(stops(&list(MAX_LISTED + 2)), (MAX_LISTED, wanted.to_owned()));
    let (taken, note) = stops(&[json!(7), json!({"taskArn": "t"}), json!("x"), json!([])]);
    assert_eq!(taken, 1);
    let wanted = "a task to stop cannot be read: json: cannot unmarshal number into stopTasks[0], an object is expected; neither can 2 more";
    assert_eq!(note, wanted);
}

#[test]
fn bytes_that_are_not_utf_8_are_replaced() {
    let mut bytes = br#"{"type":"HeartbeatMessage","message":{"messageId":"a"#.to_vec();
    bytes.extend(b"\xffb\xf0\x9f\"}}");
    let Frame::Heartbeat(answer, Incoming::Heartbeat) = decode_bytes(&bytes) else { panic!("no answer") };
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(answer["message"]["messageId"], "a\u{fffd}b\u{fffd}");
}

#[test]
fn a_reason_is_one_bounded_line() {
    let name = "a\\n".repeat(10_000);
    let container = format!(r#"{{"name":"a","image":"i","portMappings":[{{"containerPort":1,"protocol":"{name}"}}]}}"#);
    let task = format!(r#"{{"arn":"t/1","desiredStatus":"RUNNING","containers":[{container}]}}"#);
    let (tasks, ..) = outcomes(&task);
    assert!(tasks[0].len() < 4_200 && !tasks[0].contains('\n') && tasks[0].ends_with("[cut]"), "{}", tasks[0].len());
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
        // A message with a changed or missing byte, and one that is cut off, do not panic either.
        let mut bytes = text.into_bytes();
        let at = cut.index(bytes.len());
        bytes[at] = byte;
        let _changed = decode_bytes(&bytes);
        bytes.remove(at);
        let _shorter = decode_bytes(&bytes);
        bytes.truncate(at);
        let _cut_off = decode_bytes(&bytes);
    }
}
