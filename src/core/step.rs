//! What one step asks for.

use super::effect::Effect;
use super::state::Key;
use std::collections::BTreeSet;

/// What one step asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// What to do, in this order, after the commit.
    pub effects: Vec<Effect>,
    /// Which documents differ from what is on disk. A task that is no longer in the state is to be deleted.
    pub changed: BTreeSet<Key>,
    /// The commit may wait a moment for more of its kind: there are no effects, and should the agent die before, its next start learns
    /// the same again by looking.
    pub may_wait: bool,
}
