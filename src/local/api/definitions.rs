//! Calls about task definitions. This module owns revisions: their numbers only rise, and an inactive revision stays readable.
//! [`crate::definition`] checks definitions. Invariant: a revision never changes after it was registered.

use super::request::{Answer, required};
use crate::api_error::ApiError;
use crate::definition::{self, required_attributes, without_nulls};
use crate::state::{Definition, MAX_DEFINITIONS, State};
use crate::time::now;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// RegisterTaskDefinition.
pub(super) fn register(state: &mut State, body: &Value) -> Answer {
    let mut spec = definition::checked(body).map_err(ApiError::client)?;
    // Stored in units and MiB, whatever the client wrote (API reference, RegisterTaskDefinition).
    spec.cpu = spec.cpu_limit().map(|units| units.to_string());
    spec.memory = spec.memory_limit().map(|mib| mib.to_string());
    if state.definitions.len() >= MAX_DEFINITIONS {
        let inactive = state.definitions.iter().position(|definition| definition.deregistered_at.is_some());
        let index =
            inactive.ok_or_else(|| ApiError::client(format!("{MAX_DEFINITIONS} task definitions exist already.")))?;
        state.definitions.remove(index);
    }
    let revision = state.revisions.entry(spec.family.clone()).or_insert(0);
    *revision += 1;
    let revision = *revision;
    let arn = state.site.arn(&format!("task-definition/{}:{revision}", spec.family));
    let required = required_attributes(&spec, |image| state.site.is_ecr(image));
    let tags = spec.tags.clone();
    let definition =
        Definition { spec, arn: arn.clone(), revision, required, registered_at: now(), deregistered_at: None };
    let shown = show(state, &definition);
    state.definitions.push(definition);
    if !tags.is_empty() {
        state.tags.insert(arn, tags.clone());
    }
    Ok(json!({"taskDefinition": shown, "tags": tags}))
}

/// DeregisterTaskDefinition.
pub(super) fn deregister(state: &mut State, body: &Value) -> Answer {
    let name = required(body, "taskDefinition")?;
    if !name.rsplit('/').next().unwrap_or(name).contains(':') {
        return Err(ApiError::client(format!("Invalid revision number: name one, as in {name}:1.")));
    }
    let arn = state.definition(name).map(|definition| definition.arn.clone()).ok_or_else(unknown)?;
    let found = state.definitions.iter_mut().find(|definition| definition.arn == arn).ok_or_else(unknown)?;
    found.deregistered_at.get_or_insert_with(now);
    let shown = found.clone();
    Ok(json!({"taskDefinition": show(state, &shown)}))
}

/// DescribeTaskDefinition.
pub(super) fn describe(state: &State, body: &Value) -> Answer {
    let definition = state.definition(required(body, "taskDefinition")?).ok_or_else(unknown)?;
    let tags = state.tags.get(&definition.arn).cloned().unwrap_or_default();
    Ok(json!({"taskDefinition": show(state, definition), "tags": tags}))
}

/// ListTaskDefinitions, by family prefix and status.
pub(super) fn list(state: &State, body: &Value) -> Answer {
    let family = body["familyPrefix"].as_str();
    let inactive = body["status"] == "INACTIVE";
    let mut found: Vec<_> = state
        .definitions
        .iter()
        .filter(|d| d.deregistered_at.is_some() == inactive && family.is_none_or(|family| d.spec.family == family))
        .collect();
    found.sort_by(|a, b| (&a.spec.family, a.revision).cmp(&(&b.spec.family, b.revision)));
    if body["sort"] == "DESC" {
        found.reverse();
    }
    Ok(json!({"taskDefinitionArns": found.iter().map(|d| &d.arn).collect::<Vec<_>>()}))
}

/// ListTaskDefinitionFamilies, by prefix and status.
pub(super) fn families(state: &State, body: &Value) -> Answer {
    let prefix = body["familyPrefix"].as_str().unwrap_or_default();
    let active: BTreeSet<_> =
        state.definitions.iter().filter(|d| d.deregistered_at.is_none()).map(|d| d.spec.family.as_str()).collect();
    let matches = |family: &&str| match body["status"].as_str() {
        Some("ACTIVE") => active.contains(family),
        Some("INACTIVE") => !active.contains(family),
        _ => true,
    };
    let all: BTreeSet<_> = state.definitions.iter().map(|d| d.spec.family.as_str()).collect();
    let found: Vec<_> = all.into_iter().filter(|family| family.starts_with(prefix)).filter(matches).collect();
    Ok(json!({"families": found}))
}

fn unknown() -> ApiError {
    ApiError::client("Unable to describe task definition.")
}

fn show(state: &State, definition: &Definition) -> Value {
    let mut shown = serde_json::to_value(&definition.spec).unwrap_or_default();
    let own = json!({
        "taskDefinitionArn": definition.arn,
        "revision": definition.revision,
        "status": if definition.deregistered_at.is_some() { "INACTIVE" } else { "ACTIVE" },
        "requiresAttributes": definition.required.iter().map(|name| json!({"name": name})).collect::<Vec<_>>(),
        "compatibilities": ["EXTERNAL", "EC2"],
        "registeredAt": definition.registered_at,
        "deregisteredAt": definition.deregistered_at,
        "registeredBy": format!("arn:aws:iam::{}:root", state.site.account),
    });
    if let (Value::Object(shown), Value::Object(own)) = (&mut shown, own) {
        shown.extend(own);
    }
    without_nulls(shown)
}
