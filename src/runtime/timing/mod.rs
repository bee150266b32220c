//! Where the time goes: when each task and container was received, admitted, pulled, created, started, reported, stopped.
//!
//! Fed from the same places as [`trace`](super::trace): effects that begin, events that end them, the state after each step.
//! Decides nothing, and nothing waits for it. Readers are `/v1/debug/tasks` ([`Timings::shown`]), the histograms ([`Sink`]) and
//! the exporter of spans ([`crate::otlp`]).
//!
//! Times are those of the agent's clock, which does not jump; readers get wall times. Nothing is stored: after a restart of the
//! agent, the record of a task has what its state has (when the task and its containers began to run, and stopped), and is
//! marked as restored. Everything else about the time before is absent. The list of ended tasks begins empty.
//!
//! Reading order: `record` (the moments of one task), `records` (all of them), this file, `shown` (for the debug page), `spans`.

mod record;
mod records;
mod shown;
mod spans;
#[cfg(test)]
mod tests;

use super::clock::Clock;
use crate::http::introspection;
use crate::otlp;
use ecs_core::model::view::View;
use ecs_core::model::{ContainerStatus, Health, OpError, OpId, TaskArn, TaskStatus, Timestamp};
use ecs_core::state::{ContainerState, OperationOwner, TaskState};
use ecs_core::{Effect, Event, Key, Outcome, Output, State};
use record::{ContainerMark, Phase, PhaseResult, TaskMark, TaskRecord};
use records::Records;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Takes how long a phase took, for the histograms. The names: `received_to_admitted`, `digest`, `pull`, `create`, `start`,
/// `healthy`, `received_to_running`, `stop`, `report`. A phase is observed when it has succeeded, with all its attempts and the
/// pauses between them. `pull` is only observed if something was pulled, `healthy` counts from the start of the container, and
/// `report` from the moment at which the status was reached until ECS has accepted it.
pub(crate) type Sink = Arc<dyn Fn(&'static str, Duration) + Send + Sync>;

/// An operation that has begun.
#[derive(Debug)]
struct Pending {
    arn: TaskArn,
    index: usize,
    phase: Phase,
}

/// Records moments. The core loop owns it.
pub(crate) struct Timing {
    records: Timings,
    pending: BTreeMap<OpId, Pending>,
    sink: Sink,
    /// Where spans go; `None`: nowhere.
    outbox: Option<otlp::Outbox>,
    clock: Arc<Clock>,
}

impl std::fmt::Debug for Timing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Timing").field("pending", &self.pending).finish_non_exhaustive()
    }
}

/// The records, for readers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Timings(Arc<Mutex<Records>>);

impl Timings {
    fn lock(&self) -> MutexGuard<'_, Records> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What `/v1/debug/tasks` shows: the times of the tasks of the view, and of the last ended tasks.
    pub(crate) fn shown(&self, view: &View, limit: usize, clock: &Clock) -> introspection::Timings {
        // The core loop waits for the lock, so only pointers and the records of live tasks are copied.
        let (live, finished) = {
            let records = self.lock();
            let live: Vec<TaskRecord> = records.live.values().cloned().collect();
            (live, records.finished().cloned().collect::<Vec<_>>())
        };
        shown::timings(view, &live, &finished, limit, &|at| clock.wall(at))
    }
}

impl Timing {
    /// Begins with the tasks that were restored.
    pub(crate) fn restored(state: &State, clock: Arc<Clock>, sink: Sink, outbox: Option<otlp::Outbox>) -> Self {
        let mut records = Records::default();
        for task in state.tasks.values().filter(|task| task.sent < TaskStatus::Stopped) {
            restore(&mut records, task, clock.now());
        }
        let records = Timings(Arc::new(Mutex::new(records)));
        Self { records, pending: BTreeMap::new(), sink, outbox, clock }
    }

    /// The records, for readers.
    pub(crate) fn timings(&self) -> Timings {
        self.records.clone()
    }

    /// Notes an effect that begins. `state` is the one after the step that requested it.
    pub(crate) fn begin(&mut self, state: &State, effect: &Effect, now: Timestamp) {
        match effect {
            Effect::Do(op, operation) => {
                let Some(phase) = Phase::from_operation(operation) else { return };
                let Some(OperationOwner::Container(arn, index)) = state.ops.get(op) else { return };
                let mut records = self.records.lock();
                if records.live.get_mut(arn).is_some_and(|record| record.begin(*index, phase, now)) {
                    self.pending.insert(*op, Pending { arn: arn.clone(), index: *index, phase });
                }
            }
            Effect::Cancel(op) => {
                if let Some(pending) = self.pending.remove(op) {
                    self.end(&pending, PhaseResult::GivenUp, now);
                }
            }
            Effect::Send(_) | Effect::ForgetCredentials(_) | Effect::WriteMetadata(_) | Effect::RemoveMetadata(_) => {}
        }
    }

