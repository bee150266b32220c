//! Merges the payload's raw Docker settings over the settings made from the model (spec `docker-mapping.md` §3).
//!
//! Owns those visible rules of Go's `json.Unmarshal` into a filled structure that [`json`] does not cover: `null` clears lists
//! and maps only, and a `null` in a list of objects is left out, since the engine would read it as a nil pointer. This module
//! knows no Docker field by name except the five that may be a text instead of a list. Invariant: an error text names kinds of
//! values, never a value, since settings may contain tokens.

use crate::input::json::{self, DecodeError};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// For these lists Docker also accepts a single text.
const TEXT_OR_LIST: [&str; 5] = ["Cmd", "Entrypoint", "Shell", "CapAdd", "CapDrop"];

/// Merges `settings` (a JSON object of type `T`) into `base`, whose keys are spelled as `T` spells them.
pub(crate) fn overlay<T>(base: &mut Map<String, Value>, settings: &str) -> Result<(), DecodeError>
where
    T: DeserializeOwned + Serialize,
{
    if settings.trim().is_empty() {
        return Ok(());
    }
    let given = json::parse(settings)?;
    let given = match given {
        Value::Object(given) => given,
        Value::Null => return Ok(()),
        other => return Err(DecodeError::kind(json::kind_of(&other), "an object")),
    };
    clear_nulls(base, &given);
    let canonical = canonical::<T>(given)?;
    for (key, value) in canonical {
        match (base.get_mut(&key), value) {
            (Some(Value::Object(existing)), Value::Object(more)) => existing.extend(more),
            (_, value) => {
                base.insert(key, value);
            }
        }
    }
    Ok(())
}

/// `null` empties a list or a map and does nothing to a scalar.
fn clear_nulls(base: &mut Map<String, Value>, given: &Map<String, Value>) {
    for (key, _) in given.iter().filter(|(_, value)| value.is_null()) {
        base.retain(|name, value| !(name.eq_ignore_ascii_case(key) && (value.is_array() || value.is_object())));
    }
}

/// The settings as `T` serializes them: only known keys, in their proper spelling, without nulls.
fn canonical<T: DeserializeOwned + Serialize>(
    mut given: Map<String, Value>,
) -> Result<Map<String, Value>, DecodeError> {
    for (key, value) in &mut given {
        if value.is_string() && TEXT_OR_LIST.iter().any(|name| name.eq_ignore_ascii_case(key)) {
            *value = Value::Array(vec![value.take()]);
        }
    }
    let given = Value::Object(given);
    let typed: T = json::decode(&given)?;
    match (serde_json::to_value(typed), given) {
        (Ok(Value::Object(mut map)), Value::Object(given)) => {
            // A type may serialize members that were not given (such as an empty map); these are dropped.
            map.retain(|key, _| given.keys().any(|given| given.eq_ignore_ascii_case(key)));
            map.iter_mut().for_each(|(key, value)| leave_out_nulls(value, json::member(&given, key)));
            Ok(map)
        }
        (Ok(other), _) => Err(DecodeError::kind(json::kind_of(&other), "an object")),
        (Err(error), _) => Err(DecodeError::other(&error)),
    }
}

/// Removes the members of a list of objects that were given as `null`.
fn leave_out_nulls(typed: &mut Value, given: Option<&Value>) {
    let (Value::Array(typed), Some(Value::Array(given))) = (typed, given) else { return };
    let mut given = given.iter();
    typed.retain(|item| !(given.next().is_some_and(Value::is_null) && item.is_object()));
}

#[cfg(test)]
mod tests {
    use super::*;
    use bollard::models::{ContainerConfig, HostConfig};
    use serde_json::json;

    fn host(base: Value, settings: &str) -> Result<Value, DecodeError> {
        let Value::Object(mut base) = base else { panic!("an object") };
        overlay::<HostConfig>(&mut base, settings)?;
        Ok(Value::Object(base))
    }

