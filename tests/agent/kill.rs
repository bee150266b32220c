//! `kill -9` at chosen moments, and then a restart of the agent: no task is lost, duplicated or reported wrongly.
//!
//! A proxy holds the request to Docker during which the agent is killed, so that the moment is certain.

use super::rig::{FOREVER, LIMIT, Plan, Rig, shell};
use ecs_local::{Fault, TaskStatus};
use ecs_testing::docker::inspect;
use ecs_testing::docker_proxy::{DockerProxy, Hold};
use ecs_testing::wait::until;
use serde_json::{Value, json};
use std::path::PathBuf;

/// A rig whose agent reaches Docker through the proxy, and a task that writes a line to a host file each time it starts.
struct Scene {
    rig: Rig,
    proxy: DockerProxy,
    starts: PathBuf,
}

impl Scene {
    async fn set(test: &str) -> Option<Self> {
        let proxy = DockerProxy::start();
        let endpoint = proxy.endpoint();
        let environment = [("DOCKER_HOST", endpoint.as_str()), ("ECS_ENGINE_TASK_CLEANUP_WAIT_DURATION", "2s")];
        let rig = Rig::start(test, Plan { environment: &environment, ..Plan::default() }).await?;
        let shared = rig.shared("shared");
        Some(Self { rig, proxy, starts: shared.join("starts") })
    }

    /// Runs a task of one container.
    fn run(&self, command: &str) -> String {
        self.rig.server.run_task(&self.definition(command)).unwrap()
    }

    fn definition(&self, command: &str) -> Value {
        let mut container = shell("main", &self.rig.image(), &format!("echo started >> /shared/starts; {command}"));
        container["mountPoints"] = json!([{"sourceVolume": "shared", "containerPath": "/shared"}]);
        let directory = self.starts.parent().unwrap();
        json!({
            "family": "test",
            "containerDefinitions": [container],
            "volumes": [{"name": "shared", "host": {"sourcePath": directory}}],
        })
    }

    async fn kill_when_held(&mut self) {
        self.proxy.held().await;
        self.kill_and_restart().await;
    }

    async fn kill_and_restart(&mut self) {
        self.rig.kill();
        self.rig.start_agent();
        self.rig.registered().await;
    }

    /// Checks that the container ran once, that it is the only one, and that these statuses were reported.
    async fn ran_once(&self, arn: &str, statuses: &[&str]) {
        until("the container to start", LIMIT, async || self.starts.exists().then_some(())).await;
        assert_eq!(std::fs::read_to_string(&self.starts).unwrap(), "started\n", "it was started once");
        assert!(self.rig.containers().len() <= 1, "it is not doubled: {:?}", self.rig.containers());
        // An agent that is killed between ECS's answer and the commit cannot know that the report arrived, so it repeats the
        // report. Reports are sent at least once, never out of order.
        let mut reported = self.rig.statuses(arn);
        reported.dedup();
        assert_eq!(reported, statuses);
        let registrations =
            self.rig.server.read(|state| state.instances().iter().map(|i| i.arn.clone()).collect::<Vec<_>>());
        assert_eq!(registrations.len(), 1, "the same container instance: {registrations:?}");
    }

    async fn stop(&self, arn: &str, exit_code: i64) {
        self.rig.server.stop_task(arn, "end of the test").unwrap();
        let task = self.rig.task(arn, TaskStatus::Stopped).await;
        assert_eq!(task.container("main").unwrap().exit_code, Some(exit_code));
        until("the clean-up", LIMIT, async || self.rig.containers().is_empty().then_some(())).await;
    }
}

