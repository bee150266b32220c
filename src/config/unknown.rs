//! Names that look like variables of this agent but are not: misspelt, in another notation, or with another text around them.
//!
//! This module finds them in the sources and suggests the known name. It reads no value. Invariant: a part of a name that may be
//! a value in the wrong place is not shown.

use super::keys::{KEYS, Stage, find};
use super::problem::{Problem, Severity};
use super::resolve::CLUSTER;
use super::source::Source;
use super::suggest::{closest, did_you_mean};
use std::collections::BTreeSet;

/// Variables that ECS itself sets in a container, such as the agent's own when it runs as a task.
const INJECTED: [&str; 4] =
    ["ECS_CONTAINER_METADATA_URI", "ECS_CONTAINER_METADATA_URI_V4", "ECS_CONTAINER_METADATA_FILE", "ECS_AGENT_URI"];

/// Maximum length in characters of an unknown name that is reported. A longer name is not a typing error.
const MAX_NAME_LENGTH: usize = 80;

/// Names of other programs, without what is neither a letter nor a digit, with the variable that was meant.
const OTHER_NAMES: [(&str, &str); 8] = [
    ("CLUSTER", CLUSTER),
    ("CLUSTERNAME", CLUSTER),
    ("ECSCLUSTERNAME", CLUSTER),
    ("AWSREGION", "AWS_DEFAULT_REGION"),
    ("AWSACCESSKEY", "AWS_ACCESS_KEY_ID"),
    ("AWSSECRETKEY", "AWS_SECRET_ACCESS_KEY"),
    ("AWSSECURITYTOKEN", "AWS_SESSION_TOKEN"),
    ("AWSTOKEN", "AWS_SESSION_TOKEN"),
];

/// Warns about such names. `cluster` is the cluster that the agent joins; `None`: it joins none.
pub(super) fn names(sources: &[&dyn Source], cluster: Option<&str>, problems: &mut Vec<Problem>) {
    let mut reported = BTreeSet::new();
    for (number, source) in sources.iter().enumerate() {
        for name in source.keys() {
            if find(&name).is_some() || INJECTED.contains(&name.as_str()) {
                continue;
            }
            // The first source is the environment of the process, where a general name may be another program's.
            let Some(Unknown { shown, shape, meant }) = unknown(&name, number > 0) else { continue };
            if !reported.insert(shown.clone()) {
                continue;
            }
            let instead = match cluster.filter(|_| meant == Some(CLUSTER)) {
                Some(cluster) => format!("it is ignored, and the agent joins the cluster `{cluster}`"),
                None => "it is ignored".to_owned(),
            };
            problems.push(Problem {
                variable: shown,
                place: source.place(&name),
                shape,
                expected: format!("a name that `ecs-agent help` lists{}", meant.map_or_else(String::new, did_you_mean)),
                instead,
                severity: Severity::Changes,
            });
        }
    }
}

/// A name that is no variable.
struct Unknown {
    /// The part of the name that may be shown.
    shown: String,
    shape: String,
    /// The variable that was probably meant; `None` if that is unclear.
    meant: Option<&'static str>,
}

fn unknown(name: &str, is_in_file: bool) -> Option<Unknown> {
    let is_of_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let notation =
        Some(name).filter(|name| is_in_file && name.len() <= 2 * MAX_NAME_LENGTH).and_then(in_other_notation);
    // In `ECS_X:{"password"...` the "name" holds the value, so only the part that could be a name is shown.
    let start = name.trim_start_matches(|c: char| !c.is_ascii_alphanumeric());
    let (word, rest) = start.split_at(start.find(|c: char| !is_of_word(c)).unwrap_or(start.len()));
    if word.len() > MAX_NAME_LENGTH {
        return None;
    }
    let upper = word.to_ascii_uppercase();
    let general = general_name(&upper).filter(|_| is_in_file);
    let has_prefix = ["ECS_", "NON_ECS_", "NONECS_"].iter().any(|prefix| upper.starts_with(prefix));
    let meant = notation.or(general).or_else(|| meant(&upper).filter(|_| has_prefix));
    if !has_prefix && meant.is_none() {
        return None;
    }
    let before = &name[..name.len() - start.len()];
    let shape = match (before.chars().next_back(), rest.chars().next()) {
        (None, None) => "not a variable of this agent".to_owned(),
        (Some(character), _) => format!("a name with {} before it", shown_character(character)),
        (None, Some(character)) if notation.is_some() => format!("a name with {} in it", shown_character(character)),
        (None, Some(character)) => format!("a name followed by {}", shown_character(character)),
    };
    // All letters are those of a known name, so the whole name may be shown.
    let is_whole = notation.is_some() && before.is_empty();
    Some(Unknown { shown: if is_whole { name.to_owned() } else { word.to_owned() }, shape, meant })
}

