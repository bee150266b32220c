//! Lines for people. It owns standard output and error of `ecs-local`. Invariant: a closed pipe is no reason to fail.

use std::io::Write;

/// A line on standard output.
pub(crate) fn say(text: &str) {
    // Nobody reads any more: what was started still has to be ended.
    let _written = writeln!(std::io::stdout().lock(), "{text}");
}

/// A line on standard error.
pub(crate) fn complain(text: &str) {
    // As above.
    let _written = writeln!(std::io::stderr().lock(), "ecs-local: {text}");
}
