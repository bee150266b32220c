//! The clean-up of images: which may go, and when (spec `images.md` §7).
//!
//! Owns what is remembered of images after their tasks ([`TrackedImage`]) and the cycles of the clean-up. The law: an image that a
//! task in the state names or uses is never removed, and while one is being removed nobody resolves, pulls or creates under its
//! names. While a task is in the state it *is* the reference; nothing is counted. A removal that fails does not stop the cycle.
//! Unlike the reference it works with `prefer-cached` too, and, if the operator says how full the disk may become, it makes room
//! before a pull, whatever the age of the images.

use super::effect::Effect;
use super::event::{Outcome, Output};
use super::plan::Planning;
use super::state::{ContainerState, Owner, State, TaskState};
use super::{Key, Step, backoff};
use crate::model::image::{ImageListing, ImageWork, ListedImage, full_name};
use crate::model::{ContainerSpec, OpId, Span, TaskArn, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// A look at the disk serves all pulls that begin within this time.
const LOOK_SERVES: Span = Span::secs(60);

/// What is remembered of an image that tasks have used.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrackedImage {
    /// What tasks called it.
    pub names: BTreeSet<String>,
    /// When it was pulled last. The reference counts from the first time, so that an image just pulled anew may go at once.
    pub pulled_at: Timestamp,
    /// When the last task that used it was forgotten.
    pub used_at: Timestamp,
}

/// The clean-up under way. Volatile: a restart begins a new interval.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cleanup {
    /// When the next cycle begins; `None` until the first plan.
    pub due: Option<Timestamp>,
    /// What is in flight: at most one.
    pub operation: Option<(OpId, ImageWork)>,
    /// When a listing that failed may be tried again.
    pub retry: super::state::Retry,
    /// A pull waits for a look at the disk.
    pub is_pressed: bool,
    /// The disk was too full at the last look: room is being made.
    pub makes_room: bool,
    /// When the disk was looked at last.
    pub looked: Option<Timestamp>,
    /// What the cycle goes by.
    listing: Option<ImageListing>,
    /// Images and containers that were tried in this cycle.
    tried: BTreeSet<String>,
    /// Removals of tracked images that were tried in this cycle.
    tracked_tried: u32,
    /// Names of images, and containers, of others that went in this cycle.
    foreign_gone: (u32, u32),
}

/// A task is forgotten: what it used is remembered, for the clean-up.
pub(super) fn remember(state: &mut State, task: &TaskState, now: Timestamp, out: &mut Step) {
    if !state.policy.images.is_on() {
        return;
    }
    for (spec, container) in task.pairs().filter(|(_, container)| !container.image_id.is_empty()) {
        let name = full_name(&spec.image);
        let pulled_at = task.pull_stopped_at.unwrap_or(now);
        let image = state.host.images.entry(container.image_id.clone());
        let image = image.or_insert_with(|| TrackedImage { pulled_at, ..TrackedImage::default() });
        image.names.insert(name);
        (image.pulled_at, image.used_at) = (image.pulled_at.max(pulled_at), now);
        out.changed.insert(Key::Host);
    }
}

/// Nobody resolves, pulls or creates under a name of an image that is being removed.
pub(super) fn is_being_removed(state: &State, image: &str) -> bool {
    match &state.images.operation {
        Some((_, ImageWork::RemoveImage { names, .. })) => {
            let wanted = full_name(image);
            names.iter().any(|name| full_name(name) == wanted)
        }
        Some((_, ImageWork::List { .. } | ImageWork::RemoveContainer(_))) | None => false,
    }
}

/// A pull waits until it is known that there is room on the disk, or that no more can be made.
pub(super) fn makes_wait(planning: &mut Planning<'_>) -> bool {
    let state = &mut *planning.state;
    if state.policy.images.disk.is_none() {
        return false;
    }
    let is_fresh = state.images.looked.is_some_and(|at| at <= planning.now && planning.now < at + LOOK_SERVES);
    state.images.is_pressed |= !is_fresh;
    !is_fresh || state.images.makes_room
}

