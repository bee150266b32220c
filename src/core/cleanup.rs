//! The clean-up of a stopped task: when its containers and resources are removed, and when it is removed from the state
//! ("forgotten").
//!
//! A task is cleaned up only after ECS has accepted `STOPPED` and after the configured wait, since people inspect stopped
//! containers. Invariant: a task is forgotten only when all its containers and resources are removed, so nothing is leaked.

use super::backoff::spread;
use super::effect::Operation;
use super::planning::Planning;
use super::state::{ContainerState, Key, State, TaskState};
use super::step::Step;
use super::{attachments, credentials, image, metadata_file, network, resource};
use crate::model::{RunState, Span, TaskStatus, Timestamp};

/// Starts the removal of the containers and resources that can be removed.
pub(super) fn plan(task: &mut TaskState, planning: &mut Planning<'_>) {
    if task.known != TaskStatus::Stopped || task.sent != TaskStatus::Stopped || task.live.report.is_some() {
        return;
    }
    let policy = &planning.state.policy;
    let jitter = Span::millis(spread(policy.cleanup_jitter.0, &["cleanup", &task.spec.arn.0]));
    let due = task.known_at + policy.cleanup_wait + jitter;
    if !planning.is_time(due) {
        return;
    }
    for index in 0..task.containers.len() {
        let container = &task.containers[index].state;
        let is_busy = container.live.operation.is_some()
            || container.live.unsettled
            || container.observed == Some(RunState::Running);
        let not_before = container.live.retry.not_before;
        if !container.create_asked || container.removed || is_busy || !planning.is_time(not_before) {
            continue;
        }
        let target = task.target(index);
        planning.start(task, index, Operation::Remove(target));
    }
    if !std::mem::replace(&mut task.live.removing, true) {
        metadata_file::remove(task, planning);
    }
    resource::plan(task, planning);
}

/// All containers and resources of the task are removed, and nothing of its network is left.
pub(super) fn is_done(task: &TaskState) -> bool {
    task.live.removing
        && task.states().all(ContainerState::is_gone)
        && resource::all_are_removed(task)
        && network::is_over(task)
}

/// Forgets a task, which the caller has taken out of the state: its document and its credentials are dropped, and its images are
/// recorded for the image clean-up.
pub(super) fn forget(state: &mut State, task: &TaskState, now: Timestamp, out: &mut Step) {
    image::remember(state, task, now, out);
    out.changed.insert(Key::Task(task.spec.arn.clone()));
    credentials::forget(state, task, &mut out.effects);
    attachments::forget(state, &task.spec.arn, out);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ContainerStatus, Failure, OpError, OpId, Timestamp};
    use crate::policy::Policy;
    use crate::sample::{NOW, container, done, state, task};
    use crate::{Effect, Event, Output, next_deadline, step};

    /// A stopped task of two containers. Only the creation of the first was ever requested.
    fn stopped(jitter: Span) -> State {
        let mut state = state(Policy { cleanup_wait: Span::secs(100), cleanup_jitter: jitter, ..Policy::default() });
        let inventory = *state.ops.keys().next().unwrap();
        step(&mut state, NOW, done(inventory, Output::Inventory(Vec::new())));
        let mut task = task(vec![container("a", &[]), container("b", &[])]);
        (task.known, task.sent, task.desired) = (TaskStatus::Stopped, TaskStatus::Stopped, TaskStatus::Stopped);
        task.states_mut().for_each(|container| {
            (container.known, container.sent) = (ContainerStatus::Stopped, ContainerStatus::Stopped)
        });
        (task.containers[0].state.create_asked, task.containers[0].state.observed) = (true, Some(RunState::Exited));
        (task.known_at, task.live.wake, state.wakes_from) = (NOW, Some(NOW), NOW);
        state.tasks.insert(task.spec.arn.clone(), Box::new(task));
        state
    }

    fn removals(state: &mut State, now: Timestamp) -> Vec<OpId> {
        let ops = step(state, now, Event::Tick).effects.into_iter().filter_map(|effect| match effect {
            Effect::Do(op, Operation::Remove(_)) => Some(op),
            _ => None,
        });
        ops.collect()
    }

    /// The task is forgotten after its containers are removed.
    #[test]
    fn containers_are_removed_after_the_wait() {
        let mut state = stopped(Span::default());
        assert!(removals(&mut state, NOW).is_empty());
        let due = NOW + Span::secs(100);
        assert_eq!(next_deadline(&state), Some(due));
        assert!(removals(&mut state, Timestamp(due.0 - 1)).is_empty());
        let ops = removals(&mut state, due);
        assert_eq!(ops.len(), 1, "only one was ever created");
        let failure = Failure::retryable("CannotRemoveContainerError", "busy");
        step(&mut state, due, Event::Completed { op: ops[0], outcome: Err(OpError::Failed(failure)) });
        assert!(state.tasks.contains_key(&"task".into()), "a container of the task is left");
        let again = next_deadline(&state).unwrap();
        let look = step(&mut state, again, Event::Tick).effects;
        let [Effect::Do(op, Operation::Inspect(_))] = &look[..] else { panic!("{look:?}") };
        let gone = step(&mut state, again, done(*op, Output::Seen(None)));
        assert!(state.tasks.is_empty() && gone.changed.contains(&Key::Task("task".into())), "{gone:?}");
    }

    #[test]
    fn a_task_is_kept_until_its_removal_has_answered() {
        let mut state = stopped(Span::default());
        state.tasks.get_mut(&"task".into()).unwrap().containers[0].state.runtime_id = Some("id".into());
        let due = NOW + Span::secs(100);
        let ops = removals(&mut state, due);
        let (task, container) = ("task".into(), "a".into());
        step(&mut state, due, Event::Removed { task, container, runtime_id: "id".into(), exit_code: None });
        assert!(state.tasks[&"task".into()].containers[0].state.removed, "the event was faster than the answer");
        step(&mut state, due, done(ops[0], Output::Nothing));
        assert!(state.tasks.is_empty() && state.ops.is_empty());
    }

    #[test]
    fn the_jitter_comes_on_top_of_the_wait() {
        let mut state = stopped(Span::secs(50));
        removals(&mut state, NOW);
        let due = next_deadline(&state).unwrap();
        assert!(
            (NOW + Span::secs(100)..=NOW + Span::secs(150)).contains(&due) && due != NOW + Span::secs(100),
            "{due:?}"
        );
    }

    #[test]
    fn running_unsettled_or_unreported_containers_are_kept() {
        let table: [fn(&mut TaskState); 6] = [
            |task| task.containers[0].state.observed = Some(RunState::Running),
            |task| task.containers[0].state.live.unsettled = true,
            |task| task.sent = TaskStatus::Running,
            // The report has failed, and is repeated later.
            |task| (task.sent, task.live.report_retry.not_before) = (TaskStatus::Running, NOW + Span::secs(300)),
            |task| (task.known, task.containers[0].state.known) = (TaskStatus::Running, ContainerStatus::Running),
            |task| task.containers[0].state.removed = true,
        ];
        let late = NOW + Span::secs(200);
        for (nth, change) in table.into_iter().enumerate() {
            let mut state = stopped(Span::default());
            change(state.tasks.get_mut(&"task".into()).unwrap());
            assert!(removals(&mut state, late).is_empty(), "{nth}");
        }
        // An unsettled container is also kept while an inventory that will show it is pending.
        let mut state = stopped(Span::default());
        state.inventory.events_missed = true;
        state.tasks.get_mut(&"task".into()).unwrap().containers[0].state.live.unsettled = true;
        assert!(removals(&mut state, late).is_empty());
    }
}
