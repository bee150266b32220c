//! The time types of the core. The time is always an argument; nothing here reads a clock.

use serde::{Deserialize, Serialize};
use std::ops::{Add, Sub};

/// A moment: milliseconds since the Unix epoch, UTC. ECS takes times in milliseconds, such as `pullStartedAt`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub u64);

/// A length of time in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Span(pub u64);

impl Timestamp {
    /// The latest moment.
    pub const END: Self = Self(u64::MAX);

    /// The time since `earlier`; zero if `earlier` is later.
    pub fn since(self, earlier: Self) -> Span {
        Span(self.0.saturating_sub(earlier.0))
    }

    /// Seconds since the epoch, with the milliseconds as a fraction: the form of the ECS API.
    pub fn as_secs_f64(self) -> f64 {
        self.0 as f64 / 1000.0
    }
}

impl Span {
    /// The longest span.
    pub const MAX: Self = Self(u64::MAX);

    /// A span of whole milliseconds.
    pub const fn millis(millis: u64) -> Self {
        Self(millis)
    }

    /// A span of whole seconds.
    pub const fn secs(secs: u64) -> Self {
        Self(secs.saturating_mul(1000))
    }
}

impl From<Span> for std::time::Duration {
    fn from(span: Span) -> Self {
        Self::from_millis(span.0)
    }
}

impl Add<Span> for Timestamp {
    type Output = Self;

    fn add(self, span: Span) -> Self {
        Self(self.0.saturating_add(span.0))
    }
}

impl Sub<Span> for Timestamp {
    type Output = Self;

    fn sub(self, span: Span) -> Self {
        Self(self.0.saturating_sub(span.0))
    }
}
