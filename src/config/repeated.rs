//! Names that are given twice in one JSON object. As in Go, the last one counts, so the first one is lost.
//!
//! This module only finds them; `resolve` makes the problem. Invariant: a name that may be shown is returned, and no value.

use super::kind::Kind;
use crate::input::members::Members;
use ecs_core::model::text::cut;
use std::collections::BTreeSet;

/// The members of registry credentials whose names may be shown. A registry that is named twice is reported where the credentials
/// are read.
const CREDENTIALS: [&str; 10] = [
    "auth",
    "auths",
    "credHelpers",
    "credsStore",
    "email",
    "identitytoken",
    "password",
    "registrytoken",
    "serveraddress",
    "username",
];

/// A name that is given twice in one object; `None`: there is none, or the kind has no objects.
pub(super) fn repeated(kind: Kind, raw: &str) -> Option<String> {
    match kind {
        Kind::Map | Kind::Mirrors => {
            let members = Members::parse(raw).ok()?;
            let mut seen = BTreeSet::new();
            members.iter().find(|(name, _)| !seen.insert(name.to_string())).map(|(name, _)| cut(name, MAX_NAME))
        }
        Kind::SecretJson => repeated_credential(raw, CREDENTIALS_DEPTH),
        _ => None,
    }
}

/// The depth of the members of an entry: `{"auths": {"registry": {"auth": ...}}}`.
const CREDENTIALS_DEPTH: usize = 3;
/// Maximum length of a name in a message, in bytes.
const MAX_NAME: usize = 64;

fn repeated_credential(raw: &str, depth: usize) -> Option<String> {
    let members = Members::parse(raw).ok().filter(|_| depth > 0)?;
    let mut seen = BTreeSet::new();
    let known = |name: &str| CREDENTIALS.iter().find(|known| known.eq_ignore_ascii_case(name));
    let twice = members.iter().filter_map(|(name, _)| known(name)).find(|known| !seen.insert(**known));
    let inner = || members.iter().find_map(|(_, raw)| repeated_credential(raw.get(), depth - 1));
    twice.map(|name| (*name).to_owned()).or_else(inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_given_twice_is_found() {
        let (map, secret) = (Kind::Map, Kind::SecretJson);
        for (kind, raw, name) in [
            (map, r#"{"a":"1","b":"2"}"#, None),
            (map, r#"{"a":"1","A":"2"}"#, None),
            (map, r#"{"a":"1","b":"2","a":"3"}"#, Some("a")),
            (map, r#"{"a":"1","\u0061":"1"}"#, Some("a")),
            (Kind::Mirrors, r#"{"docker.io":"a.io","docker.io":"b.io"}"#, Some("docker.io")),
            (secret, r#"{"r.io":{"auth":"x"},"r.io":{"auth":"y"}}"#, None),
            (secret, r#"{"r.io":{"auth":"x","auth":"y"}}"#, Some("auth")),
            (secret, r#"{"r.io":{"auth":"x","Auth":"y"}}"#, Some("auth")),
            (secret, r#"{"auths":{"r.io":{"password":"x","password":"y"}}}"#, Some("password")),
            (secret, r#"{"auths":{},"auths":{}}"#, Some("auths")),
            (secret, r#"{"r.io":{"hunter2":"x","hunter2":"y"}}"#, None),
            (secret, r#"["a","a"]"#, None),
            (Kind::Text, r#"{"a":"1","a":"2"}"#, None),
        ] {
            assert_eq!(repeated(kind, raw).as_deref(), name, "{raw}");
        }
        let long = format!("{{\"{0}\":\"\",\"{0}\":\"\"}}", "x".repeat(1 << 20));
        assert!(repeated(map, &long).is_some_and(|name| name.len() <= MAX_NAME));
    }
}
