//! The moments of one task and of its containers, in few bytes.
//!
//! A record has no clock: the caller says when something happened, by the agent's clock ([`super::super::clock`]). Each moment is
//! an offset of five bytes from the base of its task. Names are shared by all tasks of a definition ([`Definition`]). Invariant:
//! what is not known is absent. A moment that passed before this process started is known to have passed, without a time.

use ecs_core::Operation;
use ecs_core::model::{ContainerName, Span, TaskArn, Timestamp};
use std::sync::Arc;

/// A length of time in seconds, for readers.
pub(super) fn seconds(span: Span) -> f64 {
    span.0 as f64 / 1000.0
}

/// A moment: milliseconds since the base of its record, up to 34 years. Five bytes, since there are dozens for each task.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Offset([u8; 5]);

impl Offset {
    /// The largest offset; a longer one is shortened to it.
    const MAX: u64 = (1 << 40) - 3;
    /// It has happened, but nobody knows when.
    pub(super) const PASSED: Self = Self([0xff; 5]);

    fn new(millis: u64) -> Self {
        let [a, b, c, d, e, ..] = (millis.min(Self::MAX) + 1).to_le_bytes();
        Self([a, b, c, d, e])
    }

    /// Milliseconds since the base; `None`: it has not happened, or it is not known when.
    fn millis(self) -> Option<u64> {
        let [a, b, c, d, e] = self.0;
        let stored = u64::from_le_bytes([a, b, c, d, e, 0, 0, 0]);
        (self != Self::PASSED).then(|| stored.checked_sub(1)).flatten()
    }

    /// It has happened, whether or not it is known when.
    fn has_passed(self) -> bool {
        self != Self::default()
    }
}

/// A moment in the life of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TaskMark {
    /// The task arrived.
    Received,
    /// The task was admitted.
    Admitted,
    /// The task reached RUNNING.
    Running,
    /// ECS accepted the report of RUNNING.
    RunningReported,
    /// The desired status became STOPPED: ECS asked for that, or an essential container was lost.
    StopBegan,
    /// The task reached STOPPED.
    Stopped,
    /// ECS accepted the report of STOPPED.
    StoppedReported,
}

impl TaskMark {
    /// All of them, in the usual order.
    pub(super) const ALL: [Self; 7] = [
        Self::Received,
        Self::Admitted,
        Self::Running,
        Self::RunningReported,
        Self::StopBegan,
        Self::Stopped,
        Self::StoppedReported,
    ];

    /// The name in the answer of `/v1/debug/tasks`.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Received => "Received",
            Self::Admitted => "Admitted",
            Self::Running => "Running",
            Self::RunningReported => "RunningReported",
            Self::StopBegan => "StopBegan",
            Self::Stopped => "Stopped",
            Self::StoppedReported => "StoppedReported",
        }
    }
}

/// A moment in the life of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ContainerMark {
    /// The container was first seen running.
    Running,
    /// The health check first succeeded.
    Healthy,
    /// The container will not run again.
    Stopped,
}

impl ContainerMark {
    /// All of them, in the usual order.
    pub(super) const ALL: [Self; 3] = [Self::Running, Self::Healthy, Self::Stopped];

    /// The name in the answer of `/v1/debug/tasks`.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Running => "Running",
            Self::Healthy => "Healthy",
            Self::Stopped => "Stopped",
        }
    }
}

/// Work on a container that has a beginning and an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The digest of the image is resolved.
    Digest,
    /// The image is pulled.
    Pull,
    /// The container is created.
    Create,
    /// The container is started for the first time.
    Start,
    /// The container is stopped.
    Stop,
}

impl Phase {
    /// All of them, in the usual order.
    pub(super) const ALL: [Self; 5] = [Self::Digest, Self::Pull, Self::Create, Self::Start, Self::Stop];

