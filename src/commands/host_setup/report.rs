//! What a run of `host-setup` has done, and in whose place it runs.

use crate::config::{Args, Role};

/// What a run has done.
#[derive(Debug, Default)]
pub(super) struct Report {
    /// What was done, in lines for a person.
    pub(super) text: String,
    /// Why the rules could not be made or removed.
    pub(super) errors: Vec<String>,
    /// What else could not be done: containers reach the agent all the same.
    pub(super) remarks: Vec<String>,
    /// The errors and remarks are those of the last run, and need not be printed every minute.
    pub(super) is_known: bool,
}

/// The unit runs the command, in place of ecs-init.
pub(super) fn is_service(args: &Args) -> bool {
    args.role == Role::Service
}
