//! From sources to canonical values: one value for each row of the table, and everything there is to say about it.
//!
//! Owns precedence (field by field, the highest source with a usable value wins) and misspelt names. Rules that tie two variables
//! together are in [`super::rules`]. Invariant: a value that cannot be used is never dropped without a [`Problem`].

use super::keys::{KEYS, Key, Stage, find};
use super::kind::{Kind, Parsed};
use super::problem::{NO_START, Problem};
use super::source::Source;
use std::collections::{BTreeMap, BTreeSet};
use zeroize::Zeroizing;

/// The canonical value of one variable.
#[derive(Clone)]
pub(super) struct Resolved {
    /// What `envy` gets.
    pub(super) canonical: String,
    /// What a person is shown; empty for a secret.
    pub(super) shown: String,
    /// Where it was set; `None`: it is the default.
    pub(super) place: Option<String>,
    /// The name it was set under: the row's own or its alias.
    pub(super) name: &'static str,
}

/// Values by the row's name. A row without value and default is absent.
pub(super) type Values = BTreeMap<&'static str, Resolved>;

/// Reads every row from the sources, the highest first.
pub(super) fn resolve(sources: &[&dyn Source], problems: &mut Vec<Problem>) -> Values {
    KEYS.iter().filter_map(|key| Some((key.name, one(key, sources, problems)?))).collect()
}

fn one(key: &'static Key, sources: &[&dyn Source], problems: &mut Vec<Problem>) -> Option<Resolved> {
    let mut rejected = Vec::new();
    let mut found = None;
    for source in sources {
        for name in [Some(key.name), key.alias].into_iter().flatten() {
            let Some(raw) = source.get(name).map(Zeroizing::new) else { continue };
            let place = source.place(name);
            let problem = |instead: String, fatal| describe(key, name, &place, &raw, instead, fatal);
            let (canonical, shown) = match key.kind.parse(&raw, key.default) {
                Parsed::Unset => continue,
                Parsed::Rejected => {
                    rejected.push(problem(String::new(), key.fatal));
                    continue;
                }
                Parsed::Reset => {
                    problems.push(problem(instead_of(default_of(key).as_ref()), false));
                    found = default_of(key);
                    break;
                }
                Parsed::Value(canonical) if key.kind.is_secret() => (canonical, String::new()),
                Parsed::Value(canonical) => (canonical, raw.to_string()),
                Parsed::Adjusted { value, instead } => {
                    let shown = format!("{} ({instead})", *raw);
                    problems.push(problem(instead, false));
                    (value, shown)
                }
            };
            found = Some(Resolved { canonical, shown, place: Some(place), name });
            break;
        }
        if found.is_some() {
            break;
        }
    }
    let found = found.or_else(|| default_of(key));
    for mut problem in rejected {
        problem.instead = if problem.fatal { NO_START.to_owned() } else { instead_of(found.as_ref()) };
        problems.push(problem);
    }
    found
}

fn describe(key: &Key, name: &str, place: &str, raw: &str, instead: String, fatal: bool) -> Problem {
    Problem {
        variable: name.to_owned(),
        place: place.to_owned(),
        shape: key.kind.shape(raw),
        expected: key.kind.expected(),
        instead,
        fatal,
    }
}

fn instead_of(found: Option<&Resolved>) -> String {
    match found {
        Some(Resolved { place: Some(place), .. }) => format!("the value of {place} is used"),
        Some(Resolved { shown, .. }) => format!("the default {shown} is used"),
        None => "it counts as not set".to_owned(),
    }
}

/// The default of a row; zero defaults have a canonical form although zero from an operator means "not set".
pub(super) fn default_of(key: &'static Key) -> Option<Resolved> {
    let canonical = match key.kind.parse(key.default, key.default) {
        Parsed::Value(value) => value,
        Parsed::Unset | Parsed::Adjusted { .. } | Parsed::Reset | Parsed::Rejected => match key.kind {
            _ if key.default.is_empty() => return None,
            Kind::Ports => String::new(),
            Kind::Names | Kind::Cidrs => "[]".to_owned(),
            _ => "0".to_owned(),
        },
    };
    Some(Resolved { canonical, shown: key.default.to_owned(), place: None, name: key.name })
}

