//! The image clean-up: which images are removed, and when (spec `images.md` §7).
//!
//! Owns the facts about images that outlive their tasks ([`TrackedImage`]) and the cycles of the clean-up. Invariants: an image
//! that a task in the state names or uses is never removed; while an image is being removed, no operation resolves, pulls or
//! creates under its names. There are no reference counts: the tasks in the state are the references. A failed removal does not
//! stop the cycle. Unlike in the Go agent, the clean-up also works with `prefer-cached`. If the operator limits how full the disk
//! may become, the clean-up makes room before a pull, whatever the age of the images.

use super::backoff;
use super::effect::{Effect, Operation};
use super::event::{Outcome, Output};
use super::state::{ContainerState, Key, OperationOwner, Retry, State, TaskState, TrackedImage};
use super::step::Step;
use crate::model::image::{ImageListing, ImageWork, ListedContainer, ListedImage, full_name};
use crate::model::{ContainerSpec, OwnerId, Span, TaskArn, Timestamp};
use std::collections::BTreeSet;

/// A check of the disk is valid for all pulls that begin within this time.
const DISK_CHECK_VALID_FOR: Span = Span::secs(60);

/// Records the images of a task that is being removed from the state, for the clean-up.
pub(super) fn remember(state: &mut State, task: &TaskState, now: Timestamp, out: &mut Step) {
    if !state.policy.images.is_on() {
        return;
    }
    for (spec, container) in task.pairs().filter(|(_, container)| !container.image_id.is_empty()) {
        let name = full_name(&spec.image);
        let pulled_at = task.pull_stopped_at.unwrap_or(now);
        let image = state.host.images.entry(container.image_id.clone());
        let image = image.or_default();
        image.names.insert(name);
        (image.pulled_at, image.used_at) = (image.pulled_at.max(pulled_at), now);
        out.changed.insert(Key::Host);
    }
}

/// The image is being removed, so no operation may resolve, pull or create under this name.
pub(super) fn is_being_removed(state: &State, image: &str) -> bool {
    match &state.images.operation {
        Some((_, ImageWork::RemoveImage { names, .. })) => {
            let wanted = full_name(image);
            names.iter().any(|name| full_name(name) == wanted)
        }
        Some((_, ImageWork::List { .. } | ImageWork::RemoveContainer(_))) | None => false,
    }
}

/// A pull must wait: it is not known whether the disk has room, or images are being removed to make room.
pub(super) fn lacks_room(state: &State, now: Timestamp) -> bool {
    state.policy.images.disk.is_some() && (!is_disk_check_valid(state, now) || state.images.is_making_room)
}

/// Requests a check of the disk for a waiting pull, if the last check is too old.
pub(super) fn request_disk_check(state: &mut State, now: Timestamp) {
    state.images.is_pull_waiting |= !is_disk_check_valid(state, now);
}

fn is_disk_check_valid(state: &State, now: Timestamp) -> bool {
    state.images.disk_checked_at.is_some_and(|at| at <= now && now < at + DISK_CHECK_VALID_FOR)
}

/// Starts the next operation of the clean-up; true if a cycle has ended for which pulls waited.
pub(super) fn plan(state: &mut State, now: Timestamp, out: &mut Step) -> bool {
    let policy = &state.policy.images;
    if !policy.is_on() || state.host.lost || state.images.operation.is_some() {
        return false;
    }
    let interval = policy.interval;
    let due = *state.images.due.get_or_insert(now + interval);
    if state.images.listing.is_some() {
        if let Some(work) = next(state, now) {
            start(state, work, out);
            return false;
        }
        let was_waited_for = state.images.is_pull_waiting;
        end_cycle(state, now, interval);
        return was_waited_for;
    }
    let images = &state.images;
    let is_due = (state.policy.images.enabled && due <= now) || images.is_pull_waiting;
    if is_due && images.retry.not_before <= now {
        let policy = &state.policy.images;
        let (ends, disk) = (policy.untracked.is_some() && !images.is_pull_waiting, policy.disk.is_some());
        start(state, ImageWork::List { ends, disk }, out);
    }
    false
}

