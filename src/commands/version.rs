//! `-version`: the version in the Go agent's form, and this agent's own.

use super::print;
use crate::version::{COMMIT, OWN, REPORTED};
use std::process::ExitCode;

/// Prints the version.
pub fn run() -> ExitCode {
    print(&format!(
        "Amazon ECS Agent:\n\tVersion: {REPORTED}\n\tCommit: {COMMIT}\n\tDirty: false\n\tProgram: ecs-agent {OWN}, \
         which reports the version above to ECS\n"
    ))
}
