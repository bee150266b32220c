//! Upgrade, downgrade, upgrade: the previous version of the agent and this one take turns on one data directory, with tasks
//! running.
//!
//! `tests/run upgrade` builds the previous version, names its program in `ECS_TEST_PREDECESSOR`, and runs this.

use super::rig::{LIMIT, Plan, Rig, one_container, shell};
use ecs_local::TaskStatus;
use ecs_testing::docker::{docker, inspect};
use ecs_testing::wait::until;
use serde_json::{Value, json};
use std::path::PathBuf;

/// Writes a line to a host file at each start, and ends with exit code 7 on SIGTERM.
const COUNTED: &str = "echo started >> /shared/starts; trap 'exit 7' TERM; while :; do sleep 0.1; done";

/// A task whose container counts its starts in a file of its own.
struct Counted {
    arn: String,
    runtime_id: String,
    starts: PathBuf,
}

impl Counted {
    async fn start(rig: &Rig, name: &str) -> Self {
        let shared = rig.directory.path().join(name);
        std::fs::create_dir(&shared).unwrap();
        let mut container = shell("main", &rig.image(), COUNTED);
        container["mountPoints"] = json!([{"sourceVolume": "shared", "containerPath": "/shared"}]);
        let definition = json!({
            "family": name,
            "containerDefinitions": [container],
            "volumes": [{"name": "shared", "host": {"sourcePath": shared}}],
        });
        let arn = rig.server.run_task(&definition).unwrap();
        let task = rig.task(&arn, TaskStatus::Running).await;
        let runtime_id = task.container("main").unwrap().runtime_id.clone().unwrap();
        let starts = shared.join("starts");
        until("the first line", LIMIT, async || starts.exists().then_some(())).await;
        Self { arn, runtime_id, starts }
    }

    /// The statuses that ECS got. A report whose answer was not stored before the agent was killed is sent again, and counts
    /// once.
    fn statuses(&self, rig: &Rig) -> Vec<String> {
        let mut statuses = rig.statuses(&self.arn);
        statuses.dedup();
        statuses
    }

    /// The container is the same one, was started once, and ECS got no report beyond those of its start.
    async fn goes_on(&self, rig: &Rig, when: &str) {
        until(&format!("{when}: the task to be known"), LIMIT, async || {
            let shown = rig.introspect("/v1/tasks").await;
            let task = shown["Tasks"].as_array()?.iter().find(|task| task["Arn"] == self.arn.as_str())?.clone();
            let container: &Value = &task["Containers"][0];
            (task["KnownStatus"] == "RUNNING" && container["DockerId"] == self.runtime_id.as_str()).then_some(())
        })
        .await;
        assert_eq!(inspect(&self.runtime_id)["State"]["Running"], true, "{when}");
        assert_eq!(std::fs::read_to_string(&self.starts).unwrap(), "started\n", "{when}");
        assert_eq!(self.statuses(rig), ["PENDING", "RUNNING"], "{when}");
    }

    /// The task has ended with that code, which ECS got once.
    async fn ended(&self, rig: &Rig, when: &str) {
        let task = rig.task(&self.arn, TaskStatus::Stopped).await;
        assert_eq!(task.container("main").unwrap().exit_code, Some(7), "{when}");
        assert_eq!(self.statuses(rig), ["PENDING", "RUNNING", "STOPPED"], "{when}");
        assert_eq!(std::fs::read_to_string(&self.starts).unwrap(), "started\n", "{when}");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "`tests/run upgrade` builds the previous version that it needs"]
async fn upgrade_downgrade_upgrade_loses_no_task() {
    let predecessor: PathBuf =
        std::env::var_os("ECS_TEST_PREDECESSOR").expect("the program of a previous version").into();
    let Some(mut rig) = Rig::without_agent("upgrade", Plan::default()).await else { return };
    let this = std::mem::replace(&mut rig.program, predecessor.clone());
    rig.start_agent();
    rig.registered().await;
    let stays = Counted::start(&rig, "stays").await;
    let versions = [("upgrade", &this), ("downgrade", &predecessor), ("second upgrade", &this)];
    for (number, (when, program)) in versions.into_iter().enumerate() {
        let ends = Counted::start(&rig, &format!("ends-{number}")).await;
        let meanwhile = Counted::start(&rig, &format!("meanwhile-{number}")).await;
        // Once killed, once asked to stop: the state must be good in both cases.
        if number % 2 == 0 {
            rig.kill();
        } else {
            assert_eq!(rig.terminate().code(), Some(0), "{when}");
        }
        docker(&["kill", "--signal", "TERM", &meanwhile.runtime_id]);
        docker(&["wait", &meanwhile.runtime_id]);
        rig.program.clone_from(program);
        rig.start_agent();
        rig.registered().await;
        stays.goes_on(&rig, when).await;
        ends.goes_on(&rig, when).await;
        meanwhile.ended(&rig, when).await;
        rig.server.stop_task(&ends.arn, "no longer needed").unwrap();
        ends.ended(&rig, when).await;
        let next = rig.server.run_task(&one_container(&rig.image(), "exit 3")).unwrap();
        assert_eq!(rig.task(&next, TaskStatus::Stopped).await.container("main").unwrap().exit_code, Some(3), "{when}");
        let instances = rig.server.read(|state| state.instances().len());
        assert_eq!(instances, 1, "{when}: the same container instance");
        let left = std::fs::read_dir(rig.directory.path().join("data")).unwrap();
        let aside = left.filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().contains(".broken-"));
        assert_eq!(aside.count(), 0, "{when}: no state was set aside");
    }
    rig.server.stop_task(&stays.arn, "the end").unwrap();
    stays.ended(&rig, "at the end").await;
}
