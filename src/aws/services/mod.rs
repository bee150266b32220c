//! The services that tasks and pulls need, one file each.
//!
//! [`ecr`] uses an SDK crate; [`ssm`], [`secrets_manager`], [`registry_secret`] and [`task_protection`] make JSON calls; [`s3`]
//! downloads with a signed request.

pub mod ecr;
pub mod registry_secret;
pub mod s3;
pub mod secrets_manager;
pub mod ssm;
pub mod task_protection;
