//! The next thing to do for one resource of a task. All kinds alike.
//!
//! A resource is made as soon as the task has its share of the host, beside the pulls, and is there before the containers that need it
//! are created. What is only in the agent's memory goes when no container needs it any more; the rest goes with the task, after its
//! containers. Making and removing may be repeated: what is so already is success. Source: spec `resources.md` §1; the reference
//! has control groups and volumes wait in front of the pull, where nothing needs them.

use super::backoff;
use super::desired;
use super::effect::Effect;
use super::event::Outcome;
use super::plan::Planning;
use super::state::{
    Operation, OperationKind, Owner, ResourceOperation, ResourceOperationKind, ResourceState, Retry, State, TaskState,
};
use crate::model::{ContainerStatus, FailureKind, ResourceRequest, ResourceStatus, TaskStatus, Timestamp};

/// Unknown or passing failures in a row after which the task is given up, or the resource left behind.
const MOST_TRIES: u32 = 3;

/// Starts the making or removal of what can be.
pub(super) fn plan(task: &mut TaskState, planning: &mut Planning<'_>) {
    for index in 0..task.resources.len() {
        if task.resources[index].operation.is_none() {
            advance(task, index, planning);
        }
    }
}

fn advance(task: &mut TaskState, index: usize, planning: &mut Planning<'_>) {
    let not_before = task.resources[index].retry.not_before;
    if task.resources[index].known == ResourceStatus::None && is_wanted(task, index) {
        if !credentials_missing(task, index, planning.state) && planning.is_time(not_before) {
            task.resources[index].create_asked = true;
            start(task, index, planning, ResourceOperationKind::Create);
        }
    } else if may_be_there(task, index) && may_go(task, index) && planning.is_time(not_before) {
        let resource = &mut task.resources[index];
        if !std::mem::replace(&mut resource.removing, true) {
            resource.retry = Retry::default(); // these were failures to make it
        }
        start(task, index, planning, ResourceOperationKind::Remove);
    }
}

fn start(task: &mut TaskState, index: usize, planning: &mut Planning<'_>, kind: ResourceOperationKind) {
    let op = planning.state.new_op(Owner::Resource(task.spec.arn.clone(), index));
    task.resources[index].operation = Some(ResourceOperation { id: op, kind, since: planning.now });
    let request = Box::new(ResourceRequest {
        task: task.spec.arn.clone(),
        family: task.spec.family.clone(),
        version: task.spec.version.clone(),
        spec: task.spec.resources[index].clone(),
        execution_credentials: task.execution_credentials.clone(),
    });
    planning.changed(task);
    planning.out.effects.push(match kind {
        ResourceOperationKind::Create => Effect::CreateResource { op, request },
        ResourceOperationKind::Remove => Effect::RemoveResource { op, request },
    });
}

/// A create that was asked for may have been done, whatever was heard of it.
fn may_be_there(task: &TaskState, index: usize) -> bool {
    let resource = &task.resources[index];
    match resource.known {
        ResourceStatus::None => resource.create_asked,
        ResourceStatus::Created => true,
        ResourceStatus::Removed => false,
    }
}

/// Some container that is to run cannot be created without it.
fn is_wanted(task: &TaskState, index: usize) -> bool {
    task.admitted && task.desired == TaskStatus::Running && is_needed(task, index)
}

/// Some container that may still be created needs it.
fn is_needed(task: &TaskState, index: usize) -> bool {
    let needed_by = &task.spec.resources[index].needed_by;
    task.pairs().enumerate().any(|(at, (spec, container))| {
        container.known < ContainerStatus::Created && !task.wants_stop(at) && needed_by.contains(&spec.name)
    })
}

/// Nothing uses it, and nothing will.
fn may_go(task: &TaskState, index: usize) -> bool {
    if task.spec.resources[index].kind.is_in_memory() {
        // A create in flight has been given it already, or will be when its turn comes.
        let is_create = |operation: &Operation| operation.kind == OperationKind::Create;
        let is_in_use = task.containers.iter().any(|container| container.operation.as_ref().is_some_and(is_create));
        return !is_needed(task, index) && !is_in_use;
    }
    task.removing && task.containers.iter().all(super::cleanup::is_gone)
}

