//! Turns the state into effects. It never reads the event. It calls the file of each subject in a fixed order until nothing
//! changes any more.

use super::planning::Planning;
use super::state::{State, TaskState};
use super::step::Step;
use super::{
    admission, attachments, cleanup, container, credentials, desired, image, inventory, metadata_file, network, report,
    resource,
};
use crate::model::text::cleaned;
use crate::model::{TaskArn, TaskStatus, Timestamp};
use std::collections::BTreeSet;

/// The tasks whose `wake` has been reached, so they must be planned.
pub(super) fn due(state: &mut State, now: Timestamp) -> BTreeSet<TaskArn> {
    if now < state.wakes_from {
        return BTreeSet::new();
    }
    let later = state.tasks.values().filter_map(|task| task.live.wake).filter(|wake| *wake > now).min();
    state.wakes_from = later.unwrap_or(Timestamp::END);
    let due = state.tasks.values().filter(|task| task.live.wake.is_some_and(|wake| wake <= now));
    due.map(|task| task.spec.arn.clone()).collect()
}

/// Plans these tasks, and the waiting tasks that fit on the host afterwards.
pub(super) fn plan(state: &mut State, now: Timestamp, mut work: BTreeSet<TaskArn>, out: &mut Step) {
    loop {
        // Computed once: while these tasks are planned, only their own admissions take something that is free.
        let waits = |arn: &TaskArn| state.tasks.get(arn).is_some_and(|task| admission::waits(task));
        let admissible = if work.iter().any(waits) { admission::admissible(state, now) } else { BTreeSet::new() };
        let mut has_made_room = false;
        while let Some(arn) = work.pop_first() {
            // Taken out of the state while it is planned, so that the task and the other tasks can be borrowed separately.
            let Some(mut task) = state.tasks.remove(&arn) else { continue };
            let may_be_admitted = admissible.contains(&arn);
            let mut planning = Planning { state: &mut *state, now, out: &mut *out, wake: None, may_be_admitted };
            plan_task(&mut task, &mut planning);
            let wake = planning.wake;
            has_made_room |= !admission::holds(&task) && !admission::waits(&task);
            if cleanup::is_done(&task) {
                cleanup::forget(state, &task, now, out);
            } else {
                task.live.wake = wake;
                state.wakes_from = wake.map_or(state.wakes_from, |wake| wake.min(state.wakes_from));
                state.tasks.insert(arn, task);
            }
        }
        if has_made_room {
            work = admission::admissible(state, now);
        }
        if work.is_empty() && image::plan(state, now, out) {
            work = state.tasks.keys().cloned().collect();
        }
        if work.is_empty() {
            break;
        }
    }
    attachments::plan(state, now, out);
    inventory::plan(state, now, out);
}

fn plan_task(task: &mut TaskState, planning: &mut Planning<'_>) {
    loop {
        planning.wake = None; // a moment from before the last change no longer counts
        let mut has_changed = desired::derive(task, planning.now);
        has_changed |= admit(task, planning);
        has_changed |= network::plan(task, planning);
        for index in 0..task.containers.len() {
            has_changed |= container::advance(task, index, planning);
        }
        resource::plan(task, planning);
        if !has_changed {
            break;
        }
        planning.changed(task);
    }
    metadata_file::plan(task, planning);
    credentials::retire(task, planning);
    report::plan(task, planning);
    cleanup::plan(task, planning);
}

fn admit(task: &mut TaskState, planning: &Planning<'_>) -> bool {
    if !admission::waits(task) {
        return false;
    }
    if let Some(reason) = admission::impossible(&planning.state.policy.capacity, task) {
        task.reason.get_or_insert(cleaned(&reason)); // the reason quotes the task definition
        task.desired = TaskStatus::Stopped;
        return true;
    }
    task.admitted = planning.may_be_admitted;
    task.admitted
}
