//! `-check-config`: loads the configuration as a start would, and prints what is wrong and what is in effect.

use super::print;
use crate::config::{Environment, Role, Sources, help};
use crate::host::memory;
use std::process::ExitCode;

/// Prints the report. The exit code is 1 if a problem is fatal.
pub fn run(role: Role) -> ExitCode {
    let _best_effort = memory::keep_out_of_core_files();
    let loaded = Sources::open(Environment::from_process(), role).load(None);
    print(&help::report(&loaded));
    if loaded.config.is_some() { ExitCode::SUCCESS } else { ExitCode::from(1) }
}
