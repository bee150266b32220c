//! Starts this process over with more variables in its environment.
//!
//! The AWS SDK and the TLS library read `AWS_PROFILE`, `SSL_CERT_FILE` and their like from the environment of the process, which
//! under ecs-init and Docker is `ecs.config`. This agent reads the file itself, and a process cannot safely change its own environment
//! while it runs; it can become itself again with another one. Invariant: same process id, same arguments, and at most once, since the
//! variables are there the second time.

use crate::model::Secret;
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Does not return unless it failed. `arguments` begin with the program's name.
pub fn start_over(
    arguments: impl IntoIterator<Item = OsString>,
    variables: &[(&'static str, Secret)],
) -> std::io::Error {
    let mut arguments = arguments.into_iter();
    // The file may have been replaced meanwhile; this is the program that runs.
    let mut command = Command::new("/proc/self/exe");
    if let Some(name) = arguments.next() {
        command.arg0(name);
    }
    command.args(arguments).envs(variables.iter().map(|(name, value)| (name, value.expose()))).exec()
}