    /// The phase that an operation is a part of; `None`: it is a part of none.
    pub(super) fn from_operation(operation: &Operation) -> Option<Self> {
        match operation {
            Operation::ResolveDigest(_) => Some(Self::Digest),
            Operation::Pull(_) => Some(Self::Pull),
            Operation::Create(_) => Some(Self::Create),
            Operation::Start(_) => Some(Self::Start),
            Operation::Stop { .. } => Some(Self::Stop),
            Operation::Inspect(_)
            | Operation::Remove(_)
            | Operation::CreateResource(_)
            | Operation::RemoveResource(_)
            | Operation::RenewResource(_)
            | Operation::Inventory
            | Operation::CleanImages(_)
            | Operation::Report(_)
            | Operation::SetUpNetwork(_)
            | Operation::TearDownNetwork(_)
            | Operation::ReportAttachment(_) => None,
        }
    }

    /// The name in the answer of `/v1/debug/tasks`.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Digest => "Digest",
            Self::Pull => "Pull",
            Self::Create => "Create",
            Self::Start => "Start",
            Self::Stop => "Stop",
        }
    }

    /// The name of the histogram and of the span.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Digest => "digest",
            Self::Pull => "pull",
            Self::Create => "create",
            Self::Start => "start",
            Self::Stop => "stop",
        }
    }
}

/// How a phase ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum PhaseResult {
    /// It did what it should, or has not ended.
    #[default]
    Done,
    /// There was no need to pull, or the pull failed and the image was on this host.
    Cached,
    /// Its last attempt failed.
    Failed,
    /// It was given up, since it was not needed any more.
    GivenUp,
}

impl PhaseResult {
    /// The name in the answer of `/v1/debug/tasks`, and of the attribute of a span; `None` for the usual result.
    pub(super) fn name(self) -> Option<&'static str> {
        match self {
            Self::Done => None,
            Self::Cached => Some("cached"),
            Self::Failed => Some("failed"),
            Self::GivenUp => Some("given-up"),
        }
    }
}

/// One phase of a container, with all its attempts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct PhaseRecord {
    /// The beginning of the first attempt.
    begun: Offset,
    /// The end of the last attempt.
    ended: Offset,
    attempts: u8,
    result: PhaseResult,
}

/// A phase as a reader sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PhaseTimes {
    /// The beginning of the first attempt.
    pub(super) begun: Timestamp,
    /// The end of the last attempt; `None`: it has not ended.
    pub(super) ended: Option<Timestamp>,
    /// Number of attempts.
    pub(super) attempts: u8,
    /// How the last attempt ended.
    pub(super) result: PhaseResult,
}

/// The moments of one container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ContainerRecord {
    phases: [PhaseRecord; Phase::ALL.len()],
    marks: [Offset; ContainerMark::ALL.len()],
}

/// What tasks of one task definition share.
#[derive(Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Definition {
    /// The family of the task definition; empty if it is not known.
    pub(super) family: String,
    /// The revision of the task definition.
    pub(super) version: String,
    /// The names of the containers.
    pub(super) containers: Vec<ContainerName>,
}

/// The moments of one task.
#[derive(Clone, Debug)]
pub(super) struct TaskRecord {
    /// The task.
    pub(super) arn: TaskArn,
    /// Names.
    pub(super) definition: Arc<Definition>,
    /// The agent has restarted since the task was received.
    pub(super) is_restored: bool,
    /// The spans of the start of the task were handed to the exporter, by this process or by an earlier one.
    pub(super) start_is_exported: bool,
    /// The moment that all offsets count from. It means nothing by itself.
    base: Timestamp,
    marks: [Offset; TaskMark::ALL.len()],
    containers: Box<[ContainerRecord]>,
}

impl TaskRecord {
    /// A record without any moment. No moment may be before `base`.
    pub(super) fn new(arn: TaskArn, definition: Arc<Definition>, base: Timestamp) -> Self {
        let containers = vec![ContainerRecord::default(); definition.containers.len()].into_boxed_slice();
        let (is_restored, start_is_exported, marks) = (false, false, Default::default());
        Self { arn, definition, is_restored, start_is_exported, base, marks, containers }
    }

