//! What the command line says beside the configuration.

use crate::config::Role;

/// What the command line says beside the configuration.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// No instance metadata is asked for.
    pub blackhole_imds: bool,
    /// TLS certificates of ECS, ACS and ECR are not verified.
    pub accept_insecure_cert: bool,
    /// Whose place the agent takes.
    pub role: Role,
}
