//! What a message shows of an operator's value: the value itself if it cannot hold a secret, else its shape, and what is wrong with it.
//!
//! Invariant: a secret is never shown, nor a value in which another line may be hidden. What was probably meant is in `meant`.

use super::kind::Kind;
use super::quoting::{is_quoted, without_comment};
use super::{names, wrong_member};
use crate::input::form::Form;
use ecs_core::model::address;
use std::borrow::Cow;

/// Maximum length of a value in a message, in characters.
pub(super) const MAX_VALUE: usize = 64;

/// The value in effect, for the report.
pub(super) fn in_effect(kind: Kind, value: &str) -> Cow<'_, str> {
    match kind {
        Kind::Endpoint | Kind::PlainEndpoint | Kind::DockerHost | Kind::Proxy => address::redacted(value),
        kind if kind.is_secret() => Cow::Borrowed("[set, not shown]"),
        _ => address::without_passwords(value),
    }
}

/// Describes a value that was not used as it is written.
pub(super) fn shape(kind: Kind, raw: &str) -> String {
    match kind {
        Kind::SecretJson | Kind::Names | Kind::Map | Kind::Mirrors | Kind::Cidrs => {
            let other_form = || wrong_form(kind, raw).unwrap_or_else(|| json_shape(raw));
            wrong_member::describe(kind, raw).unwrap_or_else(other_form)
        }
        Kind::Ports => {
            wrong_form(kind, raw).unwrap_or_else(|| format!("{}{}", value_or_length(kind, raw), json_error(raw)))
        }
        Kind::Proxy if is_socks(raw) => format!("{}, a SOCKS proxy, which this agent cannot use", hidden(raw)),
        Kind::Cluster => format!("{}{}", text_shape(value_or_length(kind, raw), raw), names::not_a_cluster(raw)),
        Kind::Duration(_) if !raw.is_empty() && raw.bytes().all(|byte| byte.is_ascii_digit()) => {
            format!("{}, and a number needs a unit, such as 10s, 10m or 10h", value_or_length(kind, raw))
        }
        _ if without_comment(raw).is_some() => {
            format!("{}, and a comment needs a line of its own", text_shape(value_or_length(kind, raw), raw))
        }
        _ => text_shape(value_or_length(kind, raw), raw),
    }
}

/// The address of a SOCKS proxy. The Go agent can use `socks5`.
fn is_socks(raw: &str) -> bool {
    let scheme = raw.trim_start_matches(['"', '\'', ' ']).split("://").next().unwrap_or_default();
    raw.contains("://") && scheme.get(..5).is_some_and(|start| start.eq_ignore_ascii_case("socks"))
}

/// White space around a value, which is removed.
pub(super) fn white_space_around(kind: Kind, raw: &str) -> String {
    format!("white space around {}", value_or_length(kind, raw.trim()))
}

/// The value for a message; `None`: it may hold a secret, or is long. A line that was glued to the value (`prodAWS_…=`), or a JSON
/// document in the wrong place, may be one.
pub(super) fn value(kind: Kind, raw: &str) -> Option<String> {
    let can_be_shown = match kind {
        Kind::Switch
        | Kind::Flag
        | Kind::Duration(_)
        | Kind::Integer(_)
        | Kind::TrimmedInteger(_)
        | Kind::Unsigned16
        | Kind::Decimal
        | Kind::Ports
        | Kind::LocalAddress
        | Kind::Choice(_)
        | Kind::TrimmedChoice(_)
        | Kind::AnyCase(_)
        | Kind::Rates
        | Kind::PortRange
        | Kind::Endpoint
        | Kind::PlainEndpoint
        | Kind::DockerHost
        | Kind::Region
        | Kind::Path
        | Kind::HomePath
        | Kind::Cluster => true,
        Kind::Text
        | Kind::Host
        | Kind::Trimmed
        | Kind::TextOrEmpty
        | Kind::Secret
        | Kind::SecretJson
        | Kind::Names
        | Kind::Map
        | Kind::Mirrors
        | Kind::Cidrs
        | Kind::List
        | Kind::Pairs
        | Kind::Headers
        | Kind::Proxy => false,
    };
    let may_hide_another = raw.contains('=') || (raw.contains(['{', '[']) && raw.contains(['"', '\'', ':']));
    let is_short = raw.chars().count() <= MAX_VALUE;
    (can_be_shown && !may_hide_another && is_short).then(|| in_effect(kind, raw).into_owned())
}