/// The first resource that is not there and must be before this container is created.
pub(super) fn holding_up(task: &TaskState, container: usize) -> Option<usize> {
    let name = &task.spec.containers[container].name;
    let mut resources = task.spec.resources.iter().zip(&task.resources);
    resources.position(|(spec, resource)| resource.known != ResourceStatus::Created && spec.needed_by.contains(name))
}

/// The credentials of the execution role come over ACS and are gone after a restart until ECS sends them again.
pub(super) fn credentials_missing(task: &TaskState, index: usize, state: &State) -> bool {
    let id = task.execution_credentials.as_ref();
    task.spec.resources[index].kind.needs_execution_role() && id.is_some_and(|id| !state.credentials.contains(id))
}

/// Writes the outcome of the operation in flight.
pub(super) fn completed(task: &mut TaskState, index: usize, now: Timestamp, outcome: Outcome) {
    let arn = task.spec.arn.0.clone();
    let resource = &mut task.resources[index];
    let Some(operation) = resource.operation.take() else { return };
    let is_unknown = matches!(outcome, Outcome::Unknown(_));
    let failure = match outcome {
        Outcome::Done(_) => {
            resource.known = match operation.kind {
                ResourceOperationKind::Create => ResourceStatus::Created,
                ResourceOperationKind::Remove => ResourceStatus::Removed,
            };
            resource.retry = Retry::default();
            return;
        }
        Outcome::Failed(failure) | Outcome::Unknown(failure) => failure,
    };
    backoff::ENGINE.again(&mut resource.retry, now, &arn);
    let is_given_up = resource.retry.attempts >= MOST_TRIES;
    match operation.kind {
        // Left behind; each failure was logged.
        ResourceOperationKind::Remove if is_given_up => resource.known = ResourceStatus::Removed,
        ResourceOperationKind::Remove => {}
        ResourceOperationKind::Create if is_unknown || failure.kind == FailureKind::Retryable => {
            if is_given_up {
                desired::end(task, &failure.message);
            }
        }
        // Compat: what the reference finds wrong before it takes the task up is told as it is.
        ResourceOperationKind::Create if failure.name == "ResourceInitializationError" => {
            task.reason.get_or_insert(failure.message);
            task.desired = TaskStatus::Stopped;
        }
        ResourceOperationKind::Create => desired::end(task, &failure.message),
    }
}

/// What is known of a resource whose task was rebuilt: it may be there.
pub(super) fn left_over() -> ResourceState {
    ResourceState { known: ResourceStatus::Created, create_asked: true, ..ResourceState::default() }
}

