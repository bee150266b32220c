//! The query of `/v1/tasks`: which tasks it names.
//!
//! Owns the rules of the two keys `dockerid` and `taskarn`; knows no JSON. Invariant: a query never matches more than it should:
//! what is ambiguous is an error, not a choice.

use crate::model::view::{TaskView, View};
use url::form_urlencoded;

/// Up to this length an id is a prefix (the length `docker ps` prints), above it must be whole.
const SHORT_ID: usize = 12;

/// What a query names.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found<'a> {
    /// No key: all tasks.
    All(Vec<&'a TaskView>),
    /// Exactly one.
    One(&'a TaskView),
    /// None.
    Nothing,
    /// Both keys, or a short id of several containers.
    Ambiguous,
}

/// Keys count when present, even with an empty value; of a repeated key the first counts; others are ignored.
pub(super) fn find<'a>(view: &'a View, query: &str) -> Found<'a> {
    let first = |key: &str| {
        let mut pairs = form_urlencoded::parse(query.as_bytes());
        pairs.find(|(name, _)| name == key).map(|(_, value)| value)
    };
    match (first("dockerid"), first("taskarn")) {
        (None, None) => Found::All(view.tasks.iter().collect()),
        (Some(_), Some(_)) => Found::Ambiguous,
        (None, Some(arn)) => view.tasks.iter().find(|task| task.arn.as_str() == arn).map_or(Found::Nothing, Found::One),
        (Some(id), None) => by_container(view, &id),
    }
}

fn by_container<'a>(view: &'a View, id: &str) -> Found<'a> {
    let ids = view.tasks.iter().flat_map(|task| {
        let ids = task.containers.iter().filter_map(|container| container.runtime_id.as_ref());
        ids.map(move |known| (known.as_str(), task))
    });
    let mut hits = ids.filter(|(known, _)| if id.len() > SHORT_ID { *known == id } else { known.starts_with(id) });
    match (hits.next(), hits.next()) {
        (None, _) => Found::Nothing,
        (Some((_, task)), None) => Found::One(task),
        // Compat: two containers of the same task are ambiguous too; the Go agent counts containers.
        (Some(_), Some(_)) => Found::Ambiguous,
    }
}
