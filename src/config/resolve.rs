//! From sources to canonical values: one value for each row of the table, and the problems with it.
//!
//! This module owns precedence: for each variable, the source with the highest precedence that has a usable value is used. Names
//! that are no variables are in `unknown`, rules about two variables in [`super::rules`]. Invariant: a value that cannot be used is
//! never dropped without a [`Problem`].

use super::keys::{KEYS, Key};
use super::kind::Kind;
use super::parsed::Parsed;
use super::problem::{Problem, Severity};
use super::source::{Class, Source};
use super::suggest::did_you_mean;
use super::{meant, repeated, shown};
use std::collections::BTreeMap;
use zeroize::Zeroizing;

/// The canonical value of one variable.
#[derive(Clone)]
pub(super) struct Resolved {
    /// The canonical value, the input of `envy`.
    pub(super) canonical: String,
    /// The value as operators see it; empty for a secret, and of a proxy without its password.
    pub(super) shown: String,
    /// Where the value was set, as in [`Problem::place`]; `None`: the value is the default.
    pub(super) place: Option<String>,
    /// The name under which the value was set: the row's own name or its alias.
    pub(super) name: &'static str,
    /// The kind of source that set the value.
    pub(super) class: Class,
}

/// The variable that names `ecs.config`.
pub(super) const CONFIG_FILE: &str = "ECS_CONFIG_FILE";

/// Values by the row's name. A row without a value and without a default is absent.
pub(super) type Values = BTreeMap<&'static str, Resolved>;

/// Reads every row from the sources, which are in order of precedence.
pub(super) fn resolve(sources: &[&dyn Source], problems: &mut Vec<Problem>) -> Values {
    KEYS.iter().filter_map(|key| Some((key.name, resolve_key(key, sources, problems)?))).collect()
}

/// The result of reading one variable from one source.
enum Finding {
    /// The source does not have the variable.
    Nothing,
    /// A value that ends the search.
    Value(Resolved),
    /// A zero value, which the value of any other source replaces.
    Zero(Resolved),
    /// The default is used, even if a source with lower precedence has a value.
    Default(Problem),
    /// A value that cannot be used.
    Rejected(Problem),
}

/// Reads one row from the sources, which are in order of precedence.
pub(super) fn resolve_key(key: &'static Key, sources: &[&dyn Source], problems: &mut Vec<Problem>) -> Option<Resolved> {
    let mut rejected = Vec::new();
    let (mut found, mut zero) = (None, None);
    let may_set = |source: &&&dyn Source| match source.class() {
        Class::Environment => !key.is_only_json(),
        Class::Document => key.json.is_some(),
        Class::Defaults => true,
    };
    // A file cannot name itself.
    let count = if key.name == CONFIG_FILE { 1 } else { sources.len() };
    for source in sources.iter().take(count).filter(may_set) {
        // An operator's zero in the environment takes precedence over a default of the service.
        let is_zeroed = zero.as_ref().is_some_and(|zero: &Resolved| zero.class == Class::Environment);
        if is_zeroed && source.class() == Class::Defaults {
            continue;
        }
        for name in [Some(key.name), key.alias].into_iter().flatten() {
            match finding(key, name, *source, problems) {
                Finding::Nothing => {}
                Finding::Value(value) => found = Some(value),
                Finding::Zero(value) => zero = zero.or(Some(value)),
                Finding::Rejected(problem) => rejected.push(problem),
                Finding::Default(mut problem) => {
                    found = default_of(key);
                    problem.instead = consequence(found.as_ref());
                    problems.push(problem);
                }
            }
            if found.is_some() {
                break;
            }
        }
        if found.is_some() {
            break;
        }
    }
    let found = settle(key, found, zero, problems);
    for mut problem in rejected {
        if !problem.is_fatal() {
            problem.instead = consequence(found.as_ref());
        }
        problems.push(problem);
    }
    found
}

