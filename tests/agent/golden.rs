//! The agent's calls, messages and metadata requests, compared with the recordings of the Go agent. Docker's part is in
//! `golden_docker`.

use super::difference::Kind::{Any, Extra, MayBeExtra, Missing, Value as Other};
use super::difference::{Allowed, RECORDED_ENGINE, assert_same, by_name, golden, same_order};
use super::recorded_task::{Life, TASK, life};
use ecs_local::{Record, Source};
use ecs_testing::docker::engine_major;
use serde_json::{Value, json};

/// The attributes of a body, by name.
fn attributes(body: &Value) -> Value {
    by_name(&body["attributes"], |attribute| (attribute["name"].as_str().unwrap().to_owned(), attribute.clone()))
}

/// A registration with its attributes by name.
fn registration(body: &Value) -> Value {
    let mut body = body.clone();
    body["attributes"] = attributes(&body);
    body
}

const REGISTRATION: &[Allowed] = &[
    ("clientToken", Other, "random"),
    (
        "instanceIdentityDocument",
        Other,
        "verbatim what the metadata service returned (checked separately); that is a stand-in",
    ),
    ("instanceIdentityDocumentSignature", Other, "the same"),
    ("totalResources/0/integerValue", Any, "CPUs of this host (checked separately)"),
    ("totalResources/1/integerValue", Any, "memory of this host (checked separately)"),
    ("attributes/ecs.capability.pid-ipc-namespace-sharing", Extra, "the recorded agent had no pause image"),
    ("attributes/ecs.capability.fault-injection", MayBeExtra, "the recorded host had no module sch_netem"),
    ("attributes/ecs-agent.implementation", Extra, "it distinguishes this agent's instances from the Go agent's"),
    (
        "attributes/ecs-agent.version",
        Extra,
        "the version of this program, in addition to the version of the Go agent that it replaces",
    ),
    ("attributes/ecs.capability.aws-appmesh", Missing, "proxy configurations are refused in this version"),
    ("attributes/ecs.capability.storage.s3-files", Missing, "such volumes are refused in this version"),
    ("attributes/ecs.capability.storage.ebsta-non-root-user", Missing, "attachments are refused in this version"),
    ("attributes/ecs.capability.ipv6-only", Missing, "instances with only IPv6 are not supported in this version"),
];

/// Headers of a signed call.
const HEADERS: &[Allowed] = &[
    ("amz-sdk-invocation-id", Other, "random"),
    ("x-amz-date", Other, "now"),
    ("authorization", Other, "day, signature and signed headers (checked separately)"),
    ("content-length", Any, "the bodies differ"),
    ("user-agent", Other, "the commit of this agent (checked separately)"),
    ("accept-encoding", Missing, "answers are a few hundred bytes; compression is not asked for"),
];

fn lower(headers: &Value) -> Value {
    let pairs = headers.as_object().unwrap().iter();
    pairs.map(|(name, value)| (name.to_lowercase(), value.clone())).collect::<serde_json::Map<_, _>>().into()
}

