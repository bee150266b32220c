//! Reading a blob: a stream of bounded pieces, of which one is read ahead. Invariants: a blob that is removed meanwhile is read to its
//! end; the memory that this needs does not depend on the size of the blob.

use super::buffers::Buffers;
use super::list::Pieces;
use bytes::Bytes;
use futures_util::Stream;
use std::fs::File;
use std::io;
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
        let first = Cursor { next: range.start, end: range.end, piece: 0, piece_start: 0, ahead: None };
        let source = Arc::new(self.source);
        futures_util::stream::try_unfold(first, move |cursor| next(Arc::clone(&source), cursor))
    }
}

/// Where a stream is.
struct Cursor {
    /// The next byte.
    next: u64,
    end: u64,
    /// The piece in memory that holds the next byte or comes before it, and the first byte of that piece.
    piece: usize,
    piece_start: u64,
    /// The bytes from `next` on, which are being read.
    ahead: Option<JoinHandle<io::Result<Bytes>>>,
}

async fn next(source: Arc<Source>, mut cursor: Cursor) -> io::Result<Option<(Bytes, Cursor)>> {
    if cursor.next >= cursor.end {
        return Ok(None);
    }
    let bytes = match &*source {
        Source::Memory(blob) => cursor.in_memory(&blob.pieces)?,
        Source::File(file, buffers) => {
            let read = |from: u64| read(file, buffers, from, cursor.end);
            let handle = cursor.ahead.take().unwrap_or_else(|| read(cursor.next));
            let bytes = handle.await.map_err(io::Error::other)??;
            let after = cursor.next + bytes.len() as u64;
            cursor.ahead = (after < cursor.end).then(|| read(after));
            bytes
        }
    };
    cursor.next += bytes.len() as u64;
    Ok(Some((bytes, cursor)))
}

impl Cursor {
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

/// Reads a piece on another thread.
fn read(file: &Arc<File>, buffers: &Arc<Buffers>, from: u64, end: u64) -> JoinHandle<io::Result<Bytes>> {
    let (file, buffers) = (Arc::clone(file), Arc::clone(buffers));
    spawn_blocking(move || {
        let length = usize::try_from(end - from).unwrap_or(usize::MAX);
        let mut piece = buffers.take(length);
        file.read_exact_at(piece.as_mut(), from)?;
        Ok(Bytes::from_owner(piece))
    })
}
