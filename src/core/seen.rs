//! Writes observations of a container into the state, and settles operations with an unknown outcome.

use super::state::{OperationKind, TaskState};
use super::{credentials, desired, restart};
use crate::model::{ContainerStatus, Failure, Observation, RunState, Timestamp};

/// The container is given up after this many consecutive creates or starts that had an unknown outcome and turned out not to have
/// been done. (The Go agent gives up after the first, although nothing was refused. Here a busy Docker gets more than one
/// chance.)
const MAX_UNDONE_OPERATIONS: u32 = 3;

/// Writes an observation of a container. `observed` follows the facts and may go back; `known` does not.
pub(super) fn observe(task: &mut TaskState, index: usize, seen: &Observation, now: Timestamp, step: u64) {
    // Labels can be copied. A container whose creation was never requested is ours only if it has the name that this agent gives.
    if !task.containers[index].state.create_asked && seen.runtime_name != task.spec.runtime_name(&seen.container) {
        return;
    }
    let container = &mut task.containers[index].state;
    let is_same = container.runtime_id.as_ref() == Some(&seen.runtime_id);
    if (!is_same && container.observed.is_some()) || (is_same && container.removed) {
        return; // another incarnation, or an observation from before the removal
    }
    if seen.state == RunState::Created && container.ran && is_same {
        return; // an observation from before the start
    }
    container.live.touched = step;
    container.create_asked = true;
    container.removed = false;
    container.pull_failure = None;
    container.observed = Some(seen.state);
    container.remember(seen, now);
    credentials::found(task, index, &seen.ids);
    // The exit code of an earlier run says nothing about how the last one ended.
    let is_known_end = restart::repeats_known_end(task, index, seen);
    let exit_code = seen.exit_code.filter(|_| !restart::is_earlier_run(task, index, seen));
    restart::remember(task, index, seen);
    if is_known_end {
        return;
    }
    let container = &mut task.containers[index].state;
    let has_run = seen.state == RunState::Running || (seen.state == RunState::Exited && seen.started_at.is_some());
    container.raise(ContainerStatus::Created, now);
    if has_run {
        container.ran = true;
        container.running_since.get_or_insert(now);
        container.raise(ContainerStatus::Running, now);
    }
    if seen.state == RunState::Exited {
        // A container that ended at once did run. So the task may have been `RUNNING` for a moment, which is reported.
        desired::derive_midway(task, now);
        let is_restarted = has_run && restart::decide(task, index, exit_code, seen.error.as_ref(), now);
        let container = &mut task.containers[index].state;
        // Only the first end counts: if somebody started the container again, its later ends do not concern the task.
        if !container.is_stopped() || container.exit_code.is_none() {
            container.exit_code = exit_code.or(container.exit_code);
        }
        if is_restarted {
            return;
        }
        if let Some(error) = &seen.error {
            container.fail(error.clone());
        }
        container.raise(ContainerStatus::Stopped, now);
    }
}

/// Records that the container does not exist in Docker.
pub(super) fn removed(task: &mut TaskState, index: usize, now: Timestamp, step: u64) {
    // Nothing is missing then. Perhaps this agent has removed the container, so that it cannot start late.
    let is_of_no_use = task.must_stop(index) && !task.containers[index].state.ran;
    let container = &mut task.containers[index].state;
    container.live.touched = step;
    container.live.process = None;
    let existed = container.observed.take().is_some();
    // A container of a rebuilt task cannot be created again, because its specification is incomplete.
    if (existed || task.reduced) && !container.is_stopped() {
        if !is_of_no_use {
            container.fail(Failure::permanent("ContainerVanishedError", "No container matching saved ID found"));
        }
        container.raise(ContainerStatus::Stopped, now);
    }
    if container.is_stopped() {
        container.removed = true;
    }
}

/// Records that the container has been inspected. The inspection shows whether an operation with an unknown outcome was done.
pub(super) fn settle(task: &mut TaskState, index: usize) {
    let container = &mut task.containers[index].state;
    container.live.unsettled = false;
    let Some((kind, failure)) = container.live.unknown_outcome.take() else { return };
    let did_not_happen = match kind {
        OperationKind::Create => container.observed.is_none(),
        OperationKind::Start => container.observed == Some(RunState::Created) || container.restarts.due,
        OperationKind::ResolveDigest
        | OperationKind::Pull
        | OperationKind::Stop
        | OperationKind::Inspect
        | OperationKind::Remove => false,
    };
    if !did_not_happen {
        container.live.undone_operations = 0;
        return;
    }
    container.live.start_may_follow |= kind == OperationKind::Start;
    container.live.undone_operations += 1;
    if container.live.undone_operations >= MAX_UNDONE_OPERATIONS {
        container.fail(failure);
    }
}

/// An inventory shows that the container has ended, but the inspection for the details failed: it is not known whether the
/// container ever ran, nor why it ended. It must be inspected once more before anything else is done.
pub(super) fn is_end_without_details(seen: &Observation) -> bool {
    seen.state == RunState::Exited && seen.started_at.is_none() && seen.error.is_none()
}
