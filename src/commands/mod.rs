//! What the program does: one file for each verb. `main` reads the arguments and calls one of them; it prints texts that are
//! known in advance (help, licence, reference, completions, manual page) itself.
//!
//! A verb prints text for a person and returns an exit code. [`run`] is the daemon; it hands over to
//! [`runtime`](crate::runtime). `process` is what the verbs that log have in common.

pub mod attributes;
pub mod check_config;
pub mod healthcheck;
pub mod host_setup;
mod process;
pub mod run;
pub mod version;

use crate::config::ArgsError;
use ecs_core::model::text::without_numbers;
use std::io::Write;
use std::process::ExitCode;

/// Writes to standard output. A failed write, such as to a closed pipe, is not an error of the agent, so the exit code is
/// always 0.
pub fn print(text: &str) -> ExitCode {
    let _ = std::io::stdout().write_all(text.as_bytes());
    ExitCode::SUCCESS
}

/// Writes what went wrong to standard error, without numbers of the operating system.
fn print_problem(text: &str) {
    let _ = writeln!(std::io::stderr(), "{}", without_numbers(text));
}

/// Prints what is wrong with the command line, in two lines, to standard error.
pub fn refuse(error: &ArgsError) -> ExitCode {
    print_problem(&format!("{error}\n{}", error.hint()));
    ExitCode::from(error.exit_code())
}