    #[test]
    fn each_rule_of_the_merge() {
        let table = [
            ("absent keeps", json!({"Memory": 5}), "{}", json!({"Memory": 5})),
            ("empty text keeps", json!({"Memory": 5}), "", json!({"Memory": 5})),
            ("null document keeps", json!({"Memory": 5}), "null", json!({"Memory": 5})),
            ("scalar replaces", json!({"Memory": 5}), r#"{"Memory": 6}"#, json!({"Memory": 6})),
            ("any case", json!({"Memory": 5}), r#"{"memory": 6}"#, json!({"Memory": 6})),
            ("exact case wins", json!({}), r#"{"memory": 6, "Memory": 7, "MEMORY": 8}"#, json!({"Memory": 7})),
            ("array replaces", json!({"Binds": ["a:b"]}), r#"{"binds": ["c:d"]}"#, json!({"Binds": ["c:d"]})),
            ("null clears a list", json!({"Binds": ["a:b"]}), r#"{"binds": null}"#, json!({})),
            ("null keeps a scalar", json!({"Memory": 5}), r#"{"Memory": null}"#, json!({"Memory": 5})),
            ("unknown is ignored", json!({}), r#"{"KernelMemory": "x", "Nonsense": 1}"#, json!({})),
            (
                "map entries are added",
                json!({"PortBindings": {"80/tcp": [{"HostPort": "80"}]}}),
                r#"{"PortBindings": {"81/tcp": [{"hostport": "81"}]}}"#,
                json!({"PortBindings": {"80/tcp": [{"HostPort": "80"}], "81/tcp": [{"HostPort": "81"}]}}),
            ),
            (
                "structs inside",
                json!({}),
                r#"{"logconfig": {"type": "json-file", "config": {"Max-Size": "1m"}}, "Init": true}"#,
                json!({"LogConfig": {"Type": "json-file", "Config": {"Max-Size": "1m"}}, "Init": true}),
            ),
            ("text for a list", json!({}), r#"{"CapAdd": "NET_ADMIN"}"#, json!({"CapAdd": ["NET_ADMIN"]})),
        ];
        for (name, base, settings, wanted) in table {
            assert_eq!(host(base, settings).unwrap(), wanted, "{name}");
        }
    }

    #[test]
    fn map_keys_keep_their_case_and_exposed_ports_are_added() {
        let mut base = Map::new();
        base.insert("ExposedPorts".into(), json!({"80/tcp": {}}));
        let settings = r#"{"labels": {"My": "1", "my": "2"}, "exposedports": {"81/udp": {}}, "cmd": "true"}"#;
        overlay::<ContainerConfig>(&mut base, settings).unwrap();
        let wanted = json!({
            "Labels": {"My": "1", "my": "2"}, "ExposedPorts": {"80/tcp": {}, "81/udp": {}}, "Cmd": ["true"],
        });
        assert_eq!(Value::Object(base), wanted);
    }

    #[test]
    fn null_inside_a_setting_is_not_set() {
        let table = [
            ("an option", r#"{"LogConfig": {"Config": {"tag": null}}}"#, json!({"LogConfig": {"Config": {"tag": ""}}})),
            ("a kernel setting", r#"{"Sysctls": {"a.b": null}}"#, json!({"Sysctls": {"a.b": ""}})),
            ("a text of a list", r#"{"Dns": ["1.1.1.1", null]}"#, json!({"Dns": ["1.1.1.1", ""]})),
            ("a member", r#"{"LogConfig": null, "Init": null, "Memory": null}"#, json!({})),
            (
                "an object of a list",
                r#"{"Ulimits": [null, {"Name": "core", "Soft": null}], "Devices": [null]}"#,
                json!({"Ulimits": [{"Name": "core"}], "Devices": []}),
            ),
            ("a rate", r#"{"blkioDeviceReadBps": [null]}"#, json!({"BlkioDeviceReadBps": []})),
            ("a port", r#"{"PortBindings": {"80/tcp": null}}"#, json!({"PortBindings": {"80/tcp": null}})),
        ];
        for (name, settings, wanted) in table {
            assert_eq!(host(json!({}), settings).unwrap(), wanted, "{name}");
        }
        let mut base = Map::new();
        let settings =
            r#"{"Labels": {"a": null}, "Env": [null], "Healthcheck": {"Test": ["CMD", null], "Interval": null}}"#;
        overlay::<ContainerConfig>(&mut base, settings).unwrap();
        let wanted = json!({"Labels": {"a": ""}, "Env": [""], "Healthcheck": {"Test": ["CMD", ""]}});
        assert_eq!(Value::Object(base), wanted);
    }

    #[test]
    fn settings_are_read_as_go_reads_them_and_beyond() {
        let odd = r#"{"Memory": 1e6, "ShmSize": 10.0, "Dns": ["\ud83d"], "Unknown": 1e999}"#;
        assert_eq!(host(json!({}), odd).unwrap(), json!({"Memory": 1_000_000, "ShmSize": 10, "Dns": ["\u{fffd}"]}));
        let deep = format!(r#"{{"Unknown": {}{}, "Memory": 5}}"#, "[".repeat(5_000), "]".repeat(5_000));
        assert_eq!(host(json!({}), &deep).unwrap(), json!({"Memory": 5}));
    }

    #[test]
    fn errors_name_kinds_and_never_values() {
        let table = [
            (r#"{"memory": "hunter2"}"#, "cannot unmarshal string into Memory, an integer is expected"),
            (r#"{"Binds": "hunter2"}"#, "cannot unmarshal string into Binds, an array is expected"),
            (r#"{"LogConfig": {"Config": {"token": 4711}}}"#, "cannot unmarshal number into LogConfig.Config.token"),
            (r#"{"LogConfig": "hunter2"}"#, "cannot unmarshal string into LogConfig, an object is expected"),
            (r#"{"Ulimits": [{"Name": "nofile", "soft": []}]}"#, "cannot unmarshal array into Ulimits[0].Soft"),
            (r#"{"CgroupnsMode": "hunter2"}"#, "unknown value of CgroupnsMode, one of "),
            (r#"["hunter2"]"#, "cannot unmarshal array into the document"),
            (r#"{"Memory": "#, "json: an early end at byte 11"),
        ];
        for (settings, text) in table {
            let error = host(json!({}), settings).unwrap_err().to_string();
            assert!(
                error.contains(text) && !error.contains("hunter2") && !error.contains("4711"),
                "{settings}: {error}"
            );
        }
    }

    proptest::proptest! {
        #[test]
        fn never_panics(settings in "[\\[\\]{}\":,a-zA-Z0-9 ]{0,60}") {
            let _ = host(json!({"Binds": ["a"]}), &settings);
        }
    }
}
