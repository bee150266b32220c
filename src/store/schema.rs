//! Form and version of the stored documents.
//!
//! Owns the way from any older form to today's. Adding a field with `#[serde(default)]` needs no new version. Anything else raises
//! [`CURRENT`], and the length of [`STEPS`] then asks for the step that turns the documents of the version before into newer ones.

use super::error::StoreError;
use super::file::Trouble;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// Version this build writes.
pub(super) const CURRENT: u32 = 2;

/// Turns one document (its name, its content) into the next version's form.
type Step = fn(&str, &mut Value);

/// The n-th leads from version n to n + 1.
const STEPS: [Step; CURRENT as usize] = [
    // No released build wrote version 0; its documents had the form of version 1.
    |_, _| {},
    pair_up,
];

/// Version 1 kept what was asked for and what is known of containers and resources in two lists each, side by side. If these differ in
/// length, the document is left without the list, so that it cannot be read. One that has pairs already stays as it is.
fn pair_up(_name: &str, document: &mut Value) {
    if !document.pointer("/spec/containers").is_some_and(Value::is_array) {
        return; // version 1 always wrote it; what is no task has no specification
    }
    for list in ["containers", "resources"] {
        let of_spec = document.pointer_mut(&format!("/spec/{list}")).map(Value::take);
        let specs = match of_spec {
            Some(Value::Array(specs)) => specs,
            // A task without resources did not write the list.
            _ => Vec::new(),
        };
        let states = match document.get_mut(list).map(Value::take) {
            Some(Value::Array(states)) => states,
            _ => Vec::new(),
        };
        if specs.len() != states.len() {
            return;
        }
        let pairs = specs.into_iter().zip(states);
        document[list] = pairs.map(|(spec, state)| json!({"spec": spec, "state": state})).collect();
    }
}

/// The version of what is on disk; a file without one is of the first kind.
pub(super) fn check(found: Option<u32>) -> Result<u32, StoreError> {
    match found {
        Some(found) if found > CURRENT => Err(StoreError::Newer { found, known: CURRENT }),
        Some(found) => Ok(found),
        None => Ok(CURRENT),
    }
}

/// Reads one document of that version; what is wrong with it is said without its content, which the customer may want kept.
pub(super) fn read<T: DeserializeOwned>(name: &str, bytes: &[u8], version: u32) -> Result<T, String> {
    upgraded(name, bytes, version, &STEPS).map_err(|cause| {
        format!("the document of {name} is malformed at line {} column {}", cause.line(), cause.column())
    })
}

fn upgraded<T: DeserializeOwned>(
    name: &str,
    bytes: &[u8],
    version: u32,
    steps: &[Step],
) -> Result<T, serde_json::Error> {
    let missing = steps.get(version as usize..).unwrap_or_default();
    if missing.is_empty() {
        return serde_json::from_slice(bytes);
    }
    let mut document = serde_json::from_slice(bytes)?;
    for step in missing {
        step(name, &mut document);
    }
    serde_json::from_value(document)
}

/// Writes one document.
pub(super) fn put(
    table: &mut redb::Table<'_, &'static str, &'static [u8]>,
    name: &str,
    document: &impl Serialize,
) -> Result<(), Trouble> {
    let bytes = serde_json::to_vec(document).map_err(|cause| redb::Error::Io(std::io::Error::other(cause)))?;
    table.insert(name, bytes.as_slice())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn lists_side_by_side_become_pairs_and_unequal_ones_no_task() {
        let paired = |mut document: Value| {
            pair_up("task", &mut document);
            document
        };
        let old = json!({"spec": {"arn": "a", "containers": [1, 2]}, "containers": [3, 4], "known": "Running"});
        let new = paired(old);
        assert_eq!(new["containers"], json!([{"spec": 1, "state": 3}, {"spec": 2, "state": 4}]));
        assert_eq!((&new["resources"], &new["known"]), (&json!([]), &json!("Running")));
        let host = json!({"seq": 1, "images": {}});
        assert_eq!(paired(host.clone()), host);
        assert_eq!(paired(new.clone())["containers"], new["containers"], "pairs stay");
        for odd in [
            json!({"spec": {"containers": [1]}, "containers": []}),
            json!({"spec": {"containers": 7}, "containers": [1]}),
        ] {
            assert!(serde_json::from_value::<crate::core::state::TaskState>(paired(odd)).is_err());
        }
    }

    #[test]
    fn an_older_document_takes_every_step_it_lacks() {
        let rename: Step = |_, document| {
            if let Some(value) = document.as_object_mut().and_then(|members| members.remove("old")) {
                document["new"] = value;
            }
        };
        let double: Step = |name, document| {
            if name == "host" {
                document["new"] = (document["new"].as_i64().unwrap() * 2).into();
            }
        };
        let read = |name, text: &str, version| {
            upgraded::<BTreeMap<String, i64>>(name, text.as_bytes(), version, &[rename, double]).unwrap()["new"]
        };
        assert_eq!(read("host", r#"{"old": 1}"#, 0), 2);
        assert_eq!(read("task", r#"{"old": 1}"#, 0), 1);
        assert_eq!(read("host", r#"{"new": 1}"#, 1), 2);
        assert_eq!(read("host", r#"{"new": 1}"#, 2), 1);
    }
}