/// The next thing to do. True: a cycle has ended that pulls have waited for.
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
        let was_waited_for = state.images.is_pressed;
        end_cycle(state, now, interval);
        return was_waited_for;
    }
    let images = &state.images;
    let is_due = (state.policy.images.enabled && due <= now) || images.is_pressed;
    if is_due && images.retry.not_before <= now {
        let policy = &state.policy.images;
        let (ends, disk) = (policy.untracked.is_some() && !images.is_pressed, policy.disk.is_some());
        start(state, ImageWork::List { ends, disk }, out);
    }
    false
}

/// When there is something to do here.
pub(super) fn next_deadline(state: &State) -> Option<Timestamp> {
    let images = &state.images;
    if !state.policy.images.is_on() || state.host.lost || images.operation.is_some() {
        return None;
    }
    let due = images.due.filter(|_| state.policy.images.enabled);
    let due = if images.is_pressed { Some(Timestamp::default()) } else { due };
    due.map(|due| due.max(images.retry.not_before))
}

fn start(state: &mut State, work: ImageWork, out: &mut Step) {
    let op = state.new_op(Owner::Images);
    state.images.operation = Some((op, work.clone()));
    out.effects.push(Effect::CleanImages { op, work });
}

fn end_cycle(state: &mut State, now: Timestamp, interval: Span) {
    let images = &mut state.images;
    if images.due.is_none_or(|due| due <= now) {
        images.due = Some(now + interval);
    }
    (images.listing, images.tracked_tried, images.foreign_gone) = (None, 0, (0, 0));
    images.tried.clear();
    if images.is_pressed {
        (images.is_pressed, images.makes_room, images.looked) = (false, false, Some(now));
    }
}

/// Writes how it went; the tasks to plan again.
pub(super) fn completed(state: &mut State, now: Timestamp, outcome: Outcome, out: &mut Step) -> BTreeSet<TaskArn> {
    let Some((_, work)) = state.images.operation.take() else { return BTreeSet::new() };
    let interval = state.policy.images.interval;
    match (work, outcome) {
        (ImageWork::List { .. }, Outcome::Done(Output::Images(listing))) => {
            state.images.retry = super::state::Retry::default();
            take_in(state, &listing, now, out);
            look_at_disk(state, *listing, now, interval);
        }
        (ImageWork::List { .. }, _) => {
            backoff::ENGINE.again(&mut state.images.retry, now, "images");
            end_cycle(state, now, interval); // a pull does not wait for what cannot be told
        }
        (ImageWork::RemoveImage { id, names }, Outcome::Done(_)) => {
            let tracked = state.host.images.remove(&id);
            let gone: BTreeSet<String> = names.iter().map(|name| full_name(name)).collect();
            // For `once`: it is not here any more.
            state.host.pulled_images.retain(|name| !gone.contains(&full_name(name)));
            match tracked {
                Some(_) => drop(out.changed.insert(Key::Host)),
                None => state.images.foreign_gone.0 += 1,
            }
            if state.images.makes_room {
                state.images.listing = None; // how much room has it made?
            }
        }
        (ImageWork::RemoveContainer(_), Outcome::Done(_)) => state.images.foreign_gone.1 += 1,
        (ImageWork::RemoveImage { .. } | ImageWork::RemoveContainer(_), _) => {}
    }
    state.tasks.keys().cloned().collect()
}

