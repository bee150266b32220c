//! Delays between attempts in this edge: exponential, capped, plus 0 to 20 % at random.
//!
//! Owns the arithmetic only; the callers decide how often to try. Each call counts its own attempts, unlike in the Go agent,
//! whose pulls share one backoff that never resets. Invariant: a delay is at most 1.2 times the cap.

use std::time::Duration;

/// A schedule of delays.
#[derive(Clone, Copy, Debug)]
pub(super) struct Backoff {
    /// The delay after the first failed attempt.
    pub(super) first: Duration,
    /// Each delay is this many times the one before.
    pub(super) factor: f64,
    /// The longest delay, without the random part.
    pub(super) cap: Duration,
}

impl Backoff {
    /// The delay after failed attempt number `attempt`, counted from 0.
    pub(super) fn delay(&self, attempt: u32) -> Duration {
        self.delay_with(attempt, random())
    }

    fn delay_with(&self, attempt: u32, random: f64) -> Duration {
        let cap = self.cap.as_secs_f64();
        let grown = self.first.as_secs_f64() * self.factor.powi(attempt.min(1000) as i32);
        Duration::from_secs_f64(grown.min(cap) * (1.0 + 0.2 * random))
    }
}

/// The pause, prolonged by up to 20 % at random.
pub(super) fn spread(pause: Duration) -> Duration {
    pause.mul_f64(1.0 + 0.2 * random())
}

/// A random number from 0 to 1.
fn random() -> f64 {
    // A UUID has random bits without another dependency.
    let bits = uuid::Uuid::new_v4().as_u64_pair().1 & 0xffff_ffff;
    bits as f64 / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_to_the_cap_plus_a_fifth() {
        let backoff = Backoff { first: Duration::from_millis(1100), factor: 2.0, cap: Duration::from_secs(5) };
        let millis: Vec<_> = (0..5).map(|attempt| backoff.delay_with(attempt, 0.0).as_millis()).collect();
        assert_eq!(millis, [1100, 2200, 4400, 5000, 5000]);
        assert_eq!(backoff.delay_with(u32::MAX, 1.0), Duration::from_secs(6));
        let drawn: std::collections::BTreeSet<_> = (0..20).map(|_| backoff.delay(9)).collect();
        assert!(drawn.len() > 1 && drawn.iter().all(|d| (5.0..=6.0).contains(&d.as_secs_f64())), "{drawn:?}");
    }
}
