//! The inventory: a listing of all containers with this agent's labels. It is requested after a start, after a gap in the
//! events, and every few minutes.
//!
//! An inventory settles unsettled containers, and finds removed containers and orphans. It says nothing about a container that
//! was touched after the inventory was requested: otherwise a listing from before a create would end the container that was just
//! created.

use super::effect::{Effect, Operation};
use super::event::{Outcome, Output};
use super::state::{ContainerState, Key, LiveContainer, OperationOwner, Orphan, Retry, State, TaskState};
use super::step::Step;
use super::{backoff, seen};
use crate::model::task::name_suffix;
use crate::model::{Observation, RunState, TaskArn, Timestamp};
use std::collections::BTreeSet;

/// Requests an inventory if one is due, and the removal of orphans.
pub(super) fn plan(state: &mut State, now: Timestamp, out: &mut Step) {
    let inventory = &state.inventory;
    let is_due = inventory.events_missed || inventory.due <= now;
    if inventory.pending.is_none() && is_due && inventory.retry.not_before <= now {
        let op = state.new_op(OperationOwner::Inventory);
        state.inventory.pending = Some((op, state.steps));
        state.inventory.events_missed = false;
        out.effects.push(Effect::Do(op, Operation::Inventory));
    }
    // ECS may have sent the task again since. Then the container belongs to the task and is no orphan any more.
    let State { orphans, tasks, .. } = state;
    let has_a_task =
        |orphan: &Orphan| tasks.get(&orphan.task).is_some_and(|task| task.index_of(&orphan.container).is_some());
    orphans.retain(|_, orphan| orphan.op.is_some() || !has_a_task(orphan));
    let waiting = state.orphans.iter().filter(|(_, orphan)| orphan.op.is_none() && orphan.retry.not_before <= now);
    for name in waiting.map(|(name, _)| name.clone()).collect::<Vec<_>>() {
        let op = state.new_op(OperationOwner::Orphan(name.clone()));
        out.effects.push(Effect::Do(op, Operation::Remove(name.clone())));
        if let Some(orphan) = state.orphans.get_mut(&name) {
            orphan.op = Some(op);
        }
    }
}

/// The moments at which an inventory or the removal of an orphan is due.
pub(super) fn next_deadline(state: &State) -> impl Iterator<Item = Timestamp> {
    let inventory = &state.inventory;
    let own = inventory.pending.is_none().then(|| {
        let due = if inventory.events_missed { Timestamp::default() } else { inventory.due };
        due.max(inventory.retry.not_before)
    });
    let orphans = state.orphans.values().filter(|orphan| orphan.op.is_none());
    own.into_iter().chain(orphans.map(|orphan| orphan.retry.not_before))
}

/// The result of an inventory.
pub(super) struct Listing {
    /// All containers of this agent.
    pub(super) seen: Vec<Observation>,
    /// The number of the step that requested the inventory.
    asked_in_step: u64,
}

/// Takes the outcome of an inventory; `None`: the inventory failed, and is tried again.
pub(super) fn listed(state: &mut State, now: Timestamp, outcome: Outcome) -> Option<Listing> {
    let (_, asked_in_step) = state.inventory.pending.take()?;
    let Ok(Output::Inventory(mut seen)) = outcome else {
        backoff::INVENTORY.again(&mut state.inventory.retry, now, "inventory");
        state.inventory.events_missed = true;
        return None;
    };
    state.inventory.retry = Retry::default();
    state.inventory.due = now + state.policy.inventory_every;
    // Several agents may use one Docker. A container of another agent may have the labels of a task of ours too.
    seen.retain(|seen| state.policy.owners.owns(seen.owner.as_ref()));
    Some(Listing { seen, asked_in_step })
}

/// Compares an inventory with the state and returns the tasks to plan again: all of them. Most of an inventory is known already,
/// so few documents change.
pub(super) fn compare(state: &mut State, listing: &Listing, now: Timestamp, out: &mut Step) -> BTreeSet<TaskArn> {
    for observation in &listing.seen {
        present(state, observation, listing.asked_in_step, now, out);
    }
    absent(state, &listing.seen, listing.asked_in_step, now, out);
    state.tasks.keys().cloned().collect()
}

