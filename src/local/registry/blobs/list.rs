//! The list of all blobs, which readers and uploads share. Invariant: its lock is held for a look or a change only, never while a
//! file is read or written.

use super::buffers::Buffers;
use super::directory::{Directory, Found};
use super::room::{Claim, Room};
use crate::ecr::Digest;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Semaphore;

/// Maximum number of threads that hash and write at a time.
const MAX_WORKERS: usize = 8;

/// Where the blobs are.
#[derive(Debug)]
pub(super) enum Place {
    Memory(Arc<Room>),
    Directory(Arc<Directory>),
}

/// The bytes of one blob.
#[derive(Clone, Debug)]
pub(super) enum Content {
    Memory(Arc<Pieces>),
    /// The name of the file.
    File(Arc<str>),
}

/// Bytes in memory, and the room that they take.
#[derive(Debug)]
pub(super) struct Pieces {
    pub(super) pieces: Vec<Bytes>,
    pub(super) _claim: Claim,
}

#[derive(Debug)]
struct Entry {
    size: u64,
    content: Content,
    /// Held by everyone who has stored these bytes, and not yet noted in which repository.
    pins: Arc<()>,
}

/// Keeps a blob from being removed until it is dropped.
#[derive(Debug)]
pub(crate) struct Pin {
    /// The size of the blob in bytes.
    pub(crate) size: u64,
    _pin: Arc<()>,
}

/// All blobs.
#[derive(Debug)]
pub(super) struct List {
    pub(super) place: Place,
    /// Bounds the threads that hash and write.
    pub(super) workers: Arc<Semaphore>,
    /// For reading files.
    pub(super) buffers: Arc<Buffers>,
    entries: Mutex<BTreeMap<Digest, Entry>>,
}

impl List {
    pub(super) fn new(place: Place, found: BTreeMap<Digest, Found>) -> Self {
        let entries = found.into_iter().map(|(digest, Found { size, name })| {
            (digest, Entry { size, content: Content::File(name.into()), pins: Arc::default() })
        });
        let workers = Arc::new(Semaphore::new(MAX_WORKERS));
        Self { place, workers, buffers: Arc::default(), entries: Mutex::new(entries.collect()) }
    }

    fn entries<T>(&self, look: impl FnOnce(&mut BTreeMap<Digest, Entry>) -> T) -> T {
        look(&mut self.entries.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The size and the bytes of a blob.
    pub(super) fn find(&self, digest: &Digest) -> Option<(u64, Content)> {
        self.entries(|entries| entries.get(digest).map(|entry| (entry.size, entry.content.clone())))
    }

    /// All digests.
    pub(super) fn digests(&self) -> Vec<Digest> {
        self.entries(|entries| entries.keys().copied().collect())
    }

    /// Keeps a blob that is in the list from being removed.
    pub(super) fn pin(&self, digest: &Digest) -> Option<Pin> {
        self.entries(|entries| entries.get(digest).map(Entry::pin))
    }

    /// Adds a blob. If it is in the list already, the other bytes stay, and these are returned.
    pub(super) fn add(&self, digest: Digest, size: u64, content: Content) -> (Pin, Option<Content>) {
        self.entries(|entries| match entries.get(&digest) {
            Some(entry) => (entry.pin(), Some(content)),
            None => {
                let entry = Entry { size, content, pins: Arc::default() };
                let pin = entry.pin();
                entries.insert(digest, entry);
                (pin, None)
            }
        })
    }

    /// Takes a blob off the list whose file was lost.
    pub(super) fn forget(&self, digest: &Digest) {
        self.entries(|entries| drop(entries.remove(digest)));
    }

    /// Takes a blob off the list, unless it is pinned. Returns its bytes, and whether it is gone from the list.
    pub(super) fn take(&self, digest: &Digest) -> (Option<Content>, bool) {
        self.entries(|entries| match entries.get(digest) {
            Some(entry) if Arc::strong_count(&entry.pins) > 1 => (None, false),
            Some(_) => (entries.remove(digest).map(|entry| entry.content), true),
            None => (None, true),
        })
    }
}

impl Entry {
    fn pin(&self) -> Pin {
        Pin { size: self.size, _pin: Arc::clone(&self.pins) }
    }
}
