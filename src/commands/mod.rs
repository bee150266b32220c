//! What the program does: one verb a file. `main` reads the arguments and calls one of them.
//!
//! A verb has text for a person and an exit code. [`run`] is the daemon, which hands over to [`runtime`](crate::runtime);
//! `process` is what it shares with the other verbs that log.

pub mod attributes;
pub mod check_config;
pub mod healthcheck;
mod process;
pub mod run;
pub mod version;

use std::io::Write;
use std::process::ExitCode;

/// Writes to standard output. A closed pipe is not an error of the agent.
pub fn print(text: &str) -> ExitCode {
    let _ = std::io::stdout().write_all(text.as_bytes());
    ExitCode::SUCCESS
}
