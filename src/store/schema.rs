//! The schema: the form of the stored documents, and its version.
//!
//! Owns the conversion of documents from any older version. It does not open the file. Adding a field with `#[serde(default)]`
//! needs no new version. Any other change increments [`CURRENT`]; then [`STEPS`] compiles only with a further step, which
//! converts documents of the previous version.
//!
//! From the first release on, an upgrade by one release can be undone: a release first reads both forms and writes the old
//! one, and only the next release writes the new one. So every release can read the documents of its successor. `tests/run
//! upgrade` tests this with running tasks. An operator who goes back further gets [`StoreError::Newer`], which names the
//! version to start.

use super::error::{StoreError, Writer};
use super::file::FileError;
use crate::version;
use ecs_core::model::text::cleaned;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// The version of the schema that this build writes.
pub(super) const CURRENT: u32 = 2;

/// Converts one document, given by its name and content, to the next version.
type Step = fn(&str, &mut Value);

/// The step at index n converts from version n to n + 1.
const STEPS: [Step; CURRENT as usize] = [
    // No released build wrote version 0; its documents had the form of version 1.
    |_, _| {},
    pair_up,
];

/// Converts from version 1, which had two lists of containers and two of resources: one with the specifications and one with the
/// states, in the same order. Version 2 has one list with pairs. If the lengths differ, the document loses the list, so that it
/// cannot be read. A document that already has pairs is not changed.
fn pair_up(_name: &str, document: &mut Value) {
    if !document.pointer("/spec/containers").is_some_and(Value::is_array) {
        return; // not a task, or not of version 1: a task of version 1 always has this list
    }
    for list in ["containers", "resources"] {
        let from_spec = document.pointer_mut(&format!("/spec/{list}")).map(Value::take);
        let specs = match from_spec {
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

/// Writes the documents `schema` (the version of the schema) and `writer` (the version of this agent). Their form never changes.
pub(super) fn put_version(meta: &mut redb::Table<'_, &'static str, &'static [u8]>) -> Result<(), FileError> {
    put(meta, "schema", &CURRENT)?;
    put(meta, "writer", &json!({"agent_version": version::OWN}))
}

/// The version of the agent that wrote a file, from its documents `writer` and `identity`; `None` if neither contains it. Old
/// files have no `writer`, so `identity` is the fallback.
pub(super) fn writer(writer: Option<&[u8]>, identity: Option<&[u8]>) -> Option<String> {
    let version = |bytes: Option<&[u8]>| {
        let document: Value = serde_json::from_slice(bytes?).ok()?;
        let version = cleaned(document.get("agent_version")?.as_str()?);
        (!version.is_empty()).then_some(version)
    };
    version(writer).or_else(|| version(identity))
}

/// The version of the documents in a file. `found` is the content of the document `schema`; `None`: the file is new, or this
/// document is damaged. Then the other documents are read as those of the current version.
pub(super) fn check(found: Option<u32>, writer: Option<String>) -> Result<u32, StoreError> {
    match found {
        Some(found) if found > CURRENT => {
            Err(StoreError::Newer { found, known: CURRENT, writer: Writer(writer), own: version::OWN })
        }
        Some(found) => Ok(found),
        None => Ok(CURRENT),
    }
}

/// Reads one document of this version. The error names the position and no content, which may be confidential.
pub(super) fn read<T: DeserializeOwned>(name: &str, bytes: &[u8], version: u32) -> Result<T, String> {
    upgraded(name, bytes, version, &STEPS).map_err(|cause| {
        format!("the document of {name} is malformed at line {} column {}", cause.line(), cause.column())
    })
}

/// Decodes a document after all steps that it lacks.
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
) -> Result<(), FileError> {
    let bytes = serde_json::to_vec(document).map_err(|cause| redb::Error::Io(std::io::Error::other(cause)))?;
    table.insert(name, bytes.as_slice())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn two_lists_become_pairs_unless_their_lengths_differ() {
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
            assert!(serde_json::from_value::<ecs_core::state::TaskState>(paired(odd)).is_err());
        }
    }

    #[test]
    fn the_version_that_wrote_a_file_is_found() {
        let table = [
            (Some(r#"{"agent_version":"2.0.0"}"#), Some(r#"{"agent_version":"1.0.0"}"#), Some("2.0.0")),
            (None, Some(r#"{"cluster":"c","agent_version":"1.0.0"}"#), Some("1.0.0")),
            (Some("{"), Some(r#"{"agent_version":"1.0.0"}"#), Some("1.0.0")),
            (Some(r#"{"agent_version":7}"#), Some(r#"{"agent_version":""}"#), None),
            (Some("{\"agent_version\":\"2\\n\\u001b[2J\"}"), None, Some("2 [2J")),
            (None, None, None),
        ];
        for (own, identity, expected) in table {
            let found = writer(own.map(str::as_bytes), identity.map(str::as_bytes));
            assert_eq!(found.as_deref(), expected, "{own:?} {identity:?}");
        }
        let error = check(Some(9), None).unwrap_err().to_string();
        assert!(error.contains("start the newer ecs-agent that ran here last again"), "{error}");
    }

    #[test]
    fn an_older_document_is_converted_by_each_step_it_lacks() {
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
