//! Helpers for all calls: members of requests, and the type of answers.

use crate::api_error::ApiError;
use crate::state::State;
use serde_json::{Value, json};

/// The outcome of a call.
pub(crate) type Answer = Result<Value, ApiError>;

/// The name of the active cluster that a request names by name or ARN; without a name: `default`.
pub(super) fn cluster_of(state: &State, body: &Value) -> Result<String, ApiError> {
    let name = body["cluster"].as_str().filter(|name| !name.is_empty()).unwrap_or("default");
    let name = name.rsplit('/').next().unwrap_or(name);
    match state.clusters.get(name) {
        Some(&"ACTIVE") => Ok(name.to_owned()),
        _ => Err(ApiError::no_cluster()),
    }
}

/// The texts in a list member of a request.
pub(super) fn names<'a>(body: &'a Value, member: &str) -> impl Iterator<Item = &'a str> {
    body[member].as_array().into_iter().flatten().filter_map(Value::as_str)
}

/// A required text member of a request.
pub(super) fn required<'a>(body: &'a Value, member: &str) -> Result<&'a str, ApiError> {
    let text = body[member].as_str().filter(|text| !text.is_empty());
    text.ok_or_else(|| ApiError::invalid(format!("{member} cannot be blank.")))
}

/// The entry in `failures` for a missing resource.
pub(super) fn missing(arn: &str) -> Value {
    json!({"arn": arn, "reason": "MISSING"})
}