fn value_or_length(kind: Kind, raw: &str) -> String {
    value(kind, raw).map_or_else(|| length(raw), |value| format!("`{value}`"))
}

fn length(raw: &str) -> String {
    format!("a text of {}", characters(raw.chars().count()))
}

/// A number of characters, in words.
pub(super) fn characters(count: usize) -> String {
    format!("{count} character{}", if count == 1 { "" } else { "s" })
}

/// Describes a text without showing it.
pub(super) fn hidden(raw: &str) -> String {
    text_shape(length(raw), raw)
}

fn text_shape(mut text: String, raw: &str) -> String {
    if is_quoted(raw) {
        text.push_str(" in quotation marks (they are part of the value here)");
    } else if raw.trim() != raw {
        text.push_str(" with white space around it");
    }
    text
}

/// Describes JSON of another type than the kind's; `None`: it has that type, or is no JSON. Quotation marks around the whole value
/// are described as such.
fn wrong_form(kind: Kind, raw: &str) -> Option<String> {
    let (wanted, name) = match kind {
        Kind::Names | Kind::Cidrs | Kind::Ports => (Form::Array, "an array"),
        Kind::Map | Kind::Mirrors | Kind::SecretJson => (Form::Object, "an object"),
        _ => return None,
    };
    let form = Form::from_json(raw).filter(|form| *form != wanted)?;
    let found = if form == Form::String { hidden(raw) } else { form.name().to_owned() };
    Some(format!("{found}, where {name} belongs"))
}

/// Like [`hidden`], with the position of an error in the JSON. The message of serde_json may quote the value, so only the
/// position is used.
fn json_shape(raw: &str) -> String {
    match json_error(raw).as_str() {
        "" if raw.trim() == "[]" => "an empty array".to_owned(),
        "" => format!("{}, with a member of another form", hidden(raw)),
        error => format!("{}{error}", hidden(raw)),
    }
}

fn json_error(raw: &str) -> String {
    match serde_json::from_str::<serde::de::IgnoredAny>(raw) {
        Ok(_) => String::new(),
        // A value ends with its line.
        Err(error) if error.is_eof() && raw.trim_start().starts_with(['{', '[']) => {
            format!(", not valid JSON at column {}, where it ends: the whole JSON must be on one line", error.column())
        }
        Err(error) => {
            let column = error.column();
            format!(", not valid JSON at column {column}{}", json_cause(raw, column))
        }
    }
}

