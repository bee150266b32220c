//! Buffers for reading files, which are used again: for each page of a new one, the system has to find memory and to clear it.
//! Invariant: a bounded number of them is kept.

use std::sync::{Arc, Mutex, PoisonError};

/// The length of each buffer in bytes.
pub(super) const LENGTH: usize = 256 * 1024;
/// Maximum number of buffers that are kept for later.
const MAX_SPARE: usize = 8;

/// Buffers that nobody uses.
#[derive(Debug, Default)]
pub(super) struct Buffers(Mutex<Vec<Vec<u8>>>);

/// A buffer in use; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Buffer {
    bytes: Vec<u8>,
    /// The bytes that are used.
    length: usize,
    home: Arc<Buffers>,
}

impl Buffers {
    /// A buffer of this many bytes, of which there are at most [`LENGTH`]. They have any values.
    pub(super) fn take(self: &Arc<Self>, length: usize) -> Buffer {
        let spare = self.spare(Vec::pop);
        let bytes = spare.unwrap_or_else(|| vec![0; LENGTH]);
        Buffer { length: length.min(bytes.len()), bytes, home: Arc::clone(self) }
    }

    /// Number of buffers that nobody uses.
    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.spare(|spare| spare.len())
    }

    fn spare<T>(&self, look: impl FnOnce(&mut Vec<Vec<u8>>) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Buffer {
    /// Only the first bytes are used: no more than before.
    pub(super) fn shorten(&mut self, length: usize) {
        self.length = self.length.min(length);
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl AsMut<[u8]> for Buffer {
    fn as_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.length]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut bytes = Some(std::mem::take(&mut self.bytes));
        self.home.spare(|spare| {
            if spare.len() < MAX_SPARE {
                spare.extend(bytes.take());
            }
        });
        // If it is not kept, it is freed here, after the lock.
        drop(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_used_again_and_few_are_kept() {
        let buffers = Arc::new(Buffers::default());
        let place = |buffer: &Buffer| buffer.as_ref().as_ptr();
        let first = buffers.take(LENGTH);
        let (second, at) = (buffers.take(10), place(&first));
        assert!(second.as_ref().len() == 10 && place(&second) != at, "that one is in use");
        drop(bytes::Bytes::from_owner(first));
        let again = buffers.take(5);
        assert_eq!((again.as_ref().len(), place(&again)), (5, at));
        drop((0..2 * MAX_SPARE).map(|_| buffers.take(1)).collect::<Vec<_>>());
        assert_eq!(buffers.count(), MAX_SPARE);
    }
}
