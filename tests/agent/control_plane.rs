//! A control plane that is late, repeats messages, loses answers, fails and goes away: each task runs once and is reported once.

use super::rig::{FOREVER, Plan, Rig, WHOLE_LIFE, one_container};
use ecs_local::{Delivery, Fault, Source, State, TaskStatus};
use serde_json::json;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn a_payload_that_comes_late_twice_or_out_of_order_is_one_task() {
    let plan = Plan { options: Some(|options, _| options.redeliver = Duration::from_millis(500)), ..Plan::default() };
    let Some(rig) = Rig::start("delivery", plan).await else { return };
    let image = rig.image();
    let ways = [
        ("twice", Delivery { duplicate: true, ..Delivery::default() }),
        ("late", Delivery { delay: Duration::from_secs(1), ..Delivery::default() }),
        ("out of order", Delivery { reorder: true, ..Delivery::default() }),
        ("acknowledgement lost", Delivery { lose_acks: 2, ..Delivery::default() }),
    ];
    let mut tasks = Vec::new();
    for (way, delivery) in ways {
        rig.server.set_delivery(delivery);
        let both = ["exit 1", "exit 2"].map(|command| rig.server.run_task(&one_container(&image, command)).unwrap());
        for (code, arn) in (1..).zip(both) {
            let task = rig.task(&arn, TaskStatus::Stopped).await;
            assert_eq!(task.container("main").unwrap().exit_code, Some(code), "{way}");
            tasks.push((way, arn));
        }
    }
    for (way, arn) in &tasks {
        assert_eq!(rig.statuses(arn), WHOLE_LIFE, "{way}");
    }
    assert_eq!(rig.containers().len(), tasks.len(), "one container for each task");
}

