//! Credentials of a task's two roles while they are renewed: whoever asks has valid ones at each moment.

use super::rig::LIMIT;
use super::roles::{ROLE, Scene, answer, ask_on_host, cloudwatch_logs};
use aws_smithy_types::DateTime;
use aws_smithy_types::date_time::Format;
use ecs_local::TaskStatus;
use ecs_testing::wait::until;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::task::JoinSet;

const EXECUTION_ROLE: &str = "arn:aws:iam::123456789012:role/executionRole";
/// The fewest answers for a role that count as asking all the time, also on a busy machine.
const MIN_ANSWERS: usize = 50;
/// How long credentials are valid.
const LIFETIME: Duration = Duration::from_secs(8);
/// The time between two renewals.
const RENEWAL: Duration = Duration::from_millis(2500);
/// Number of renewals: the first credentials end long before the last one.
const RENEWALS: usize = 6;
/// Asks for the credentials of both roles every 10 ms, from the moment on when the path of the execution role's is known, and writes
/// the answers with their times. Its output makes Docker ask, too.
const ASKS: &str = "until [ -s /path ]; do sleep 0.1; done; other=$(cat /path); \
    ask() { echo \"@@$(date +%s)\"; printf \"GET $1 HTTP/1.0\\r\\n\\r\\n\" | nc -w 9 169.254.170.2 80; }; \
    while :; do ask $AWS_CONTAINER_CREDENTIALS_RELATIVE_URI >>/task; ask $other >>/execution; echo asked; sleep 0.01; done";

/// The keys in the answers that a container has noted. Each answer is a success, with credentials that are valid at its time.
fn keys(noted: &str, role: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    // The last one may be incomplete.
    let (complete, _) = noted.rsplit_once("@@").expect("answers");
    let count = complete.matches("@@").count();
    assert!(count >= MIN_ANSWERS, "{count} answers");
    for entry in complete.split("@@").filter(|text| !text.is_empty()) {
        let (asked, text) = entry.split_once('\n').unwrap();
        let answer = answer(text);
        assert_eq!((answer.status, answer.body["RoleArn"].as_str()), (200, Some(role)), "{entry}");
        let end = DateTime::from_str(answer.body["Expiration"].as_str().unwrap(), Format::DateTime).unwrap();
        assert!(end.secs() >= asked.parse::<i64>().unwrap(), "it has expired: {entry}");
        found.insert(answer.body["AccessKeyId"].as_str().unwrap().to_owned());
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn renewals_of_both_roles_leave_no_gap() {
    let options = |options: &mut ecs_local::Options, _: &_| options.credentials_ttl = LIFETIME;
    let peer_check = [("ECS_CREDENTIALS_PEER_CHECK", "log")];
    let Some(scene) = Scene::start_on("renewals", &peer_check, Some(options)).await else { return };
    let mut server = JoinSet::new();
    let (endpoint, docker_keys) = cloudwatch_logs(&mut server).await;
    let mut container = super::rig::shell("main", &scene.image.reference, ASKS);
    container["logConfiguration"] = json!({"logDriver": "awslogs", "options": {
        "awslogs-group": "g", "awslogs-region": "us-west-2", "awslogs-stream-prefix": "p",
        "awslogs-endpoint": format!("http://{endpoint}"),
    }});
    let definition = json!({
        "family": "renewed", "networkMode": "bridge", "taskRoleArn": ROLE, "executionRoleArn": EXECUTION_ROLE,
        "containerDefinitions": [container],
    });
    let arn = scene.rig.server.run_task(&definition).unwrap();
    let task = scene.rig.task(&arn, TaskStatus::Running).await;
    let id = task.container("main").unwrap().runtime_id.clone().unwrap();
    let config = scene.dockerd.docker(&["inspect", "-f", "{{json .HostConfig.LogConfig.Config}}", &id]).unwrap();
    let config: Value = serde_json::from_str(&config).unwrap();
    let execution = config["awslogs-credentials-endpoint"].as_str().unwrap();
    let own = scene.path(&id);
    until("the first credentials", LIMIT, async || (scene.ask(&id, &own).status == 200).then_some(())).await;
    assert_eq!(ask_on_host(execution).status, 200);

    // They are valid for seconds only, so the container begins after the first renewal.
    let first = scene.ask(&id, &own).body["AccessKeyId"].clone();
    for number in 0..RENEWALS {
        assert_eq!(scene.rig.server.refresh_credentials(&arn), Ok(2));
        if number == 0 {
            let renewed = async || (scene.ask(&id, &own).body["AccessKeyId"] != first).then_some(());
            until("renewed credentials", LIMIT, renewed).await;
            scene.exec(&id, &format!("echo {execution} >/path"));
        }
        tokio::time::sleep(RENEWAL).await;
    }
    let noted = |file: &str| scene.exec(&id, &format!("cat {file}"));
    let (task_keys, execution_keys) = (keys(&noted("/task"), ROLE), keys(&noted("/execution"), EXECUTION_ROLE));
    assert!(task_keys.len() + 1 >= RENEWALS, "{} of the task's role", task_keys.len());
    assert!(execution_keys.len() + 1 >= RENEWALS, "{} of the execution role", execution_keys.len());
    assert!(task_keys.is_disjoint(&execution_keys));
    // Docker signs with newer keys, too.
    let used = async || {
        let used: BTreeSet<String> = docker_keys.lock().unwrap().iter().cloned().collect();
        (used.intersection(&execution_keys).count() >= 2).then_some(())
    };
    until("Docker's calls with renewed keys", LIMIT, used).await;
    scene.rig.server.stop_task(&arn, "end").unwrap();
    scene.rig.task(&arn, TaskStatus::Stopped).await;
}
