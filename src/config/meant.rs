//! The value that an operator probably meant: without what does not belong to it, with a unit, in the form of its kind.
//!
//! This module suggests; it decides nothing. Invariant: a suggestion is a value that the variable accepts and that may be shown.

use super::duration::parse_nanos;
use super::kind::Kind;
use super::names::{LOG_DRIVERS, PLUGIN_CAPABILITIES, meant_word};
use super::parsed::Parsed;
use super::quoting::{bare, without_comment};
use super::shown::{MAX_VALUE, value};
use super::suggest::{begun_by, closest};

/// The value that was probably meant; `None` if that is unclear.
pub(super) fn meant(kind: Kind, raw: &str, default: &str) -> Option<String> {
    let is_usable = |text: &str| {
        let is_known = kind == Kind::Names; // made of known words only
        matches!(kind.parse(text, default), Parsed::Value(_)) && (is_known || value(kind, text).is_some())
    };
    let bare_raw = bare(raw);
    let bare_value = without_comment(raw).map_or(bare_raw, bare);
    let candidate = match kind {
        Kind::Secret | Kind::SecretJson | Kind::Proxy => return None,
        _ if kind != Kind::Names && bare_value != raw && is_usable(bare_value) => Some(bare_value.to_owned()),
        _ if bare_value.len() > MAX_VALUE => None,
        Kind::Region => region(bare_value),
        Kind::Path | Kind::HomePath => Some(bare_value.trim_start_matches('=').trim_start().to_owned()),
        Kind::Duration(_) => with_unit(bare_value, default, is_usable).or_else(|| in_go_units(bare_value)),
        Kind::Switch | Kind::Flag => switch(bare_value).map(str::to_owned),
        Kind::Choice(words) | Kind::TrimmedChoice(words) | Kind::AnyCase(words) => {
            choice(bare_value, words).map(str::to_owned)
        }
        Kind::Unsigned16 => size(bare_value, &[("kib", 1, 1024), ("mib", 1, 1), ("gib", 1024, 1)]),
        Kind::Decimal => size(bare_value, &[("mb", 1, 1), ("mib", 1, 1), ("gb", 1000, 1), ("gib", 1024, 1)]),
        Kind::Integer(_) | Kind::TrimmedInteger(_) => bare_value.strip_suffix('%').map(|text| text.trim().to_owned()),
        Kind::PortRange => port_range(bare_value),
        Kind::Ports => Some(format!("[{}]", members(bare_value).join(","))),
        Kind::Names => words(bare_value),
        _ => None,
    };
    candidate.filter(|text| text != raw && is_usable(text))
}

/// The region in a text, such as that of a zone (`eu-west-1a`) or `EU_WEST_1`.
fn region(text: &str) -> Option<String> {
    let text = text.to_ascii_lowercase().replace(['_', ' '], "-");
    let ends = (1..=text.len()).rev().filter(|end| text.is_char_boundary(*end));
    let found = ends.map(|end| &text[..end]).find(|start| super::names::is_region(start))?;
    Some(super::names::meant_region(found).unwrap_or_else(|| found.to_owned()))
}

fn switch(text: &str) -> Option<&'static str> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "y" | "on" | "enabled" | "enable" => Some("true"),
        "false" | "no" | "n" | "off" | "disabled" | "disable" => Some("false"),
        other => closest(other, ["true", "false"].into_iter()),
    }
}

