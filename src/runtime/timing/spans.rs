//! The spans of a task: one trace for each task.
//!
//! ```text
//! task start            from the arrival until ECS has accepted RUNNING (or STOPPED, if the task never ran)
//! ├─ admission          the wait for its share of the host
//! ├─ container          one for each container
//! │  ├─ digest, pull, create, start
//! │  └─ healthy         from the start of the container until its health check succeeds
//! ├─ report             from RUNNING until ECS has accepted it
//! └─ task stop          from the desired status STOPPED until ECS has accepted STOPPED
//!    ├─ stop            one for each container that was asked to stop
//!    └─ report          from STOPPED until ECS has accepted it
//! ```
//!
//! A task may run for months, so its trace does not wait for its end: the first part is exported when ECS has accepted RUNNING,
//! `healthy` when it happens, and the last part when ECS has accepted STOPPED. Invariant: a span whose beginning or end is not
//! known does not exist. Ids follow from the ARN and the names, so a part that another process exports fits the rest. The trace
//! has the id of the task.

use super::record::{ContainerMark, Phase, PhaseResult, TaskMark, TaskRecord};
use crate::otlp::{Ids, Span, Value};
use ecs_core::model::{Failure, Timestamp};
use ecs_core::state::{ContainerState, TaskState};

/// Gives the wall time of a time of the agent's clock.
pub(super) type Wall<'a> = &'a dyn Fn(Timestamp) -> Timestamp;

/// The name of the root.
const START: &str = "task start";
/// The name of the span of the end of a task.
const STOP: &str = "task stop";

/// The spans from the arrival until ECS has accepted RUNNING.
pub(super) fn start(record: &TaskRecord, task: &TaskState, wall: Wall<'_>) -> Vec<Span> {
    let mut spans = Spans { record, wall, ids: Ids::new(&record.arn), spans: Vec::new() };
    spans.start(task, record.at(TaskMark::RunningReported), None);
    spans.spans
}

/// The span of the wait until a container is healthy, if that came after the rest.
pub(super) fn healthy(record: &TaskRecord, index: usize, wall: Wall<'_>) -> Vec<Span> {
    let mut spans = Spans { record, wall, ids: Ids::new(&record.arn), spans: Vec::new() };
    spans.healthy(index);
    spans.spans
}

/// The spans of the end, and all earlier ones that have not been exported.
pub(super) fn stop(record: &TaskRecord, task: &TaskState, wall: Wall<'_>) -> Vec<Span> {
    let mut spans = Spans { record, wall, ids: Ids::new(&record.arn), spans: Vec::new() };
    let end = record.at(TaskMark::StoppedReported);
    if !record.start_is_exported {
        spans.start(task, end, (!task.ran).then(|| error(task)));
    }
    spans.stop(task, end);
    spans.spans
}

/// Why a task never ran, as ECS received it.
fn error(task: &TaskState) -> String {
    let failure = task.states().find_map(|container| container.failure.as_ref()).map(ToString::to_string);
    task.reason.clone().or(failure).unwrap_or_else(|| "the task stopped before it ran".to_owned())
}

/// Collects spans of a task. A parent comes before its children.
struct Spans<'a> {
    record: &'a TaskRecord,
    wall: Wall<'a>,
    ids: Ids,
    spans: Vec<Span>,
}

