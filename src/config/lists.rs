//! Parsers of the kinds that are written as JSON: ports, names, maps, network ranges (spec `config.md` §2, "Parsers").
//!
//! This module reads such a text as Go's decoder does. It does not know variables. Invariant: as in
//! [`super::kind`], nothing is dropped silently.

use super::parsed::Parsed::{self, Adjusted, Doubtful, Rejected, Unset, Value as Accepted};
use crate::input::prefix::prefix;
use ecs_core::model::Prefix;
use percent_encoding::percent_decode_str;
use serde_json::Value;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

/// The first JSON value, as Go's decoder reads it, and whether other text follows.
fn first_value(raw: &str) -> Option<(Value, bool)> {
    let mut values = serde_json::Deserializer::from_str(raw).into_iter::<Value>();
    let first = values.next()?.ok()?;
    let more = !raw.get(values.byte_offset()..).unwrap_or_default().trim().is_empty();
    Some((first, more))
}

/// The members of a non-empty array, and whether other text follows. The error is the result of parsing a text without such an
/// array.
fn array(raw: &str, default: &str) -> Result<(Vec<Value>, bool), Parsed> {
    if raw.trim().is_empty() {
        return Err(Unset);
    }
    match first_value(raw) {
        Some((Value::Null, _)) => Err(Unset),
        // An empty list counts as not set: it cannot replace the list of the default.
        Some((Value::Array(members), _)) if members.is_empty() => {
            Err(if matches!(default, "" | "[]") { Unset } else { Rejected })
        }
        Some((Value::Array(members), more)) => Ok((members, more)),
        Some(_) | None => Err(Rejected),
    }
}

const REST_IGNORED: &str = "what follows the first JSON value is ignored";

pub(super) fn ports(raw: &str, default: &str) -> Parsed {
    let (members, more) = match array(raw, default) {
        Ok(found) => found,
        Err(outcome) => return outcome,
    };
    let read = |member: &Value| member.as_u64().and_then(|port| u16::try_from(port).ok());
    let bad: Vec<&Value> = members.iter().filter(|member| read(member).is_none()).collect();
    // The Go agent keeps 0 in place of a bad member, and registers it. No task can use port 0, so it is left out here.
    let list: Vec<String> = members.iter().filter_map(|member| Some(read(member)?.to_string())).collect();
    let value = list.join(",");
    match (bad.split_first(), more) {
        (None, false) => Accepted(value),
        (None, true) => Adjusted { value, instead: REST_IGNORED.to_owned() },
        (Some((first, others)), _) => Adjusted { value, instead: not_reserved(first, others.len()) },
    }
}

/// What follows from members that are no ports. A text may be a secret in the wrong place, so only a number is shown.
fn not_reserved(first: &Value, others: usize) -> String {
    let what = match first {
        Value::Number(number) => format!("`{number}`"),
        other => json_type(other).to_owned(),
    };
    match others {
        0 => format!("{what} is no port and is not reserved"),
        _ => format!("{what} and {others} more are no ports and are not reserved"),
    }
}

/// The type of a JSON value, for a message.
pub(super) fn json_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// Parses a list with commas. Compat: as in the Go agent, white space is kept.
pub(super) fn list(raw: &str) -> Parsed {
    let members: Vec<&str> = raw.split(',').collect();
    let is_padded = members.iter().any(|member| member.trim() != *member);
    match json(&members) {
        Accepted(value) if is_padded => {
            Doubtful { value, instead: "the white space is taken as a part of the name, which then names nothing" }
        }
        other => other,
    }
}

/// Parses `key=value,…` as OpenTelemetry writes it: white space around keys and values is ignored, values are percent-encoded. The
/// canonical form is a JSON object.
pub(super) fn pairs(raw: &str) -> Parsed {
    match read_pairs(raw) {
        Some(pairs) if pairs.is_empty() => Unset,
        Some(pairs) => json(&pairs),
        None => Rejected,
    }
}

/// Parses pairs that are names and values of HTTP headers.
pub(super) fn headers(raw: &str) -> Parsed {
    let is_header = |(name, value): (&String, &String)| {
        http::HeaderName::from_bytes(name.as_bytes()).is_ok() && http::HeaderValue::from_str(value).is_ok()
    };
    match read_pairs(raw) {
        Some(pairs) if pairs.is_empty() => Unset,
        Some(pairs) if pairs.iter().all(is_header) => json(&pairs),
        Some(_) | None => Rejected,
    }
}

fn read_pairs(raw: &str) -> Option<BTreeMap<String, String>> {
    let members = raw.split(',').map(str::trim).filter(|member| !member.is_empty());
    let read = |member: &str| {
        let (key, value) = member.split_once('=')?;
        let decoded = |text: &str| percent_decode_str(text.trim()).decode_utf8().ok().map(Cow::into_owned);
        Some((decoded(key).filter(|key| !key.is_empty())?, decoded(value)?))
    };
    members.map(read).collect()
}

