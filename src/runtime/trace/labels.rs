//! The names that every log line of an operation shows: lines of the edges that it calls, too.
//!
//! An edge does not know for which task it works. Its lines get the names from the span in which the call runs. Invariant: a line
//! of a call that several operations share names all of them, up to a limit.

use tracing::Span;
use tracing::field::Empty;

/// The largest number of names in one field.
const MAX_NAMES: usize = 4;

/// What an operation works for. Empty: nothing of this kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Labels {
    /// The id of the task.
    pub(crate) task: String,
    /// The name of the container.
    pub(crate) container: String,
    /// The name of the task's resource.
    pub(crate) resource: String,
}

impl Labels {
    /// A span whose lines show these names, and no others.
    pub(crate) fn span(&self) -> Span {
        // Of the highest level: its lines decide themselves whether they are logged.
        let span = tracing::error_span!(parent: None, "operation", task = Empty, container = Empty, resource = Empty);
        self.record(&span);
        span
    }

    /// Sets the names that the lines of this span show.
    pub(crate) fn record(&self, span: &Span) {
        for (field, name) in [("task", &self.task), ("container", &self.container), ("resource", &self.resource)] {
            if !name.is_empty() {
                span.record(field, name.as_str());
            }
        }
    }

    /// The names of several operations that share a call.
    pub(crate) fn joined<'a>(all: impl Iterator<Item = &'a Self> + Clone) -> Self {
        let join = |name: fn(&Self) -> &String| {
            let mut names: Vec<&str> = Vec::new();
            for name in all.clone().map(name).filter(|name| !name.is_empty()) {
                if !names.contains(&name.as_str()) {
                    names.push(name);
                }
            }
            let more = names.len().saturating_sub(MAX_NAMES);
            let shown = names.get(..names.len() - more).unwrap_or_default().join(", ");
            if more == 0 { shown } else { format!("{shown} and {more} more") }
        };
        Self {
            task: join(|labels| &labels.task),
            container: join(|labels| &labels.container),
            resource: join(|labels| &labels.resource),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_several_operations_are_listed_once_and_counted() {
        let labels = |task: &str, container: &str| Labels {
            task: task.to_owned(),
            container: container.to_owned(),
            resource: String::new(),
        };
        let all: Vec<Labels> = (1..=6).map(|task| labels(&task.to_string(), "app")).collect();
        let table = [(0, labels("", "")), (1, labels("1", "app")), (4, labels("1, 2, 3, 4", "app"))];
        for (count, wanted) in table {
            assert_eq!(Labels::joined(all[..count].iter()), wanted);
        }
        assert_eq!(Labels::joined(all.iter()), labels("1, 2, 3, 4 and 2 more", "app"));
        let two = [labels("1", "app"), labels("1", "web")];
        assert_eq!(Labels::joined(two.iter()), labels("1", "app, web"));
    }
}
