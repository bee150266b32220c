//! Processes that end with `ecs-local`, also when it is killed with SIGKILL. This module owns how they are started: this program
//! is started once more, asks the kernel for SIGTERM when its parent ends, and becomes the other program.

use super::output::print_error;
use rustix::process::Signal;
use std::os::unix::process::CommandExt;
use std::process::ExitCode;
use std::sync::OnceLock;
use std::time::Duration;
use tokio::process::Command;
use tokio::time::timeout;

/// The first argument of this program if it is to become another one.
pub(super) const BECOME: &str = "become-child";
/// This program, even if its file was replaced since the start.
pub(super) const THIS_PROGRAM: &str = "/proc/self/exe";
/// The time limit for one command that is expected to end by itself.
const LIMIT: Duration = Duration::from_secs(20);

/// The address of the Docker daemon that all processes of this session use; not set: that of `DOCKER_HOST`, or the default.
static DOCKER: OnceLock<String> = OnceLock::new();
/// The variable with the address of the Docker daemon.
const DOCKER_HOST: &str = "DOCKER_HOST";

/// Makes all processes that are started from now on use one Docker daemon: the one that `given` names for the agent, or that of
/// `DOCKER_HOST`, or that of the current context of the `docker` command, which the agent would not know.
///
/// # Errors
/// The agent cannot use the daemon of the context.
pub(super) async fn choose_docker(given: &[(String, String)]) -> Result<(), String> {
    let named = given.iter().rev().find(|(name, _)| name == DOCKER_HOST).map(|(_, address)| address.clone());
    let address = match named {
        None if std::env::var_os(DOCKER_HOST).is_some() => return Ok(()),
        None => {
            let format = "{{.Endpoints.docker.Host}} {{json .TLSMaterial}}";
            let answer = output("docker", &["context", "inspect", "--format", format]).await;
            // Without an answer, the default is right, or Docker will be missing anyway.
            address_of_context(&answer.unwrap_or_default())?
        }
        Some(address) => Some(address),
    };
    if let Some(address) = address {
        let _only_once = DOCKER.set(address);
    }
    Ok(())
}

/// Asks Docker for its version, since without it no task can run.
///
/// # Errors
/// The command is missing, or the daemon does not answer: what to do about it.
pub(super) async fn require_docker() -> Result<(), String> {
    let answer = output("docker", &["version", "--format", "{{.Server.Version}}"]).await;
    answer.map(|_version| ()).map_err(|problem| without_docker(&problem, docker_variable().is_some()))
}

/// What to do about a Docker that cannot be used. `problem` is what [`output`] returned.
fn without_docker(problem: &str, is_chosen: bool) -> String {
    if problem.contains("No such file or directory") && !problem.contains("daemon") {
        return format!("the task needs Docker, and its command is missing ({problem}): install Docker");
    }
    if problem.contains("permission denied") {
        return format!("Docker is not open to this user ({problem}): use sudo, or join the group docker");
    }
    let chosen = if is_chosen || std::env::var_os(DOCKER_HOST).is_some() { ", and look at DOCKER_HOST" } else { "" };
    format!("the task needs Docker, which does not answer ({problem}): start it{chosen}")
}

/// The address of a context's daemon; `None`: the context has none. `answer` is the address and, as JSON, the context's TLS keys.
fn address_of_context(answer: &str) -> Result<Option<String>, String> {
    let (address, tls) = answer.trim().split_once(' ').unwrap_or((answer.trim(), ""));
    let has_keys = !matches!(tls, "" | "{}" | "null");
    let is_usable = address.starts_with("unix://") || (address.starts_with("tcp://") && !has_keys);
    match address {
        "" => Ok(None),
        address if is_usable => Ok(Some(address.to_owned())),
        // The address itself may hold a password.
        address => {
            let keys = if has_keys { " with TLS keys" } else { "" };
            let kind = address.split_once("://").map_or("an unknown address", |(scheme, _)| scheme);
            Err(format!(
                "the current context of docker is {kind}{keys}, which the agent cannot use: choose another one with \
                 `docker context use`, or set DOCKER_HOST"
            ))
        }
    }
}

/// The variable for a process that uses Docker, if it needs one.
pub(super) fn docker_variable() -> Option<(&'static str, &'static str)> {
    DOCKER.get().map(|address| (DOCKER_HOST, address.as_str()))
}

/// A command that ends when this process ends, whatever ends it. Ctrl-C in the terminal does not reach it.
pub(super) fn bound(program: &str) -> Command {
    let mut command = Command::new(THIS_PROGRAM);
    command.envs(docker_variable());
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
    command.envs(docker_variable());
    command.args(arguments).stdin(std::process::Stdio::null()).process_group(0).kill_on_drop(true);
    match timeout(LIMIT, command.output()).await {
        Ok(Ok(output)) if output.status.success() => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        Ok(Ok(output)) => Err(format!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim())),
        Ok(Err(error)) => Err(format!("{program}: {error}")),
        Err(_) => Err(format!("{program} took too long")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_docker_that_cannot_be_used_has_a_remedy() {
        for (problem, is_chosen, remedy) in [
            ("docker: No such file or directory", false, "install Docker"),
            (
                "docker: permission denied while trying to connect to the Docker daemon socket",
                false,
                "join the group docker",
            ),
            ("docker: Cannot connect to the Docker daemon at unix:///var/run/docker.sock", true, "look at DOCKER_HOST"),
            ("docker took too long", false, "start it"),
        ] {
            let text = without_docker(problem, is_chosen);
            assert!(text.contains(problem) && text.ends_with(remedy), "{text}");
        }
    }

    #[test]
    fn only_a_context_that_the_agent_can_use_is_taken() {
        for (answer, wanted) in [
            ("", Ok(None)),
            ("unix:///run/user/1000/docker.sock {}\n", Ok(Some("unix:///run/user/1000/docker.sock"))),
            ("tcp://10.0.0.7:2375 {}", Ok(Some("tcp://10.0.0.7:2375"))),
            ("tcp://10.0.0.7:2376 {\"docker\":[\"ca.pem\"]}", Err("tcp with TLS keys")),
            ("ssh://me:hunter2@host {}", Err("ssh")),
        ] {
            let found = address_of_context(answer);
            match wanted {
                Ok(address) => assert_eq!(found, Ok(address.map(str::to_owned))),
                Err(text) => assert!(found.unwrap_err().contains(&format!("is {text}, which")), "{answer}"),
            }
        }
    }
}
