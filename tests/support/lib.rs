//! Helpers for several suites and for unit tests: real Docker, real registries, and servers that fail as asked.
//!
//! Nothing here knows the agent, so that a unit test of the agent may use it, too.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
#![allow(clippy::new_without_default, reason = "a new one is another one")]

#[path = "../corpus/cases.rs"]
pub mod corpus;
pub mod credentials_fetcher;
pub mod dice;
pub mod docker;
pub mod docker_proxy;
pub mod dockerd;
pub mod http_proxy;
pub mod program;
pub mod registry;
pub mod registry_front;
pub mod self_signed_front;
pub mod tls_front;
pub mod volume_plugin;
pub mod wait;
