//! What is wrong with a definition, and helpers for rules.

use super::super::mistakes::{MAX_MISTAKES, MAX_TEXT, listed};
use ecs_core::model::text::cut;

/// The problems of a definition, for its author, in the order of the rules.
#[derive(Debug, Default)]
pub(super) struct Findings {
    list: Vec<String>,
    /// The beginning of each text: the object that is being checked.
    place: String,
    /// There are more problems than the list has room for.
    has_more: bool,
}

impl Findings {
    /// Adds the problem `message` unless the rule `holds`. Returns whether it does.
    pub(super) fn require(&mut self, holds: bool, message: impl FnOnce() -> String) -> bool {
        if !holds {
            self.add(&message());
        }
        holds
    }

    /// Adds a problem.
    pub(super) fn add(&mut self, message: &str) {
        let text = cut(&format!("{}{message}", self.place), MAX_TEXT);
        if self.list.contains(&text) {
            return;
        }
        if self.list.len() < MAX_MISTAKES {
            self.list.push(text);
        } else {
            self.has_more = true;
        }
    }

    /// Checks a part of the definition: `place` begins each text.
    pub(super) fn inside(&mut self, place: String, check: impl FnOnce(&mut Self)) {
        let before = std::mem::replace(&mut self.place, place);
        check(self);
        self.place = before;
    }

    /// All problems as one text; `Ok` if there are none.
    pub(super) fn verdict(self) -> Result<(), String> {
        listed(&self.list, self.has_more).map_or(Ok(()), Err)
    }
}

/// The text is a name: 1 to 255 letters, numbers, underscores and hyphens.
pub(super) fn is_name(text: &str) -> bool {
    (1..=255).contains(&text.len()) && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
}
