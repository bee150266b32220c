//! The rate limit of requests about faults: each address may ask once in five seconds for each path (spec `task-metadata.md` §9).
//!
//! Owns the moments of the last accepted requests. Invariant: their number is bounded; beyond the bound the oldest is forgotten.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// The shortest time between two accepted requests.
pub(super) const INTERVAL: Duration = Duration::from_secs(5);
/// The rate as the headers show it.
pub(super) const RATE: &str = "0.20";
/// Upper limit of the remembered requests.
const MAX_REMEMBERED: usize = 1024;

/// The last accepted request of each address for each path.
#[derive(Debug, Default)]
pub(super) struct Limit(Mutex<HashMap<(Option<IpAddr>, String), Instant>>);

impl Limit {
    /// Accepts a request, or returns the time after which it would be accepted.
    pub(super) fn accept(&self, peer: Option<IpAddr>, path: &str) -> Result<(), Duration> {
        let now = Instant::now();
        let mut accepted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (peer, path.to_owned());
        if let Some(rest) =
            accepted.get(&key).and_then(|last| INTERVAL.checked_sub(now - *last)).filter(|it| !it.is_zero())
        {
            return Err(rest);
        }
        if accepted.len() >= MAX_REMEMBERED {
            accepted.retain(|_, last| now - *last < INTERVAL);
        }
        if accepted.len() >= MAX_REMEMBERED
            && let Some(oldest) = accepted.iter().min_by_key(|(_, last)| **last).map(|(key, _)| key.clone())
        {
            accepted.remove(&oldest);
        }
        accepted.insert(key, now);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_request_is_accepted_once_in_five_seconds() {
        let (limit, peer) = (Limit::default(), Some("10.0.0.1".parse().unwrap()));
        assert_eq!(limit.accept(peer, "/a"), Ok(()));
        tokio::time::advance(Duration::from_secs(4)).await;
        assert_eq!(limit.accept(peer, "/a"), Err(Duration::from_secs(1)));
        assert_eq!(limit.accept(peer, "/b"), Ok(()));
        assert_eq!(limit.accept(Some("10.0.0.2".parse().unwrap()), "/a"), Ok(()));
        assert_eq!(limit.accept(None, "/a"), Ok(()));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(limit.accept(peer, "/a"), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn the_table_is_bounded() {
        let (limit, peer) = (Limit::default(), Some("10.0.0.1".parse().unwrap()));
        for number in 0..3 * MAX_REMEMBERED {
            tokio::time::advance(Duration::from_millis(1)).await;
            assert_eq!(limit.accept(peer, &number.to_string()), Ok(()));
        }
        assert_eq!(limit.0.lock().unwrap().len(), MAX_REMEMBERED);
        assert!(limit.accept(peer, &(3 * MAX_REMEMBERED - 1).to_string()).is_err(), "the newest is remembered");
        tokio::time::advance(INTERVAL).await;
        assert_eq!(limit.accept(peer, "new"), Ok(()));
        assert_eq!(limit.0.lock().unwrap().len(), 1);
    }
}
