//! The agent of `ecs-local up`. This module owns its process: how it is started, what it is given, and how it ends. Invariant: it
//! ends with `ecs-local`, also when that is killed.

use super::arguments::Up;
use super::child::bound;
use super::definition_file::needs_gpus;
use super::output::print_error;
use super::session::Session;
use crate::Server;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::os::fd::AsFd as _;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::process::Child;
use tokio::time::timeout;

/// The time limit for the agent to end.
const END_LIMIT: Duration = Duration::from_secs(20);
/// The maximum number of lines of the agent's log that are shown, of each of its two files.
const MAX_LINES: usize = 15;

/// The agent's process.
#[derive(Debug)]
pub(super) struct Agent {
    child: Child,
    /// The directory with the agent's log, unless the log is shown.
    directory: PathBuf,
}

impl Agent {
    /// Starts the agent of a session.
    pub(super) fn start(request: &Up, server: &Server, session: &Session, definition: &Value) -> Result<Self, String> {
        let directory = &session.directory;
        let program = program(request)?;
        let log = |name: &str| {
            let path = directory.join(name);
            std::fs::File::create(&path).map(Stdio::from).map_err(|error| format!("{}: {error}", path.display()))
        };
        let (out, err) = if request.agent_log {
            // Standard output is for the containers.
            let out = std::io::stderr().as_fd().try_clone_to_owned();
            (out.map(Stdio::from).map_err(|error| format!("standard error: {error}"))?, Stdio::inherit())
        } else {
            (log("out.log")?, log("err.log")?)
        };
        let data = directory.join("data");
        std::fs::create_dir(&data).map_err(|error| format!("{}: {error}", data.display()))?;
        let mut command = bound(&program.to_string_lossy());
        command
            .envs(server.environment())
            // The developer's own credentials, in variables or in ~/.aws, would take precedence over the metadata's.
            .env("AWS_ACCESS_KEY_ID", "local")
            .env("AWS_SECRET_ACCESS_KEY", server.token().expose())
            .env_remove("AWS_SESSION_TOKEN")
            .env("ECS_DATADIR", &data)
            .env("ECS_HOST_DATA_DIR", directory)
            .env_remove("AWS_PROFILE")
            .env("ECS_AUDIT_LOGFILE", directory.join("audit.log"))
            .envs(defaults(definition, |name| is_set(&request.environment, name)))
            .envs(request.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err);
        let child =
            command.spawn().map_err(|error| format!("cannot start the agent {}: {error}", program.display()))?;
        if let Some(pid) = child.id() {
            session.note_agent(pid)?;
        }
        Ok(Self { child, directory: directory.clone() })
    }

    /// Waits until the agent has ended by itself, and says so, with the reason that the agent gives. Without one, the last lines of
    /// its log may explain it.
    pub(super) async fn ended(&mut self) -> String {
        let ended = self.child.wait().await;
        let text = std::fs::read_to_string(self.directory.join("out.log")).unwrap_or_default();
        match last_reason(&text, "exit_code") {
            // The exit status says nothing more.
            Some(reason) => format!("the agent ended: {reason}"),
            None => format!("{}{}", describe(ended), self.log_tail()),
        }
    }

    /// What the agent waits for before it tries something again, in words; `None`: it waits for nothing that it has said.
    pub(super) fn last_failure(&self) -> Option<String> {
        last_reason(&std::fs::read_to_string(self.directory.join("out.log")).ok()?, "retry_in_s")
    }

