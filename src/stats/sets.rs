//! What a report has of several figures: the smallest, the largest, the sum, and how many there are (spec `stats.md` §5).

/// A set of figures.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct FloatSet {
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
    /// All together.
    pub sum: f64,
    /// How many there are.
    pub count: u64,
}

/// A set of values of a counter. ECS takes signed numbers: what is above the largest of these is in `overflow_…`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CounterSet {
    /// The smallest.
    pub min: i64,
    /// What is above the largest signed number.
    pub overflow_min: i64,
    /// The largest.
    pub max: i64,
    /// What is above the largest signed number.
    pub overflow_max: i64,
    /// All together.
    pub sum: i64,
    /// What is above the largest signed number.
    pub overflow_sum: i64,
    /// How many there are.
    pub count: u64,
}

/// The sets about block devices, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StorageSets {
    /// Bytes read since the start of the container.
    pub read: CounterSet,
    /// Bytes written since the start of the container.
    pub written: CounterSet,
}

/// The sets about networks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NetworkSets {
    /// Bytes received.
    pub rx_bytes: CounterSet,
    /// Received packets that were dropped.
    pub rx_dropped: CounterSet,
    /// Errors while receiving.
    pub rx_errors: CounterSet,
    /// Packets received.
    pub rx_packets: CounterSet,
    /// Bytes sent.
    pub tx_bytes: CounterSet,
    /// Packets that were dropped instead of sent.
    pub tx_dropped: CounterSet,
    /// Errors while sending.
    pub tx_errors: CounterSet,
    /// Packets sent.
    pub tx_packets: CounterSet,
    /// Bytes received per second; `None` if it is not known.
    pub rx_rate: Option<FloatSet>,
    /// Bytes sent per second; `None` if it is not known.
    pub tx_rate: Option<FloatSet>,
}

impl FloatSet {
    /// The set with one more figure; `None`: there was none before.
    pub(super) fn with(set: Option<Self>, figure: f64) -> Self {
        Self::joined(set, Some(Self { min: figure, max: figure, sum: figure, count: 1 })).unwrap_or_default()
    }

    /// The set of the figures of both; `None` if there are none.
    pub(super) fn joined(left: Option<Self>, right: Option<Self>) -> Option<Self> {
        let (Some(left), Some(right)) = (left, right) else { return left.or(right) };
        let (min, max) = (left.min.min(right.min), left.max.max(right.max));
        Some(Self { min, max, sum: left.sum + right.sum, count: left.count + right.count })
    }
}

/// The values of a counter, added up. Compat: a sum above 2^64 wraps.
#[derive(Clone, Copy, Debug)]
pub(super) struct CounterTotals {
    smallest: u64,
    largest: u64,
    sum: u64,
}

impl Default for CounterTotals {
    fn default() -> Self {
        Self { smallest: u64::MAX, largest: 0, sum: 0 }
    }
}

impl CounterTotals {
    /// Adds one value.
    pub(super) fn add(&mut self, value: u64) {
        *self = self.joined(Self { smallest: value, largest: value, sum: value });
    }

    /// The values of both.
    pub(super) fn joined(self, other: Self) -> Self {
        Self {
            smallest: self.smallest.min(other.smallest),
            largest: self.largest.max(other.largest),
            sum: self.sum.wrapping_add(other.sum),
        }
    }

    /// The set of these values, of which there are `count`; `None` if there are none.
    pub(super) fn set(self, count: u64) -> Option<CounterSet> {
        let (min, overflow_min) = split(self.smallest);
        let (max, overflow_max) = split(self.largest);
        let (sum, overflow_sum) = split(self.sum);
        (count > 0).then_some(CounterSet { min, overflow_min, max, overflow_max, sum, overflow_sum, count })
    }
}

/// The value as a signed number, and what is above the largest of these.
fn split(value: u64) -> (i64, i64) {
    match i64::try_from(value) {
        Ok(value) => (value, 0),
        // At most twice the largest signed number and one, so the rest is one.
        Err(_) => (i64::MAX, i64::try_from(value % i64::MAX.unsigned_abs()).unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn float_set(figures: &[f64]) -> Option<FloatSet> {
        figures.iter().fold(None, |set, figure| Some(FloatSet::with(set, *figure)))
    }

    fn counter_set(values: &[u64]) -> Option<CounterSet> {
        let mut totals = CounterTotals::default();
        values.iter().for_each(|value| totals.add(*value));
        totals.set(values.len() as u64)
    }

    #[test]
    fn a_set_has_the_extremes_the_sum_and_the_number() {
        let set = float_set(&[1.0, 0.0, 2.5]).unwrap();
        assert_eq!(set, FloatSet { min: 0.0, max: 2.5, sum: 3.5, count: 3 });
        assert_eq!((float_set(&[]), counter_set(&[])), (None, None));
        let set = counter_set(&[7, 3, 5]).unwrap();
        assert_eq!((set.min, set.max, set.sum, set.count), (3, 7, 15, 3));
    }

    #[test]
    fn what_exceeds_a_signed_number_is_shown_apart() {
        let largest = i64::MAX.unsigned_abs();
        for (value, expected) in [
            (largest, (i64::MAX, 0)),
            (largest + 1, (i64::MAX, 1)),
            (u64::MAX - 1, (i64::MAX, 0)), // Compat: twice the largest leaves no rest
            (u64::MAX, (i64::MAX, 1)),
        ] {
            let set = counter_set(&[value]).unwrap();
            assert_eq!((set.min, set.overflow_min), expected, "{value}");
            assert_eq!((set.max, set.overflow_max, set.sum), (set.min, set.overflow_min, set.min));
        }
    }

    proptest! {
        #[test]
        fn a_set_is_within_its_extremes(figures in prop::collection::vec(0.0..1e6_f64, 1..50)) {
            let set = float_set(&figures).unwrap();
            prop_assert_eq!(set.count, figures.len() as u64);
            prop_assert!(figures.iter().all(|figure| set.min <= *figure && *figure <= set.max));
            let mean = set.sum / set.count as f64;
            prop_assert!(mean >= set.min - 1e-6 && mean <= set.max + 1e-6);
        }
    }
}
