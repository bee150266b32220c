//! Lays the payload's raw Docker settings over what the model says (spec `docker-mapping.md` §3).
//!
//! Owns the rules of Go's `json.Unmarshal` onto a filled structure, as far as they can be seen from outside: keys in any case,
//! unknown keys ignored, `null` clears lists and maps only. It knows no Docker field by name except the five that may be a text
//! instead of a list. Invariant: an error text names kinds of values, never a value, since settings may carry tokens.

use serde::de::value::{MapDeserializer, SeqDeserializer};
use serde::de::{DeserializeOwned, Deserializer, Expected, IntoDeserializer, Unexpected, Visitor};
use serde::{Serialize, forward_to_deserialize_any};
use serde_json::{Map, Value};
use std::fmt;

/// Docker takes a text for these lists, as its command line does.
const TEXT_OR_LIST: [&str; 5] = ["Cmd", "Entrypoint", "Shell", "CapAdd", "CapDrop"];

/// Why settings could not be decoded. Holds no value of them.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct DecodeError(String);

/// Lays `settings` (a JSON object of type `T`) over `base`, whose keys are already spelled as `T` spells them.
pub(super) fn overlay<T>(base: &mut Map<String, Value>, settings: &str) -> Result<(), DecodeError>
where
    T: DeserializeOwned + Serialize,
{
    if settings.trim().is_empty() {
        return Ok(());
    }
    let given: Value = serde_json::from_str(settings).map_err(|error| DecodeError(error.to_string()))?;
    let given = match given {
        Value::Object(given) => given,
        Value::Null => return Ok(()),
        other => return Err(mismatch(kind_of(&other), "an object")),
    };
    clear_nulls(base, &given);
    let canonical = canonical::<T>(given)?;
    for (key, value) in canonical {
        match (base.get_mut(&key), value) {
            (Some(Value::Object(there)), Value::Object(more)) => there.extend(more),
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
        base.retain(|there, value| !(there.eq_ignore_ascii_case(key) && (value.is_array() || value.is_object())));
    }
}

/// The settings as `T` prints them: known keys only, spelled right, without nulls.
fn canonical<T: DeserializeOwned + Serialize>(
    mut given: Map<String, Value>,
) -> Result<Map<String, Value>, DecodeError> {
    for (key, value) in &mut given {
        if value.is_string() && TEXT_OR_LIST.iter().any(|name| name.eq_ignore_ascii_case(key)) {
            *value = Value::Array(vec![value.take()]);
        }
    }
    let given_keys: Vec<String> = given.keys().cloned().collect();
    let typed = T::deserialize(Loose(Value::Object(given)))?;
    match serde_json::to_value(typed) {
        Ok(Value::Object(mut map)) => {
            // A type may print members that were never given (an empty map for "none"); those say nothing.
            map.retain(|key, _| given_keys.iter().any(|given| given.eq_ignore_ascii_case(key)));
            Ok(map)
        }
        Ok(other) => Err(mismatch(kind_of(&other), "an object")),
        Err(error) => Err(DecodeError(error.to_string())),
    }
}

/// A JSON value that is decoded as Go does: struct members are found in any case, and `null` members are not there.
struct Loose(Value);

impl<'de> IntoDeserializer<'de, DecodeError> for Loose {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'de> Deserializer<'de> for Loose {
    type Error = DecodeError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match self.0 {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(value),
            Value::Number(number) => match (number.as_u64(), number.as_i64(), number.as_f64()) {
                (Some(value), ..) => visitor.visit_u64(value),
                (None, Some(value), _) => visitor.visit_i64(value),
                (None, None, value) => visitor.visit_f64(value.unwrap_or_default()),
            },
            Value::String(text) => visitor.visit_string(text),
            Value::Array(items) => visitor.visit_seq(SeqDeserializer::new(items.into_iter().map(Loose))),
            Value::Object(map) => visitor.visit_map(MapDeserializer::new(map.into_iter().map(|(k, v)| (k, Loose(v))))),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        if self.0.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, DecodeError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        match self.0 {
            Value::String(text) => text.into_deserializer().deserialize_enum(name, variants, visitor),
            other => Err(mismatch(kind_of(&other), "a string")),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        let Value::Object(map) = self.0 else { return Err(mismatch(kind_of(&self.0), "an object")) };
        let mut known: Map<String, Value> = Map::new();
        for (key, value) in map {
            let Some(field) = fields.iter().find(|field| field.eq_ignore_ascii_case(&key)) else { continue };
            // Of two spellings the exact one counts.
            if !value.is_null() && (key == **field || !known.contains_key(*field)) {
                known.insert((*field).to_owned(), value);
            }
        }
        visitor.visit_map(MapDeserializer::new(known.into_iter().map(|(key, value)| (key, Loose(value)))))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map identifier ignored_any
    }
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn mismatch(kind: &str, wanted: &str) -> DecodeError {
    DecodeError(format!("json: cannot unmarshal {kind}, {wanted} is expected"))
}

impl serde::de::Error for DecodeError {
    fn custom<T: fmt::Display>(text: T) -> Self {
        Self(text.to_string())
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let kind = match found {
            Unexpected::Bool(_) => "bool",
            Unexpected::Unsigned(_) | Unexpected::Signed(_) | Unexpected::Float(_) => "number",
            Unexpected::Str(_) | Unexpected::Char(_) | Unexpected::Bytes(_) => "string",
            Unexpected::Seq => "array",
            Unexpected::Map => "object",
            _ => "null",
        };
        mismatch(kind, &expected.to_string())
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::invalid_type(found, expected)
    }

    fn unknown_variant(_: &str, expected: &'static [&'static str]) -> Self {
        Self(format!("json: unknown value, one of {expected:?} is expected"))
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for DecodeError {}

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
    fn errors_name_kinds_and_never_values() {
        let table = [
            (r#"{"Memory": "hunter2"}"#, "cannot unmarshal string"),
            (r#"{"Binds": "hunter2"}"#, "cannot unmarshal string"),
            (r#"{"LogConfig": {"Config": {"token": 4711}}}"#, "cannot unmarshal number"),
            (r#"{"LogConfig": "hunter2"}"#, "cannot unmarshal string"),
            (r#"{"CgroupnsMode": "hunter2"}"#, "unknown value"),
            (r#"["hunter2"]"#, "cannot unmarshal array"),
            (r#"{"Memory": "#, "EOF"),
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
