//! Effort: the agent neither spins nor sleeps too long.
//!
//! Invariant: nothing here depends on what is asked for being right; `effects` judges that.

use crate::world::World;
use ecs_agent::core::state::Owner;
use ecs_agent::core::{self, Operation};
use ecs_agent::model::Span;
use std::mem::discriminant;

/// Asking for the same sooner than this needs news.
const PAUSE: Span = Span::secs(1);
/// Longest delay between two tries, jitter included.
const MAX_DELAY: Span = Span::millis(72_000);
/// Longest `startTimeout` the model ECS asks for, and the moment after it.
const MAX_START_TIMEOUT: Span = Span::millis(60_001);

/// No busy loop: the same thing is not asked for twice at one moment while nothing new is heard of.
pub(super) fn again(world: &mut World, owner: &Owner, operation: &Operation) {
    // Reports have a law of their own: none says what another has said.
    // A pull may ask for a look at the disk when the last one has just been taken for another purpose.
    let is_look = matches!(owner, Owner::Images) && world.state.images.is_pull_waiting;
    if matches!(owner, Owner::Report(_)) || world.burst || is_look {
        return;
    }
    let kind = discriminant(operation);
    // A listing may name an orphan that was removed since it was taken.
    let listings = if matches!(owner, Owner::Orphan(_)) { world.listings } else { 0 };
    // So is the wish that it should stop.
    let (now, facts) = (world.now, world.facts + listings + u64::from(world.is_to_stop(owner)));
    let last = world.asked.iter_mut().find(|it| it.0 == *owner);
    let Some(last) = last else { return world.asked.push((owner.clone(), kind, now, facts)) };
    let is_idle = last.1 == kind && last.3 == facts && now < last.2 + PAUSE;
    (last.1, last.2, last.3) = (kind, now, facts);
    if is_idle {
        world.breaks("nothing is asked for again at once without a new fact", || format!("{operation:?}"));
    }
}

/// Whatever the clock does, nobody sleeps longer than the longest wait there is.
pub(super) fn no_wait_is_too_long(world: &mut World) {
    let policy = &world.state.policy;
    let kept = policy.cleanup_wait.0 + policy.cleanup_jitter.0;
    let max_wait = Span::millis(kept.max(MAX_DELAY.0).max(MAX_START_TIMEOUT.0));
    let until = world.now + max_wait;
    let late = world.state.tasks.values().find(|task| task.live.wake.is_some_and(|wake| wake > until));
    if let Some(what) = late.map(|task| format!("{} sleeps until {:?}", task.spec.arn, task.live.wake)) {
        world.breaks("no wait is longer than the longest wait", || what);
    }
    let latest = world.now + Span::millis(max_wait.0.max(world.state.policy.inventory_every.0));
    let next = core::next_deadline(&world.state);
    if next.is_some_and(|at| at > latest) {
        world.breaks("no wait is longer than the longest wait", || format!("{next:?}"));
    }
}