    /// Replaces the list of container names. Records of containers are matched by name.
    pub(super) fn rename(&mut self, definition: Arc<Definition>) {
        let old = std::mem::take(&mut self.containers);
        let kept = |name: &ContainerName| {
            let index = self.definition.containers.iter().position(|known| known == name)?;
            old.get(index).copied()
        };
        self.containers = definition.containers.iter().map(|name| kept(name).unwrap_or_default()).collect();
        self.definition = definition;
    }

    fn offset(&self, at: Timestamp) -> Offset {
        Offset::new(at.since(self.base).0)
    }

    fn moment(&self, offset: Offset) -> Option<Timestamp> {
        offset.millis().map(|millis| self.base + Span::millis(millis))
    }

    /// When this happened; `None`: it has not, or it is not known when.
    pub(super) fn at(&self, mark: TaskMark) -> Option<Timestamp> {
        self.moment(self.marks[mark as usize])
    }

    /// Notes that this happened, or (`None`) that it had happened at a time that is not known. Returns false if it had been noted
    /// already: the first time counts.
    pub(super) fn mark(&mut self, mark: TaskMark, at: Option<Timestamp>) -> bool {
        let offset = at.map_or(Offset::PASSED, |at| self.offset(at));
        let place = &mut self.marks[mark as usize];
        let is_new = !place.has_passed();
        if is_new {
            *place = offset;
        }
        is_new
    }

    /// Number of containers.
    pub(super) fn containers(&self) -> usize {
        self.containers.len()
    }

    /// When this happened to a container; `None`: it has not, or it is not known when.
    pub(super) fn container_at(&self, index: usize, mark: ContainerMark) -> Option<Timestamp> {
        self.moment(self.containers.get(index)?.marks[mark as usize])
    }

    /// Like [`Self::mark`], for a container.
    pub(super) fn mark_container(&mut self, index: usize, mark: ContainerMark, at: Option<Timestamp>) -> bool {
        let offset = at.map_or(Offset::PASSED, |at| self.offset(at));
        let Some(container) = self.containers.get_mut(index) else { return false };
        let place = &mut container.marks[mark as usize];
        let is_new = !place.has_passed();
        if is_new {
            *place = offset;
        }
        is_new
    }

    /// The phase of a container; `None`: it has not begun in this process.
    pub(super) fn phase(&self, index: usize, phase: Phase) -> Option<PhaseTimes> {
        let found = self.containers.get(index)?.phases[phase as usize];
        let begun = self.moment(found.begun)?;
        Some(PhaseTimes { begun, ended: self.moment(found.ended), attempts: found.attempts, result: found.result })
    }

    /// Notes that an attempt begins. Returns false if it is not a part of the phase: a container that has run is started again by
    /// its restart policy.
    pub(super) fn begin(&mut self, index: usize, phase: Phase, now: Timestamp) -> bool {
        let offset = self.offset(now);
        let Some(container) = self.containers.get_mut(index) else { return false };
        if phase == Phase::Start && container.marks[ContainerMark::Running as usize].has_passed() {
            return false;
        }
        let found = &mut container.phases[phase as usize];
        if !found.begun.has_passed() {
            found.begun = offset;
        }
        (found.ended, found.result) = (Offset::default(), PhaseResult::Done);
        found.attempts = found.attempts.saturating_add(1);
        true
    }

    /// Notes that the phase has ended. Returns how long it took with all its attempts; `None`: it was not in progress.
    pub(super) fn end(&mut self, index: usize, phase: Phase, now: Timestamp, result: PhaseResult) -> Option<Span> {
        let offset = self.offset(now);
        let base = self.base;
        let found = &mut self.containers.get_mut(index)?.phases[phase as usize];
        let begun = found.begun.millis().filter(|_| !found.ended.has_passed())?;
        (found.ended, found.result) = (offset, result);
        Some(now.since(base + Span::millis(begun)))
    }

