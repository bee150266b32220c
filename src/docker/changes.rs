//! Containers that changed and were not looked at yet, and the changes that need no look.
//!
//! Owns both collections; `events` fills and empties them. An operation of ours that ends with a look of its own says so beforehand
//! ([`Changes::expect`]): that look tells the core all that a look for the event would. Invariant: an event is passed over only when
//! a look that began after what the event tells of has succeeded, or is under way and the event is taken up should it fail.

use crate::model::{ContainerName, TaskArn};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// Containers with unread changes, and operations whose events have not come; more than that, and an inventory is cheaper.
const MAX_PENDING: usize = 4096;

/// An event of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ContainerEvent {
    /// The engine's id of it.
    pub(super) id: String,
    /// Its name there; empty if the event does not say.
    pub(super) name: String,
    /// What happened, in the engine's word.
    pub(super) action: &'static str,
    /// What it tells beyond that.
    pub(super) change: Change,
}

/// What is known of a container from its events since the last look.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Change {
    /// How it ended.
    pub(super) exit_code: Option<i32>,
    /// It was removed: of which task, and its name there.
    pub(super) removed: Option<(TaskArn, ContainerName)>,
}

/// Changes not yet looked at. At most one entry for each container.
#[derive(Debug, Default)]
pub(super) struct Pending {
    /// There may be others, of which nothing is known.
    pub(super) events_missed: bool,
    /// By the engine's id.
    pub(super) changed: BTreeMap<String, Change>,
}

/// The event that an operation of ours brings about.
#[derive(Debug)]
struct Expected {
    action: &'static str,
    /// Tells operations on the same container apart.
    number: u64,
    /// The container's id, once the event has come.
    container_id: Option<String>,
    /// The operation has looked, after the event happened.
    is_observed: bool,
}

#[derive(Debug, Default)]
struct State {
    pending: Pending,
    /// By what the operation was asked with: the container's name or id.
    expected: BTreeMap<String, Expected>,
    last: u64,
}

/// The state, and who waits for an entry.
#[derive(Debug, Default)]
pub(super) struct Changes {
    state: Mutex<State>,
    added: Notify,
}

/// An operation under way. Dropped without [`Expectation::observed`], its event is looked at like any other.
#[derive(Debug)]
pub(super) struct Expectation<'a> {
    changes: &'a Changes,
    container: &'a str,
    number: u64,
}

impl Changes {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Events may have been missed, those of our own operations among them.
    pub(super) fn events_missed(&self) {
        {
            let mut state = self.lock();
            state.pending.events_missed = true;
            state.expected.clear();
        }
        self.added.notify_one();
    }

    /// Before an operation that brings about one event `action` and then looks at the container, called by its name or id.
    pub(super) fn expect<'a>(&'a self, container: &'a str, action: &'static str) -> Expectation<'a> {
        let mut state = self.lock();
        if state.expected.len() >= MAX_PENDING {
            state.expected.clear();
            state.pending.events_missed = true;
            self.added.notify_one();
        }
        state.last += 1;
        let number = state.last;
        let earlier = state
            .expected
            .insert(container.to_owned(), Expected { action, number, container_id: None, is_observed: false });
        drop(state);
        self.add_unobserved(earlier);
        Expectation { changes: self, container, number }
    }

    /// An event has come.
    pub(super) fn record(&self, event: ContainerEvent) {
        let mut state = self.lock();
        if !state.take_expected(&event) {
            state.add(event.id, event.change);
            drop(state);
            self.added.notify_one();
        }
    }

    /// All changes since the last call, as soon as there are any.
    pub(super) async fn take(&self) -> Pending {
        loop {
            let pending = std::mem::take(&mut self.lock().pending);
            if pending.events_missed || !pending.changed.is_empty() {
                return pending;
            }
            self.added.notified().await;
        }
    }

    /// Nobody answers for this one any more.
    fn add_unobserved(&self, given_up: Option<Expected>) {
        if let Some(Expected { container_id: Some(id), is_observed: false, .. }) = given_up {
            self.lock().add(id, Change::default());
            self.added.notify_one();
        }
    }
}

impl State {
    fn add(&mut self, id: String, change: Change) {
        if self.pending.changed.len() >= MAX_PENDING && !self.pending.changed.contains_key(&id) {
            self.pending = Pending { events_missed: true, changed: BTreeMap::new() };
        }
        let known = self.pending.changed.entry(id).or_default();
        known.exit_code = change.exit_code.or(known.exit_code);
        known.removed = change.removed.or_else(|| known.removed.take());
    }

    /// Events of a container come in the order in which they happened. So the first one of the kind expected is the operation's own,
    /// or an older one, unless another comes first: then it does not come at all, as with a start of a container that ran already.
    fn take_expected(&mut self, event: &ContainerEvent) -> bool {
        let key = if self.expected.contains_key(&event.id) { &event.id } else { &event.name };
        let Entry::Occupied(mut entry) = self.expected.entry(key.clone()) else { return false };
        let expected = entry.get_mut();
        let is_own = expected.action == event.action && expected.container_id.is_none();
        if expected.is_observed {
            entry.remove();
        } else if is_own {
            expected.container_id = Some(event.id.clone());
        }
        is_own
    }
}

