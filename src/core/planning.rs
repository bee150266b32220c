//! The context in which one task is planned, shared by all files that plan.

use super::effect::{Effect, Operation};
use super::state::{Key, OperationOwner, PendingOperation, State, TaskState};
use super::step::Step;
use crate::model::Timestamp;

/// The context in which one task is planned: its inputs, and the effects and changes so far.
pub(super) struct Planning<'a> {
    /// The state, without the task that is being planned.
    pub(super) state: &'a mut State,
    /// The current time.
    pub(super) now: Timestamp,
    /// Effects and changes so far.
    pub(super) out: &'a mut Step,
    /// The earliest moment at which the task must be planned again; `None`: not without an event.
    pub(super) wake: Option<Timestamp>,
    /// If the task waits for its share of the host, it may be admitted now.
    pub(super) may_be_admitted: bool,
}

impl Planning<'_> {
    /// True if the moment has been reached. Otherwise the task is planned again at this moment.
    pub(super) fn is_time(&mut self, at: Timestamp) -> bool {
        if at <= self.now {
            return true;
        }
        self.wake = Some(self.wake.map_or(at, |wake| wake.min(at)));
        false
    }

    /// Requests an operation on a container and records it as pending.
    pub(super) fn start(&mut self, task: &mut TaskState, index: usize, operation: Operation) {
        let Some(kind) = operation.container_kind() else {
            debug_assert!(false, "not an operation on a container");
            return;
        };
        let id = self.state.new_op(OperationOwner::Container(task.spec.arn.clone(), index));
        let container = &mut task.containers[index].state;
        container.live.operation =
            Some(PendingOperation { id, kind, since: self.now, asked_in_step: self.state.steps });
        container.live.touched = self.state.steps;
        self.changed(task);
        self.out.effects.push(Effect::Do(id, operation));
    }

    /// Cancels the pending operation on a container. Its outcome will be ignored.
    pub(super) fn cancel(&mut self, task: &mut TaskState, index: usize) {
        if let Some(operation) = task.containers[index].state.live.operation.take() {
            self.state.ops.remove(&operation.id);
            self.out.effects.push(Effect::Cancel(operation.id));
        }
    }

    /// Marks the task's document as changed.
    pub(super) fn changed(&mut self, task: &TaskState) {
        self.out.changed.insert(Key::Task(task.spec.arn.clone()));
    }
}
