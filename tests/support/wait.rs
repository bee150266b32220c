//! Waits for a condition, with a limit. The only place where tests may let time pass.

use std::time::{Duration, Instant};

/// Polls until `poll` gives something; panics with `what` after `limit`.
pub(crate) async fn until<T>(what: &str, limit: Duration, mut poll: impl AsyncFnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = poll().await {
            return found;
        }
        assert!(started.elapsed() < limit, "waited {limit:?} for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
