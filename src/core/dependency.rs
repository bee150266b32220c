//! The order of a task's containers: which of them may start, and which may stop. Pure predicates over the state.
//!
//! Source: spec `task-engine.md` §5.

use super::state::{ContainerState, TaskState};
use crate::model::task::{Condition, Dependency};
use crate::model::waiting::{Awaited, Requirement};
use crate::model::{
    ContainerName, ContainerSpec, ContainerStatus, Failure, Health, RunState, Span, TaskSpec, TaskStatus, Timestamp,
};

/// Whether a container may go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Readiness {
    /// The container may go on.
    Ready,
    /// The container must wait. That may change with the next event, or at this moment; `None`: only with an event.
    Waits(Option<Timestamp>),
    /// The container can never go on.
    Never(Failure),
}

/// The exit code reported for a container that was never started because of its dependencies.
pub(super) const NEVER_STARTED_EXIT_CODE: i32 = 143;

/// Whether this container may be pulled (unless images are pulled upfront), created and started.
pub(super) fn may_start(task: &TaskState, index: usize, now: Timestamp) -> Readiness {
    let mut verdict =
        if unsettled_essentials(task).next().is_none() { Readiness::Ready } else { Readiness::Waits(None) };
    for dependency in &task.containers[index].spec.depends_on {
        match judge(task, index, dependency, now) {
            Readiness::Ready => {}
            Readiness::Never(failure) => return Readiness::Never(failure),
            Readiness::Waits(until) => {
                verdict = match verdict {
                    Readiness::Waits(Some(other)) => Readiness::Waits(Some(until.map_or(other, |at| at.min(other)))),
                    Readiness::Ready | Readiness::Waits(None) | Readiness::Never(_) => Readiness::Waits(until),
                };
            }
        }
    }
    verdict
}

/// The containers that this one waits for, and what must happen to each of them first.
pub(super) fn awaited(task: &TaskState, index: usize, now: Timestamp) -> Vec<Awaited> {
    let mut awaited: Vec<Awaited> =
        unsettled_essentials(task).map(|name| entry(task, name, Requirement::Inspection)).collect();
    for dependency in &task.containers[index].spec.depends_on {
        let is_listed = awaited.iter().any(|other| other.container == dependency.container);
        if !is_listed && judge(task, index, dependency, now) != Readiness::Ready {
            awaited.push(entry(task, &dependency.container, Requirement::Condition(dependency.condition)));
        }
    }
    awaited
}

fn entry(task: &TaskState, name: &ContainerName, requirement: Requirement) -> Awaited {
    let container = task.index_of(name).map(|index| &task.containers[index].state);
    let is_unsettled = container.is_some_and(|container| container.live.unsettled);
    Awaited {
        container: name.clone(),
        requirement: if is_unsettled { Requirement::Inspection } else { requirement },
        known: container.map(|container| container.known).unwrap_or_default(),
        health: container.map(|container| container.health).unwrap_or_default(),
        health_output: container.map(|container| container.live.health_output.clone()).unwrap_or_default(),
        exit_code: container.and_then(|container| container.exit_code),
    }
}

/// The essential containers that are unsettled: they have not been inspected since the agent started, or since an operation got
/// no answer. One of them may have ended, and then the whole task must stop. So nothing of the task is started before they are
/// inspected.
pub(super) fn unsettled_essentials(task: &TaskState) -> impl Iterator<Item = &ContainerName> {
    task.pairs().filter(|(spec, container)| spec.essential && container.live.unsettled).map(|(spec, _)| &spec.name)
}

/// The containers that must end before this one may be stopped.
pub(super) fn dependents(task: &TaskState, index: usize) -> Vec<Awaited> {
    open_dependents(task, index).map(|name| entry(task, name, Requirement::End)).collect()
}

/// The containers that depend on this one and have not stopped.
fn open_dependents(task: &TaskState, index: usize) -> impl Iterator<Item = &ContainerName> {
    let name = &task.containers[index].spec.name;
    let dependents = task.pairs().filter(move |(spec, container)| {
        !container.is_stopped() && spec.depends_on.iter().any(|dependency| &dependency.container == name)
    });
    dependents.map(|(spec, _)| &spec.name)
}