/// When the next operation of the clean-up is due; `None`: none is due without another event.
pub(super) fn next_deadline(state: &State) -> Option<Timestamp> {
    let images = &state.images;
    if !state.policy.images.is_on() || state.host.lost || images.operation.is_some() {
        return None;
    }
    let due = images.due.filter(|_| state.policy.images.enabled);
    let due = if images.is_pull_waiting { Some(Timestamp::default()) } else { due };
    due.map(|due| due.max(images.retry.not_before))
}

fn start(state: &mut State, work: ImageWork, out: &mut Step) {
    let op = state.new_op(OperationOwner::Images);
    state.images.operation = Some((op, work.clone()));
    out.effects.push(Effect::Do(op, Operation::CleanImages(work)));
}

fn end_cycle(state: &mut State, now: Timestamp, interval: Span) {
    let images = &mut state.images;
    if images.due.is_none_or(|due| due <= now) {
        images.due = Some(now + interval);
    }
    (images.listing, images.tracked_tried, images.foreign_removed) = (None, 0, (0, 0));
    images.tried.clear();
    if images.is_pull_waiting {
        (images.is_pull_waiting, images.is_making_room, images.disk_checked_at) = (false, false, Some(now));
    }
}

/// Writes the outcome of the pending operation and returns the tasks to plan again.
pub(super) fn completed(state: &mut State, now: Timestamp, outcome: Outcome, out: &mut Step) -> BTreeSet<TaskArn> {
    let Some((_, work)) = state.images.operation.take() else { return BTreeSet::new() };
    let interval = state.policy.images.interval;
    match (work, outcome) {
        (ImageWork::List { ends, .. }, Ok(Output::Images(listing))) => {
            state.images.retry = Retry::default();
            if ends {
                note_absent_owners(state, &listing, now);
            }
            reconcile(state, &listing, now, out);
            check_disk(state, *listing, now, interval);
        }
        (ImageWork::List { .. }, _) => {
            backoff::ENGINE.again(&mut state.images.retry, now, "images");
            end_cycle(state, now, interval); // a pull does not wait if the disk cannot be checked
        }
        (ImageWork::RemoveImage { id, names }, Ok(_)) => {
            let tracked = state.host.images.remove(&id);
            let gone: BTreeSet<String> = names.iter().map(|name| full_name(name)).collect();
            // For `once`: the image is not on this host any more.
            let pulled = state.host.pulled_images.len();
            state.host.pulled_images.retain(|name| !gone.contains(&full_name(name)));
            if tracked.is_some() || state.host.pulled_images.len() < pulled {
                out.changed.insert(Key::Host);
            }
            state.images.foreign_removed.0 += u32::from(tracked.is_none());
            if state.images.is_making_room {
                state.images.listing = None; // a new listing shows how full the disk is now
            }
        }
        (ImageWork::RemoveContainer(_), Ok(_)) => state.images.foreign_removed.1 += 1,
        (ImageWork::RemoveImage { .. } | ImageWork::RemoveContainer(_), _) => {}
    }
    state.tasks.keys().cloned().collect()
}

/// Brings the tracked images in line with the images on this host.
fn reconcile(state: &mut State, listing: &ImageListing, now: Timestamp, out: &mut Step) {
    let before = state.host.images.clone();
    state.host.images.retain(|id, _| listing.images.iter().any(|image| image.id == *id));
    let pulled: BTreeSet<String> = state.host.pulled_images.iter().map(|name| full_name(name)).collect();
    for image in &listing.images {
        let names: BTreeSet<String> = image.full_names().collect();
        if let Some(tracked) = state.host.images.get_mut(&image.id) {
            tracked.names.retain(|name| names.contains(name));
        }
        // The image was pulled for a task that never created a container from it, or its tag was pulled again since.
        let own: BTreeSet<String> = names.intersection(&pulled).cloned().collect();
        if !own.is_empty() {
            let fresh = || TrackedImage { pulled_at: now, used_at: now, ..TrackedImage::default() };
            state.host.images.entry(image.id.clone()).or_insert_with(fresh).names.extend(own);
        }
    }
    if state.host.images != before {
        out.changed.insert(Key::Host);
    }
}

