//! The ids of the task metadata endpoint: an id in a container leads to that container, and to its task's credentials.

use crate::docker::{Container, OWN_ID};
use crate::world::World;
use ecs_core::model::view::TaskView;
use ecs_core::model::{CredentialsId, RoleKind, TaskStatus};

/// Judged by the environment of the containers in Docker. A container that the agent has not seen yet may have other ids than its
/// task: it is from before the state was lost.
pub(super) fn ids_lead_to_their_tasks(world: &mut World) {
    let broken = world.docker.containers.iter().find_map(|container| {
        let task = world.view.tasks.iter().find(|task| task.arn == container.task)?;
        let state = &world.state.tasks[&container.task];
        let index = state.index_of(&container.container)?;
        let is_seen = state.containers[index].state.observed.is_some()
            && state.containers[index].state.runtime_id.as_ref() == Some(&container.id);
        is_seen.then(|| broken_id(container, task, index)).flatten()
    });
    if let Some((law, what)) = broken {
        world.breaks(law, || what);
    }
    let kept =
        world.view.tasks.iter().find(|task| {
            task.known == TaskStatus::Stopped && task.roles.iter().any(|role| role.kind == RoleKind::Task)
        });
    if let Some(arn) = kept.map(|task| task.arn.to_string()) {
        world.breaks("a stopped task has no credentials of its task role", || arn);
    }
}

fn broken_id(container: &Container, task: &TaskView, index: usize) -> Option<(&'static str, String)> {
    let what = || format!("{} {:?}", container.name, container.ids);
    if container.ids.endpoint.is_some() && task.containers[index].endpoint_id != container.ids.endpoint {
        return Some(("an endpoint id leads to its container", what()));
    }
    let is_served = |kind: RoleKind, id: &CredentialsId| {
        let mut roles = task.roles.iter().filter(|role| role.kind == kind);
        roles.any(|role| role.current == *id || role.given.contains(id))
    };
    let is_lost = |kind, id: &Option<CredentialsId>| id.as_ref().is_some_and(|id| !is_served(kind, id));
    if container.ids.role.as_ref().is_some_and(|id| id.as_str() == OWN_ID) {
        let is_known = task.roles.iter().any(|role| role.kind == RoleKind::Task);
        return is_known.then(|| ("a customer's own variable is no id of a role", what()));
    }
    if task.known != TaskStatus::Stopped && is_lost(RoleKind::Task, &container.ids.role) {
        return Some(("an id in a container leads to its task role until the task stops", what()));
    }
    is_lost(RoleKind::Execution, &container.ids.execution_role)
        .then(|| ("an id in log options leads to the execution role until the clean-up", what()))
}
