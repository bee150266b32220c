//! Which actions callers performed or were denied: the counterpart of policies. This module owns the log and its bounds; it
//! decides nothing. Invariant: equal entries are counted and not repeated, so that a long session fits.

use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Maximum number of different entries. Further ones are counted and dropped.
const MAX_ENTRIES: usize = 5000;
/// The longest text of an entry, in bytes. The rest is cut off.
const MAX_TEXT: usize = 2048;

/// What happened. Equal entries are one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    principal: String,
    action: String,
    resource: String,
    is_allowed: bool,
}

/// How often, and when first and last, in seconds since the epoch.
#[derive(Clone, Copy, Debug)]
struct Times {
    count: u64,
    first: f64,
    last: f64,
}

/// The log.
#[derive(Clone, Debug, Default)]
pub(super) struct Actions {
    entries: BTreeMap<Entry, Times>,
    dropped: u64,
}

impl Actions {
    /// Adds an action. `principal` is the ARN of a user or a role, or the name of a service.
    pub(super) fn add(&mut self, at: f64, principal: &str, action: &str, resource: &str, is_allowed: bool) {
        let [principal, action, resource] = [principal, action, resource].map(bounded);
        let entry = Entry { principal, action, resource, is_allowed };
        if let Some(times) = self.entries.get_mut(&entry) {
            times.count += 1;
            times.last = at;
        } else if self.entries.len() < MAX_ENTRIES {
            self.entries.insert(entry, Times { count: 1, first: at, last: at });
        } else {
            self.dropped += 1;
        }
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// The log as JSON. `dropped` says how many actions are missing.
    pub(super) fn show(&self) -> Value {
        let entry = |(entry, times): (&Entry, &Times)| {
            json!({
                "principal": entry.principal,
                "action": entry.action,
                "resource": entry.resource,
                "outcome": if entry.is_allowed { "allowed" } else { "denied" },
                "count": times.count,
                "first": times.first,
                "last": times.last,
            })
        };
        json!({"dropped": self.dropped, "actions": self.entries.iter().map(entry).collect::<Vec<_>>()})
    }
}

fn bounded(text: &str) -> String {
    let end = text.char_indices().map(|(at, c)| at + c.len_utf8()).take_while(|end| *end <= MAX_TEXT).last();
    text[..end.unwrap_or(0)].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_actions_are_counted() {
        let mut actions = Actions::default();
        for (at, is_allowed) in [(1.0, true), (2.0, true), (3.0, false)] {
            actions.add(at, "role", "ecr:BatchGetImage", "arn", is_allowed);
        }
        let shown = actions.show();
        let outcomes: Vec<_> =
            shown["actions"].as_array().unwrap().iter().map(|a| (&a["outcome"], &a["count"], &a["last"])).collect();
        assert_eq!(outcomes, [(&json!("denied"), &json!(1), &json!(3.0)), (&json!("allowed"), &json!(2), &json!(2.0))]);
        actions.clear();
        assert_eq!(actions.show(), json!({"dropped": 0, "actions": []}));
    }

    #[test]
    fn the_log_is_bounded_and_counts_what_is_missing() {
        let mut actions = Actions::default();
        for number in 0..MAX_ENTRIES + 2 {
            actions.add(1.0, "role", "s3:GetObject", &number.to_string(), true);
        }
        actions.add(1.0, "role", "s3:GetObject", "0", true);
        let shown = actions.show();
        assert_eq!((shown["actions"].as_array().unwrap().len(), &shown["dropped"]), (MAX_ENTRIES, &json!(2)));
        assert_eq!(bounded(&"ä".repeat(MAX_TEXT)).len(), MAX_TEXT);
    }
}
