//! The context in which one task is planned. Every file that plans uses it.

use super::effect::{Effect, Operation};
use super::state::{Key, Owner, PendingOperation, State, TaskState};
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
    /// The earliest moment at which the task may have something to do; `None`: not without an event.
    pub(super) wake: Option<Timestamp>,
    /// The task may be given its share of the host now, if it waits for it.
    pub(super) is_its_turn: bool,
}

impl Planning<'_> {
    /// True once the moment is reached. Before that, the task is planned again at this moment.
    pub(super) fn is_time(&mut self, at: Timestamp) -> bool {
        if at <= self.now {
            return true;
        }
        self.wake = Some(self.wake.map_or(at, |wake| wake.min(at)));
        false
    }

    /// Asks for an operation on a container and marks it as pending.
    pub(super) fn start(&mut self, task: &mut TaskState, index: usize, operation: Operation) {
        let Some(kind) = operation.container_kind() else {
            debug_assert!(false, "not an operation on a container");
            return;
        };
        let id = self.state.new_op(Owner::Container(task.spec.arn.clone(), index));
        let container = &mut task.containers[index].state;
        container.live.operation = Some(PendingOperation { id, kind, since: self.now, asked: self.state.steps });
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
