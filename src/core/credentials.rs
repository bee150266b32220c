//! Which credentials of task roles and task execution roles are in memory, and when they are dropped.
//!
//! Owns [`State::credentials`], the ids of a task's credentials and its retired ids. Does not own the credentials themselves:
//! only their ids enter the core. Invariants: credentials that no task uses any more are dropped, but not while an operation that
//! uses them is pending; an id that a container was created with is served until the task stops (task role), or until its
//! clean-up (task execution role: Docker may still send logs).

use super::effect::{Effect, Message};
use super::planning::Planning;
use super::resource;
use super::state::{Container, Key, State, TaskState};
use super::step::Step;
use crate::model::observation::GivenIds;
use crate::model::view::RoleView;
use crate::model::{CredentialsAck, CredentialsId, RoleKind, TaskArn, TaskStatus};
use std::collections::BTreeSet;

/// Records credentials that are in memory now, and returns the tasks to plan again. If they are for a role of one task, the id
/// replaces the earlier one of that role.
pub(super) fn arrived(
    state: &mut State,
    task: Option<&(TaskArn, RoleKind)>,
    ids: Vec<CredentialsId>,
    ack: Option<CredentialsAck>,
    out: &mut Step,
) -> BTreeSet<TaskArn> {
    if task.is_some_and(|(arn, _)| !state.tasks.contains_key(arn)) {
        // The task has been removed from the state meanwhile. Without an acknowledgement, ECS notices that something is wrong.
        ids.into_iter().for_each(|id| drop_unused(state, id, &mut out.effects));
        return BTreeSet::new();
    }
    if let (Some((arn, kind)), Some(id)) = (task, ids.first())
        && let Some(task) = state.tasks.get_mut(arn)
    {
        replace(task, *kind, id);
        if *kind == RoleKind::Execution {
            resource::credentials_renewed(task);
        }
        out.changed.insert(Key::Task(arn.clone()));
    }
    state.credentials.extend(ids);
    // The Go agent does not acknowledge credentials with which domainless tickets cannot be renewed. Here the message is
    // acknowledged as soon as the credentials are in memory, which is all that ECS needs. A failed renewal is repeated without a
    // second message.
    out.effects.extend(ack.map(|ack| Effect::Send(Message::AckCredentials(ack))));
    let has_role = |task: &TaskState| task.execution_credentials.is_some() || task.role_credentials.is_some();
    let waiting = state.tasks.values().filter(|task| has_role(task));
    waiting.map(|task| &task.spec.arn).chain(task.map(|(arn, _)| arn)).cloned().collect()
}

/// Makes the task use this id from now on. The earlier id is retired: it is dropped when no operation needs it.
pub(super) fn replace(task: &mut TaskState, kind: RoleKind, id: &CredentialsId) {
    let (current, given) = match kind {
        RoleKind::Task => (&mut task.role_credentials, &mut task.spec.role_id),
        RoleKind::Execution => (&mut task.execution_credentials, &mut task.spec.execution_role_id),
    };
    given.get_or_insert_with(|| id.clone());
    if current.as_ref() != Some(id) {
        task.live.retired_credentials.extend(current.replace(id.clone()));
    }
}

/// Records the ids that a container was created with. They differ from the task's if the container is older than the agent's
/// state. Without a role, the variable or the option with the id is the customer's own, and leads nowhere.
pub(super) fn found(task: &mut TaskState, index: usize, ids: &GivenIds) {
    let Container { spec, state } = &mut task.containers[index];
    if let Some(id) = &ids.endpoint {
        spec.endpoint_id.clone_from(id);
    }
    let has_role = task.spec.has_role || task.spec.role_id.is_some();
    let roles = [
        (
            ids.role.as_ref().filter(|_| has_role),
            &mut task.spec.role_id,
            &mut task.role_credentials,
            &mut state.role_id,
        ),
        (
            ids.execution_role.as_ref().filter(|_| spec.logs_with_execution_role),
            &mut task.spec.execution_role_id,
            &mut task.execution_credentials,
            &mut state.execution_role_id,
        ),
    ];
    for (id, task_id, current, container_id) in roles {
        match (id, &task_id) {
            (Some(id), Some(known)) if id != known => *container_id = Some(id.clone()),
            // Without a specification, only the containers show which roles the task has.
            (Some(id), None) if task.reduced => {
                *task_id = Some(id.clone());
                current.get_or_insert_with(|| id.clone());
            }
            _ => {}
        }
    }
}