/// Nothing is left of any of them.
pub(super) fn nothing_is_left(task: &TaskState) -> bool {
    (0..task.resources.len()).all(|index| task.resources[index].operation.is_none() && !may_be_there(task, index))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::policy::Policy;
    use crate::engine::sample::{NOW, container, done, run, spec, state};
    use crate::engine::state::State;
    use crate::engine::{Event, Output, next_deadline, recover, step};
    use crate::model::resource::{CgroupSpec, ResourceKind, ResourceSpec};
    use crate::model::{CredentialsId, Failure, OpId, RunState, Span, TaskSpec};

    fn volatile(needed_by: &[&str]) -> ResourceSpec {
        resource("ssmsecret", ResourceKind::Secrets(Vec::new()), needed_by)
    }

    fn durable(needed_by: &[&str]) -> ResourceSpec {
        resource("cgroup", ResourceKind::Cgroup(CgroupSpec::default()), needed_by)
    }

    fn resource(name: &str, kind: ResourceKind, needed_by: &[&str]) -> ResourceSpec {
        ResourceSpec { name: name.to_owned(), needed_by: needed_by.iter().map(|it| (*it).into()).collect(), kind }
    }

    /// A task of two containers with these resources has just arrived; what that asks for.
    fn arrived(resources: Vec<ResourceSpec>) -> (State, Vec<Effect>) {
        let mut state = state(Policy { cleanup_wait: Span::secs(100), ..Policy::default() });
        let inventory = *state.ops.keys().next().unwrap();
        step(&mut state, NOW, done(inventory, Output::Inventory(Vec::new())));
        let spec = TaskSpec { resources, ..spec("task", vec![container("a", &[]), container("b", &[])]) };
        let effects = step(&mut state, NOW, run(spec)).effects;
        (state, effects)
    }

    fn making(effects: &[Effect]) -> Vec<(OpId, &str)> {
        let made = effects.iter().filter_map(|effect| match effect {
            Effect::CreateResource { op, request } => Some((*op, request.spec.name.as_str())),
            _ => None,
        });
        made.collect()
    }

    fn removing(effects: &[Effect]) -> Vec<(OpId, &str)> {
        let removed = effects.iter().filter_map(|effect| match effect {
            Effect::RemoveResource { op, request } => Some((*op, request.spec.name.as_str())),
            _ => None,
        });
        removed.collect()
    }

    fn ends(state: &mut State, now: Timestamp, op: OpId, failure: Failure) -> Vec<Effect> {
        step(state, now, Event::Completed { op, outcome: Outcome::Failed(failure) }).effects
    }

    fn reason(state: &State) -> (TaskStatus, Option<&str>) {
        let task = &state.tasks[&"task".into()];
        (task.desired, task.reason.as_deref())
    }

    fn stop() -> Event {
        Event::Payload { tasks: vec![crate::engine::PayloadTask::Stop("task".into(), Vec::new())], seq: 2, ack: None }
    }

    #[test]
    fn a_container_is_created_when_what_it_needs_is_there() {
        let (mut state, effects) = arrived(vec![durable(&["a"])]);
        let made = making(&effects)[0].0;
        let pulls: Vec<OpId> = effects
            .iter()
            .filter_map(|it| match it {
                Effect::Pull { op, .. } => Some(*op),
                _ => None,
            })
            .collect();
        assert_eq!(pulls.len(), 2, "nobody waits with a pull");
        assert_eq!(step(&mut state, NOW, done(pulls[0], Output::Pulled)).effects, [], "a waits for the resource");
        let effects = step(&mut state, NOW, done(pulls[1], Output::Pulled)).effects;
        assert!(matches!(&effects[..], [Effect::Create { request, .. }] if request.spec.name.as_str() == "b"));
        let effects = step(&mut state, NOW, done(made, Output::Nothing)).effects;
        assert!(matches!(&effects[..], [Effect::Create { request, .. }] if request.in_task_cgroup));
    }

    #[test]
    fn what_nobody_needs_is_not_made() {
        assert_eq!(making(&arrived(vec![durable(&[]), volatile(&["elsewhere"])]).1), []);
    }

    #[test]
    fn secrets_wait_for_the_credentials_of_the_execution_role() {
        let (mut state, _) = arrived(Vec::new());
        let id = CredentialsId::from("id");
        let other = TaskSpec {
            resources: vec![volatile(&["a"])],
            execution_credentials: Some(id.clone()),
            ..spec("other", vec![container("a", &[])])
        };
        assert_eq!(making(&step(&mut state, NOW, run(other)).effects), []);
        let effects = step(&mut state, NOW, Event::CredentialsArrived { task: None, ids: vec![id], ack: None }).effects;
        assert_eq!(making(&effects).len(), 1);
    }

    #[test]
    fn a_failure_ends_the_task_with_its_text() {
        let (mut state, effects) = arrived(vec![volatile(&["a"])]);
        ends(&mut state, NOW, making(&effects)[0].0, Failure::ends_task("fetching  secret data"));
        assert_eq!(reason(&state), (TaskStatus::Stopped, Some("Fetching secret data")));
        let (mut state, effects) = arrived(vec![durable(&["a"])]);
        let text = "resource cannot be initialized";
        ends(&mut state, NOW, making(&effects)[0].0, Failure::permanent("ResourceInitializationError", text));
        assert_eq!(reason(&state), (TaskStatus::Stopped, Some(text)));
    }

    #[test]
    fn what_may_pass_is_tried_three_times() {
        let (mut state, effects) = arrived(vec![durable(&["a"])]);
        let (mut op, mut now) = (making(&effects)[0].0, NOW);
        for _ in 0..2 {
            assert_eq!(removing(&ends(&mut state, now, op, Failure::retryable("", "busy"))), []);
            assert_eq!(reason(&state).0, TaskStatus::Running);
            let at = state.tasks[&"task".into()].resources[0].retry.not_before;
            assert!(at > now && next_deadline(&state).is_some_and(|deadline| deadline <= at));
            assert_eq!(making(&step(&mut state, Timestamp(at.0 - 1), Event::Tick).effects), []);
            now = at;
            op = making(&step(&mut state, now, Event::Tick).effects)[0].0;
        }
        ends(&mut state, now, op, Failure::retryable("", "busy"));
        assert_eq!(reason(&state), (TaskStatus::Stopped, Some("Busy")));
    }

    /// The task runs whose resource is there; and what happened on the way.
    fn running(kind: ResourceSpec) -> (State, Vec<Effect>) {
        let (mut state, mut todo) = arrived(vec![kind]);
        let mut seen = Vec::new();
        while let Some(effect) = todo.pop() {
            let observed = |name: &str, run: RunState| {
                let mut seen = crate::engine::sample::seen("task", name, name, run);
                seen.started_at = (run == RunState::Running).then(String::new);
                Output::Seen(Some(Box::new(seen)))
            };
            let (op, output) = match &effect {
                Effect::Pull { op, .. } => (*op, Output::Pulled),
                Effect::Create { op, request } => (*op, observed(request.spec.name.as_str(), RunState::Created)),
                Effect::Start { op, target } => (*op, observed(target, RunState::Running)),
                Effect::CreateResource { op, .. } | Effect::RemoveResource { op, .. } | Effect::Report { op, .. } => {
                    (*op, Output::Nothing)
                }
                other => panic!("{other:?}"),
            };
            seen.push(effect);
            todo.extend(step(&mut state, NOW, done(op, output)).effects);
        }
        (state, seen)
    }

    #[test]
    fn what_is_in_memory_goes_when_nobody_needs_it_and_the_rest_with_the_task() {
        let (state, seen) = running(volatile(&["a"]));
        assert_eq!(state.tasks[&"task".into()].known, TaskStatus::Running);
        assert_eq!(removing(&seen).len(), 1);
        let (mut state, seen) = running(durable(&["a"]));
        assert_eq!(removing(&seen), []);
        let effects = step(&mut state, NOW, stop()).effects;
        assert!(
            effects.iter().all(|effect| matches!(effect, Effect::Stop { .. })) && effects.len() == 2,
            "{effects:?}"
        );
    }

    #[test]
    fn after_a_restart_what_was_in_memory_is_made_again_for_those_that_still_need_it() {
        let (mut state, effects) = arrived(vec![volatile(&["a"]), durable(&["a"])]);
        for (op, _) in making(&effects) {
            step(&mut state, NOW, done(op, Output::Nothing));
        }
        let stored = serde_json::to_string(&*state.tasks[&"task".into()]).unwrap();
        let mut state = recover(Policy::default(), state.host.clone(), [serde_json::from_str(&stored).unwrap()]);
        let effects = step(&mut state, NOW, Event::Tick).effects;
        assert_eq!(making(&effects).iter().map(|(_, name)| *name).collect::<Vec<_>>(), ["ssmsecret"]);
        let (state, _) = running(volatile(&["a"]));
        let task = (*state.tasks[&"task".into()]).clone();
        let mut state = recover(Policy::default(), state.host.clone(), [task]);
        assert_eq!(making(&step(&mut state, NOW, Event::Tick).effects), []);
    }

    #[test]
    fn what_cannot_be_removed_is_left_behind_after_three_tries() {
        let (mut state, effects) = arrived(vec![durable(&["a"])]);
        // It fails for now, and then nobody wants it any more: a failure to make it is none to remove it.
        ends(&mut state, NOW, making(&effects)[0].0, Failure::retryable("", "busy"));
        let effects = step(&mut state, NOW, stop()).effects;
        let report = effects.iter().find_map(|it| match it {
            Effect::Report { op, .. } => Some(*op),
            _ => None,
        });
        step(&mut state, NOW, done(report.expect("nothing was created"), Output::Nothing));
        let mut now = NOW + Span::secs(100);
        for attempt in 0..3 {
            let effects = step(&mut state, now, Event::Tick).effects;
            let (op, name) = removing(&effects)[0];
            assert_eq!(name, "cgroup");
            assert!(state.tasks.contains_key(&"task".into()), "{attempt}");
            ends(&mut state, now, op, Failure::permanent("", "busy"));
            now = now + Span::secs(60);
        }
        assert!(!state.tasks.contains_key(&"task".into()));
    }
}