/// Records which other agents do not run. If the listing does not say that, all of them count as running.
fn note_absent_owners(state: &mut State, listing: &ImageListing, now: Timestamp) {
    let earlier = std::mem::take(&mut state.images.absent);
    let Some(running) = &listing.running_owners else { return };
    let owners = listing.containers.iter().filter_map(|container| container.owner.as_ref());
    let absent = owners.filter(|id| !running.contains(*id) && !state.policy.owners.owns(Some(id)));
    state.images.absent = absent.map(|id| (id.clone(), earlier.get(id).copied().unwrap_or(now))).collect();
}

/// Decides from a new listing whether the disk has room for a waiting pull, or images must be removed first. Without a waiting
/// pull, a cycle begins.
fn check_disk(state: &mut State, listing: ImageListing, now: Timestamp, interval: Span) {
    if state.policy.images.disk.is_some_and(|(high, _)| listing.disk_percent.is_none_or(|percent| percent < high)) {
        state.images.disk_checked_at = Some(now);
    }
    let Some((high, low)) = state.policy.images.disk.filter(|_| state.images.is_pull_waiting) else {
        state.images.listing = Some(listing);
        return;
    };
    let mark = if state.images.is_making_room { low } else { high };
    state.images.is_making_room = listing.disk_percent.is_some_and(|percent| percent >= mark);
    let is_due = state.policy.images.enabled && state.images.due.is_some_and(|due| due <= now);
    if !state.images.is_making_room {
        end_cycle(state, now, interval);
    }
    if state.images.is_making_room || is_due {
        state.images.listing = Some(listing);
    }
}

/// The next removal of the cycle, which is recorded as tried; `None` at the end of the cycle.
fn next(state: &mut State, now: Timestamp) -> Option<ImageWork> {
    let listing = state.images.listing.take()?;
    let found = next_tracked_image(state, &listing, now)
        .or_else(|| next_foreign_container(state, &listing, now))
        .or_else(|| next_untracked_image(state, &listing));
    state.images.listing = Some(listing);
    let (key, work) = found?;
    state.images.tried.insert(key);
    // Compat: for images of tasks every try counts, for others only a success. So an image that cannot be removed does not keep
    // others from being removed.
    if matches!(&work, ImageWork::RemoveImage { id, .. } if state.host.images.contains_key(id)) {
        state.images.tracked_tried += 1;
    }
    Some(work)
}

/// No container and no task uses the image, and the operator does not exclude it. An excluded name matches in every spelling; the
/// Go agent matches only the spelling of the task.
fn is_unused(state: &State, listing: &ImageListing, image: &ListedImage) -> bool {
    let names: BTreeSet<String> = image.full_names().collect();
    let is_excluded = state.policy.images.exclude.iter().any(|excluded| names.contains(&full_name(excluded)));
    let digests: BTreeSet<&str> = image.digests.iter().filter_map(|name| Some(name.split_once('@')?.1)).collect();
    let mut used = state.tasks.values().flat_map(|task| task.pairs());
    // An image that was just pulled by its digest may not have the task's name yet.
    let uses_image = |spec: &ContainerSpec, container: &ContainerState| {
        container.image_id == image.id
            || names.contains(&full_name(&spec.image))
            || container.digest.as_ref().is_some_and(|digest| digests.contains(digest.as_str()))
    };
    !is_excluded
        && !listing.containers.iter().any(|container| container.image_id == image.id)
        && !used.any(|(spec, container)| uses_image(spec, container))
}

