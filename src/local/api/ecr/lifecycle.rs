//! Calls about lifecycle policies and their previews.

use super::call::{Call, Filter, Paging, Target, required, text, with};
use super::identifiers;
use crate::api::request::Answer;
use crate::api_error::ApiError;
use crate::ecr::error::EcrError;
use crate::ecr::lifecycle::{LifecyclePolicy, Preview, PreviewEntry};
use crate::ecr::{Action, Ecr, Principal};
use crate::shared::Shared;
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::task::spawn_blocking;

/// Maximum number of images of a page.
const MAX_PAGE: usize = 100;

/// PutLifecyclePolicy.
pub(super) fn put(call: &mut Call<'_>) -> Answer {
    let target = call.target(Action::PUT_LIFECYCLE_POLICY)?;
    let policy = LifecyclePolicy::read(required(call.body, "lifecyclePolicyText")?)?;
    let shown = with(target.show(), json!({"lifecyclePolicyText": policy.text}));
    call.state.ecr.repository_mut(&target.account, &target.name)?.lifecycle = Some(policy);
    Ok(shown)
}

/// GetLifecyclePolicy.
pub(super) fn get(call: &mut Call<'_>) -> Answer {
    let target = call.target(Action::GET_LIFECYCLE_POLICY)?;
    let policy = current(&call.state.ecr, &target)?;
    Ok(show(&target, &policy))
}

/// DeleteLifecyclePolicy.
pub(super) fn delete(call: &mut Call<'_>) -> Answer {
    let target = call.target(Action::DELETE_LIFECYCLE_POLICY)?;
    let policy = current(&call.state.ecr, &target)?;
    call.state.ecr.repository_mut(&target.account, &target.name)?.lifecycle = None;
    Ok(show(&target, &policy))
}

/// StartLifecyclePolicyPreview. The preview is made at once; ECR says so only in the next answer.
pub(super) fn start_preview(call: &mut Call<'_>) -> Answer {
    let (target, policy) = wanted_preview(call)?;
    let preview = call.state.ecr.preview(&target.account, &target.name, &policy, call.now)?;
    keep_preview(&mut call.state.ecr, &target, preview)
}

/// [`start_preview`], with the rules evaluated on a thread of their own and without a lock: that may take long.
pub(super) async fn start_preview_elsewhere(shared: &Shared, caller: &Principal, body: &Value) -> Answer {
    let (target, policy, repository, now) = shared.change(|state| {
        let now = state.ecr_time();
        let (target, policy) = wanted_preview(&mut Call { state, caller, body, now })?;
        let repository = state.ecr.shared_repository(&target.account, &target.name)?;
        Ok::<_, ApiError>((target, policy, repository, now))
    })?;
    let made = spawn_blocking(move || repository.preview_of(&policy, now)).await;
    let preview = made.map_err(|_| ApiError::new(500, "ServerException", "The preview could not be made."))?;
    shared.change(|state| keep_preview(&mut state.ecr, &target, preview))
}

/// The repository of which a preview is wanted, and the policy for it.
fn wanted_preview(call: &mut Call<'_>) -> Result<(Target, LifecyclePolicy), ApiError> {
    let target = call.target(Action::START_LIFECYCLE_POLICY_PREVIEW)?;
    let policy = match text(call.body, "lifecyclePolicyText")? {
        Some(text) => LifecyclePolicy::read(text)?,
        None => current(&call.state.ecr, &target)?,
    };
    Ok((target, policy))
}

/// Keeps a preview, which a restart may lose. Returns the answer.
fn keep_preview(ecr: &mut Ecr, target: &Target, preview: Preview) -> Answer {
    let text = Arc::clone(&preview.text);
    ecr.note_preview(&target.account, &target.name, preview)?;
    Ok(with(target.show(), json!({"lifecyclePolicyText": text, "status": "IN_PROGRESS"})))
}

/// GetLifecyclePolicyPreview.
pub(super) fn get_preview(call: &mut Call<'_>) -> Answer {
    let target = call.target(Action::GET_LIFECYCLE_POLICY_PREVIEW)?;
    let wanted = identifiers::read_optional(call.body)?;
    if wanted.is_some() {
        Paging::refuse(call.body, "imageIds")?;
    }
    let (paging, filter) = (Paging::read(call.body, MAX_PAGE, MAX_PAGE)?, Filter::read(call.body)?);
    let Some(preview) = call.state.ecr.repository(&target.account, &target.name)?.preview.clone() else {
        let Target { account, name } = &target;
        let message = format!(
            "Lifecycle policy preview does not exist for the repository with name '{name}' in the registry with id '{account}'"
        );
        return Err(EcrError::other("LifecyclePolicyPreviewNotFoundException", message).into());
    };
    let status = preview.status(call.now);
    let is_wanted = |entry: &PreviewEntry| {
        let names_it =
            |wanted: &Vec<identifiers::ImageId>| wanted.iter().any(|id| id.names(&entry.digest, &entry.tags));
        status == "COMPLETE" && filter.passes(!entry.tags.is_empty()) && wanted.as_ref().is_none_or(names_it)
    };
    // The entries are ordered by time; their number is a key that rises.
    let begin = paging.after().and_then(|key| key.parse::<usize>().ok()).map_or(0, |at| at.saturating_add(1));
    let entries = preview.entries.iter().enumerate().skip(begin).filter(|(_, entry)| is_wanted(entry));
    let (page, token) = paging.page(entries.map(|(at, entry)| (format!("{at:09}"), show_entry(entry))));
    let total = if status == "COMPLETE" { preview.entries.len() } else { 0 };
    let answer = json!({
        "lifecyclePolicyText": preview.text,
        "status": status,
        "nextToken": token,
        "previewResults": page,
        "summary": {"expiringImageTotalCount": total},
    });
    Ok(with(target.show(), answer))
}

fn show_entry(entry: &PreviewEntry) -> Value {
    json!({
        "imageTags": entry.tags,
        "imageDigest": entry.digest,
        "imagePushedAt": entry.pushed_at,
        "action": {"type": "EXPIRE"},
        "appliedRulePriority": entry.priority,
        "storageClass": "STANDARD",
    })
}

fn current(ecr: &Ecr, target: &Target) -> Result<LifecyclePolicy, EcrError> {
    let Target { account, name } = target;
    ecr.repository(account, name)?.lifecycle.clone().ok_or_else(|| {
        let message = format!(
            "Lifecycle policy does not exist for the repository with name '{name}' in the registry with id '{account}'"
        );
        EcrError::other("LifecyclePolicyNotFoundException", message)
    })
}

fn show(target: &Target, policy: &LifecyclePolicy) -> Value {
    let evaluated_at = policy.evaluated_at.unwrap_or(0.0);
    with(target.show(), json!({"lifecyclePolicyText": policy.text, "lastEvaluatedAt": evaluated_at}))
}
