//! Limits how often one address may request one path (spec `task-metadata.md` §1, "Rate limit").
//!
//! Owns the buckets. The Go agent has one for each pair of address and path, keeps each of them for ten years, and makes one for
//! any path that is requested, so a container can fill its memory. Here a path has a bucket of its own only if it belongs to a
//! known id; all other paths that an address requests share one. So the number of buckets is limited by the tasks, one task's
//! requests never use up another's, and guessing ids is limited too. A bucket that is full again is dropped.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, RandomState};
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Upper limit of the number of buckets. Beyond it, new pairs of address and path share the bucket of the address, and new
/// addresses share one bucket.
const MAX_BUCKETS: usize = 8192;

/// How many requests are answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rates {
    /// Requests a second on average; above 0.
    pub steady: u64,
    /// Requests at once after a pause; above 0.
    pub burst: u64,
}

/// The buckets of one server.
#[derive(Debug)]
pub(super) struct Limiter {
    rates: Rates,
    buckets: Mutex<Buckets>,
    /// Turns paths into numbers, so that a bucket does not keep a path, which may have an id.
    hasher: RandomState,
}

#[derive(Debug, Default)]
struct Buckets {
    by_key: HashMap<Key, Bucket>,
    /// When full buckets were last dropped; `None`: never.
    swept_at: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Key {
    /// A path of a known id.
    Known(IpAddr, u64),
    /// All other paths that an address requests.
    Other(IpAddr),
    /// All other addresses.
    Rest,
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    tokens: f64,
    at: Instant,
    /// When a refusal was last logged; `None`: never.
    logged_at: Option<Instant>,
}

/// The request came too early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooMany {
    /// Seconds after which it may come again; at least 1.
    pub(super) retry_after: u64,
    /// It is logged. Of all refusals by one bucket, one a second is: the Go agent logs each, and a container can fill the log.
    pub(super) is_logged: bool,
}

/// Minimum time between two logged refusals of one bucket, and between two sweeps.
const QUIET: Duration = Duration::from_secs(1);

impl Limiter {
    pub(super) fn new(rates: Rates) -> Self {
        Self { rates, buckets: Mutex::default(), hasher: RandomState::new() }
    }

    /// Counts a request of this address. `path` is the requested path if it belongs to a known id.
    pub(super) fn take(&self, address: IpAddr, path: Option<impl Hash>, now: Instant) -> Result<(), TooMany> {
        let address = address.to_canonical();
        let key = path.map_or(Key::Other(address), |path| Key::Known(address, self.hasher.hash_one(path)));
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let key = self.key_with_room(&mut buckets, key, address, now);
        let (steady, burst) = (as_number(self.rates.steady), as_number(self.rates.burst));
        let bucket = buckets.by_key.entry(key).or_insert(Bucket { tokens: burst, at: now, logged_at: None });
        bucket.tokens = refilled(bucket, steady, burst, now);
        bucket.at = now;
        if bucket.tokens < 1.0 {
            let is_logged = bucket.logged_at.is_none_or(|last| now.saturating_duration_since(last) >= QUIET);
            bucket.logged_at = if is_logged { Some(now) } else { bucket.logged_at };
            return Err(TooMany { retry_after: whole_seconds((1.0 - bucket.tokens) / steady), is_logged });
        }
        bucket.tokens -= 1.0;
        Ok(())
    }

    /// The key itself, or one that has a bucket already if there is no room for another bucket.
    fn key_with_room(&self, buckets: &mut Buckets, key: Key, address: IpAddr, now: Instant) -> Key {
        if buckets.by_key.len() < MAX_BUCKETS || buckets.by_key.contains_key(&key) {
            return key;
        }
        // Not with every request, since all buckets are looked at.
        if buckets.swept_at.is_none_or(|last| now.saturating_duration_since(last) >= QUIET) {
            let (steady, burst) = (as_number(self.rates.steady), as_number(self.rates.burst));
            buckets.by_key.retain(|_, bucket| refilled(bucket, steady, burst, now) < burst);
            buckets.swept_at = Some(now);
        }
        if buckets.by_key.len() < MAX_BUCKETS {
            return key;
        }
        let shared = Key::Other(address);
        if buckets.by_key.contains_key(&shared) { shared } else { Key::Rest }
    }
}