/// A character of a name, for a message.
fn shown_character(c: char) -> String {
    match c {
        '`' => "a backtick".to_owned(),
        _ if c.is_ascii_graphic() => format!("`{c}`"),
        _ => format!("the character U+{:04X}", u32::from(c)),
    }
}

/// The variable whose letters and digits a name has, such as `ECS-RESERVED-MEMORY` or `Ecs.LogLevel`, or the one that a name of
/// another program stands for.
fn in_other_notation(name: &str) -> Option<&'static str> {
    let plain = |name: &str| name.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_uppercase();
    let letters = plain(name);
    let other = OTHER_NAMES.iter().find(|(other, _)| *other == letters).map(|(_, meant)| *meant);
    let variables = || KEYS.iter().filter(|key| !key.is_only_json() && (key.name.contains('_')));
    other.or_else(|| variables().find(|key| plain(key.name) == letters).map(|key| key.name))
}

/// The variable without `ECS` in its name for which this name in a file was probably meant; `None`: it is another program's.
fn general_name(name: &str) -> Option<&'static str> {
    let known = KEYS.iter().filter(|key| key.stage == Stage::Now && !key.is_only_json()).map(|key| key.name);
    closest(name, known.filter(|known| !known.contains("ECS_")))
}

/// The variable for which a name was probably meant: with few edits, or as the beginning of the name.
fn meant(name: &str) -> Option<&'static str> {
    let known = || KEYS.iter().filter(|key| key.stage != Stage::Foreign && !key.is_only_json()).map(|key| key.name);
    let is_longer = |known: &&str| name.strip_prefix(*known).is_some_and(|rest| rest.starts_with('_'));
    closest(name, known()).or_else(|| known().filter(is_longer).max_by_key(|known| known.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_files_are_recognised_in_any_notation() {
        for (name, shown, shape, meant) in [
            ("ECS-RESERVED-MEMORY", "ECS-RESERVED-MEMORY", "a name with `-` in it", Some("ECS_RESERVED_MEMORY")),
            ("ECS.LOGLEVEL", "ECS.LOGLEVEL", "a name with `.` in it", Some("ECS_LOGLEVEL")),
            ("ECS-CLUSTER", "ECS-CLUSTER", "a name with `-` in it", Some("ECS_CLUSTER")),
            ("EcsLogLevel", "EcsLogLevel", "not a variable of this agent", Some("ECS_LOGLEVEL")),
            ("AWS_SECRET_KEY", "AWS_SECRET_KEY", "not a variable of this agent", Some("AWS_SECRET_ACCESS_KEY")),
            ("AWS_ACCESS_KEY", "AWS_ACCESS_KEY", "not a variable of this agent", Some("AWS_ACCESS_KEY_ID")),
            ("AWS_REGION", "AWS_REGION", "not a variable of this agent", Some("AWS_DEFAULT_REGION")),
            ("ECS_CLUSTR", "ECS_CLUSTR", "not a variable of this agent", Some("ECS_CLUSTER")),
            ("ECS_COFFEE_MACHINE", "ECS_COFFEE_MACHINE", "not a variable of this agent", None),
            ("\"ECS_CLUSTER\"", "ECS_CLUSTER", "a name with `\"` before it", Some("ECS_CLUSTER")),
            ("\u{200b}ECS_CLUSTER", "ECS_CLUSTER", "a name with the character U+200B before it", Some("ECS_CLUSTER")),
            ("ECS_CLUSTER:hunter2", "ECS_CLUSTER", "a name followed by `:`", Some("ECS_CLUSTER")),
            ("ECS_CLUSTER`", "ECS_CLUSTER`", "a name with a backtick in it", Some("ECS_CLUSTER")),
        ] {
            let found = unknown(name, true).unwrap_or_else(|| panic!("{name} is not reported"));
            assert_eq!((found.shown.as_str(), found.shape.as_str(), found.meant), (shown, shape, meant), "{name}");
        }
        for other in ["JAVA_HOME", "LANG", "MY_OWN", "hunter2", ""] {
            assert!(unknown(other, true).is_none(), "{other}");
        }
        for other in ["AWS_SECRET_KEY", "CLUSTER", "ECS-LOGLEVEL", "NOPROXY"] {
            assert!(unknown(other, false).is_none(), "{other} in the environment is another program's");
        }
        let long = "-".repeat(1 << 20) + "ECS_CLUSTER";
        assert!(unknown(&long, true).is_some_and(|found| found.shown.len() < 100));
    }
}