    /// The agent's warnings about its settings.
    pub(super) fn warnings_about_settings(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.directory.join("out.log")).unwrap_or_default();
        let lines = text.lines().filter(|line| line.ends_with(" module=commands::process"));
        lines.filter_map(warning).collect()
    }

    /// The last lines of the agent's log, for an error that they may explain; empty if there are none.
    pub(super) fn log_tail(&self) -> String {
        log_tail(&self.directory)
    }

    /// Sends the agent SIGTERM, and SIGKILL if it does not end in time; SIGKILL at once if `now`.
    pub(super) async fn end(mut self, now: bool) {
        if now {
            let _ended = self.child.kill().await;
            return;
        }
        if let Some(pid) = self.child.id().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?)) {
            let _sent = kill_process(pid, Signal::TERM);
        }
        if timeout(END_LIMIT, self.child.wait()).await.is_err()
            && let Err(error) = self.child.kill().await
        {
            print_error(&format!("the agent stays: {error}"));
        }
    }
}

/// The agent's binary. It is checked here, since a failure to start it would be seen only in its log.
pub(super) fn program(request: &Up) -> Result<PathBuf, String> {
    let beside = || Some(std::env::current_exe().ok()?.parent()?.join("ecs-agent"));
    let program =
        request.agent.clone().or_else(beside).ok_or("ecs-agent is not found beside ecs-local: use --agent")?;
    let failed =
        |problem: String| format!("cannot start the agent {}: {problem} (--agent FILE names it)", program.display());
    let found = std::fs::metadata(&program).map_err(|error| failed(error.to_string()))?;
    if !found.is_file() || found.permissions().mode() & 0o111 == 0 {
        return Err(failed("it is no program".to_owned()));
    }
    Ok(program)
}

/// Settings that a developer's agent needs, unless they are set: an image that is on this machine is used without asking a
/// registry, GPUs and roles are offered if the task asks for them, and only this machine can ask the agent.
fn defaults(definition: &Value, is_set: impl Fn(&str) -> bool) -> Vec<(&'static str, &'static str)> {
    let has_role = !definition["taskRoleArn"].is_null();
    let all = [
        ("ECS_IMAGE_PULL_BEHAVIOR", "prefer-cached", true),
        ("ECS_ENABLE_GPU_SUPPORT", "true", needs_gpus(definition)),
        ("ECS_ENABLE_TASK_ENI", "true", definition["networkMode"] == "awsvpc"),
        ("ECS_ENABLE_TASK_IAM_ROLE", "true", has_role),
        ("ECS_ENABLE_TASK_IAM_ROLE_NETWORK_HOST", "true", has_role),
        // A laptop may be in any network.
        ("ECS_INTROSPECTION_LOOPBACK_ONLY", "true", !is_set("ECS_ALLOW_OFFHOST_INTROSPECTION_ACCESS")),
    ];
    let used = all.into_iter().filter(|(name, _, is_used)| *is_used && !is_set(name));
    used.map(|(name, value, _)| (name, value)).collect()
}

/// The developer has set this variable, after `--` or for `up` itself.
fn is_set(given: &[(String, String)], name: &str) -> bool {
    given.iter().any(|(given, _)| given == name) || std::env::var_os(name).is_some()
}

fn describe(ended: std::io::Result<ExitStatus>) -> String {
    ended.map_or_else(|error| format!("the agent is lost: {error}"), |status| format!("the agent ended: {status}"))
}

/// The last warning or error in a log that has this field, in words; `None`: there is none. Other warnings explain nothing.
fn last_reason(log: &str, name: &str) -> Option<String> {
    log.lines().rev().filter(|line| field(line, name).is_some()).find_map(warning)
}

/// The message and the error of a warning in the agent's log; `None`: it is another line.
fn warning(line: &str) -> Option<String> {
    if !line.starts_with("level=warn ") && !line.starts_with("level=error ") {
        return None;
    }
    let message = field(line, "msg")?;
    Some(field(line, "error").map_or_else(|| message.clone(), |error| format!("{message}: {error}")))
}

/// The value of a field of a logfmt line.
fn field(line: &str, name: &str) -> Option<String> {
    let (_, value) = line.split_once(&format!(" {name}="))?;
    if value.starts_with('"') {
        // The escapes are those of JSON.
        serde_json::Deserializer::from_str(value).into_iter::<String>().next()?.ok()
    } else {
        value.split(' ').next().map(str::to_owned)
    }
}

