//! The images that tasks have used, and the state of the image clean-up.

use super::retry::Retry;
use crate::model::image::{ImageListing, ImageWork};
use crate::model::{OpId, OwnerId, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// An image that tasks have used.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrackedImage {
    /// The full names that tasks used for the image.
    pub names: BTreeSet<String>,
    /// When the image was last pulled. The Go agent counts from the first pull, so it may remove an image that was just pulled
    /// again.
    pub pulled_at: Timestamp,
    /// When the last task that used the image was removed from the state.
    pub used_at: Timestamp,
}

/// The state of the image clean-up. It is kept in memory only: a restart of the agent begins a new interval.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageCleanup {
    /// When the next cycle begins; `None` until the clean-up is planned for the first time.
    pub due: Option<Timestamp>,
    /// The pending operation; `None` if there is none.
    pub operation: Option<(OpId, ImageWork)>,
    /// When a listing that failed may be tried again.
    pub retry: Retry,
    /// A pull waits until the disk has been checked.
    pub is_pull_waiting: bool,
    /// The disk was too full at the last check, so images are being removed to make room.
    pub is_making_room: bool,
    /// When the disk was last checked; `None` before the first check.
    pub disk_checked_at: Option<Timestamp>,
    /// The listing that the current cycle works on; `None` between cycles.
    pub(crate) listing: Option<ImageListing>,
    /// Ids or names of the images and containers whose removal was tried in this cycle.
    pub(crate) tried: BTreeSet<String>,
    /// Number of removals of tracked images that were tried in this cycle.
    pub(crate) tracked_tried: u32,
    /// Number of names of untracked images, and number of containers of no task, that were removed in this cycle.
    pub(crate) foreign_removed: (u32, u32),
    /// Other agents that created containers here and do not run, with the moment since which every listing has shown that.
    pub(crate) absent: BTreeMap<OwnerId, Timestamp>,
}
