//! What a report has of several figures: the smallest, the largest, the sum, and how many there are (spec `stats.md` §5).

/// A set of figures.
#[derive(Clone, Copy, Debug, PartialEq)]
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
    /// The set of these figures; `None` if there are none.
    pub(super) fn new(figures: impl IntoIterator<Item = f64>) -> Option<Self> {
        figures.into_iter().fold(None, |set: Option<Self>, figure| {
            let first = Self { min: figure, max: figure, sum: 0.0, count: 0 };
            let Self { min, max, sum, count } = set.unwrap_or(first);
            Some(Self { min: min.min(figure), max: max.max(figure), sum: sum + figure, count: count + 1 })
        })
    }
}

impl CounterSet {
    /// The set of these values; `None` if there are none. Compat: a sum above 2^64 wraps.
    pub(super) fn new(values: impl IntoIterator<Item = u64>) -> Option<Self> {
        let (mut smallest, mut largest, mut all, mut count) = (u64::MAX, 0, 0_u64, 0);
        for value in values {
            (smallest, largest) = (value.min(smallest), value.max(largest));
            (all, count) = (all.wrapping_add(value), count + 1);
        }
        let ((min, overflow_min), (max, overflow_max), (sum, overflow_sum)) =
            (split(smallest), split(largest), split(all));
        (count > 0).then_some(Self { min, overflow_min, max, overflow_max, sum, overflow_sum, count })
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

    #[test]
    fn a_set_has_the_extremes_the_sum_and_the_number() {
        let set = FloatSet::new([1.0, 0.0, 2.5]).unwrap();
        assert_eq!(set, FloatSet { min: 0.0, max: 2.5, sum: 3.5, count: 3 });
        assert_eq!((FloatSet::new([]), CounterSet::new([])), (None, None));
        let set = CounterSet::new([7, 3, 5]).unwrap();
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
            let set = CounterSet::new([value]).unwrap();
            assert_eq!((set.min, set.overflow_min), expected, "{value}");
            assert_eq!((set.max, set.overflow_max, set.sum), (set.min, set.overflow_min, set.min));
        }
    }

    proptest! {
        #[test]
        fn a_set_is_within_its_extremes(figures in prop::collection::vec(0.0..1e6_f64, 1..50)) {
            let set = FloatSet::new(figures.iter().copied()).unwrap();
            prop_assert_eq!(set.count, figures.len() as u64);
            prop_assert!(figures.iter().all(|figure| set.min <= *figure && *figure <= set.max));
            let mean = set.sum / set.count as f64;
            prop_assert!(mean >= set.min - 1e-6 && mean <= set.max + 1e-6);
        }
    }
}