/// What usually leads to this error, by the character at its column; empty: something else.
fn json_cause(raw: &str, column: usize) -> &'static str {
    match raw.as_bytes().get(column.saturating_sub(1)) {
        Some(b'\\') => ", a backslash: quotation marks need none here, since no shell reads this",
        Some(b'\'') => ", a single quotation mark: JSON has double ones",
        Some(b'#') => ", and a comment needs a line of its own",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::super::kind::Limit;
    use super::*;

    #[test]
    fn a_hidden_value_is_described() {
        let shape = |value: &str| shape(Kind::Secret, value);
        assert_eq!(shape("x"), "a text of 1 character");
        assert_eq!(shape("gr\u{fc}n"), "a text of 4 characters");
        assert_eq!(shape("\"5m\""), "a text of 4 characters in quotation marks (they are part of the value here)");
        assert_eq!(shape("5m "), "a text of 3 characters with white space around it");
        assert_eq!(json_shape("{\"a\":}"), "a text of 6 characters, not valid JSON at column 6");
    }

    #[test]
    fn json_of_another_type_is_named() {
        let object = ", where an object belongs";
        let array = ", where an array belongs";
        for (kind, raw, found) in [
            (Kind::Map, "[1]", format!("a JSON array{object}")),
            (Kind::Map, " 5", format!("a JSON number{object}")),
            (Kind::Map, "true", format!("a JSON boolean{object}")),
            (Kind::Mirrors, "null", format!("null{object}")),
            (Kind::Mirrors, "[\"hunter2\"]", format!("a JSON array{object}")),
            (
                Kind::Map,
                "\"hunter2\"",
                format!("a text of 9 characters in quotation marks (they are part of the value here){object}"),
            ),
            (Kind::Names, "{\"a\":\"hunter2\"}", format!("a JSON object{array}")),
            (Kind::Names, "5", format!("a JSON number{array}")),
            (Kind::Cidrs, "{}", format!("a JSON object{array}")),
            (Kind::Ports, "{\"a\":1}", format!("a JSON object{array}")),
            (Kind::Ports, "22", format!("a JSON number{array}")),
            (Kind::Names, "[]", "an empty array".to_owned()),
            (Kind::Mirrors, "{\"Hunter2\":\"x\"}", "a text of 15 characters, with a member of another form".to_owned()),
            (
                Kind::Names,
                "{",
                "a text of 1 character, not valid JSON at column 1, where it ends: the whole JSON must be on one line"
                    .to_owned(),
            ),
        ] {
            assert_eq!(shape(kind, raw), found, "{raw}");
        }
    }

    #[test]
    fn a_value_that_cannot_hold_a_secret_is_shown() {
        let switch = Kind::Switch;
        for (kind, raw, shown) in [
            (switch, "yes", "`yes`"),
            (switch, "\"true\"", "`\"true\"` in quotation marks (they are part of the value here)"),
            (
                Kind::Ports,
                "[80,",
                "`[80,`, not valid JSON at column 4, where it ends: the whole JSON must be on one line",
            ),
            (Kind::Ports, "ssh", "`ssh`, not valid JSON at column 1"),
            (
                Kind::Map,
                r#"{\"rack\":\"1\"}"#,
                "a text of 16 characters, not valid JSON at column 2, a backslash: quotation marks need none here, since no shell reads this",
            ),
            (
                Kind::SecretJson,
                r#"{"r.io":{'auth':"hunter2"}}"#,
                "a text of 27 characters, not valid JSON at column 10, a single quotation mark: JSON has double ones",
            ),
            (
                Kind::Map,
                r#"{"rack":"1"} # a rack"#,
                "a text of 21 characters, not valid JSON at column 14, and a comment needs a line of its own",
            ),
            (switch, "true # comment", "`true # comment`, and a comment needs a line of its own"),
            (Kind::Path, "/data # x", "`/data # x`, and a comment needs a line of its own"),
            (Kind::Path, "=data", "a text of 5 characters"),
            (Kind::Region, "'eu-west-1'", "`'eu-west-1'` in quotation marks (they are part of the value here)"),
            (Kind::Duration(Limit::Any), "10", "`10`, and a number needs a unit, such as 10s, 10m or 10h"),
            (Kind::Map, r#"{"rack":1}"#, "`rack` is a number: write \"1\""),
            (
                Kind::SecretJson,
                "{",
                "a text of 1 character, not valid JSON at column 1, where it ends: the whole JSON must be on one line",
            ),
            (Kind::Endpoint, "ftp://me:hunter2@h", "`ftp://***@h`"),
            (Kind::Cluster, "prod # x", "`prod # x`, and a comment needs a line of its own"),
            (Kind::Cluster, "$(x)", "`$(x)`, and nothing is expanded here"),
            (Kind::Cluster, "${X}", "`${X}`, and nothing is expanded here"),
            // Another line or a document may be in it.
            (switch, "trueAWS_SECRET_ACCESS_KEY=hunter2", "a text of 33 characters"),
            (Kind::Cluster, "{\"auth\":\"hunter2\"}", "a text of 18 characters"),
            (Kind::Cluster, "{auth:hunter2}", "a text of 14 characters"),
            (Kind::Unsigned16, &"9".repeat(65), "a text of 65 characters"),
            (Kind::Text, "hunter2", "a text of 7 characters"),
            (Kind::Proxy, "hunter2", "a text of 7 characters"),
            (Kind::Proxy, "SOCKS5h://hunter2@h", "a text of 19 characters, a SOCKS proxy, which this agent cannot use"),
        ] {
            assert_eq!(shape(kind, raw), shown, "{raw}");
        }
    }

    #[test]
    fn white_space_that_is_removed_is_described() {
        assert_eq!(white_space_around(Kind::Cluster, " prod"), "white space around `prod`");
        assert_eq!(white_space_around(Kind::Proxy, " hunter2 "), "white space around a text of 7 characters");
    }

    #[test]
    fn a_proxy_in_effect_is_shown_without_its_password() {
        for (value, shown) in [
            ("http://proxy:3128", "http://proxy:3128"),
            ("http://me:hunter2@proxy:3128", "http://***@proxy:3128"),
            ("https://me:hunt@er2@proxy:1080", "https://***@proxy:1080"),
        ] {
            assert_eq!(in_effect(Kind::Proxy, value), shown);
        }
        assert_eq!(in_effect(Kind::Secret, "hunter2"), "[set, not shown]");
    }
}
