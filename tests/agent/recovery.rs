//! Changes that people make to containers while no agent runs, and the next agent's reports about them, with a real Docker.
//! `src/core/tests/sim/recovery.rs` has every combination of stored state and change.

use super::rig::{FOREVER, LIMIT, Plan, Rig, one_container};
use ecs_local::TaskStatus;
use ecs_testing::docker::{docker, inspect, unique};
use ecs_testing::wait::until;
use serde_json::Value;

/// One task that runs: its ARN and its container's id.
struct Ran {
    arn: String,
    id: String,
}

async fn run(rig: &Rig, image: &str) -> Ran {
    let arn = rig.server.run_task(&one_container(image, FOREVER)).unwrap();
    let task = rig.task(&arn, TaskStatus::Running).await;
    Ran { arn, id: task.container("main").unwrap().runtime_id.clone().unwrap() }
}

/// The exit code and reason that were reported to ECS.
async fn end(rig: &Rig, ran: &Ran) -> (Option<i64>, Option<String>) {
    let task = rig.task(&ran.arn, TaskStatus::Stopped).await;
    let container = task.container("main").unwrap();
    (container.exit_code, container.reason.clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_to_containers_while_no_agent_runs_are_reported() {
    let environment = [("ECS_ENGINE_TASK_CLEANUP_WAIT_DURATION", "2s"), ("ECS_CONTAINER_STOP_TIMEOUT", "2s")];
    let Some(mut rig) = Rig::start("recovery", Plan { environment: &environment, ..Plan::default() }).await else {
        return;
    };
    let image = rig.image();
    let (untouched, gone, ended) = (run(&rig, &image).await, run(&rig, &image).await, run(&rig, &image).await);
    let (restarted, renamed, paused) = (run(&rig, &image).await, run(&rig, &image).await, run(&rig, &image).await);
    rig.kill();
    docker(&["rm", "--force", &gone.id]);
    docker(&["kill", "--signal", "TERM", &ended.id]);
    docker(&["restart", "--time", "5", &restarted.id]);
    docker(&["rename", &renamed.id, &unique("renamed")]);
    docker(&["pause", &paused.id]);
    // Somebody's container with labels like ours. Its name and its label of the task are not this agent's.
    let cluster = format!("com.amazonaws.ecs.cluster={}", rig.cluster.name);
    let labels =
        ["com.amazonaws.ecs.task-arn=arn:aws:ecs:r:1:task/c/1", "com.amazonaws.ecs.container-name=main", &cluster];
    let stranger =
        docker(&["create", "--label", labels[0], "--label", labels[1], "--label", labels[2], &image, "true"]);
    until("the container to end", LIMIT, async || (inspect(&ended.id)["State"]["Running"] == false).then_some(()))
        .await;

    rig.start_agent();
    rig.registered().await;
    let missing = "ContainerVanishedError: No container matching saved ID found";
    assert_eq!(end(&rig, &gone).await, (None, Some(missing.to_owned())));
    assert_eq!(end(&rig, &ended).await, (Some(0), None));
    // The others are unchanged: nothing is reported about them, and they can be stopped as ever.
    for ran in [&untouched, &restarted, &renamed, &paused] {
        let reported: Vec<Value> = rig.reports(&ran.arn);
        assert!(reported.iter().all(|report| report["status"] != "STOPPED"), "{reported:#?}");
        assert_eq!(inspect(&ran.id)["State"]["Running"], true, "it runs on");
    }
    docker(&["unpause", &paused.id]);
    for ran in [&untouched, &restarted, &renamed, &paused] {
        rig.server.stop_task(&ran.arn, "end of the test").unwrap();
        assert_eq!(end(&rig, ran).await.0, Some(0));
        let mut reported = rig.statuses(&ran.arn);
        reported.dedup();
        assert_eq!(reported, ["PENDING", "RUNNING", "STOPPED"]);
    }
    let left = async || (rig.containers().len() == 1).then_some(());
    until("all but the stranger's container to be removed", LIMIT, left).await;
    assert_eq!(inspect(stranger.trim())["State"]["Status"], "created", "the stranger's is left alone");
    docker(&["rm", stranger.trim()]);
}
