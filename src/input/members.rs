//! JSON objects from people or programs, read as Go decodes them into a structure: member names match in any case, the last of
//! two equal names counts, `null` counts as absent, and a text may contain the escape of a lone surrogate.
//!
//! Owns the members of one object, with their values undecoded. It copies only names and, on request, a text. So a document with
//! a password leaves no second copy of it in memory. [`super::json`] is for documents without secrets, which may be decoded as a
//! whole. Invariant: no error of this module holds a part of the document.

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::fmt;

/// The members of one JSON object, in their order. A name that occurs twice is in the list twice.
#[derive(Default)]
pub struct Members<'a>(Vec<(String, &'a RawValue)>);

// The values may be secrets, so only the names are shown.
impl fmt::Debug for Members<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}

/// The error for a text or a member of the wrong kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WrongKind;

impl<'a> Members<'a> {
    /// Reads a text that holds one object. `null` is an object without members.
    ///
    /// # Errors
    /// The text is not JSON, or JSON of another kind.
    pub fn parse(text: &'a str) -> Result<Self, WrongKind> {
        serde_json::from_str::<Option<Self>>(text).map(Option::unwrap_or_default).map_err(|_| WrongKind)
    }

    /// The same as [`Members::parse`], for a text that may go on after the object, as Go's stream decoder reads it.
    ///
    /// # Errors
    /// The text does not begin with an object or `null`.
    pub fn parse_first(text: &'a str) -> Result<Self, WrongKind> {
        let mut texts = serde_json::Deserializer::from_str(text);
        Option::<Self>::deserialize(&mut texts).map(Option::unwrap_or_default).map_err(|_| WrongKind)
    }

    /// All members, with the names as they were written.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&str, &'a RawValue)> {
        self.0.iter().map(|(name, raw)| (name.as_str(), *raw))
    }

    /// The value of the member with this name in any case; `None`: there is no such member, or it is `null`.
    pub fn get(&self, name: &str) -> Option<&'a RawValue> {
        let matches = |member: &(&str, &RawValue)| member.0.eq_ignore_ascii_case(name) && !is_null(member.1);
        self.iter().rev().find(matches).map(|(_, raw)| raw)
    }

    /// The value of the member with exactly this name, which may be `null`; `None`: there is no such member. For objects whose
    /// names are data.
    pub fn exactly(&self, name: &str) -> Option<&'a RawValue> {
        self.iter().rev().find(|member| member.0 == name).map(|(_, raw)| raw)
    }

    /// The text of the member with this name in any case; empty if there is none.
    ///
    /// # Errors
    /// The value is not a text.
    pub fn text(&self, name: &str) -> Result<String, WrongKind> {
        self.get(name).map_or(Ok(String::new()), text)
    }
}

/// A JSON value as a text.
///
/// # Errors
/// The value is not a text.
pub fn text(raw: &RawValue) -> Result<String, WrongKind> {
    serde_json::from_str::<Text>(raw.get()).map(|text| text.0).map_err(|_| WrongKind)
}

fn is_null(raw: &RawValue) -> bool {
    raw.get() == "null"
}

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some((name, raw)) = map.next_entry::<Text, &'de RawValue>()? {
                    members.push((name.0, raw));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Collect)
    }
}

/// A text, read as bytes, because a lone surrogate (`"\ud83d"`) would otherwise be an error. It becomes U+FFFD, as in Go.
struct Text(String);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl Visitor<'_> for Read {
            type Value = Text;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Text, E> {
                let mut text = String::with_capacity(bytes.len());
                for chunk in bytes.utf8_chunks() {
                    text.push_str(chunk.valid());
                    // A lone surrogate arrives as three bytes, each of them an invalid chunk; the first is 0xED.
                    if chunk.invalid().first() == Some(&0xED) {
                        text.push(char::REPLACEMENT_CHARACTER);
                    }
                }
                Ok(Text(text))
            }
        }
        deserializer.deserialize_bytes(Read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_count_in_any_case_and_the_last_one_wins() {
        let members = Members::parse(r#"{"AUTH": "a", "auth": "b", "Auth": null, "x": 1}"#).unwrap();
        assert_eq!(members.text("auth"), Ok("b".to_owned()), "null takes nothing away");
        assert_eq!(members.text("absent"), Ok(String::new()));
        assert_eq!(members.text("X"), Err(WrongKind));
        assert_eq!(members.exactly("AUTH").map(RawValue::get), Some("\"a\""));
        assert_eq!(members.exactly("Auth").map(RawValue::get), Some("null"));
        assert!(members.exactly("aUTH").is_none());
        assert_eq!(members.iter().count(), 4);
    }

    #[test]
    fn names_and_texts_may_hold_any_escape() {
        let text = r#"{"ge\u00e4ndert": "\u00fc", "https:\/\/r": "a\/b", "\ud83d": "x\ud83dy", "\ud83d\udc33": "\udc33\ud83d", "\u0061": "c"}"#;
        let members = Members::parse(text).unwrap();
        let table = [
            ("ge\u{e4}ndert", "\u{fc}"),
            ("https://r", "a/b"),
            ("\u{fffd}", "x\u{fffd}y"),
            ("\u{1f433}", "\u{fffd}\u{fffd}"),
            ("A", "c"),
        ];
        for (name, wanted) in table {
            assert_eq!(members.text(name).as_deref(), Ok(wanted), "{name}");
        }
    }

    #[test]
    fn anything_but_an_object_is_an_error_without_its_text() {
        for text in ["", "hunter2", "\"hunter2\"", "[\"hunter2\"]", "{\"a\": hunter2}", "{\"a\": 1} hunter2", "7"] {
            assert_eq!(Members::parse(text).map(drop), Err(WrongKind), "{text}");
        }
        assert_eq!(Members::parse(" null ").unwrap().iter().count(), 0);
        let members = Members::parse_first("{\"a\": \"b\"}\nwarning: hunter2").unwrap();
        assert_eq!(members.text("A"), Ok("b".to_owned()));
        assert_eq!(format!("{members:?}"), "{\"a\"}");
        assert_eq!(Members::parse_first("warning: hunter2").map(drop), Err(WrongKind));
        // The value is deeper than serde_json parses, but a value that is not requested is only skipped.
        let deep = format!("{{\"a\": \"b\", \"c\": {}{}}}", "[".repeat(5_000), "]".repeat(5_000));
        assert_eq!(Members::parse(&deep).unwrap().text("a"), Ok("b".to_owned()));
    }
}
