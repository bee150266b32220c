//! What is wrong with the operator's registry credentials, as text for a log and for a check.
//!
//! Owns the form that is expected for each type, and the member that a misspelt one was meant to be. Invariant: no text holds a part of
//! the document but registries and names that are close to a known one.

use crate::input::members::Members;
use std::fmt;

/// The members of an entry that have a meaning.
const MEMBERS: [&str; 7] = ["auth", "username", "password", "email", "serveraddress", "identitytoken", "registrytoken"];

/// Other words for these members.
const OTHER_WORDS: [(&str, &str); 6] = [
    ("user", "username"),
    ("login", "username"),
    ("pass", "password"),
    ("passwd", "password"),
    ("pwd", "password"),
    ("token", "identitytoken"),
];

/// One problem with the document. `Display` makes the text for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthProblem {
    /// What was found.
    pub shape: String,
    /// The expected form.
    pub expected: String,
    /// What happens now.
    pub instead: &'static str,
    /// The agent does what is written, which is only unusual.
    pub is_note: bool,
}

impl AuthProblem {
    /// A part of the document is ignored.
    pub(super) fn ignored(shape: impl Into<String>, expected: impl Into<String>, instead: &'static str) -> Self {
        Self { shape: shape.into(), expected: expected.into(), instead, is_note: false }
    }
}

impl fmt::Display for AuthProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.shape, self.instead)
    }
}

/// The document that is expected with this type.
pub(super) fn form(auth_type: &str) -> &'static str {
    match auth_type {
        "docker" => r#"{"registry.example.com":{"username":"USER","password":"PASSWORD"}}"#,
        _ => r#"{"registry.example.com":{"auth":"BASE64"}}, where BASE64 is that of USER:PASSWORD"#,
    }
}

/// The name belongs to an entry, not to the document.
pub(super) fn is_member(name: &str) -> bool {
    MEMBERS.iter().any(|member| member.eq_ignore_ascii_case(name))
}

/// A name in the entry that is no member, and the member that was meant; `None`: there is none that is close to one.
pub(super) fn misspelt(entry: &Members<'_>) -> Option<(String, &'static str)> {
    const MIN_LENGTH: usize = 3;
    const MAX_LENGTH: usize = 20;
    const MAX_EDITS: usize = 2;
    entry.iter().filter(|(name, _)| !is_member(name)).find_map(|(name, _)| {
        let name = name.to_ascii_lowercase();
        let word = OTHER_WORDS.iter().find(|(word, _)| *word == name).map(|(_, meant)| *meant);
        let may_be = (MIN_LENGTH..=MAX_LENGTH).contains(&name.len());
        let close = || {
            if !may_be {
                return None;
            }
            let distances = MEMBERS.into_iter().map(|member| (strsim::osa_distance(&name, member), member));
            let (edits, member) = distances.min()?;
            // A short word with two errors is close to every other short word.
            (edits <= MAX_EDITS.min(name.len() / 4).max(1)).then_some(member)
        };
        let meant = word.or_else(close)?;
        Some((name, meant))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misspelt_members_are_named_and_others_are_not() {
        for (entry, found) in [
            (r#"{"username":"u","pasword":"p"}"#, Some(("pasword", "password"))),
            (r#"{"user":"u"}"#, Some(("user", "username"))),
            (r#"{"Passwd":"p"}"#, Some(("passwd", "password"))),
            (r#"{"user_name":"u"}"#, Some(("user_name", "username"))),
            (r#"{"usrname":"u"}"#, Some(("usrname", "username"))),
            (r#"{"aut":"u"}"#, Some(("aut", "auth"))),
            (r#"{"auht":"u"}"#, Some(("auht", "auth"))),
            (r#"{"path":"u","url":"x","key":"y"}"#, None),
            (r#"{"username":"u","PASSWORD":"p"}"#, None),
            (r#"{"hunter2":"x","x":1}"#, None),
            (r#"{}"#, None),
        ] {
            let entry_members = Members::parse(entry).unwrap();
            let shown = misspelt(&entry_members);
            assert_eq!(shown.as_ref().map(|(name, meant)| (name.as_str(), *meant)), found, "{entry}");
        }
        let long = format!("{{\"{}\":1}}", "password".repeat(1 << 16));
        assert_eq!(misspelt(&Members::parse(&long).unwrap()), None);
    }
}
