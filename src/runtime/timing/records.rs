//! The records of the tasks that have not ended, and of the last ones that have. Bounded.

use super::record::{Definition, TaskRecord};
use ecs_core::model::{ContainerName, TaskArn, Timestamp};
use ecs_core::state::TaskState;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// Number of ended tasks that are kept.
pub(super) const MAX_FINISHED: usize = 1_000;

/// The records of tasks.
#[derive(Debug, Default)]
pub(super) struct Records {
    /// Tasks that ECS does not know to have stopped. The state has as many.
    pub(super) live: BTreeMap<TaskArn, TaskRecord>,
    /// Tasks that ECS knows to have stopped, or that were given up; the newest is last.
    finished: VecDeque<Arc<TaskRecord>>,
    /// Names, once for all tasks of a definition.
    definitions: BTreeSet<Arc<Definition>>,
}

impl Records {
    /// The shared names of the task.
    fn definition(&mut self, task: &TaskState) -> Arc<Definition> {
        let containers: Vec<ContainerName> = task.specs().map(|spec| spec.name.clone()).collect();
        let wanted = Definition { family: task.spec.family.clone(), version: task.spec.version.clone(), containers };
        if let Some(known) = self.definitions.get(&wanted) {
            return Arc::clone(known);
        }
        let new = Arc::new(wanted);
        self.definitions.insert(Arc::clone(&new));
        new
    }

    /// Makes an empty record of a task.
    pub(super) fn add(&mut self, task: &TaskState, base: Timestamp) -> &mut TaskRecord {
        let definition = self.definition(task);
        let arn = &task.spec.arn;
        self.live.entry(arn.clone()).or_insert_with(|| TaskRecord::new(arn.clone(), definition, base))
    }

    /// Makes the names of a record those of the task: a task that was rebuilt from its containers gets the others later.
    pub(super) fn refit(&mut self, task: &TaskState) {
        let names_differ = |record: &TaskRecord| {
            let known = &record.definition;
            known.family != task.spec.family
                || known.containers.len() != task.containers.len()
                || !task.specs().zip(&known.containers).all(|(spec, known)| spec.name == *known)
        };
        if self.live.get(&task.spec.arn).is_some_and(names_differ) {
            let definition = self.definition(task);
            if let Some(record) = self.live.get_mut(&task.spec.arn) {
                record.rename(definition);
            }
        }
    }

    /// Puts the record of a task among those of ended tasks. The oldest one makes room.
    pub(super) fn finish(&mut self, arn: &TaskArn) {
        let Some(record) = self.live.remove(arn) else { return };
        if self.finished.len() >= MAX_FINISHED {
            self.finished.pop_front();
            self.definitions.retain(|definition| Arc::strong_count(definition) > 1);
        }
        self.finished.push_back(Arc::new(record));
    }

    /// The records of ended tasks, the newest first.
    pub(super) fn finished(&self) -> impl Iterator<Item = &Arc<TaskRecord>> {
        self.finished.iter().rev()
    }

    /// Number of bytes in memory.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        let records: usize = self.finished().map(|record| record.bytes() + size_of::<usize>()).sum();
        let names = |definition: &Arc<Definition>| {
            let names: usize = definition.containers.iter().map(|name| name.as_str().len() + 32).sum();
            size_of::<Definition>() + definition.family.len() + definition.version.len() + names
        };
        records + self.definitions.iter().map(names).sum::<usize>()
    }
}