/// The roles whose credentials may be requested with an id of this task.
pub(super) fn served(task: &TaskState) -> impl Iterator<Item = RoleView> {
    let roles = [
        (RoleKind::Task, &task.role_credentials, &task.spec.role_id),
        (RoleKind::Execution, &task.execution_credentials, &task.spec.execution_role_id),
    ];
    roles.into_iter().filter_map(|(kind, current, task_id)| {
        let container_ids = task.states().filter_map(move |container| match kind {
            RoleKind::Task => container.role_id.as_ref(),
            RoleKind::Execution => container.execution_role_id.as_ref(),
        });
        let given: BTreeSet<_> = task_id.iter().chain(container_ids).cloned().collect();
        Some(RoleView { kind, current: current.clone()?, given: given.into_iter().collect() })
    })
}

/// Drops the credentials that the task no longer needs: those of the task role once the task has stopped, and retired ones once
/// no pending operation may need them.
pub(super) fn retire(task: &mut TaskState, planning: &mut Planning<'_>) {
    if task.known == TaskStatus::Stopped
        && let Some(id) = task.role_credentials.take()
    {
        drop_unused(planning.state, id, &mut planning.out.effects);
        planning.changed(task);
    }
    let is_needed =
        task.states().any(|container| container.live.operation.is_some_and(|operation| operation.kind.is_image_work()))
            || task.resources.iter().any(|resource| resource.state.live.operation.is_some());
    if is_needed {
        return;
    }
    for id in std::mem::take(&mut task.live.retired_credentials) {
        if !uses(task, &id) {
            drop_unused(planning.state, id, &mut planning.out.effects);
        }
    }
}

/// Drops the credentials that only this task used. The task is no longer in the state.
pub(super) fn forget(state: &mut State, task: &TaskState, effects: &mut Vec<Effect>) {
    let current = task.execution_credentials.iter().chain(&task.role_credentials);
    for id in current.chain(&task.live.retired_credentials) {
        drop_unused(state, id.clone(), effects);
    }
}

fn uses(task: &TaskState, id: &CredentialsId) -> bool {
    task.execution_credentials.as_ref() == Some(id) || task.role_credentials.as_ref() == Some(id)
}

fn drop_unused(state: &mut State, id: CredentialsId, effects: &mut Vec<Effect>) {
    if !state.tasks.values().any(|other| uses(other, &id)) {
        state.credentials.remove(&id);
        effects.push(Effect::ForgetCredentials(id));
    }
}

#[cfg(test)]
mod tests {
    use crate::model::observation::GivenIds;
    use crate::model::task::{EcrAuth, RegistryAuth};
    use crate::model::view::RoleView;
    use crate::model::{
        ContainerStatus, CredentialsAck, CredentialsId, Observation, OpId, RoleKind, RunState, TaskSpec, TaskStatus,
    };
    use crate::policy::Policy;
    use crate::sample::{NOW, container, done, run, seen, spec, state};
    use crate::state::{HostState, OperationKind, State};
    use crate::{Effect, Event, Message, Operation, Output, recover, step};

    fn arrive(state: &mut State, task: Option<&str>, id: &str) -> Vec<Effect> {
        let task = task.map(|task| (task.into(), RoleKind::Execution));
        step(state, NOW, Event::CredentialsArrived { task, ids: vec![id.into()], ack: None }).effects
    }

    fn forgotten(effects: &[Effect]) -> Vec<&str> {
        let ids = effects.iter().filter_map(|effect| match effect {
            Effect::ForgetCredentials(id) => Some(id.as_str()),
            _ => None,
        });
        ids.collect()
    }

    /// A state with a task that pulls with its execution role, before or after its credentials have arrived.
    fn by_role(has_come: bool) -> (State, Vec<Effect>) {
        let mut state = state(Policy::default());
        let inventory = *state.ops.keys().next().unwrap();
        step(&mut state, NOW, done(inventory, Output::Inventory(Vec::new())));
        if has_come {
            arrive(&mut state, None, "old");
        }
        let mut spec = spec("task", vec![container("a", &[])]);
        spec.execution_credentials = Some("old".into());
        spec.containers[0].registry_auth =
            RegistryAuth::Ecr(EcrAuth { use_execution_role: true, ..EcrAuth::default() });
        let effects = step(&mut state, NOW, run(spec)).effects;
        (state, effects)
    }