fn refilled(bucket: &Bucket, steady: f64, burst: f64, now: Instant) -> f64 {
    let passed = now.saturating_duration_since(bucket.at).as_secs_f64();
    (bucket.tokens + passed * steady).min(burst)
}

#[expect(clippy::cast_precision_loss, reason = "no rate needs more than 52 bits")]
fn as_number(rate: u64) -> f64 {
    rate as f64
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "at most one second, since a rate is at least 1"
)]
fn whole_seconds(seconds: f64) -> u64 {
    seconds.ceil().max(1.0) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    const A: IpAddr = IpAddr::V4(Ipv4Addr::new(172, 17, 0, 2));
    const B: IpAddr = IpAddr::V4(Ipv4Addr::new(172, 17, 0, 3));

    fn taken(limiter: &Limiter, address: IpAddr, path: Option<&str>, count: usize, now: Instant) -> usize {
        (0..count).filter(|_| limiter.take(address, path, now).is_ok()).count()
    }

    #[test]
    fn the_default_rates_are_those_of_the_go_agent() {
        let (limiter, now) = (Limiter::new(Rates { steady: 40, burst: 60 }), Instant::now());
        assert_eq!(taken(&limiter, A, Some("/v4/a"), 100, now), 60);
        let refused = |is_logged| Err(TooMany { retry_after: 1, is_logged });
        assert_eq!(limiter.take(A, Some("/v4/a"), now), refused(false), "one was logged already");
        let later = now + Duration::from_millis(1);
        assert_eq!(taken(&limiter, B, Some("/v4/a"), 60, now), 60);
        assert_eq!(limiter.take(B, Some("/v4/a"), later), refused(true));
        assert_eq!(limiter.take(B, Some("/v4/a"), later), refused(false));
        // The refused requests cost nothing.
        assert_eq!(taken(&limiter, A, Some("/v4/a"), 100, now + Duration::from_secs(1)), 40);
        assert_eq!(taken(&limiter, A, Some("/v4/a"), 100, now + Duration::from_secs(60)), 60);
    }

    #[test]
    fn addresses_and_known_paths_do_not_disturb_each_other() {
        let (limiter, now) = (Limiter::new(Rates { steady: 1, burst: 5 }), Instant::now());
        assert_eq!(taken(&limiter, A, Some("/v4/a"), 9, now), 5);
        assert_eq!(taken(&limiter, A, Some("/v4/a/task"), 9, now), 5);
        assert_eq!(taken(&limiter, B, Some("/v4/a"), 9, now), 5);
        // Unknown paths share a bucket for each address.
        assert_eq!(taken(&limiter, A, None, 9, now), 5);
        assert_eq!(taken(&limiter, A, Some("/v4/b"), 9, now), 5, "another known path");
        assert_eq!(taken(&limiter, B, None, 9, now), 5);
        let mapped = IpAddr::V6(Ipv4Addr::new(172, 17, 0, 3).to_ipv6_mapped());
        assert_eq!(taken(&limiter, mapped, None, 9, now), 0, "the same address");
    }

    #[test]
    fn the_number_of_buckets_is_limited() {
        let (limiter, now) = (Limiter::new(Rates { steady: 1, burst: 2 }), Instant::now());
        let address = |nth: usize| IpAddr::V4(Ipv4Addr::from(u32::try_from(nth).unwrap()));
        for nth in 0..3 * MAX_BUCKETS {
            let _ = limiter.take(address(nth), None::<()>, now);
        }
        assert!(limiter.buckets.lock().unwrap().by_key.len() <= MAX_BUCKETS + 1);
        assert_eq!(taken(&limiter, address(1), None, 9, now), 1, "its bucket is still there");
        assert_eq!(taken(&limiter, address(usize::from(u16::MAX)), Some("/x"), 9, now), 0, "it shares one");
        let later = now + Duration::from_secs(10);
        assert_eq!(taken(&limiter, address(usize::from(u16::MAX)), Some("/x"), 9, later), 2);
        assert!(limiter.buckets.lock().unwrap().by_key.len() < 10, "full buckets are dropped");
    }
}
