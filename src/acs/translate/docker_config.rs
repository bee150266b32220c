//! `dockerConfig`: two JSON objects of the Docker API, as texts.
//!
//! Owns their parsing, for the few members that the agent needs. The texts are passed to the engine unchanged.

use crate::input::json;
use ecs_core::model::task::LogSettings;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

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

/// The log driver and its options. Options that are not texts are left out; the engine refuses them.
pub(super) fn log_settings(host_config: &Map<String, Value>) -> LogSettings {
    let Some(log) = json::member(host_config, "LogConfig").and_then(Value::as_object) else {
        return LogSettings::default();
    };
    let options = json::member(log, "Config").and_then(Value::as_object).into_iter().flatten();
    let options = options.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())));
    LogSettings {
        driver: json::member(log, "Type").and_then(Value::as_str).unwrap_or_default().to_owned(),
        options: options.collect::<BTreeMap<_, _>>().into(),
    }
}

/// The memory reservation in MiB; 0: none.
pub(super) fn memory_reservation(host_config: &Map<String, Value>) -> u32 {
    let bytes = json::member(host_config, "MemoryReservation").and_then(Value::as_u64).unwrap_or(0);
    u32::try_from(bytes / (1024 * 1024)).unwrap_or(u32::MAX)
}