/// Whether this container may be stopped: only after all containers that depend on it, which is the reverse of the start order.
pub(super) fn may_stop(task: &TaskState, index: usize) -> bool {
    open_dependents(task, index).next().is_none()
}

/// Whether all containers can start at all. False for cycles, unknown names, and `HEALTHY` on a container without a health
/// check.
pub(super) fn is_solvable(spec: &TaskSpec) -> bool {
    let mut placed: Vec<&ContainerSpec> = Vec::new();
    while placed.len() < spec.containers.len() {
        let before = placed.len();
        for container in &spec.containers {
            let is_placed = placed.iter().any(|other| other.name == container.name);
            if !is_placed && container.depends_on.iter().all(|dependency| met_by(&placed, dependency)) {
                placed.push(container);
            }
        }
        if placed.len() == before {
            return false;
        }
    }
    true
}

/// Whether a container that is placed already can meet the dependency.
fn met_by(placed: &[&ContainerSpec], dependency: &Dependency) -> bool {
    placed.iter().any(|container| {
        container.name == dependency.container && (dependency.condition != Condition::Healthy || container.health_check)
    })
}

/// Whether this container may go on, as far as one of its dependencies is concerned.
fn judge(task: &TaskState, index: usize, dependency: &Dependency, now: Timestamp) -> Readiness {
    let Some(at) = task.index_of(&dependency.container) else {
        return never(task, index, &dependency.container.0, Unmeetable::Unknown);
    };
    let (spec, container) = (&task.containers[at].spec, &task.containers[at].state);
    let describe = || describe(task, at);
    if container.live.unsettled {
        return Readiness::Waits(None); // the facts about the container may be outdated
    }
    if !container.ran && (container.is_stopped() || container.failure.is_some()) && container.live.operation.is_none() {
        return never(task, index, &describe(), Unmeetable::NeverStarts);
    }
    // A stopped container that runs again must be stopped first. Until then it meets no dependency.
    let is_seen_running = container.observed == Some(RunState::Running);
    let settled = container.is_stopped() && container.live.operation.is_none() && !is_seen_running;
    let met = match dependency.condition {
        Condition::Create => container.known >= ContainerStatus::Created,
        Condition::Start => container.ran,
        Condition::Complete => settled && container.exit_code.is_some(),
        Condition::Success => settled && container.exit_code == Some(0),
        Condition::Healthy => spec.health_check && container.health == Health::Healthy && !container.is_stopped(),
    };
    if met {
        return Readiness::Ready;
    }
    // Compat, except for `HEALTHY` and `COMPLETE`: the Go agent waits for ever for a container that ended without meeting them.
    let ended = match dependency.condition {
        Condition::Success | Condition::Healthy => settled,
        Condition::Complete => settled && container.exit_code.is_none(),
        Condition::Create | Condition::Start => false,
    };
    if ended {
        return never(task, index, &describe(), Unmeetable::Ended);
    }
    match deadline(spec, container, dependency) {
        Some(deadline) if now > deadline && task.containers[index].state.known < ContainerStatus::Created => {
            never(task, index, &describe(), Unmeetable::TimedOut)
        }
        Some(deadline) if now <= deadline => Readiness::Waits(Some(deadline + Span::millis(1))),
        Some(_) | None => Readiness::Waits(None),
    }
}

/// The moment at which the wait for this dependency times out: `startTimeout` after the first start of the container; `None`:
/// never.
fn deadline(spec: &ContainerSpec, container: &ContainerState, dependency: &Dependency) -> Option<Timestamp> {
    let timed = matches!(dependency.condition, Condition::Complete | Condition::Success | Condition::Healthy);
    if !timed || container.is_stopped() {
        return None;
    }
    Some(container.running_since? + spec.start_timeout?)
}

/// Why a dependency can never be met.
#[derive(Clone, Copy, Debug)]
enum Unmeetable {
    /// The task has no such container.
    Unknown,
    /// The container will never start.
    NeverStarts,
    /// The container has ended without meeting the condition.
    Ended,
    /// The container's `startTimeout` is over.
    TimedOut,
}

