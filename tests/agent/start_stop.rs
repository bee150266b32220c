//! One task, end to end: run, exit, stop, fail.

use super::rig::{FOREVER, Plan, Rig, one_container};
use ecs_local::TaskStatus;
use ecs_testing::docker::inspect;

#[tokio::test(flavor = "multi_thread")]
async fn a_task_runs_and_its_exit_code_reaches_ecs_once_and_in_order() {
    let Some(rig) = Rig::start("exit code", Plan::default()).await else { return };
    let arn = rig.server.run_task(&one_container(&rig.image(), "exit 42")).unwrap();
    let task = rig.task(&arn, TaskStatus::Stopped).await;
    assert_eq!(task.container("main").unwrap().exit_code, Some(42));
    assert_eq!(task.stop_code.as_deref(), Some("EssentialContainerExited"));
    assert_eq!(rig.statuses(&arn), ["PENDING", "RUNNING", "STOPPED"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_task_ends_with_sigterm_and_is_cleaned_up() {
    let plan = Plan { environment: &[("ECS_ENGINE_TASK_CLEANUP_WAIT_DURATION", "1s")], ..Plan::default() };
    let Some(rig) = Rig::start("stop", plan).await else { return };
    let arn = rig.server.run_task(&one_container(&rig.image(), FOREVER)).unwrap();
    let task = rig.task(&arn, TaskStatus::Running).await;
    let id = task.container("main").unwrap().runtime_id.clone().unwrap();
    assert_eq!(inspect(&id)["State"]["Running"], true);
    let tasks = rig.introspect("/v1/tasks").await;
    assert_eq!(tasks["Tasks"][0]["KnownStatus"], "RUNNING");
    assert_eq!(tasks["Tasks"][0]["Containers"][0]["DockerId"], id.as_str());

    rig.server.stop_task(&arn, "enough").unwrap();
    let task = rig.task(&arn, TaskStatus::Stopped).await;
    assert_eq!(task.container("main").unwrap().exit_code, Some(0));
    ecs_testing::wait::until("the clean-up", super::rig::LIMIT, async || rig.containers().is_empty().then_some(()))
        .await;
    ecs_testing::wait::until("the task to be forgotten", super::rig::LIMIT, async || {
        rig.introspect("/v1/tasks").await["Tasks"].as_array().unwrap().is_empty().then_some(())
    })
    .await;
}
