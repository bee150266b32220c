//! Liveness: the laws that hold when the faults have ended and nothing is left to do.

use super::networks;
use crate::world::World;
use ecs_core::model::{ContainerKind, ContainerSpec, ContainerStatus, RunState, TaskArn, TaskStatus};
use ecs_core::state::TaskState;

/// Nothing is left to do, so every task must have reached its target.
pub(crate) fn settled(world: &mut World) {
    let broken = world.state.tasks.values().find_map(|task| settled_task(world, task)).or_else(|| settled_ecs(world));
    if let Some(what) = broken {
        world.breaks("every task reaches its target", || what);
    }
    networks::settled(world);
    let busy = !world.state.ops.is_empty() || !world.state.orphans.is_empty() || !world.pending.is_empty();
    if busy {
        let what = format!("{:?} {:?} {:?}", world.state.ops, world.state.orphans, world.pending);
        world.breaks("in the end nothing is in flight", || what);
    }
}

fn settled_task(world: &World, task: &TaskState) -> Option<String> {
    let arn = &task.spec.arn;
    let stuck = |what: &str| Some(format!("{arn} {what}: {task:?}"));
    for (spec, container) in task.pairs() {
        // After a renaming there may be two containers. The agent keeps to the first one that it saw.
        let by_id = container.runtime_id.as_ref().and_then(|id| world.docker.find(&id.0));
        let truth = by_id.map(|at| &world.docker.containers[at]).or_else(|| world.docker.container_of(arn, &spec.name));
        let is_lost = truth.is_some_and(|it| it.renamed) && container.observed.is_none();
        if !is_lost && truth.map(|it| it.state) != container.observed {
            return stuck("is not as it is seen");
        }
        if container.failure.is_none() && !is_lost && truth.is_some_and(|it| it.error.is_some()) {
            return stuck("ended, and no reason was reported");
        }
        if container.live.unsettled {
            return stuck("is unsettled");
        }
        if container.is_stopped() && container.observed == Some(RunState::Running) {
            return stuck("runs although it is over");
        }
    }
    let is_needed = |name: &String| {
        let resource = task.resources.iter().map(|it| &it.spec).find(|it| it.name == *name);
        let waits = |it: &&ecs_core::model::ContainerName| {
            task.index_of(it).is_some_and(|at| task.containers[at].state.known < ContainerStatus::Created)
        };
        task.desired == TaskStatus::Running && resource.is_some_and(|it| it.needed_by.iter().any(|it| waits(&it)))
    };
    let is_idle = |it: &&(TaskArn, String)| it.0 == *arn && !is_needed(&it.1) && !is_given_up(world, it);
    if let Some((_, name)) = world.memory.iter().find(is_idle) {
        return stuck(&format!("keeps {name} in memory, which nobody needs"));
    }
    if task.known != TaskStatus::Stopped && world.fetcher.ending.keys().any(|it| it.0 == *arn) {
        return stuck("has tickets that are not renewed");
    }
    let shall_stop = world.ecs.tasks.get(arn).is_some_and(|it| it.wants_stop);
    if task.known == TaskStatus::Stopped {
        return if task.sent == TaskStatus::Stopped {
            None
        } else {
            stuck("is stopped, and this was not reported to ECS")
        };
    }
    if task.desired == TaskStatus::Stopped || shall_stop {
        return stuck("does not stop");
    }
    if !task.admitted {
        return None; // `queue` judges that after every step, and in the end all tasks it may wait for are ended
    }
    let goes = |it: &ecs_core::state::ContainerState| it.is_stopped() || it.observed == Some(RunState::Running);
    if !task.states().all(goes) || task.known != TaskStatus::Running {
        return stuck("does not get to run");
    }
    let is_unreported = |(spec, it): (&ContainerSpec, &ecs_core::state::ContainerState)| {
        spec.kind == ContainerKind::Normal && it.sent != it.known
    };
    if task.sent != TaskStatus::Running || task.pairs().any(is_unreported) {
        return stuck("runs, and this was not reported to ECS");
    }
    None
}

/// The statuses at ECS are those that the agent knows.
fn settled_ecs(world: &World) -> Option<String> {
    world.ecs.tasks.iter().find_map(|(arn, task)| match world.state.tasks.get(arn) {
        Some(state) => (state.sent > TaskStatus::None && task.accepted.status < state.sent)
            .then(|| format!("ECS believes {} of {arn}, which is {}", task.accepted.status, state.sent)),
        // A task that never ran before the state was lost leaves no trace, but its stop is answered.
        None => {
            (task.accepted.status != TaskStatus::Stopped && !task.lost).then(|| format!("{arn} was lost: {task:?}"))
        }
    })
}

/// All running tasks have ended, round by round, so every task must have been admitted.
pub(crate) fn everybody_had_a_share(world: &mut World) {
    if let Some(arn) = super::waiting(world).map(|task| task.spec.arn.to_string()) {
        world.breaks("every task that can fit is admitted when others end", || arn);
    }
}

/// The agent has given up the removal of the resource, because it failed too often.
fn is_given_up(world: &World, resource: &(TaskArn, String)) -> bool {
    world.failed_removals.get(resource).is_some_and(|times| *times >= 3)
}

/// Every task was stopped and every wait is over, so nothing may be left.
pub(crate) fn all_gone(world: &mut World) {
    networks::all_gone(world);
    if let Some(arn) = world.state.tasks.keys().next().cloned() {
        world.breaks("in the end everything is forgotten", || arn.to_string());
    }
    if let Some(left) = world.docker.containers.iter().find(|it| !it.foreign && !it.renamed).cloned() {
        world.breaks("in the end no container is left in the engine", || format!("{left:?}"));
    }
    if world.docker.containers.iter().filter(|it| it.foreign).count() != world.docker.foreign_count {
        let what = format!("{:?}", world.docker.containers);
        world.breaks("the containers of others are left alone", || what);
    }
    let left = world.docker.resources.iter().chain(&world.memory).find(|it| !is_given_up(world, it));
    if let Some(left) = left.cloned() {
        world.breaks("in the end no resources are left", || format!("{left:?}"));
    }
    let is_forgotten = |(lease, owner): &(&String, &(TaskArn, String))| {
        world.fetcher.written.contains(*lease) && !is_given_up(world, owner)
    };
    if let Some((lease, owner)) = world.fetcher.leases.iter().find(is_forgotten) {
        let what = format!("{lease} of {owner:?}");
        world.breaks("in the end every lease is given back", || what);
    }
    if !world.state.credentials.is_empty() {
        let what = format!("{:?}", world.state.credentials);
        world.breaks("in the end no credentials are left", || what);
    }
}