fn closes(state: &State) -> usize {
    state.records().filter(|record| record.source == Source::AcsClose).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_when_sockets_are_cut_at_any_time() {
    let Some(rig) = Rig::start("cut sockets", Plan::default()).await else { return };
    let image = rig.image();
    let mut tasks = Vec::new();
    for code in 1..=6 {
        tasks.push((code, rig.server.run_task(&one_container(&image, &format!("exit {code}"))).unwrap()));
        // At another point of the tasks' lives each time: after the next report.
        let reported = rig.server.submissions().len();
        rig.wait("a report", |state| (state.submissions().count() > reported).then_some(())).await;
        let before = rig.server.read(closes);
        if code % 2 == 0 {
            rig.server.drop_sockets()
        } else {
            rig.server.close_acs(1000, "ConnectionExpired")
        }
        rig.wait("the connection to end", |state| (closes(state) > before).then_some(())).await;
        rig.registered().await;
    }
    for (code, arn) in tasks {
        let task = rig.task(&arn, TaskStatus::Stopped).await;
        assert_eq!(task.container("main").unwrap().exit_code, Some(code));
        assert_eq!(rig.statuses(&arn), WHOLE_LIFE);
    }
    assert_eq!(rig.containers().len(), 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn reports_reach_ecs_once_and_in_order_whatever_fails() {
    let Some(rig) = Rig::start("failing reports", Plan::default()).await else { return };
    let image = rig.image();
    let unavailable = Fault::Error(503, "ServiceUnavailableException".into(), "later".into());
    for (code, count, fault) in [
        (1, 4, Fault::Throttle),
        (2, 4, Fault::ServerError),
        (3, 2, unavailable),
        (4, 2, Fault::Malformed),
        (5, 2, Fault::Slow(Duration::from_secs(1))),
        (6, 2, Fault::Drop),
        (7, 1, Fault::AccessDenied),
    ] {
        rig.server.fail_next("SubmitTaskStateChange", count, &fault);
        rig.lives_once(&image, code, &format!("{fault:?}")).await;
    }
    // The report arrived, but the agent cannot know: it sends the report again, and no later report comes before it.
    rig.server.fail_next("SubmitTaskStateChange", 1, &Fault::LoseAnswer);
    let arn = rig.server.run_task(&one_container(&image, "exit 8")).unwrap();
    rig.task(&arn, TaskStatus::Stopped).await;
    let mut reported = rig.statuses(&arn);
    assert_eq!(reported.len(), 4, "{reported:?}");
    reported.dedup();
    assert_eq!(reported, WHOLE_LIFE);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_stop_is_found_by_the_manifest() {
    let Some(rig) = Rig::start("manifest", Plan::default()).await else { return };
    let image = rig.image();
    let [lost, kept] = [(); 2].map(|()| rig.server.run_task(&one_container(&image, FOREVER)).unwrap());
    for arn in [&lost, &kept] {
        rig.task(arn, TaskStatus::Running).await;
    }
    rig.server.set_delivery(Delivery { delay: Duration::from_secs(600), ..Delivery::default() });
    rig.server.stop_task(&lost, "the agent does not receive this").unwrap();
    let (instance, cluster) = rig.server.read(|state| {
        let instance = &state.instances()[0];
        (instance.arn.clone(), instance.cluster.clone())
    });
    let manifest = json!({
        "messageId": "manifest", "timeline": i64::from(u32::MAX), "clusterArn": cluster, "containerInstanceArn": instance,
        "tasks": [{"taskArn": kept, "taskClusterArn": cluster, "desiredStatus": "RUNNING"}],
    });
    rig.server.send_message("TaskManifestMessage", manifest).unwrap();
    let task = rig.task(&lost, TaskStatus::Stopped).await;
    assert_eq!(task.container("main").unwrap().exit_code, Some(0));
    let asked: Vec<_> = rig.server.read(|state| state.acs_messages("TaskStopVerificationMessage").cloned().collect());
    let asked = asked.iter().find(|message| message["messageId"] == "manifest").unwrap();
    assert_eq!(asked["stopCandidates"].as_array().unwrap().len(), 1, "{asked}");
    assert_eq!(rig.statuses(&kept), ["PENDING", "RUNNING"], "tasks in the manifest keep running");
}

#[tokio::test(flavor = "multi_thread")]
async fn renewed_credentials_are_acknowledged() {
    let Some(rig) = Rig::start("credentials", Plan::default()).await else { return };
    let mut definition = one_container(&rig.image(), FOREVER);
    definition["executionRoleArn"] = json!("arn:aws:iam::123456789012:role/exec");
    let arn = rig.server.run_task(&definition).unwrap();
    rig.task(&arn, TaskStatus::Running).await;
    assert_eq!(rig.server.refresh_credentials(&arn), Ok(1));
    let sent = rig
        .wait("the credentials to be sent", |state| {
            let sent = |r: &&ecs_local::Record| r.source == Source::AcsOut && r.name == "IAMRoleCredentialsMessage";
            state.records().rfind(sent).map(|record| record.body.clone())
        })
        .await;
    let acknowledged = |state: &State| {
        let mut acks = state.acs_messages("IAMRoleCredentialsAckRequest");
        acks.find(|ack| ack["messageId"] == sent["messageId"]).cloned()
    };
    let ack = rig.wait("the acknowledgement", acknowledged).await;
    assert_eq!(ack["credentialsId"], sent["roleCredentials"]["credentialsId"]);
    assert_eq!(ack["expiration"], sent["roleCredentials"]["expiration"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn nonsense_is_ignored_and_the_connection_kept() {
    let Some(rig) = Rig::start("nonsense", Plan::default()).await else { return };
    for text in [
        "",
        "not JSON",
        "{}",
        "[]",
        "null",
        r#"{"type":5}"#,
        r#"{"type":"PayloadMessage"}"#,
        "{\"type\":\"x\",\"message\":",
    ] {
        rig.server.send_text(text).unwrap();
    }
    rig.server.send_message("NobodyKnowsThis", json!({"messageId": "1"})).unwrap();
    rig.server.send_message("PayloadMessage", json!({"messageId": "2", "tasks": 7})).unwrap();
    rig.server.send_message("IAMRoleCredentialsMessage", json!({"messageId": "3"})).unwrap();
    rig.server.send_message("TaskManifestMessage", json!({"messageId": "4", "tasks": "all"})).unwrap();
    rig.lives_once(&rig.image(), 4, "after invalid messages").await;
    assert_eq!(rig.server.read(closes), 0, "the first connection is still open");
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_leaves_tasks_running_and_the_next_start_finds_them() {
    let Some(mut rig) = Rig::start("sigterm", Plan::default()).await else { return };
    let arn = rig.server.run_task(&one_container(&rig.image(), FOREVER)).unwrap();
    let task = rig.task(&arn, TaskStatus::Running).await;
    let id = task.container("main").unwrap().runtime_id.clone().unwrap();
    assert_eq!(rig.terminate().code(), Some(0));
    assert_eq!(ecs_testing::docker::inspect(&id)["State"]["Running"], true);
    rig.start_agent();
    rig.registered().await;
    let shown = rig.introspect(&format!("/v1/tasks?taskarn={arn}")).await;
    assert_eq!(shown["KnownStatus"], "RUNNING");
    assert_eq!(shown["Containers"][0]["DockerId"], id.as_str());
    assert_eq!(rig.statuses(&arn), ["PENDING", "RUNNING"], "nothing is reported twice");
    assert_eq!(rig.server.read(|state| state.instances().len()), 1, "the same container instance");
    rig.server.stop_task(&arn, "enough").unwrap();
    rig.task(&arn, TaskStatus::Stopped).await;
    assert_eq!(rig.statuses(&arn), WHOLE_LIFE);
}
