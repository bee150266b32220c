//! The API of ECR: one function from state, caller, operation and request to an answer or an error, without sockets. This module
//! owns the list of operations; each group of operations has a file of its own. Invariants: every call checks its permission
//! before it looks at anything; a call that fails changes nothing that a later call can see, but the log of actions.

mod call;
mod identifiers;
mod images;
mod layers;
mod lifecycle;
mod policies;
mod registry;
mod repositories;
mod tags;
#[cfg(test)]
mod tests;
mod token;
mod uploads;

use super::request::Answer;
use crate::api_error::ApiError;
use crate::ecr::Principal;
use crate::options::Options;
use crate::shared::Shared;
use crate::state::State;
use call::Call;
use serde_json::Value;
use std::sync::Arc;

/// The operations of [`answer`]. Some of [`wait`] come in addition.
const OPERATIONS: [&str; 28] = [
    "BatchCheckLayerAvailability",
    "BatchDeleteImage",
    "BatchGetImage",
    "CreatePullThroughCacheRule",
    "CreateRepository",
    "DeleteLifecyclePolicy",
    "DeletePullThroughCacheRule",
    "DeleteRepository",
    "DeleteRepositoryPolicy",
    "DescribeImages",
    "DescribePullThroughCacheRules",
    "DescribeRegistry",
    "DescribeRepositories",
    "GetAuthorizationToken",
    "GetDownloadUrlForLayer",
    "GetLifecyclePolicy",
    "GetLifecyclePolicyPreview",
    "GetRepositoryPolicy",
    "ListImages",
    "ListTagsForResource",
    "PutImage",
    "PutImageScanningConfiguration",
    "PutImageTagMutability",
    "PutLifecyclePolicy",
    "SetRepositoryPolicy",
    "StartLifecyclePolicyPreview",
    "TagResource",
    "UntagResource",
];

/// Answers one call of ECR.
pub(super) fn answer(
    state: &mut State,
    options: &Options,
    caller: &Principal,
    operation: &str,
    body: &Value,
) -> Answer {
    let now = state.ecr_time();
    let call = &mut Call { state, caller, body, now };
    match operation {
        "BatchCheckLayerAvailability" => layers::check(call),
        "BatchDeleteImage" => images::batch_delete(call),
        "BatchGetImage" => images::batch_get(call),
        "CreatePullThroughCacheRule" => registry::create_rule(call),
        "CreateRepository" => repositories::create(call),
        "DeleteLifecyclePolicy" => lifecycle::delete(call),
        "DeletePullThroughCacheRule" => registry::delete_rule(call),
        "DeleteRepository" => repositories::delete(call),
        "DeleteRepositoryPolicy" => policies::delete(call),
        "DescribeImages" => images::describe(call),
        "DescribePullThroughCacheRules" => registry::describe_rules(call),
        "DescribeRegistry" => registry::describe(call),
        "DescribeRepositories" => repositories::describe(call),
        "GetAuthorizationToken" => token::get(call, options),
        "GetDownloadUrlForLayer" => layers::download_url(call),
        "GetLifecyclePolicy" => lifecycle::get(call),
        "GetLifecyclePolicyPreview" => lifecycle::get_preview(call),
        "GetRepositoryPolicy" => policies::get(call),
        "ListImages" => images::list(call),
        "ListTagsForResource" => tags::list(call),
        "PutImage" => images::put(call),
        "PutImageScanningConfiguration" => repositories::put_scanning(call),
        "PutImageTagMutability" => repositories::put_mutability(call),
        "PutLifecyclePolicy" => lifecycle::put(call),
        "SetRepositoryPolicy" => policies::set(call),
        "StartLifecyclePolicyPreview" => lifecycle::start_preview(call),
        "TagResource" => tags::tag(call),
        "UntagResource" => tags::untag(call),
        other => {
            let mut known = [&OPERATIONS[..], &uploads::OPERATIONS].concat();
            known.sort_unstable();
            known.dedup();
            Err(ApiError::unsupported("UnknownOperationException", other, "ECR", &known))
        }
    }
}

/// The operation is one of [`wait`].
pub(super) fn waits(operation: &str) -> bool {
    uploads::OPERATIONS.contains(&operation)
}

/// Answers one call that waits for something other than the lock of the state.
pub(super) async fn wait(shared: &Arc<Shared>, caller: &Principal, operation: &str, body: &Value) -> Answer {
    uploads::answer(shared, caller, operation, body).await
}
