//! Executes this program again in the same process, with more variables in its environment.
//!
//! The AWS SDK and the TLS library read variables such as `AWS_PROFILE` and `SSL_CERT_FILE` from the environment of the
//! process. Under ecs-init and Docker, `ecs.config` becomes that environment. This agent reads the file itself, and a process
//! cannot safely change its environment while it runs; but it can execute its own program with a new environment. Invariant:
//! the process id and the arguments stay the same, and it happens at most once, because the variables are set the second time.

use ecs_core::model::Secret;
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Replaces the running program; returns only if that fails. `arguments` begin with the program's name.
pub fn start_over(
    arguments: impl IntoIterator<Item = OsString>,
    variables: &[(&'static str, Secret)],
) -> std::io::Error {
    let mut arguments = arguments.into_iter();
    // The program's file may have been replaced meanwhile. This link leads to the program that runs.
    let mut command = Command::new("/proc/self/exe");
    if let Some(name) = arguments.next() {
        command.arg0(name);
    }
    command.args(arguments).envs(variables.iter().map(|(name, value)| (name, value.expose()))).exec()
}
