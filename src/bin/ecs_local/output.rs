//! Prints lines. This module owns standard output and standard error of `ecs-local`. Invariant: a closed pipe does not make the
//! program fail.

use std::io::Write;

/// Prints a line on standard output.
pub(crate) fn print_line(text: &str) {
    // A failed write means that nobody reads the output any more. The program must still end the processes that it started.
    let _written = writeln!(std::io::stdout().lock(), "{text}");
}

/// Prints a line on standard error.
pub(crate) fn print_error(text: &str) {
    // A failed write is ignored here for the same reason.
    let _written = writeln!(std::io::stderr().lock(), "ecs-local: {text}");
}
