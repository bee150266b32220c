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
const MOST: usize = 4096;

/// An event of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct News {
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
    came: Option<String>,
    /// The operation has looked, after the event happened.
    is_answered: bool,
}

#[derive(Debug, Default)]
struct Books {
    pending: Pending,
    /// By what the operation was asked with: the container's name or id.
    expected: BTreeMap<String, Expected>,
    last: u64,
}

/// The books, and who waits for an entry.
#[derive(Debug, Default)]
pub(super) struct Changes {
    books: Mutex<Books>,
    news: Notify,
}

/// An operation under way. Dropped without [`Expectation::answered`], its event is looked at like any other.
#[derive(Debug)]
pub(super) struct Expectation<'a> {
    changes: &'a Changes,
    container: &'a str,
    number: u64,
}

impl Changes {
    fn lock(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Events may have been missed, those of our own operations among them.
    pub(super) fn events_missed(&self) {
        {
            let mut books = self.lock();
            books.pending.events_missed = true;
            books.expected.clear();
        }
        self.news.notify_one();
    }

    /// Before an operation that brings about one event `action` and then looks at the container, called by its name or id.
    pub(super) fn expect<'a>(&'a self, container: &'a str, action: &'static str) -> Expectation<'a> {
        let mut books = self.lock();
        if books.expected.len() >= MOST {
            books.expected.clear();
            books.pending.events_missed = true;
            self.news.notify_one();
        }
        books.last += 1;
        let number = books.last;
        let earlier =
            books.expected.insert(container.to_owned(), Expected { action, number, came: None, is_answered: false });
        drop(books);
        self.take_up(earlier);
        Expectation { changes: self, container, number }
    }

    /// An event has come.
    pub(super) fn record(&self, news: News) {
        let mut books = self.lock();
        if !books.passes_over(&news) {
            books.add(news.id, news.change);
            drop(books);
            self.news.notify_one();
        }
    }

    /// All changes since the last call, as soon as there are any.
    pub(super) async fn take(&self) -> Pending {
        loop {
            let pending = std::mem::take(&mut self.lock().pending);
            if pending.events_missed || !pending.changed.is_empty() {
                return pending;
            }
            self.news.notified().await;
        }
    }

    /// Nobody answers for this one any more.
    fn take_up(&self, given_up: Option<Expected>) {
        if let Some(Expected { came: Some(id), is_answered: false, .. }) = given_up {
            self.lock().add(id, Change::default());
            self.news.notify_one();
        }
    }
}

impl Books {
    fn add(&mut self, id: String, change: Change) {
        if self.pending.changed.len() >= MOST && !self.pending.changed.contains_key(&id) {
            self.pending = Pending { events_missed: true, changed: BTreeMap::new() };
        }
        let known = self.pending.changed.entry(id).or_default();
        known.exit_code = change.exit_code.or(known.exit_code);
        known.removed = change.removed.or_else(|| known.removed.take());
    }

    /// Events of a container come in the order in which they happened. So the first one of the kind expected is the operation's own,
    /// or an older one, unless another comes first: then it does not come at all, as with a start of a container that ran already.
    fn passes_over(&mut self, news: &News) -> bool {
        let key = if self.expected.contains_key(&news.id) { &news.id } else { &news.name };
        let Entry::Occupied(mut entry) = self.expected.entry(key.clone()) else { return false };
        let expected = entry.get_mut();
        let is_it = expected.action == news.action && expected.came.is_none();
        if expected.is_answered {
            entry.remove();
        } else if is_it {
            expected.came = Some(news.id.clone());
        }
        is_it
    }
}

impl Expectation<'_> {
    /// The operation has happened, and then the container was looked at.
    pub(super) fn answered(self) {
        let mut books = self.changes.lock();
        if let Entry::Occupied(mut entry) = books.expected.entry(self.container.to_owned())
            && entry.get().number == self.number
        {
            if entry.get().came.is_some() {
                entry.remove();
            } else {
                entry.get_mut().is_answered = true;
            }
        }
    }
}

