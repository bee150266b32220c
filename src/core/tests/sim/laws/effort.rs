//! Effort: the agent neither repeats operations in a busy loop nor waits too long.
//!
//! Invariant: nothing here judges whether an operation is right; `effects` does.

use crate::world::World;
use ecs_core::Operation;
use ecs_core::model::Span;
use ecs_core::state::OperationOwner;
use std::mem::discriminant;

/// The time within which a repetition of the same operation needs a new fact.
const PAUSE: Span = Span::secs(1);
/// The longest delay between two tries, including the jitter.
const MAX_DELAY: Span = Span::millis(72_000);
/// The longest time that the model of ECS waits for the device of an attachment.
const MAX_ATTACHMENT_WAIT: Span = Span::secs(300);
/// The longest `startTimeout` that the model of ECS sends, and one millisecond.
const MAX_START_TIMEOUT: Span = Span::millis(60_001);

/// No busy loop: the same operation is not requested twice at one moment without a new fact.
pub(super) fn again(world: &mut World, owner: &OperationOwner, operation: &Operation) {
    // Reports have a law of their own: nothing is reported twice.
    // A pull may ask for a check of the disk right after a listing for another purpose.
    let is_disk_check = matches!(owner, OperationOwner::Images) && world.state.images.is_pull_waiting;
    // Operations on networks too.
    if matches!(owner, OperationOwner::Report(_) | OperationOwner::Attachment(_) | OperationOwner::Network(_))
        || world.burst
        || is_disk_check
    {
        return;
    }
    let kind = discriminant(operation);
    // An inventory may contain an orphan that was removed since.
    let listings = if matches!(owner, OperationOwner::Orphan(_)) { world.listings } else { 0 };
    // It is a new fact too that the owner must stop now.
    let (now, facts) = (world.now, world.facts + listings + u64::from(world.is_to_stop(owner)));
    let last = world.last_operations.iter_mut().find(|it| it.0 == *owner);
    let Some(last) = last else { return world.last_operations.push((owner.clone(), kind, now, facts)) };
    let is_idle = last.1 == kind && last.3 == facts && now < last.2 + PAUSE;
    (last.1, last.2, last.3) = (kind, now, facts);
    if is_idle {
        world.breaks("nothing is asked for again at once without a new fact", || format!("{operation:?}"));
    }
}

/// Whatever the clock does, no task waits longer than the longest configured wait.
pub(super) fn no_wait_is_too_long(world: &mut World) {
    let policy = &world.state.policy;
    let kept = policy.cleanup_wait.0 + policy.cleanup_jitter.0;
    let max_wait = Span::millis(kept.max(MAX_DELAY.0).max(MAX_START_TIMEOUT.0).max(MAX_ATTACHMENT_WAIT.0));
    let until = world.now + max_wait;
    let late = world.state.tasks.values().find(|task| task.live.wake.is_some_and(|wake| wake > until));
    if let Some(what) = late.map(|task| format!("{} sleeps until {:?}", task.spec.arn, task.live.wake)) {
        world.breaks("no wait is longer than the longest wait", || what);
    }
    // The record of an attachment is kept for a day.
    let kept = if world.state.host.attachments.is_empty() { 0 } else { MAX_ATTACHMENT_WAIT.0 + 24 * 3_600_000 };
    let latest = world.now + Span::millis(max_wait.0.max(world.state.policy.inventory_every.0).max(kept));
    let next = ecs_core::next_deadline(&world.state);
    if next.is_some_and(|at| at > latest) {
        world.breaks("no wait is longer than the longest wait", || format!("{next:?}"));
    }
}
