//! The member of a JSON value that makes it unusable, described for a person.
//!
//! This module only describes; `lists` decides what can be used. Invariant: names are shown as far as they are names (of attributes,
//! tags, labels and hosts), and no text that is a value.

use super::kind::Kind;
use super::lists::{is_range, is_registry_host, json_type};
use crate::input::members::Members;
use ecs_core::model::text::cut;
use serde_json::Value;

/// Maximum length of a name in a message, in bytes.
const MAX_NAME: usize = 64;
/// Maximum length of a number that is shown, in bytes.
const MAX_NUMBER: usize = 20;

/// The first member that cannot be used, and what to write instead; `None`: the value as a whole is of another form.
pub(super) fn describe(kind: Kind, raw: &str) -> Option<String> {
    match kind {
        Kind::Map => in_map(raw),
        Kind::Mirrors => in_mirrors(raw),
        Kind::Names => {
            in_list(raw, |member| if member.is_string() { None } else { Some("not a string in quotation marks") })
        }
        Kind::Cidrs => in_list(raw, |member| match member.as_str() {
            Some(text) if is_range(&text) => None,
            _ => Some("no network range"),
        }),
        _ => None,
    }
}

/// A member of an object of strings that is not a string.
fn in_map(raw: &str) -> Option<String> {
    let members = Members::parse(raw).ok()?;
    let (name, raw) = members.iter().find(|(_, raw)| !raw.get().starts_with('"') && raw.get() != "null")?;
    let value: Value = serde_json::from_str(raw.get()).ok()?;
    let (name, found) = (cut(name, MAX_NAME), json_type(&value));
    let is_plain = value.is_number() || value.is_boolean();
    Some(match raw.get() {
        text if is_plain && text.len() <= MAX_NUMBER => format!("`{name}` is {found}: write \"{text}\""),
        _ => format!("`{name}` is {found} in place of a string"),
    })
}

fn in_mirrors(raw: &str) -> Option<String> {
    let members: serde_json::Map<String, Value> = serde_json::from_str(raw).ok()?;
    members.iter().find_map(|(host, mirror)| {
        let scheme = |text: &str| ["https://", "http://"].into_iter().find(|scheme| text.starts_with(scheme));
        if let Some(scheme) = scheme(host) {
            return Some(format!("a registry that begins with {scheme}: write the host without it"));
        }
        // Only the host of a registry is shown as one.
        let place = if is_registry_host(host) { format!(" of `{}`", cut(host, MAX_NAME)) } else { String::new() };
        match mirror.as_str() {
            None => Some(format!("the mirror{place} is {} in place of a string", json_type(mirror))),
            Some(text) => {
                scheme(text).map(|scheme| format!("the mirror{place} begins with {scheme}: write it without"))
            }
        }
    })
}

/// A member of an array, by its number.
fn in_list(raw: &str, wrong: impl Fn(&Value) -> Option<&'static str>) -> Option<String> {
    let members: Vec<Value> = serde_json::from_str(raw).ok()?;
    (1..).zip(&members).find_map(|(number, member)| Some(format!("number {number} of the list is {}", wrong(member)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wrong_member_is_named() {
        for (kind, raw, text) in [
            (Kind::Map, r#"{"rack":1}"#, Some("`rack` is a number: write \"1\"")),
            (Kind::Map, r#"{"a":"b","spot":true}"#, Some("`spot` is a boolean: write \"true\"")),
            (Kind::Map, r#"{"a":null,"b":["hunter2"]}"#, Some("`b` is an array in place of a string")),
            (Kind::Map, r#"{"a":"b"}"#, None),
            (Kind::Map, r#"["hunter2"]"#, None),
            (Kind::Map, r#"{"rack":"#, None),
            (
                Kind::Mirrors,
                r#"{"docker.io":"https://m.io"}"#,
                Some("the mirror of `docker.io` begins with https://: write it without"),
            ),
            (
                Kind::Mirrors,
                r#"{"https://docker.io":"m.io"}"#,
                Some("a registry that begins with https://: write the host without it"),
            ),
            (Kind::Mirrors, r#"{"hunter2":1}"#, Some("the mirror is a number in place of a string")),
            (Kind::Mirrors, r#"{"docker.io":"m.io"}"#, None),
            (Kind::Names, r#"["none",5]"#, Some("number 2 of the list is not a string in quotation marks")),
            (Kind::Names, r#"{"a":1}"#, None),
            (Kind::Cidrs, r#"["10.0.0.0/8","hunter2"]"#, Some("number 2 of the list is no network range")),
            (Kind::Text, r#"{"rack":1}"#, None),
        ] {
            assert_eq!(describe(kind, raw).as_deref(), text, "{raw}");
        }
        let long = format!("{{\"{}\":{}}}", "x".repeat(1 << 20), "9".repeat(1 << 10));
        assert!(describe(Kind::Map, &long).is_none_or(|text| text.len() < 150));
    }
}
