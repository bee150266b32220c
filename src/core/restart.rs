//! The restart policy of a container: when a container that ended by itself is started again (spec `task-engine.md` §8).
//!
//! A restart is decided when the end of the container is seen. The restart is counted and on disk before the start is requested.
//! Until the container is seen running again, the restart is *due*. So if the agent dies in between, the restart is neither lost
//! nor done twice. The known status of the container stays `RUNNING` all the while. Runs are distinguished by the time of their
//! start, as Docker reports it. An observation of a run before the last one is outdated.

use super::state::{Container, ContainerState, NoRestart, TaskState, is_earlier};
use crate::model::task::RestartPolicy;
use crate::model::{Failure, Observation, RunState, Timestamp};

/// Decides whether a container that has ended is started again, and records the restart.
///
/// There is no restart if the container must stop, if its exit code is not known or the policy ignores it, or if the last start
/// is too recent.
pub(super) fn decide(
    task: &mut TaskState,
    index: usize,
    exit_code: Option<i32>,
    error: Option<&Failure>,
    now: Timestamp,
) -> bool {
    if task.must_stop(index) {
        return false;
    }
    let Container { spec, state: container } = &mut task.containers[index];
    let Some(policy) = &spec.restart else { return false };
    container.live.no_restart = refusal(policy, container, exit_code, now);
    if container.live.no_restart.is_some() {
        return false;
    }
    let restarts = &mut container.restarts;
    (restarts.count, restarts.last, restarts.due) = (restarts.count.saturating_add(1), Some(now), true);
    restarts.error = error.cloned();
    true
}

/// Why the policy does not restart a container that has ended; `None` if it does.
fn refusal(
    policy: &RestartPolicy,
    container: &ContainerState,
    exit_code: Option<i32>,
    now: Timestamp,
) -> Option<NoRestart> {
    let Some(code) = exit_code else { return Some(NoRestart::ExitCodeUnknown) };
    let Some(since) = container.restarts.last.or(container.running_since) else { return Some(NoRestart::NeverRan) };
    if policy.ignored_exit_codes.contains(&code) {
        return Some(NoRestart::ExitCodeIgnored(code));
    }
    let ran = now.since(since);
    (ran < policy.attempt_period).then_some(NoRestart::TooSoon { ran, period: policy.attempt_period })
}

/// Gives up a due restart, because the container must stop. The end of the last run then counts as the end of the container.
pub(super) fn give_up(container: &mut ContainerState) {
    container.restarts.due = false;
    if let Some(error) = container.restarts.error.take() {
        container.fail(error);
    }
}

/// The observation is outdated: it shows a run before the last one, or the last one, whose end is known already.
pub(super) fn is_outdated(task: &TaskState, index: usize, seen: &Observation) -> bool {
    let (spec, container) = (&task.containers[index].spec, &task.containers[index].state);
    if spec.restart.is_none() || container.runtime_id.as_ref() != Some(&seen.runtime_id) {
        return false;
    }
    let has_ended = container.observed == Some(RunState::Exited) && seen.started_at == container.restarts.run;
    (has_ended && seen.started_at.is_some()) || is_earlier_run(task, index, seen)
}

/// The observed run began before the last known run.
pub(super) fn is_earlier_run(task: &TaskState, index: usize, seen: &Observation) -> bool {
    match (&seen.started_at, &task.containers[index].state.restarts.run) {
        (Some(seen), Some(last)) => is_earlier(seen, last),
        (None, _) | (Some(_), None) => false,
    }
}

/// The observation repeats the end that caused the due restart.
pub(super) fn repeats_known_end(task: &TaskState, index: usize, seen: &Observation) -> bool {
    let restarts = &task.containers[index].state.restarts;
    restarts.due && seen.state == RunState::Exited && seen.started_at == restarts.run
}

/// Records the observed run. If it is a new run, or if the container runs, the restart is no longer due.
pub(super) fn remember(task: &mut TaskState, index: usize, seen: &Observation) {
    if task.containers[index].spec.restart.is_none() || seen.state == RunState::Created {
        return;
    }
    let container = &mut task.containers[index].state;
    let is_another = seen.started_at.is_some() && seen.started_at != container.restarts.run;
    if is_another {
        container.restarts.run.clone_from(&seen.started_at);
    }
    // Another run has begun, whoever requested it.
    if is_another || seen.state == RunState::Running {
        (container.restarts.due, container.restarts.error, container.live.undone_operations) = (false, None, 0);
    }
    if seen.state == RunState::Running && !container.is_stopped() {
        container.exit_code = None; // it belonged to the run before
    }
}

#[cfg(test)]
mod tests;
