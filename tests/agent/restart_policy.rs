//! The restart policy: a container that ends by itself is started again, even if no agent ran when it ended, and no restart is
//! reported.

use super::rig::{FOREVER, LIMIT, Plan, Rig, shell};
use ecs_local::TaskStatus;
use ecs_testing::docker::inspect;
use ecs_testing::wait::until;
use serde_json::{Value, json};

/// A container that is not essential, writes a line to a file at each start, and is restarted if it ran for a second.
fn again(name: &str, image: &str, command: &str, ignored: &[i32]) -> Value {
    let mut container = shell(name, image, &format!("echo started >> /shared/{name}; {command}"));
    container["essential"] = json!(false);
    container["mountPoints"] = json!([{"sourceVolume": "shared", "containerPath": "/shared"}]);
    container["restartPolicy"] = json!({"enabled": true, "ignoredExitCodes": ignored, "restartAttemptPeriod": 1});
    container
}

/// The container restarts even if the agent was killed in between.
#[tokio::test(flavor = "multi_thread")]
async fn a_container_restarts_unless_its_exit_code_is_ignored() {
    let Some(mut rig) = Rig::start("restart policy", Plan::default()).await else { return };
    let image = rig.image();
    let shared = rig.shared("shared");
    // Sent directly: no task definition may ask for so short a period.
    let arn = rig
        .server
        .send_task(json!({
            "family": "test",
            "version": "1",
            "desiredStatus": "RUNNING",
            "networkMode": "bridge",
            "containers": [
                shell("main", &image, FOREVER),
                again("comes-back", &image, "sleep 2; exit 1", &[7]),
                again("stays-away", &image, "sleep 2; exit 7", &[7]),
            ],
            "volumes": [{"name": "shared", "type": "host", "host": {"sourcePath": shared}}],
        }))
        .unwrap();
    let starts = |name: &str| std::fs::read_to_string(shared.join(name)).unwrap_or_default().lines().count();
    let task = rig.task(&arn, TaskStatus::Running).await;
    let id = task.container("comes-back").unwrap().runtime_id.clone().unwrap();
    until("two restarts", LIMIT, async || (starts("comes-back") >= 3).then_some(())).await;

    // While the agent is away nothing restarts the container; when the agent is back, it does.
    rig.kill();
    until("the end of a run", LIMIT, async || (inspect(&id)["State"]["Running"] == false).then_some(())).await;
    let before = starts("comes-back");
    rig.start_agent();
    rig.registered().await;
    until("another restart", LIMIT, async || (starts("comes-back") > before).then_some(())).await;
    assert_eq!(rig.containers().len(), 3, "a restart makes no container: {:?}", rig.containers());

    rig.server.stop_task(&arn, "enough").unwrap();
    let task = rig.task(&arn, TaskStatus::Stopped).await;
    assert_eq!((starts("stays-away"), task.container("stays-away").unwrap().exit_code), (1, Some(7)));
    let statuses =
        rig.reports(&arn).into_iter().flat_map(|body| body["containers"].as_array().cloned().unwrap_or_default());
    let mut statuses: Vec<_> = statuses
        .filter(|change| change["containerName"] == "comes-back")
        .map(|change| change["status"].as_str().unwrap().to_owned())
        .collect();
    statuses.dedup();
    statuses.retain(|status| status != "PENDING");
    assert_eq!(statuses, ["RUNNING", "STOPPED"], "a restart is not reported");
    assert_eq!(inspect(&id)["State"]["Running"], false);
}