/// Writes one container of an inventory into the state.
fn present(state: &mut State, seen: &Observation, asked_in_step: u64, now: Timestamp, out: &mut Step) {
    let step = state.steps;
    let Some(task) = state.tasks.get_mut(&seen.task) else {
        if is_surely_ours(seen) {
            state.orphans.entry(seen.runtime_id.as_str().to_owned()).or_insert_with(|| Orphan::from_observation(seen));
        }
        return;
    };
    let Some(index) = task.index_of(&seen.container) else { return };
    let container = &mut task.containers[index].state;
    if container.live.operation.is_some() || container.live.touched > asked_in_step {
        return;
    }
    if seen::is_end_without_details(seen) {
        container.live.unsettled |= !container.is_stopped();
        return;
    }
    let start_is_lost = container.ran
        && !container.is_stopped()
        && seen.state == RunState::Created
        && container.runtime_id.as_ref() == Some(&seen.runtime_id);
    let ended = start_is_lost.then(|| as_ended(seen));
    let seen = ended.as_ref().unwrap_or(seen);
    write(task, index, out, |task| seen::observe(task, index, seen, now, step));
}

/// The observation of a container whose start Docker has lost, changed to show that the container has ended. The agent writes a
/// start to disk at once, but Docker does not: after a power cut Docker may list a container that ran as never started. The
/// listing was requested after the agent knew of the start, so it is not outdated: the process is gone, and its exit code is not
/// known.
fn as_ended(seen: &Observation) -> Observation {
    Observation { state: RunState::Exited, ..seen.clone() }
}

/// Writes a fact and settles the container. The task's document counts as changed if anything but `touched` changed.
fn write(task: &mut TaskState, index: usize, out: &mut Step, fact: impl FnOnce(&mut TaskState)) {
    let before = task.containers[index].state.clone();
    fact(task);
    seen::settle(task, index);
    let after = &task.containers[index].state;
    let live = LiveContainer { touched: after.live.touched, ..before.live.clone() };
    if *after != (ContainerState { live, ..before }) {
        out.changed.insert(Key::Task(task.spec.arn.clone()));
    }
}

/// Finds the containers that the state knows and that an inventory does not list.
fn absent(state: &mut State, seen: &[Observation], asked_in_step: u64, now: Timestamp, out: &mut Step) {
    let step = state.steps;
    let names: BTreeSet<_> = seen.iter().map(|seen| (&seen.task, &seen.container)).collect();
    let ids: BTreeSet<_> = seen.iter().map(|seen| &seen.runtime_id).collect();
    for task in state.tasks.values_mut() {
        for index in 0..task.containers.len() {
            let container = &task.containers[index].state;
            let is_covered = container.live.operation.is_none() && container.live.touched <= asked_in_step;
            let name = &task.containers[index].spec.name;
            // Another container may have taken the name since. A container that was seen is found by its id only.
            let is_there = match &container.runtime_id {
                Some(id) if container.observed.is_some() => ids.contains(id),
                Some(_) | None => names.contains(&(&task.spec.arn, name)),
            };
            if !is_covered || !container.create_asked || is_there {
                continue;
            }
            if container.observed.is_some() {
                // A listing may lack an existing container for many reasons. Only an inspection proves that it is gone.
                task.containers[index].state.live.unsettled = true;
            } else {
                write(task, index, out, |task| seen::removed(task, index, now, step));
            }
        }
    }
}

/// The container of an unknown task is certainly an orphan of this agent: it was never started, and only this agent gives such
/// names. A create that was done after it was given up leaves such a container behind.
fn is_surely_ours(seen: &Observation) -> bool {
    seen.state == RunState::Created && seen.runtime_name.ends_with(&name_suffix(&seen.task, &seen.container))
}

/// Writes the outcome of the removal of an orphan.
pub(super) fn orphan_completed(state: &mut State, now: Timestamp, name: &str, outcome: &Outcome) {
    match outcome {
        Ok(_) => {
            state.orphans.remove(name);
        }
        Err(_) => {
            if let Some(orphan) = state.orphans.get_mut(name) {
                orphan.op = None;
                backoff::ENGINE.again(&mut orphan.retry, now, name);
            }
        }
    }
}

#[cfg(test)]
mod tests;
