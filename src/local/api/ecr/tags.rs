//! Calls about the tags of a repository as an AWS resource.

use super::call::{Call, required, texts, wrong_form};
use crate::api::request::Answer;
use crate::ecr::Action;
use crate::ecr::error::EcrError;
use crate::ecr::names::check_repository;
use crate::ecr::settings::{MAX_RESOURCE_TAGS, check_resource_tags};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Maximum number of tags or keys in a request.
const MAX_TAGS: usize = 200;

/// TagResource.
pub(super) fn tag(call: &mut Call<'_>) -> Answer {
    let (account, name) = resource(call, Action::TAG_RESOURCE)?;
    if call.body["tags"].is_null() {
        return Err(EcrError::invalid("tags", "Member must not be null").into());
    }
    let mut tags = call.state.ecr.repository(&account, &name)?.resource_tags.clone();
    tags.extend(read_tags(&call.body["tags"])?);
    check_resource_tags(&tags)?;
    call.state.ecr.repository_mut(&account, &name)?.resource_tags = tags;
    Ok(json!({}))
}

/// UntagResource.
pub(super) fn untag(call: &mut Call<'_>) -> Answer {
    let (account, name) = resource(call, Action::UNTAG_RESOURCE)?;
    let keys = texts(call.body, "tagKeys", MAX_TAGS)?;
    if keys.is_empty() {
        return Err(EcrError::invalid("tagKeys", "Member must not be null").into());
    }
    let repository = call.state.ecr.repository_mut(&account, &name)?;
    keys.iter().for_each(|key| drop(repository.resource_tags.remove(*key)));
    Ok(json!({}))
}

/// ListTagsForResource.
pub(super) fn list(call: &mut Call<'_>) -> Answer {
    let (account, name) = resource(call, Action::LIST_TAGS_FOR_RESOURCE)?;
    let tags = &call.state.ecr.repository(&account, &name)?.resource_tags;
    Ok(json!({"tags": tags.iter().map(|(key, value)| json!({"Key": key, "Value": value})).collect::<Vec<_>>()}))
}

/// The account and the name of the repository with the ARN `resourceArn`, on which the caller may perform the action.
fn resource(call: &mut Call<'_>, action: Action) -> Result<(String, String), EcrError> {
    let arn = required(call.body, "resourceArn")?;
    let invalid = || EcrError::invalid("resourceArn", "Invalid ARN");
    let (prefix, name) = arn.split_once(":repository/").ok_or_else(invalid)?;
    let account = prefix.rsplit(':').next().unwrap_or_default().to_owned();
    check_repository(name).map_err(|_| invalid())?;
    if arn != call.state.ecr.arn(&account, name) {
        return Err(invalid());
    }
    call.state.authorize_ecr(call.caller, action, &account, name)?;
    Ok((account, name.to_owned()))
}

/// Reads a list of tags.
pub(super) fn read_tags(tags: &Value) -> Result<BTreeMap<String, String>, EcrError> {
    let list = match tags {
        Value::Null => return Ok(BTreeMap::new()),
        Value::Array(list) => list,
        _ => return Err(wrong_form("tags", "an array of tags")),
    };
    if list.len() > MAX_TAGS {
        let message = format!("A repository has at most {MAX_RESOURCE_TAGS} tags");
        return Err(EcrError::other("TooManyTagsException", message));
    }
    let mut read = BTreeMap::new();
    for tag in list {
        let (Some(key), Some(value)) = (tag["Key"].as_str(), tag["Value"].as_str()) else {
            return Err(EcrError::other("InvalidTagParameterException", "A tag has a Key and a Value"));
        };
        if read.insert(key.to_owned(), value.to_owned()).is_some() {
            return Err(EcrError::other("InvalidTagParameterException", "A key occurs in two tags"));
        }
    }
    check_resource_tags(&read)?;
    Ok(read)
}