pub(super) fn names(raw: &str, default: &str) -> Parsed {
    let (members, more) = match array(raw, default) {
        Ok(found) => found,
        Err(outcome) => return outcome,
    };
    let texts: Option<Vec<&str>> = members.iter().map(Value::as_str).collect();
    match texts {
        Some(texts) if more => Adjusted { value: Value::from(texts).to_string(), instead: REST_IGNORED.to_owned() },
        Some(texts) => json(&texts),
        None => Rejected,
    }
}

/// Parses an object. As in Go, a `null` member is an empty text, and the last value of a repeated key is used.
pub(super) fn map(raw: &str) -> Parsed {
    match serde_json::from_str::<Option<BTreeMap<String, Option<String>>>>(raw) {
        Ok(None) => Unset,
        Ok(Some(members)) if members.is_empty() => Unset,
        Ok(Some(members)) => {
            json(&members.into_iter().map(|(key, value)| (key, value.unwrap_or_default())).collect::<BTreeMap<_, _>>())
        }
        Err(_) => Rejected,
    }
}

/// Parses mirrors. Each part must be valid in an image's name, or every pull would fail.
pub(super) fn mirrors(raw: &str) -> Parsed {
    let is_host = is_registry_host;
    let is_path =
        |text: &str| text.split('/').all(|part| !part.is_empty() && is_part_of_name(part) && !part.contains(':'));
    let is_mirror = |text: &str| match text.trim_end_matches('/').split_once('/') {
        Some((host, path)) => is_host(host) && is_path(path),
        None => is_host(text.trim_end_matches('/')),
    };
    match serde_json::from_str::<BTreeMap<String, String>>(raw) {
        Ok(members) if members.is_empty() => Unset,
        Ok(members) if members.iter().all(|(host, mirror)| is_host(host) && is_mirror(mirror)) => json(&members),
        Ok(_) | Err(_) => Rejected,
    }
}

/// The text is the host of a registry as image names have it, with or without a port.
pub(super) fn is_registry_host(text: &str) -> bool {
    is_part_of_name(text) && (text.contains(['.', ':']) || text == "localhost")
}

fn is_part_of_name(text: &str) -> bool {
    text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-:".contains(c))
}

/// The IPv6 ranges are left out: the link between the instance and its tasks is IPv4 only.
pub(super) fn cidrs(raw: &str) -> Parsed {
    let Ok(ranges) = serde_json::from_str::<Vec<String>>(raw) else { return Rejected };
    if !ranges.iter().all(is_range) {
        return Rejected;
    }
    let ipv4: Vec<&String> = ranges.iter().filter(|range| prefix::<Ipv4Addr>(range).is_some()).collect();
    match serde_json::to_string(&ipv4) {
        Ok(_) if ranges.is_empty() => Unset,
        Ok(value) if ipv4.len() == ranges.len() => Accepted(value),
        Ok(value) => Adjusted {
            value,
            instead: "the IPv6 ranges are left out: tasks reach the instance over IPv4 only".to_owned(),
        },
        Err(_) => Rejected,
    }
}

/// Parses an address of the link between the instance and a task, with a length. Compat: the length is required, and has no
/// effect.
pub(super) fn local_address(text: &str) -> Parsed {
    match prefix::<Ipv4Addr>(text) {
        None if text.is_empty() => Unset,
        Some(Prefix { address, .. }) if is_local(address) => Accepted(address.to_string()),
        _ => Rejected,
    }
}

/// Whether a task may have this address on the link to its instance (spec `networking.md` §7): neither the first two of the
/// range nor the last one.
fn is_local(address: Ipv4Addr) -> bool {
    (Ipv4Addr::new(169, 254, 172, 2)..=Ipv4Addr::new(169, 254, 175, 254)).contains(&address)
}

pub(super) fn is_range(text: &impl AsRef<str>) -> bool {
    prefix::<IpAddr>(text.as_ref()).is_some()
}

fn json<T: serde::Serialize>(value: &T) -> Parsed {
    serde_json::to_string(value).map_or(Rejected, Accepted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_read_as_opentelemetry_writes_them() {
        for (raw, wanted) in [
            (" ", Unset),
            (",", Unset),
            ("a=b", Accepted(r#"{"a":"b"}"#.to_owned())),
            (" a = b , c=d=e%2Cf,", Accepted(r#"{"a":"b","c":"d=e,f"}"#.to_owned())),
            ("a=", Accepted(r#"{"a":""}"#.to_owned())),
            ("a=1,a=2", Accepted(r#"{"a":"2"}"#.to_owned())),
            ("a", Rejected),
            ("=b", Rejected),
            ("a=%ff", Rejected),
        ] {
            assert_eq!(pairs(raw), wanted, "{raw}");
        }
        assert_eq!(pairs("service version=1"), Accepted(r#"{"service version":"1"}"#.to_owned()));
        for raw in ["service version=1", "a=b%0Ac", "\u{e4}=b", "a b"] {
            assert_eq!(headers(raw), Rejected, "{raw}");
        }
        let bearer = Accepted(r#"{"authorization":"Bearer x"}"#.to_owned());
        assert_eq!((headers("authorization=Bearer%20x"), headers(" ")), (bearer, Unset));
    }
}
