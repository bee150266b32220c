//! What the planning of one task needs and leaves behind: the tool of every file that plans.

use super::effect::{Effect, Operation};
use super::state::{Key, Owner, PendingOperation, State, TaskState};
use super::step::Step;
use crate::model::Timestamp;

/// What the planning of one task needs and leaves behind.
pub(super) struct Planning<'a> {
    /// Everything but the task being planned.
    pub(super) state: &'a mut State,
    /// The time.
    pub(super) now: Timestamp,
    /// Effects and changes so far.
    pub(super) out: &'a mut Step,
    /// The earliest moment at which this task may have something to do.
    pub(super) wake: Option<Timestamp>,
    /// It may have its share of the host now, if it waits for it.
    pub(super) is_its_turn: bool,
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

    /// Marks an operation on a container as in flight and asks for it.
    pub(super) fn start(&mut self, task: &mut TaskState, index: usize, operation: Operation) {
        let Some(kind) = operation.container_kind() else {
            debug_assert!(false, "it is no operation on a container");
            return;
        };
        let id = self.state.new_op(Owner::Container(task.spec.arn.clone(), index));
        let container = &mut task.containers[index].state;
        container.live.operation = Some(PendingOperation { id, kind, since: self.now, asked: self.state.steps });
        container.live.touched = self.state.steps;
        self.changed(task);
        self.out.effects.push(Effect::Do(id, operation));
    }

    /// Lets go of an operation: its outcome will find nobody.
    pub(super) fn cancel(&mut self, task: &mut TaskState, index: usize) {
        if let Some(operation) = task.containers[index].state.live.operation.take() {
            self.state.ops.remove(&operation.id);
            self.out.effects.push(Effect::Cancel(operation.id));
        }
    }

    /// The task's document differs from what is on disk.
    pub(super) fn changed(&mut self, task: &TaskState) {
        self.out.changed.insert(Key::Task(task.spec.arn.clone()));
    }
}
