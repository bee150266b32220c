//! Writes observations of a container into the state.

use super::state::{OperationKind, TaskState};
use super::{desired, restart};
use crate::model::{ContainerStatus, Failure, Observation, RunState, Timestamp};

/// How many consecutive creates or starts may have an unknown outcome and turn out not to have been done, before the container is
/// given up. (The Go agent gives up after the first, though nothing was refused. Here a busy Docker gets more than one chance.)
const MAX_DOUBTS: u32 = 3;

/// Writes an observation of a container. `observed` follows the facts and may go back; `known` does not.
pub(super) fn observe(task: &mut TaskState, index: usize, seen: &Observation, now: Timestamp, step: u64) {
    // Labels can be copied. A container whose creation was never asked for is ours only if it has the name that this agent gives.
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
    container.remember(seen);
    // The exit code of an earlier run says nothing about how the last one ended.
    let is_answered = restart::is_answered(task, index, seen);
    let exit_code = seen.exit_code.filter(|_| !restart::is_earlier_run(task, index, seen));
    restart::remember(task, index, seen);
    if is_answered {
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
        // A container that ended at once did run, so the task is `RUNNING` for this moment, and that is reported.
        desired::derive_midway(task, now);
        let is_restarted = has_run && restart::decide(task, index, exit_code, seen.error.as_ref(), now);
        let container = &mut task.containers[index].state;
        // The first end counts: the task is not affected by what somebody did to the container afterwards.
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

/// Docker has no such container.
pub(super) fn removed(task: &mut TaskState, index: usize, now: Timestamp, step: u64) {
    let container = &mut task.containers[index].state;
    container.live.touched = step;
    let existed = container.observed.take().is_some();
    // A container of a rebuilt task cannot be created again, because its specification is incomplete.
    if (existed || task.reduced) && !container.is_stopped() {
        container.fail(Failure::permanent("ContainerVanishedError", "No container matching saved ID found"));
        container.raise(ContainerStatus::Stopped, now);
    }
    if container.is_stopped() {
        container.removed = true;
    }
}

/// The container has been inspected, which decides about an operation with an unknown outcome.
pub(super) fn settle(task: &mut TaskState, index: usize) {
    let container = &mut task.containers[index].state;
    container.live.unsettled = false;
    let Some((kind, failure)) = container.live.doubt.take() else { return };
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
        container.live.doubts = 0;
        return;
    }
    container.live.doubts += 1;
    if container.live.doubts >= MAX_DOUBTS {
        container.fail(failure);
    }
}

/// A listing shows that the container has ended, but its inspection failed: whether it ever ran and why it ended is not known. It
/// must be inspected once more before anything follows.
pub(super) fn is_end_without_details(seen: &Observation) -> bool {
    seen.state == RunState::Exited && seen.started_at.is_none() && seen.error.is_none()
}
