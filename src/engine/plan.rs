//! State to effects. Never looks at the event; calls the files that own a subject in a fixed order until nothing moves.

use super::effect::Effect;
use super::state::{Operation, OperationKind, Owner, State, TaskState};
use super::{Key, Step, admission, cleanup, container, credentials, desired, image, inventory, report, resource};
use crate::model::text::cleaned;
use crate::model::{OpId, TaskArn, TaskStatus, Timestamp};
use std::collections::BTreeSet;

/// What the planning of one task needs and leaves behind.
pub(super) struct Planning<'a> {
    /// Everything but the task being planned.
    pub(super) state: &'a mut State,
    /// The time.
    pub(super) now: Timestamp,
    /// Effects and changes so far.
    pub(super) out: &'a mut Step,
    /// The earliest moment at which this task may have something to do.
    wake: Option<Timestamp>,
    /// It may have its share of the host now, if it waits for it.
    is_its_turn: bool,
}

impl Planning<'_> {
    /// True once the moment is reached; until then the task is woken at it.
    pub(super) fn is_time(&mut self, at: Timestamp) -> bool {
        if at <= self.now {
            return true;
        }
        self.wake = Some(self.wake.map_or(at, |wake| wake.min(at)));
        false
    }

    /// Marks an operation as in flight and asks for it.
    pub(super) fn start(
        &mut self,
        task: &mut TaskState,
        index: usize,
        kind: OperationKind,
        effect: impl FnOnce(OpId) -> Effect,
    ) {
        let id = self.state.new_op(Owner::Container(task.spec.arn.clone(), index));
        let container = &mut task.containers[index];
        container.operation = Some(Operation { id, kind, since: self.now, asked: self.state.steps });
        container.touched = self.state.steps;
        self.changed(task);
        self.out.effects.push(effect(id));
    }

    /// Lets go of an operation: its outcome will find nobody.
    pub(super) fn cancel(&mut self, task: &mut TaskState, index: usize) {
        if let Some(operation) = task.containers[index].operation.take() {
            self.state.ops.remove(&operation.id);
            self.out.effects.push(Effect::Cancel { op: operation.id });
        }
    }

    /// The task's document differs from what is on disk.
    pub(super) fn changed(&mut self, task: &TaskState) {
        self.out.changed.insert(Key::Task(task.spec.arn.clone()));
    }
}

/// Tasks for which a moment has come. They are to be planned.
pub(super) fn due(state: &mut State, now: Timestamp) -> BTreeSet<TaskArn> {
    if now < state.wakes_from {
        return BTreeSet::new();
    }
    let later = state.tasks.values().filter_map(|task| task.wake).filter(|wake| *wake > now).min();
    state.wakes_from = later.unwrap_or(Timestamp::END);
    let due = state.tasks.values().filter(|task| task.wake.is_some_and(|wake| wake <= now));
    due.map(|task| task.spec.arn.clone()).collect()
}

/// Plans these tasks, and those their changes make room for.
pub(super) fn plan(state: &mut State, now: Timestamp, mut work: BTreeSet<TaskArn>, out: &mut Step) {
    loop {
        // Found once: while these tasks are planned, nothing but their admission takes from what is free.
        let waits = |arn: &TaskArn| state.tasks.get(arn).is_some_and(|task| admission::waits(task));
        let turn = if work.iter().any(waits) { admission::turn(state, now) } else { BTreeSet::new() };
        let mut has_made_room = false;
        while let Some(arn) = work.pop_first() {
            // Taken out of the state for the time being, so that the planner sees the task and the others apart.
            let Some(mut task) = state.tasks.remove(&arn) else { continue };
            let is_its_turn = turn.contains(&arn);
            let mut planning = Planning { state: &mut *state, now, out: &mut *out, wake: None, is_its_turn };
            plan_task(&mut task, &mut planning);
            let wake = planning.wake;
            has_made_room |= !admission::holds(&task) && !admission::waits(&task);
            if cleanup::is_over(&task) {
                cleanup::forget(state, &task, now, out);
            } else {
                task.wake = wake;
                state.wakes_from = wake.map_or(state.wakes_from, |wake| wake.min(state.wakes_from));
                state.tasks.insert(arn, task);
            }
        }
        if has_made_room {
            work = admission::turn(state, now);
        }
        if work.is_empty() && image::plan(state, now, out) {
            work = state.tasks.keys().cloned().collect();
        }
        if work.is_empty() {
            break;
        }
    }
    inventory::plan(state, now, out);
}

fn plan_task(task: &mut TaskState, planning: &mut Planning<'_>) {
    loop {
        planning.wake = None; // what had to be waited for before something moved says nothing any more
        let mut moved = desired::derive(task, planning.now);
        moved |= admit(task, planning);
        for index in 0..task.containers.len() {
            moved |= container::advance(task, index, planning);
        }
        resource::plan(task, planning);
        if !moved {
            break;
        }
        planning.changed(task);
    }
    credentials::retire(task, planning);
    report::plan(task, planning);
    cleanup::plan(task, planning);
}

fn admit(task: &mut TaskState, planning: &Planning<'_>) -> bool {
    if !admission::waits(task) {
        return false;
    }
    if let Some(reason) = admission::impossible(&planning.state.policy.capacity, task) {
        task.reason.get_or_insert(cleaned(&reason)); // it quotes the task definition
        task.desired = TaskStatus::Stopped;
        return true;
    }
    task.admitted = planning.is_its_turn;
    task.admitted
}
