//! `kill -9` at random moments while tasks start and end, each time followed by a restart of the agent. No task is lost,
//! duplicated or reported wrongly, and none is left in Docker or in the state.
//!
//! `ECS_AGENT_TEST_KILLS` is the number of kills; `ECS_AGENT_TEST_SEED` repeats a run, as far as a real Docker repeats itself.

use super::event_log::{EventLog, Reports, check_task};
use super::rig::{FOREVER, Plan, Rig, shell};
use ecs_agent::store::Store;
use ecs_local::TaskStatus;
use ecs_testing::dice::{Dice, count};
use ecs_testing::wait::until;
use serde_json::json;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// The number of tasks at a time.
const TASKS: usize = 20;
const KILLS: u64 = 40;
/// Time limit for all tasks to end and be removed after the last kill.
const REST: Duration = Duration::from_secs(180);

/// One task.
struct Member {
    /// The exit code with which its container ends by itself; `None`: it runs until it is stopped.
    code: Option<i64>,
    /// The test has stopped it.
    stopped: bool,
}

struct Churn {
    rig: Rig,
    dice: Dice,
    image: String,
    members: BTreeMap<String, Member>,
}

impl Churn {
    /// Runs or stops a task at random. While the agent is away, no task is run: ECS places none then.
    fn random_step(&mut self) {
        let alive: Vec<String> = self.rig.server.read(|state| {
            let alive = state.tasks().iter().filter(|task| task.last_status != TaskStatus::Stopped);
            alive.map(|task| task.arn.clone()).collect()
        });
        if alive.len() < TASKS {
            let _ = self.run();
        } else if self.dice.below(10) == 0 {
            let chosen = self.dice.below(alive.len() as u64) as usize;
            self.stop(&alive[chosen]);
        }
    }

    fn run(&mut self) -> Option<String> {
        let code = (self.dice.below(3) > 0).then(|| 1 + self.dice.below(100) as i64);
        let command = match code {
            Some(code) => format!("sleep 0.{}; exit {code}", self.dice.below(10)),
            None => FOREVER.to_owned(),
        };
        let mut containers = vec![shell("main", &self.image, &command)];
        if self.dice.below(4) == 0 {
            let mut side = shell("side", &self.image, FOREVER);
            side["essential"] = json!(false);
            containers.push(side);
        }
        let definition = json!({"family": "churn", "containerDefinitions": containers});
        let arn = self.rig.server.run_task(&definition).ok()?;
        self.members.insert(arn.clone(), Member { code, stopped: false });
        Some(arn)
    }

    fn stop(&mut self, arn: &str) {
        if let Some(member) = self.members.get_mut(arn) {
            member.stopped = true;
            self.rig.server.stop_task(arn, "the churn").unwrap();
        }
    }

    /// Starts and stops tasks at random for up to one and a half seconds.
    async fn live(&mut self) {
        let (began, life) = (Instant::now(), Duration::from_millis(self.dice.below(1_500)));
        until("the agent's time to be over", REST, async || {
            self.random_step();
            (began.elapsed() >= life).then_some(())
        })
        .await;
    }

    async fn come_to_rest(&mut self) {
        let endless: Vec<String> =
            self.members.iter().filter(|(_, m)| m.code.is_none() && !m.stopped).map(|(arn, _)| arn.clone()).collect();
        endless.iter().for_each(|arn| self.stop(arn));
        until("every task to be reported stopped", REST, async || {
            let alive = |task: &ecs_local::Task| task.last_status != TaskStatus::Stopped;
            (!self.rig.server.read(|state| state.tasks().iter().any(alive))).then_some(())
        })
        .await;
        until("Docker to be empty", REST, async || self.rig.containers().is_empty().then_some(())).await;
        until("the state to be empty", REST, async || {
            let shown = self.rig.introspect("/v1/tasks").await;
            shown["Tasks"].as_array().is_some_and(Vec::is_empty).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_lose_double_and_misreport_nothing() {
    let environment = [("ECS_ENGINE_TASK_CLEANUP_WAIT_DURATION", "2s"), ("ECS_CONTAINER_STOP_TIMEOUT", "5s")];
    let Some(rig) = Rig::start("kill loop", Plan { environment: &environment, ..Plan::default() }).await else {
        return;
    };
    let dice = Dice::thrown("ECS_AGENT_TEST_SEED");
    let (event_log, mut reports) = (EventLog::begin(&rig), Reports::default());
    let image = rig.image();
    let mut churn = Churn { rig, dice, image, members: BTreeMap::new() };
    let kills = count("ECS_AGENT_TEST_KILLS", KILLS);
    for _ in 0..kills {
        churn.live().await;
        churn.rig.kill();
        reports.collect(&churn.rig);
        churn.rig.start_agent();
    }
    churn.rig.registered().await;
    churn.come_to_rest().await;
    let events = event_log.all_removed().await;
    let ended = churn.rig.terminate();
    assert!(ended.success(), "{ended}");
    reports.collect(&churn.rig);

    let (tasks, instances) = churn.rig.server.read(|state| (state.tasks().to_vec(), state.instances().len()));
    assert_eq!(instances, 1, "the same container instance throughout");
    assert_eq!(tasks.len(), churn.members.len());
    for task in &tasks {
        let member = &churn.members[&task.arn];
        let codes: Vec<_> = member.code.filter(|_| !member.stopped).map(|code| ("main", code)).into_iter().collect();
        check_task(task, &events, &reports, &codes);
    }
    let strangers: Vec<_> = events.iter().filter(|event| !churn.members.contains_key(&event.task)).collect();
    assert!(strangers.is_empty(), "{strangers:#?}");
    let (_store, loaded) = Store::open(&churn.rig.directory.path().join("data")).unwrap();
    assert!(loaded.tasks.is_empty(), "{} tasks are left in the state", loaded.tasks.len());
    let ran = events.iter().filter(|event| event.action == "start").count();
    eprintln!("{kills} kills, {} tasks, {ran} containers that ran", tasks.len());
}
