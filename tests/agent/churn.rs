//! Containers that come and go while their counters are read: control groups are removed in the middle of a reading, process ids come
//! back. Nothing leaks, nothing false is logged, and the core loop is as quick as without statistics.
//!
//! `ECS_AGENT_TEST_CHURN` is the number of containers; 500 take about a minute on two processors.

use super::footprint::{descriptors, status};
use super::rig::{FOREVER, LIMIT, Plan, Rig, one_container};
use ecs_local::{Source, TaskStatus};
use ecs_testing::dice::count;
use ecs_testing::wait::until;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Containers of a default run.
const CONTAINERS: u64 = 60;
/// Containers that are started together.
const AT_ONCE: u64 = 20;
/// Containers before the first measurement, which is in the middle.
const WARM_UP: u64 = 20;
/// How long they live. Some end before they are read, most are read once or twice.
const LIVES: [&str; 5] = ["exit 0", "sleep 0.3", "sleep 0.7", "sleep 1.1", "sleep 1.6"];

/// What the agent holds: descriptors, and KiB of memory that belongs to no file.
fn held(pid: u32) -> (usize, u64) {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("Anonymous:")).unwrap();
    (descriptors(pid), line.trim().trim_end_matches("kB").trim().parse().unwrap())
}

/// How long the agent took to acknowledge each payload, in seconds, sorted. It does so after a turn of the core loop and the commit.
fn turns(rig: &Rig) -> Vec<f64> {
    rig.server.read(|state| {
        let mut sent = BTreeMap::new();
        let mut took = Vec::new();
        for record in state.records() {
            let id = || record.body["messageId"].as_str().unwrap_or_default().to_owned();
            match record.source {
                Source::AcsOut if record.name == "PayloadMessage" => _ = sent.insert(id(), record.at),
                Source::AcsIn if record.name == "AckRequest" => {
                    took.extend(sent.remove(&id()).map(|sent| record.at - sent));
                }
                _ => {}
            }
        }
        took.sort_by(f64::total_cmp);
        took
    })
}

/// Waits until all other containers are removed, and the agent has closed their files, which it does with its next reading.
async fn only_one_is_left(rig: &Rig) {
    until("the clean-up", 2 * LIMIT, async || (rig.containers().len() == 1).then_some(())).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
}

/// One agent, and all its containers. Returns the median and the 99th percentile of the turns in seconds.
async fn churn(name: &str, environment: &[(&str, &str)]) -> Option<(f64, f64)> {
    let more = [("ECS_ENGINE_TASK_CLEANUP_WAIT_DURATION", "1s"), ("ECS_IMAGE_PULL_BEHAVIOR", "prefer-cached")];
    let environment: Vec<_> = more.iter().chain(environment).copied().collect();
    let rig = Rig::start(name, Plan { environment: &environment, ..Plan::default() }).await?;
    let (image, pid) = (rig.image(), rig.pid());
    let stays = rig.server.run_task(&one_container(&image, FOREVER)).unwrap();
    rig.task(&stays, TaskStatus::Running).await;
    let definitions: Vec<_> = LIVES.iter().map(|life| one_container(&image, life)).collect();
    let containers = count("ECS_AGENT_TEST_CHURN", CONTAINERS).max(WARM_UP + AT_ONCE);
    let half = (containers / 2 / AT_ONCE * AT_ONCE).max(WARM_UP);
    let (mut small, mut peak, mut threads) = ((0, 0), 0, 0);
    let began = Instant::now();
    for done in (0..containers).step_by(AT_ONCE as usize) {
        if done == half {
            only_one_is_left(&rig).await;
            small = held(pid);
        }
        let started = definitions.iter().cycle().take(AT_ONCE as usize);
        let arns: Vec<_> = started.map(|definition| rig.server.run_task(definition).unwrap()).collect();
        for arn in arns {
            rig.task(&arn, TaskStatus::Stopped).await;
            (peak, threads) = (peak.max(descriptors(pid)), threads.max(status(pid, "Threads")));
        }
    }
    let took = began.elapsed();
    only_one_is_left(&rig).await;
    // Idle connections end by themselves.
    until("the descriptors of before", 2 * LIMIT, async || (held(pid).0 <= small.0 + 3).then_some(())).await;
    let large = held(pid);
    let turns = turns(&rig);
    let (median, late) = (turns[turns.len() / 2], turns[turns.len() * 99 / 100]);
    eprintln!(
        "{name}: {containers} containers in {took:.1?}; descriptors {} then {}, at most {peak}; {threads} threads at most; memory {} \
         then {} KiB; {} payloads, median {median:.4} s, p99 {late:.4} s",
        small.0,
        large.0,
        small.1,
        large.1,
        turns.len()
    );
    assert!(large.1 <= small.1 + small.1 / 10 + 3072, "memory grew from {} to {} KiB", small.1, large.1);
    assert!(threads <= 12, "{threads} threads");
    assert!(turns.len() as u64 > containers, "every payload was acknowledged: {}", turns.len());
    let log = rig.log();
    for text in ["a part of the agent ended", "counters", "panicked"] {
        assert!(!log.contains(text), "{text}:\n{log}");
    }
    assert!(rig.server.read(|state| state.task(&stays).unwrap().last_status == TaskStatus::Running));
    rig.server.stop_task(&stays, "enough").unwrap();
    rig.task(&stays, TaskStatus::Stopped).await;
    Some((median, late))
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_that_come_and_go_leave_nothing_behind() {
    let Some(without) = churn("churn without statistics", &[("ECS_DISABLE_METRICS", "true")]).await else { return };
    let with = churn("churn", &[]).await.unwrap();
    // A commit waits for the disk and the processors, which all of this machine share, so the figures differ from minute to minute: these
    // limits find a loop that waits for a reading. With 500 containers the figures themselves can be compared.
    assert!(with.0 <= 3.0 * without.0 + 0.5, "median: {} s, without statistics {} s", with.0, without.0);
    assert!(with.1 <= 3.0 * without.1 + 1.0, "p99: {} s, without statistics {} s", with.1, without.1);
}
