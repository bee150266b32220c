//! Reads a document of a person, and finds all mistakes in it at once: unknown members, wrong types, missing members. The decoder stops
//! at the first one, so each is mended in a copy and the copy is decoded again. This module owns that repair; `unreadable` has the
//! words. Invariant: a part that was mended is never reported, and a document with a mistake is never accepted.

use super::misplaced;
use super::unreadable::{missing_member, problem, unknown_member};
use crate::objects::Strict;
use ecs_core::model::text::cut;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use serde_path_to_error::{Path, Segment};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Maximum number of mistakes that are reported together.
pub(super) const MAX_MISTAKES: usize = 20;
/// Maximum length of the text of one mistake in bytes. It may show a name of any length.
pub(super) const MAX_TEXT: usize = 1000;
/// Maximum number of repairs: each mistake takes a few.
const MAX_REPAIRS: usize = 8 * MAX_MISTAKES;

/// Where something is in a document.
type Place = Vec<Step>;

/// One step of the way to a place: sorted as a person counts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Item(usize),
    Member(String),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Item(index) => index.fmt(f),
            Self::Member(name) => f.write_str(name),
        }
    }
}

/// Decodes `value`, which is called `what` in the error.
///
/// # Errors
/// All mistakes, one a line, sorted by place.
pub(crate) fn decode<T: DeserializeOwned>(what: &str, value: Value) -> Result<T, String> {
    let mut error = match attempt(&value) {
        Ok(decoded) => return Ok(decoded),
        Err(error) => error,
    };
    let mut copy = value;
    let mut mistakes: BTreeSet<(Place, String)> = BTreeSet::new();
    let mut tried: BTreeMap<Place, usize> = BTreeMap::new();
    let mut has_more = true;
    for _ in 0..MAX_REPAIRS {
        let text = error.inner().to_string();
        let place = place(error.path());
        let mut broken = place.clone();
        broken.extend(missing_member(&text).map(|name| Step::Member(name.to_owned())));
        let is_mended = (0..=broken.len()).any(|length| tried.contains_key(&broken[..length]));
        if !is_mended {
            if mistakes.len() == MAX_MISTAKES {
                break;
            }
            let path = error.path().to_string();
            let shown = if path == "." { String::new() } else { format!("{path}: ") };
            let words = misplaced::<T>(&text, &place).unwrap_or_else(|| problem(&text));
            mistakes.insert((place, cut(&format!("{shown}{words}"), MAX_TEXT)));
        }
        if !mend(&mut copy, &broken, tried.entry(broken.clone()).or_default()) {
            break;
        }
        match attempt::<T>(&copy) {
            Ok(_) => {
                has_more = false;
                break;
            }
            Err(next) => error = next,
        }
    }
    let texts: Vec<String> = mistakes
        .iter()
        .filter(|(place, text)| !is_misspelt(&mistakes, place, text))
        .map(|(_, text)| text.clone())
        .collect();
    let list = listed(&texts, has_more && mistakes.len() == MAX_MISTAKES).unwrap_or_default();
    let space = if list.starts_with('\n') { "" } else { " " };
    Err(format!("{what} cannot be read:{space}{list}"))
}

/// Says where an unknown member belongs; `None`: to no other level.
fn misplaced<T: DeserializeOwned>(text: &str, place: &[Step]) -> Option<String> {
    let (name, _) = unknown_member(text)?;
    let (_, way) = place.split_last()?;
    let way: Vec<String> = way.iter().map(Step::to_string).collect();
    misplaced::remedy(&way, name, |probe| {
        attempt::<T>(probe).err().map(|error| error.inner().to_string()).unwrap_or_default()
    })
}

/// The mistake is a missing member that is there under a misspelt name, which is a mistake of its own.
fn is_misspelt(mistakes: &BTreeSet<(Place, String)>, place: &[Step], text: &str) -> bool {
    let name = text.strip_suffix(" is missing.").and_then(|text| text.rsplit(' ').next());
    let Some(hint) = name.map(|name| format!(" Did you mean {name}?")) else { return false };
    let is_beside = |other: &[Step]| other.len() == place.len() + 1 && other.starts_with(place);
    mistakes.iter().any(|(other, text)| is_beside(other) && text.ends_with(&hint))
}

