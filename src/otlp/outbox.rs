//! The spans that wait to be sent. Bounded: what does not fit is dropped and counted, and nobody waits.

use super::span::Span;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// Maximum number of spans that wait: those of about a hundred tasks.
pub(super) const MAX_WAITING: usize = 1_024;

/// The way of spans to the exporter.
#[derive(Clone, Debug, Default)]
pub struct Outbox(Arc<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    spans: Mutex<VecDeque<Span>>,
    dropped: AtomicU64,
    filled: Notify,
}

impl Outbox {
    /// Hands over spans that belong together. If they do not fit, all of them are dropped.
    pub fn push(&self, spans: Vec<Span>) {
        if spans.is_empty() {
            return;
        }
        let mut waiting = self.lock();
        if waiting.len() + spans.len() > MAX_WAITING {
            drop(waiting);
            self.count_dropped(spans.len() as u64);
        } else {
            waiting.extend(spans);
        }
        self.0.filled.notify_one();
    }

    /// Waits until there are spans, or some were dropped.
    pub(super) async fn filled(&self) {
        self.0.filled.notified().await;
    }

    /// Number of spans that wait.
    pub(super) fn len(&self) -> usize {
        self.lock().len()
    }

    /// Takes at most `max` spans, the oldest first.
    pub(crate) fn take(&self, max: usize) -> Vec<Span> {
        let mut waiting = self.lock();
        let taken = max.min(waiting.len());
        let batch = waiting.drain(..taken).collect();
        if waiting.is_empty() {
            waiting.shrink_to(0); // after a burst the memory is not kept
        }
        batch
    }

    /// Counts spans that will never be sent.
    pub(super) fn count_dropped(&self, spans: u64) {
        self.0.dropped.fetch_add(spans, Ordering::Relaxed);
    }

    /// Number of spans that were dropped so far.
    pub(super) fn dropped(&self) -> u64 {
        self.0.dropped.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Span>> {
        self.0.spans.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
