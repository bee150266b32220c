//! The bridges of the engine's networks.

use std::collections::BTreeSet;

/// The network interfaces of the engine's bridges.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bridges {
    /// The default bridge, such as `docker0`; `None`: there is none, or its name is not known yet.
    pub default: Option<String>,
    /// The bridges of other networks that were created with a name of their own.
    pub named: BTreeSet<String>,
}