/// The failure in the words of the Go agent, which operators search for.
fn never(task: &TaskState, index: usize, dependency: &str, why: Unmeetable) -> Readiness {
    let target = describe(task, index);
    let (failed, why) = match why {
        Unmeetable::Unknown => ("", "does not exist."),
        Unmeetable::TimedOut => ("", "has timed out."),
        Unmeetable::NeverStarts => ("failed to resolve ", "because dependency will never start"),
        Unmeetable::Ended => ("failed to resolve ", "as dependency did not exit successfully."),
    };
    let text =
        format!("dependency graph: {failed}container ordering dependency [{dependency}] for target [{target}] {why}");
    Readiness::Never(Failure::permanent("CannotStartContainerError", text))
}

/// Describes a container as the Go agent does: `name(image) (KNOWN->DESIRED)[ - Exit: n]`.
fn describe(task: &TaskState, index: usize) -> String {
    let (spec, container) = (&task.containers[index].spec, &task.containers[index].state);
    // A container that ended by itself was still desired to run.
    let is_to_stop = task.desired == TaskStatus::Stopped || container.failure.is_some();
    let desired = if is_to_stop { TaskStatus::Stopped } else { TaskStatus::Running };
    let exit = container.exit_code.map(|code| format!(" - Exit: {code}")).unwrap_or_default();
    format!("{}({}) ({}->{desired}){exit}", spec.name, spec.image, container.known)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::{NOW, container, spec, task};

    /// The readiness of a dependent of `a` after this change of `a`.
    fn verdict(condition: Condition, change: impl FnOnce(&mut ContainerState)) -> Readiness {
        let mut first = container("a", &[]);
        first.health_check = true;
        first.start_timeout = Some(Span::secs(10));
        let mut task = task(vec![first, container("b", &[("a", condition)])]);
        change(&mut task.containers[0].state);
        may_start(&task, 1, NOW)
    }

    fn ran(known: ContainerStatus, exit_code: Option<i32>) -> impl FnOnce(&mut ContainerState) {
        move |container| {
            container.known = known;
            container.ran = true;
            container.running_since = Some(NOW);
            container.exit_code = exit_code;
        }
    }

    #[test]
    fn a_condition_is_met_by_settled_facts_only() {
        use Condition::{Complete, Create, Healthy, Start, Success};
        use ContainerStatus::{Created, Pulled, Running, Stopped};
        let is_never = |verdict: &Readiness| matches!(verdict, Readiness::Never(_));
        let in_time = Readiness::Waits(Some(NOW + Span::millis(10_001)));
        assert_eq!(verdict(Create, |container| container.known = Pulled), Readiness::Waits(None));
        assert_eq!(verdict(Create, |container| container.known = Created), Readiness::Ready);
        assert_eq!(verdict(Start, |container| container.known = Created), Readiness::Waits(None));
        assert_eq!(verdict(Start, ran(Running, None)), Readiness::Ready);
        assert_eq!(verdict(Start, ran(Stopped, Some(1))), Readiness::Ready);
        assert_eq!(verdict(Complete, ran(Running, None)), in_time);
        assert_eq!(verdict(Complete, ran(Stopped, Some(1))), Readiness::Ready);
        assert!(is_never(&verdict(Complete, ran(Stopped, None))));
        assert_eq!(verdict(Success, ran(Stopped, Some(0))), Readiness::Ready);
        assert!(is_never(&verdict(Success, ran(Stopped, Some(1)))));
        assert_eq!(verdict(Healthy, ran(Running, None)), in_time);
        assert!(is_never(&verdict(Healthy, ran(Stopped, Some(0)))));
        for condition in [Create, Start, Complete, Success, Healthy] {
            assert!(
                is_never(&verdict(condition, |container| container.known = Stopped)),
                "{condition:?} on one that never ran"
            );
        }
    }

    #[test]
    fn an_unsettled_dependency_is_not_met() {
        use Condition::{Complete, Create, Healthy, Start, Success};
        let unsettle = |container: &mut ContainerState| {
            ran(ContainerStatus::Running, Some(0))(container);
            (container.health, container.live.unsettled) = (Health::Healthy, true);
        };
        for condition in [Create, Start, Complete, Success, Healthy] {
            assert_eq!(verdict(condition, unsettle), Readiness::Waits(None), "{condition:?}");
        }
        // The end of an essential container ends the task, whichever containers depend on it.
        for (essential, names) in
            [(true, vec![(ContainerName::from("a"), Requirement::Inspection)]), (false, Vec::new())]
        {
            let mut task = task(vec![container("a", &[]), container("b", &[])]);
            task.containers[0].spec.essential = essential;
            unsettle(&mut task.containers[0].state);
            assert_eq!(may_start(&task, 1, NOW) == Readiness::Ready, !essential);
            let awaited = awaited(&task, 1, NOW).into_iter();
            assert_eq!(awaited.map(|awaited| (awaited.container, awaited.requirement)).collect::<Vec<_>>(), names);
        }
    }

    #[test]
    fn a_revived_dependency_is_not_met() {
        let revived = |container: &mut ContainerState| {
            ran(ContainerStatus::Stopped, Some(0))(container);
            container.observed = Some(RunState::Running);
        };
        assert_eq!(verdict(Condition::Success, revived), Readiness::Waits(None));
    }

    #[test]
    fn a_dependency_timeout_has_the_text_of_the_go_agent() {
        let late = |container: &mut ContainerState| {
            ran(ContainerStatus::Running, None)(container);
            container.running_since = Some(NOW - Span::secs(11));
        };
        let Readiness::Never(failure) = verdict(Condition::Healthy, late) else { panic!("still waits") };
        assert_eq!(
            failure.to_string(),
            "CannotStartContainerError: dependency graph: container ordering dependency [a(image@sha256:1) (RUNNING->RUNNING)] \
             for target [b(image@sha256:1) (NONE->RUNNING)] has timed out."
        );
    }

    /// A container that is created already goes on waiting.
    #[test]
    fn the_start_timeout_includes_its_last_moment() {
        use ContainerStatus::{Created, Pulled, Running};
        let waits = |late: u64, known: ContainerStatus| {
            let mut first = container("a", &[]);
            (first.health_check, first.start_timeout) = (true, Some(Span::secs(10)));
            let mut task = task(vec![first, container("b", &[("a", Condition::Healthy)])]);
            ran(Running, None)(&mut task.containers[0].state);
            task.containers[1].state.known = known;
            may_start(&task, 1, NOW + Span::millis(10_000 + late))
        };
        assert_eq!(waits(0, Pulled), Readiness::Waits(Some(NOW + Span::millis(10_001))));
        assert_eq!(waits(0, Created), Readiness::Waits(Some(NOW + Span::millis(10_001))));
        assert!(matches!(waits(1, Pulled), Readiness::Never(_)));
        assert_eq!(waits(1, Created), Readiness::Waits(None));
    }

    #[test]
    fn the_first_deadline_of_unmet_dependencies_counts() {
        let spec = |name: &str, secs: Option<u64>| {
            let mut spec = container(name, &[]);
            spec.start_timeout = secs.map(Span::secs);
            spec
        };
        use Condition::{Complete, Start};
        let dependent = container("z", &[("x", Complete), ("y", Complete), ("w", Start), ("v", Start)]);
        let mut task =
            task(vec![spec("v", None), spec("w", None), spec("x", Some(20)), spec("y", Some(10)), dependent]);
        assert_eq!(may_start(&task, 4, NOW), Readiness::Waits(None));
        for index in 0..4 {
            ran(ContainerStatus::Running, None)(&mut task.containers[index].state);
        }
        assert_eq!(may_start(&task, 4, NOW), Readiness::Waits(Some(NOW + Span::millis(10_001))));
        ran(ContainerStatus::Stopped, Some(0))(&mut task.containers[3].state);
        assert_eq!(may_start(&task, 4, NOW), Readiness::Waits(Some(NOW + Span::millis(20_001))));
        ran(ContainerStatus::Stopped, Some(0))(&mut task.containers[2].state);
        assert_eq!(may_start(&task, 4, NOW), Readiness::Ready);
    }

    #[test]
    fn nothing_is_decided_while_an_operation_is_pending() {
        use crate::model::OpId;
        use crate::state::{OperationKind, PendingOperation};
        let busy = |container: &mut ContainerState| {
            container.live.operation =
                Some(PendingOperation { id: OpId(1), kind: OperationKind::Start, since: NOW, asked_in_step: 0 });
        };
        let failed = |container: &mut ContainerState| container.fail(Failure::permanent("x", "y"));
        assert!(matches!(verdict(Condition::Start, failed), Readiness::Never(_)));
        let both = |container: &mut ContainerState| (busy(container), failed(container)).0;
        assert_eq!(verdict(Condition::Start, both), Readiness::Waits(None));
        for (condition, code) in [(Condition::Complete, 0), (Condition::Success, 0), (Condition::Success, 1)] {
            let ended = |container: &mut ContainerState| {
                ran(ContainerStatus::Stopped, Some(code))(container);
                busy(container);
            };
            assert_eq!(verdict(condition, ended), Readiness::Waits(None), "{condition:?}");
        }
        // A container that was healthy and has stopped meets no condition.
        let was_healthy = |container: &mut ContainerState| {
            ran(ContainerStatus::Stopped, Some(0))(container);
            container.health = Health::Healthy;
        };
        assert!(matches!(verdict(Condition::Healthy, was_healthy), Readiness::Never(_)));
    }

    #[test]
    fn a_failed_dependency_has_the_text_of_the_go_agent() {
        let Readiness::Never(failure) = verdict(Condition::Success, ran(ContainerStatus::Stopped, Some(3))) else {
            panic!("the dependency can no longer be met")
        };
        assert_eq!(
            failure.to_string(),
            "CannotStartContainerError: dependency graph: failed to resolve container ordering dependency \
             [a(image@sha256:1) (STOPPED->RUNNING) - Exit: 3] for target [b(image@sha256:1) (NONE->RUNNING)] \
             as dependency did not exit successfully."
        );
        let mut task = task(vec![container("b", &[("gone", Condition::Start)])]);
        let Readiness::Never(failure) = may_start(&task, 0, NOW) else { panic!("there is none") };
        assert_eq!(
            failure.to_string(),
            "CannotStartContainerError: dependency graph: container ordering dependency [gone] for target \
             [b(image@sha256:1) (NONE->RUNNING)] does not exist."
        );
        task.desired = TaskStatus::Stopped;
        assert_eq!(describe(&task, 0), "b(image@sha256:1) (NONE->STOPPED)");
    }

    #[test]
    fn an_unstartable_dependency_has_the_text_of_the_go_agent() {
        let lost =
            |container: &mut ContainerState| container.fail(Failure::permanent("CannotCreateContainerError", "no"));
        let Readiness::Never(failure) = verdict(Condition::Start, lost) else { panic!("it waits for nothing") };
        assert_eq!(
            failure.to_string(),
            "CannotStartContainerError: dependency graph: failed to resolve container ordering dependency \
             [a(image@sha256:1) (NONE->STOPPED)] for target [b(image@sha256:1) (NONE->RUNNING)] \
             because dependency will never start"
        );
    }

    #[test]
    fn a_container_stops_after_those_that_depend_on_it() {
        let mut task = task(vec![container("a", &[]), container("b", &[("a", Condition::Start)]), container("c", &[])]);
        assert_eq!([0, 1, 2].map(|index| may_stop(&task, index)), [false, true, true]);
        task.containers[1].state.known = ContainerStatus::Stopped;
        assert!(may_stop(&task, 0));
    }

    #[test]
    fn unsolvable_dependencies_are_found_before_any_start() {
        use Condition::{Healthy, Start};
        let mut checked = container("a", &[]);
        checked.health_check = true;
        let cases = [
            (vec![container("a", &[("b", Start)]), container("b", &[])], true),
            (vec![container("a", &[("b", Start)]), container("b", &[("a", Start)])], false),
            (vec![container("a", &[("a", Start)])], false),
            (vec![container("a", &[("nobody", Start)])], false),
            (vec![container("a", &[]), container("b", &[("a", Healthy)])], false),
            (vec![checked, container("b", &[("a", Healthy)])], true),
            (vec![container("a", &[]), container("a", &[])], false),
        ];
        for (containers, expected) in cases {
            let spec = spec("task", containers);
            assert_eq!(is_solvable(&spec), expected, "{spec:?}");
        }
    }
}
