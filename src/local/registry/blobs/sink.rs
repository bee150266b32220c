//! The place where the bytes of an upload go: memory, or a temporary file. Everything here blocks, and runs on threads for that.

use super::directory::{Directory, Temporary};
use super::hash::Hash;
use super::room::{Claim, Room};
use super::upload_error::UploadError;
use bytes::Bytes;
use std::io::Write;
use std::sync::Arc;

/// The bytes of an upload so far, and their hash.
pub(super) struct Sink {
    pub(super) hash: Hash,
    pub(super) target: Target,
}

/// Where the bytes are.
pub(super) enum Target {
    Memory(MemoryTarget),
    File(FileTarget),
}

/// Bytes in memory.
pub(super) struct MemoryTarget {
    pub(super) pieces: Vec<Bytes>,
    pub(super) claim: Claim,
}

/// Bytes in a file, which exists from the first piece on.
pub(super) struct FileTarget {
    pub(super) directory: Arc<Directory>,
    temporary: Option<Temporary>,
}

impl Sink {
    pub(super) fn in_memory(room: &Arc<Room>) -> Self {
        let target = MemoryTarget { pieces: Vec::new(), claim: Claim::new(room) };
        Self { hash: Hash::new(), target: Target::Memory(target) }
    }

    pub(super) fn in_file(directory: &Arc<Directory>) -> Self {
        let target = FileTarget { directory: Arc::clone(directory), temporary: None };
        Self { hash: Hash::new(), target: Target::File(target) }
    }

    /// Adds a piece.
    pub(super) fn add(&mut self, piece: &[u8]) -> Result<(), UploadError> {
        match &mut self.target {
            Target::Memory(memory) => {
                let length = u64::try_from(piece.len()).unwrap_or(u64::MAX);
                if !memory.claim.add(length) {
                    return Err(UploadError::MemoryFull);
                }
                memory.pieces.push(Bytes::copy_from_slice(piece));
            }
            Target::File(file) => file.temporary()?.file()?.write_all(piece)?,
        }
        self.hash.update(piece);
        Ok(())
    }

    /// Closes the file until the next piece.
    pub(super) fn close(&mut self) {
        if let Target::File(FileTarget { temporary: Some(temporary), .. }) = &mut self.target {
            temporary.close();
        }
    }

    /// Removes what there is, on this thread.
    pub(super) fn discard(self) {
        if let Target::File(FileTarget { temporary: Some(temporary), .. }) = self.target {
            temporary.remove();
        }
    }
}

impl FileTarget {
    /// The file, which is created if it does not exist yet.
    pub(super) fn temporary(&mut self) -> Result<&mut Temporary, UploadError> {
        let fresh = match self.temporary.take() {
            Some(temporary) => temporary,
            None => self.directory.temporary()?,
        };
        Ok(self.temporary.insert(fresh))
    }

    /// The file itself.
    pub(super) fn into_temporary(mut self) -> Result<Temporary, UploadError> {
        self.temporary()?;
        match self.temporary {
            Some(temporary) => Ok(temporary),
            None => Err(UploadError::Stopped),
        }
    }
}
