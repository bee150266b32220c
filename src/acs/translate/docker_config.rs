//! `dockerConfig`: two JSON objects of the Docker API, as texts.
//!
//! Owns their parsing, for the few members that the agent needs. The texts are passed to the engine unchanged.

use crate::input::json;
use serde_json::{Map, Value};

/// The object in `text`; an empty text and `null` are an empty object. `what` names the member in errors.
pub(super) fn json_object(text: &str, what: &str) -> Result<Map<String, Value>, String> {
    if text.trim().is_empty() {
        return Ok(Map::new());
    }
    match json::parse(text) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(Value::Null) => Ok(Map::new()),
        Ok(_) | Err(_) => Err(format!("dockerConfig.{what} is not a JSON object")),
    }
}

/// The memory reservation in MiB; 0: none.
pub(super) fn memory_reservation(host_config: &Map<String, Value>) -> u32 {
    let bytes = json::member(host_config, "MemoryReservation").and_then(Value::as_u64).unwrap_or(0);
    u32::try_from(bytes / (1024 * 1024)).unwrap_or(u32::MAX)
}
