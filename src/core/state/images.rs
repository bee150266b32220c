//! What is remembered of images, and of their clean-up.

use super::retry::Retry;
use crate::model::image::{ImageListing, ImageWork};
use crate::model::{OpId, OwnerId, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// What is remembered of an image that tasks have used.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrackedImage {
    /// What tasks called it.
    pub names: BTreeSet<String>,
    /// When it was pulled last. The Go agent counts from the first time, so that an image just pulled anew may go at once.
    pub pulled_at: Timestamp,
    /// When the last task that used it was forgotten.
    pub used_at: Timestamp,
}

/// The clean-up under way. Volatile: a restart begins a new interval.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageCleanup {
    /// When the next cycle begins; `None` until the first plan.
    pub due: Option<Timestamp>,
    /// What is in flight: at most one.
    pub operation: Option<(OpId, ImageWork)>,
    /// When a listing that failed may be tried again.
    pub retry: Retry,
    /// A pull waits for a look at the disk.
    pub is_pull_waiting: bool,
    /// The disk was too full at the last look: room is being made.
    pub is_making_room: bool,
    /// When the disk was looked at last.
    pub disk_checked_at: Option<Timestamp>,
    /// What the cycle goes by.
    pub(in crate::core) listing: Option<ImageListing>,
    /// Images and containers that were tried in this cycle.
    pub(in crate::core) tried: BTreeSet<String>,
    /// Removals of tracked images that were tried in this cycle.
    pub(in crate::core) tracked_tried: u32,
    /// Names of images, and containers, of others that went in this cycle.
    pub(in crate::core) foreign_removed: (u32, u32),
    /// Agents that made containers and have not run since then, at every look.
    pub(in crate::core) absent: BTreeMap<OwnerId, Timestamp>,
}
