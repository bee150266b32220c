//! Logs each status change of a task or container: the old status, the new one, and the reason.

use ecs_core::model::{ContainerStatus, TaskArn, TaskStatus};
use ecs_core::state::TaskState;
use ecs_core::{Key, State};
use std::collections::{BTreeMap, BTreeSet};

/// The statuses that were logged last: for each task its known and its desired status, and the known statuses of its containers.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    tasks: BTreeMap<TaskArn, (TaskStatus, TaskStatus, Vec<ContainerStatus>)>,
}

impl Trace {
    /// Treats the statuses of restored tasks as logged.
    pub(crate) fn restored(state: &State) -> Self {
        Self { tasks: state.tasks.values().map(|task| (task.spec.arn.clone(), statuses(task))).collect() }
    }

    /// Logs the statuses that have changed since the last call.
    pub(crate) fn note(&mut self, state: &State, changed: &BTreeSet<Key>) {
        for key in changed {
            let Key::Task(arn) = key else { continue };
            match state.tasks.get(arn) {
                Some(task) => self.note_task(arn, task),
                None => {
                    if self.tasks.remove(arn).is_some() {
                        tracing::info!(task = %arn.task_id(), "task cleaned up and forgotten");
                    }
                }
            }
        }
    }

    fn note_task(&mut self, arn: &TaskArn, task: &TaskState) {
        let new = statuses(task);
        let initial = || (TaskStatus::None, TaskStatus::Running, vec![ContainerStatus::None; new.2.len()]);
        let old = self.tasks.insert(arn.clone(), new.clone()).unwrap_or_else(initial);
        let id = arn.task_id();
        for ((spec, container), (old, new)) in task.pairs().zip(old.2.iter().zip(&new.2)) {
            if old != new {
                let why = container.failure.as_ref().map(ToString::to_string).unwrap_or_default();
                let exit = container.exit_code;
                tracing::info!(task = %id, container = %spec.name, %old, %new, ?exit, why, "container");
            }
        }
        if old.1 != new.1 {
            tracing::info!(task = %id, desired = %new.1, "task is to stop");
        }
        if old.0 != new.0 {
            let why = task.reason.as_deref().unwrap_or_default();
            tracing::info!(task = %id, old = %old.0, new = %new.0, why, "task");
        }
    }
}

fn statuses(task: &TaskState) -> (TaskStatus, TaskStatus, Vec<ContainerStatus>) {
    (task.known, task.desired, task.states().map(|container| container.known).collect())
}
