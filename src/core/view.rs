//! Makes the view: a snapshot of the state for readers, without environment variables, settings and credentials.

use super::container::{self, Next, Wait};
use super::state::{ContainerState, Key, OperationKind, PendingOperation, State, TaskState};
use super::{admission, dependency};
use crate::model::view::{ContainerView, TaskView, View};
use crate::model::waiting::{Blocker, Waiting};
use crate::model::{ContainerSpec, PortBinding, TaskArn, Timestamp};
use std::cell::LazyCell;
use std::collections::BTreeSet;
use std::sync::Arc;

/// A snapshot for readers.
pub fn view(state: &State, now: Timestamp) -> View {
    view_after(&View::default(), state, &BTreeSet::new(), now)
}

/// A snapshot for readers that shares with `previous` the tasks that show nothing new. `changed`: the documents that changed since.
///
/// What a task waits for may depend on other tasks and on the time, so it is found again for every task that waits.
pub fn view_after(previous: &View, state: &State, changed: &BTreeSet<Key>, now: Timestamp) -> View {
    let ledger = LazyCell::new(|| admission::Ledger::new(state));
    let mut earlier = previous.tasks.iter().peekable();
    let tasks = state.tasks.values().map(|task| {
        let waits = waits(state, &ledger, task, now);
        while earlier.next_if(|shown| shown.arn < task.spec.arn).is_some() {}
        let shown = earlier.next_if(|shown| shown.arn == task.spec.arn);
        let is_same = |shown: &&Arc<TaskView>| shown.waits == waits && !is_changed(changed, &task.spec.arn);
        match shown.filter(is_same) {
            Some(shown) => Arc::clone(shown),
            None => Arc::new(task_view(task, waits)),
        }
    });
    View { at: now, tasks: tasks.collect() }
}

fn is_changed(changed: &BTreeSet<Key>, task: &TaskArn) -> bool {
    changed.iter().any(|key| matches!(key, Key::Task(arn) if arn == task))
}

fn task_view(task: &TaskState, waits: Vec<Waiting>) -> TaskView {
    TaskView {
        arn: task.spec.arn.clone(),
        family: task.spec.family.clone(),
        version: task.spec.version.clone(),
        desired: task.desired,
        known: task.known,
        waits,
        containers: task.pairs().map(|(spec, container)| container_view(task, spec, container)).collect(),
    }
}

fn container_view(task: &TaskState, spec: &ContainerSpec, container: &ContainerState) -> ContainerView {
    let from_definition = || {
        spec.ports.iter().map(|port| PortBinding {
            container_port: port.container_port,
            host_port: port.host_port,
            bind_ip: String::new(),
            protocol: port.protocol,
        })
    };
    ContainerView {
        kind: spec.kind,
        name: spec.name.clone(),
        runtime_id: container.runtime_id.clone(),
        runtime_name: task.spec.runtime_name(&spec.name),
        image: spec.image.clone(),
        image_id: container.image_id.clone(),
        known: container.known,
        created_at: container.created_at.clone(),
        started_at: container.started_at.clone(),
        ports: if container.bindings.is_empty() { from_definition().collect() } else { container.bindings.clone() },
        mounts: container.mounts.clone(),
        health: container.health,
        exit_code: container.exit_code,
        changed_at: container.changed_at,
    }
}

/// What the task and its containers wait for. A container that has reached its target status is left out.
fn waits<'a>(
    state: &'a State,
    ledger: &LazyCell<admission::Ledger<'a>, impl FnOnce() -> admission::Ledger<'a>>,
    task: &TaskState,
    now: Timestamp,
) -> Vec<Waiting> {
    if admission::waits(task) {
        let blocker = if state.host.lost { Blocker::Inventory } else { Blocker::HostResources(ledger.shortages(task)) };
        return vec![Waiting { container: None, blocker, since: task.known_at }];
    }
    let containers = task.pairs().enumerate().filter_map(|(index, (spec, container))| {
        if task.has_reached_target(index) {
            return None;
        }
        let Next::Wait(wait) = container::next(state, task, index, now) else { return None };
        let since =
            container.live.operation.map_or(container.changed_at.max(task.known_at), |operation| operation.since);
        Some(Waiting { container: Some(spec.name.clone()), blocker: blocker(task, index, wait, now), since })
    });
    containers.collect()
}

