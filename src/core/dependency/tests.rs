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
    for (essential, names) in [(true, vec![(ContainerName::from("a"), Requirement::Inspection)]), (false, Vec::new())] {
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
    let mut task = task(vec![spec("v", None), spec("w", None), spec("x", Some(20)), spec("y", Some(10)), dependent]);
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
    let lost = |container: &mut ContainerState| container.fail(Failure::permanent("CannotCreateContainerError", "no"));
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

#[test]
fn a_container_that_is_waited_for_twice_is_listed_once() {
    let mut task = task(vec![
        container("a", &[]),
        container("b", &[]),
        container("c", &[("a", Condition::Start), ("b", Condition::Start)]),
    ]);
    task.containers[0].state.live.unsettled = true;
    let awaited = awaited(&task, 2, NOW).into_iter().map(|awaited| (awaited.container, awaited.requirement));
    let wanted = [("a", Requirement::Inspection), ("b", Requirement::Condition(Condition::Start))];
    assert_eq!(awaited.collect::<Vec<_>>(), wanted.map(|(name, requirement)| (ContainerName::from(name), requirement)));
    task.containers[0].state.live.unsettled = false;
    ran(ContainerStatus::Running, None)(&mut task.containers[0].state);
    let names: Vec<_> = super::awaited(&task, 2, NOW).into_iter().map(|awaited| awaited.container).collect();
    assert_eq!(names, [ContainerName::from("b")], "what is met is not waited for");
}