    /// Notes an event that is about to be taken.
    pub(crate) fn event(&mut self, event: &Event, now: Timestamp) {
        let Event::Completed { op, outcome } = event else { return };
        let Some(pending) = self.pending.remove(op) else { return };
        // With an unknown outcome the phase goes on until the status of the container shows that it was done, or until the next
        // attempt has ended.
        if let Some(result) = result(pending.phase, outcome) {
            self.end(&pending, result, now);
        }
    }

    fn end(&self, pending: &Pending, result: PhaseResult, now: Timestamp) {
        let mut records = self.records.lock();
        let Some(record) = records.live.get_mut(&pending.arn) else { return };
        if let Some(took) = record.end(pending.index, pending.phase, now, result)
            && result == PhaseResult::Done
        {
            (self.sink)(pending.phase.label(), took.into());
        }
    }

    /// Notes what the last step has changed.
    pub(crate) fn note(&mut self, state: &State, changed: &BTreeSet<Key>, now: Timestamp) {
        for key in changed {
            let Key::Task(arn) = key else { continue };
            let mut records = self.records.lock();
            let Some(task) = state.tasks.get(arn) else {
                records.finish(arn);
                continue;
            };
            if !records.live.contains_key(arn) {
                if task.sent == TaskStatus::Stopped {
                    continue; // it has ended, and its record is among those of ended tasks
                }
                if task.reduced {
                    restore(&mut records, task, now);
                } else {
                    records.add(task, now).mark(TaskMark::Received, Some(now));
                }
            }
            records.refit(task);
            if let Some(record) = records.live.get_mut(arn) {
                self.note_task(record, task, now);
            }
            if task.sent == TaskStatus::Stopped {
                records.finish(arn);
            }
        }
    }

    fn note_task(&self, record: &mut TaskRecord, task: &TaskState, now: Timestamp) {
        let mut healthy = Vec::new();
        for (index, container) in task.states().enumerate() {
            if self.note_container(record, index, container, task.sent == TaskStatus::Stopped, now) {
                healthy.push(index);
            }
        }
        let was_exported = record.start_is_exported;
        // The histogram of a moment, and the earlier moment that it counts from.
        let reached = [
            (task.admitted, TaskMark::Admitted, Some(("received_to_admitted", TaskMark::Received))),
            (task.ran, TaskMark::Running, Some(("received_to_running", TaskMark::Received))),
            (task.desired == TaskStatus::Stopped, TaskMark::StopBegan, None),
            (task.known == TaskStatus::Stopped, TaskMark::Stopped, None),
            (task.sent == TaskStatus::Running, TaskMark::RunningReported, Some(("report", TaskMark::Running))),
            (task.sent == TaskStatus::Stopped, TaskMark::StoppedReported, Some(("report", TaskMark::Stopped))),
        ];
        for (_, mark, histogram) in reached.into_iter().filter(|(is_reached, ..)| *is_reached) {
            if !record.mark(mark, Some(now)) {
                continue;
            }
            if let Some((label, from)) = histogram {
                self.observe(label, record.at(from), now);
            }
            match mark {
                TaskMark::RunningReported => self.export(record, |record, wall| spans::start(record, task, wall)),
                TaskMark::StoppedReported => self.export(record, |record, wall| spans::stop(record, task, wall)),
                _ => {}
            }
            record.start_is_exported |= mark == TaskMark::RunningReported;
        }
        // A health check succeeds long after the task has been reported, unless another container waits for it.
        for index in healthy.into_iter().filter(|_| was_exported) {
            self.export(record, |record, wall| spans::healthy(record, index, wall));
        }
    }

    /// Returns true if the container is healthy for the first time. `is_last`: the record ends with this step.
    fn note_container(
        &self,
        record: &mut TaskRecord,
        index: usize,
        container: &ContainerState,
        is_last: bool,
        now: Timestamp,
    ) -> bool {
        self.settle(record, index, container, is_last, now);
        if container.ran {
            record.mark_container(index, ContainerMark::Running, Some(now));
        }
        let is_healthy =
            container.health == Health::Healthy && record.mark_container(index, ContainerMark::Healthy, Some(now));
        if is_healthy {
            self.observe("healthy", record.container_at(index, ContainerMark::Running), now);
        }
        if container.known == ContainerStatus::Stopped {
            record.mark_container(index, ContainerMark::Stopped, Some(now));
        }
        is_healthy
    }

