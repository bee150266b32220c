//! The agent's version, as it shows it to others.

/// Version of this program.
pub const OWN: &str = env!("CARGO_PKG_VERSION");
/// Version that is reported to ECS and over HTTP.
///
/// Compat: ECS offers features by the agent's version, and operators' scripts compare it. So this is the version of the Go agent
/// whose behaviour this program has.
pub const REPORTED: &str = "1.105.1";
/// Commit from which this was built. Release builds set `ECS_AGENT_COMMIT`.
pub const COMMIT: &str = match option_env!("ECS_AGENT_COMMIT") {
    Some(commit) => commit,
    None => "unreleased",
};

/// `Amazon ECS Agent - v<version> (<hash>)`, the format that scripts know from the introspection endpoint.
pub fn text() -> String {
    format!("Amazon ECS Agent - v{REPORTED} ({COMMIT})")
}
