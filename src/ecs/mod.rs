//! Calls of the ECS API and the meaning of their errors (spec `registration.md`, `ecs-api.md`).
//!
//! Owns registration, poll endpoint discovery, state-change reports and draining: the request, its limits, and which error means what. It
//! does not decide when to report (the core does) nor how long the process lives after a failed registration (the caller does).
//! The invariant: every call ends, within the time-outs of [`crate::aws::sdk`].
//!
//! Reading order: [`register`], [`attributes`], [`endpoint`], [`report`], [`drain`].

pub mod attributes;
mod body_edit;
pub mod drain;
pub mod endpoint;
pub mod register;
pub mod report;
