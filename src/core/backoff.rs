//! Delays before the next try. They grow exponentially. The jitter comes from a hash, so the same state always gives the same
//! delay.

use super::state::Retry;
use crate::model::ids::stable_hash;
use crate::model::{Span, Timestamp};

/// An exponential schedule of delays.
#[derive(Clone, Copy, Debug)]
pub(super) struct Backoff {
    /// The first delay in milliseconds.
    first: u64,
    /// The longest delay in milliseconds, without the jitter.
    max: u64,
    /// Each delay as a percentage of the previous one.
    percent: u64,
}

/// Docker operations.
pub(super) const ENGINE: Backoff = Backoff { first: 1_000, max: 60_000, percent: 180 };
/// The inventory. All unsettled containers wait for it, so the longest delay is short.
pub(super) const INVENTORY: Backoff = Backoff { first: 1_000, max: 10_000, percent: 180 };
/// State changes (spec `ecs-api.md` §3: 1 s to 30 s, factor 1.3).
pub(super) const REPORT: Backoff = Backoff { first: 1_000, max: 30_000, percent: 130 };

impl Backoff {
    /// Counts one more failure, and delays the next try.
    pub(super) fn again(self, retry: &mut Retry, now: Timestamp, key: &str) {
        retry.attempts = retry.attempts.saturating_add(1);
        retry.not_before = now + self.delay(retry.attempts, key);
    }

    /// The delay after this many consecutive failures, with up to 20 % of jitter on top.
    fn delay(self, attempts: u32, key: &str) -> Span {
        let mut delay = self.first;
        for _ in 1..attempts {
            delay = (delay * self.percent / 100).min(self.max);
            if delay == self.max {
                break;
            }
        }
        Span::millis(delay + spread(delay / 5, &[key, &attempts.to_string()]))
    }
}

/// A number from 0 to `max`, always the same for the same key.
pub(super) fn spread(max: u64, key: &[&str]) -> u64 {
    if max == 0 { 0 } else { stable_hash(key) % (max + 1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_to_the_limit_and_stay_within_their_jitter() {
        let delays: Vec<u64> = (1..60).map(|attempts| REPORT.delay(attempts, "task").0).collect();
        assert!((1_000..=1_200).contains(&delays[0]));
        assert!((1_300..=1_560).contains(&delays[1]));
        assert!(delays[20..].iter().all(|delay| (30_000..=36_000).contains(delay)));
        assert_ne!(REPORT.delay(1, "a"), REPORT.delay(1, "b"));
    }

    #[test]
    fn each_failure_counts_and_sets_the_next_try() {
        let (mut retry, now) = (Retry::default(), Timestamp(5_000));
        for attempts in 1..=3 {
            ENGINE.again(&mut retry, now, "key");
            assert_eq!(retry, Retry { attempts, not_before: now + ENGINE.delay(attempts, "key") });
        }
        let delays: Vec<u64> = (1..=9).map(|attempts| ENGINE.delay(attempts, "key").0).collect();
        let plain = [1_000, 1_800, 3_240, 5_832, 10_497, 18_894, 34_009, 60_000, 60_000];
        for (delay, plain) in delays.iter().zip(plain) {
            assert!((plain..=plain + plain / 5).contains(delay), "{delays:?}");
        }
    }

    #[test]
    fn a_spread_uses_its_whole_range_and_no_more() {
        let keys: Vec<String> = (0..64).map(|key| key.to_string()).collect();
        for max in 0..4 {
            let drawn: std::collections::BTreeSet<u64> = keys.iter().map(|key| spread(max, &[key])).collect();
            assert!(drawn.into_iter().eq(0..=max), "{max}");
        }
        // A fifth of the delay is used, not less.
        let max = keys.iter().map(|key| ENGINE.delay(1, key).0).max();
        assert!(max > Some(1_150), "{max:?}");
    }
}
