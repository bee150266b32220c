//! Calls about tags. This module owns the map from ARN to tags. Invariant: at most [`MAX_TAGGED`] resources have tags.

use super::request::{Answer, names, required};
use crate::api_error::ApiError;
use crate::state::{MAX_TAGGED, State};
use serde_json::{Value, json};

/// ListTagsForResource.
pub(super) fn list(state: &State, body: &Value) -> Answer {
    let arn = required(body, "resourceArn")?;
    Ok(json!({"tags": state.tags.get(arn).cloned().unwrap_or_default()}))
}

/// TagResource.
pub(super) fn tag(state: &mut State, body: &Value) -> Answer {
    let arn = required(body, "resourceArn")?;
    if !state.tags.contains_key(arn) && state.tags.len() >= MAX_TAGGED {
        return Err(ApiError::client(format!("{MAX_TAGGED} resources have tags already.")));
    }
    let mut tags = state.tags.get(arn).cloned().unwrap_or_default();
    for new in body["tags"].as_array().into_iter().flatten() {
        tags.retain(|known| known["key"] != new["key"]);
        tags.push(new.clone());
    }
    super::labels::check_count(tags.len())?;
    state.tags.insert(arn.to_owned(), tags);
    Ok(json!({}))
}

/// UntagResource.
pub(super) fn untag(state: &mut State, body: &Value) -> Answer {
    let arn = required(body, "resourceArn")?;
    if let Some(tags) = state.tags.get_mut(arn) {
        tags.retain(|tag| !names(body, "tagKeys").any(|key| tag["key"] == key));
    }
    Ok(json!({}))
}
