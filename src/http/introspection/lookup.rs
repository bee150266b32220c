//! Finds the tasks that the query of `/v1/tasks` names.
//!
//! Owns the rules of the two keys `dockerid` and `taskarn`; knows no JSON. Invariant: an ambiguous query is an error; none of
//! its matches is chosen.

use ecs_core::model::view::{TaskView, View};
use url::form_urlencoded;

/// Maximum length of an id that is taken as a prefix (the length that `docker ps` prints); a longer id must be complete.
const SHORT_ID: usize = 12;

/// The result of a query.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found<'a> {
    /// All tasks: the query has neither key.
    All,
    /// The one task that matches.
    One(&'a TaskView),
    /// No task matches.
    Nothing,
    /// The query has both keys, or a short id that several containers match.
    Ambiguous,
}

/// Finds the tasks. A key with an empty value counts as present. The first value of a repeated key is used. Other keys are
/// ignored.
pub(super) fn find<'a>(view: &'a View, query: &str) -> Found<'a> {
    let first = |key: &str| {
        let mut pairs = form_urlencoded::parse(query.as_bytes());
        pairs.find(|(name, _)| name == key).map(|(_, value)| value)
    };
    match (first("dockerid"), first("taskarn")) {
        (None, None) => Found::All,
        (Some(_), Some(_)) => Found::Ambiguous,
        (None, Some(arn)) => {
            let found = view.tasks.iter().find(|task| task.arn.as_str() == arn);
            found.map_or(Found::Nothing, |task| Found::One(task))
        }
        (Some(id), None) => by_container(view, &id),
    }
}

fn by_container<'a>(view: &'a View, id: &str) -> Found<'a> {
    let ids = view.tasks.iter().flat_map(|task| {
        let ids = task.containers.iter().filter_map(|container| container.runtime_id.as_ref());
        ids.map(move |known| (known.as_str(), &**task))
    });
    let mut hits = ids.filter(|(known, _)| if id.len() > SHORT_ID { *known == id } else { known.starts_with(id) });
    match (hits.next(), hits.next()) {
        (None, _) => Found::Nothing,
        (Some((_, task)), None) => Found::One(task),
        // Compat: two containers of the same task are ambiguous too, since the Go agent counts containers.
        (Some(_), Some(_)) => Found::Ambiguous,
    }
}
