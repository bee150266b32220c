//! Growing pauses with jitter, for callers that talk to the network. Not for the core, whose jitter is a hash.
//!
//! Owns the arithmetic of one back-off. It does not sleep. The invariant: a pause is never longer than `max` plus its jitter.

use std::time::Duration;

/// The shape of a back-off: `initial`, then times `factor`, at most `max`; each pause gets up to `jitter` of itself on top.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shape {
    /// First pause.
    pub initial: Duration,
    /// Longest pause before jitter.
    pub max: Duration,
    /// Growth for each further pause.
    pub factor: f64,
    /// Part of the pause added at random, 0.2 = up to 20 %.
    pub jitter: f64,
}

/// One running back-off.
#[derive(Clone, Debug)]
pub struct Backoff {
    shape: Shape,
    next: Duration,
}

impl Backoff {
    /// Starts at the shape's first pause.
    pub fn new(shape: Shape) -> Self {
        Self { shape, next: shape.initial }
    }

    /// The pause to make now; the following one is longer.
    pub fn pause(&mut self) -> Duration {
        let base = self.next.min(self.shape.max);
        self.next = base.mul_f64(self.shape.factor).min(self.shape.max);
        base + uniform(base.mul_f64(self.shape.jitter))
    }

    /// Back to the first pause.
    pub fn reset(&mut self) {
        self.next = self.shape.initial;
    }
}

/// A random length in `[0, span)`. Spreads load; not for security.
pub fn uniform(span: Duration) -> Duration {
    // 53 bits are what a double holds; a v4 UUID has 122 random ones, of which the lowest 62 are contiguous.
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
        backoff.reset();
        assert!(backoff.pause() <= Duration::from_millis(300));
    }

    #[test]
    fn jitter_spreads_within_its_span() {
        let span = Duration::from_secs(60);
        let draws: Vec<Duration> = (0..200).map(|_| uniform(span)).collect();
        assert!(draws.iter().all(|d| *d < span));
        assert!(draws.iter().any(|d| *d < span / 4) && draws.iter().any(|d| *d > span * 3 / 4));
    }
}
