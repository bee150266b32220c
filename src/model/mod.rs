//! The words of the domain: what a task is, what was seen, what may be said about it.
//!
//! Layer 0. Plain data with `serde` derives. It knows no other module, no I/O, no clock and no wire format: ACS, Docker and the
//! ECS API are translated to and from these types at the edges.
//!
//! Reading order: [`ids`], [`status`], [`time`], [`port`], [`task`] and [`resource`] (what was asked for), [`create`] and [`cgroup`], [`observation`] (what
//! the engine saw), [`owner`] (which agent made a container), [`failure`] (what went wrong, as the customer sees it), [`report`] (what
//! is said to ECS), [`view`] (what readers may see), [`waiting`] (why a pending thing does not go on),
//! [`agent_health`] (how the agent itself is). [`json`] and [`members`] are
//! how values of the outside become types, [`text`] how texts of the outside are bounded and cleaned, [`address`] how addresses are shown.

pub mod address;
pub mod agent_health;
pub mod cgroup;
pub mod create;
pub mod failure;
pub mod ids;
pub mod image;
pub mod json;
pub mod members;
pub mod observation;
pub mod owner;
pub mod port;
pub mod registry;
pub mod report;
pub mod resource;
pub mod secret;
pub mod status;
pub mod task;
pub mod text;
pub mod time;
pub mod view;
pub mod waiting;

pub use cgroup::CgroupDriver;
pub use create::{CreateRequest, Values};
pub use failure::{Failure, FailureKind, OpError, with_causes};
pub use ids::{ContainerName, CredentialsId, OpId, OwnerId, RuntimeId, TaskArn};
pub use observation::{Health, Observation, RunState};
pub use owner::{OwnerMark, Owners};
pub use port::{PortBinding, Protocol, RangeBinding};
pub use registry::RegistryCredentials;
pub use report::{Ack, ContainerChange, CredentialsAck, StateChange};
pub use resource::{ResourceKind, ResourceRequest, ResourceSpec, ResourceStatus, Tickets};
pub use secret::Secret;
pub use status::{ContainerStatus, TaskStatus};
pub use task::{ContainerKind, ContainerSpec, TaskInfo, TaskSpec};
pub use time::{Span, Timestamp};

/// For documents in which what has its default value is left out.
pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