fn finding(key: &'static Key, name: &'static str, source: &dyn Source, problems: &mut Vec<Problem>) -> Finding {
    let Some(raw) = source.get(name).map(Zeroizing::new) else { return Finding::Nothing };
    let (place, class) = (source.place(name), source.class());
    let shown_name = if class == Class::Document { key.json.unwrap_or(name) } else { name };
    let problem = |instead: String| value_problem(key, shown_name, &place, &raw, instead);
    let (canonical, shown) = match key.kind.parse(&raw, key.default) {
        Parsed::Unset => return Finding::Nothing,
        Parsed::Rejected if key.fatal => return Finding::Rejected(problem(String::new()).fatal()),
        Parsed::Rejected => return Finding::Rejected(problem(String::new())),
        Parsed::Reset => return Finding::Default(problem(String::new())),
        Parsed::Value(canonical) if key.kind == Kind::Proxy => {
            (canonical, shown::in_effect(key.kind, raw.trim()).into_owned())
        }
        Parsed::Value(canonical) if key.kind.is_secret() => (canonical, String::new()),
        Parsed::Value(canonical) if key.kind.trims() => (canonical, raw.trim().to_owned()),
        Parsed::Value(canonical) => (canonical, raw.to_string()),
        Parsed::Doubtful { value, instead } => {
            problems.push(problem(instead.to_owned()));
            let shown = if key.kind.trims() { raw.trim() } else { raw.as_str() };
            (value, shown.to_owned())
        }
        // Compat: the Go agent raises a value of the environment while parsing, and refuses one of a document while validating.
        Parsed::Adjusted { .. } if key.strict && class == Class::Document => {
            return Finding::Rejected(problem(String::new()).fatal());
        }
        Parsed::Adjusted { value, instead } => {
            let shown = format!("{} ({instead})", *raw);
            problems.push(problem(instead));
            (value, shown)
        }
    };
    if key.kind.trims() && raw.trim() != *raw {
        let shape = shown::white_space_around(key.kind, &raw);
        let expected = "none".to_owned();
        let severity = Severity::Notice;
        problems.push(Problem { shape, expected, severity, ..problem("it is removed".to_owned()) });
    }
    if let Some(name) = repeated::repeated(key.kind, &raw) {
        let shape = format!("`{name}` twice in one object");
        let expected = "each name once".to_owned();
        problems.push(Problem { shape, expected, ..problem("the last one counts".to_owned()) });
    }
    let is_zero = is_zero(key, &canonical);
    let value = Resolved { canonical, shown, place: Some(place), name, class };
    if is_zero { Finding::Zero(value) } else { Finding::Value(value) }
}

/// Compat: a value that is the zero of its Go type counts as not set, so any other source takes precedence.
fn is_zero(key: &Key, canonical: &str) -> bool {
    match key.kind {
        Kind::Flag => canonical == "false",
        Kind::Choice(words) => key.json.is_some() && words.first() == Some(&canonical),
        _ => false,
    }
}

/// Chooses the value of a row. Without another value, a zero from the environment is used, or else the default. A default that
/// replaces a document's zero is a problem.
fn settle(
    key: &'static Key,
    found: Option<Resolved>,
    zero: Option<Resolved>,
    problems: &mut Vec<Problem>,
) -> Option<Resolved> {
    let Some(zero) = zero.filter(|_| found.is_none()) else { return found.or_else(|| default_of(key)) };
    let default = default_of(key);
    if zero.class == Class::Environment || default.as_ref().is_none_or(|default| default.canonical == zero.canonical) {
        return Some(zero);
    }
    problems.push(Problem {
        variable: key.json.unwrap_or(key.name).to_owned(),
        place: zero.place.unwrap_or_default(),
        shape: "false".to_owned(),
        expected: format!("{}=false in the environment, since false counts as not set here", key.name),
        instead: consequence(default.as_ref()),
        severity: Severity::Changes,
    });
    default
}

fn value_problem(key: &Key, name: &str, place: &str, raw: &str, instead: String) -> Problem {
    let meant = meant::meant(key.kind, raw, key.default).map_or_else(String::new, did_you_mean);
    Problem {
        variable: name.to_owned(),
        place: place.to_owned(),
        shape: shown::shape(key.kind, raw),
        expected: format!("{}{meant}", key.kind.expected()),
        instead,
        severity: Severity::Changes,
    }
}

/// What happens instead of using a rejected value: `found` is used, or without one the row counts as not set.
fn consequence(found: Option<&Resolved>) -> String {
    match found {
        Some(Resolved { place: Some(place), class: Class::Defaults, shown, .. }) => {
            format!("the {place}, `{shown}`, is used")
        }
        Some(Resolved { place: Some(place), .. }) => format!("the value of {place} is used"),
        Some(Resolved { shown, .. }) => format!("the default `{shown}` is used"),
        None => "it counts as not set".to_owned(),
    }
}

/// The default of a row. A default of zero has a canonical form, although zero from an operator means "not set".
pub(super) fn default_of(key: &'static Key) -> Option<Resolved> {
    let canonical = match key.kind.parse(key.default, key.default) {
        Parsed::Value(value) | Parsed::Doubtful { value, .. } => value,
        Parsed::Unset | Parsed::Adjusted { .. } | Parsed::Reset | Parsed::Rejected => match key.kind {
            _ if key.default.is_empty() => return None,
            Kind::Ports => String::new(),
            Kind::Names | Kind::Cidrs => "[]".to_owned(),
            _ => "0".to_owned(),
        },
    };
    Some(Resolved { canonical, shown: key.default.to_owned(), place: None, name: key.name, class: Class::Defaults })
}

/// The variable of the cluster.
pub(super) const CLUSTER: &str = "ECS_CLUSTER";
