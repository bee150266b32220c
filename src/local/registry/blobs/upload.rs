//! One upload: bytes that come in pieces are hashed and written on other threads, one block at a time. Invariants: the memory that an
//! upload needs does not depend on its length; if it is given up, nothing of it stays.

use super::directory::{Directory, Temporary};
use super::list::{Content, List, Pieces, Pin, Place};
use super::sink::{Sink, Target};
use super::upload_error::UploadError;
use crate::ecr::Digest;
use std::sync::Arc;
use tokio::task::{JoinHandle, spawn_blocking};

/// Bytes that are hashed and written at once.
const BLOCK: usize = 256 * 1024;
/// The largest layer, in bytes, as in ECR: 52,000 MiB.
pub(crate) const MAX_LAYER: u64 = 52_000 * 1024 * 1024;

/// Bytes on their way into a blob.
#[derive(Debug)]
pub(crate) struct Upload {
    list: Arc<List>,
    /// Bytes that no thread has yet.
    block: Vec<u8>,
    /// Bytes so far.
    length: u64,
    /// See [`Self::last_part`].
    last_part: Option<u64>,
    worker: Worker,
}

/// What a thread gives back: the sink, and its empty buffer.
type Returned = (Box<Sink>, Vec<u8>);

/// The thread that hashes and writes.
enum Worker {
    /// No thread works. The buffer is used again.
    Idle(Box<Sink>, Vec<u8>),
    Busy(JoinHandle<Result<Returned, UploadError>>),
    Failed,
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(match self {
            Self::Idle(..) => "Idle",
            Self::Busy(_) => "Busy",
            Self::Failed => "Failed",
        })
    }
}

impl Upload {
    pub(super) fn new(list: &Arc<List>) -> Self {
        let sink = match &list.place {
            Place::Memory(room) => Sink::in_memory(room),
            Place::Directory(directory) => Sink::in_file(directory),
        };
        Self {
            list: Arc::clone(list),
            block: Vec::new(),
            length: 0,
            last_part: None,
            worker: Worker::Idle(Box::new(sink), Vec::new()),
        }
    }

    /// Bytes so far.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// The length in bytes of the last part that the API has added; `None`: there is none.
    pub(crate) fn last_part(&self) -> Option<u64> {
        self.last_part
    }

    /// Notes the length in bytes of a part of the API.
    pub(crate) fn note_part(&mut self, length: u64) {
        self.last_part = Some(length);
    }

    /// Makes the upload longer than its bytes, for a test of the largest size.
    #[cfg(test)]
    pub(super) fn pretend_length(&mut self, length: u64) {
        self.length = length;
    }

    /// Adds bytes. If the caller gives up while it waits, all bytes or a beginning of them are added.
    ///
    /// # Errors
    /// If the layer becomes too large, or its bytes cannot be stored. The upload is then of no more use.
    pub(crate) async fn append(&mut self, mut bytes: &[u8]) -> Result<(), UploadError> {
        let sum = u64::try_from(bytes.len()).ok().and_then(|more| self.length.checked_add(more));
        if sum.is_none_or(|sum| sum > MAX_LAYER) {
            return Err(UploadError::TooLarge(MAX_LAYER));
        }
        while !bytes.is_empty() {
            if self.block.len() >= BLOCK {
                self.flush(false).await?;
            }
            let (now, later) = bytes.split_at(bytes.len().min(BLOCK - self.block.len()));
            self.block.extend_from_slice(now);
            self.length += now.len() as u64;
            bytes = later;
        }
        Ok(())
    }

