//! The bytes of layers and configurations, by digest: in memory, or in the files of a directory.
//!
//! This module owns the bytes and the list of them; which repository has which layer is in [`crate::ecr`]. Invariants: the list names
//! only complete blobs whose bytes have that digest; one digest has one blob; no lock is held while a file is read or written; a
//! blob that somebody reads can be removed, and is then read to its end.
//!
//! A file has a number besides its digest. So a blob can be removed while the same bytes come again: they get another name.

mod buffers;
mod directory;
mod hash;
mod list;
mod manifest_files;
mod open_error;
mod reading;
mod room;
mod sink;
mod upload;
mod upload_error;

pub(crate) use directory::Directory;
pub(crate) use open_error::OpenError;
pub(crate) use upload::Upload;
pub(crate) use upload_error::UploadError;

use crate::ecr::Digest;
use list::{Content, List, Place};
use reading::{Reading, Source};
use room::Room;
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use tokio::task::spawn_blocking;

/// All blobs. A clone is the same blobs.
#[derive(Clone, Debug)]
pub(crate) struct Blobs(Arc<List>);

impl Blobs {
    /// Blobs in memory, of at most this many bytes together, with unfinished uploads.
    pub(crate) fn in_memory(limit: u64) -> Self {
        Self(Arc::new(List::new(Place::Memory(Room::new(limit)), BTreeMap::new())))
    }

    /// Blobs in a directory, which is created if it does not exist. This blocks.
    ///
    /// # Errors
    /// If the directory cannot be used.
    pub(crate) fn open(path: &Path) -> Result<Self, OpenError> {
        let (directory, found) = Directory::open(path)?;
        Ok(Self(Arc::new(List::new(Place::Directory(Arc::new(directory)), found))))
    }

    /// The directory; `None`: the blobs are in memory.
    pub(crate) fn directory(&self) -> Option<Arc<Directory>> {
        match &self.0.place {
            Place::Memory(_) => None,
            Place::Directory(directory) => Some(Arc::clone(directory)),
        }
    }

    /// There is no blob.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.digests().is_empty()
    }

    /// The size of a blob in bytes; `None`: there is no such blob.
    pub(crate) fn size(&self, digest: &Digest) -> Option<u64> {
        self.0.find(digest).map(|(size, _)| size)
    }

    /// Begins an upload.
    pub(crate) fn begin(&self) -> Upload {
        Upload::new(&self.0)
    }

    /// Opens a blob; `None`: there is no such blob.
    ///
    /// # Errors
    /// If its file cannot be opened.
    pub(crate) async fn read(&self, digest: &Digest) -> io::Result<Option<Reading>> {
        // Between the look and the opening, the file may be removed, and the same bytes stored again.
        for _attempt in 0..3 {
            let Some((size, content)) = self.0.find(digest) else { return Ok(None) };
            let name = match content {
                Content::Memory(pieces) => return Ok(Some(Reading { source: Source::Memory(pieces), size })),
                Content::File(name) => name,
            };
            let Some(directory) = self.directory() else { return Ok(None) };
            let opened = spawn_blocking(move || directory.layer(&name)).await.map_err(io::Error::other)?;
            match opened {
                Ok(file) => {
                    let source = Source::File(Arc::new(file), Arc::clone(&self.0.buffers));
                    return Ok(Some(Reading { source, size }));
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::ErrorKind::NotFound.into())
    }

    /// Takes a blob off the list, unless it is pinned. Its bytes go with [`Self::remove`].
    pub(crate) fn take(&self, digest: &Digest) -> Removal {
        match self.0.take(digest) {
            (_, false) => Removal::Pinned,
            (Some(content), true) => Removal::Taken(Taken(content)),
            (None, true) => Removal::Nothing,
        }
    }

    /// Removes all blobs of this kind at the start, before anybody reads one. This blocks.
    pub(crate) fn remove_now(&self, is_removed: impl Fn(&Digest) -> bool) {
        for digest in self.0.digests().into_iter().filter(is_removed) {
            if let (Removal::Taken(Taken(Content::File(name))), Some(directory)) =
                (self.take(&digest), self.directory())
            {
                // What cannot be removed now is removed at the next start.
                let _removed = directory.remove(&name);
            }
        }
    }

    /// Removes the bytes of blobs that are off the list.
    pub(crate) async fn remove(&self, taken: Vec<Taken>) {
        if taken.is_empty() {
            return;
        }
        let directory = self.directory();
        // Freeing much memory takes time, too. What cannot be removed now is removed at the next start.
        let remove = move || {
            for Taken(content) in taken {
                if let (Content::File(name), Some(directory)) = (content, &directory) {
                    let _removed = directory.remove(&name);
                }
            }
        };
        let _removed = spawn_blocking(remove).await;
    }
}

/// The bytes of a blob that is off the list.
#[derive(Debug)]
pub(crate) struct Taken(Content);

/// The outcome of taking a blob off the list.
#[derive(Debug)]
pub(crate) enum Removal {
    /// It was not in the list.
    Nothing,
    /// It is off the list, and its bytes are to be removed: see [`Blobs::remove`].
    Taken(Taken),
    /// It stays in the list: an upload of the same bytes has just ended.
    Pinned,
}

#[cfg(test)]
mod tests;
