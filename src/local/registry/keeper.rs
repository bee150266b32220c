//! Saves the state after each change, removes blobs that no repository needs any more, and uploads that nobody continues. This module
//! owns the order: a state is written by one task only, so a later one is never overwritten by an earlier one; a blob is removed
//! after the state without it is on disk.

use super::blobs::Removal;
use crate::ecr::Digest;
use crate::shared::Shared;
use std::sync::Arc;
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

/// Keeps the registry until `end`, and saves once more then.
pub(crate) async fn keep(shared: Arc<Shared>, end: CancellationToken) {
    let mut changed = shared.changed.subscribe();
    let mut clock = interval(shared.storage.uploads.pause());
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut orphans = Vec::new();
    let mut is_ending = false;
    while !is_ending {
        tokio::select! {
            () = end.cancelled() => is_ending = true,
            _ = changed.changed() => {}
            () = shared.storage.saves.wanted() => {}
            _ = clock.tick() => tick(&shared),
        }
        save(&shared, &mut orphans).await;
    }
    shared.storage.uploads.clear();
}

/// Removes what nobody needs any more: uploads, and images by the rules of their repositories.
fn tick(shared: &Shared) {
    shared.storage.uploads.expire();
    shared.change_if(|state| {
        let time = state.ecr_time();
        ((), state.ecr.tick(time))
    });
}

/// Saves the state if it has changed, then removes the blobs that it does not need any more.
async fn save(shared: &Shared, orphans: &mut Vec<Digest>) {
    let storage = &shared.storage;
    let saved = storage.saves.saved();
    let directory = storage.blobs.directory();
    let (revision, snapshot) = shared.change_if(|state| {
        orphans.extend(state.ecr.take_orphans());
        let revision = state.ecr.revision();
        let is_due = revision > saved && directory.is_some();
        ((revision, is_due.then(|| state.ecr.clone())), false)
    });
    orphans.extend(storage.take_unwanted());
    if let (Some(directory), Some(snapshot)) = (directory, snapshot) {
        let write = move || directory.write_state(&snapshot.save()?);
        let written = spawn_blocking(write).await;
        let outcome = match written {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(format!("the directory of the registry cannot be written: {error}")),
            Err(_) => Err("the state could not be written".to_owned()),
        };
        let is_saved = outcome.is_ok();
        storage.saves.note(revision, outcome);
        if !is_saved {
            // The state on disk may still need them.
            return;
        }
    } else if revision > saved {
        storage.saves.note(revision, Ok(()));
    }
    remove(shared, orphans).await;
}

/// Removes blobs that no repository needs. One that was just uploaded again waits until a repository has it.
async fn remove(shared: &Shared, orphans: &mut Vec<Digest>) {
    if orphans.is_empty() {
        return;
    }
    let blobs = &shared.storage.blobs;
    let (mut files, mut pinned) = (Vec::new(), Vec::new());
    let candidates = std::mem::take(orphans);
    // Under the lock of the state, so that no repository gets a blob between the look and the removal.
    shared.read(|state| {
        for digest in candidates.into_iter().filter(|digest| !state.ecr.is_used(digest)) {
            match blobs.take(&digest) {
                Removal::File(name) => files.push(name),
                Removal::Pinned => pinned.push(digest),
                Removal::Done => {}
            }
        }
    });
    *orphans = pinned;
    blobs.remove_files(files).await;
}
