//! Tests of the clean-up of images and of containers that belong to no task.

use super::*;
use crate::model::OpId;
use crate::model::image::ListedContainer;
use crate::model::{Failure, OpError, TaskStatus};
use crate::policy::{ImagePolicy, Policy, UntrackedPolicy};
use crate::sample::{NOW, container, done, run, spec, state, task};
use crate::{Event, Operation, step};

const INTERVAL: Span = Span::secs(900);
const AGE: Span = Span::secs(600);

fn with(change: impl FnOnce(&mut ImagePolicy)) -> State {
    let mut images =
        ImagePolicy { enabled: true, interval: INTERVAL, minimum_age: AGE, per_cycle: 2, ..ImagePolicy::default() };
    change(&mut images);
    let mut state = state(Policy { images, cleanup_wait: Span::secs(100), ..Policy::default() });
    assert_eq!(state.images.operation, None, "the first cycle is an interval ahead");
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
        Effect::Do(op, Operation::CleanImages(work)) => Some((op, work)),
        _ => None,
    });
    found.next()
}

/// Runs the due cycle and returns the first name of each image that it tries to remove, in order; the removal of `fails` fails.
fn cycle(state: &mut State, now: Timestamp, found: Output, fails: &[&str]) -> Vec<String> {
    let (mut op, list) = work(step(state, now, Event::Tick).effects).expect("a cycle is due");
    let policy = &state.policy.images;
    assert_eq!(list, ImageWork::List { ends: policy.untracked.is_some(), disk: policy.disk.is_some() });
    let mut removed = Vec::new();
    let mut answer = Ok(found);
    while let Some((next, work)) = work(step(state, now, Event::Completed { op, outcome: answer }).effects) {
        let name = match work {
            ImageWork::RemoveImage { names, id } => names.first().cloned().unwrap_or(id),
            ImageWork::RemoveContainer(id) => id.to_string(),
            ImageWork::List { .. } => panic!("it is listed once"),
        };
        let is_kept = fails.contains(&name.as_str());
        let failure = Failure::permanent("CannotRemoveImageError", "in use");
        answer = if is_kept { Err(OpError::Failed(failure)) } else { Ok(Output::Nothing) };
        removed.push(name);
        op = next;
    }
    removed
}

/// No more than the configured number are removed in one cycle.
#[test]
fn the_least_recently_used_images_are_removed_first() {
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
    let mut more = state.clone();
    more.policy.images.per_cycle = 9;
    assert_eq!(cycle(&mut more, now, found(), &[]), ["b:latest", "c:latest", "a:latest"], "the young one stays");
    assert_eq!(cycle(&mut state, now, found(), &["b:latest"]), ["b:latest", "c:latest"], "a failure does not stop it");
    let left: Vec<&str> = state.host.images.keys().map(String::as_str).collect();
    assert_eq!(left, ["a", "b", "young"], "images that do not exist any more are forgotten");
    let next = now + INTERVAL;
    assert_eq!(next_deadline(&state), Some(next));
    let now_young = listing(["a", "b", "young"].map(listed).into());
    assert_eq!(cycle(&mut state, next, now_young, &[]), ["b:latest", "young:latest"]);
}

#[test]
fn named_used_or_excluded_images_stay() {
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
        (task.containers[0].spec.image, task.containers[0].state.image_id) = (image.to_owned(), id.to_owned());
        (task.known, task.desired, task.sent) = (TaskStatus::Stopped, TaskStatus::Stopped, TaskStatus::Stopped);
        task.containers[0].state.known = crate::model::ContainerStatus::Stopped;
        task.known_at = NOW + AGE + AGE; // its clean-up is not due
        state.tasks.insert(task.spec.arn.clone(), Box::new(task));
    };
    assert!(kept(&|state, _| names(state, "docker.io/library/a", "other")), "by name");
    assert!(kept(&|state, _| names(state, "moved", "a")), "by id");
    assert!(!kept(&|state, _| names(state, "a:2", "other")));
    let pulled = |state: &mut State, digest: &str| {
        names(state, "b", "");
        state.tasks.values_mut().for_each(|task| task.containers[0].state.digest = Some(digest.to_owned()));
    };
    let at_mirror = |images: &mut ImageListing| images.images[0].digests = vec!["m.io/b@sha256:1".to_owned()];
    assert!(kept(&|state, images| (pulled(state, "sha256:1"), at_mirror(images)).0), "by digest, not named yet");
    assert!(!kept(&|state, images| (pulled(state, "sha256:2"), at_mirror(images)).0));
    let by = |image_id: &str| ListedContainer {
        id: "c".into(),
        name: String::new(),
        owner: None,
        image_id: image_id.to_owned(),
        ended: None,
    };
    assert!(kept(&|_, images| images.containers.push(by("a"))));
    assert!(!kept(&|_, images| images.containers.push(by("b"))));
    let excludes = |state: &mut State, name: &str| state.policy.images.exclude = BTreeSet::from([name.to_owned()]);
    assert!(kept(&|state, _| excludes(state, "a:latest")));
    assert!(kept(&|state, _| excludes(state, "docker.io/library/a")));
    assert!(!kept(&|state, _| excludes(state, "b:latest")));
    assert!(kept(&|state, images| (excludes(state, "m.io/b@sha256:1"), at_mirror(images)).0), "by its digest");
    assert!(!kept(&|state, images| (excludes(state, "m.io/b@sha256:2"), at_mirror(images)).0));
    assert!(kept(&|_, images| images.images[0].names = vec!["somebody:else".to_owned()]), "it is theirs now");
    assert!(!kept(&|_, images| images.images[0].names.clear()), "its tag has moved on");
}