    fn pull(effects: &[Effect]) -> Option<(OpId, Option<&CredentialsId>)> {
        effects.iter().find_map(|effect| match effect {
            Effect::Do(op, Operation::Pull(image)) => Some((*op, image.execution_credentials.as_ref())),
            _ => None,
        })
    }

    #[test]
    fn an_image_waits_for_the_credentials_of_its_role() {
        let (mut state, effects) = by_role(false);
        assert_eq!(effects, []);
        assert_eq!(pull(&arrive(&mut state, None, "of-another-task")), None);
        let effects = arrive(&mut state, None, "old");
        assert_eq!(pull(&effects).map(|(_, id)| id), Some(Some(&"old".into())));
        let (_, effects) = by_role(true);
        assert!(pull(&effects).is_some(), "they came first");
    }

    #[test]
    fn replaced_credentials_are_dropped_after_image_operations() {
        let (mut state, effects) = by_role(true);
        let (op, _) = pull(&effects).unwrap();
        let kind = state.tasks[&"task".into()].containers[0].state.live.operation.map(|operation| operation.kind);
        assert_eq!(kind, Some(OperationKind::Pull));
        assert_eq!(forgotten(&arrive(&mut state, Some("task"), "new")), [""; 0], "the pull was given the old ones");
        let effects = step(&mut state, NOW, done(op, Output::Pulled)).effects;
        assert_eq!(forgotten(&effects), ["old"]);
        assert_eq!(state.credentials, [CredentialsId::from("new")].into());
        assert_eq!(forgotten(&arrive(&mut state, Some("task"), "new")), [""; 0], "the same id again");
    }

    #[test]
    fn unused_credentials_of_an_unknown_task_are_dropped() {
        let (mut state, _) = by_role(true);
        assert_eq!(forgotten(&arrive(&mut state, Some("forgotten"), "x")), ["x"]);
        assert_eq!(forgotten(&arrive(&mut state, Some("forgotten"), "old")), [""; 0]);
        assert!(state.credentials.contains(&"old".into()));
    }

    fn renewed(task: &str, kind: RoleKind, id: &str) -> Event {
        let ack = CredentialsAck { message_id: "m".to_owned(), id: id.into(), expiration: "soon".to_owned() };
        Event::CredentialsArrived { task: Some((task.into(), kind)), ids: vec![id.into()], ack: Some(ack) }
    }

    #[test]
    fn only_credentials_of_a_known_task_are_acknowledged_and_kept() {
        let mut state = state(Policy::default());
        step(&mut state, NOW, run(spec("task", vec![container("main", &[])])));
        let is_ack =
            |effect: &Effect| matches!(effect, Effect::Send(Message::AckCredentials(ack)) if ack.message_id == "m");
        let known = step(&mut state, NOW, renewed("task", RoleKind::Execution, "new"));
        assert!(known.effects.iter().any(is_ack), "{:?}", known.effects);
        let role = step(&mut state, NOW, renewed("task", RoleKind::Task, "role"));
        assert!(role.effects.iter().any(is_ack), "{:?}", role.effects);
        let task = &state.tasks[&"task".into()];
        let current = (task.execution_credentials.as_ref(), task.role_credentials.as_ref());
        assert_eq!(current, (Some(&"new".into()), Some(&"role".into())));
        assert_eq!(state.credentials, ["new", "role"].map(CredentialsId::from).into());
        let unknown = step(&mut state, NOW, renewed("another", RoleKind::Task, "stray"));
        assert_eq!(unknown.effects, [Effect::ForgetCredentials("stray".into())]);
        assert!(!state.credentials.contains(&"stray".into()));
    }

    /// A running task of one container, which was created with the id `first` of the task role.
    fn with_role() -> State {
        let mut state = state(Policy::default());
        let inventory = *state.ops.keys().next().unwrap();
        step(&mut state, NOW, done(inventory, Output::Inventory(Vec::new())));
        arrive(&mut state, None, "first");
        let spec = TaskSpec { role_credentials: Some("first".into()), ..spec("task", vec![container("a", &[])]) };
        let (op, _) = pull(&step(&mut state, NOW, run(spec)).effects).unwrap();
        let effects = step(&mut state, NOW, done(op, Output::Pulled)).effects;
        let creates = effects.iter().find_map(|effect| match effect {
            Effect::Do(_, Operation::Create(request)) => request.role_id.clone(),
            _ => None,
        });
        assert_eq!(creates, Some("first".into()), "{effects:?}");
        state
    }

