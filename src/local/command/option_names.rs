//! The names of commands and options. Reading, help and completions go by these tables.

/// The commands that a person types.
pub(super) const COMMANDS: [&str; 7] = ["serve", "up", "top", "clean", "completion", "help", "version"];

/// The options with a value.
pub(super) const TAKE_VALUES: [&str; 17] = [
    "--listen",
    "--cluster",
    "--region",
    "--registry",
    "--registry-user",
    "--registry-password-file",
    "--registry-dir",
    "--registry-memory",
    "--account",
    "--instance-policy",
    "--task-role-profile",
    "--secrets",
    "--parameters",
    "--buckets",
    "--token",
    "--token-file",
    "--agent",
];

/// The options without a value.
pub(super) const FLAGS: [&str; 5] = ["--quiet", "--agent-log", "--remove-volumes", "--help", "--version"];

/// The options that `serve` does not have.
pub(super) const ONLY_UP: [&str; 3] = ["--agent", "--agent-log", "--remove-volumes"];

/// The options of `top` with a value.
pub(super) const TOP_VALUES: [&str; 4] = ["--sort", "--url", "--token", "--token-file"];

/// The options of `top` without a value.
pub(super) const TOP_FLAGS: [&str; 3] = ["--once", "--json", "--help"];