fn choice(text: &str, words: &[&'static str]) -> Option<&'static str> {
    let text = text.to_ascii_lowercase();
    let beginning = begun_by(&text, words); // `warning`, `critical`
    beginning.or_else(|| closest(&text, words.iter().copied()))
}

/// A number with a unit that is not part of the value, such as `1GiB`, in the variable's unit. Each unit is that many times (and
/// one of so many parts of) the variable's. `m`, `mb` and `mi` count as `mib`.
fn size(text: &str, units: &[(&str, u64, u64)]) -> Option<String> {
    let end = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(end);
    let unit = unit.trim().to_ascii_lowercase();
    let first = unit.chars().next()?;
    let is_same = |known: &str| {
        known == unit || (known.starts_with(first) && matches!(&unit[first.len_utf8()..], "" | "b" | "i" | "ib"))
    };
    let (_, times, parts) = units.iter().find(|(known, ..)| is_same(known))?;
    let number = number.parse::<u64>().ok()?.checked_mul(*times)?;
    (number % parts == 0).then(|| (number / parts).to_string())
}

fn port_range(text: &str) -> Option<String> {
    let ends: Vec<&str> = text.split(|c: char| !c.is_ascii_digit()).filter(|end| !end.is_empty()).collect();
    match ends[..] {
        [first, last] => Some(format!("{first}-{last}")),
        _ => None,
    }
}

/// The members of a list in any notation.
fn members(text: &str) -> Vec<&str> {
    let parts = text.split([',', ' ', ';']).map(|part| part.trim_matches(['[', ']', '"', '\'', ' ']));
    parts.filter(|part| !part.is_empty()).collect()
}

/// A JSON list of known words, if each member is one or close to one.
fn words(text: &str) -> Option<String> {
    let known: Vec<&'static str> = LOG_DRIVERS.into_iter().chain(PLUGIN_CAPABILITIES).collect();
    let words: Option<Vec<&str>> = members(text).into_iter().map(|word| meant_word(word, &known)).collect();
    words.filter(|words| !words.is_empty()).map(|words| format!("[\"{}\"]", words.join("\",\"")))
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

/// The line that was probably meant, for a line that sets a variable in another notation, such as `export NAME=value`; `None`: there
/// is no value, or it may not be shown.
pub(super) fn meant_line(line: &str) -> Option<String> {
    let is_of_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let key = line.split(|c: char| !is_of_name(c)).find_map(super::keys::find)?;
    let (_, rest) = line.split_once(key.name)?;
    let written = rest.trim_start_matches(['"', '\'', ' ', '\t', '=', ':']).trim();
    let written = without_comment(written).map_or_else(|| bare(written), bare);
    let is_shown = !key.kind.is_secret() && matches!(key.kind.parse(written, key.default), Parsed::Value(_));
    let text = value(key.kind, written).filter(|_| is_shown && !rest.starts_with(is_of_name))?;
    Some(format!("{}={text}", key.name))
}

#[cfg(test)]
mod tests {
    use super::super::keys::{KEYS, find};
    use super::super::kind::Limit;
    use super::*;

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
            ("ECS_CONTAINER_STOP_TIMEOUT", "2m # long", Some("2m")),
            ("ECS_CONTAINER_STOP_TIMEOUT", "\"2m\" # long", Some("2m")),
            ("ECS_CGROUP_CPU_PERIOD", "50", Some("50ms")),
            ("ECS_CONTAINER_STOP_TIMEOUT", "soon", None),
            ("ECS_CONTAINER_STOP_TIMEOUT", "99999999999999999999", None),
            ("ECS_DISABLE_PRIVILEGED", "yes", Some("true")),
            ("ECS_DISABLE_PRIVILEGED", "'false'", Some("false")),
            ("ECS_DISABLE_PRIVILEGED", "tRUE", Some("true")),
            ("ECS_DISABLE_PRIVILEGED", "true # comment", Some("true")),
            ("ECS_DISABLE_PRIVILEGED", "yes # comment", Some("true")),
            ("ECS_IMAGE_PULL_BEHAVIOR", "Always", Some("always")),
            ("ECS_IMAGE_PULL_BEHAVIOR", "prefer_cached", Some("prefer-cached")),
            ("ECS_LOGLEVEL", "wran", Some("warn")),
            ("ECS_LOGLEVEL", "loud", None),
            ("ECS_CLUSTER", "\"prod\"", Some("prod")),
            ("ECS_CLUSTER", "prod # main", Some("prod")),
            ("ECS_CLUSTER", "$(prod)", None),
            ("ECS_CLUSTER", "my cluster", None),
            ("ECS_RESERVED_MEMORY", "\"64\"", Some("64")),
            ("ECS_RESERVED_MEMORY", "1GiB", Some("1024")),
            ("ECS_RESERVED_MEMORY", "2 GB", Some("2048")),
            ("ECS_RESERVED_MEMORY", "512m", Some("512")),
            ("ECS_RESERVED_MEMORY", "64GiB", None),
            ("ECS_RESERVED_MEMORY", "1TiB", None),
            ("ECS_LOG_MAX_FILE_SIZE_MB", "10MB", Some("10")),
            ("ECS_LOG_MAX_FILE_SIZE_MB", "1g", Some("1000")),
            ("ECS_IMAGE_DISK_HIGH_PERCENT", "85%", Some("85")),
            ("ECS_IMAGE_DISK_HIGH_PERCENT", "185%", None),
            ("ECS_DYNAMIC_HOST_PORT_RANGE", "49153:65535", Some("49153-65535")),
            ("ECS_DYNAMIC_HOST_PORT_RANGE", "49153 - 65535", Some("49153-65535")),
            ("ECS_DYNAMIC_HOST_PORT_RANGE", "65535:1", None),
            ("ECS_RESERVED_PORTS", "22,80", Some("[22,80]")),
            ("ECS_RESERVED_PORTS", "22", Some("[22]")),
            ("ECS_RESERVED_PORTS", "[\"22\", \"80\"]", Some("[22,80]")),
            ("ECS_RESERVED_PORTS", "ssh", None),
            ("ECS_AVAILABLE_LOGGING_DRIVERS", "json-file,awslogs", Some("[\"json-file\",\"awslogs\"]")),
            ("ECS_AVAILABLE_LOGGING_DRIVERS", "[json-file, awslog]", Some("[\"json-file\",\"awslogs\"]")),
            ("ECS_AVAILABLE_LOGGING_DRIVERS", "'[\"json-file\"]'", Some("[\"json-file\"]")),
            ("ECS_AVAILABLE_LOGGING_DRIVERS", "hunter2", None),
            ("ECS_VOLUME_PLUGIN_CAPABILITIES", "efsauth", Some("[\"efsAuth\"]")),
            ("AWS_DEFAULT_REGION", "\"eu-west-1\"", Some("eu-west-1")),
            ("AWS_DEFAULT_REGION", "eu-west-1a", Some("eu-west-1")),
            ("AWS_DEFAULT_REGION", "EU_WEST_1", Some("eu-west-1")),
            ("AWS_DEFAULT_REGION", "Frankfurt", None),
            ("ECS_DATADIR", "\"/data\"", Some("/data")),
            ("ECS_DATADIR", "=/data", Some("/data")),
            ("ECS_DATADIR", " /data", Some("/data")),
            ("ECS_DATADIR", "/data # here", Some("/data")),
            ("ECS_DATADIR", "data", None),
            ("ECS_ENGINE_AUTH_DATA", "'{}'", None),
        ] {
            let key = find(name).unwrap();
            assert_eq!(meant(key.kind, raw, key.default).as_deref(), value, "{name}={raw}");
        }
        assert_eq!(meant(Kind::Duration(Limit::Any), "", ""), None);
    }

    /// A word that begins with a known one, and one that is close to two.
    #[test]
    fn the_word_that_was_meant() {
        for (name, raw, value) in [
            ("ECS_LOGLEVEL", "warning", Some("warn")),
            ("ECS_ENGINE_AUTH_TYPE", "dockerconfig", Some("dockercfg")),
            ("ECS_ENGINE_AUTH_TYPE", "docker-config", Some("dockercfg")),
            ("ECS_ENGINE_AUTH_TYPE", "docker_cfg", Some("dockercfg")),
            ("ECS_ENGINE_AUTH_TYPE", "DockerCfg", Some("dockercfg")),
            ("ECS_ENGINE_AUTH_TYPE", "dockerhub", Some("docker")),
            ("ECS_ENGINE_AUTH_TYPE", "Docker", Some("docker")),
            ("ECS_ENGINE_AUTH_TYPE", "dokcer", Some("docker")),
        ] {
            let key = find(name).unwrap();
            assert_eq!(meant(key.kind, raw, key.default).as_deref(), value, "{name}={raw}");
        }
    }

    #[test]
    fn the_line_that_was_meant() {
        for (line, meant) in [
            ("export ECS_CLUSTER=prod", Some("ECS_CLUSTER=prod")),
            ("ECS_CLUSTER prod", Some("ECS_CLUSTER=prod")),
            ("ECS_CLUSTER: prod", Some("ECS_CLUSTER=prod")),
            ("ECS_CLUSTER = \"prod\"", Some("ECS_CLUSTER=prod")),
            ("- ECS_CLUSTER=prod # main", Some("ECS_CLUSTER=prod")),
            ("ECS_CLUSTER", None),
            ("ECS_CLUSTER: my cluster", None),
            ("export ECS_ENGINE_AUTH_DATA={\"r\":{}}", None),
            ("AWS_SECRET_ACCESS_KEY: hunter2", None),
            ("ECS_NVIDIA_RUNTIME hunter2", None),
            ("some words", None),
        ] {
            assert_eq!(meant_line(line).as_deref(), meant, "{line}");
        }
    }

    proptest::proptest! {
        /// A suggestion is accepted, and is short.
        #[test]
        fn a_suggestion_works(row in 0..KEYS.len(), raw in "[\"' #a-zA-Z0-9{}=$%:,/\u{e4}-]{0,12}") {
            let key = &KEYS[row];
            if let Some(text) = meant(key.kind, &raw, key.default) {
                proptest::prop_assert!(matches!(key.kind.parse(&text, key.default), Parsed::Value(_)), "{text}");
                proptest::prop_assert!(!key.kind.is_secret() && text.len() <= 2 * MAX_VALUE);
            }
            let _ = meant_line(&format!("{} {raw}", key.name));
        }
    }
}
