//! How far the state is on disk. The server's keeper saves it; requests wait here until their change is saved. Invariant: a request
//! is answered with success only after its change, or a later state with it, is on disk.

use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

/// How long a request waits for its change to be saved.
const SAVE_LIMIT: Duration = Duration::from_secs(60);

/// The last attempt to save.
#[derive(Clone, Debug, Default)]
struct Attempt {
    /// The number of attempts so far.
    number: u64,
    /// The revision that the attempt was to save.
    revision: u64,
    /// The newest revision on disk.
    saved: u64,
    /// Why it failed; `None`: it did not.
    problem: Option<String>,
}

/// The progress of saving.
#[derive(Debug)]
pub(crate) struct Saves {
    last: watch::Sender<Attempt>,
    wanted: Notify,
}

impl Saves {
    /// Nothing is to be saved yet; `revision` is on disk.
    pub(crate) fn new(revision: u64) -> Self {
        let last = Attempt { saved: revision, revision, ..Attempt::default() };
        Self { last: watch::Sender::new(last), wanted: Notify::new() }
    }

    /// Waits until this revision, or a later one, is on disk.
    ///
    /// # Errors
    /// Why it could not be saved, or that it takes too long.
    pub(crate) async fn settled(&self, revision: u64) -> Result<(), String> {
        let mut last = self.last.subscribe();
        let before = last.borrow().number;
        if last.borrow().saved >= revision {
            return Ok(());
        }
        self.wanted.notify_one();
        let outcome = last.wait_for(|last| {
            let is_failed = last.number > before && last.revision >= revision && last.problem.is_some();
            last.saved >= revision || is_failed
        });
        let Ok(Ok(attempt)) = timeout(SAVE_LIMIT, outcome).await else {
            return Err("the state could not be saved in time".to_owned());
        };
        match &attempt.problem {
            Some(problem) if attempt.saved < revision => Err(problem.clone()),
            _ => Ok(()),
        }
    }

    /// Waits until a request wants its change to be saved.
    pub(super) async fn wanted(&self) {
        self.wanted.notified().await;
    }

    /// The newest revision on disk.
    pub(super) fn saved(&self) -> u64 {
        self.last.borrow().saved
    }

    /// Notes the outcome of an attempt to save this revision.
    pub(super) fn note(&self, revision: u64, outcome: Result<(), String>) {
        self.last.send_modify(|last| {
            last.number += 1;
            last.revision = revision;
            if outcome.is_ok() {
                last.saved = last.saved.max(revision);
            }
            last.problem = outcome.err();
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_request_waits_for_its_own_revision() {
        let saves = Saves::new(3);
        assert_eq!(saves.settled(3).await, Ok(()));
        let wait = async {
            saves.wanted().await;
            saves.note(4, Ok(()));
            tokio::task::yield_now().await;
            saves.note(4, Err("an older attempt".to_owned()));
            saves.note(5, Ok(()));
        };
        let (settled, ()) = tokio::join!(saves.settled(5), wait);
        assert_eq!((settled, saves.saved()), (Ok(()), 5));
    }

    #[tokio::test]
    async fn a_failure_counts_for_those_who_waited_for_it() {
        let saves = Saves::new(0);
        let fail = async {
            saves.wanted().await;
            saves.note(1, Err("the disk is full".to_owned()));
        };
        assert_eq!(tokio::join!(saves.settled(1), fail).0, Err("the disk is full".to_owned()));
        let again = async {
            saves.wanted().await;
            saves.note(1, Ok(()));
        };
        assert_eq!(tokio::join!(saves.settled(1), again).0, Ok(()), "another attempt is made");
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_forever() {
        assert!(Saves::new(0).settled(1).await.is_err());
    }
}
