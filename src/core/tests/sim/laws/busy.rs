//! Operations on networks that are refused because an earlier one has not ended: they are no attempts, and are repeated for a while.
//! And the addresses that are free again afterwards.

use super::Before;
use crate::outcome::BUSY;
use crate::world::World;
use ecs_core::model::{Span, TaskArn};
use ecs_core::state::{NetworkOperationKind, TaskState};

/// After this many failures an operation is given up.
const MAX_TRIES: u32 = 3;

/// How long an operation is repeated at least while an earlier one has not ended.
fn patience(kind: NetworkOperationKind) -> Span {
    match kind {
        NetworkOperationKind::SetUp => Span::secs(60),
        NetworkOperationKind::TearDown => Span::secs(30),
        NetworkOperationKind::CleanUp => Span::secs(120),
    }
}

/// Notes the operations that were requested.
fn note_requests(world: &mut World) {
    for (arn, task) in &world.state.tasks {
        let Some(operation) = &task.live.network.operation else { continue };
        let known = world.net.asked.entry(arn.clone()).or_insert((operation.kind, world.now));
        if known.0 != operation.kind {
            *known = (operation.kind, world.now);
        }
    }
}

/// The last operation on the network of this task has failed, and may be given up.
pub(super) fn is_given_up(world: &World, arn: &TaskArn) -> bool {
    let Some((_, kind, count, _)) = world.net.failed.iter().find(|it| it.0 == *arn) else { return false };
    let asked = world.net.asked.get(arn).filter(|(asked, _)| asked == kind);
    *count >= MAX_TRIES || asked.is_none_or(|(kind, since)| world.now >= *since + patience(*kind))
}

/// Judges the ends of tasks and the addresses that are given back.
pub(super) fn after_step(world: &mut World, before: &Before) {
    let mut broken = None;
    for (arn, task) in &world.state.tasks {
        let Some(old) = before.tasks.get(arn).filter(|old| old.arrival == task.arrival) else { continue };
        let (old_address, was_refused) = old.local_address;
        let has_failed = world.net.failed.iter().any(|it| it.0 == *arn && it.1 == NetworkOperationKind::CleanUp);
        if old_address.is_some() && task.network.local_address.is_none() && has_failed && !is_given_up(world, arn) {
            broken = Some(("an address is free when nothing of its network is left", arn.clone()));
        }
        if ends_as_busy(task) && is_set_up_due(world, arn) {
            broken = Some(("an operation that was refused as busy is no attempt", arn.clone()));
        }
        let is_held = before.tasks.values().any(|old| old.local_address.0.is_some())
            || world.state.tasks.values().any(|task| task.network.local_address.is_some());
        if super::networks::is_without_address(task) && !was_refused && !is_held {
            broken = Some(("the only address is given to the next task", arn.clone()));
        }
    }
    if let Some((law, arn)) = broken {
        world.breaks(law, || arn.to_string());
    }
    note_requests(world);
}

fn ends_as_busy(task: &TaskState) -> bool {
    task.reason.as_ref().is_some_and(|reason| reason.to_ascii_lowercase().contains(BUSY))
}

fn is_set_up_due(world: &World, arn: &TaskArn) -> bool {
    let is_set_up = world.net.asked.get(arn).is_some_and(|(kind, _)| *kind == NetworkOperationKind::SetUp);
    is_set_up && !is_given_up(world, arn)
}
