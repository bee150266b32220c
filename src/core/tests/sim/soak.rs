//! Thousands of short tasks, which must leave nothing behind in the core, on disk or in memory. `SIM_SOAK` sets the number of
//! tasks (20,000 take four seconds in a release build). If it is set, the memory of the process is checked too, so run the test
//! alone.

use crate::schedule::{Delivery, How};
use crate::world::World;
use ecs_core::PullBehavior;
use ecs_core::model::resource::{CgroupSpec, ResourceKind, ResourceSpec};
use ecs_core::model::{ContainerSpec, CredentialsId, TaskSpec};

/// Number of tasks of a default run.
const TASKS: usize = 3_000;
/// Number of tasks that run at the same time.
const AT_ONCE: usize = 50;
/// The largest number of rounds of one batch, far above what a batch needs.
const MAX_ROUNDS: usize = 20_000;
/// The number of tasks before the first measurement of the memory, when allocators and tables have reached their size.
const WARM_UP: usize = 1_000;

fn container(name: &str) -> ContainerSpec {
    ContainerSpec { name: name.into(), image: "image-1".to_owned(), essential: true, ..ContainerSpec::default() }
}

/// A batch of tasks arrives, runs, ends and is forgotten.
fn batch(world: &mut World) {
    for _ in 0..AT_ONCE {
        let resource = |name: &str, kind| ResourceSpec { name: name.to_owned(), needed_by: vec!["a".into()], kind };
        world.ecs.send_task(|arn| TaskSpec {
            execution_credentials: Some(CredentialsId::from(format!("credentials-of-{arn}"))),
            arn,
            containers: vec![container("a"), container("b")],
            resources: vec![
                resource("cgroup", ResourceKind::Cgroup(CgroupSpec::default())),
                resource("ssmsecret", ResourceKind::Secrets(Vec::new())),
            ],
            ..TaskSpec::default()
        });
        let last = world.ecs.messages.len() - 1;
        world.deliver(world.ecs.arriving(&world.ecs.messages, last));
    }
    settle(world);
    for at in 0..world.docker.containers.len() {
        world.docker.exit(at, 0);
    }
    for _ in 0..MAX_ROUNDS {
        settle(world);
        if world.state.tasks.is_empty() {
            break;
        }
        world.advance();
    }
    assert!(world.state.tasks.is_empty(), "tasks that never end: {:?}", world.state.tasks);
    // The records of the model of ECS do not belong to the agent.
    world.docker.truth.clear();
    world.ecs = crate::control::Ecs::default();
    (world.failed, world.last_operations, world.unanswered) = Default::default();
}

fn settle(world: &mut World) {
    for _ in 0..MAX_ROUNDS {
        if !world.pending.is_empty() {
            world.go_on(0, How::Works);
        } else if !world.docker.events.is_empty() {
            world.fact(0, Delivery::Once);
        } else {
            return;
        }
    }
    panic!("there is no end to it: {:?}", world.pending);
}

/// The size of the core's state and of its disk, in bytes of text. The memory of the process would include other tests.
fn held(world: &World) -> usize {
    format!("{:?}{:?}", world.state, world.disk).len()
}

/// KiB of memory of this process that belongs to no file.
fn memory() -> u64 {
    let text = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("Anonymous:"));
    line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse().ok()).unwrap_or_default()
}

#[test]
fn short_tasks_leave_nothing_behind() {
    let asked: Option<usize> = std::env::var("SIM_SOAK").ok().and_then(|text| text.parse().ok());
    let tasks = asked.unwrap_or(TASKS);
    let seed = (0..).find(|seed| World::new(*seed).state.policy.pull == PullBehavior::Default).expect("most do");
    let mut world = World::new(seed);
    world.skips_laws = true; // the laws are judged in schedules; here they would take most of the time
    settle(&mut world);
    let mut before = (0, 0);
    for done in (0..tasks).step_by(AT_ONCE) {
        if done == WARM_UP {
            before = (held(&world), memory());
        }
        batch(&mut world);
    }
    let after = (held(&world), memory());
    assert_eq!(world.broken, None);
    let state = &world.state;
    assert!(state.ops.is_empty() && state.orphans.is_empty() && state.credentials.is_empty(), "{state:?}");
    assert!(world.disk.tasks.is_empty() && world.docker.resources.is_empty() && world.memory.is_empty());
    assert!(state.host.pulled_images.len() <= 1, "{:?}", state.host);
    println!("{tasks} tasks; bytes held, KiB of memory: {before:?} after {WARM_UP}, {after:?} in the end");
    // Ids of operations and numbers of arrivals grow by a digit now and then.
    assert!(after.0 <= before.0 + 64, "{before:?} {after:?} {state:?}");
    if asked.is_some() {
        assert!(after.1 <= before.1 + before.1 / 10, "memory grew: {before:?} {after:?}");
    }
}
