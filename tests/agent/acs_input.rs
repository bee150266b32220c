//! Messages that ACS should not send, to the real agent, while a real task runs.

use super::rig::{FOREVER, LIMIT, Plan, Rig, one_container};
use ecs_local::{Source, State, TaskStatus};
use ecs_testing::corpus::cases;
use ecs_testing::wait::until;
use serde_json::{Value, json};

/// The number of messages of a flood.
const MANY: usize = 10_000;

/// Sends text. Waits while the server's queue is full.
async fn send(rig: &Rig, text: &str) {
    until("room in the queue", LIMIT, async || rig.server.send_text(text).ok()).await;
}

fn is_received(state: &State, kind: &str, body: &Value) -> bool {
    state.acs_messages(kind).any(|message| message == body)
}

fn closes(state: &State) -> usize {
    state.records().filter(|record| record.source == Source::AcsClose).count()
}

/// Runs a task to its end, with this exit code, while the messages come.
async fn run_task_to_end(rig: &Rig, image: &str, code: i64) {
    let arn = rig.server.run_task(&one_container(image, &format!("exit {code}"))).unwrap();
    let task = rig.task(&arn, TaskStatus::Stopped).await;
    assert_eq!(task.container("main").unwrap().exit_code, Some(code));
}

/// All reports about the task whose ARN ends with `name`. The control plane may not know the task.
fn reports(rig: &Rig, name: &str) -> Vec<Value> {
    let is_report = |body: &Value| body["task"].as_str().is_some_and(|arn| arn.ends_with(&format!("/{name}")));
    rig.server.submissions().into_iter().map(|record| record.body).filter(is_report).collect()
}

