//! Growing pauses with jitter, for everything outside the core. (The core must not draw random numbers, and has its own.)
//!
//! Owns the arithmetic of a back-off. It does not sleep. The invariant: a pause is never longer than `max` plus its jitter.

use std::time::Duration;

/// The shape of a back-off: the first pause is `initial`, each further pause is `factor` times the last, at most `max`. Each
/// pause is extended at random by up to `jitter` of its length.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shape {
    /// The first pause.
    pub initial: Duration,
    /// The maximum pause, without jitter.
    pub max: Duration,
    /// The growth factor.
    pub factor: f64,
    /// The maximum random extension as a part of the pause; 0.2 is up to 20 %.
    pub jitter: f64,
}

impl Shape {
    /// The pause after failed attempt number `attempt`, counted from 0, for a caller that counts its attempts itself.
    pub fn delay(&self, attempt: u32) -> Duration {
        let max = self.max.as_secs_f64();
        let grown = self.initial.as_secs_f64() * self.factor.powi(attempt.min(1000) as i32);
        self.spread(Duration::from_secs_f64(grown.min(max)))
    }

    /// The pause, extended at random.
    pub fn spread(&self, pause: Duration) -> Duration {
        pause + uniform(pause.mul_f64(self.jitter))
    }
}

/// A pause in seconds, to the millisecond: the unit of all durations in the log.
pub fn seconds(pause: Duration) -> f64 {
    pause.as_millis() as f64 / 1000.0
}

/// The state of a back-off.
#[derive(Clone, Debug)]
pub struct Backoff {
    shape: Shape,
    next: Duration,
    pauses: u32,
}

impl Backoff {
    /// A back-off before its first pause.
    pub fn new(shape: Shape) -> Self {
        Self { shape, next: shape.initial, pauses: 0 }
    }

    /// The next pause; the one after it is longer.
    pub fn pause(&mut self) -> Duration {
        self.pauses = self.pauses.saturating_add(1);
        let base = self.next.min(self.shape.max);
        self.next = base.mul_f64(self.shape.factor).min(self.shape.max);
        self.shape.spread(base)
    }

    /// The number of pauses so far, since the last reset: the number of the attempt that failed last, counted from 1.
    pub fn attempt(&self) -> u32 {
        self.pauses
    }

    /// Starts again at the first pause.
    pub fn reset(&mut self) {
        *self = Self::new(self.shape);
    }
}

/// A random duration in `[0, span)`. It spreads load and is not suitable for security.
pub fn uniform(span: Duration) -> Duration {
    // An f64 represents 53 bits exactly. The lowest 62 bits of a v4 UUID are random.
    let bits = (uuid::Uuid::new_v4().as_u128() & ((1 << 53) - 1)) as u64;
    span.mul_f64(bits as f64 / (1u64 << 53) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_the_limit_and_start_over() {
        let shape =
            Shape { initial: Duration::from_millis(250), max: Duration::from_secs(120), factor: 1.5, jitter: 0.2 };
        let mut backoff = Backoff::new(shape);
        let mut base = 0.25;
        for _ in 0..30 {
            let pause = backoff.pause().as_secs_f64();
            assert!(pause >= base * 0.999 && pause <= base * 1.2, "{pause} for {base}");
            base = f64::min(base * 1.5, 120.0);
        }
        assert_eq!(backoff.attempt(), 30);
        backoff.reset();
        assert!(backoff.pause() <= Duration::from_millis(300));
        assert_eq!(backoff.attempt(), 1);
    }

    #[test]
    fn delays_by_number_grow_to_the_limit_plus_a_fifth() {
        let shape =
            Shape { initial: Duration::from_millis(1100), max: Duration::from_secs(5), factor: 2.0, jitter: 0.0 };
        let millis: Vec<_> = (0..5).map(|attempt| shape.delay(attempt).as_millis()).collect();
        assert_eq!(millis, [1100, 2200, 4400, 5000, 5000]);
        let shape = Shape { jitter: 0.2, ..shape };
        let drawn: std::collections::BTreeSet<_> = (0..20).map(|_| shape.delay(u32::MAX)).collect();
        assert!(drawn.len() > 1 && drawn.iter().all(|d| (5.0..=6.0).contains(&d.as_secs_f64())), "{drawn:?}");
    }

    #[test]
    fn jitter_spreads_within_its_span() {
        let span = Duration::from_secs(60);
        let draws: Vec<Duration> = (0..200).map(|_| uniform(span)).collect();
        assert!(draws.iter().all(|d| *d < span));
        assert!(draws.iter().any(|d| *d < span / 4) && draws.iter().any(|d| *d > span * 3 / 4));
    }
}
