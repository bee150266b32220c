//! The list of values in effect, for operators.
//!
//! Invariant: a secret is never in it, and no value for a setting that keeps the agent from starting.

use super::defaults::SERVICE;
use super::keys::{Key, Stage};
use super::names::DEFAULT_CLUSTER;
use super::problem::Problem;
use super::resolve::{CLUSTER, Resolved, default_of};
use super::rules::ALL_SOURCES;
use super::shown::in_effect;
use super::source::Class;

/// A value in effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effective {
    /// The variable's name.
    pub name: &'static str,
    /// The value; for a secret, only that it is set. `None`: what is written cannot be used, so the agent does not start.
    pub value: Option<String>,
    /// Where the value was set, as in [`Problem::place`]; `None`: the value is the default.
    pub place: Option<String>,
    /// Nobody has set it, and no other setting changes it.
    pub is_default: bool,
}

/// The row of a variable in the list of values in effect. A variable that keeps the agent from starting has no value; `default` of
/// the table is not in effect for it.
pub(super) fn row(key: &'static Key, value: Option<&Resolved>, problems: &[Problem]) -> Option<Effective> {
    let is_unusable = |problem: &&Problem| {
        let name = &*problem.variable;
        problem.is_fatal() && problem.place != ALL_SOURCES && (key.is_called(name) || key.json == Some(name))
    };
    if let Some(problem) = problems.iter().find(is_unusable) {
        return Some(Effective { name: key.name, value: None, place: Some(problem.place.clone()), is_default: false });
    }
    let Some(value) = value else {
        // The most important setting is shown in any case.
        let cluster =
            Effective { name: key.name, value: Some(DEFAULT_CLUSTER.to_owned()), place: None, is_default: true };
        return (key.name == CLUSTER).then_some(cluster);
    };
    let is_listed = match key.stage {
        Stage::Now => true,
        Stage::Later | Stage::Foreign => false,
        Stage::Process | Stage::NamesFile => value.place.is_some(),
    };
    is_listed.then(|| shown(key, value))
}

/// A value in effect as operators see it.
pub(super) fn shown(key: &'static Key, value: &Resolved) -> Effective {
    let default = default_of(key);
    let is_of_service = value.place.as_deref() == Some(SERVICE);
    let is_same = default.is_none_or(|default| default.canonical == value.canonical);
    Effective {
        name: key.name,
        value: Some(in_effect(key.kind, &value.shown).into_owned()),
        place: value.place.clone(),
        is_default: value.class == Class::Defaults && (is_of_service || is_same),
    }
}
