//! What the operator decided: waits, limits, and what the host has to give. Filled from the configuration.
//!
//! Owns no behaviour; who obeys a setting is the file that owns its subject. Invariant: it never changes while the process lives.

use crate::model::{Owners, Span};
use std::collections::BTreeSet;

/// Waits and limits the planner obeys. Filled from the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// CPU units, memory and ports this host may give to tasks.
    pub capacity: Capacity,
    /// When to ask the registry (`ECS_IMAGE_PULL_BEHAVIOR`).
    pub pull: PullBehavior,
    /// Pull images of containers that still wait for others (`ECS_PULL_DEPENDENT_CONTAINERS_UPFRONT`).
    pub pull_upfront: bool,
    /// How long a stopped task is kept (`ECS_ENGINE_TASK_CLEANUP_WAIT_DURATION`).
    pub cleanup_wait: Span,
    /// Up to this much is added to it, per task (`…_JITTER`).
    pub cleanup_jitter: Span,
    /// How often all containers are listed even when no event was missed.
    pub inventory_every: Span,
    /// What is cleaned up of images, and when.
    pub images: ImagePolicy,
    /// Whose containers are this agent's. Of others nothing is taken over, changed or removed.
    pub owners: Owners,
}

/// The clean-up of images (spec `images.md` §7).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImagePolicy {
    /// Images are removed from time to time (`ECS_DISABLE_IMAGE_CLEANUP` is not set).
    pub enabled: bool,
    /// How often (`ECS_IMAGE_CLEANUP_INTERVAL`).
    pub interval: Span,
    /// So long after its pull an image stays in any case (`ECS_IMAGE_MINIMUM_CLEANUP_AGE`).
    pub minimum_age: Span,
    /// Most images removed at a time (`ECS_NUM_IMAGES_DELETE_PER_CYCLE`).
    pub per_cycle: u32,
    /// Images that always stay, by name (`ECS_EXCLUDE_UNTRACKED_IMAGE` and the agent's own).
    pub exclude: BTreeSet<String>,
    /// Images and containers that are not of tasks go too (`ECS_ENABLE_UNTRACKED_IMAGE_CLEANUP`).
    pub untracked: Option<UntrackedPolicy>,
    /// Percent of the disk: above the first, room is made before a pull until it is below the second (`ECS_IMAGE_DISK_…_PERCENT`).
    pub disk: Option<(u8, u8)>,
}

/// The clean-up of what is not of tasks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UntrackedPolicy {
    /// Most containers removed at a time (`NONECS_NUM_CONTAINERS_DELETE_PER_CYCLE`).
    pub containers_per_cycle: u32,
    /// So long after it was built an image stays in any case (`NON_ECS_IMAGE_MINIMUM_CLEANUP_AGE`).
    pub minimum_age: Span,
}

impl ImagePolicy {
    /// There is anything to do at all.
    pub fn is_on(&self) -> bool {
        self.enabled || self.disk.is_some()
    }
}

/// What this host has to give (spec `task-engine.md` §6.2).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capacity {
    /// CPU units, 1024 per logical CPU.
    pub cpu: u64,
    /// MiB.
    pub memory: u64,
    /// TCP ports that are never given to tasks.
    pub reserved_tcp: BTreeSet<u16>,
    /// UDP ports that are never given to tasks.
    pub reserved_udp: BTreeSet<u16>,
    /// Ids of the GPUs.
    pub gpus: BTreeSet<String>,
}

/// `ECS_IMAGE_PULL_BEHAVIOR` (spec `images.md` §2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PullBehavior {
    /// Ask the registry each time; go on with a cached image if that fails.
    #[default]
    Default,
    /// Ask the registry each time; a failure stops the task.
    Always,
    /// Ask the registry until it worked once on this host; a failure stops the task.
    Once,
    /// Ask the registry only when the image is not on this host.
    PreferCached,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            capacity: Capacity { cpu: u64::MAX, memory: u64::MAX, ..Capacity::default() },
            pull: PullBehavior::Default,
            pull_upfront: false,
            cleanup_wait: Span::secs(3 * 3600),
            cleanup_jitter: Span::default(),
            inventory_every: Span::secs(300),
            images: ImagePolicy::default(),
            owners: Owners::default(),
        }
    }
}