    /// Ends the phases that got no answer, once Docker shows what came of them. `is_last`: the record ends with this step, so an
    /// answer that comes later is too late. Docker shows that a container has ended before it answers the stop, and ECS may have
    /// accepted STOPPED by then.
    fn settle(&self, record: &mut TaskRecord, index: usize, container: &ContainerState, is_last: bool, now: Timestamp) {
        let is_stopped = container.known == ContainerStatus::Stopped;
        for phase in Phase::ALL {
            let is_done = match phase {
                Phase::Digest | Phase::Pull => false,
                Phase::Create => container.known >= ContainerStatus::Created && container.runtime_id.is_some(),
                Phase::Start => container.ran,
                Phase::Stop => is_stopped,
            };
            let is_open = record.phase(index, phase).is_some_and(|times| times.ended.is_none());
            if !is_open || !(is_done || is_stopped) {
                continue;
            }
            // The answer may still come.
            let is_this =
                |pending: &Pending| (pending.index, pending.phase) == (index, phase) && pending.arn == record.arn;
            if is_last || !self.pending.values().any(is_this) {
                let result = if is_done { PhaseResult::Done } else { PhaseResult::GivenUp };
                let ended = record.container_at(index, ContainerMark::Stopped).filter(|_| is_last).unwrap_or(now);
                record.end(index, phase, ended, result);
            }
        }
    }

    fn observe(&self, label: &'static str, from: Option<Timestamp>, now: Timestamp) {
        if let Some(from) = from {
            (self.sink)(label, now.since(from).into());
        }
    }

    /// Hands spans to the exporter. It takes them or drops them at once.
    fn export(&self, record: &TaskRecord, spans: impl FnOnce(&TaskRecord, spans::Wall<'_>) -> Vec<otlp::Span>) {
        if let Some(outbox) = &self.outbox {
            outbox.push(spans(record, &|at| self.clock.wall(at)));
        }
    }
}

/// How a phase ended with this outcome of its operation; `None`: that is not known.
fn result(phase: Phase, outcome: &Outcome) -> Option<PhaseResult> {
    match outcome {
        Ok(Output::Cached | Output::Nothing) if phase == Phase::Pull => Some(PhaseResult::Cached),
        Ok(_) => Some(PhaseResult::Done),
        Err(OpError::Failed(_)) => Some(PhaseResult::Failed),
        Err(OpError::Unknown(_)) => None,
    }
}

/// Makes the record of a task that an earlier process received, or that was rebuilt from its containers. The state has few of its times; what else has happened is noted
/// without a time, so that it is not taken for something that happens now.
fn restore(records: &mut Records, task: &TaskState, now: Timestamp) {
    let running_at = (task.known == TaskStatus::Running).then_some(task.known_at);
    let stopped_at = (task.known == TaskStatus::Stopped).then_some(task.known_at);
    let containers: Vec<_> = task
        .states()
        .map(|container| {
            let stopped = (container.known == ContainerStatus::Stopped).then_some(container.changed_at);
            (container.running_since, stopped)
        })
        .collect();
    let each = containers.iter().flat_map(|(running, stopped)| [*running, *stopped]).chain([running_at, stopped_at]);
    let base = each.flatten().fold(now, Timestamp::min);
    let record = records.add(task, base);
    record.is_restored = true;
    record.start_is_exported = task.sent >= TaskStatus::Running;
    let passed = [
        (true, TaskMark::Received, None),
        (task.admitted, TaskMark::Admitted, None),
        (task.ran, TaskMark::Running, running_at),
        (task.sent >= TaskStatus::Running, TaskMark::RunningReported, None),
        (task.desired == TaskStatus::Stopped, TaskMark::StopBegan, None),
        (task.known == TaskStatus::Stopped, TaskMark::Stopped, stopped_at),
    ];
    for (_, mark, at) in passed.into_iter().filter(|(has_passed, ..)| *has_passed) {
        record.mark(mark, at);
    }
    for (index, (state, (running, stopped))) in task.states().zip(containers).enumerate() {
        let passed = [
            (state.ran, ContainerMark::Running, running),
            // It may have been healthy earlier: the next time is not the first.
            (state.health == Health::Healthy || state.health_since.is_some(), ContainerMark::Healthy, None),
            (state.known == ContainerStatus::Stopped, ContainerMark::Stopped, stopped),
        ];
        for (_, mark, at) in passed.into_iter().filter(|(has_passed, ..)| *has_passed) {
            record.mark_container(index, mark, at);
        }
    }
}
