//! Lines for people. This module owns standard output and error of `ecs-local`. Invariant: a closed pipe is no reason to fail.

use std::io::Write;

/// Prints a line on standard output.
pub(crate) fn print_line(text: &str) {
    // A failed write means that nobody reads any more. Processes that were started must still be ended.
    let _written = writeln!(std::io::stdout().lock(), "{text}");
}

/// Prints a line on standard error.
pub(crate) fn print_error(text: &str) {
    // Nor does a failed write to standard error change anything.
    let _written = writeln!(std::io::stderr().lock(), "ecs-local: {text}");
}