impl Drop for Expectation<'_> {
    fn drop(&mut self) {
        let mut books = self.changes.lock();
        let is_open = |it: &Expected| it.number == self.number && !it.is_answered;
        if books.expected.get(self.container).is_some_and(is_open) {
            let given_up = books.expected.remove(self.container);
            drop(books);
            self.changes.take_up(given_up);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(action: &'static str) -> News {
        News { id: "id".into(), name: "name".into(), action, change: Change::default() }
    }

    /// What would be looked at now.
    fn looks(changes: &Changes) -> (bool, Vec<String>) {
        let pending = std::mem::take(&mut changes.lock().pending);
        (pending.events_missed, pending.changed.into_keys().collect())
    }

    fn none() -> (bool, Vec<String>) {
        (false, Vec::new())
    }

    fn one() -> (bool, Vec<String>) {
        (false, vec!["id".to_owned()])
    }

    #[tokio::test]
    async fn changes_of_one_container_are_collected_and_too_many_are_missed_events() {
        let changes = Changes::default();
        changes.record(News { change: Change { exit_code: Some(3), removed: None }, ..event("die") });
        changes.record(event("stop"));
        let pending = changes.take().await;
        assert_eq!((pending.events_missed, pending.changed.len()), (false, 1));
        assert_eq!(pending.changed["id"].exit_code, Some(3));
        for number in 0..=MOST {
            changes.record(News { id: number.to_string(), ..event("start") });
        }
        let pending = changes.take().await;
        assert_eq!((pending.events_missed, pending.changed.len()), (true, 1));
    }

    #[test]
    fn the_event_of_an_operation_that_looks_itself_is_passed_over_once() {
        for asked_with in ["name", "id"] {
            let changes = Changes::default();
            let operation = changes.expect(asked_with, "start");
            changes.record(event("start")); // while it runs
            operation.answered();
            assert_eq!(looks(&changes), none());
            changes.record(event("start"));
            assert_eq!(looks(&changes), one(), "it is another's");

            changes.expect(asked_with, "start").answered();
            changes.record(event("start")); // after it
            assert_eq!(looks(&changes), none());
            changes.record(event("start"));
            assert_eq!(looks(&changes), one(), "it is another's");
            assert!(changes.lock().expected.is_empty());
        }
    }

    #[test]
    fn an_operation_that_learnt_nothing_leaves_its_event_to_be_looked_at() {
        let changes = Changes::default();
        let failed = changes.expect("name", "create");
        changes.record(event("create"));
        assert_eq!(looks(&changes), none());
        drop(failed);
        assert_eq!(looks(&changes), one());
        drop(changes.expect("name", "create"));
        changes.record(event("create"));
        assert_eq!(looks(&changes), one());
    }

    #[test]
    fn every_other_event_is_looked_at_and_ends_the_waiting_for_one_that_does_not_come() {
        let changes = Changes::default();
        let operation = changes.expect("id", "start");
        changes.record(event("die")); // of the run before
        assert_eq!(looks(&changes), one());
        changes.record(event("start"));
        operation.answered();
        assert_eq!(looks(&changes), none());

        changes.expect("id", "start").answered(); // it ran already: there is no event of it
        changes.record(event("die"));
        assert_eq!(looks(&changes), one());
        changes.record(event("start"));
        assert_eq!(looks(&changes), one(), "somebody else started it");

        changes.expect("id", "start").answered();
        changes.record(News { id: "other".into(), name: "stranger".into(), ..event("start") });
        assert_eq!(looks(&changes).1, ["other"]);
    }

    #[test]
    fn after_missed_events_nothing_is_passed_over() {
        let changes = Changes::default();
        changes.expect("id", "start").answered();
        let operation = changes.expect("name", "create");
        changes.events_missed();
        assert_eq!(looks(&changes), (true, Vec::new()));
        operation.answered();
        for action in ["start", "create"] {
            changes.record(event(action));
            assert_eq!(looks(&changes), one(), "{action}");
        }
    }

    #[test]
    fn of_two_operations_on_one_container_the_later_one_answers() {
        let changes = Changes::default();
        let first = changes.expect("id", "start");
        changes.record(event("start"));
        let second = changes.expect("id", "start");
        assert_eq!(looks(&changes), one(), "nobody answers for the first one any more");
        first.answered();
        changes.record(event("start"));
        second.answered();
        assert_eq!(looks(&changes), none());
        assert!(changes.lock().expected.is_empty());
    }

    #[test]
    fn operations_whose_events_never_come_are_not_kept_for_ever() {
        let changes = Changes::default();
        for number in 0..=MOST {
            changes.expect(&number.to_string(), "start").answered();
        }
        assert_eq!(changes.lock().expected.len(), 1);
    }
}
