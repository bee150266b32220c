//! The room for layers in memory. Invariant: bytes are claimed before they are stored, and given back when nobody has them any more.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The room, shared by all blobs and uploads.
#[derive(Debug)]
pub(super) struct Room {
    limit: u64,
    used: AtomicU64,
}

impl Room {
    /// Room for this many bytes.
    pub(super) fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self { limit, used: AtomicU64::new(0) })
    }

    /// Bytes in use.
    #[cfg(test)]
    pub(super) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }
}

/// Claimed room; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Claim {
    room: Arc<Room>,
    bytes: u64,
}

impl Claim {
    /// A claim of nothing yet.
    pub(super) fn new(room: &Arc<Room>) -> Self {
        Self { room: Arc::clone(room), bytes: 0 }
    }

    /// Claims more; `false`: there is not enough room, and nothing was claimed.
    pub(super) fn add(&mut self, bytes: u64) -> bool {
        let fits = |used: u64| used.checked_add(bytes).filter(|sum| *sum <= self.room.limit);
        let is_claimed = self.room.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok();
        if is_claimed {
            self.bytes += bytes;
        }
        is_claimed
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.room.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_given_back_and_never_exceeded() {
        let room = Room::new(10);
        let (mut first, mut second) = (Claim::new(&room), Claim::new(&room));
        assert!(first.add(6) && !second.add(5) && second.add(4) && !first.add(1) && !first.add(u64::MAX));
        assert_eq!(room.used(), 10);
        drop(first);
        assert_eq!(room.used(), 4);
        assert!(second.add(6));
        drop(second);
        assert_eq!(room.used(), 0);
    }
}