/// Adds to a wait its details, for readers.
fn blocker(task: &TaskState, index: usize, wait: Wait, now: Timestamp) -> Blocker {
    match wait {
        Wait::Admission => Blocker::HostResources(Vec::new()), // the task itself shows the shortages
        Wait::Operation(operation) => docker_operation(task, index, operation),
        Wait::NextTry(at) => Blocker::NextTry(at),
        Wait::Inventory => Blocker::Inventory,
        Wait::Dependents => Blocker::Containers(dependency::dependents(task, index), None),
        Wait::Dependencies(until) => Blocker::Containers(dependency::awaited(task, index, now), until),
        Wait::Credentials => Blocker::Credentials(task.execution_credentials.clone().unwrap_or_default()),
        Wait::Resource(at) => {
            let op = task.resources[at].state.live.operation.map(|operation| operation.id);
            Blocker::Resource(op, task.resources[at].spec.name.clone())
        }
        Wait::ImageRemoval => Blocker::ImageRemoval(task.containers[index].spec.image.clone()),
        Wait::DiskSpace => Blocker::DiskSpace,
    }
}

fn docker_operation(task: &TaskState, index: usize, operation: PendingOperation) -> Blocker {
    let image = || task.containers[index].spec.image.clone();
    let verb = match operation.kind {
        OperationKind::ResolveDigest => return Blocker::Digest(operation.id, image()),
        OperationKind::Pull => return Blocker::Pull(operation.id, image()),
        OperationKind::Create => "create",
        OperationKind::Start => "start",
        OperationKind::Stop => "stop",
        OperationKind::Inspect => "describe",
        OperationKind::Remove => "remove",
    };
    Blocker::Docker(operation.id, verb)
}

#[cfg(test)]
mod tests {
    use super::super::policy::{Capacity, Policy};
    use super::super::sample::{NOW, container, run, spec, state};
    use super::super::{Output, sample, step};
    use super::*;
    use crate::model::task::Condition;
    use crate::model::waiting::{Awaited, Requirement, Shortage};
    use crate::model::{
        ContainerStatus, CredentialsId, Failure, Health, OpError, OpId, RunState, TaskSpec, TaskStatus,
    };

    fn waits_of(state: &State, task: &str) -> Vec<(Option<String>, Blocker)> {
        let view = view(state, NOW);
        let task = view.tasks.iter().find(|candidate| candidate.arn.as_str() == task).unwrap();
        let waits = task.waits.iter().cloned();
        waits.map(|waiting| (waiting.container.map(|name| name.to_string()), waiting.blocker)).collect()
    }

    /// An awaited container of which nothing is known yet.
    fn awaited(name: &str, requirement: Requirement) -> Awaited {
        let known = ContainerStatus::ManifestPulled;
        Awaited {
            container: name.into(),
            requirement,
            known,
            health: Health::Unknown,
            health_output: String::new(),
            exit_code: None,
        }
    }

    #[test]
    fn a_pending_task_says_what_each_container_waits_for() {
        let mut state = state(Policy::default());
        let dependent = container("b", &[("a", Condition::Start)]);
        step(&mut state, NOW, run(spec("task", vec![container("a", &[]), dependent])));
        let op = state.tasks[&"task".into()].containers[0].state.live.operation.unwrap().id;
        let wanted = [
            (Some("a".to_owned()), Blocker::Pull(op, "image@sha256:1".to_owned())),
            (
                Some("b".to_owned()),
                Blocker::Containers(vec![awaited("a", Requirement::Condition(Condition::Start))], None),
            ),
        ];
        assert_eq!(waits_of(&state, "task"), wanted);
        step(&mut state, NOW, sample::done(op, Output::Pulled));
        let op = state.tasks[&"task".into()].containers[0].state.live.operation.unwrap().id;
        assert_eq!(waits_of(&state, "task")[0].1, Blocker::Docker(op, "create"));
        let unknown = Err(OpError::Unknown(Failure::permanent("DockerTimeoutError", "no answer")));
        step(&mut state, NOW, super::super::Event::Completed { op, outcome: unknown });
        assert!(matches!(waits_of(&state, "task")[0].1, Blocker::NextTry(at) if at > NOW));
    }

