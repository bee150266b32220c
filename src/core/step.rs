//! The result of one step.

use super::effect::Effect;
use super::state::Key;
use std::collections::BTreeSet;

/// The result of one step: effects, and the documents that changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// The effects to start after the commit, in this order.
    pub effects: Vec<Effect>,
    /// Keys of the documents that must be written to disk. The document of a task that is no longer in the state must be
    /// deleted.
    pub changed: BTreeSet<Key>,
    /// The commit may be deferred for a moment and joined with a later one. The step has no effects, and if the agent dies before
    /// the commit, the inventory of its next start shows the same facts again.
    pub may_wait: bool,
}
