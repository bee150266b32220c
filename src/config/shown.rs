//! What a message shows of an operator's value: the value itself if it cannot hold a secret, else its shape, and the value that was
//! probably meant.
//!
//! Invariants: a secret is never shown, nor a value in which another line may be hidden; a suggested value is one that the
//! variable accepts.

use super::duration::parse_nanos;
use super::kind::Kind;
use super::names;
use super::parsed::Parsed;
use super::suggest::closest;
use ecs_core::model::address;
use std::borrow::Cow;

/// Maximum length of a value in a message, in characters.
const MAX_VALUE: usize = 64;

/// The value in effect, for the report.
pub(super) fn in_effect(kind: Kind, value: &str) -> Cow<'_, str> {
    match kind {
        Kind::Endpoint | Kind::DockerHost | Kind::Proxy => address::redacted(value),
        kind if kind.is_secret() => Cow::Borrowed("[set, not shown]"),
        _ => address::without_passwords(value),
    }
}

/// Describes a value that was not used as it is written.
pub(super) fn shape(kind: Kind, raw: &str) -> String {
    match kind {
        Kind::SecretJson | Kind::Names | Kind::Map | Kind::Mirrors | Kind::Cidrs => json_shape(raw),
        Kind::Ports => format!("{}{}", value_or_length(kind, raw), json_error(raw)),
        Kind::Cluster => format!("{}{}", text_shape(value_or_length(kind, raw), raw), names::not_a_cluster(raw)),
        _ => text_shape(value_or_length(kind, raw), raw),
    }
}

/// The value that was probably meant; `None` if that is unclear.
pub(super) fn meant(kind: Kind, raw: &str, default: &str) -> Option<String> {
    let is_usable = |text: &str| matches!(kind.parse(text, default), Parsed::Value(_)) && value(kind, text).is_some();
    let bare = raw.trim().trim_matches(['"', '\'']).trim();
    let candidate = match kind {
        _ if bare != raw && is_usable(bare) => Some(bare.to_owned()),
        Kind::Cluster => bare.split_once(" #").map(|(name, _)| name.trim().to_owned()),
        Kind::Duration(_) => with_unit(bare, default, is_usable).or_else(|| in_go_units(bare)),
        Kind::Switch | Kind::Flag => match bare.to_ascii_lowercase().as_str() {
            "true" | "yes" | "y" | "on" | "enabled" | "enable" => Some("true".to_owned()),
            "false" | "no" | "n" | "off" | "disabled" | "disable" => Some("false".to_owned()),
            other if other.len() <= MAX_VALUE => closest(other, ["true", "false"].into_iter()).map(str::to_owned),
            _ => None,
        },
        Kind::Choice(words) | Kind::TrimmedChoice(words) | Kind::AnyCase(words) if bare.len() <= MAX_VALUE => {
            let bare = bare.to_ascii_lowercase();
            let beginning = words.iter().copied().find(|word| bare.starts_with(word)); // `warning`, `critical`
            beginning.or_else(|| closest(&bare, words.iter().copied())).map(str::to_owned)
        }
        _ => None,
    };
    candidate.filter(|text| text != raw && is_usable(text))
}

/// A duration with a unit as people write it, such as `10 minutes`, `3min` or `1d`, in the units of Go.
fn in_go_units(text: &str) -> Option<String> {
    let end = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(end);
    let number: u32 = number.parse().ok()?;
    let (factor, unit) = match unit.trim().to_ascii_lowercase().as_str() {
        "s" | "sec" | "secs" | "second" | "seconds" => (1, "s"),
        "m" | "min" | "mins" | "minute" | "minutes" => (1, "m"),
        "h" | "hr" | "hrs" | "hour" | "hours" => (1, "h"),
        "d" | "day" | "days" => (24, "h"),
        _ => return None,
    };
    Some(format!("{}{unit}", number.checked_mul(factor)?))
}

/// A number with the unit that it lacks: the largest one with which it is at most twice the default, or else the smallest that is
/// within the limits.
fn with_unit(number: &str, default: &str, is_usable: impl Fn(&str) -> bool) -> Option<String> {
    const HALF_AN_HOUR: i64 = 1_800_000_000_000;
    if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let usual = parse_nanos(default).filter(|nanos| *nanos > 0).unwrap_or(HALF_AN_HOUR);
    let durations = ["h", "m", "s", "ms"].map(|unit| format!("{number}{unit}"));
    let is_usual = |text: &&String| parse_nanos(text).is_some_and(|nanos| nanos <= usual.saturating_mul(2));
    let usable = || durations.iter().filter(|text| is_usable(text));
    usable().find(is_usual).or_else(|| usable().next_back()).cloned()
}

