//! The operator's settings for the core: waits, limits and the capacity of the host. Filled from the configuration.
//!
//! Owns no behaviour: each setting is applied by the file that owns its subject. Invariant: the policy never changes while the
//! process lives.

use crate::model::{Owners, Span};
use std::collections::BTreeSet;
use std::net::Ipv4Addr;

/// The operator's settings for the core.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// CPU units, memory, ports and GPUs that this host can give to tasks.
    pub capacity: Capacity,
    /// When an image is pulled from its registry (`ECS_IMAGE_PULL_BEHAVIOR`).
    pub pull: PullBehavior,
    /// Images are pulled while their containers still wait for others (`ECS_PULL_DEPENDENT_CONTAINERS_UPFRONT`).
    pub pull_upfront: bool,
    /// How long a stopped task is kept (`ECS_ENGINE_TASK_CLEANUP_WAIT_DURATION`).
    pub cleanup_wait: Span,
    /// The longest random time that is added to `cleanup_wait`, drawn for each task (`…_JITTER`).
    pub cleanup_jitter: Span,
    /// Time between two inventories if no event was missed.
    pub inventory_every: Span,
    /// The image clean-up.
    pub images: ImagePolicy,
    /// Time between the end of a task's other containers and the tear-down of its network (`ENIPauseContainerCleanupDelaySeconds`).
    pub pause_cleanup_delay: Span,
    /// The only address on the bridge that tasks get, so that one task in network mode `awsvpc` can run at a time
    /// (`OverrideAWSVPCLocalIPv4Address`); `None`: each task gets another one.
    pub local_address: Option<Ipv4Addr>,
    /// The identities whose containers belong to this agent. Other agents' containers are never taken over, changed or removed.
    pub owners: Owners,
}

/// The image clean-up (spec `images.md` §7).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImagePolicy {
    /// Unused images are removed in regular cycles (`ECS_DISABLE_IMAGE_CLEANUP` is not set).
    pub enabled: bool,
    /// Time between two cycles (`ECS_IMAGE_CLEANUP_INTERVAL`).
    pub interval: Span,
    /// Time after its pull during which an image is never removed (`ECS_IMAGE_MINIMUM_CLEANUP_AGE`).
    pub minimum_age: Span,
    /// The largest number of images removed in one cycle (`ECS_NUM_IMAGES_DELETE_PER_CYCLE`).
    pub per_cycle: u32,
    /// Names of images that are never removed (`ECS_EXCLUDE_UNTRACKED_IMAGE`, and the agent's own).
    pub exclude: BTreeSet<String>,
    /// The clean-up of images and containers that belong to no task; `None`: they stay (`ECS_ENABLE_UNTRACKED_IMAGE_CLEANUP`).
    pub untracked: Option<UntrackedPolicy>,
    /// The high and the low mark of the disk's use, in percent (`ECS_IMAGE_DISK_…_PERCENT`). If the disk has reached the high
    /// mark, images are removed before a pull until it is below the low one. `None`: a pull does not depend on the disk.
    pub disk: Option<(u8, u8)>,
}

/// The clean-up of images and containers that belong to no task.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UntrackedPolicy {
    /// The largest number of containers removed in one cycle (`NONECS_NUM_CONTAINERS_DELETE_PER_CYCLE`).
    pub containers_per_cycle: u32,
    /// Time after its build during which an image is never removed (`NON_ECS_IMAGE_MINIMUM_CLEANUP_AGE`).
    pub minimum_age: Span,
}

impl ImagePolicy {
    /// Images are removed in regular cycles, or before a pull.
    pub fn is_on(&self) -> bool {
        self.enabled || self.disk.is_some()
    }
}

/// The resources of this host that tasks can use (spec `task-engine.md` §6.2).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capacity {
    /// CPU units, 1024 per logical CPU.
    pub cpu: u64,
    /// Memory in MiB.
    pub memory: u64,
    /// TCP ports that no task may publish.
    pub reserved_tcp: BTreeSet<u16>,
    /// UDP ports that no task may publish.
    pub reserved_udp: BTreeSet<u16>,
    /// Ids of the GPUs.
    pub gpus: BTreeSet<String>,
}

/// `ECS_IMAGE_PULL_BEHAVIOR` (spec `images.md` §2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PullBehavior {
    /// Ask the registry each time; use a cached image if that fails.
    #[default]
    Default,
    /// Ask the registry each time; a failure stops the task.
    Always,
    /// Ask the registry until one pull has succeeded on this host; a failure stops the task.
    Once,
    /// Ask the registry only if the image is not on this host.
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
            pause_cleanup_delay: Span::default(),
            local_address: None,
            owners: Owners::default(),
        }
    }
}
