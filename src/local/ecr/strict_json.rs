//! JSON in which no object has a member twice. Invariant: nothing that a person wrote into a policy is dropped silently.

use super::names::shortened;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use std::fmt;

/// A value that was read strictly.
struct Strict(Value);

/// Reads a text.
///
/// # Errors
/// What is wrong, and where.
pub(crate) fn read(text: &str) -> Result<Value, String> {
    match parse(text) {
        Ok(value) => Ok(value),
        Err(error) if error.is_data() => Err(error.to_string()),
        Err(error) => Err(format!("the document is not JSON: line {}, column {}", error.line(), error.column())),
    }
}

/// Reads a text, and leaves the words to the caller.
///
/// # Errors
/// As a text that is shown to people if the error is one of the data, that is, of a member that occurs twice.
pub(crate) fn parse(text: &str) -> Result<Value, serde_json::Error> {
    serde_json::from_str::<Strict>(text).map(|Strict(value)| value)
}

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Strict;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Strict, E> {
        Ok(Strict(Value::Null))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Strict, E> {
        Ok(Strict(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Strict, E> {
        Ok(Strict(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Strict, E> {
        Ok(Strict(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Strict, E> {
        Ok(Strict(value.into()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Strict, E> {
        Ok(Strict(value.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Strict, A::Error> {
        let mut values = Vec::new();
        while let Some(Strict(value)) = list.next_element()? {
            values.push(value);
        }
        Ok(Strict(values.into()))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Strict, A::Error> {
        let mut members = Map::new();
        while let Some(name) = object.next_key::<String>()? {
            // Before the value: the error shows the place.
            if members.contains_key(&name) {
                return Err(A::Error::custom(format!("`{}` occurs twice in an object", shortened(&name, 100))));
            }
            let Strict(value) = object.next_value()?;
            members.insert(name, value);
        }
        Ok(Strict(members.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn json_is_read_as_it_is() {
        let document = json!({"a": [1, -2, 2.5, "x", null, true], "b": {"a": {}}});
        assert_eq!(read(&document.to_string()), Ok(document));
        assert_eq!(read("\"\\u00e4\""), Ok(json!("ä")));
    }

    #[test]
    fn a_member_that_occurs_twice_is_named() {
        let error = read("{\"a\": {\"Effect\": \"Deny\", \"Effect\": \"Allow\"}}").unwrap_err();
        assert!(error.starts_with("`Effect` occurs twice in an object at line 1"), "{error}");
        assert_eq!(read("{\"a\": [}"), Err("the document is not JSON: line 1, column 8".to_owned()));
    }
}