/// Waits for the expected result of a case of the corpus.
async fn outcome(rig: &Rig, case: &Value) {
    let about = case["about"].as_str().unwrap();
    if let Some(kind) = case["answer"]["type"].as_str() {
        rig.wait(about, |state| is_received(state, kind, &case["answer"]["message"]).then_some(())).await;
    }
    let id = &case["message"]["message"]["messageId"];
    if case["acknowledged"] == true {
        rig.wait(about, |state| state.acs_messages("AckRequest").any(|ack| ack["messageId"] == *id).then_some(()))
            .await;
    }
    for task in case["tasks"].as_array().into_iter().flatten() {
        let mut words = task.as_str().unwrap().splitn(3, ' ');
        let (fate, name, reason) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap_or_default());
        if fate == "later" || name.is_empty() {
            assert!(reports(rig, name).is_empty() || name.is_empty(), "{about}");
            continue;
        }
        let stopped = async || reports(rig, name).into_iter().find(|body| body["status"] == "STOPPED");
        let body = until(about, LIMIT, stopped).await;
        assert!(body["reason"].as_str().unwrap_or_default().starts_with(reason), "{about}: {body}");
        if let Some(reason) = case["reason"].as_str() {
            assert!(
                body["containers"][0]["reason"].as_str().unwrap_or_default().starts_with(reason),
                "{about}: {body}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_messages_have_their_outcome_and_the_rest_goes_on() {
    let Some(rig) = Rig::start("odd messages", Plan::default()).await else { return };
    let image = rig.image();
    let cases = cases();
    for case in &cases {
        let text = case["text"].as_str().map_or_else(|| case["message"].to_string(), str::to_owned);
        send(&rig, &text.replace("IMAGE", &image)).await;
    }
    for case in &cases {
        outcome(&rig, case).await;
    }
    run_task_to_end(&rig, &image, 4).await;
    // Once more, as ECS does with messages that were not acknowledged, and in reverse order: nothing happens twice.
    let before = reports(&rig, "good-1");
    for case in cases.iter().rev() {
        let text = case["text"].as_str().map_or_else(|| case["message"].to_string(), str::to_owned);
        send(&rig, &text.replace("IMAGE", &image)).await;
    }
    run_task_to_end(&rig, &image, 5).await;
    assert_eq!(reports(&rig, "good-1"), before);
    for case in cases.iter().filter(|case| case["acknowledged"] == false || case["answer"].is_null()) {
        let id = &case["message"]["message"]["messageId"];
        let unwanted =
            |kind| rig.server.read(|state| state.acs_messages(kind).any(|message| message["messageId"] == *id));
        if case["acknowledged"] != true && id.is_string() {
            let about = &case["about"];
            assert!(!unwanted("AckRequest") && !unwanted("IAMRoleCredentialsAckRequest"), "{about}");
        }
    }
    assert_eq!(rig.server.read(closes), 0, "the first connection is still open");
    let log = rig.log();
    for secret in ["AKIDCORPUS", "corpus-secret", "corpus-token"] {
        assert!(!log.contains(secret), "{secret} in the log");
    }
}

/// The peak memory of the agent, in KiB.
fn peak_kib(rig: &Rig) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", rig.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// A message that is too long, and ten thousand messages in a row.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_costs_neither_memory_nor_tasks() {
    let Some(rig) = Rig::start("flood", Plan::default()).await else { return };
    let image = rig.image();
    run_task_to_end(&rig, &image, 1).await;
    let before = peak_kib(&rig);

    send(&rig, &"x".repeat(20 * 1024 * 1024)).await;
    rig.wait("the connection to end", |state| (closes(state) > 0).then_some(())).await;
    rig.registered().await;
    let complaints = rig.log().lines().filter(|line| line.contains("too long")).count();
    assert_eq!(complaints, 1, "one clear error");
    run_task_to_end(&rig, &image, 2).await;

    let (instance, cluster) = rig.server.read(|state| {
        let instance = &state.instances()[0];
        (instance.arn.clone(), instance.cluster.clone())
    });
    for number in 0..MANY {
        let header =
            json!({"messageId": format!("flood {number}"), "clusterArn": cluster, "containerInstanceArn": instance});
        let mut body = header;
        let kind = ["PayloadMessage", "HeartbeatMessage", "TaskManifestMessage", "Nonsense"][number % 4];
        body["tasks"] = json!([]);
        body["timeline"] = json!(-1);
        send(&rig, &json!({"type": kind, "message": body}).to_string()).await;
    }
    let last = format!("flood {}", MANY - 4);
    rig.wait("the last payload's answer", |state| {
        state.acs_messages("AckRequest").any(|ack| ack["messageId"] == last.as_str()).then_some(())
    })
    .await;
    run_task_to_end(&rig, &image, 3).await;
    let grown = peak_kib(&rig).saturating_sub(before); // the kernel counts in batches
    assert!(grown < 64 * 1024, "{grown} KiB more");
    let log = rig.log();
    let dropped = log.lines().filter(|line| line.contains("a message of ACS was dropped")).count();
    assert!((1..100).contains(&dropped), "{dropped} lines about invalid messages");
}

/// A payload of almost 4 MiB that holds as many of `task` as fit.
fn full_payload(rig: &Rig, id: &str, task: impl Fn(usize) -> String) -> String {
    let (instance, cluster) = rig.server.read(|state| {
        let instance = &state.instances()[0];
        (instance.arn.clone(), instance.cluster.clone())
    });
    let room = 4 * 1024 * 1024 - 1024;
    let (mut tasks, mut number) = (task(0), 1);
    loop {
        let next = task(number);
        if tasks.len() + next.len() >= room {
            break;
        }
        tasks = tasks + "," + &next;
        number += 1;
    }
    format!(
        r#"{{"type":"PayloadMessage","message":{{"messageId":"{id}","clusterArn":"{cluster}","containerInstanceArn":"{instance}","tasks":[{tasks}]}}}}"#
    )
}

/// Waits until the agent has handled all earlier messages.
async fn caught_up(rig: &Rig, id: &str) {
    send(rig, &json!({"type": "HeartbeatMessage", "message": {"messageId": id}}).to_string()).await;
    rig.wait(id, |state| is_received(state, "HeartbeatAckRequest", &json!({"messageId": id})).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_full_message_costs_neither_memory_nor_log() {
    let Some(rig) = Rig::start("full message", Plan::default()).await else { return };
    let image = rig.image();
    run_task_to_end(&rig, &image, 1).await;
    type Task = fn(usize) -> String;
    let table: [(&str, Task); 4] = [
        ("zeros", |_| "0".to_owned()),
        ("stops", |number| format!(r#"{{"arn":"t/{number}","desiredStatus":"STOPPED"}}"#)),
        ("waits", |number| format!(r#"{{"arn":"w/{number}","containers":[{{"name":"a"}}]}}"#)),
        ("lists", |_| format!("[{}0]", "{\"\":0},".repeat(10_000))),
    ];
    for (name, task) in table {
        let (memory, log) = (peak_kib(&rig), rig.log().len());
        send(&rig, &full_payload(&rig, name, task)).await;
        caught_up(&rig, name).await;
        run_task_to_end(&rig, &image, 2).await;
        let memory = peak_kib(&rig).saturating_sub(memory); // the kernel counts in batches
        let log = rig.log().len() - log;
        eprintln!("{name}: {memory} KiB of memory, {log} bytes of log");
        assert!(memory < 48 * 1024, "{name}: {memory} KiB more");
        assert!(log < 1024 * 1024, "{name}: {log} bytes of log");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deregistered_instance_keeps_its_tasks() {
    let Some(rig) = Rig::start("deregistered", Plan::default()).await else { return };
    let arn = rig.server.run_task(&one_container(&rig.image(), FOREVER)).unwrap();
    let task = rig.task(&arn, TaskStatus::Running).await;
    let id = task.container("main").unwrap().runtime_id.clone().unwrap();
    let instance = rig.server.read(|state| state.instances()[0].arn.clone());
    let body = json!({"cluster": rig.cluster.name, "containerInstance": instance, "force": true});
    rig.server.call("DeregisterContainerInstance", &body).unwrap();
    until("the log to say so", LIMIT, async || rig.log().contains("Container instance is deregistered").then_some(()))
        .await;
    let attempts = rig.log().lines().filter(|line| line.contains("Failed to connect to ACS")).count();
    assert_eq!(attempts, 1, "the next attempt is in an hour");
    assert_eq!(ecs_testing::docker::inspect(&id)["State"]["Running"], true);
    let shown = rig.introspect(&format!("/v1/tasks?taskarn={arn}")).await;
    assert_eq!(shown["KnownStatus"], "RUNNING");
}
