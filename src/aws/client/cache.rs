//! A bounded cache of answers by key, in which one caller at a time makes the call for a key.
//!
//! Owns waiting and eviction; the user of the cache defines the answer and its lifetime ([`Cacheable`]). It makes no calls by
//! itself and has no time limit, since the calls have one. The invariant: there are never more than `limit` keys, and never two
//! simultaneous calls for one key.

use ecs_core::model::Failure;
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex as StdMutex, PoisonError};
use std::time::Instant;
use tokio::sync::Mutex;

/// The lifetime of a cached answer.
pub(crate) trait Cacheable: Clone {
    /// Whether the answer may be used without a new call.
    fn is_fresh(&self) -> bool;

    /// Whether the answer may still be used after a new call failed with this error.
    fn outlives(&self, failure: &Failure) -> bool;
}

/// The cache of answers.
#[derive(Debug)]
pub(crate) struct Cache<K, V> {
    /// Maximum number of keys.
    limit: usize,
    cells: StdMutex<Cells<K, V>>,
}

#[derive(Debug)]
struct Cells<K, V> {
    by_key: BTreeMap<K, Slot<V>>,
    /// Counts the uses, to find the least recently used key.
    uses: u64,
}

#[derive(Debug)]
struct Slot<V> {
    /// The value of `Cells::uses` when the key was last used.
    used: u64,
    cell: Arc<Mutex<Last<V>>>,
}

/// The results of the last calls for one key.
#[derive(Debug)]
struct Last<V> {
    /// The last answer; `None` if there is none that may be used.
    value: Option<V>,
    /// The last failure and its time; `None` after a success.
    failure: Option<(Instant, Failure)>,
}

impl<K: Ord + Clone, V: Cacheable> Cache<K, V> {
    /// An empty cache for at most `limit` keys.
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, cells: StdMutex::new(Cells { by_key: BTreeMap::new(), uses: 0 }) }
    }

    /// The cached answer, or a new one. A caller that waited for the call of another caller gets the result of that call,
    /// success or error.
    pub(crate) async fn get(&self, key: &K, fetch: impl Future<Output = Result<V, Failure>>) -> Result<V, Failure> {
        let began = Instant::now();
        let cell = self.cell(key);
        let mut last = cell.lock().await;
        if let Some(value) = last.value.as_ref().filter(|value| value.is_fresh()) {
            return Ok(value.clone());
        }
        if let Some((_, failure)) = last.failure.as_ref().filter(|(failed, _)| *failed >= began) {
            return Err(failure.clone());
        }
        match fetch.await {
            Ok(value) => {
                *last = Last { value: Some(value.clone()), failure: None };
                Ok(value)
            }
            Err(failure) => {
                if let Some(value) = last.value.as_ref().filter(|value| value.outlives(&failure)) {
                    tracing::warn!(%failure, "a new call failed; the cached answer is still used");
                    return Ok(value.clone());
                }
                *last = Last { value: None, failure: Some((Instant::now(), failure.clone())) };
                Err(failure)
            }
        }
    }

    /// Removes the answers of these keys.
    pub(crate) fn forget(&self, is_gone: impl Fn(&K) -> bool) {
        let mut cells = self.cells.lock().unwrap_or_else(PoisonError::into_inner);
        cells.by_key.retain(|key, _| !is_gone(key));
    }

    fn cell(&self, key: &K) -> Arc<Mutex<Last<V>>> {
        let mut cells = self.cells.lock().unwrap_or_else(PoisonError::into_inner);
        cells.uses += 1;
        let used = cells.uses;
        if let Some(slot) = cells.by_key.get_mut(key) {
            slot.used = used;
            return Arc::clone(&slot.cell);
        }
        if cells.by_key.len() >= self.limit {
            let oldest = cells.by_key.iter().min_by_key(|(_, slot)| slot.used).map(|(key, _)| key.clone());
            oldest.and_then(|key| cells.by_key.remove(&key));
        }
        let cell = Arc::new(Mutex::new(Last { value: None, failure: None }));
        cells.by_key.insert(key.clone(), Slot { used, cell: Arc::clone(&cell) });
        cell
    }

    /// The number of keys.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.cells.lock().unwrap_or_else(PoisonError::into_inner).by_key.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// A test answer: a number from 100 is used once, and from 200 also after a failure.
    impl Cacheable for u32 {
        fn is_fresh(&self) -> bool {
            *self < 100
        }

        fn outlives(&self, _failure: &Failure) -> bool {
            *self >= 200
        }
    }

    fn failure() -> Failure {
        Failure::permanent("N", "no")
    }

    #[tokio::test]
    async fn concurrent_callers_share_one_call_and_its_result() {
        let cache = Cache::<u8, u32>::new(10);
        let calls = AtomicUsize::new(0);
        let ask = |outcome: Result<u32, Failure>| {
            cache.get(&1, async {
                calls.fetch_add(1, Ordering::Relaxed);
                tokio::task::yield_now().await;
                outcome
            })
        };
        let failed = tokio::join!(ask(Err(failure())), ask(Err(failure())), ask(Err(failure())));
        assert_eq!(failed, (Err(failure()), Err(failure()), Err(failure())));
        assert_eq!(calls.load(Ordering::Relaxed), 1, "the waiting callers get the same failure");
        assert_eq!(tokio::join!(ask(Ok(7)), ask(Ok(8)), ask(Ok(9))), (Ok(7), Ok(7), Ok(7)));
        assert_eq!(ask(Err(failure())).await, Ok(7));
        assert_eq!(calls.load(Ordering::Relaxed), 2, "after a failure, the next caller makes a call");
    }

    #[tokio::test]
    async fn after_a_failed_call_a_stale_answer_may_be_used() {
        let cache = Cache::<u8, u32>::new(10);
        for (kept, wanted) in [(100, Err(failure())), (200, Ok(200))] {
            assert_eq!(cache.get(&1, async { Ok(kept) }).await, Ok(kept));
            assert_eq!(cache.get(&1, async { Err(failure()) }).await, wanted);
        }
    }

    #[tokio::test]
    async fn the_least_recently_used_and_forgotten_keys_are_removed() {
        let cache = Cache::<u8, u32>::new(2);
        for key in [1, 2, 1, 3] {
            cache.get(&key, async move { Ok(u32::from(key)) }).await.unwrap();
        }
        assert_eq!(cache.get(&1, async { Ok(50) }).await, Ok(1), "1 was used after 2");
        assert_eq!(cache.get(&2, async { Ok(50) }).await, Ok(50));
        assert_eq!(cache.len(), 2);
        cache.forget(|key| *key == 2);
        assert_eq!(cache.get(&2, async { Ok(60) }).await, Ok(60));
    }
}