    /// Hands the bytes that no thread has to one. `is_last`: the upload waits for its client then, and needs no open file.
    async fn flush(&mut self, is_last: bool) -> Result<(), UploadError> {
        let workers = Arc::clone(&self.list.workers);
        let permit = workers.acquire_owned().await.map_err(|_| UploadError::Stopped)?;
        self.settle().await?;
        let Worker::Idle(mut sink, spare) = std::mem::replace(&mut self.worker, Worker::Failed) else {
            return Err(UploadError::Stopped);
        };
        let mut block = std::mem::replace(&mut self.block, spare);
        self.worker = Worker::Busy(spawn_blocking(move || {
            let _permit = permit;
            if !block.is_empty() {
                sink.add(&block)?;
            }
            if is_last {
                sink.close();
                return Ok((sink, Vec::new()));
            }
            block.clear();
            Ok((sink, block))
        }));
        Ok(())
    }

    /// Waits for the thread.
    async fn settle(&mut self) -> Result<(), UploadError> {
        if let Worker::Busy(handle) = &mut self.worker {
            let done = handle.await;
            self.worker = Worker::Failed;
            let (sink, spare) = done.map_err(|_| UploadError::Stopped)??;
            self.worker = Worker::Idle(sink, spare);
        }
        Ok(())
    }

    /// Waits until all bytes are stored, and gives back buffers and file.
    ///
    /// # Errors
    /// If bytes could not be stored.
    pub(crate) async fn rest(&mut self) -> Result<(), UploadError> {
        self.flush(true).await?;
        self.settle().await?;
        self.block = Vec::new();
        Ok(())
    }

    /// Removes the upload, and waits until nothing of it is left.
    pub(crate) async fn discard(mut self) {
        // If it has failed, it is removed already.
        if self.settle().await.is_ok()
            && let Worker::Idle(sink, _) = std::mem::replace(&mut self.worker, Worker::Failed)
        {
            let _removed = spawn_blocking(move || sink.discard()).await;
        }
    }

    /// Makes the bytes a blob, if they have this digest. The blob is on disk afterwards, and stays while the pin lives.
    ///
    /// # Errors
    /// If the bytes have another digest, or cannot be stored. Nothing of the upload stays then.
    pub(crate) async fn finish(mut self, wanted: Digest) -> Result<Pin, UploadError> {
        self.rest().await?;
        let Worker::Idle(sink, _) = std::mem::replace(&mut self.worker, Worker::Failed) else {
            return Err(UploadError::Stopped);
        };
        let (list, length) = (Arc::clone(&self.list), self.length);
        spawn_blocking(move || complete(&list, *sink, length, wanted)).await.map_err(|_| UploadError::Stopped)?
    }
}

/// Makes complete bytes a blob.
fn complete(list: &List, sink: Sink, length: u64, wanted: Digest) -> Result<Pin, UploadError> {
    let Sink { hash, target } = sink;
    let digest = hash.finish();
    if digest != wanted {
        return Err(UploadError::WrongDigest(digest));
    }
    // If the file of the list was lost, these bytes replace it.
    match (list.find(&digest), &list.place) {
        (Some((size, Content::File(name))), Place::Directory(directory)) if !directory.is_whole(&name, size) => {
            list.forget(&digest);
        }
        _ => {
            if let Some(pin) = list.pin(&digest) {
                return Ok(pin);
            }
        }
    }
    match target {
        Target::Memory(memory) => {
            let pieces = Pieces { pieces: memory.pieces, _claim: memory.claim };
            Ok(list.add(digest, length, Content::Memory(Arc::new(pieces))).0)
        }
        Target::File(file) => {
            let directory = Arc::clone(&file.directory);
            keep(list, &directory, file.into_temporary()?, digest, length)
        }
    }
}

fn keep(
    list: &List,
    directory: &Directory,
    temporary: Temporary,
    digest: Digest,
    length: u64,
) -> Result<Pin, UploadError> {
    let name = directory.keep(temporary, &digest)?;
    let (pin, superfluous) = list.add(digest, length, Content::File(name.into()));
    if let Some(Content::File(name)) = superfluous {
        // Another upload of the same bytes was faster. If this fails, the next start removes the file.
        let _removed = directory.remove(&name);
    }
    Ok(pin)
}
