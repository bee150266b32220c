//! Rebuilds tasks from the labels of their containers after the state was lost.
//!
//! Owns the handling of the first inventory after a loss ([`HostState::lost`](super::state::HostState)). It takes over only
//! containers that this agent certainly created, and only tasks of which a container has run; the containers of a task that
//! never ran are orphans. Until that inventory, messages of ECS are held back: a task that ECS asks to stop would seem
//! unknown, and would be reported as stopped while it runs, and credentials of its roles would be dropped. Invariant: no running
//! container is stopped because the state was lost.

use super::desired;
use super::event::Event;
use super::state::{Container, Key, Resource, State, TaskState};
use super::step::Step;
use super::{network, resource, seen};
use crate::model::{
    ContainerKind, ContainerStatus, Failure, Observation, RunState, TaskArn, TaskSpec, TaskStatus, Timestamp,
};
use std::collections::{BTreeMap, BTreeSet};

/// The largest number of messages that are held back. Any further message is dropped and not acknowledged, so ECS sends it
/// again.
const MAX_HELD_EVENTS: usize = 256;

/// Holds back a message of ECS while tasks may be missing. Returns the event to apply now; `None` if it was held back.
pub(super) fn hold(state: &mut State, event: Event) -> Option<Event> {
    let are_credentials = matches!(event, Event::CredentialsArrived { task: Some(_), .. });
    let is_from_ecs =
        matches!(event, Event::Payload { .. } | Event::Manifest { .. } | Event::StopVerificationAck { .. });
    if !(state.host.lost && (is_from_ecs || are_credentials)) {
        return Some(event);
    }
    if state.held.len() < MAX_HELD_EVENTS {
        state.held.push(event);
        return None;
    }
    // Credentials are in memory already, and are dropped as those of an unknown task.
    Some(event).filter(|_| are_credentials)
}

/// Rebuilds the unknown tasks of these containers, and returns the messages that were held back, in their order. The caller
/// applies them.
#[must_use]
pub(super) fn from_containers(state: &mut State, seen: &[Observation], now: Timestamp, out: &mut Step) -> Vec<Event> {
    let mut found: BTreeMap<&TaskArn, Vec<&Observation>> = BTreeMap::new();
    for seen in seen.iter().filter(|seen| !state.tasks.contains_key(&seen.task) && is_made_here(seen)) {
        found.entry(&seen.task).or_default().push(seen);
    }
    found.retain(|_, containers| containers.iter().any(|seen| seen.state != RunState::Created));
    for containers in found.values() {
        let Some(outline) = &containers[0].outline else { continue };
        state.host.arrivals += 1;
        let mut task = task((**outline).clone(), containers, state.host.arrivals, now, state.steps);
        let address = task.network.local_address;
        network::rebuilt(&mut task, state.tasks.values().all(|other| other.network.local_address != address));
        out.changed.insert(Key::Task(task.spec.arn.clone()));
        state.tasks.insert(task.spec.arn.clone(), Box::new(task));
    }
    // Events of these containers since the listing were ignored, because their tasks were unknown. So another inventory is due.
    state.inventory.events_missed |= !found.is_empty();
    state.host.lost = false;
    out.changed.insert(Key::Host);
    std::mem::take(&mut state.held)
}

/// This agent created the container: its name is exactly the one that this agent derives from the outline in the label.
fn is_made_here(seen: &Observation) -> bool {
    seen.outline.as_ref().is_some_and(|outline| {
        outline.arn == seen.task
            && outline.container(&seen.container).is_some()
            && outline.runtime_name(&seen.container) == seen.runtime_name
    })
}

fn task(outline: TaskSpec, containers: &[&Observation], arrival: u64, now: Timestamp, step: u64) -> TaskState {
    let new = TaskState::new(outline, arrival, now); // from here on the state holds the leases
    let mut task = TaskState { admitted: true, reduced: true, ..new };
    task.live.inherited = true;
    let leases = containers.iter().flat_map(|seen| &seen.outline).flat_map(|outline| &outline.leases).collect();
    for Resource { spec, state } in &mut task.resources {
        *state = resource::rebuilt(spec, &leases);
    }
    for seen in containers {
        let Some(index) = task.index_of(&seen.container) else { continue };
        if seen::is_end_without_details(seen) {
            let container = &mut task.containers[index].state;
            (container.create_asked, container.live.unsettled, container.live.touched) = (true, true, step);
        } else {
            seen::observe(&mut task, index, seen, now, step);
        }
    }
    give_up_missing_containers(&mut task, now);
    // A pause container alone is of no use.
    let is_over = |container: &Container| container.spec.kind == ContainerKind::Pause || container.state.is_stopped();
    if task.pause().is_some() && task.containers.iter().all(is_over) {
        task.desired = TaskStatus::Stopped;
    }
    desired::derive(&mut task, now);
    task
}

/// Marks as stopped the containers that do not exist any more, which cannot be created again because their specification is
/// lost, and the containers that wait for them. The task goes on without them, even if they were essential.
fn give_up_missing_containers(task: &mut TaskState, now: Timestamp) {
    let mut gone = BTreeSet::new();
    for _ in 0..task.containers.len() {
        let lost = task.pairs().filter(|(spec, container)| {
            let waits_in_vain = || spec.depends_on.iter().any(|dependency| gone.contains(&dependency.container));
            (container.observed.is_none() && !container.live.unsettled)
                || (!container.ran && container.observed == Some(RunState::Created) && waits_in_vain())
        });
        gone = lost.map(|(spec, _)| spec.name.clone()).collect();
    }
    for Container { spec, state: container } in &mut task.containers {
        if gone.contains(&spec.name) {
            spec.essential = false;
            container.fail(Failure::permanent(
                "ContainerVanishedError",
                "No container found after the agent's state was lost",
            ));
            container.raise(ContainerStatus::Stopped, now);
        }
    }
}

/// Replaces the outline of a rebuilt task by the whole specification that ECS has sent again. The state of the task does not
/// change.
pub(super) fn complete(task: &mut TaskState, spec: TaskSpec) {
    let is_same = task.specs().map(|known| &known.name).eq(spec.containers.iter().map(|new| &new.name));
    if !task.reduced || !is_same {
        return;
    }
    task.reduced = false;
    let given = (task.spec.role_id.take(), task.spec.execution_role_id.take());
    task.spec = spec.info();
    // The running containers were created with these ids.
    task.spec.role_id = given.0.or(task.spec.role_id.take());
    task.spec.execution_role_id = given.1.or(task.spec.execution_role_id.take());
    let earlier = std::mem::take(&mut task.resources).into_iter();
    let mut earlier: BTreeMap<String, Resource> =
        earlier.map(|resource| (resource.spec.name.clone(), resource)).collect();
    let resources = spec.resources.into_iter().map(|spec| {
        let state = earlier.remove(&spec.name).map(|known| known.state).unwrap_or_default();
        Resource { spec, state }
    });
    task.resources = resources.collect();
    // A resource that is missing in the new specification may exist, or its creation may be pending. It is kept, so that it is
    // removed with the task; its outline names no container that waits for it.
    let kept = |known: &Resource| known.state.live.operation.is_some() || resource::may_exist(&known.state);
    task.resources.extend(earlier.into_values().filter(kept));
    for (known, new) in task.containers.iter_mut().zip(spec.containers) {
        let old = std::mem::replace(&mut known.spec, new);
        known.spec.endpoint_id = old.endpoint_id; // it is in the running container's environment
        known.spec.metadata_file = old.metadata_file; // likewise
        known.spec.essential &= old.essential;
    }
}

#[cfg(test)]
mod tests;
