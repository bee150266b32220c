//! Which credentials of execution roles are in memory, and when they are dropped.
//!
//! Owns [`State::credentials`] and the retired ids of a task. Does not own the credentials themselves: only their ids enter the
//! core. Invariant: credentials that no task uses any more are dropped, but not while an operation that uses them is pending.

use super::effect::{Effect, Message};
use super::planning::Planning;
use super::resource;
use super::state::{Key, State, TaskState};
use super::step::Step;
use crate::model::{CredentialsAck, CredentialsId, TaskArn};
use std::collections::BTreeSet;

/// Records credentials that are in memory now, and returns the tasks to plan again. If they are for one task, the first id
/// replaces the task's earlier one.
pub(super) fn arrived(
    state: &mut State,
    task: Option<&TaskArn>,
    ids: Vec<CredentialsId>,
    ack: Option<CredentialsAck>,
    out: &mut Step,
) -> BTreeSet<TaskArn> {
    if task.is_some_and(|arn| !state.tasks.contains_key(arn)) {
        // The task has been removed from the state meanwhile. Without an acknowledgement, ECS notices that something is wrong.
        ids.into_iter().for_each(|id| drop_unused(state, id, &mut out.effects));
        return BTreeSet::new();
    }
    if let (Some(arn), Some(id)) = (task, ids.first())
        && let Some(task) = state.tasks.get_mut(arn)
    {
        replace(task, id);
        resource::credentials_renewed(task);
        out.changed.insert(Key::Task(arn.clone()));
    }
    state.credentials.extend(ids);
    // The Go agent does not acknowledge credentials with which domainless tickets cannot be renewed. Here the message is
    // acknowledged as soon as the credentials are in memory, which is all that ECS needs. A failed renewal is repeated without a
    // second message.
    out.effects.extend(ack.map(|ack| Effect::Send(Message::AckCredentials(ack))));
    let waiting = state.tasks.values().filter(|task| task.execution_credentials.is_some());
    waiting.map(|task| task.spec.arn.clone()).collect()
}

/// Makes the task use this id from now on. The earlier id is retired: it is dropped when no operation needs it.
pub(super) fn replace(task: &mut TaskState, id: &CredentialsId) {
    if task.execution_credentials.as_ref() != Some(id) {
        task.live.retired_credentials.extend(task.execution_credentials.replace(id.clone()));
    }
}

/// Drops the retired credentials of the task, once no pending operation may need them.
pub(super) fn retire(task: &mut TaskState, planning: &mut Planning<'_>) {
    let is_needed =
        task.states().any(|container| container.live.operation.is_some_and(|operation| operation.kind.is_image_work()))
            || task.resources.iter().any(|resource| resource.state.live.operation.is_some());
    if is_needed {
        return;
    }
    for id in std::mem::take(&mut task.live.retired_credentials) {
        if task.execution_credentials.as_ref() != Some(&id) {
            drop_unused(planning.state, id, &mut planning.out.effects);
        }
    }
}

/// Drops the credentials that only this task used. The task is no longer in the state.
pub(super) fn forget(state: &mut State, task: &TaskState, effects: &mut Vec<Effect>) {
    for id in task.execution_credentials.iter().chain(&task.live.retired_credentials) {
        drop_unused(state, id.clone(), effects);
    }
}

fn drop_unused(state: &mut State, id: CredentialsId, effects: &mut Vec<Effect>) {
    let is_used = state.tasks.values().any(|other| other.execution_credentials.as_ref() == Some(&id));
    if !is_used {
        state.credentials.remove(&id);
        effects.push(Effect::ForgetCredentials(id));
    }
}

#[cfg(test)]
mod tests {
    use crate::model::task::{EcrAuth, RegistryAuth};
    use crate::model::{CredentialsAck, CredentialsId, OpId};
    use crate::policy::Policy;
    use crate::sample::{NOW, container, done, run, spec, state};
    use crate::state::{OperationKind, State};
    use crate::{Effect, Event, Message, Operation, Output, step};

    fn arrive(state: &mut State, task: Option<&str>, id: &str) -> Vec<Effect> {
        step(state, NOW, Event::CredentialsArrived { task: task.map(Into::into), ids: vec![id.into()], ack: None })
            .effects
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

    fn renewed(task: &str, ids: &[&str]) -> Event {
        let ack = CredentialsAck { message_id: "m".to_owned(), id: "new".into(), expiration: "soon".to_owned() };
        let ids = ids.iter().map(|id| CredentialsId::from(*id)).collect();
        Event::CredentialsArrived { task: Some(task.into()), ids, ack: Some(ack) }
    }

    #[test]
    fn only_credentials_of_a_known_task_are_acknowledged_and_kept() {
        let mut state = state(Policy::default());
        step(&mut state, NOW, run(spec("task", vec![container("main", &[])])));
        let is_ack =
            |effect: &Effect| matches!(effect, Effect::Send(Message::AckCredentials(ack)) if ack.message_id == "m");
        let known = step(&mut state, NOW, renewed("task", &["new"]));
        assert!(known.effects.iter().any(is_ack), "{:?}", known.effects);
        assert_eq!(state.tasks[&"task".into()].execution_credentials, Some("new".into()));
        // Credentials of a task role are acknowledged too, though nothing here uses them.
        let role = step(&mut state, NOW, renewed("task", &[]));
        assert!(role.effects.iter().any(is_ack), "{:?}", role.effects);
        assert_eq!(state.tasks[&"task".into()].execution_credentials, Some("new".into()));
        let unknown = step(&mut state, NOW, renewed("another", &["stray"]));
        assert_eq!(unknown.effects, [Effect::ForgetCredentials("stray".into())]);
        assert!(!state.credentials.contains(&"stray".into()));
    }
}