/// The value for a message; `None`: it may hold a secret, or is long. A line that was glued to the value (`prodAWS_…=`), or a JSON
/// document in the wrong place, may be one.
fn value(kind: Kind, raw: &str) -> Option<String> {
    let can_be_shown = match kind {
        Kind::Switch
        | Kind::Flag
        | Kind::Duration(_)
        | Kind::Integer(_)
        | Kind::TrimmedInteger(_)
        | Kind::Unsigned16
        | Kind::Decimal
        | Kind::Ports
        | Kind::Cidr
        | Kind::Choice(_)
        | Kind::TrimmedChoice(_)
        | Kind::AnyCase(_)
        | Kind::Rates
        | Kind::PortRange
        | Kind::Endpoint
        | Kind::DockerHost
        | Kind::Cluster => true,
        Kind::Text
        | Kind::Trimmed
        | Kind::TextOrEmpty
        | Kind::Secret
        | Kind::SecretJson
        | Kind::Names
        | Kind::Map
        | Kind::Mirrors
        | Kind::Cidrs
        | Kind::List
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
    let length = raw.chars().count();
    format!("a text of {length} character{}", if length == 1 { "" } else { "s" })
}

/// Describes a text without showing it.
pub(super) fn hidden(raw: &str) -> String {
    text_shape(length(raw), raw)
}

fn text_shape(mut text: String, raw: &str) -> String {
    let quoted = |mark: char| raw.len() > 1 && raw.starts_with(mark) && raw.ends_with(mark);
    if quoted('"') || quoted('\'') {
        text.push_str(" in quotation marks (they are part of the value here)");
    } else if raw.trim() != raw {
        text.push_str(" with white space around it");
    }
    text
}

/// Like [`hidden`], with the position of an error in the JSON. The message of serde_json may quote the value, so only the
/// position is used.
fn json_shape(raw: &str) -> String {
    match json_error(raw).as_str() {
        "" => format!("{}, valid JSON of another form", hidden(raw)),
        error => format!("{}{error}", hidden(raw)),
    }
}

fn json_error(raw: &str) -> String {
    match serde_json::from_str::<serde::de::IgnoredAny>(raw) {
        Ok(_) => String::new(),
        Err(error) => format!(", not valid JSON at column {}", error.column()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::keys::{KEYS, find};
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
        assert_eq!(json_shape("[1]"), "a text of 3 characters, valid JSON of another form");
    }

    #[test]
    fn a_value_that_cannot_hold_a_secret_is_shown() {
        let switch = Kind::Switch;
        for (kind, raw, shown) in [
            (switch, "yes", "`yes`"),
            (switch, "\"true\"", "`\"true\"` in quotation marks (they are part of the value here)"),
            (Kind::Ports, "[80,", "`[80,`, not valid JSON at column 4"),
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
        ] {
            assert_eq!(shape(kind, raw), shown, "{raw}");
        }
    }

    #[test]
    fn a_proxy_in_effect_is_shown_without_its_password() {
        for (value, shown) in [
            ("http://proxy:3128", "http://proxy:3128"),
            ("http://me:hunter2@proxy:3128", "http://***@proxy:3128"),
            ("socks5://me:hunt@er2@proxy:1080", "socks5://***@proxy:1080"),
        ] {
            assert_eq!(in_effect(Kind::Proxy, value), shown);
        }
        assert_eq!(in_effect(Kind::Secret, "hunter2"), "[set, not shown]");
    }

    #[test]
    fn the_value_that_was_meant() {
        for (name, raw, value) in [
            ("ECS_IMAGE_CLEANUP_INTERVAL", "10", Some("10m")),
            ("ECS_ENGINE_TASK_CLEANUP_WAIT_DURATION", "10", Some("10m")),
            ("ECS_ENGINE_TASK_CLEANUP_WAIT_DURATION", "3", Some("3h")),
            ("ECS_ENGINE_TASK_CLEANUP_WAIT_DURATION", "3600", Some("3600s")),
            ("ECS_ENGINE_TASK_CLEANUP_WAIT_DURATION_JITTER", "10", Some("10m")),
            ("ECS_CONTAINER_STOP_TIMEOUT", "30", Some("30s")),
            ("ECS_CONTAINER_STOP_TIMEOUT", "\"30\"", Some("30s")),
            ("ECS_CONTAINER_STOP_TIMEOUT", "\"30s\"", Some("30s")),
            ("ECS_CONTAINER_STOP_TIMEOUT", "120", Some("120s")),
            ("ECS_CGROUP_CPU_PERIOD", "50", Some("50ms")),
            ("ECS_CONTAINER_STOP_TIMEOUT", "soon", None),
            ("ECS_CONTAINER_STOP_TIMEOUT", "99999999999999999999", None),
            ("ECS_DISABLE_PRIVILEGED", "yes", Some("true")),
            ("ECS_DISABLE_PRIVILEGED", "'false'", Some("false")),
            ("ECS_DISABLE_PRIVILEGED", "tRUE", Some("true")),
            ("ECS_IMAGE_PULL_BEHAVIOR", "Always", Some("always")),
            ("ECS_IMAGE_PULL_BEHAVIOR", "prefer_cached", Some("prefer-cached")),
            ("ECS_LOGLEVEL", "wran", Some("warn")),
            ("ECS_LOGLEVEL", "loud", None),
            ("ECS_CLUSTER", "\"prod\"", Some("prod")),
            ("ECS_CLUSTER", "prod # main", Some("prod")),
            ("ECS_CLUSTER", "$(prod)", None),
            ("ECS_CLUSTER", "my cluster", None),
            ("ECS_RESERVED_MEMORY", "\"64\"", Some("64")),
        ] {
            let key = find(name).unwrap();
            assert_eq!(meant(key.kind, raw, key.default).as_deref(), value, "{name}={raw}");
        }
        assert_eq!(meant(Kind::Duration(Limit::Any), "", ""), None);
    }

    proptest::proptest! {
        /// A suggestion is accepted, and is short.
        #[test]
        fn a_suggestion_works(row in 0..KEYS.len(), raw in "[\"' #a-zA-Z0-9{}=$]{0,12}") {
            let key = &KEYS[row];
            if let Some(text) = meant(key.kind, &raw, key.default) {
                proptest::prop_assert!(matches!(key.kind.parse(&text, key.default), Parsed::Value(_)), "{text}");
                proptest::prop_assert!(!key.kind.is_secret() && text.len() <= MAX_VALUE);
            }
        }
    }
}
