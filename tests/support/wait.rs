//! Waits for a condition, with a time limit. Tests let time pass only here.

use std::time::{Duration, Instant};

/// Polls until `poll` returns a value; panics with `what` after `limit`.
pub async fn until<T>(what: &str, limit: Duration, mut poll: impl AsyncFnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = poll().await {
            return found;
        }
        assert!(started.elapsed() < limit, "waited {limit:?} for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