/// The removal of the least recently used image that tasks have used; `None` if there is none to remove.
fn next_tracked_image(state: &State, listing: &ImageListing, now: Timestamp) -> Option<(String, ImageWork)> {
    let (images, policy) = (&state.images, &state.policy.images);
    if !images.is_making_room && images.tracked_tried >= policy.per_cycle {
        return None;
    }
    let candidates = listing.images.iter().filter_map(|image| {
        let tracked = state.host.images.get(&image.id).filter(|_| !images.tried.contains(&image.id))?;
        // If none of the image's names came from a task, it belongs to somebody else.
        let names: Vec<String> =
            image.names.iter().filter(|name| tracked.names.contains(&full_name(name))).cloned().collect();
        let is_ours = image.names.is_empty() || !names.is_empty();
        (is_ours && is_unused(state, listing, image)).then_some((tracked, image, names))
    });
    let is_old = |tracked: &TrackedImage| images.is_making_room || now > tracked.pulled_at + policy.minimum_age;
    let old = candidates.filter(|(tracked, ..)| is_old(tracked));
    let (_, image, names) = old.min_by_key(|(tracked, image, _)| (tracked.used_at, image.id.clone()))?;
    let id = image.id.clone();
    Some((id.clone(), ImageWork::RemoveImage { id, names }))
}

/// The removal of a container that belongs to no task and ended long ago; `None` if there is none to remove.
fn next_foreign_container(state: &State, listing: &ImageListing, now: Timestamp) -> Option<(String, ImageWork)> {
    let untracked = state.policy.images.untracked.as_ref().filter(|_| !state.images.is_making_room)?;
    if state.images.foreign_removed.1 >= untracked.containers_per_cycle {
        return None;
    }
    // A container is also compared by name, since its id is not known while its create is pending.
    let is_known = |listed: &ListedContainer| {
        let belongs_to = |task: &TaskState| {
            task.pairs().any(|(spec, container)| {
                container.runtime_id.as_ref() == Some(&listed.id) || task.spec.runtime_name(&spec.name) == listed.name
            })
        };
        state.orphans.contains_key(listed.id.as_str()) || state.tasks.values().any(|task| belongs_to(task))
    };
    // Another agent removes the containers of its own tasks. If it has not run for long, this agent removes them.
    let is_long_absent =
        |id: &OwnerId| state.images.absent.get(id).is_some_and(|since| *since + state.policy.cleanup_wait <= now);
    let is_another_agents = |container: &ListedContainer| {
        container.owner.as_ref().is_some_and(|id| !state.policy.owners.owns(Some(id)) && !is_long_absent(id))
    };
    let mut removable = listing.containers.iter().filter(|container| {
        container.ended.is_some_and(|ended| ended > state.policy.cleanup_wait) && !is_another_agents(container)
    });
    let next =
        removable.find(|container| !state.images.tried.contains(container.id.as_str()) && !is_known(container))?;
    Some((next.id.as_str().to_owned(), ImageWork::RemoveContainer(next.id.clone())))
}

/// The removal of the smallest image that no task has used, one name at a time; `None` if there is none to remove.
fn next_untracked_image(state: &State, listing: &ImageListing) -> Option<(String, ImageWork)> {
    let (images, policy) = (&state.images, &state.policy.images);
    let untracked = policy.untracked.as_ref().filter(|_| !images.is_making_room)?;
    // Compat: at least one is removed, even if removals of tasks' images have used up the number of the cycle.
    let limit = policy.per_cycle.saturating_sub(images.tracked_tried).max(1);
    if images.foreign_removed.0 >= limit {
        return None;
    }
    let is_foreign = |image: &&ListedImage| {
        !state.host.images.contains_key(&image.id)
            && image.age > untracked.minimum_age
            && is_unused(state, listing, image)
    };
    let names = |image: &ListedImage| -> Vec<Vec<String>> {
        let each = image.names.iter().map(|name| vec![name.clone()]);
        if image.names.is_empty() { vec![Vec::new()] } else { each.collect() }
    };
    let removals = listing.images.iter().filter(is_foreign).flat_map(|image| {
        let key = |names: &[String]| names.first().cloned().unwrap_or_else(|| image.id.clone());
        names(image).into_iter().map(move |names| (image.size, key(&names), image.id.clone(), names))
    });
    let (_, key, id, names) = removals.filter(|(_, key, ..)| !images.tried.contains(key)).min()?;
    Some((key, ImageWork::RemoveImage { id, names }))
}

#[cfg(test)]
mod tests;
