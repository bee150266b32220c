//! A real dockerd that is killed and started again, with and without live restore.

use super::rig::{LIMIT, Plan, Rig, shell};
use ecs_local::TaskStatus;
use ecs_testing::dockerd::{Dockerd, has_ended};
use ecs_testing::wait::until;
use serde_json::json;

/// An agent with that daemon, and two running tasks: one ends when a file appears, the other runs forever.
async fn scene(dockerd: &Dockerd, test: &str) -> Option<(Rig, [(String, String); 2])> {
    let endpoint = dockerd.endpoint();
    let environment = [("DOCKER_HOST", endpoint.as_str()), ("ECS_CONTAINER_STOP_TIMEOUT", "5s")];
    let rig = Rig::start(test, Plan { environment: &environment, ..Plan::default() }).await?;
    let image = rig.image();
    let directory = rig.shared("shared");
    let mut tasks = Vec::new();
    for command in ["while [ ! -e /shared/end ]; do sleep 0.1; done; exit 9", super::rig::FOREVER] {
        let mut container = shell("main", &image, command);
        container["mountPoints"] = json!([{"sourceVolume": "shared", "containerPath": "/shared"}]);
        let definition = json!({
            "family": "restart", "networkMode": "none", "containerDefinitions": [container],
            "volumes": [{"name": "shared", "host": {"sourcePath": directory}}],
        });
        let arn = rig.server.run_task(&definition).unwrap();
        let id = rig.task(&arn, TaskStatus::Running).await.container("main").unwrap().runtime_id.clone().unwrap();
        tasks.push((arn, id));
    }
    Some((rig, tasks.try_into().unwrap()))
}

const WHOLE_LIFE: [&str; 3] = ["PENDING", "RUNNING", "STOPPED"];

/// Without live restore. The containers are reported with the exit code that Docker shows.
#[tokio::test(flavor = "multi_thread")]
async fn on_the_hosts_network_containers_die_with_their_daemon() {
    let Some(mut dockerd) = Dockerd::start(false).await else { return };
    let Some((rig, tasks)) = scene(&dockerd, "dockerd killed").await else { return };
    dockerd.kill().await;
    rig.introspect("/v1/tasks").await;
    tasks.iter().for_each(|(arn, _)| assert_eq!(rig.statuses(arn), WHOLE_LIFE[..2], "nobody knows of an end"));
    // A daemon that is back at once is no outage.
    let is_noticed = async || rig.log().contains("Could not connect to docker daemon").then_some(());
    until("the outage to be noticed", LIMIT, is_noticed).await;
    dockerd.run().await;
    for (arn, id) in &tasks {
        let task = rig.task(arn, TaskStatus::Stopped).await;
        let state = dockerd.inspect(id);
        assert_eq!(state["Running"], false);
        assert_eq!(task.container("main").unwrap().exit_code, state["ExitCode"].as_i64(), "{state}");
        assert_eq!(rig.statuses(arn), WHOLE_LIFE);
    }
    let log = rig.log();
    let outage = ["Could not connect to docker daemon", "Docker answers again"].map(|text| log.matches(text).count());
    assert_eq!(outage, [1, 1], "the beginning and the end, once each: {log}");
}

/// With live restore. A container that ends while no daemon runs is reported afterwards.
#[tokio::test(flavor = "multi_thread")]
async fn on_the_hosts_network_containers_outlive_their_daemon() {
    let Some(mut dockerd) = Dockerd::start(true).await else { return };
    let Some((rig, [(ends, ends_id), (stays, stays_id)])) = scene(&dockerd, "live restore").await else { return };
    let pid = dockerd.inspect(&ends_id)["Pid"].to_string();
    dockerd.kill().await;
    std::fs::write(rig.directory.path().join("shared/end"), "").unwrap();
    until("the container to end without a daemon", LIMIT, async || has_ended(&pid).then_some(())).await;
    assert_eq!(rig.statuses(&ends), WHOLE_LIFE[..2], "nobody knows of its end");
    dockerd.run().await;
    let task = rig.task(&ends, TaskStatus::Stopped).await;
    let state = dockerd.inspect(&ends_id);
    assert_eq!(task.container("main").unwrap().exit_code, state["ExitCode"].as_i64(), "{state}");
    assert_eq!(dockerd.inspect(&stays_id)["Running"], true);
    assert_eq!(rig.statuses(&stays), WHOLE_LIFE[..2], "it runs all the time");
    rig.server.stop_task(&stays, "end of the test").unwrap();
    assert_eq!(rig.task(&stays, TaskStatus::Stopped).await.container("main").unwrap().exit_code, Some(0));
    assert_eq!(rig.statuses(&stays), WHOLE_LIFE);
}