    /// The blocker of a running task of one container after a change.
    fn blocked(change: impl FnOnce(&mut TaskState)) -> Option<Blocker> {
        let mut task = sample::task(vec![container("a", &[])]);
        (task.admitted, task.desired, task.known) = (true, TaskStatus::Stopped, TaskStatus::Running);
        let container = &mut task.containers[0].state;
        (container.known, container.observed, container.ran) =
            (ContainerStatus::Running, Some(RunState::Running), true);
        change(&mut task);
        let mut state = state(Policy::default());
        state.tasks.insert("task".into(), Box::new(task));
        let mut waits = waits_of(&state, "task");
        assert!(waits.len() < 2, "{waits:?}");
        waits.pop().map(|(_, blocker)| blocker)
    }

    fn doing(task: &mut TaskState, kind: OperationKind) {
        task.containers[0].state.live.operation =
            Some(PendingOperation { id: OpId(7), kind, since: NOW, asked_in_step: 0 });
    }

    #[test]
    fn the_pending_operation_is_shown() {
        use OperationKind::{Create, Inspect, Pull, Remove, ResolveDigest, Start, Stop};
        let image = || "image@sha256:1".to_owned();
        let begins = |task: &mut TaskState, kind| {
            (task.desired, task.containers[0].state) = (TaskStatus::Running, ContainerState::default());
            doing(task, kind);
        };
        assert_eq!(blocked(|task| begins(task, ResolveDigest)), Some(Blocker::Digest(OpId(7), image())));
        assert_eq!(blocked(|task| begins(task, Pull)), Some(Blocker::Pull(OpId(7), image())));
        assert_eq!(blocked(|task| doing(task, Pull)), None, "a pull of what is to stop is cancelled");
        assert_eq!(blocked(|task| doing(task, Create)), Some(Blocker::Docker(OpId(7), "create")));
        assert_eq!(blocked(|task| doing(task, Start)), Some(Blocker::Docker(OpId(7), "start")));
        assert_eq!(blocked(|task| doing(task, Stop)), Some(Blocker::Docker(OpId(7), "stop")));
        assert_eq!(blocked(|task| doing(task, Inspect)), Some(Blocker::Docker(OpId(7), "describe")));
        assert_eq!(blocked(|task| doing(task, Remove)), Some(Blocker::Docker(OpId(7), "remove")));
    }

    #[test]
    fn a_task_in_its_target_state_shows_no_wait() {
        assert_eq!(blocked(|_| {}), None, "it is about to be stopped, and nothing holds that up");
        assert_eq!(blocked(|task| task.containers[0].state.live.retry.not_before = NOW), None, "it is time");
        assert_eq!(
            blocked(|task| task.containers[0].state.live.retry.not_before = Timestamp(NOW.0 + 1)),
            Some(Blocker::NextTry(Timestamp(NOW.0 + 1)))
        );
        // The first inventory is pending.
        assert_eq!(blocked(|task| task.containers[0].state.live.unsettled = true), Some(Blocker::Inventory));
        assert_eq!(
            blocked(|task| (task.desired, task.containers[0].state.live.unsettled) = (TaskStatus::Running, true)),
            None,
            "it runs"
        );
        let over: fn(&mut TaskState) = |task| {
            task.containers[0].state.known = ContainerStatus::Stopped;
            task.containers[0].state.observed = Some(RunState::Exited);
        };
        assert_eq!(blocked(over), None);
    }

