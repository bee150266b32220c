//! Calls of the ECS API and the meaning of their errors (spec `registration.md` §5, `ecs-api.md` §3, §6).
//!
//! Owns registration, the discovery of poll endpoints, state-change reports, tags and draining: the requests, their limits, and the
//! meaning of errors. It does not decide when to report (the core does) or how the process continues after a failed
//! registration (the caller does). The invariant: every call ends within the timeouts of [`crate::aws::client::sdk`].
//!
//! Reading order: [`register`], [`attributes`], [`endpoint`], [`report`], [`tags`], [`drain`], and `body_edit` (fields that the SDK
//! lacks).

pub mod attributes;
mod body_edit;
pub mod drain;
pub mod endpoint;
pub mod register;
pub mod report;
pub mod tags;

use crate::aws::client::words::without_code;
use aws_sdk_ecs::error::{ProvideErrorMetadata, SdkError};
use ecs_core::model::text::cleaned;

/// The error of a failed call as one clean line of bounded length: code and message of ECS, or otherwise what happened,
/// in words.
fn text_of<E>(error: &SdkError<E>) -> String
where
    SdkError<E>: ProvideErrorMetadata,
    E: std::error::Error + 'static,
{
    match error.code() {
        Some(code) => cleaned(&format!("{code}: {}", error.message().unwrap_or_default())),
        None => without_code(error, "ECS"),
    }
}