    /// Number of bytes in memory, without what it shares with others.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        let counts = 2 * size_of::<usize>(); // of an `Arc`
        size_of::<Self>() + counts + size_of_val(&*self.containers) + counts + self.arn.as_str().len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: Timestamp = Timestamp(1_795_303_000_000);

    fn record() -> TaskRecord {
        let definition = Definition { containers: vec!["app".into(), "side".into()], ..Definition::default() };
        TaskRecord::new("arn".into(), Arc::new(definition), BASE)
    }

    #[test]
    fn an_offset_holds_years_and_knows_what_it_does_not_know() {
        for millis in [0, 1, 255, 256, 86_400_000 * 365 * 10, Offset::MAX, Offset::MAX + 7, u64::MAX] {
            assert_eq!(Offset::new(millis).millis(), Some(millis.min(Offset::MAX)), "{millis}");
            assert!(Offset::new(millis).has_passed() && Offset::new(millis) != Offset::PASSED);
        }
        assert_eq!((Offset::default().millis(), Offset::default().has_passed()), (None, false));
        assert_eq!((Offset::PASSED.millis(), Offset::PASSED.has_passed()), (None, true));
    }

    #[test]
    fn the_first_time_counts_also_if_it_is_not_known() {
        let mut record = record();
        assert!(record.mark(TaskMark::Admitted, Some(BASE + Span::secs(1))));
        assert!(!record.mark(TaskMark::Admitted, Some(BASE + Span::secs(2))));
        assert_eq!(record.at(TaskMark::Admitted), Some(BASE + Span::secs(1)));
        assert!(record.mark_container(1, ContainerMark::Healthy, None));
        assert!(!record.mark_container(1, ContainerMark::Healthy, Some(BASE)));
        assert_eq!(record.container_at(1, ContainerMark::Healthy), None);
        assert!(!record.mark_container(2, ContainerMark::Healthy, None), "there is no such container");
    }

    #[test]
    fn a_phase_takes_from_its_first_attempt_to_its_last() {
        let mut record = record();
        let at = |seconds| BASE + Span::secs(seconds);
        assert_eq!(record.end(0, Phase::Pull, at(1), PhaseResult::Done), None, "it has not begun");
        assert!(record.begin(0, Phase::Pull, at(1)));
        assert_eq!(record.end(0, Phase::Pull, at(2), PhaseResult::Failed), Some(Span::secs(1)));
        assert!(record.begin(0, Phase::Pull, at(5)));
        assert_eq!(record.phase(0, Phase::Pull).unwrap().ended, None);
        assert_eq!(record.end(0, Phase::Pull, at(9), PhaseResult::Done), Some(Span::secs(8)));
        assert_eq!(record.end(0, Phase::Pull, at(10), PhaseResult::Done), None, "it has ended");
        let wanted = PhaseTimes { begun: at(1), ended: Some(at(9)), attempts: 2, result: PhaseResult::Done };
        assert_eq!(record.phase(0, Phase::Pull), Some(wanted));
        record.mark_container(0, ContainerMark::Running, Some(at(10)));
        assert!(!record.begin(0, Phase::Start, at(11)), "its restart policy starts it again");
    }

    #[test]
    fn containers_keep_their_moments_when_more_are_known() {
        let mut record = record();
        record.mark_container(1, ContainerMark::Running, Some(BASE));
        let containers = vec!["new".into(), "side".into(), "app".into()];
        record.rename(Arc::new(Definition { containers, ..Definition::default() }));
        let running: Vec<bool> =
            (0..4).map(|index| record.container_at(index, ContainerMark::Running).is_some()).collect();
        assert_eq!((record.containers(), &running[..]), (3, &[false, true, false, false][..]));
    }
}
