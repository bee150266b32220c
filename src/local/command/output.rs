//! Prints lines. This module owns standard output and standard error of `ecs-local`. Invariant: a closed pipe does not make the
//! program fail.

use std::io::Write;
use std::net::SocketAddr;

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

/// Warns about an address that other machines can reach.
pub(super) fn warn_beyond_loopback(address: SocketAddr) {
    if !address.ip().to_canonical().is_loopback() {
        print_error(&format!(
            "warning: {address} is not loopback. Other machines may reach it, and only the token keeps them from running containers on \
             this one. Nothing is encrypted: anyone who can read the network sees secrets and registry passwords. Listen on 127.0.0.1 unless \
             you need this."
        ));
    }
}