#[test]
fn a_forgotten_task_leaves_its_images_to_the_clean_up() {
    let mut state = with(|_| ());
    let mut task = task(vec![container("a", &[]), container("b", &[])]);
    task.containers[0].spec.image = "one".to_owned();
    task.containers[0].state.image_id = "id-1".to_owned();
    task.pull_stopped_at = Some(NOW);
    let mut out = Step::default();
    remember(&mut state, &task, NOW + AGE, &mut out);
    let image = &state.host.images["id-1"];
    assert_eq!((image.pulled_at, image.used_at, state.host.images.len()), (NOW, NOW + AGE, 1));
    assert!(image.names.contains("docker.io/library/one:latest") && out.changed.contains(&Key::Host));
    // An image that was pulled and never used is found by its name.
    state.host.remember_pulled("two".to_owned());
    reconcile(&mut state, &ImageListing { images: vec![listed("two")], ..ImageListing::default() }, NOW, &mut out);
    assert_eq!(state.host.images.keys().collect::<Vec<_>>(), ["two"]);
    let two = &state.host.images["two"];
    assert_eq!((two.pulled_at, two.used_at), (NOW, NOW));
    // A disabled clean-up remembers nothing.
    let mut state = with(|images| images.enabled = false);
    remember(&mut state, &task, NOW, &mut out);
    assert!(state.host.images.is_empty() && next_deadline(&state).is_none());
}

#[test]
fn no_pull_of_an_image_before_its_removal_has_ended() {
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
    assert!(matches!(effects[..], [Effect::Do(_, Operation::ResolveDigest(_))]), "{effects:?}");
    assert!(!state.host.pulled_images.contains("a"), "for `once`");
}

