//! Metrics for Prometheus: what is counted, under which names, and the text that a scrape gets.
//!
//! Pure: reads no clock, no file, no socket. The runtime fills a [`Page`] at each scrape (`src/runtime/parts/metrics.rs`), mostly
//! from the state that exists anyway, and [`http`](crate::http) serves it. What only an event shows is counted where it happens,
//! with a [`Counter`] or a [`Histogram`], which cost an atomic addition.
//!
//! Invariant: the number of series does not depend on tasks. No label has an id, an image, a name or an address.
//!
//! The encoder is our own: [`text`] says why.
//!
//! Reading order: [`names`] (all metrics), `value` (counters), `counts` (the counters of parts that belong to the runtime), [`text`].

mod counts;
pub mod names;
pub mod text;
mod value;

pub use counts::{Metrics, PHASES, PullOutcome, ReportOutcome};
pub use names::{Family, Kind};
pub use text::{Form, Page};
pub use value::{Counter, Gauge, Histogram};
