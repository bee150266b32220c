//! The fields of the span in which an event is logged.

use super::line::Line;
use std::fmt::Debug;
use tracing::field::{Field, Visit};

/// The fields of one span, with their last values.
#[derive(Debug, Default)]
pub(super) struct Surroundings(Vec<(&'static str, String)>);

impl Surroundings {
    /// Adds the fields that the line does not have itself.
    pub(super) fn add_to(&self, line: &mut Line) {
        for (name, value) in &self.0 {
            line.surrounding(name, value);
        }
    }

    fn set(&mut self, field: &Field, value: String) {
        match self.0.iter_mut().find(|(name, _)| *name == field.name()) {
            Some((_, last)) => *last = value,
            None => self.0.push((field.name(), value)),
        }
    }
}

impl Visit for Surroundings {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.set(field, value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.set(field, format!("{value:?}"));
    }
}