fn headers_are_recorded(life: &Life, name: &str, record: &Record, also: &[Allowed]) {
    let (recorded, ours) = (lower(&golden(name)["headers"]), life.renamed(&json!(record.headers)));
    let allowed: Vec<_> = HEADERS.iter().chain(also).copied().collect();
    assert_same(&format!("{name}: headers"), &recorded, &ours, &allowed);
    let agent = ours["user-agent"].as_str().unwrap();
    assert!(agent.starts_with("Amazon ECS Agent - v1.105.1 ("), "{agent}");
    assert!(agent.ends_with(" (linux; LINUX) (+http://aws.amazon.com/ecs/)"), "{agent}");
    let authorization = ours["authorization"].as_str().unwrap();
    assert!(authorization.starts_with("AWS4-HMAC-SHA256 Credential=ASIA"), "{authorization}");
    assert!(authorization.contains("/us-west-2/ecs/aws4_request, SignedHeaders="), "{authorization}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_registration_is_the_recorded_one() {
    let Some(life) = life().await else { return };
    let [first, again] = life.calls("RegisterContainerInstance")[..] else { panic!("registered twice") };
    let recorded = golden("register_container_instance");
    let ours = life.renamed(&first.body);
    assert_same("first registration", &registration(&recorded["body"]), &registration(&ours), REGISTRATION);
    headers_are_recorded(life, "register_container_instance", first, &[]);
    let order = |body: &Value| -> Vec<Value> {
        body["attributes"].as_array().unwrap().iter().map(|attribute| attribute["name"].clone()).collect()
    };
    let (recorded_order, our_order) = (order(&recorded["body"]), order(&ours));
    let common = |names: &[Value], others: &[Value]| -> Vec<Value> {
        names.iter().filter(|name| others.contains(name)).cloned().collect()
    };
    let kept = common(&recorded_order, &our_order);
    assert_eq!(common(&our_order, &recorded_order), kept, "the attributes are in the recorded order");
    assert_eq!(ours["instanceIdentityDocument"], life.document.as_str());
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let mask = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed:")).unwrap();
    let cpus: u32 = mask.trim().split(',').map(|word| u32::from_str_radix(word, 16).unwrap().count_ones()).sum();
    assert_eq!(ours["totalResources"][0]["integerValue"], cpus * 1024);
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap();
    let kib: u64 = memory.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert_eq!(ours["totalResources"][1]["integerValue"], kib / 1024);

    let recorded = golden("reregister_container_instance");
    let ours = life.renamed(&again.body);
    assert_same("second registration", &registration(&recorded["body"]), &registration(&ours), REGISTRATION);
    assert_ne!(first.body["clientToken"], again.body["clientToken"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_poll_endpoint_is_asked_for_as_recorded() {
    let Some(life) = life().await else { return };
    let [first, after_restart] = life.calls("DiscoverPollEndpoint")[..] else { panic!("once for each process") };
    let recorded = golden("discover_poll_endpoint");
    const ZONE: &[Allowed] =
        &[("zoneId", Other, "this agent sends the zone that it read; the Go agent reads the zone and sends nothing")];
    for call in [first, after_restart] {
        assert_same("DiscoverPollEndpoint", &recorded["body"], &life.renamed(&call.body), ZONE);
        headers_are_recorded(life, "discover_poll_endpoint", call, &[]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_websocket_is_opened_as_recorded() {
    let Some(life) = life().await else { return };
    let connects: Vec<_> = life.records.iter().filter(|record| record.source == Source::AcsConnect).collect();
    let [first, reconnect, after_restart] = connects[..] else { panic!("{} connections", connects.len()) };
    let recorded = golden("acs_connect");
    const QUERY: &[Allowed] = &[("agentHash", Other, "the commit of this agent")];
    for (connect, credentials) in [(first, "true"), (reconnect, "false"), (after_restart, "true")] {
        let mut expected = recorded["query"].clone();
        expected["sendCredentials"] = json!(credentials);
        assert_same("query of the handshake", &expected, &life.renamed(&connect.body), QUERY);
    }
    const HANDSHAKE: &[Allowed] = &[
        ("authorization", Other, "the day; the signature is left out of the log"),
        ("sec-websocket-key", Other, "random"),
        ("x-amz-date", Other, "now"),
        ("user-agent", Missing, "the Go agent sends the name of its HTTP library"),
        ("accept", Extra, "the HTTP client adds it"),
    ];
    assert_same(
        "headers of the handshake",
        &lower(&recorded["headers"]),
        &life.renamed(&json!(first.headers)),
        HANDSHAKE,
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_ecs_are_answered_as_recorded() {
    let Some(life) = life().await else { return };
    let answer = |kind: &str, id: &str| {
        let mut found: Vec<_> = life.messages(kind).into_iter().filter(|message| message["messageId"] == id).collect();
        assert_eq!(found.len(), 1, "{kind} {id}: {found:?}");
        found.remove(0)
    };
    assert_same("heartbeat", &golden("acs_heartbeat_ack"), &answer("HeartbeatAckRequest", "hb-1"), &[]);
    assert_same("credentials", &golden("acs_credentials_ack"), &answer("IAMRoleCredentialsAckRequest", "cred-1"), &[]);
    assert_same("update", &golden("acs_update_nack")["message"], &answer("NackRequest", "up-1"), &[]);
    let recorded = golden("acs_task_manifest_answer");
    assert_same("manifest", &recorded[0]["message"], &answer("AckRequest", "man-1"), &[]);
    let mut verification = answer("TaskStopVerificationMessage", "man-1");
    // The short tasks that have not ended are in the list too.
    verification["stopCandidates"].as_array_mut().unwrap().retain(|candidate| candidate["taskArn"] == TASK);
    assert_same("stop verification", &recorded[1]["message"], &verification, &[]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_payload_is_acknowledged_as_recorded() {
    let Some(life) = life().await else { return };
    let sent = life.records.iter().find(|record| record.source == Source::AcsOut && record.name == "PayloadMessage");
    let id = sent.unwrap().body["messageId"].clone();
    let answers = ["AckRequest", "IAMRoleCredentialsAckRequest"].map(|kind| {
        let messages = life.messages(kind).into_iter().filter(|message| message["messageId"] == id);
        messages.map(|message| json!({"type": kind, "message": message})).collect::<Vec<_>>()
    });
    let by_type = |list: &Value| {
        by_name(list, |answer| {
            let credentials = answer["message"]["credentialsId"].as_str().unwrap_or_default();
            (format!("{} {credentials}", answer["type"].as_str().unwrap()), answer["message"].clone())
        })
    };
    const ACKS: &[Allowed] = &[("*/messageId", Other, "random, the payload's (checked separately)")];
    assert_same("acknowledgements", &by_type(&golden("acs_payload_acks")), &by_type(&json!(answers.concat())), ACKS);
}

/// A report with its containers by name.
fn report(body: &Value) -> Value {
    let mut body = body.clone();
    for container in body["containers"].as_array_mut().unwrap() {
        if let Some(reason) = container.get("reason").and_then(Value::as_str) {
            container["reason"] = json!(in_any_engines_words(reason));
        }
    }
    body["containers"] = by_name(&body["containers"], |c| (c["containerName"].as_str().unwrap().to_owned(), c.clone()));
    body
}

/// An engine's failure of a start without what differs between engines: newer ones name more steps, and leave out the kind of the
/// error.
fn in_any_engines_words(reason: &str) -> String {
    if engine_major() == RECORDED_ENGINE {
        return reason.to_owned();
    }
    let steps = ["failed to create task for container: ", "error during container init: "];
    let reason = steps.iter().fold(reason.to_owned(), |reason, step| reason.replace(step, ""));
    reason.trim_end_matches(": unknown").to_owned()
}

/// The Go agent makes the report an instant before it begins to pull.
const EARLY: Allowed = ("pullStartedAt", Extra, "the pull begins in the same step in which the digest becomes known");

const TIMES: [Allowed; 3] =
    [("pullStartedAt", Other, "now"), ("pullStoppedAt", Other, "now"), ("executionStoppedAt", Other, "now")];

#[tokio::test(flavor = "multi_thread")]
async fn a_tasks_life_is_reported_as_recorded() {
    let Some(life) = life().await else { return };
    let reports = life.reports(TASK);
    let [pending, running, stopped] = &reports[..] else { panic!("{reports:#?}") };
    let port = ("containers/web/networkBindings/1/hostPort", Any, "chosen by the agent");
    assert_same("PENDING", &report(&golden("submit_task_pending")["body"]), &report(pending), &[EARLY]);
    let allowed = [TIMES[0], TIMES[1], port];
    assert_same("RUNNING", &report(&golden("submit_task_running")["body"]), &report(running), &allowed);
    let allowed = [TIMES[0], TIMES[1], TIMES[2], port];
    assert_same("STOPPED", &report(&golden("submit_task_stopped")["body"]), &report(stopped), &allowed);
    const TRIES: Allowed =
        ("amz-sdk-request", Other, "three attempts by the SDK; the core repeats reports without limit");
    for (name, record) in ["submit_task_pending", "submit_task_running", "submit_task_stopped"]
        .iter()
        .zip(life.calls("SubmitTaskStateChange").into_iter().filter(|call| life.renamed(&call.body)["task"] == TASK))
    {
        headers_are_recorded(life, name, record, &[TRIES]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn short_lives_are_reported_as_recorded() {
    let Some(life) = life().await else { return };
    let arn: Allowed = ("task", Other, "random");
    let id: Allowed = ("containers/main/runtimeId", Other, "random");
    let [started, pulled, stopped] = TIMES;
    let early: Allowed =
        ("containers/main/exitCode", Missing, "the Go agent saw it exit before it reported RUNNING; a matter of time");
    // The registry and the parameter store are asked at the same time.
    const SECRET: &str = "submit_task_stopped_secret_failure";
    let digest: Allowed = ("containers/main/imageDigest", MayBeExtra, "known if the registry answers first");
    let began: Allowed = ("pullStartedAt", MayBeExtra, "likewise");
    let table: [(&str, &[&[Allowed]]); 5] = [
        (
            "submit_task_stopped_exit_code",
            &[&[arn, EARLY], &[arn, id, started, pulled, early], &[arn, id, started, pulled, stopped]],
        ),
        ("submit_task_stopped_start_failure", &[&[arn, EARLY], &[arn, id, started, pulled, stopped]]),
        ("submit_task_stopped_pull_failure", &[&[arn, started, pulled, stopped]]),
        ("submit_task_stopped_pull_refused", &[&[arn, started, pulled, stopped]]),
        (SECRET, &[&[arn, stopped, digest, began]]),
    ];
    for ((name, allowed), arn) in table.iter().zip(&life.short) {
        let recorded = golden(name);
        let (recorded, mut ours) = (recorded.as_array().unwrap(), life.reports(arn));
        if *name == SECRET && ours[0]["status"] == "PENDING" {
            ours.remove(0);
        }
        assert_eq!(recorded.len(), ours.len(), "{name}: {ours:#?}");
        for ((recorded, ours), allowed) in recorded.iter().zip(&ours).zip(*allowed) {
            let mut allowed = allowed.to_vec();
            if ours["containers"][0]["exitCode"] == recorded["containers"][0]["exitCode"] {
                allowed.retain(|(path, kind, _)| (*path, *kind) != (early.0, early.1));
            }
            assert_same(name, &report(recorded), &report(ours), &allowed);
        }
    }
}

/// Kind and name of an event, as in `*.order.json`.
fn recorded_order(name: &str) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let events = golden(name);
    let events = events.as_array().unwrap().iter();
    let joined =
        events.map(|event| format!("{} {} {}", text(&event["kind"]), text(&event["op"]), text(&event["path"])));
    joined.map(|event| event.trim().to_owned()).collect()
}

/// Up to the first event over TCS that begins like this.
fn our_order<'a>(records: impl Iterator<Item = &'a Record>, last: &str) -> Vec<String> {
    let event = |record: &Record| match record.source {
        Source::Imds if record.name == "api/token" => Some("imds token".to_owned()),
        // No part of the start, which may take that long on a busy machine: it comes five seconds later, and only from this agent.
        Source::Imds if record.name == "meta-data/instance-life-cycle" => None,
        Source::Imds => Some(format!("imds get {}", record.name)),
        Source::Api => Some(format!("api {}", record.name)),
        Source::AcsConnect => Some("acs_connect connect".to_owned()),
        Source::AcsClose => Some("acs_close close".to_owned()),
        Source::TcsConnect => Some("tcs_connect connect".to_owned()),
        Source::TcsIn => Some(format!("tcs_msg {}", record.name)),
        _ => None,
    };
    let mut order: Vec<_> = records.filter_map(event).collect();
    let connected = order.iter().position(|event| event == "acs_connect connect").unwrap();
    let after = order.split_off(connected + 1);
    // From here on, calls about tasks come in between.
    order.extend(after.into_iter().filter(|event| event.starts_with("tcs_")));
    let last = order.iter().position(|event| event.starts_with(last)).unwrap();
    order.truncate(last + 1);
    order
}

/// Requests of the Go agent during the start that this version does not make.
const NOT_ASKED: [(&str, &str); 4] = [
    (
        "imds get meta-data/network/interfaces/macs/0a:1b:2c:3d:4e:5f/subnet-id",
        "it is asked only with ECS_ENABLE_TASK_ENI",
    ),
    ("imds get meta-data/outpost-arn", "the outpost attribute is not built"),
    ("acs_connect_attempt connect", "the embedded control plane logs accepted handshakes only"),
    ("tcs_connect_attempt connect", "likewise"),
];

/// Requests that this agent makes at another moment.
const MOVED: [(&str, &str); 2] = [
    ("imds get dynamic/instance-identity/document", "read before the credentials are: the region may come from it"),
    ("imds get dynamic/instance-identity/signature", "the same"),
];

#[tokio::test(flavor = "multi_thread")]
async fn the_agent_starts_in_the_recorded_order() {
    let Some(life) = life().await else { return };
    let mut left_out = NOT_ASKED.to_vec();
    same_order(
        "start",
        &recorded_order("startup.order"),
        &our_order(life.records.iter(), "tcs_msg"),
        &left_out,
        &MOVED,
    );
    left_out.push(("acs_close close", "before the second process starts"));
    left_out.push(("tcs_close close", "before the second process starts"));
    let second = life.records.iter().filter(|record| record.number > life.restart);
    same_order("restart", &recorded_order("restart.order"), &our_order(second, "tcs_connect"), &left_out, &MOVED);
}

/// One line for a call or message about the recorded task, with the status of a report or the credentials of an acknowledgement.
fn event_line(kind: &str, name: &str, body: &Value) -> String {
    let detail = body["status"].as_str().or(body["credentialsId"].as_str()).unwrap_or_default();
    format!("{kind} {name} {detail}").trim().to_owned()
}

/// The recorded payload or stop, and the calls and messages after it.
fn recorded_life(name: &str) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let event = |event: &Value| {
        let detail = if event["status"].is_string() { event } else { &event["body"] };
        event_line(&text(&event["kind"]), &text(&event["op"]), detail)
    };
    golden(name).as_array().unwrap().iter().map(event).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_starts_and_stops_in_the_recorded_order() {
    let Some(life) = life().await else { return };
    let is_payload = |record: &&Record| record.source == Source::AcsOut && record.name == "PayloadMessage";
    let sent = life.records.iter().find(is_payload).unwrap();
    let id = &sent.body["messageId"];
    let ours: Vec<String> = life
        .records
        .iter()
        .filter_map(|record| match record.source {
            Source::AcsOut if record.number == sent.number => Some("ctl acs/send".to_owned()),
            Source::AcsIn if record.body["messageId"] == *id => Some(event_line("acs_msg", &record.name, &record.body)),
            Source::Api if record.name == "SubmitTaskStateChange" && life.renamed(&record.body)["task"] == TASK => {
                Some(event_line("api", &record.name, &record.body))
            }
            _ => None,
        })
        .collect();
    const REORDERED: [(&str, &str); 1] = [(
        "acs_msg IAMRoleCredentialsAckRequest 11111111-2222-3333-4444-555555555555",
        "the Go agent sends the acknowledgements of a payload in any order",
    )];
    const NOT_SENT: [(&str, &str); 5] = [
        (
            "api secretsmanager.GetSecretValue",
            "called at the same time as the pulls, in no fixed order: see golden_aws",
        ),
        ("api ssm.GetParameters", "the same"),
        ("api s3.HEAD", "the same"),
        ("api s3.GET", "the same"),
        ("api ecr.GetAuthorizationToken", "the images are in the test's own registry"),
    ];
    let (start, stop) = ours.split_at(ours.len() - 1);
    same_order("start", &recorded_life("task_start.order"), start, &NOT_SENT, &REORDERED);
    assert_eq!(recorded_life("task_stop.order")[1..], *stop, "one report when all is over");
}

#[test]
fn the_version_is_printed_as_recorded() {
    let recorded = golden("flag_version");
    let ours = std::process::Command::new(env!("CARGO_BIN_EXE_ecs-agent")).arg("-version").output().unwrap();
    assert_eq!(ours.status.code().map(i64::from), recorded["exit_code"].as_i64());
    assert_eq!(String::from_utf8_lossy(&ours.stderr), recorded["stderr"].as_str().unwrap());
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    let (ours, recorded) = (lines(&String::from_utf8_lossy(&ours.stdout)), lines(recorded["stdout"].as_str().unwrap()));
    assert_eq!(ours[..2], recorded[..2]);
    // The commit is this program's, which was built from a clean tree; its own version is in the last line.
    assert!(ours[2].starts_with("\tCommit: ") && ours[3] == "\tDirty: false" && recorded[3] == "\tDirty: true");
    assert!(ours.len() == 5 && ours[4].starts_with("\tProgram: ecs-agent "), "{ours:?}");
}

/// Recordings of features that this version does not have.
const WAITING: &[(&str, &[&str])] = &[];

#[test]
fn every_recording_has_a_test_or_waits_for_its_feature() {
    let top = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut sources, mut folders) = (String::new(), vec![top.join("src"), top.join("tests")]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            match entry.extension().and_then(|extension| extension.to_str()) {
                None if entry.is_dir() => folders.push(entry),
                Some("rs") => sources.push_str(&std::fs::read_to_string(entry).unwrap()),
                _ => {}
            }
        }
    }
    for entry in std::fs::read_dir(top.join("tests/golden")).unwrap() {
        let file = entry.unwrap().file_name().into_string().unwrap();
        let Some(name) = file.strip_suffix(".json") else { continue };
        let is_used = sources.contains(&format!("\"{name}\"")) || sources.contains(&format!("/{file}\""));
        let waits = WAITING.iter().flat_map(|(_, names)| *names).any(|prefix| name.starts_with(prefix));
        assert!(is_used != waits, "{file}: used {is_used}, waiting {waits}");
    }
}