#[test]
fn untracked_images_and_containers_go_only_if_configured() {
    let untracked = || Some(UntrackedPolicy { containers_per_cycle: 1, minimum_age: AGE });
    let images = || {
        let image = |id: &str, size, age| ListedImage { size, age, ..listed(id) };
        let mut two = image("two", 2, Span(AGE.0 + 1));
        two.names.push("two:alias".to_owned());
        vec![image("young", 1, AGE), two, image("large", 9, Span::MAX), image("used", 1, Span::MAX)]
    };
    let ended = |id: &str, secs| ListedContainer {
        id: id.into(),
        name: String::new(),
        owner: None,
        image_id: "used".to_owned(),
        ended: Some(Span::secs(secs)),
    };
    let found = || {
        let containers = vec![ended("young", 100), ended("old", 101), ended("older", 200)];
        Output::Images(Box::new(ImageListing { images: images(), containers, ..ImageListing::default() }))
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
    // A failed removal does not count.
    let mut stuck = with(|images| images.untracked = untracked());
    step(&mut stuck, NOW, Event::Tick);
    let wanted = ["old", "older", "two:alias", "two:latest", "large:latest"];
    assert_eq!(cycle(&mut stuck, now, found(), &["old", "two:alias"]), wanted);
}

/// Untracked images get the part of the number that the images of tasks leave, but at least one.
#[test]
fn untracked_images_share_the_number_of_a_cycle() {
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

/// Images are removed for a waiting pull whatever their age.
#[test]
fn a_pull_waits_until_there_is_room_on_the_disk() {
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
    assert!(matches!(effects[..], [Effect::Do(_, Operation::Pull(_))]), "below the low mark: {effects:?}");
    // The check counts for the next pulls for a while. No pull waits if there is nothing to remove, or no answer.
    for (nth, answer) in [Some(100), None].into_iter().enumerate() {
        let now = NOW + Span::secs(60 * (nth as u64 + 1));
        let mut other = crate::sample::spec(&format!("task-{nth}"), vec![container("x", &[])]);
        other.containers[0].image = "other@sha256:1".to_owned();
        let (op, _) = work(step(&mut state, now, run(other)).effects).unwrap();
        let failed = Err(OpError::Failed(Failure::retryable("CannotListImagesError", "down")));
        let outcome = answer.map_or(failed, |percent| Ok(full(percent, &[])));
        let effects = step(&mut state, now, Event::Completed { op, outcome }).effects;
        assert!(matches!(effects[..], [Effect::Do(_, Operation::Pull(_))]), "{answer:?}: {effects:?}");
    }
}

#[test]
fn nothing_is_removed_before_lost_tasks_are_rebuilt() {
    let mut state = with(|_| ());
    assert_eq!(next_deadline(&state), Some(NOW + INTERVAL));
    state.host.lost = true;
    state.inventory.pending = Some((OpId(0), 0)); // it is not answered yet
    assert_eq!(next_deadline(&state), None);
    assert_eq!(work(step(&mut state, NOW + INTERVAL, Event::Tick).effects), None);
}

#[test]
fn containers_of_tasks_and_orphans_are_not_foreign() {
    let untracked = UntrackedPolicy { containers_per_cycle: 9, minimum_age: AGE };
    let mut state = with(|images| images.untracked = Some(untracked));
    let mut task = task(vec![container("a", &[]), container("b", &[])]);
    (task.containers[0].state.runtime_id, task.containers[0].state.observed) =
        (Some("own".into()), Some(crate::model::RunState::Running));
    task.containers[0].state.create_asked = true;
    state.tasks.insert(task.spec.arn.clone(), Box::new(task));
    let orphan = crate::state::Orphan::from_observation(&crate::sample::seen(
        "x",
        "a",
        "orphan",
        crate::model::RunState::Created,
    ));
    state.orphans.insert("orphan".to_owned(), orphan);
    // The create of `b` has not been answered yet.
    let creating = spec("task", Vec::new()).runtime_name(&"b".into());
    let listed = |id: &str| ListedContainer {
        id: id.into(),
        name: if id == "creating" { creating.clone() } else { id.to_owned() },
        owner: None,
        image_id: String::new(),
        ended: Some(Span::MAX),
    };
    let containers = ["own", "creating", "orphan", "foreign"].map(listed).into();
    let found = Output::Images(Box::new(ImageListing { containers, ..ImageListing::default() }));
    assert_eq!(cycle(&mut state, NOW + INTERVAL, found, &[]), ["foreign"]);
}

#[test]
fn containers_of_another_agents_tasks_are_not_foreign() {
    let untracked = UntrackedPolicy { containers_per_cycle: 9, minimum_age: AGE };
    let mut state = with(|images| images.untracked = Some(untracked));
    state.policy.owners.own = "us".into();
    step(&mut state, NOW, Event::Tick);
    let listed = |(id, owner): (&str, Option<&str>)| ListedContainer {
        id: id.into(),
        name: id.to_owned(),
        owner: owner.map(Into::into),
        image_id: String::new(),
        ended: Some(Span::MAX),
    };
    let containers = [("theirs", Some("them")), ("unknown", Some("")), ("ours", Some("us")), ("nobodys", None)];
    let containers = containers.map(listed).into();
    let found = Output::Images(Box::new(ImageListing { containers, ..ImageListing::default() }));
    assert_eq!(cycle(&mut state, NOW + INTERVAL, found, &[]), ["ours", "nobodys"]);
}

/// As with `ECS_CHECKPOINT=false`, where each start is another agent.
#[test]
fn containers_of_a_long_absent_agent_are_removed() {
    let untracked = UntrackedPolicy { containers_per_cycle: 9, minimum_age: AGE };
    let start = || {
        let mut state = with(|images| images.untracked = Some(untracked.clone()));
        state.policy.owners.own = "us".into();
        step(&mut state, NOW, Event::Tick);
        state.policy.cleanup_wait = Span::secs(1000); // more than one interval, less than two
        state
    };
    let found = |running: Option<&[&str]>| {
        let listed = |(id, owner): (&str, &str)| ListedContainer {
            id: id.into(),
            name: id.to_owned(),
            owner: Some(owner.into()),
            image_id: String::new(),
            ended: Some(Span::MAX),
        };
        let containers = [("left", "gone"), ("theirs", "them")].map(listed).into();
        let running_owners = running.map(|ids| ids.iter().map(|id| OwnerId::from(*id)).collect());
        Output::Images(Box::new(ImageListing { containers, running_owners, ..ImageListing::default() }))
    };
    let them: Option<&[&str]> = Some(&["them"]);
    // The agents that run at each listing (`None`: not known), and the containers that are removed.
    type Row<'a> = (&'a [Option<&'a [&'a str]>], &'a [&'a str]);
    let table: [Row<'_>; 5] = [
        (&[them, them, them], &["left"]),
        (&[them, them], &[]),
        (&[None, None, None], &[]),
        (&[them, None, them], &[]),
        (&[them, Some(&["them", "gone"]), them], &[]),
    ];
    for (looks, wanted) in table {
        let (mut state, mut now, mut removed) = (start(), NOW, Vec::new());
        for running in looks {
            now = now + INTERVAL;
            removed.extend(cycle(&mut state, now, found(*running), &[]));
        }
        assert_eq!(removed, wanted, "{looks:?}");
    }
}

