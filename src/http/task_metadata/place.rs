//! The facts about this instance that task metadata shows, and times in its form.

use super::stats::StatsLookup;
use super::tags::TagLookup;
use ecs_core::model::Timestamp;
use std::sync::Arc;

/// The facts about this instance that task metadata shows. Empty: not known, and then left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The cluster.
    pub cluster: String,
    /// ARN of the container instance.
    pub container_instance: String,
    /// Availability zone of the registration, such as `us-west-2b`; also empty if the operator does not want it to be shown.
    pub availability_zone: String,
    /// Id of that zone, such as `usw2-az2`; likewise.
    pub availability_zone_id: String,
    /// Id of the VPC.
    pub vpc_id: String,
}

/// What the documents about tasks need besides the tasks.
#[derive(Clone)]
pub struct Metadata {
    /// The facts about this instance.
    pub place: Place,
    /// Converts the moments in views.
    pub wall: Wall,
    /// Asks ECS for tags.
    pub tags: TagLookup,
    /// Looks up the statistics of a container.
    pub stats: StatsLookup,
}

impl std::fmt::Debug for Metadata {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Metadata").field(&self.place).finish()
    }
}

/// Converts a moment of the agent's clock to wall time.
pub type Wall = Arc<dyn Fn(Timestamp) -> Timestamp + Send + Sync>;

/// A moment as wall time in RFC 3339, in UTC, as Go writes times: without zeros at the end of the fraction.
pub(super) fn wall_text(wall: &Wall, at: Timestamp) -> String {
    wall(at).rfc3339()
}