    fn served(state: &State) -> Vec<(RoleKind, String, String)> {
        let roles = super::served(&state.tasks[&"task".into()]);
        let given = |role: &RoleView| role.given.iter().map(CredentialsId::as_str).collect::<Vec<_>>().join(",");
        roles.map(|role| (role.kind, given(&role), role.current.as_str().to_owned())).collect()
    }

    #[test]
    fn the_id_of_a_container_is_served_after_each_renewal() {
        let mut state = with_role();
        for newer in ["second", "third"] {
            let dropped = step(&mut state, NOW, renewed("task", RoleKind::Task, newer)).effects;
            assert_eq!(forgotten(&dropped).len(), 1, "the earlier credentials");
            assert_eq!(served(&state), [(RoleKind::Task, "first".to_owned(), newer.to_owned())]);
            assert_eq!(state.credentials, [CredentialsId::from(newer)].into());
        }
    }

    #[test]
    fn credentials_of_the_task_role_are_dropped_when_the_task_stops() {
        let mut state = with_role();
        let task = state.tasks.get_mut(&"task".into()).unwrap();
        task.desired = TaskStatus::Stopped;
        task.execution_credentials = Some("execution".into());
        let container = &mut task.containers[0].state;
        (container.known, container.live.operation) = (ContainerStatus::Stopped, None);
        state.credentials.insert("execution".into());
        let again = TaskSpec { role_credentials: Some("later".into()), ..spec("task", vec![container_spec()]) };
        let stopped = step(&mut state, NOW, run(again));
        assert_eq!(forgotten(&stopped.effects), ["later", "first"]);
        assert_eq!(served(&state), [(RoleKind::Execution, String::new(), "execution".to_owned())]);
        let late = step(&mut state, NOW, renewed("task", RoleKind::Task, "late"));
        assert_eq!(forgotten(&late.effects), ["late"], "a late renewal");
        assert_eq!(state.credentials, [CredentialsId::from("execution")].into());
    }

    /// The first agent created the container `a`; the second one, which has lost its state, got the task with other ids.
    #[test]
    fn the_ids_of_an_older_container_are_served() {
        let mut state = with_role();
        let observed =
            |id: &str, ids| Event::Observed(Box::new(Observation { ids, ..seen("task", "a", id, RunState::Running) }));
        step(&mut state, NOW, observed("a", ids("endpoint", "older")));
        let task = &state.tasks[&"task".into()];
        assert_eq!(task.containers[0].spec.endpoint_id, "endpoint".into());
        assert_eq!(served(&state), [(RoleKind::Task, "first,older".to_owned(), "first".to_owned())]);
        step(&mut state, NOW, observed("a", GivenIds::default()));
        assert_eq!(state.tasks[&"task".into()].containers[0].spec.endpoint_id, "endpoint".into());
    }

    /// Rebuilt from a container whose environment and log options name ids. They are the customer's own, unless the task has roles.
    #[test]
    fn a_customers_own_variable_is_no_id_of_a_role() {
        for (has_role, expected) in [(true, 2), (false, 0)] {
            let mut container = container_spec();
            container.logs_with_execution_role = has_role;
            let spec = TaskSpec {
                role_credentials: has_role.then(|| "role".into()),
                execution_credentials: has_role.then(|| "execution".into()),
                ..spec("task", vec![container])
            };
            let lost = HostState { lost: true, ..HostState::default() };
            let mut state = recover(Policy::default(), lost, []);
            step(&mut state, NOW, Event::Tick);
            let inventory = *state.ops.keys().next().unwrap();
            let found = Observation {
                runtime_name: spec.runtime_name(&"a".into()),
                outline: Some(Box::new(spec.outline())),
                ids: ids("endpoint", "role"),
                ..seen("task", "a", "id", RunState::Running)
            };
            step(&mut state, NOW, done(inventory, Output::Inventory(vec![found])));
            assert_eq!(served(&state).len(), expected, "{:?}", served(&state));
            let outline = state.tasks[&"task".into()].outline();
            assert_eq!(outline.has_role, has_role, "the same in the labels of its next containers");
        }
    }

    fn ids(endpoint: &str, role: &str) -> GivenIds {
        GivenIds { endpoint: Some(endpoint.into()), role: Some(role.into()), execution_role: Some("execution".into()) }
    }

    fn container_spec() -> crate::model::ContainerSpec {
        container("a", &[])
    }
}
