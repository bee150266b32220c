//! The types of the domain: what a task is, what was observed, and what is reported.
//!
//! The lowest layer: it imports nothing else of the agent. Plain data with `serde` derives, without I/O, a clock or a wire
//! format: the edges translate between these types and ACS, Docker and the ECS API.
//!
//! Reading order: [`ids`], [`status`], [`time`], [`port`], [`task`], [`container`] and [`resource`], [`image`], [`registry`] and
//! [`secret`] (what ECS asks for), [`role`], [`create`] and [`cgroup`], [`observation`] (what Docker shows), [`bridges`], [`owner`] (which agent created a
//! container), [`failure`] (failures as the customer sees them), [`report`] (messages to ECS), [`metadata_file`], [`view`] (what
//! readers may see), [`waiting`] (why a task or container waits), [`protection`] and [`fault`] (what programs in a task may ask
//! for), [`interface`] (the network interfaces of tasks), [`attachment`] (devices that ECS attaches), [`usage`] (what containers use), [`agent_health`] (the health of the agent itself), [`container_form`] (what an agent in a
//! container has of its host). [`text`] bounds and cleans texts from outside, [`text_map`] shares maps
//! of them, and [`address`] hides passwords in addresses.

pub mod address;
pub mod agent_health;
pub mod attachment;
pub mod bridges;
pub mod cgroup;
pub mod container;
pub mod container_form;
pub mod create;
pub mod failure;
pub mod fault;
pub mod ids;
pub mod image;
pub mod interface;
pub mod metadata_file;
pub mod observation;
pub mod owner;
pub mod port;
pub mod protection;
pub mod registry;
pub mod report;
pub mod resource;
pub mod role;
pub mod secret;
pub mod status;
pub mod task;
pub mod text;
pub mod text_map;
pub mod time;
pub mod usage;
pub mod view;
pub mod waiting;

pub use bridges::Bridges;
pub use cgroup::CgroupDriver;
pub use create::{ContainerNetwork, CreateRequest, SecretValues};
pub use failure::{Failure, FailureKind, OpError, with_causes};
pub use ids::{ContainerName, CredentialsId, EndpointId, OpId, OwnerId, RuntimeId, TaskArn};
pub use interface::{Interface, InterfaceKind, MacAddress, NetworkRequest, Prefix, ProxyRules};
pub use observation::{Health, Observation, RunState};
pub use owner::{OwnerMark, Owners};
pub use port::{PortBinding, Protocol, RangeBinding};
pub use registry::RegistryCredentials;
pub use report::{Ack, ContainerChange, CredentialsAck, StateChange};
pub use resource::{ResourceKind, ResourceRequest, ResourceSpec, ResourceStatus, Tickets};
pub use role::RoleKind;
pub use secret::Secret;
pub use status::{ContainerStatus, TaskStatus};
pub use task::{ContainerKind, ContainerSpec, TaskInfo, TaskSpec};
pub use text_map::TextMap;
pub use time::{Span, Timestamp};

/// True for a default value. Stored documents leave out fields with their default value.
pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
