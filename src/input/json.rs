//! Decodes JSON as the Go agent does: members of a structure match in any case, `null` means "not set", unknown members are
//! ignored, and a structure must be an object. [`Raw`] and [`parse`] read the text.
//!
//! `null` becomes the zero value of its type: an empty text, list or object, 0, or false. Pure; it knows no member names.
//! Invariant: an error names a place and kinds of values, never a value, since messages of ECS and settings for Docker hold
//! secrets.

mod text;

use ecs_core::model::text::cut;
use serde::de::value::{MapDeserializer, SeqDeserializer};
use serde::de::{Deserialize, Deserializer, Expected, IntoDeserializer, Unexpected, Visitor};
use serde::forward_to_deserialize_any;
use serde_json::{Map, Value};
use std::fmt;
pub use text::{Items, MAX_DEPTH, MAX_VALUES, Members, Raw, TextError, parse};

/// The largest number of bytes shown of the place in an error, which may contain names of the customer.
const MAX_PLACE: usize = 200;

/// Decodes a value. A value that is `null` as a whole is an error.
///
/// # Errors
/// The value is not a valid `T`.
pub fn decode<'a, T: Deserialize<'a>>(value: &'a Value) -> Result<T, DecodeError> {
    if value.is_null() {
        return Err(DecodeError::kind("null", "a value"));
    }
    serde_path_to_error::deserialize(Loose(value)).map_err(|error| {
        let path = error.path();
        let is_inside = path.iter().next().is_some();
        let place = path.to_string().chars().filter(|c| !c.is_control()).collect::<String>();
        DecodeError { place: is_inside.then(|| cut(&place, MAX_PLACE)), ..error.into_inner() }
    })
}

/// The member with exactly this name, or else with this name in any case; `None`: there is no such member, or it is `null`.
pub fn member<'a>(object: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    let exact = object.get(name).filter(|value| !value.is_null());
    let in_any_case = || object.iter().find(|(key, value)| key.eq_ignore_ascii_case(name) && !value.is_null());
    exact.or_else(|| in_any_case().map(|(_, value)| value))
}

/// The kind of a value, as Go names it.
pub fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// Why a value could not be decoded. It holds the place and the kind, but no part of the value.
#[derive(Debug, PartialEq, Eq)]
pub struct DecodeError {
    problem: Problem,
    /// The place, such as `containers[0].memory`; `None`: the value as a whole.
    place: Option<String>,
}

#[derive(Debug, PartialEq, Eq)]
enum Problem {
    /// A value of one kind where another one was expected: the found kind, and the expected kind in words.
    Kind(&'static str, String),
    /// A text other than these known ones.
    Variant(&'static [&'static str]),
    /// Any other error, as a text without a value.
    Other(String),
}

impl DecodeError {
    /// A value of one kind where another was expected.
    pub fn kind(found: &'static str, wanted: &str) -> Self {
        Problem::Kind(found, wanted.to_owned()).into()
    }

    /// The error of another decoder, whose text must not contain any value.
    pub fn other(error: &serde_json::Error) -> Self {
        Problem::Other(error.to_string()).into()
    }

    /// The same error for a value that is the member or item `place` of a larger value.
    #[must_use]
    pub fn inside(self, place: &str) -> Self {
        let whole = match &self.place {
            None => place.to_owned(),
            Some(inner) if inner.starts_with('[') => format!("{place}{inner}"),
            Some(inner) => format!("{place}.{inner}"),
        };
        Self { place: Some(cut(&whole, MAX_PLACE)), ..self }
    }
}

impl From<TextError> for DecodeError {
    fn from(error: TextError) -> Self {
        Problem::Other(error.to_string()).into()
    }
}

impl From<Problem> for DecodeError {
    fn from(problem: Problem) -> Self {
        Self { problem, place: None }
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = self.place.as_deref().unwrap_or("the document");
        match &self.problem {
            Problem::Kind(found, wanted) => {
                write!(f, "json: cannot unmarshal {found} into {place}, {wanted} is expected")
            }
            Problem::Variant(known) => {
                write!(f, "json: unknown value of {place}, one of {} is expected", known.join(", "))
            }
            Problem::Other(text) => write!(f, "json: {text} ({place})"),
        }
    }
}

impl std::error::Error for DecodeError {}

