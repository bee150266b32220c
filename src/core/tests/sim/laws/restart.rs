//! Restarts by the restart policy: each follows the policy and is counted once, and none is forgotten.
//!
//! Invariant: judged by what Docker truly did, and by what was known before the step.

use super::Before;
use crate::world::World;
use ecs_core::model::{ContainerStatus, TaskStatus};

/// Every start that Docker has done for the agent is the first one, or is counted on disk.
pub(super) fn each_restart_was_counted(world: &mut World) {
    let broken = world.disk.tasks.iter().find_map(|(arn, task)| {
        let counted = |name: &_, count: u32| world.docker.truth_of(arn, name).starts <= 1 + count;
        let wrong =
            task.pairs().find(|(spec, it)| spec.restart.is_some() && !counted(&spec.name, it.restarts.count))?;
        Some(format!("{arn} {} counts {}", wrong.0.name, wrong.1.restarts.count))
    });
    if let Some(what) = broken {
        world.breaks("each restart is counted before it is done", || what);
    }
}

/// A container stops for good only if its policy does not restart it.
pub(super) fn due_restarts_are_decided(world: &mut World, before: &Before) {
    let now = world.now;
    let broken = world.state.tasks.iter().find_map(|(arn, task)| {
        let old = before.tasks.get(arn).filter(|old| old.arrival == task.arrival)?;
        let mut pairs = task.pairs().zip(&old.containers);
        let wrong = pairs.find(|((spec, it), old)| {
            let (Some(policy), Some(code)) = (&spec.restart, it.exit_code) else { return false };
            let has_just_ended = it.is_stopped() && old.0 == ContainerStatus::Running;
            // The container ended by itself, while the task should run.
            let by_itself = it.failure.is_none() && it.changed_at == now && task.desired == TaskStatus::Running;
            let since = it.restarts.last.or(it.running_since);
            let is_time = since.is_some_and(|since| now >= since + policy.attempt_period);
            has_just_ended && by_itself && is_time && !policy.ignored_exit_codes.contains(&code)
        })?;
        Some(format!("{arn} {}", wrong.0.0.name))
    });
    if let Some(what) = broken {
        world.breaks("a container is started again if its policy says so", || what);
    }
}
