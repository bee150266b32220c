//! Processes that end with `ecs-local`, also when it is killed with SIGKILL. This module owns how they are started: this program
//! is started once more, asks the kernel for SIGTERM when its parent ends, and becomes the other program.

use super::output::print_error;
use rustix::process::Signal;
use std::os::unix::process::CommandExt;
use std::process::ExitCode;
use std::time::Duration;
use tokio::process::Command;
use tokio::time::timeout;

/// The first argument of this program if it is to become another one.
pub(super) const BECOME: &str = "become-child";
/// This program, even if its file was replaced since the start.
pub(super) const THIS_PROGRAM: &str = "/proc/self/exe";
/// The time limit for one command that is expected to end by itself.
const LIMIT: Duration = Duration::from_secs(20);

/// A command that ends when this process ends, whatever ends it. Ctrl-C in the terminal does not reach it.
pub(super) fn bound(program: &str) -> Command {
    let mut command = Command::new(THIS_PROGRAM);
    command.args([BECOME, &std::process::id().to_string(), program]);
    command.process_group(0).kill_on_drop(true);
    command
}

/// Becomes the program in the arguments. It returns only on failure.
pub(super) fn become_child(arguments: &[String]) -> ExitCode {
    let [parent, program, rest @ ..] = arguments else { return ExitCode::from(2) };
    if let Err(error) = rustix::process::set_parent_process_death_signal(Some(Signal::TERM)) {
        print_error(&format!("cannot bind {program} to this session: {error}"));
    }
    // A parent that ended before that call sends no signal any more.
    let actual = rustix::process::getppid().map_or(0, |pid| pid.as_raw_nonzero().get());
    if parent.parse() != Ok(actual) {
        return ExitCode::FAILURE;
    }
    let error = std::process::Command::new(program).args(rest).exec();
    print_error(&format!("cannot start {program}: {error}"));
    ExitCode::from(127)
}

/// Runs a short command to its end. The error is what it printed.
pub(super) async fn output(program: &str, arguments: &[&str]) -> Result<String, String> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(std::process::Stdio::null()).process_group(0).kill_on_drop(true);
    match timeout(LIMIT, command.output()).await {
        Ok(Ok(output)) if output.status.success() => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        Ok(Ok(output)) => Err(format!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim())),
        Ok(Err(error)) => Err(format!("{program}: {error}")),
        Err(_) => Err(format!("{program} took too long")),
    }
}
