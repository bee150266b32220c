//! Reading a blob: a stream of bounded pieces. What the system has in memory is copied at once: to hand that to another thread would
//! take longer, most of all on a busy machine. For the rest, a thread waits for the disk. Invariants: no task waits for a disk; a blob
//! that is removed meanwhile is read to its end; the memory that this needs does not depend on the size of the blob.

use super::buffers::Buffers;
use super::list::Pieces;
use bytes::Bytes;
use futures_util::Stream;
use rustix::io::{Errno, ReadWriteFlags, preadv2};
use std::fs::File;
use std::io::{self, IoSliceMut};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use tokio::task::{JoinHandle, spawn_blocking};

/// A blob that is open.
#[derive(Debug)]
pub(crate) struct Reading {
    pub(super) source: Source,
    /// The size of the whole blob in bytes.
    pub(crate) size: u64,
}

/// The bytes.
#[derive(Debug)]
pub(super) enum Source {
    Memory(Arc<Pieces>),
    File(Arc<File>, Arc<Buffers>),
}

impl Reading {
    /// The bytes in this range, which lies within the blob.
    pub(crate) fn stream(self, range: Range<u64>) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
        self.stream_by(range, Way::AtOnce)
    }

    /// [`Self::stream`], beginning with this way.
    pub(super) fn stream_by(
        self,
        range: Range<u64>,
        way: Way,
    ) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
        let first = Cursor { next: range.start, end: range.end, piece: 0, piece_start: 0, way };
        let source = Arc::new(self.source);
        futures_util::stream::try_unfold(first, move |cursor| next(Arc::clone(&source), cursor))
    }
}

/// How the next piece of a file is read.
pub(super) enum Way {
    /// From what the system has in memory, as far as possible.
    AtOnce,
    /// By a thread, which reads one piece ahead: the file system does not say what is in memory.
    Ahead(Option<JoinHandle<io::Result<Bytes>>>),
}

/// Where a stream is.
struct Cursor {
    /// The next byte.
    next: u64,
    end: u64,
    /// The piece in memory that holds the next byte or comes before it, and the first byte of that piece.
    piece: usize,
    piece_start: u64,
    /// Only of a file.
    way: Way,
}

async fn next(source: Arc<Source>, mut cursor: Cursor) -> io::Result<Option<(Bytes, Cursor)>> {
    if cursor.next >= cursor.end {
        return Ok(None);
    }
    let bytes = match &*source {
        Source::Memory(blob) => cursor.in_memory(&blob.pieces)?,
        Source::File(file, buffers) => cursor.in_file(file, buffers).await?,
    };
    cursor.next += bytes.len() as u64;
    Ok(Some((bytes, cursor)))
}

impl Cursor {
    /// Some bytes from `next` on.
    async fn in_file(&mut self, file: &Arc<File>, buffers: &Arc<Buffers>) -> io::Result<Bytes> {
        let (from, end) = (self.next, self.end);
        if let Way::AtOnce = self.way {
            match read_at_once(file, buffers, from, end) {
                Ok(bytes) => return Ok(bytes),
                Err(Absent::Now) => return finished(read(file, buffers, from, end)).await,
                Err(Absent::Always) => self.way = Way::Ahead(None),
            }
        }
        let Way::Ahead(ahead) = &mut self.way else { return Err(io::ErrorKind::Other.into()) };
        let bytes = finished(ahead.take().unwrap_or_else(|| read(file, buffers, from, end))).await?;
        let after = from + bytes.len() as u64;
        *ahead = (after < end).then(|| read(file, buffers, after, end));
        Ok(bytes)
    }

    /// The bytes from `next` on to the end of their piece, or of the range.
    fn in_memory(&mut self, pieces: &[Bytes]) -> io::Result<Bytes> {
        while let Some(piece) = pieces.get(self.piece) {
            let length = piece.len() as u64;
            if self.next < self.piece_start + length {
                let from = self.next - self.piece_start;
                let to = length.min(self.end - self.piece_start);
                let place = |offset: u64| usize::try_from(offset).map_err(io::Error::other);
                return Ok(piece.slice(place(from)?..place(to)?));
            }
            self.piece_start += length;
            self.piece += 1;
        }
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}

/// Why a piece could not be read at once.
#[derive(Debug)]
pub(super) enum Absent {
    /// It is not in memory.
    Now,
    /// The file system does not say what is in memory.
    Always,
}

/// Reads a piece, or the beginning of one, that the system has in memory. This does not wait.
pub(super) fn read_at_once(file: &File, buffers: &Arc<Buffers>, from: u64, end: u64) -> Result<Bytes, Absent> {
    let mut piece = buffers.take(length(from, end));
    match preadv2(file, &mut [IoSliceMut::new(piece.as_mut())], from, ReadWriteFlags::NOWAIT) {
        // The file is too short: the thread says so.
        Ok(0) | Err(Errno::AGAIN | Errno::INTR) => Err(Absent::Now),
        Ok(length) => {
            piece.shorten(length);
            Ok(Bytes::from_owner(piece))
        }
        Err(_) => Err(Absent::Always),
    }
}

/// Reads a piece on another thread.
fn read(file: &Arc<File>, buffers: &Arc<Buffers>, from: u64, end: u64) -> JoinHandle<io::Result<Bytes>> {
    let (file, buffers) = (Arc::clone(file), Arc::clone(buffers));
    spawn_blocking(move || {
        let mut piece = buffers.take(length(from, end));
        file.read_exact_at(piece.as_mut(), from)?;
        Ok(Bytes::from_owner(piece))
    })
}

async fn finished(handle: JoinHandle<io::Result<Bytes>>) -> io::Result<Bytes> {
    handle.await.map_err(io::Error::other)?
}

/// The length of the rest. A piece may be shorter.
fn length(from: u64, end: u64) -> usize {
    usize::try_from(end - from).unwrap_or(usize::MAX)
}
