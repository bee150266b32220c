//! Saves the state after each change, removes blobs that no repository needs any more, and uploads that nobody continues. This module
//! owns the order: a state is written by one task only, so a later one is never overwritten by an earlier one; a blob is removed
//! after a state without it is on disk. Invariant: what cannot be saved is undone.

use super::blobs::{Directory, Removal};
use super::expiry::expire_if_due;
use super::saves::SaveError;
use super::storage;
use crate::ecr::{Digest, Ecr};
use crate::shared::Shared;
use std::sync::Arc;
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

/// The keeper's own data.
struct Keeper {
    shared: Arc<Shared>,
    /// The state on disk; `None`: there is no directory.
    saved: Option<Ecr>,
    /// Blobs that no repository needed when they were noted.
    orphans: Vec<Digest>,
}

/// Keeps the registry until `end`, and saves once more then.
///
/// # Errors
/// If the last state cannot be saved.
pub(crate) async fn keep(shared: Arc<Shared>, end: CancellationToken) -> Result<(), SaveError> {
    let mut changed = shared.changed.subscribe();
    let mut clock = interval(shared.storage.uploads.pause());
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let saved = shared.storage.blobs.directory().map(|_| shared.read(|state| state.ecr.clone()));
    let mut keeper = Keeper { shared: Arc::clone(&shared), saved, orphans: Vec::new() };
    loop {
        // The requests that wait for this save get its failure.
        let _saved = keeper.save(false).await;
        keeper.remove_orphans().await;
        tokio::select! {
            () = end.cancelled() => break,
            _ = changed.changed() => {}
            _ = clock.tick() => keeper.tick().await,
        }
    }
    for upload in shared.storage.uploads.clear() {
        upload.discard().await;
    }
    // Also without a change: when images were pulled last is no change.
    let outcome = keeper.save(true).await;
    keeper.remove_orphans().await;
    outcome
}

impl Keeper {
    /// Removes what nobody needs any more: uploads, and images by the rules of their repositories.
    async fn tick(&self) {
        expire_if_due(&self.shared);
        for upload in self.shared.storage.uploads.expire() {
            upload.discard().await;
        }
    }

    /// Saves the state if it has changed, or in any case.
    async fn save(&mut self, in_any_case: bool) -> Result<(), SaveError> {
        let storage = &self.shared.storage;
        let (saved, directory) = (storage.saves.saved(), storage.blobs.directory());
        let orphans = &mut self.orphans;
        let (revision, snapshot, ended) = self.shared.change_if(|state| {
            orphans.extend(state.ecr.take_orphans());
            orphans.extend(storage.take_unwanted());
            // A blob that this state needs is not removed after it was saved. If it is lost later, it comes again.
            orphans.retain(|digest| !state.ecr.is_used(digest));
            let ended = storage.uploads.retain(|account, name| state.ecr.repository(account, name).is_ok());
            let revision = state.ecr.revision();
            let is_due = directory.is_some() && (revision > saved || in_any_case);
            ((revision, is_due.then(|| state.ecr.clone()), ended), false)
        });
        for upload in ended {
            upload.discard().await;
        }
        let (Some(directory), Some(snapshot)) = (directory, snapshot) else {
            storage.saves.note_saved(revision);
            return Ok(());
        };
        match write(directory, snapshot.clone()).await {
            Ok(()) => {
                self.saved = Some(snapshot);
                storage.saves.note_saved(revision);
                Ok(())
            }
            Err(error) => {
                self.undo(error.clone());
                Err(error)
            }
        }
    }

    /// Puts the state on disk in the place of the one that could not be saved.
    fn undo(&mut self, error: SaveError) {
        let Some(saved) = &self.saved else { return };
        let storage = &self.shared.storage;
        let lost = self.shared.change_if(|state| {
            let up_to = state.ecr.revision();
            let lost = std::mem::replace(&mut state.ecr, saved.clone());
            state.ecr.continue_from(up_to);
            storage.saves.note_undone(up_to, state.ecr.revision(), error);
            (lost, true)
        });
        // Layers that only the lost state had.
        self.orphans.extend(lost.all_layers().into_keys());
    }

    /// Removes blobs that no repository needs. One that was just uploaded again waits until a repository has it.
    async fn remove_orphans(&mut self) {
        if self.orphans.is_empty() {
            return;
        }
        let blobs = &self.shared.storage.blobs;
        let (mut taken, mut pinned) = (Vec::new(), Vec::new());
        let candidates = std::mem::take(&mut self.orphans);
        // Under the lock of the state, so that no repository gets a blob between the look and the removal.
        self.shared.read(|state| {
            for digest in candidates.into_iter().filter(|digest| !state.ecr.is_used(digest)) {
                match blobs.take(&digest) {
                    Removal::Taken(bytes) => taken.push(bytes),
                    Removal::Pinned => pinned.push(digest),
                    Removal::Nothing => {}
                }
            }
        });
        self.orphans = pinned;
        blobs.remove(taken).await;
    }
}

async fn write(directory: Arc<Directory>, snapshot: Ecr) -> Result<(), SaveError> {
    let written = spawn_blocking(move || storage::write(&directory, &snapshot)).await;
    let outcome = written.unwrap_or_else(|_| Err(std::io::Error::other("the thread that writes has ended")));
    outcome.map_err(|error| SaveError::new(&error))
}