/// A list of problems as one text: one problem is a part of its line, each of several has a line of its own. `None`: there is none.
pub(super) fn listed(problems: &[String], has_more: bool) -> Option<String> {
    let more = if has_more { "\n  There may be more: these are the first." } else { "" };
    match problems {
        [] => None,
        [single] => Some(format!("{single}{more}")),
        all => Some(all.iter().map(|line| format!("\n  {line}")).collect::<String>() + more),
    }
}

fn attempt<T: DeserializeOwned>(value: &Value) -> Result<T, serde_path_to_error::Error<serde_json::Error>> {
    serde_path_to_error::deserialize(Strict(value))
}

fn place(path: &Path) -> Place {
    let step = |segment: &Segment| match segment {
        Segment::Seq { index } => Some(Step::Item(*index)),
        Segment::Map { key } => Some(Step::Member(key.clone())),
        Segment::Enum { .. } | Segment::Unknown => None,
    };
    path.iter().filter_map(step).collect()
}

/// Makes the next attempt to mend a place: `tried` attempts were in vain. A member is left out first, since most may be missing; then
/// a value of each type follows. Returns false if nothing is left to try.
fn mend(value: &mut Value, broken: &[Step], tried: &mut usize) -> bool {
    let Some((last, way)) = broken.split_last() else { return false };
    let parent = way.iter().try_fold(value, |value, step| match step {
        Step::Item(index) => value.get_mut(index),
        Step::Member(name) => value.get_mut(name),
    });
    let values = [json!(""), json!(0), json!(false), json!([]), json!({})];
    *tried += 1;
    match (parent, last) {
        (Some(Value::Object(members)), Step::Member(name)) if *tried == 1 => {
            // A missing member is put in.
            if members.remove(name).is_none() {
                members.insert(name.clone(), values[0].clone());
                *tried += 1;
            }
            true
        }
        (Some(Value::Object(members)), Step::Member(name)) => {
            let next = values.get(*tried - 2).cloned();
            next.map(|next| members.insert(name.clone(), next)).is_some()
        }
        (Some(Value::Array(items)), Step::Item(index)) => {
            let (Some(item), Some(next)) = (items.get_mut(*index), values.get(*tried - 1)) else { return false };
            *item = next.clone();
            true
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::{ContainerDefinition, TaskDefinition, without_nulls};
    use super::*;

    fn mistakes(definition: Value) -> Vec<String> {
        let text = decode::<TaskDefinition>("It", without_nulls(definition)).unwrap_err();
        let text = text.strip_prefix("It cannot be read:").unwrap();
        text.trim_start().split("\n  ").map(str::to_owned).collect()
    }

    #[test]
    fn all_mistakes_are_reported_in_their_order() {
        let found = mistakes(json!({"family": 5, "cpu": 256, "famly": "f", "containerDefinitions": [
            {"name": "a", "memroy": 1, "essential": "yes", "secrets": [{"name": "A"}, {"nam": "B"}, "C"], "healthCheck": {}},
            "web",
            {"command": ["sleep", 1, null], "ulimits": [{"name": "nofile"}], "logConfiguration": {"options": {"a": 1}}},
        ], "volumes": {}}));
        let wanted = [
            "containerDefinitions[0].essential: it must be a boolean",
            "containerDefinitions[0].healthCheck: `command` is missing.",
            "containerDefinitions[0].memroy: there is no member `memroy`. Did you mean `memory`?",
            "containerDefinitions[0].secrets[0]: `valueFrom` is missing.",
            "containerDefinitions[0].secrets[1]: `valueFrom` is missing.",
            "containerDefinitions[0].secrets[1].nam: there is no member `nam`. Did you mean `name`?",
            "containerDefinitions[0].secrets[2]: it must be an object: { ... }, not a string.",
            "containerDefinitions[1]: it must be an object: { ... }, not a string.",
            "containerDefinitions[2].command[1]: it must be a string, not a number. Write it in quotes.",
            "containerDefinitions[2].command[2]: it must be a string, not null.",
            "containerDefinitions[2].logConfiguration: `logDriver` is missing.",
            "containerDefinitions[2].logConfiguration.options.a: it must be a string, not a number.",
            "containerDefinitions[2].ulimits[0]: `hardLimit` is missing.",
            "containerDefinitions[2].ulimits[0]: `softLimit` is missing.",
            "cpu: it must be a string, not a number. Write it in quotes.",
            "family: it must be a string, not a number. Write it in quotes.",
            "famly: there is no member `famly`. Did you mean `family`?",
            "volumes: it must be an array: [ ... ], not an object.",
        ];
        assert_eq!(found.len(), wanted.len(), "{found:#?}");
        for (found, wanted) in found.iter().zip(wanted) {
            assert!(found.starts_with(wanted), "{found}\n{wanted}");
        }
    }

    #[test]
    fn one_mistake_is_one_line_and_many_are_bounded() {
        let single = decode::<ContainerDefinition>("It", json!({"cpu": "1"})).unwrap_err();
        assert!(single.starts_with("It cannot be read: cpu: it must be") && !single.contains('\n'), "{single}");
        let numbers: Vec<u32> = (0..500).collect();
        let many = mistakes(json!({"containerDefinitions": [{"command": numbers}]}));
        assert_eq!((many.len(), many[20].as_str()), (21, "There may be more: these are the first."), "{many:#?}");
        assert!(many[9].starts_with("containerDefinitions[0].command[9]: ") && many[10].contains("command[10]: "));
        let exact: Vec<u32> = (0..20).collect();
        assert_eq!(mistakes(json!({"containerDefinitions": [{"command": exact}]})).len(), 20);
        let long = mistakes(json!({"x".repeat(100_000): 1}));
        assert!(long.len() == 1 && long[0].len() <= MAX_TEXT, "{}", long[0].len());
        assert!(!mistakes(json!([1])).is_empty());
        assert_eq!(mistakes(json!("hunter2")), ["it must be an object: { ... }, not a string."]);
    }

    /// A derived decoder takes an array for the members in their order.
    #[test]
    fn an_array_is_no_object_anywhere() {
        let mut good = json!({"family": "f", "containerDefinitions": [{"name": "a", "image": "i",
            "logConfiguration": {"logDriver": "json-file"}, "healthCheck": {"command": ["CMD", "true"]},
            "linuxParameters": {"capabilities": {"add": ["KILL"]}, "tmpfs": [{"containerPath": "/t", "size": 1}]},
            "environment": [{"name": "A", "value": "b"}], "dockerLabels": {"a": "b"},
        }], "volumes": [{"name": "v", "host": {"sourcePath": "/"}}], "runtimePlatform": {"cpuArchitecture": "ARM64"}});
        assert!(decode::<TaskDefinition>("It", good.clone()).is_ok());
        for place in [
            "/containerDefinitions/0/logConfiguration",
            "/containerDefinitions/0/healthCheck",
            "/containerDefinitions/0/linuxParameters",
            "/containerDefinitions/0/linuxParameters/capabilities",
            "/containerDefinitions/0/linuxParameters/tmpfs/0",
            "/containerDefinitions/0/environment/0",
            "/containerDefinitions/0/dockerLabels",
            "/containerDefinitions/0",
            "/volumes/0/host",
            "/volumes/0",
            "/runtimePlatform",
            "",
        ] {
            for array in [json!(["json-file"]), json!([1]), json!([]), json!([["CMD"], 30])] {
                let before = std::mem::replace(good.pointer_mut(place).unwrap(), array.clone());
                let found = mistakes(good.clone());
                let is_plain = found.len() == 1 && found[0].ends_with("it must be an object: { ... }, not an array.");
                assert!(is_plain && !found[0].contains("[1]:"), "{place} {array}: {found:?}");
                *good.pointer_mut(place).unwrap() = before;
            }
        }
    }

    #[test]
    fn no_repair_hides_a_mistake_or_adds_one() {
        let good = json!({"family": "f", "containerDefinitions": [{"name": "a", "secrets": [{"name": "A", "valueFrom": "B"}]}]});
        assert!(decode::<TaskDefinition>("It", good.clone()).is_ok());
        // Each value in turn is one of another type.
        for (place, wrong) in [
            ("/family", json!([])),
            ("/containerDefinitions", json!("x")),
            ("/containerDefinitions/0", json!(1)),
            ("/containerDefinitions/0/secrets/0", json!(true)),
            ("/containerDefinitions/0/secrets/0/valueFrom", json!({})),
        ] {
            let mut bad = good.clone();
            *bad.pointer_mut(place).unwrap() = wrong;
            assert_eq!(mistakes(bad.clone()).len(), 1, "{bad}: {:?}", mistakes(bad.clone()));
        }
    }
}
