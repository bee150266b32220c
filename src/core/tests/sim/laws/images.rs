//! The clean-up of images: no image is removed that a task needs.
//!
//! Invariant: judged by the pending operations and the names in tasks, not by what the core remembers of images.

use super::effects::Broken;
use crate::docker::{Container, OTHER_AGENT};
use crate::world::World;
use ecs_core::model::image::ImageWork;
use ecs_core::model::{RuntimeId, TaskStatus};
use ecs_core::{Effect, Operation, TaskState};

/// An image is not removed if a task names it, or if its look-up, pull or create is pending.
pub(super) fn clean(world: &World, work: &ImageWork) -> Broken {
    if world.pending.iter().any(|it| matches!(it.effect, Effect::Do(_, Operation::CleanImages(_)))) {
        return Some(("one part of the clean-up of images at a time", format!("{work:?}")));
    }
    let names = match work {
        ImageWork::List { .. } => return None,
        ImageWork::RemoveContainer(id) => return foreign(world, id),
        ImageWork::RemoveImage { names, .. } => names,
    };
    let named = world.state.tasks.values().find(|task| {
        !world.burst && task.known != TaskStatus::Stopped && task.specs().any(|it| names.contains(&it.image))
    });
    if let Some(task) = named {
        return Some(("an image that a task names is not removed", format!("{names:?} of {}", task.spec.arn)));
    }
    let is_wanted = |effect: &Effect| image_of(effect).is_some_and(|image| names.contains(image));
    let busy = world.pending.iter().any(|it| !it.cancelled && is_wanted(&it.effect));
    busy.then(|| ("an image is not removed while it is pulled or used", format!("{names:?}")))
}

/// Containers of our own tasks are not foreign, even while their create is pending.
fn foreign(world: &World, id: &RuntimeId) -> Broken {
    let is_other_agents =
        |it: &&Container| it.id == *id && it.owner.as_ref().is_some_and(|owner| owner.as_str() == OTHER_AGENT);
    if let Some(other) = world.docker.containers.iter().find(is_other_agents) {
        return Some(("a container of another agent is not removed as foreign", other.name.clone()));
    }
    let it = world.docker.containers.iter().find(|it| it.id == *id && !it.foreign && !it.renamed)?;
    let belongs_to = |task: &TaskState| task.spec.arn == it.task && task.index_of(&it.container).is_some();
    let is_ours = !world.burst && world.state.tasks.values().any(|task| belongs_to(task));
    is_ours.then(|| ("a container of a task is not removed as foreign", it.name.clone()))
}

/// No operation asks for an image while it is being removed.
pub(super) fn wanted(world: &World, effect: &Effect) -> Broken {
    let image = image_of(effect)?;
    let is_going = world.pending.iter().any(|it| match &it.effect {
        Effect::Do(_, Operation::CleanImages(ImageWork::RemoveImage { names, .. })) => {
            it.answer.is_none() && names.contains(image)
        }
        _ => false,
    });
    is_going.then(|| ("an image is not asked for while it is being removed", image.clone()))
}

fn image_of(effect: &Effect) -> Option<&String> {
    match effect {
        Effect::Do(_, Operation::ResolveDigest(image) | Operation::Pull(image)) => Some(&image.image),
        Effect::Do(_, Operation::Create(request)) => Some(&request.spec.image),
        _ => None,
    }
}
