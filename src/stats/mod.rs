//! Statistics of containers: what their counters were at each reading, and what follows from that.
//!
//! Owns the last statistics of each container, and the readings that telemetry has not taken yet. Reads nothing itself: readings
//! come from `cgroup::usage` or from Docker. All modules but `saved` are pure. Invariants: the number of kept readings is bounded;
//! a container that its restart policy starts again has counters that go on; a counter that falls, or a clock that is set, never
//! gives a wrong figure, only none.
//!
//! Reading order: `point` (the figures of one reading), `window` (the readings since the last report), `sets` (what a report has of
//! them), `carried` (counters over restarts), `history` (one container), `collection` (all containers), `saved` (the file).

mod carried;
mod collection;
mod history;
mod point;
#[cfg(test)]
mod properties;
mod saved;
mod sets;
mod window;

pub use carried::Carried;
pub use collection::{Collection, Gathered, Tracked};
pub use history::{ContainerStats, TaskStats};
pub use saved::{Saved, SavedFile};
pub use sets::{CounterSet, FloatSet, NetworkSets, StorageSets};