/// Brings what is remembered in line with what is there.
fn take_in(state: &mut State, listing: &ImageListing, now: Timestamp, out: &mut Step) {
    let before = state.host.images.clone();
    state.host.images.retain(|id, _| listing.images.iter().any(|image| image.id == *id));
    let pulled: BTreeSet<String> = state.host.pulled_images.iter().map(|name| full_name(name)).collect();
    for image in &listing.images {
        let names: BTreeSet<String> = image.full_names().collect();
        if let Some(tracked) = state.host.images.get_mut(&image.id) {
            tracked.names.retain(|name| names.contains(name));
        }
        // Pulled for a task that never came to create a container of it, or whose tag was pulled anew.
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

/// A look for a pull: is there room, or is some to be made? Any other look begins a cycle.
fn look_at_disk(state: &mut State, listing: ImageListing, now: Timestamp, interval: Span) {
    if state.policy.images.disk.is_some_and(|(high, _)| listing.disk_percent.is_none_or(|percent| percent < high)) {
        state.images.looked = Some(now);
    }
    let Some((high, low)) = state.policy.images.disk.filter(|_| state.images.is_pressed) else {
        state.images.listing = Some(listing);
        return;
    };
    let mark = if state.images.makes_room { low } else { high };
    state.images.makes_room = listing.disk_percent.is_some_and(|percent| percent >= mark);
    let is_due = state.policy.images.enabled && state.images.due.is_some_and(|due| due <= now);
    if !state.images.makes_room {
        end_cycle(state, now, interval);
    }
    if state.images.makes_room || is_due {
        state.images.listing = Some(listing);
    }
}

/// What the cycle does next, noted as tried.
fn next(state: &mut State, now: Timestamp) -> Option<ImageWork> {
    let listing = state.images.listing.take()?;
    let found =
        tracked(state, &listing, now).or_else(|| stranger(state, &listing)).or_else(|| untracked(state, &listing));
    state.images.listing = Some(listing);
    let (what, work) = found?;
    state.images.tried.insert(what);
    // Compat: of tasks' images what is tried counts, of others only what goes; so what cannot go keeps nothing else from going.
    if matches!(&work, ImageWork::RemoveImage { id, .. } if state.host.images.contains_key(id)) {
        state.images.tracked_tried += 1;
    }
    Some(work)
}

/// Nobody has a container of it, and no task names it. The operator's list counts in every spelling of a name; the reference knows only
/// the task's.
fn is_unused(state: &State, listing: &ImageListing, image: &ListedImage) -> bool {
    let names: BTreeSet<String> = image.full_names().collect();
    let is_excluded = image.names.iter().any(|name| {
        let full = full_name(name);
        state.policy.images.exclude.iter().any(|it| it == name || full_name(it) == full)
    });
    let digests: BTreeSet<&str> = image.digests.iter().filter_map(|name| Some(name.split_once('@')?.1)).collect();
    let mut used = state.tasks.values().flat_map(|task| task.pairs());
    // What was just pulled by its digest may not have been given the task's name yet.
    let is_its = |spec: &ContainerSpec, container: &ContainerState| {
        container.image_id == image.id
            || names.contains(&full_name(&spec.image))
            || container.digest.as_ref().is_some_and(|digest| digests.contains(digest.as_str()))
    };
    !is_excluded
        && !listing.containers.iter().any(|container| container.image_id == image.id)
        && !used.any(|(spec, container)| is_its(spec, container))
}

/// The image of tasks that was not used for the longest time.
fn tracked(state: &State, listing: &ImageListing, now: Timestamp) -> Option<(String, ImageWork)> {
    let (images, policy) = (&state.images, &state.policy.images);
    if !images.makes_room && images.tracked_tried >= policy.per_cycle {
        return None;
    }
    let candidates = listing.images.iter().filter_map(|image| {
        let tracked = state.host.images.get(&image.id).filter(|_| !images.tried.contains(&image.id))?;
        // What has other names only belongs to whoever gave them.
        let names: Vec<String> =
            image.names.iter().filter(|name| tracked.names.contains(&full_name(name))).cloned().collect();
        let is_ours = image.names.is_empty() || !names.is_empty();
        (is_ours && is_unused(state, listing, image)).then_some((tracked, image, names))
    });
    let is_old = |it: &TrackedImage| images.makes_room || now > it.pulled_at + policy.minimum_age;
    let oldest = candidates.filter(|it| is_old(it.0)).min_by_key(|it| (it.0.used_at, it.1.id.clone()))?;
    let (id, names) = (oldest.1.id.clone(), oldest.2);
    Some((id.clone(), ImageWork::RemoveImage { id, names }))
}

/// A container of somebody else that has ended long ago.
fn stranger(state: &State, listing: &ImageListing) -> Option<(String, ImageWork)> {
    let untracked = state.policy.images.untracked.as_ref().filter(|_| !state.images.makes_room)?;
    if state.images.foreign_gone.1 >= untracked.containers_per_cycle {
        return None;
    }
    let is_known = |id: &crate::model::RuntimeId| {
        let mut containers = state.tasks.values().flat_map(|task| &task.containers);
        state.orphans.contains_key(&id.0) || containers.any(|container| container.runtime_id.as_ref() == Some(id))
    };
    let mut fit =
        listing.containers.iter().filter(|it| it.ended.is_some_and(|ended| ended > state.policy.cleanup_wait));
    let it = fit.find(|it| !state.images.tried.contains(&it.id.0) && !is_known(&it.id))?;
    Some((it.id.0.clone(), ImageWork::RemoveContainer(it.id.clone())))
}

/// The smallest image of somebody else, name by name.
fn untracked(state: &State, listing: &ImageListing) -> Option<(String, ImageWork)> {
    let (images, policy) = (&state.images, &state.policy.images);
    let untracked = policy.untracked.as_ref().filter(|_| !images.makes_room)?;
    // Compat: at least one, even if the cycle's number was used up by images of tasks.
    let most = policy.per_cycle.saturating_sub(images.tracked_tried).max(1);
    if images.foreign_gone.0 >= most {
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
    let works = listing.images.iter().filter(is_foreign).flat_map(|image| {
        let key = |names: &[String]| names.first().cloned().unwrap_or_else(|| image.id.clone());
        names(image).into_iter().map(move |names| (image.size, key(&names), image.id.clone(), names))
    });
    let (_, key, id, names) = works.filter(|it| !images.tried.contains(&it.1)).min()?;
    Some((key, ImageWork::RemoveImage { id, names }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::policy::{ImagePolicy, Policy, UntrackedPolicy};
    use crate::engine::sample::{NOW, container, done, run, spec, state, task};
    use crate::engine::{Event, step};
    use crate::model::image::ListedContainer;
    use crate::model::{Failure, TaskStatus};

    const INTERVAL: Span = Span::secs(900);
    const AGE: Span = Span::secs(600);

    fn with(change: impl FnOnce(&mut ImagePolicy)) -> State {
        let mut images =
            ImagePolicy { enabled: true, interval: INTERVAL, minimum_age: AGE, per_cycle: 2, ..ImagePolicy::default() };
        change(&mut images);
        let mut state = state(Policy { images, cleanup_wait: Span::secs(100), ..Policy::default() });
        let listing = *state.ops.keys().next().unwrap();
        step(&mut state, NOW, done(listing, Output::Inventory(Vec::new())));
        state
    }

    fn tracked_image(state: &mut State, id: &str, pulled: Timestamp, used: Timestamp) {
        let names = BTreeSet::from([full_name(id)]);
        state.host.images.insert(id.to_owned(), TrackedImage { names, pulled_at: pulled, used_at: used });
    }

    fn listed(id: &str) -> ListedImage {
        ListedImage { id: id.to_owned(), names: vec![format!("{id}:latest")], ..ListedImage::default() }
    }

    fn listing(images: Vec<ListedImage>) -> Output {
        Output::Images(Box::new(ImageListing { images, ..ImageListing::default() }))
    }

    fn work(effects: Vec<Effect>) -> Option<(OpId, ImageWork)> {
        let mut found = effects.into_iter().filter_map(|effect| match effect {
            Effect::CleanImages { op, work } => Some((op, work)),
            _ => None,
        });
        found.next()
    }

    /// The cycle that is due: the first name of what it removes, in order; `fails` do not go.
    fn cycle(state: &mut State, now: Timestamp, found: Output, fails: &[&str]) -> Vec<String> {
        let (mut op, list) = work(step(state, now, Event::Tick).effects).expect("a cycle is due");
        assert!(matches!(list, ImageWork::List { .. }), "{list:?}");
        let mut removed = Vec::new();
        let mut answer = Outcome::Done(found);
        while let Some((next, work)) = work(step(state, now, Event::Completed { op, outcome: answer }).effects) {
            let name = match work {
                ImageWork::RemoveImage { names, id } => names.first().cloned().unwrap_or(id),
                ImageWork::RemoveContainer(id) => id.0,
                ImageWork::List { .. } => panic!("it is listed once"),
            };
            let is_kept = fails.contains(&name.as_str());
            let failure = Failure::permanent("CannotRemoveImageError", "in use");
            answer = if is_kept { Outcome::Failed(failure) } else { Outcome::Done(Output::Nothing) };
            removed.push(name);
            op = next;
        }
        removed
    }

    #[test]
    fn the_least_recently_used_go_first_and_no_more_than_the_number_of_a_cycle() {
        let mut state = with(|_| ());
        step(&mut state, NOW, Event::Tick);
        assert!(work(step(&mut state, Timestamp(NOW.0 + INTERVAL.0 - 1), Event::Tick).effects).is_none());
        let now = NOW + INTERVAL;
        let old = Timestamp(now.0 - AGE.0 - 1);
        for (id, pulled, used) in
            [("young", old + Span::millis(1), NOW), ("b", old, NOW), ("a", old, NOW + AGE), ("c", old, NOW)]
        {
            tracked_image(&mut state, id, pulled, used);
        }
        tracked_image(&mut state, "gone", old, NOW);
        let found = || listing(["a", "b", "c", "young", "foreign"].map(listed).into());
        assert_eq!(
            cycle(&mut state, now, found(), &["b:latest"]),
            ["b:latest", "c:latest"],
            "a failure does not stop it"
        );
        let left: Vec<&str> = state.host.images.keys().map(String::as_str).collect();
        assert_eq!(left, ["a", "b", "young"], "what is not there is forgotten");
        let next = now + INTERVAL;
        assert_eq!(next_deadline(&state), Some(next));
        let now_young = listing(["a", "b", "young"].map(listed).into());
        assert_eq!(cycle(&mut state, next, now_young, &[]), ["b:latest", "young:latest"]);
    }

    #[test]
    fn what_a_task_names_or_anybody_uses_or_the_operator_excludes_stays() {
        let kept = |change: &dyn Fn(&mut State, &mut ImageListing)| {
            let mut state = with(|_| ());
            step(&mut state, NOW, Event::Tick);
            tracked_image(&mut state, "a", Timestamp(0), NOW);
            state.host.images.get_mut("a").unwrap().pulled_at = Timestamp(0);
            let mut images = ImageListing { images: vec![listed("a")], ..ImageListing::default() };
            change(&mut state, &mut images);
            let late = NOW + AGE + AGE;
            cycle(&mut state, late, Output::Images(Box::new(images)), &[]).is_empty()
        };
        assert!(!kept(&|_, _| ()));
        let names = |state: &mut State, image: &str, id: &str| {
            let mut task = task(vec![container("a", &[])]);
            (task.spec.containers[0].image, task.containers[0].image_id) = (image.to_owned(), id.to_owned());
            (task.known, task.desired, task.sent) = (TaskStatus::Stopped, TaskStatus::Stopped, TaskStatus::Stopped);
            task.containers[0].known = crate::model::ContainerStatus::Stopped;
            task.known_at = NOW + AGE + AGE; // its clean-up is not due
            state.tasks.insert(task.spec.arn.clone(), Box::new(task));
        };
        assert!(kept(&|state, _| names(state, "docker.io/library/a", "other")), "by name");
        assert!(kept(&|state, _| names(state, "moved", "a")), "by id");
        assert!(!kept(&|state, _| names(state, "a:2", "other")));
        let pulled = |state: &mut State, digest: &str| {
            names(state, "b", "");
            state.tasks.values_mut().for_each(|task| task.containers[0].digest = Some(digest.to_owned()));
        };
        let at_mirror = |images: &mut ImageListing| images.images[0].digests = vec!["m.io/b@sha256:1".to_owned()];
        assert!(kept(&|state, images| (pulled(state, "sha256:1"), at_mirror(images)).0), "by digest, not named yet");
        assert!(!kept(&|state, images| (pulled(state, "sha256:2"), at_mirror(images)).0));
        let by = |image_id: &str| ListedContainer { id: "c".into(), image_id: image_id.to_owned(), ended: None };
        assert!(kept(&|_, images| images.containers.push(by("a"))));
        assert!(!kept(&|_, images| images.containers.push(by("b"))));
        assert!(kept(&|state, _| state.policy.images.exclude = BTreeSet::from(["a:latest".to_owned()])));
        assert!(kept(&|_, images| images.images[0].names = vec!["somebody:else".to_owned()]), "it is theirs now");
        assert!(!kept(&|_, images| images.images[0].names.clear()), "its tag has moved on");
    }

    #[test]
    fn a_forgotten_task_leaves_its_images_to_the_clean_up() {
        let mut state = with(|_| ());
        let mut task = task(vec![container("a", &[]), container("b", &[])]);
        task.spec.containers[0].image = "one".to_owned();
        task.containers[0].image_id = "id-1".to_owned();
        task.pull_stopped_at = Some(NOW);
        let mut out = Step::default();
        remember(&mut state, &task, NOW + AGE, &mut out);
        let image = &state.host.images["id-1"];
        assert_eq!((image.pulled_at, image.used_at, state.host.images.len()), (NOW, NOW + AGE, 1));
        assert!(image.names.contains("docker.io/library/one:latest") && out.changed.contains(&Key::Host));
        // One that was pulled and never came to be used is found by its name.
        state.host.remember_pulled("two".to_owned());
        take_in(&mut state, &ImageListing { images: vec![listed("two")], ..ImageListing::default() }, NOW, &mut out);
        assert_eq!(state.host.images.keys().collect::<Vec<_>>(), ["two"]);
        // Off is off.
        let mut state = with(|images| images.enabled = false);
        remember(&mut state, &task, NOW, &mut out);
        assert!(state.host.images.is_empty() && next_deadline(&state).is_none());
    }

    #[test]
    fn nobody_pulls_what_is_being_removed_until_it_has_gone() {
        let mut state = with(|_| ());
        step(&mut state, NOW, Event::Tick);
        tracked_image(&mut state, "a", Timestamp(0), NOW);
        state.host.remember_pulled("a".to_owned());
        let now = NOW + AGE + AGE;
        let (op, _) = work(step(&mut state, now, Event::Tick).effects).unwrap();
        let (op, _) = work(step(&mut state, now, done(op, listing(vec![listed("a")]))).effects).unwrap();
        let mut spec = spec("task", vec![container("x", &[])]);
        spec.containers[0].image = "docker.io/a".to_owned();
        assert_eq!(step(&mut state, now, run(spec)).effects, [], "it waits");
        let effects = step(&mut state, now, done(op, Output::Nothing)).effects;
        assert!(matches!(effects[..], [Effect::ResolveDigest { .. }]), "{effects:?}");
        assert!(!state.host.pulled_images.contains("a"), "for `once`");
    }

    #[test]
    fn what_is_not_of_tasks_goes_only_if_the_operator_says_so() {
        let untracked = || Some(UntrackedPolicy { containers_per_cycle: 1, minimum_age: AGE });
        let images = || {
            let of = |id: &str, size, age| ListedImage { size, age, ..listed(id) };
            let mut two = of("two", 2, Span(AGE.0 + 1));
            two.names.push("two:alias".to_owned());
            vec![of("young", 1, AGE), two, of("large", 9, Span::MAX), of("used", 1, Span::MAX)]
        };
        let ended = |id: &str, secs| ListedContainer {
            id: id.into(),
            image_id: "used".to_owned(),
            ended: Some(Span::secs(secs)),
        };
        let found = || {
            let containers = vec![ended("young", 100), ended("old", 101), ended("older", 200)];
            Output::Images(Box::new(ImageListing { images: images(), containers, disk_percent: None }))
        };
        let now = NOW + INTERVAL;
        let mut off = with(|_| ());
        step(&mut off, NOW, Event::Tick);
        assert!(cycle(&mut off, now, found(), &[]).is_empty());
        let mut on = with(|images| images.untracked = untracked());
        step(&mut on, NOW, Event::Tick);
        assert_eq!(cycle(&mut on, now, found(), &[]), ["old", "two:alias", "two:latest"]);
        let mut more = with(|images| (images.untracked, images.per_cycle) = (untracked(), 9));
        step(&mut more, NOW, Event::Tick);
        assert_eq!(cycle(&mut more, now, found(), &[]), ["old", "two:alias", "two:latest", "large:latest"]);
        // What does not go does not count.
        let mut stuck = with(|images| images.untracked = untracked());
        step(&mut stuck, NOW, Event::Tick);
        let wanted = ["old", "older", "two:alias", "two:latest", "large:latest"];
        assert_eq!(cycle(&mut stuck, now, found(), &["old", "two:alias"]), wanted);
    }

    #[test]
    fn images_of_others_get_what_those_of_tasks_leave_of_the_number_of_a_cycle_but_at_least_one() {
        for (tracked, foreign) in [(0, 3), (1, 2), (2, 1), (3, 1), (4, 1)] {
            let untracked = UntrackedPolicy { containers_per_cycle: 1, minimum_age: AGE };
            let mut state = with(|images| (images.untracked, images.per_cycle) = (Some(untracked), 3));
            step(&mut state, NOW, Event::Tick);
            let names = |kind: &str, count| (0..count).map(|nth| format!("{kind}{nth}")).collect::<Vec<_>>();
            let tracked = names("tracked", tracked);
            tracked.iter().for_each(|id| tracked_image(&mut state, id, Timestamp(0), NOW));
            let ids = tracked.iter().cloned().chain(names("foreign", 9));
            let images = ids.map(|id| ListedImage { age: Span::MAX, ..listed(&id) }).collect();
            let gone = cycle(&mut state, NOW + INTERVAL, listing(images), &[]);
            assert_eq!(gone.iter().filter(|name| name.starts_with("foreign")).count(), foreign, "{gone:?}");
        }
    }

    #[test]
    fn a_pull_waits_until_there_is_room_whatever_the_age_of_the_images() {
        let mut state = with(|images| (images.enabled, images.disk) = (false, Some((80, 50))));
        for (id, used) in [("a", 2), ("b", 1), ("c", 3)] {
            tracked_image(&mut state, id, NOW, Timestamp(used));
        }
        let mut spec = spec("task", vec![container("x", &[])]);
        spec.containers[0].image = "new@sha256:1".to_owned();
        let (mut op, look) = work(step(&mut state, NOW, run(spec)).effects).unwrap();
        assert_eq!(look, ImageWork::List { ends: false, disk: true });
        let full = |percent, ids: &[&str]| {
            let images = ids.iter().map(|id| listed(id)).collect();
            Output::Images(Box::new(ImageListing { images, disk_percent: Some(percent), ..ImageListing::default() }))
        };
        for (percent, there, goes) in [(80, &["a", "b", "c"][..], "b:latest"), (60, &["a", "c"], "a:latest")] {
            let (removal, work_1) = work(step(&mut state, NOW, done(op, full(percent, there))).effects).unwrap();
            assert!(matches!(&work_1, ImageWork::RemoveImage { names, .. } if names == &[goes]), "{work_1:?}");
            (op, _) = work(step(&mut state, NOW, done(removal, Output::Nothing)).effects).unwrap();
        }
        let effects = step(&mut state, NOW, done(op, full(49, &["c"]))).effects;
        assert!(matches!(effects[..], [Effect::Pull { .. }]), "below the low mark: {effects:?}");
        // The look serves the next ones for a while; nothing to remove, or no answer, holds nobody up.
        for (nth, answer) in [Some(100), None].into_iter().enumerate() {
            let now = NOW + Span::secs(60 * (nth as u64 + 1));
            let mut other = crate::engine::sample::spec(&format!("task-{nth}"), vec![container("x", &[])]);
            other.containers[0].image = "other@sha256:1".to_owned();
            let (op, _) = work(step(&mut state, now, run(other)).effects).unwrap();
            let failed = Outcome::Failed(Failure::retryable("CannotListImagesError", "down"));
            let outcome = answer.map_or(failed, |percent| Outcome::Done(full(percent, &[])));
            let effects = step(&mut state, now, Event::Completed { op, outcome }).effects;
            assert!(matches!(effects[..], [Effect::Pull { .. }]), "{answer:?}: {effects:?}");
        }
    }
}