impl Spans<'_> {
    /// Adds a span, if its beginning and its end are known. Its name and its subject make its id, and those of its parent the id of the parent.
    fn add(
        &mut self,
        (name, subject): (&'static str, &str),
        under: Option<(&str, &str)>,
        from: Option<Timestamp>,
        to: Option<Timestamp>,
    ) -> Option<&mut Span> {
        let (from, to) = (from?, to?);
        let (trace, id) = (self.ids.trace(), self.ids.span(name, subject));
        let parent = under.map(|(name, subject)| self.ids.span(name, subject));
        let start_millis = (self.wall)(from).0;
        // The duration is that of the agent's clock, also if the wall clock was set meanwhile.
        let end_millis = start_millis + to.since(from).0;
        let (error, attributes) = (None, Vec::new());
        self.spans.push(Span { trace, id, parent, name, start_millis, end_millis, error, attributes });
        self.spans.last_mut()
    }

    fn start(&mut self, task: &TaskState, end: Option<Timestamp>, error: Option<String>) {
        let record = self.record;
        let received = record.at(TaskMark::Received);
        if let Some(root) = self.add((START, ""), None, received, end) {
            root.error = error;
            root.attributes = about_task(record);
        }
        self.add(("admission", ""), Some((START, "")), received, record.at(TaskMark::Admitted));
        for (index, state) in task.states().enumerate().take(record.containers()) {
            self.container(index, state);
        }
        let (running, reported) = (record.at(TaskMark::Running), record.at(TaskMark::RunningReported));
        self.add(("report", "RUNNING"), Some((START, "")), running, reported);
    }

    fn container(&mut self, index: usize, state: &ContainerState) {
        const START_PHASES: [Phase; 4] = [Phase::Digest, Phase::Pull, Phase::Create, Phase::Start];
        let (record, name) = (self.record, self.name(index));
        let phases = START_PHASES.map(|phase| (phase, record.phase(index, phase)));
        let running = record.container_at(index, ContainerMark::Running);
        let healthy = record.container_at(index, ContainerMark::Healthy);
        let from = phases.iter().filter_map(|(_, times)| Some(times.as_ref()?.begun)).min();
        let ends = phases.iter().filter_map(|(_, times)| times.as_ref()?.ended);
        let to = ends.chain([running, healthy].into_iter().flatten()).max();
        let failure = state.failure.as_ref().filter(|_| !state.ran).map(ToString::to_string);
        if let Some(span) = self.add(("container", &name), Some((START, "")), from, to) {
            span.error.clone_from(&failure);
            span.attributes = vec![("container.name", Value::Text(name.clone()))];
        }
        for phase in START_PHASES {
            let image_failure = state.pull_failure.as_ref().filter(|_| matches!(phase, Phase::Digest | Phase::Pull));
            let text = image_failure.map(Failure::to_string).or_else(|| failure.clone());
            self.phase(index, phase, ("container", &name), text);
        }
        self.healthy(index);
    }

    fn healthy(&mut self, index: usize) {
        let (record, name) = (self.record, self.name(index));
        let running = record.container_at(index, ContainerMark::Running);
        let healthy = record.container_at(index, ContainerMark::Healthy);
        if let Some(span) = self.add(("healthy", &name), Some(("container", &name)), running, healthy) {
            span.attributes = vec![("container.name", Value::Text(name))];
        }
    }

    fn stop(&mut self, task: &TaskState, end: Option<Timestamp>) {
        let record = self.record;
        let began = record.at(TaskMark::StopBegan);
        if let Some(span) = self.add((STOP, ""), Some((START, "")), began, end) {
            span.attributes = about_task(record);
            span.attributes
                .extend(task.reason.clone().map(|reason| ("aws.ecs.task.stopped_reason", Value::Text(reason))));
        }
        for index in 0..record.containers() {
            self.phase(index, Phase::Stop, (STOP, ""), None);
        }
        self.add(("report", "STOPPED"), Some((STOP, "")), record.at(TaskMark::Stopped), end);
    }

    /// Adds the span of a phase that has ended. `error` is what is known about its failure.
    fn phase(&mut self, index: usize, phase: Phase, under: (&str, &str), error: Option<String>) {
        let Some(times) = self.record.phase(index, phase) else { return };
        let name = self.name(index);
        let Some(span) = self.add((phase.label(), &name), Some(under), Some(times.begun), times.ended) else { return };
        if times.result == PhaseResult::Failed {
            span.error = Some(error.unwrap_or_default());
        }
        span.attributes = vec![("container.name", Value::Text(name))];
        if times.attempts > 1 {
            span.attributes.push(("attempts", Value::Number(times.attempts.into())));
        }
        let result = times.result.name().filter(|_| times.result != PhaseResult::Failed);
        span.attributes.extend(result.map(|result| ("result", Value::Text(result.to_owned()))));
    }

    fn name(&self, index: usize) -> String {
        self.record.definition.containers.get(index).map(ToString::to_string).unwrap_or_default()
    }
}

fn about_task(record: &TaskRecord) -> Vec<(&'static str, Value)> {
    let text = |text: &str| Value::Text(text.to_owned());
    let mut attributes = vec![("aws.ecs.task.arn", text(record.arn.as_str()))];
    if !record.definition.family.is_empty() {
        attributes.push(("aws.ecs.task.family", text(&record.definition.family)));
        attributes.push(("aws.ecs.task.revision", text(&record.definition.version)));
    }
    attributes
}
