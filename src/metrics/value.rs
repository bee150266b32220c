//! Values that are counted while the agent runs. All orders of memory are relaxed: a value says nothing about any other one.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds one.
    pub fn increment(&self) {
        self.add(1);
    }

    /// Adds this many.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// The number so far.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A whole number that goes up and down.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// Replaces the number.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// The number now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How often something took how long.
#[derive(Debug)]
pub struct Histogram {
    /// The upper bounds of the buckets in milliseconds, in ascending order.
    bounds: &'static [u64],
    /// How many observations are in each bucket, and not in an earlier one. The last bucket has no bound.
    buckets: Box<[AtomicU64]>,
    /// All observations together, in microseconds.
    sum: AtomicU64,
}

/// The present values of a [`Histogram`].
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Observed {
    /// For each bound in seconds, how many observations were at most this long.
    pub(super) at_most: Vec<(f64, u64)>,
    /// The number of all observations.
    pub(super) count: u64,
    /// All observations together, in seconds.
    pub(super) sum: f64,
}

impl Histogram {
    /// A histogram with these upper bounds of its buckets in milliseconds, in ascending order.
    pub fn new(bounds: &'static [u64]) -> Self {
        let buckets = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self { bounds, buckets, sum: AtomicU64::new(0) }
    }

    /// Adds an observation.
    pub fn observe(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = self.bounds.partition_point(|bound| bound.saturating_mul(1000) < micros);
        if let Some(bucket) = self.buckets.get(bucket) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        self.sum.fetch_add(micros, Ordering::Relaxed);
    }

    /// The present values. The count is that of the buckets, also while another thread observes.
    pub(super) fn observed(&self) -> Observed {
        let mut count = 0;
        let mut at_most = Vec::with_capacity(self.bounds.len());
        for (place, bucket) in self.buckets.iter().enumerate() {
            count += bucket.load(Ordering::Relaxed);
            at_most.extend(self.bounds.get(place).map(|bound| (*bound as f64 / 1000.0, count)));
        }
        Observed { at_most, count, sum: self.sum.load(Ordering::Relaxed) as f64 / 1e6 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_observation_is_in_the_first_bucket_that_holds_it() {
        let histogram = Histogram::new(&[5, 1000]);
        for micros in [0, 5_000, 5_001, 1_000_000, 1_000_001] {
            histogram.observe(Duration::from_micros(micros));
        }
        histogram.observe(Duration::MAX);
        let observed = histogram.observed();
        assert_eq!(observed.at_most, [(0.005, 2), (1.0, 4)]);
        assert_eq!(observed.count, 6);
    }

    #[test]
    fn the_sum_is_in_seconds() {
        let histogram = Histogram::new(&[1]);
        histogram.observe(Duration::from_millis(1500));
        histogram.observe(Duration::from_micros(250));
        assert!((histogram.observed().sum - 1.50025).abs() < 1e-9);
    }
}
