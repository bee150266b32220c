//! Pending changes: containers that have changed and are not inspected yet, and the events that this agent's own operations will
//! cause.
//!
//! Owns both collections; `events` fills and empties them. An operation of this agent that inspects its container at the end
//! announces its event beforehand ([`Changes::expect`]): that inspection reports all that an inspection for the event would.
//! Invariant: an event is skipped only if an inspection that began after the event has succeeded, or is under way; if it fails,
//! the event becomes a pending change.

use ecs_core::model::{ContainerName, TaskArn};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// The largest number of containers with pending changes, and of expected events. Beyond this, an inventory is cheaper.
const MAX_PENDING: usize = 4096;

/// A container event from the engine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ContainerEvent {
    /// The engine's id of the container.
    pub(crate) id: String,
    /// The container's name in the engine; empty if the event does not contain it.
    pub(crate) name: String,
    /// The engine's name for what happened, such as `start` or `die`.
    pub(crate) action: &'static str,
    /// Further facts from the event.
    pub(crate) change: Change,
}

/// Facts about a container from the events since it was last inspected.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Change {
    /// The exit code of its end; `None` = it has not ended since, or the event has no code.
    pub(crate) exit_code: Option<i32>,
    /// If the container was removed: its task, and its name in the task.
    pub(crate) removed: Option<(TaskArn, ContainerName)>,
}

/// Changes whose containers are still to be inspected. Each container has at most one entry.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    /// Events may have been missed, so other containers may have changed as well.
    pub(crate) events_missed: bool,
    /// The changes, by the engine's id of the container.
    pub(crate) changed: BTreeMap<String, Change>,
}

/// The event that one of this agent's operations will cause.
#[derive(Debug)]
struct Expected {
    /// The engine's name for the event.
    action: &'static str,
    /// Distinguishes operations on the same container.
    number: u64,
    /// The container's id; `None` until the event has arrived.
    container_id: Option<String>,
    /// The operation has succeeded and has inspected the container afterwards.
    is_observed: bool,
}

#[derive(Debug, Default)]
struct State {
    pending: Pending,
    /// Expected events, by the name or id with which the operation addresses the container.
    expected: BTreeMap<String, Expected>,
    /// The number of the last expectation.
    last: u64,
}

/// The pending changes and expected events of one engine.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    state: Mutex<State>,
    /// Wakes [`Changes::take`] after a change was added.
    added: Notify,
}

/// An operation under way. If it is dropped without [`Expectation::observed`], its event calls for an inspection like any other.
#[derive(Debug)]
pub(crate) struct Expectation<'a> {
    changes: &'a Changes,
    container: &'a str,
    number: u64,
}

impl Changes {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records that events may have been missed, including those of this agent's own operations.
    pub(crate) fn events_missed(&self) {
        {
            let mut state = self.lock();
            state.pending.events_missed = true;
            state.expected.clear();
        }
        self.added.notify_one();
    }

    /// Announces the event `action` of an operation that inspects its container afterwards. `container` is a name or an id. To
    /// be called before the operation begins.
    pub(crate) fn expect<'a>(&'a self, container: &'a str, action: &'static str) -> Expectation<'a> {
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

    /// Adds an event to the pending changes, unless an operation of this agent expects it.
    pub(crate) fn record(&self, event: ContainerEvent) {
        let mut state = self.lock();
        if !state.take_expected(&event) {
            state.add(event.id, event.change);
            drop(state);
            self.added.notify_one();
        }
    }

    /// Waits until there are pending changes and takes them all.
    pub(crate) async fn take(&self) -> Pending {
        loop {
            let pending = std::mem::take(&mut self.lock().pending);
            if pending.events_missed || !pending.changed.is_empty() {
                return pending;
            }
            self.added.notified().await;
        }
    }

    /// Adds the event of an expectation that was given up, if the event has arrived and the container was not inspected.
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

    /// Returns whether an operation of this agent expects the event, and records its arrival. Events of a container arrive in
    /// order. So the first event of the expected kind belongs to the operation or is older. If an event of another kind comes
    /// first, the expected one will not come at all; starting a container that already runs, for instance, causes no event.
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
    /// The operation has succeeded, and the container was inspected afterwards.
    pub(crate) fn observed(self) {
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

    /// Takes the pending changes: whether events were missed, and the ids of the containers.
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
            assert_eq!(taken(&changes), one_container(), "it belongs to another operation");

            changes.expect(asked_with, "start").observed();
            changes.record(event("start")); // after it
            assert_eq!(taken(&changes), nothing());
            changes.record(event("start"));
            assert_eq!(taken(&changes), one_container(), "it belongs to another operation");
            assert!(changes.lock().expected.is_empty());
        }
    }

    #[test]
    fn the_event_of_a_failed_operation_calls_for_an_inspection() {
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
    fn another_event_ends_the_expectation_and_is_pending() {
        let changes = Changes::default();
        let operation = changes.expect("id", "start");
        changes.record(event("die")); // of the run before
        assert_eq!(taken(&changes), one_container());
        changes.record(event("start"));
        operation.observed();
        assert_eq!(taken(&changes), nothing());

        changes.expect("id", "start").observed(); // it ran already, so there is no event
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
        assert_eq!(taken(&changes), one_container(), "the first expectation was given up");
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