impl serde::de::Error for DecodeError {
    fn custom<T: fmt::Display>(text: T) -> Self {
        Problem::Other(text.to_string()).into()
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
        Problem::Kind(kind, in_words(expected.to_string())).into()
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::invalid_type(found, expected)
    }

    fn unknown_variant(_: &str, expected: &'static [&'static str]) -> Self {
        Problem::Variant(expected).into()
    }
}

/// The values of a Rust type, in words for people.
fn in_words(expected: String) -> String {
    let words = match expected.as_str() {
        "u16" => "an integer from 0 to 65535",
        "u32" => "an integer from 0 to 4294967295",
        "u64" => "an integer from 0",
        "i32" | "i64" => "an integer",
        "f32" | "f64" => "a number",
        "a sequence" => "an array",
        "a map" => "an object",
        _ => return expected,
    };
    words.to_owned()
}

/// A JSON value that is decoded as in Go.
struct Loose<'a>(&'a Value);

/// Methods that decode `null` as the zero value of their type.
macro_rules! unset_is {
    ($($method:ident: $visit:ident($unset:expr)),* $(,)?) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
            if self.0.is_null() { visitor.$visit($unset) } else { self.deserialize_any(visitor) }
        })*
    };
}

/// An object without members.
fn no_members<'a>() -> MapDeserializer<'a, std::iter::Empty<(&'a str, Loose<'a>)>, DecodeError> {
    MapDeserializer::new(std::iter::empty())
}

fn no_items<'a>() -> SeqDeserializer<std::iter::Empty<Loose<'a>>, DecodeError> {
    SeqDeserializer::new(std::iter::empty())
}

impl<'a> IntoDeserializer<'a, DecodeError> for Loose<'a> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'de> Deserializer<'de> for Loose<'de> {
    type Error = DecodeError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match self.0 {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Number(number) => match (number.as_u64(), number.as_i64(), number.as_f64()) {
                (Some(value), ..) => visitor.visit_u64(value),
                (None, Some(value), _) => visitor.visit_i64(value),
                (None, None, value) => visitor.visit_f64(value.unwrap_or_default()),
            },
            Value::String(text) => visitor.visit_borrowed_str(text),
            Value::Array(items) => visitor.visit_seq(SeqDeserializer::new(items.iter().map(Loose))),
            Value::Object(map) => {
                visitor.visit_map(MapDeserializer::new(map.iter().map(|(key, value)| (key.as_str(), Loose(value)))))
            }
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
            Value::Null => "".into_deserializer().deserialize_enum(name, variants, visitor),
            Value::String(text) => text.as_str().into_deserializer().deserialize_enum(name, variants, visitor),
            other => Err(DecodeError::kind(kind_of(other), "a string")),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        let map = match self.0 {
            Value::Null => return visitor.visit_map(no_members()),
            Value::Object(map) => map,
            other => return Err(DecodeError::kind(kind_of(other), "an object")),
        };
        let given = fields.iter().filter_map(|field| Some((*field, Loose(member(map, field)?))));
        visitor.visit_map(MapDeserializer::new(given))
    }

    unset_is! {
        deserialize_bool: visit_bool(false),
        deserialize_i8: visit_i64(0),
        deserialize_i16: visit_i64(0),
        deserialize_i32: visit_i64(0),
        deserialize_i64: visit_i64(0),
        deserialize_u8: visit_u64(0),
        deserialize_u16: visit_u64(0),
        deserialize_u32: visit_u64(0),
        deserialize_u64: visit_u64(0),
        deserialize_f32: visit_f64(0.0),
        deserialize_f64: visit_f64(0.0),
        deserialize_str: visit_str(""),
        deserialize_string: visit_str(""),
        deserialize_seq: visit_seq(no_items()),
        deserialize_map: visit_map(no_members()),
    }

