//! Options of the command line that are not part of the configuration.

use crate::config::Role;

/// Options of the command line that are not part of the configuration.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// The instance metadata service is not used.
    pub blackhole_imds: bool,
    /// TLS certificates of ECS, ACS and ECR are not verified.
    pub accept_insecure_cert: bool,
    /// The program whose place this one takes: the Go agent in its container, or ecs-init as a service.
    pub role: Role,
}
