//! The services that tasks and pulls need, one file each.
//!
//! [`ecr`] is an SDK crate; [`ssm`], [`secrets_manager`] and [`registry_secret`] are JSON calls; [`s3`] is a signed download.

pub mod ecr;
pub mod registry_secret;
pub mod s3;
pub mod secrets_manager;
pub mod ssm;