fn log_tail(directory: &Path) -> String {
    let texts = ["out.log", "err.log"].map(|name| std::fs::read_to_string(directory.join(name)).unwrap_or_default());
    let last = |text: &'_ String| {
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines[lines.len().saturating_sub(MAX_LINES)..].to_vec()
    };
    let lines: Vec<String> = texts.iter().flat_map(last).collect();
    if lines.is_empty() { String::new() } else { format!("\nThe last lines of the agent's log:\n{}", lines.join("\n")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    use serde_json::json;

    #[test]
    fn defaults_give_way_to_what_is_set() {
        let gpu = json!([{"type": "GPU", "value": "1"}]);
        let all = json!({"taskRoleArn": "r", "containerDefinitions": [{"resourceRequirements": gpu}]});
        let names = |has_all: bool, set: &[&str]| -> Vec<&str> {
            let definition = if has_all { all.clone() } else { json!({}) };
            defaults(&definition, |name| set.contains(&name)).into_iter().map(|(name, _)| name).collect()
        };
        let roles = ["ECS_ENABLE_TASK_IAM_ROLE", "ECS_ENABLE_TASK_IAM_ROLE_NETWORK_HOST"];
        let (pull, gpus, port) =
            ("ECS_IMAGE_PULL_BEHAVIOR", "ECS_ENABLE_GPU_SUPPORT", "ECS_INTROSPECTION_LOOPBACK_ONLY");
        assert_eq!(names(false, &[]), [pull, port]);
        assert_eq!(names(true, &[pull]), [gpus, roles[0], roles[1], port]);
        assert_eq!(names(false, &[port]), [pull]);
        assert_eq!(names(false, &["ECS_ALLOW_OFFHOST_INTROSPECTION_ACCESS"]), [pull]);
        assert!(is_set(&[("A_B".to_owned(), String::new())], "A_B") && !is_set(&[], "A_B"));
    }

    #[test]
    fn a_warning_of_the_agent_is_shown_in_words() {
        let line =
            r#"level=warn time=2026-11-29T20:00:00Z msg="Could not connect" error="no \"socket\"" attempt=1 module=a"#;
        assert_eq!(warning(line).as_deref(), Some("Could not connect: no \"socket\""));
        assert_eq!(warning("level=error time=t msg=gone module=a").as_deref(), Some("gone"));
        assert_eq!(warning("level=info time=t msg=fine module=a"), None);
    }

    #[test]
    fn only_a_line_about_the_cause_is_a_reason() {
        let log = "level=warn msg=\"no answer\" error=closed attempt=1 retry_in_s=0.5 module=a\n\
                   level=warn msg=\"log routers get nothing\" module=b\nlevel=error msg=\"another agent works\" exit_code=1 module=c\n";
        assert_eq!(last_reason(log, "retry_in_s").as_deref(), Some("no answer: closed"));
        assert_eq!(last_reason(log, "exit_code").as_deref(), Some("another agent works"));
        assert_eq!(last_reason("level=warn msg=\"log routers get nothing\" module=b", "retry_in_s"), None);
    }

    #[test]
    fn only_the_last_lines_of_the_log_are_shown() {
        let directory = std::env::temp_dir().join(format!("ecs-local-tail-{}", uuid::Uuid::new_v4().simple()));
        std::fs::create_dir(&directory).unwrap();
        assert_eq!(log_tail(&directory), "");
        let lines: Vec<String> = (0..20).map(|number| format!("line {number}")).collect();
        std::fs::write(directory.join("err.log"), lines.join("\n")).unwrap();
        let tail = log_tail(&directory);
        assert!(
            tail.starts_with("\nThe last lines of the agent's log:\nline 5\n") && tail.ends_with("line 19"),
            "{tail}"
        );
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