/// Kills the agent while that request is held: the task still runs once, is reported once, and stops when it should.
async fn killed_at(test: &str, line: &'static [&'static str], hold: Hold, statuses: &[&str]) {
    let Some(mut scene) = Scene::set(test).await else { return };
    scene.proxy.hold(line, hold);
    let arn = scene.run(FOREVER);
    scene.kill_when_held().await;
    scene.rig.task(&arn, TaskStatus::Running).await;
    scene.ran_once(&arn, statuses).await;
    scene.stop(&arn, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_digest_is_looked_up() {
    killed_at("digest", &["GET", "/distribution/"], Hold::Before, &["PENDING", "RUNNING"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn during_the_pull() {
    killed_at("pull", &["POST", "/images/create"], Hold::Before, &["PENDING", "RUNNING"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn before_docker_receives_the_create() {
    killed_at("create", &["POST", "/containers/create"], Hold::Before, &["PENDING", "RUNNING"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_the_create_before_its_answer() {
    killed_at("created", &["POST", "/containers/create"], Hold::After, &["PENDING", "RUNNING"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn between_create_and_start() {
    killed_at("start", &["POST", "/start"], Hold::Before, &["PENDING", "RUNNING"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_the_start_before_its_answer() {
    killed_at("started", &["POST", "/start"], Hold::After, &["PENDING", "RUNNING"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn running_before_it_was_reported() {
    let Some(mut scene) = Scene::set("unreported").await else { return };
    let arn = scene.run(FOREVER);
    scene.rig.wait("the first report", |state| state.submissions().next().map(|_| ())).await;
    scene.rig.server.fail_next("SubmitTaskStateChange", 100, &Fault::Drop);
    until("the container to start", LIMIT, async || scene.starts.exists().then_some(())).await;
    scene.rig.kill();
    scene.rig.server.clear_faults();
    scene.rig.start_agent();
    scene.rig.task(&arn, TaskStatus::Running).await;
    scene.ran_once(&arn, &["PENDING", "RUNNING"]).await;
    scene.stop(&arn, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_report_whose_answer_is_lost() {
    let Some(mut scene) = Scene::set("answer lost").await else { return };
    let arn = scene.run("sleep 2; exit 7");
    scene.rig.wait("the first report", |state| state.submissions().next().map(|_| ())).await;
    scene.rig.server.fail_next("SubmitTaskStateChange", 1, &Fault::LoseAnswer);
    scene.rig.task(&arn, TaskStatus::Running).await;
    scene.kill_and_restart().await;
    let task = scene.rig.task(&arn, TaskStatus::Stopped).await;
    assert_eq!(task.container("main").unwrap().exit_code, Some(7));
    scene.ran_once(&arn, &["PENDING", "RUNNING", "STOPPED"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_container_is_being_stopped() {
    let Some(mut scene) = Scene::set("stop").await else { return };
    let arn = scene.run(FOREVER);
    scene.rig.task(&arn, TaskStatus::Running).await;
    scene.proxy.hold(&["POST", "/stop"], Hold::Before);
    scene.rig.server.stop_task(&arn, "enough").unwrap();
    scene.kill_when_held().await;
    let task = scene.rig.task(&arn, TaskStatus::Stopped).await;
    assert_eq!(task.container("main").unwrap().exit_code, Some(0));
    scene.ran_once(&arn, &["PENDING", "RUNNING", "STOPPED"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_container_ends_while_no_agent_runs() {
    let Some(mut scene) = Scene::set("away").await else { return };
    let arn = scene.run("while [ ! -e /shared/end ]; do sleep 0.1; done; exit 9");
    let task = scene.rig.task(&arn, TaskStatus::Running).await;
    let id = task.container("main").unwrap().runtime_id.clone().unwrap();
    scene.rig.kill();
    std::fs::write(scene.starts.with_file_name("end"), "").unwrap();
    until("the container to end", LIMIT, async || (inspect(&id)["State"]["Running"] == false).then_some(())).await;
    scene.rig.start_agent();
    let task = scene.rig.task(&arn, TaskStatus::Stopped).await;
    assert_eq!(task.container("main").unwrap().exit_code, Some(9));
    scene.ran_once(&arn, &["PENDING", "RUNNING", "STOPPED"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stopped_before_it_was_reported() {
    let Some(mut scene) = Scene::set("stop unreported").await else { return };
    let arn = scene.run("while [ ! -e /shared/end ]; do sleep 0.1; done; exit 3");
    let task = scene.rig.task(&arn, TaskStatus::Running).await;
    let id = task.container("main").unwrap().runtime_id.clone().unwrap();
    scene.rig.server.fail_next("SubmitTaskStateChange", 100, &Fault::Drop);
    std::fs::write(scene.starts.with_file_name("end"), "").unwrap();
    until("the container to end", LIMIT, async || (inspect(&id)["State"]["Running"] == false).then_some(())).await;
    scene.rig.kill();
    scene.rig.server.clear_faults();
    scene.rig.start_agent();
    let task = scene.rig.task(&arn, TaskStatus::Stopped).await;
    assert_eq!(task.container("main").unwrap().exit_code, Some(3));
    scene.ran_once(&arn, &["PENDING", "RUNNING", "STOPPED"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn during_the_clean_up() {
    let Some(mut scene) = Scene::set("clean-up").await else { return };
    scene.proxy.hold(&["DELETE", "/containers/"], Hold::Before);
    let arn = scene.run("exit 0");
    scene.rig.task(&arn, TaskStatus::Stopped).await;
    scene.kill_when_held().await;
    until("the clean-up", LIMIT, async || scene.rig.containers().is_empty().then_some(())).await;
    scene.ran_once(&arn, &["PENDING", "RUNNING", "STOPPED"]).await;
}
