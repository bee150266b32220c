//! What the agent calls itself.

/// Version of this program.
pub const OWN: &str = env!("CARGO_PKG_VERSION");
/// Version told to ECS and to people who ask over HTTP.
///
/// Compat: ECS offers features by agent version, and operators' scripts compare it; this is the version of the Go agent whose
/// behaviour this program has.
pub const SPOKEN: &str = "1.105.1";
/// Commit this was built from; release builds set `ECS_AGENT_COMMIT`.
pub const COMMIT: &str = match option_env!("ECS_AGENT_COMMIT") {
    Some(commit) => commit,
    None => "unreleased",
};

/// `Amazon ECS Agent - v<version> (<hash>)`, the form scripts know from the introspection endpoint.
pub fn text() -> String {
    format!("Amazon ECS Agent - v{SPOKEN} ({COMMIT})")
}