/// A task whose image is to be pulled, and the state of the disk.
fn with_disk(percent: u8) -> (State, Output) {
    let untracked = UntrackedPolicy { containers_per_cycle: 9, minimum_age: AGE };
    let mut state = with(|images| (images.disk, images.untracked) = (Some((80, 50)), Some(untracked)));
    tracked_image(&mut state, "old", Timestamp(0), Timestamp(0));
    let listing = ImageListing { images: vec![listed("old")], disk_percent: Some(percent), ..ImageListing::default() };
    (state, Output::Images(Box::new(listing)))
}

fn pulling() -> Event {
    let mut spec = spec("task", vec![container("x", &[])]);
    spec.containers[0].image = "new@sha256:1".to_owned();
    run(spec)
}

#[test]
fn the_listing_of_a_cycle_counts_for_a_pull_if_there_is_room() {
    for (percent, serves) in [(79, true), (80, false), (81, false)] {
        let (mut state, found) = with_disk(percent);
        assert_eq!(cycle(&mut state, NOW + INTERVAL, found, &[]), ["old:latest"]);
        let effects = step(&mut state, NOW + INTERVAL, pulling()).effects;
        let is_pulled = effects.iter().any(|effect| matches!(effect, Effect::Do(_, Operation::Pull(_))));
        assert_eq!(is_pulled, serves, "{percent}: {effects:?}");
        let look = (!serves).then_some(ImageWork::List { ends: false, disk: true });
        assert_eq!(work(effects).map(|(_, work)| work), look);
    }
}

#[test]
fn the_disk_check_of_a_pull_begins_only_a_due_cycle() {
    for (now, is_due) in [(NOW + AGE + Span::millis(1), false), (NOW + INTERVAL, true)] {
        let (mut state, found) = with_disk(10);
        let (op, look) = work(step(&mut state, now, pulling()).effects).unwrap();
        assert_eq!(look, ImageWork::List { ends: false, disk: true });
        let removal = work(step(&mut state, now, done(op, found)).effects);
        assert_eq!(removal.is_some(), is_due, "{removal:?}");
    }
}

/// Found by the simulator (1 schedule in 250,000): the image was pulled after the listing, for a task that ended before using
/// it.
#[test]
fn removing_an_untracked_image_updates_the_stored_pulls() {
    let mut state = with(|images| {
        images.untracked = Some(UntrackedPolicy { containers_per_cycle: 9, minimum_age: AGE });
    });
    let (op, _) = work(step(&mut state, NOW + INTERVAL, Event::Tick).effects).unwrap();
    let image = ListedImage { age: Span::MAX, ..listed("foreign") };
    let found = Output::Images(Box::new(ImageListing { images: vec![image], ..ImageListing::default() }));
    let (op, _) = work(step(&mut state, NOW + INTERVAL, done(op, found)).effects).unwrap();
    for pulled in ["foreign:latest", "another:latest"] {
        let mut state = state.clone();
        state.host.remember_pulled(pulled.to_owned());
        let step = step(&mut state, NOW + INTERVAL, done(op, Output::Nothing));
        // Otherwise there is nothing to write.
        let is_affected = pulled == "foreign:latest";
        assert_eq!(
            (state.host.pulled_images.is_empty(), step.changed.contains(&crate::Key::Host)),
            (is_affected, is_affected)
        );
    }
}