/// Names that ECS itself puts into a container, such as the agent's own when it runs as a task.
const INJECTED: [&str; 3] = ["ECS_CONTAINER_METADATA_URI", "ECS_CONTAINER_METADATA_URI_V4", "ECS_AGENT_URI"];

/// A longer name is no slip of the hand: nothing is said of it.
const LONGEST_NAME: usize = 80;

/// Warns about names that look like ours and are not.
pub(super) fn unknown_names(sources: &[&dyn Source], problems: &mut Vec<Problem>) {
    let mut told = BTreeSet::new();
    for source in sources {
        for name in source.keys() {
            if find(&name).is_some() || INJECTED.contains(&name.as_str()) {
                continue;
            }
            // `ECS_X:{"password"...` makes a "name" that holds the value: only what could be a name is shown.
            let word = &name[..name.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(name.len())];
            let upper = word.to_ascii_uppercase();
            let ours = ["ECS_", "NON_ECS_", "NONECS_"].iter().any(|prefix| upper.starts_with(prefix));
            if !ours || word.len() > LONGEST_NAME || !told.insert(word.to_owned()) {
                continue;
            }
            let shape =
                if word == name { "not a variable of this agent" } else { "a name followed by something else than =" };
            let hint = closest(&upper).map_or_else(String::new, |known| format!("; did you mean {known}?"));
            problems.push(Problem {
                variable: word.to_owned(),
                place: source.place(&name),
                shape: shape.to_owned(),
                expected: format!("a name from --help{hint}"),
                instead: "it is ignored".to_owned(),
                fatal: false,
            });
        }
    }
}

/// The known name with the fewest edits, if that is few enough to be a slip of the hand.
fn closest(name: &str) -> Option<&'static str> {
    let candidates = KEYS.iter().filter(|key| key.stage != Stage::Foreign);
    let (distance, known) = candidates.map(|key| (edits(name, key.name), key.name)).min()?;
    (distance <= 1 + name.len() / 8).then_some(known)
}

/// Edit distance where swapping two neighbours counts once.
fn edits(left: &str, right: &str) -> usize {
    let (left, right) = (left.as_bytes(), right.as_bytes());
    let mut rows = vec![(0..=right.len()).collect::<Vec<usize>>()];
    for (i, a) in left.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, b) in right.iter().enumerate() {
            let mut best = (rows[i][j] + usize::from(a != b)).min(rows[i][j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *a == right[j - 1] && left[i - 1] == *b {
                best = best.min(rows[i - 1][j - 1] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[left.len()][right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_of_the_hand_are_recognised_and_other_names_are_not() {
        for (name, known) in [
            ("ECS_CLUSTR", Some("ECS_CLUSTER")),
            ("ECS_CLUSTRE", Some("ECS_CLUSTER")),
            ("ECS_CLUSTER_", Some("ECS_CLUSTER")),
            ("ECS_DATA_DIR", Some("ECS_DATADIR")),
            ("ECS_LOG_LEVEL", Some("ECS_LOGLEVEL")),
            ("ECS_ENGINE_AUTHDATA", Some("ECS_ENGINE_AUTH_DATA")),
            ("ECS_IMAGE_PULL_BEHAVIOUR", Some("ECS_IMAGE_PULL_BEHAVIOR")),
            ("NON_ECS_IMAGE_MINIMUM_CLEANUP_AGES", Some("NON_ECS_IMAGE_MINIMUM_CLEANUP_AGE")),
            ("ECS_COFFEE_MACHINE", None),
            ("ECS_", None),
        ] {
            assert_eq!(closest(name), known, "{name}");
        }
    }
}
