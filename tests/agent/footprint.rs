//! The agent's use of the host: descriptors, threads, containers. The limits show that nothing leaks, not how fast the agent is.

use super::rig::{LIMIT, Plan, Rig, one_container};
use ecs_local::TaskStatus;
use ecs_testing::docker::Image;
use ecs_testing::wait::until;

const TASKS: usize = 30;

pub(crate) fn descriptors(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

/// A number in `/proc/<pid>/status`.
pub(crate) fn status(pid: u32, name: &str) -> usize {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim_start_matches(':').split_whitespace().next().unwrap().parse().unwrap()
}

async fn all_gone(rig: &Rig) {
    until("the clean-up", LIMIT, async || rig.containers().is_empty().then_some(())).await;
    until("the tasks to be forgotten", LIMIT, async || {
        rig.introspect("/v1/tasks").await["Tasks"].as_array().unwrap().is_empty().then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn thirty_tasks_leave_nothing_behind() {
    let plan = Plan { environment: &[("ECS_ENGINE_TASK_CLEANUP_WAIT_DURATION", "1s")], ..Plan::default() };
    let Some(rig) = Rig::start("footprint", plan).await else { return };
    let pid = rig.pid();
    let at_start = descriptors(pid);
    assert!(at_start < 40, "{at_start} descriptors before there is any task");
    let image = rig.image();
    let definition = one_container(&image, "exit 0");
    let first = rig.server.run_task(&definition).unwrap();
    rig.task(&first, TaskStatus::Stopped).await;
    all_gone(&rig).await;

    let arns: Vec<String> = (0..TASKS).map(|_| rig.server.run_task(&definition).unwrap()).collect();
    let mut peak = 0;
    for arn in &arns {
        let task = rig.task(arn, TaskStatus::Stopped).await;
        assert_eq!(task.containers[0].exit_code, Some(0), "{task:?}");
        peak = peak.max(descriptors(pid));
    }
    all_gone(&rig).await;
    let at_end = descriptors(pid);
    let (threads, memory) = (status(pid, "Threads"), status(pid, "VmRSS"));
    eprintln!(
        "descriptors: {at_start} at start, {peak} at most, {at_end} after {TASKS} tasks; {threads} threads; {memory} KiB resident"
    );
    // Two workers, four for blocking calls, the main thread, the server of containers, the writer of the log, and one of the
    // resolver.
    assert!(threads <= 10, "{threads} threads");
    // Kept-alive connections end by themselves when they are idle.
    until("idle connections to end", 2 * LIMIT, async || (descriptors(pid) <= at_start).then_some(())).await;
    Image::remove_locally(&image);
}
