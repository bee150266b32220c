//! The services that tasks and pulls need, one file each.
//!
//! [`ecr`] uses an SDK crate; [`ssm`], [`secrets_manager`] and [`registry_secret`] make JSON calls; [`s3`] downloads with a
//! signed request.

pub mod ecr;
pub mod registry_secret;
pub mod s3;
pub mod secrets_manager;
pub mod ssm;