    #[test]
    fn a_stopping_container_shows_what_must_stop_before_it() {
        let mut task = sample::task(vec![container("a", &[]), container("b", &[("a", Condition::Start)])]);
        (task.admitted, task.desired, task.known) = (true, TaskStatus::Stopped, TaskStatus::Running);
        for container in task.states_mut() {
            (container.known, container.observed, container.ran) =
                (ContainerStatus::Running, Some(RunState::Running), true);
        }
        let mut state = state(Policy::default());
        state.tasks.insert("task".into(), Box::new(task));
        let running = Awaited { known: ContainerStatus::Running, ..awaited("b", Requirement::End) };
        assert_eq!(waits_of(&state, "task"), [(Some("a".to_owned()), Blocker::Containers(vec![running], None))]);
        state.tasks.get_mut(&"task".into()).unwrap().containers[0].state.known = ContainerStatus::Stopped;
        assert_eq!(waits_of(&state, "task"), []);
        state.inventory.events_missed = true;
        state.tasks.get_mut(&"task".into()).unwrap().containers[1].state.live.unsettled = true;
        assert_eq!(waits_of(&state, "task"), [(Some("b".to_owned()), Blocker::Inventory)]);
    }

    #[test]
    fn a_wait_began_with_the_operation_or_with_the_last_change() {
        let mut task = sample::task(vec![container("a", &[])]);
        (task.admitted, task.known_at) = (true, Timestamp(5));
        task.containers[0].state.changed_at = Timestamp(7);
        task.containers[0].state.live.unsettled = true;
        let mut state = state(Policy::default());
        state.inventory.events_missed = true;
        let since = |state: &State| view(state, NOW).tasks[0].waits[0].since;
        state.tasks.insert("task".into(), Box::new(task.clone()));
        assert_eq!(since(&state), Timestamp(7));
        task.known_at = Timestamp(9);
        state.tasks.insert("task".into(), Box::new(task.clone()));
        assert_eq!(since(&state), Timestamp(9));
        task.containers[0].state.live.operation =
            Some(PendingOperation { id: OpId(7), kind: OperationKind::Pull, since: Timestamp(8), asked_in_step: 0 });
        state.tasks.insert("task".into(), Box::new(task));
        assert_eq!(since(&state), Timestamp(8));
    }

    #[test]
    fn a_full_host_or_missing_credentials_are_shown() {
        let capacity = Capacity { cpu: 1024, memory: 10, ..Capacity::default() };
        let mut state = state(Policy { capacity, ..Policy::default() });
        let mut large = container("a", &[]);
        large.memory = 10;
        step(&mut state, NOW, run(spec("first", vec![large.clone()])));
        step(&mut state, NOW, run(spec("second", vec![large])));
        let short = Shortage {
            what: "MiB of memory",
            wanted: "10".to_owned(),
            free: "0".to_owned(),
            held_by: vec!["first".into()],
        };
        assert_eq!(short.to_string(), "10 MiB of memory (0 free; held by first)");
        assert_eq!(waits_of(&state, "second"), [(None, Blocker::HostResources(vec![short]))]);
        let mut private = container("a", &[]);
        private.memory = 0;
        private.registry_auth = crate::model::task::RegistryAuth::Ecr(crate::model::task::EcrAuth {
            use_execution_role: true,
            ..Default::default()
        });
        let id = CredentialsId::from("id");
        let spec = TaskSpec { execution_credentials: Some(id.clone()), ..spec("third", vec![private]) };
        let mut state = sample::state(Policy::default());
        step(&mut state, NOW, run(spec));
        assert_eq!(waits_of(&state, "third"), [(Some("a".to_owned()), Blocker::Credentials(id))]);
    }

    /// Readers see the same waits as planning. Neither of these two was shown at first.
    #[test]
    fn a_pull_that_waits_for_the_disk_or_for_a_removal_says_so() {
        use crate::model::image::ImageWork;
        use crate::policy::ImagePolicy;
        let images = ImagePolicy { disk: Some((80, 70)), ..ImagePolicy::default() };
        let mut full = state(Policy { images, ..Policy::default() });
        step(&mut full, NOW, run(spec("task", vec![container("a", &[])])));
        assert_eq!(waits_of(&full, "task"), [(Some("a".to_owned()), Blocker::DiskSpace)]);
        let mut going = state(Policy::default());
        let name = "image@sha256:1".to_owned();
        let work = ImageWork::RemoveImage { id: "id".to_owned(), names: vec![name.clone()] };
        going.images.operation = Some((OpId(0), work));
        step(&mut going, NOW, run(spec("task", vec![container("a", &[])])));
        assert_eq!(waits_of(&going, "task"), [(Some("a".to_owned()), Blocker::ImageRemoval(name))]);
    }
}
