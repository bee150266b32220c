//! How far the state is on disk. The keeper saves it; requests wait here until their change is saved. Invariants: a request is
//! answered with success only after its change is on disk; a change that could not be saved is undone, and so is every later one
//! that was not saved yet.

use ecs_core::model::text::without_numbers;
use std::collections::VecDeque;
use std::io;
use std::ops::RangeInclusive;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::timeout;

/// How long a request waits for its change to be saved.
const SAVE_LIMIT: Duration = Duration::from_secs(60);
/// Number of failures that are remembered: requests learn of theirs at once.
const MAX_FAILURES: usize = 64;

/// Why a change was not saved.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct SaveError {
    message: String,
    /// It would fail again: there is no room.
    pub(crate) is_final: bool,
}

impl SaveError {
    /// The state could not be written.
    pub(super) fn new(error: &io::Error) -> Self {
        let message =
            format!("the directory of the registry cannot be written: {}", without_numbers(&error.to_string()));
        Self { message, is_final: is_final(error) }
    }

    fn late() -> Self {
        Self { message: "the change could not be saved in time".to_owned(), is_final: false }
    }
}

/// The file system has no room, so that another attempt would fail, too.
pub(super) fn is_final(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | ReadOnlyFilesystem | FileTooLarge)
}

#[derive(Debug, Default)]
struct Progress {
    /// The newest revision on disk.
    saved: u64,
    /// Revisions that were undone, and why.
    undone: VecDeque<(RangeInclusive<u64>, SaveError)>,
}

impl Progress {
    /// The outcome for a revision; `None`: it is not known yet.
    fn outcome(&self, revision: u64) -> Option<Result<(), SaveError>> {
        let undone = self.undone.iter().find(|(range, _)| range.contains(&revision));
        match undone {
            Some((_, error)) => Some(Err(error.clone())),
            None => (self.saved >= revision).then_some(Ok(())),
        }
    }
}

/// The progress of saving.
#[derive(Debug)]
pub(crate) struct Saves(watch::Sender<Progress>);

impl Saves {
    /// This revision is on disk.
    pub(crate) fn new(revision: u64) -> Self {
        Self(watch::Sender::new(Progress { saved: revision, ..Progress::default() }))
    }

    /// Waits until this revision is on disk.
    ///
    /// # Errors
    /// Why it could not be saved, or that it takes too long.
    pub(crate) async fn settled(&self, revision: u64) -> Result<(), SaveError> {
        let mut progress = self.0.subscribe();
        let known = progress.wait_for(|progress| progress.outcome(revision).is_some());
        match timeout(SAVE_LIMIT, known).await {
            Ok(Ok(progress)) => progress.outcome(revision).unwrap_or_else(|| Err(SaveError::late())),
            _ => Err(SaveError::late()),
        }
    }

    /// Waits like [`Self::settled`], for changes of which is only known that they came after the revision `before`.
    ///
    /// # Errors
    /// Why a change since then could not be saved.
    pub(crate) async fn settled_since(&self, before: u64, revision: u64) -> Result<(), SaveError> {
        self.settled(revision).await?;
        let progress = self.0.borrow();
        let undone = progress.undone.iter().find(|(range, _)| *range.end() > before);
        undone.map_or(Ok(()), |(_, error)| Err(error.clone()))
    }

    /// The newest revision on disk.
    pub(super) fn saved(&self) -> u64 {
        self.0.borrow().saved
    }

    /// Notes that this revision is on disk.
    pub(super) fn note_saved(&self, revision: u64) {
        self.0.send_modify(|progress| progress.saved = progress.saved.max(revision));
    }

    /// Notes that all changes after the newest revision on disk were undone, up to that of the state from which they were removed.
    /// What is on disk has the revision `now`.
    pub(super) fn note_undone(&self, up_to: u64, now: u64, error: SaveError) {
        self.0.send_modify(|progress| {
            if progress.undone.len() >= MAX_FAILURES {
                progress.undone.pop_front();
            }
            progress.undone.push_back((progress.saved + 1..=up_to, error));
            progress.saved = now;
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> SaveError {
        SaveError::new(&io::ErrorKind::StorageFull.into())
    }

    #[tokio::test]
    async fn a_request_waits_for_its_own_revision() {
        let saves = Saves::new(3);
        assert_eq!(saves.settled(3).await, Ok(()));
        let save = async {
            saves.note_saved(4);
            tokio::task::yield_now().await;
            saves.note_saved(6);
        };
        assert_eq!(tokio::join!(saves.settled(5), save).0, Ok(()));
        assert_eq!(saves.saved(), 6);
    }

    #[tokio::test]
    async fn a_change_that_was_undone_stays_undone() {
        let saves = Saves::new(3);
        let undo = async { saves.note_undone(5, 6, full()) };
        assert_eq!(tokio::join!(saves.settled(4), undo).0, Err(full()));
        assert!(full().is_final && !SaveError::late().is_final);
        saves.note_saved(9);
        assert_eq!(
            (saves.settled(5).await, saves.settled(3).await, saves.settled(6).await),
            (Err(full()), Ok(()), Ok(()))
        );
        assert_eq!((saves.settled_since(3, 6).await, saves.settled_since(5, 6).await), (Err(full()), Ok(())));
        for _ in 0..2 * MAX_FAILURES {
            saves.note_undone(saves.saved() + 1, saves.saved() + 2, full());
        }
        assert_eq!(saves.0.borrow().undone.len(), MAX_FAILURES);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_forever() {
        assert_eq!(Saves::new(0).settled(1).await, Err(SaveError::late()));
    }
}
