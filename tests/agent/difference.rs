//! Comparison with a recording: a table must name every difference with its reason, and must have no other entries.

use serde_json::{Map, Value};
use std::collections::BTreeSet;

/// The major version of the engine with which the Go agent was recorded.
pub(crate) const RECORDED_ENGINE: u32 = 20;

/// How this agent's output may differ from the recording at one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Another value of the same JSON type.
    Value,
    /// Another value of the same JSON type, or by chance the recorded value.
    Any,
    /// A value that is recorded but missing in this agent's output.
    Missing,
    /// A value that is in this agent's output but not recorded.
    Extra,
    /// The same, or by chance not in this agent's output either.
    MayBeExtra,
}

impl Kind {
    fn covers(self, found: Self) -> bool {
        self == found
            || (self == Self::Any && found == Self::Value)
            || (self == Self::MayBeExtra && found == Self::Extra)
    }

    fn may_be_equal(self) -> bool {
        matches!(self, Self::Any | Self::MayBeExtra)
    }
}

/// An allowed difference: where (`*` stands for any one segment), how, and why.
pub(crate) type Allowed = (&'static str, Kind, &'static str);

/// Fails with all differences that are not in the table, and all entries of the table that are not needed.
pub(crate) fn assert_same(what: &str, recorded: &Value, ours: &Value, allowed: &[Allowed]) {
    let mut found = Vec::new();
    walk("", recorded, ours, &mut found);
    let mut used = BTreeSet::new();
    let mut unnamed = Vec::new();
    for difference in &found {
        match allowed.iter().position(|(path, kind, _)| kind.covers(difference.kind) && matches(path, &difference.path))
        {
            Some(index) => drop(used.insert(index)),
            None => unnamed.push(difference.text.clone()),
        }
    }
    let stale =
        allowed.iter().enumerate().filter(|(index, (_, kind, _))| !kind.may_be_equal() && !used.contains(index));
    let stale: Vec<_> = stale.map(|(_, (path, kind, _))| format!("{kind:?} {path} is allowed but equal")).collect();
    assert!(unnamed.is_empty() && stale.is_empty(), "{what}:\n  {}\n  {}", unnamed.join("\n  "), stale.join("\n  "));
}

struct Difference {
    path: String,
    kind: Kind,
    text: String,
}

fn walk(path: &str, recorded: &Value, ours: &Value, found: &mut Vec<Difference>) {
    let at = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}/{name}") };
    match (recorded, ours) {
        (Value::Object(a), Value::Object(b)) => {
            for name in a.keys().chain(b.keys().filter(|name| !a.contains_key(*name))) {
                member(&at(name), a.get(name), b.get(name), found);
            }
        }
        (Value::Array(a), Value::Array(b)) => {
            for index in 0..a.len().max(b.len()) {
                member(&at(&index.to_string()), a.get(index), b.get(index), found);
            }
        }
        (a, b) if a == b => {}
        (a, b) if std::mem::discriminant(a) == std::mem::discriminant(b) => {
            let text = format!("{path}: recorded {a}, ours {b}");
            found.push(Difference { path: path.to_owned(), kind: Kind::Value, text });
        }
        // Another type counts as a missing member, so that no table can allow it as a value.
        (a, b) => {
            let text = format!("{path}: recorded {a}, ours of another type: {b}");
            found.push(Difference { path: path.to_owned(), kind: Kind::Missing, text });
        }
    }
}

fn member(path: &str, recorded: Option<&Value>, ours: Option<&Value>, found: &mut Vec<Difference>) {
    let (kind, text) = match (recorded, ours) {
        (Some(a), Some(b)) => return walk(path, a, b, found),
        (Some(a), None) => (Kind::Missing, format!("{path}: recorded {a}, not in ours")),
        (None, Some(b)) => (Kind::Extra, format!("{path}: not recorded, ours {b}")),
        (None, None) => return,
    };
    found.push(Difference { path: path.to_owned(), kind, text });
}

fn matches(pattern: &str, path: &str) -> bool {
    let (pattern, path): (Vec<_>, Vec<_>) = (pattern.split('/').collect(), path.split('/').collect());
    pattern.len() == path.len() && pattern.iter().zip(&path).all(|(want, have)| *want == "*" || want == have)
}

/// Checks that our sequence is the recorded one without the events of the first table. Events of the second table may come
/// earlier or later, but in the recorded order among themselves. Each event of the tables must have been recorded.
pub(crate) fn same_order(
    what: &str,
    recorded: &[String],
    ours: &[String],
    left_out: &[(&str, &str)],
    moved: &[(&str, &str)],
) {
    for (event, reason) in left_out.iter().chain(moved) {
        assert!(recorded.iter().any(|known| known == event), "{what}: {event} ({reason}) is in no recording");
    }
    let among = |table: &[(&str, &str)], event: &&String| table.iter().any(|(known, _)| known == event);
    for is_moved in [false, true] {
        let expected = recorded.iter().filter(|event| !among(left_out, event) && among(moved, event) == is_moved);
        let found = ours.iter().filter(|event| among(moved, event) == is_moved);
        assert_eq!(expected.collect::<Vec<_>>(), found.collect::<Vec<_>>(), "{what}, moved: {is_moved}");
    }
    assert_ne!(recorded, ours, "{what}: the tables are not needed any more");
}

/// A list as an object, so that its order does not matter: `key` names each element. No element may share its name.
pub(crate) fn by_name(list: &Value, key: impl Fn(&Value) -> (String, Value)) -> Value {
    let mut object = Map::new();
    for element in list.as_array().expect("a list") {
        let (name, value) = key(element);
        assert!(object.insert(name.clone(), value).is_none(), "{name} is there twice");
    }
    Value::Object(object)
}

/// A recording of the Go agent.
pub(crate) fn golden(name: &str) -> Value {
    let path = format!("{}/tests/golden/{name}.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}
