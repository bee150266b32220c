//! `/v1/debug/host`: who keeps the settings of the host, and with what result. The Go agent has no such path.

use serde::Serialize;
use std::sync::Arc;

/// Looks up the answer of this moment.
pub type HostLookup = Arc<dyn Fn() -> HostAnswer + Send + Sync>;

/// Who keeps the firewall's rules.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub enum KeptBy {
    /// This process.
    #[default]
    Agent,
    /// The command `host-setup`, which runs every minute.
    HostSetup,
    /// Others: this process may not, or the configuration says so.
    Others,
}

/// The whole answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct HostAnswer {
    /// Who keeps the rules.
    pub kept_by: KeptBy,
    /// How often something was missing and was put back.
    pub put_back: u64,
    /// What was missing then, as far as `host-setup` has put it back.
    pub missing: Vec<String>,
    /// When that was; `None`: never, or not by `host-setup`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub put_back_at: Option<String>,
    /// When `host-setup` last ran; `None`: it does not keep the rules.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_run: Option<String>,
    /// Why the last check did not make the rules; `None`: it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What else `host-setup` could not make, and why.
    pub remarks: Vec<String>,
}