impl Expectation<'_> {
    /// The operation has happened, and then the container was looked at.
    pub(super) fn observed(self) {
        let mut state = self.changes.lock();
        if let Entry::Occupied(mut entry) = state.expected.entry(self.container.to_owned())
            && entry.get().number == self.number
        {
            if entry.get().container_id.is_some() {
                entry.remove();
            } else {
                entry.get_mut().is_observed = true;
            }
        }
    }
}

impl Drop for Expectation<'_> {
    fn drop(&mut self) {
        let mut state = self.changes.lock();
        let is_open = |expected: &Expected| expected.number == self.number && !expected.is_observed;
        if state.expected.get(self.container).is_some_and(is_open) {
            let given_up = state.expected.remove(self.container);
            drop(state);
            self.changes.add_unobserved(given_up);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(action: &'static str) -> ContainerEvent {
        ContainerEvent { id: "id".into(), name: "name".into(), action, change: Change::default() }
    }

    /// What would be looked at now.
    fn taken(changes: &Changes) -> (bool, Vec<String>) {
        let pending = std::mem::take(&mut changes.lock().pending);
        (pending.events_missed, pending.changed.into_keys().collect())
    }

    fn nothing() -> (bool, Vec<String>) {
        (false, Vec::new())
    }

    fn one_container() -> (bool, Vec<String>) {
        (false, vec!["id".to_owned()])
    }

    #[tokio::test]
    async fn changes_are_kept_per_container_and_in_bounded_number() {
        let changes = Changes::default();
        changes.record(ContainerEvent { change: Change { exit_code: Some(3), removed: None }, ..event("die") });
        changes.record(event("stop"));
        let pending = changes.take().await;
        assert_eq!((pending.events_missed, pending.changed.len()), (false, 1));
        assert_eq!(pending.changed["id"].exit_code, Some(3));
        for number in 0..=MAX_PENDING {
            changes.record(ContainerEvent { id: number.to_string(), ..event("start") });
        }
        let pending = changes.take().await;
        assert_eq!((pending.events_missed, pending.changed.len()), (true, 1));
    }

    #[test]
    fn the_event_of_an_own_operation_is_skipped_once() {
        for asked_with in ["name", "id"] {
            let changes = Changes::default();
            let operation = changes.expect(asked_with, "start");
            changes.record(event("start")); // while it runs
            operation.observed();
            assert_eq!(taken(&changes), nothing());
            changes.record(event("start"));
            assert_eq!(taken(&changes), one_container(), "it is another's");

            changes.expect(asked_with, "start").observed();
            changes.record(event("start")); // after it
            assert_eq!(taken(&changes), nothing());
            changes.record(event("start"));
            assert_eq!(taken(&changes), one_container(), "it is another's");
            assert!(changes.lock().expected.is_empty());
        }
    }

    #[test]
    fn the_event_of_a_failed_operation_calls_for_a_look() {
        let changes = Changes::default();
        let failed = changes.expect("name", "create");
        changes.record(event("create"));
        assert_eq!(taken(&changes), nothing());
        drop(failed);
        assert_eq!(taken(&changes), one_container());
        drop(changes.expect("name", "create"));
        changes.record(event("create"));
        assert_eq!(taken(&changes), one_container());
    }

    #[test]
    fn any_other_event_calls_for_a_look_and_ends_the_expectation() {
        let changes = Changes::default();
        let operation = changes.expect("id", "start");
        changes.record(event("die")); // of the run before
        assert_eq!(taken(&changes), one_container());
        changes.record(event("start"));
        operation.observed();
        assert_eq!(taken(&changes), nothing());

        changes.expect("id", "start").observed(); // it ran already: there is no event of it
        changes.record(event("die"));
        assert_eq!(taken(&changes), one_container());
        changes.record(event("start"));
        assert_eq!(taken(&changes), one_container(), "somebody else started it");

        changes.expect("id", "start").observed();
        changes.record(ContainerEvent { id: "other".into(), name: "stranger".into(), ..event("start") });
        assert_eq!(taken(&changes).1, ["other"]);
    }

    #[test]
    fn after_missed_events_no_event_is_skipped() {
        let changes = Changes::default();
        changes.expect("id", "start").observed();
        let operation = changes.expect("name", "create");
        changes.events_missed();
        assert_eq!(taken(&changes), (true, Vec::new()));
        operation.observed();
        for action in ["start", "create"] {
            changes.record(event(action));
            assert_eq!(taken(&changes), one_container(), "{action}");
        }
    }

    #[test]
    fn the_later_of_two_operations_on_a_container_counts() {
        let changes = Changes::default();
        let first = changes.expect("id", "start");
        changes.record(event("start"));
        let second = changes.expect("id", "start");
        assert_eq!(taken(&changes), one_container(), "nobody answers for the first one any more");
        first.observed();
        changes.record(event("start"));
        second.observed();
        assert_eq!(taken(&changes), nothing());
        assert!(changes.lock().expected.is_empty());
    }

    #[test]
    fn expectations_without_an_event_are_bounded() {
        let changes = Changes::default();
        for number in 0..=MAX_PENDING {
            changes.expect(&number.to_string(), "start").observed();
        }
        assert_eq!(changes.lock().expected.len(), 1);
    }
}