    forward_to_deserialize_any! {
        i128 u128 char bytes byte_buf unit unit_struct tuple tuple_struct identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::collections::BTreeMap;

    #[derive(Debug, Default, PartialEq, Eq, serde::Deserialize)]
    #[serde(rename_all = "camelCase", default)]
    struct Outer {
        inner: Vec<Inner>,
        own: BTreeMap<String, String>,
        raw: Option<Value>,
        small: u16,
    }

    #[derive(Debug, Default, PartialEq, Eq, serde::Deserialize)]
    #[serde(rename_all = "camelCase", default)]
    struct Inner {
        some_text: String,
    }

    fn text(text: &str) -> Inner {
        Inner { some_text: text.to_owned() }
    }

    /// A member in the proper case takes precedence.
    #[test]
    fn members_match_in_any_case_and_null_counts_as_absent() {
        let value = json!({
            "INNER": [{"SOMETEXT": "a", "Unknown": 1}, {"SomeText": "b", "someText": "c"}, {"sometext": null}],
            "own": {"Some": "x", "SOME": "y"}, "Raw": {"Kept": null}, "small": null,
        });
        let own = [("Some", "x"), ("SOME", "y")].map(|(name, value)| (name.to_owned(), value.to_owned()));
        let inner = vec![text("a"), text("c"), text("")];
        let wanted = Outer { inner, own: own.into(), raw: Some(json!({"Kept": null})), small: 0 };
        assert_eq!(decode::<Outer>(&value), Ok(wanted));
    }

    #[test]
    fn an_error_names_the_place_and_kinds_and_no_value() {
        let table = [
            (json!([]), "array into the document, an object"),
            (json!({"INNER": [{}, {"sometext": 4711}]}), "number into inner[1].someText, a string"),
            (json!({"inner": [["hunter2"]]}), "array into inner[0], an object"),
            (json!({"inner": "expected hunter2"}), "string into inner, an array"),
            (json!({"own": {"name": {"token": "hunter2"}}}), "object into own.name, a string"),
            (json!({"own": {"a\nb": []}}), "array into own.ab, a string"),
            (json!({"small": 65536}), "number into small, an integer from 0 to 65535"),
            (json!({"small": -1.5}), "number into small, an integer from 0 to 65535"),
        ];
        for (value, wanted) in table {
            let error = decode::<Outer>(&value).unwrap_err().to_string();
            assert_eq!(error, format!("json: cannot unmarshal {wanted} is expected"));
        }
        let error = decode::<Outer>(&json!({"own": {"x".repeat(1_000): 1}})).unwrap_err().to_string();
        assert!(error.len() < 300, "{error}");
        assert_eq!(
            decode::<Outer>(&Value::Null).unwrap_err().to_string(),
            "json: cannot unmarshal null into the document, a value is expected"
        );
    }

    #[test]
    fn null_is_a_value_that_is_not_set() {
        #[derive(Debug, PartialEq, serde::Deserialize)]
        enum Word {
            #[serde(rename = "")]
            Nothing,
        }
        let value = json!({"own": {"a": null}, "inner": [null, {"someText": null}], "raw": null, "small": null});
        let own = BTreeMap::from([("a".to_owned(), String::new())]);
        let wanted = Outer { inner: vec![text(""), text("")], own, raw: None, small: 0 };
        assert_eq!(decode::<Outer>(&value), Ok(wanted));
        let null = json!([null]);
        assert_eq!(decode::<Vec<String>>(&null), Ok(vec![String::new()]));
        assert_eq!(decode::<Vec<bool>>(&null), Ok(vec![false]));
        assert_eq!(decode::<Vec<i64>>(&null), Ok(vec![0]));
        assert_eq!(decode::<Vec<f64>>(&null), Ok(vec![0.0]));
        assert_eq!(decode::<Vec<Vec<u8>>>(&null), Ok(vec![Vec::new()]));
        assert_eq!(decode::<Vec<BTreeMap<String, u8>>>(&null), Ok(vec![BTreeMap::new()]));
        assert_eq!(decode::<Vec<Option<u8>>>(&null), Ok(vec![None]));
        assert_eq!(decode::<Vec<Word>>(&null), Ok(vec![Word::Nothing]));
        assert_eq!(decode::<Vec<Value>>(&null), Ok(vec![Value::Null]));
    }

    #[test]
    fn an_error_inside_names_the_whole_place() {
        let place = |value: Value, outer: &str| decode::<Outer>(&value).unwrap_err().inside(outer).to_string();
        assert!(place(json!({"small": ""}), "tasks[3]").contains(" into tasks[3].small, "));
        assert!(place(json!(7), "tasks").contains(" into tasks, "));
        let list = decode::<Vec<Inner>>(&json!([7])).unwrap_err().inside("tasks").to_string();
        assert!(list.contains(" into tasks[0], "), "{list}");
    }
}
