//! Many short tasks with a real Docker: nothing is left of them, and the agent uses no more memory and files than before.
//!
//! `ECS_AGENT_TEST_SOAK` is the number of tasks; the default is enough to see a leak of one thing for each task.

use super::rig::{Plan, Rig};
use ecs_agent::store::Store;
use ecs_local::TaskStatus;
use ecs_testing::dice::count;
use ecs_testing::docker::docker;
use ecs_testing::wait::until;
use serde_json::json;
use std::collections::BTreeSet;
use std::time::Duration;

/// Tasks of a default run.
const TASKS: u64 = 60;
/// Tasks at a time.
const AT_ONCE: u64 = 10;
/// Tasks before the first measurement: by then every part of the agent has run once.
const WARM_UP: u64 = 20;
const REST: Duration = Duration::from_secs(120);

/// Everything on the host that must not grow.
#[derive(Debug, PartialEq, Eq)]
struct Left {
    containers: BTreeSet<String>,
    volumes: BTreeSet<String>,
    networks: BTreeSet<String>,
    cgroups: usize,
}

fn left(rig: &Rig) -> Left {
    let lines = |arguments: &[&str]| docker(arguments).lines().map(str::to_owned).collect::<BTreeSet<_>>();
    let ours = |names: BTreeSet<String>| names.into_iter().filter(|name| name.contains(&family(rig))).collect();
    let groups = rig.server.read(|state| {
        let groups = state.tasks().iter().map(|task| {
            let id = task.arn.rsplit('/').next().unwrap_or_default().to_owned();
            format!("/sys/fs/cgroup/memory/ecs/{id}")
        });
        groups.filter(|path| std::path::Path::new(path).exists()).count()
    });
    Left {
        containers: rig.containers().into_iter().collect(),
        volumes: ours(lines(&["volume", "ls", "--quiet"])),
        networks: lines(&["network", "ls", "--quiet"]),
        cgroups: groups,
    }
}

fn family(rig: &Rig) -> String {
    format!("soak-{}", rig.cluster.name)
}

/// Open files, and KiB of memory that belongs to no file: heap and stacks. The pages of the binary would count by the number
/// of agents that run from it at the moment.
fn size(rig: &Rig) -> (usize, u64) {
    let pid = rig.pid();
    let files = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("Anonymous:")).unwrap();
    (files, line.trim().trim_end_matches("kB").trim().parse().unwrap())
}

async fn batch(rig: &Rig, image: &str) {
    let mount = json!([{"sourceVolume": "scratch", "containerPath": "/scratch"}]);
    let definition = json!({
        "family": family(rig),
        "cpu": "128",
        "memory": "64",
        "containerDefinitions": [{
            "name": "main", "image": image, "memory": 32, "command": ["sh", "-c", "echo x > /scratch/x; exit 0"],
            "mountPoints": mount,
        }],
        "volumes": [{"name": "scratch", "dockerVolumeConfiguration": {"scope": "task", "driver": "local"}}],
    });
    let arns: Vec<String> = (0..AT_ONCE).map(|_| rig.server.run_task(&definition).unwrap()).collect();
    for arn in &arns {
        let task = rig.task(arn, TaskStatus::Stopped).await;
        assert_eq!(task.container("main").unwrap().exit_code, Some(0), "{:?}", rig.reports(arn));
    }
    until("everything to be cleaned up", REST, async || rig.containers().is_empty().then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_short_tasks_leave_nothing_behind() {
    let environment = [("ECS_ENGINE_TASK_CLEANUP_WAIT_DURATION", "1s"), ("ECS_LOGLEVEL", "warn")];
    let Some(mut rig) = Rig::start("soak", Plan { environment: &environment, ..Plan::default() }).await else { return };
    let image = rig.image();
    let tasks = count("ECS_AGENT_TEST_SOAK", TASKS).max(WARM_UP + AT_ONCE);
    let before = left(&rig);
    let mut small = (0, 0);
    for done in (0..tasks).step_by(AT_ONCE as usize) {
        if done == WARM_UP {
            small = size(&rig);
        }
        batch(&rig, &image).await;
    }
    let same = async || (left(&rig) == before).then_some(());
    until("nothing to be left", REST, same).await;
    let (files, memory) = size(&rig);
    eprintln!("{tasks} tasks; open files {} then {files}; memory {} then {memory} KiB", small.0, small.1);
    // Kept-alive connections end by themselves when they are idle.
    until("no more open files than before", REST, async || (size(&rig).0 <= small.0 + 3).then_some(())).await;
    assert!(memory <= small.1 + small.1 / 10 + 2048, "memory grew from {} to {memory} KiB", small.1);
    assert!(rig.terminate().success());
    let (_store, loaded) = Store::open(&rig.directory.path().join("data")).unwrap();
    assert!(loaded.tasks.is_empty(), "{} tasks are left in the state", loaded.tasks.len());
}
