//! `ecs-local up`: runs one task from a file and returns its exit code. This module owns the agent's process, the processes that
//! print the containers' output, and a temporary data directory. Invariant: all of these, and the task's containers, are gone
//! when it ends.

use super::arguments::Up;
use super::output::{print_error, print_line};
use crate::{Options, Server, Task, TaskStatus};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// The time limit for the agent to register and connect.
const REGISTER_LIMIT: Duration = Duration::from_secs(90);
/// The time limit for the task to stop after Ctrl-C.
const STOP_LIMIT: Duration = Duration::from_secs(150);
/// The time limit for the agent to end, and for one Docker command.
const END_LIMIT: Duration = Duration::from_secs(20);
/// The time limit for the last output to arrive.
const OUTPUT_LIMIT: Duration = Duration::from_secs(5);

/// Runs the task. Returns its exit code.
pub(crate) async fn up(request: Up) -> Result<u8, String> {
    let text =
        std::fs::read_to_string(&request.task).map_err(|error| format!("{}: {error}", request.task.display()))?;
    let definition: Value =
        serde_json::from_str(&text).map_err(|error| format!("{}: {error}", request.task.display()))?;
    let mut interrupts = Interrupts::new()?;
    let asked = request.options.listen;
    super::output::warn_beyond_loopback(asked);
    let options = Options { token: request.token.value()?, ..request.options.clone() };
    let server = Server::start(options).await.map_err(|error| format!("cannot listen on {asked}: {error}"))?;
    let registered = server.call("RegisterTaskDefinition", &definition).map_err(|error| error.message)?;
    let directory = data_directory()?;
    let mut task = None;
    let result = match start_agent(&request, &server, &directory) {
        Ok(mut agent) => {
            let arn = registered["taskDefinition"]["taskDefinitionArn"].clone();
            let result = run(&request, &server, &mut agent, &arn, &mut interrupts, &mut task).await;
            end_agent(&mut agent).await;
            result.map_err(|problem| format!("{problem}{}", log_tail(&directory)))
        }
        Err(problem) => Err(problem),
    };
    if let Some(task) = task {
        remove_leftovers(&task).await;
    }
    if let Err(error) = std::fs::remove_dir_all(&directory) {
        print_error(&format!("{} stays: {error}", directory.display()));
    }
    server.shutdown().await;
    result
}

/// The signals that stop the task: Ctrl-C and SIGTERM.
struct Interrupts {
    interrupt: Signal,
    terminate: Signal,
}

impl Interrupts {
    fn new() -> Result<Self, String> {
        let on = |kind| signal(kind).map_err(|error| error.to_string());
        Ok(Self { interrupt: on(SignalKind::interrupt())?, terminate: on(SignalKind::terminate())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

fn data_directory() -> Result<PathBuf, String> {
    use std::os::unix::fs::DirBuilderExt;
    // The name is short: the path of a log router's socket below it must fit into 107 bytes, the limit for socket names.
    let name = uuid::Uuid::new_v4().simple().to_string();
    let path = std::env::temp_dir().join(format!("ecs-local-{}", &name[..12]));
    let created = std::fs::DirBuilder::new().mode(0o700).create(&path);
    created.map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(path)
}

fn start_agent(request: &Up, server: &Server, directory: &Path) -> Result<Child, String> {
    let beside = || Some(std::env::current_exe().ok()?.parent()?.join("ecs-agent"));
    let agent = request.agent.clone().or_else(beside).ok_or("ecs-agent is not found beside ecs-local: use --agent")?;
    let log = |name: &str| {
        let path = directory.join(name);
        std::fs::File::create(&path).map(Stdio::from).map_err(|error| format!("{}: {error}", path.display()))
    };
    let (out, err) =
        if request.agent_log { (Stdio::inherit(), Stdio::inherit()) } else { (log("out.log")?, log("err.log")?) };
    let data = directory.join("data");
    std::fs::create_dir(&data).map_err(|error| format!("{}: {error}", data.display()))?;
    let mut command = Command::new(&agent);
    command
        .envs(server.environment())
        // The developer's own credentials, in variables or in ~/.aws, would take precedence over the metadata's.
        .env("AWS_ACCESS_KEY_ID", "local")
        .env("AWS_SECRET_ACCESS_KEY", server.token().expose())
        .env_remove("AWS_SESSION_TOKEN")
        .env("ECS_DATADIR", &data)
        .env("ECS_HOST_DATA_DIR", directory)
        .env_remove("AWS_PROFILE")
        .envs(request.environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(err)
        // Ctrl-C must not reach the agent, which is needed to stop the task.
        .process_group(0)
        .kill_on_drop(true);
    command.spawn().map_err(|error| format!("cannot start the agent {}: {error}", agent.display()))
}

async fn run(
    request: &Up,
    server: &Server,
    agent: &mut Child,
    definition: &Value,
    interrupts: &mut Interrupts,
    task: &mut Option<String>,
) -> Result<u8, String> {
    tokio::select! {
        () = interrupts.next() => return Err("interrupted before the agent was ready".to_owned()),
        ended = agent.wait() => return Err(agent_ended(ended)),
        connected = server.wait_for("the agent to register and connect", REGISTER_LIMIT, |state| {
            state.instances().iter().any(|instance| instance.connected()).then_some(())
        }) => connected.map_err(|error| error.to_string())?,
    }
    let cluster = &request.options.cluster;
    let answer = server.call("RunTask", &json!({"cluster": cluster, "taskDefinition": definition}));
    let answer = answer.map_err(|error| error.message)?;
    let Some(arn) = answer["tasks"][0]["taskArn"].as_str() else {
        let failure = &answer["failures"][0];
        let text = |member: &str| failure[member].as_str().unwrap_or_default().to_owned();
        return Err(format!("the task cannot be placed: {} ({})", text("reason"), text("detail")));
    };
    *task = Some(arn.to_owned());
    if !request.quiet {
        let (url, shown) = (server.url(), request.token.shown(server.token()));
        print_line(&format!(
            "task {arn}\nLook at it: AWS_ACCESS_KEY_ID=local AWS_SECRET_ACCESS_KEY={shown} aws ecs --endpoint-url {url} describe-tasks \
             --tasks {arn}\nor: curl --user local:{shown} {url}/_local/state"
        ));
    }
    follow(request, server, agent, arn, interrupts).await
}

/// Prints the states and the output of the task until it has stopped.
async fn follow(
    request: &Up,
    server: &Server,
    agent: &mut Child,
    arn: &str,
    interrupts: &mut Interrupts,
) -> Result<u8, String> {
    let mut shown = Shown::default();
    let mut output = JoinSet::new();
    let mut stopping: Option<tokio::time::Instant> = None;
    loop {
        let limit = stopping.map_or(STOP_LIMIT, |end| end.saturating_duration_since(tokio::time::Instant::now()));
        let next = tokio::select! {
            () = interrupts.next() => {
                if stopping.is_some() {
                    return Err("interrupted twice: not waiting for the task to stop".to_owned());
                }
                print_error("stopping the task (again: do not wait)");
                server.stop_task(arn, "Stopped by ecs-local up").map_err(|error| error.message)?;
                stopping = Some(tokio::time::Instant::now() + STOP_LIMIT);
                continue;
            }
            ended = agent.wait() => return Err(agent_ended(ended)),
            changed = server.wait_for("a change", limit, |state| state.task(arn).filter(|task| shown.has_changed(task)).cloned()) => changed,
        };
        let Ok(task) = next else {
            if stopping.is_some() {
                return Err("the task did not stop in time".to_owned());
            }
            continue;
        };
        for (container, runtime_id) in shown.show(&task, request.quiet) {
            output.spawn(follow_output(container, runtime_id));
        }
        if task.last_status == TaskStatus::Stopped {
            // The containers have ended: wait only for output that has not arrived yet.
            let _all_shown = timeout(OUTPUT_LIMIT, async { while output.join_next().await.is_some() {} }).await;
            return exit_code(&task);
        }
    }
}

/// The lines that were printed already.
#[derive(Default)]
struct Shown {
    /// The last line, by task or container.
    states: BTreeMap<String, String>,
    /// The Docker id of the container whose output is followed, by container name.
    followed: BTreeMap<String, String>,
}

impl Shown {
    fn lines(task: &Task) -> Vec<(String, String)> {
        let reason = task.stopped_reason.as_deref().map(|reason| format!(" ({reason})")).unwrap_or_default();
        let mut lines =
            vec![("task".to_owned(), format!("{}, desired {}{reason}", task.last_status, task.desired_status))];
        for container in &task.containers {
            let code = container.exit_code.map(|code| format!(", exit code {code}")).unwrap_or_default();
            let reason = container.reason.as_deref().map(|reason| format!(" ({reason})")).unwrap_or_default();
            let health = if container.health_status == "UNKNOWN" {
                String::new()
            } else {
                format!(", {}", container.health_status)
            };
            let ports: String = container
                .network_bindings
                .iter()
                .map(|b| {
                    format!(
                        ", {}:{} -> {}",
                        b["bindIP"].as_str().unwrap_or_default(),
                        b["hostPort"],
                        b["containerPort"]
                    )
                })
                .collect();
            let line = format!("{}{code}{health}{ports}{reason}", container.last_status);
            lines.push((format!("container {}", container.name), line));
        }
        lines
    }

    fn has_changed(&self, task: &Task) -> bool {
        Self::lines(task).iter().any(|(name, line)| self.states.get(name) != Some(line))
    }

    /// Prints new lines. Returns name and Docker id of containers whose output is to be followed from now on.
    fn show(&mut self, task: &Task, quiet: bool) -> Vec<(String, String)> {
        for (name, line) in Self::lines(task) {
            if self.states.get(&name) != Some(&line) {
                if !quiet {
                    print_line(&format!("{name}: {line}"));
                }
                self.states.insert(name, line);
            }
        }
        let mut fresh = Vec::new();
        for container in &task.containers {
            let Some(id) = &container.runtime_id else { continue };
            if self.followed.insert(container.name.clone(), id.clone()).as_ref() != Some(id) {
                fresh.push((container.name.clone(), id.clone()));
            }
        }
        fresh
    }
}

/// Prints a container's output, line by line, until it ends.
async fn follow_output(container: String, runtime_id: String) {
    let mut command = Command::new("docker");
    command.args(["logs", "--follow", &runtime_id]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    match command.process_group(0).kill_on_drop(true).spawn() {
        Ok(mut child) => {
            let (out, err) = (child.stdout.take(), child.stderr.take());
            tokio::join!(print_lines(&container, out), print_lines(&container, err));
        }
        Err(error) => print_error(&format!("no output of {container}: docker logs: {error}")),
    }
}

async fn print_lines(container: &str, stream: Option<impl AsyncRead + Unpin>) {
    let Some(stream) = stream else { return };
    let mut reader = BufReader::new(stream);
    let mut line = Vec::new();
    while let Ok(1..) = reader.read_until(b'\n', &mut line).await {
        print_line(&format!("{container} | {}", String::from_utf8_lossy(&line).trim_end()));
        line.clear();
    }
}

/// The largest exit code of the essential containers.
fn exit_code(task: &Task) -> Result<u8, String> {
    let codes =
        task.containers.iter().filter(|container| container.essential).filter_map(|container| container.exit_code);
    match codes.max() {
        Some(code) => Ok(u8::try_from(code).unwrap_or(255)),
        None => Err("no essential container of the task ran".to_owned()),
    }
}

fn agent_ended(ended: std::io::Result<std::process::ExitStatus>) -> String {
    ended.map_or_else(|error| format!("the agent is lost: {error}"), |status| format!("the agent ended: {status}"))
}

/// The last lines of the agent's log; empty if there are none.
fn log_tail(directory: &Path) -> String {
    let texts = ["out.log", "err.log"].map(|name| std::fs::read_to_string(directory.join(name)).unwrap_or_default());
    let lines: Vec<&str> =
        texts.iter().flat_map(|text| text.lines().rev().take(15).collect::<Vec<_>>().into_iter().rev()).collect();
    if lines.is_empty() { String::new() } else { format!("\nThe last lines of the agent's log:\n{}", lines.join("\n")) }
}

/// Sends the agent SIGTERM, and SIGKILL if it does not end in time.
async fn end_agent(agent: &mut Child) {
    if let Some(pid) = agent.id() {
        short_command("kill", &["-TERM".to_owned(), pid.to_string()]).await;
    }
    if timeout(END_LIMIT, agent.wait()).await.is_err()
        && let Err(error) = agent.kill().await
    {
        print_error(&format!("the agent stays: {error}"));
    }
}

/// Removes the task's containers, the volumes that the agent made for them, and its control group.
async fn remove_leftovers(task: &str) {
    let docker = async |arguments: &[&str], names: &[String]| {
        let fixed = arguments.iter().map(|argument| (*argument).to_owned());
        short_command("docker", &fixed.chain(names.iter().cloned()).collect::<Vec<_>>()).await
    };
    let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let ids = words(&docker(&["ps", "-aq", "--filter"], &[format!("label=com.amazonaws.ecs.task-arn={task}")]).await);
    if !ids.is_empty() {
        let format = "{{range .Mounts}}{{.Name}} {{end}}";
        let mut volumes = words(&docker(&["inspect", "--format", format], &ids).await);
        volumes.retain(|name| is_task_volume(name));
        docker(&["rm", "--force", "--volumes"], &ids).await;
        volumes.sort();
        volumes.dedup();
        if !volumes.is_empty() {
            docker(&["volume", "rm"], &volumes).await;
        }
    }
    // On hosts where systemd manages control groups, the group is a slice of systemd, which stays until the next boot.
    let Some(id) = task.rsplit('/').next().filter(|id| !id.is_empty()) else { return };
    for hierarchy in std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
        let _ = std::fs::remove_dir(hierarchy.path().join("ecs").join(id));
    }
    let _ = std::fs::remove_dir(Path::new("/sys/fs/cgroup/ecs").join(id));
}

/// The name is one that the agent gives to a volume of a single task: `ecs-<family>-<revision>-<volume>-<20 hex>`.
fn is_task_volume(volume: &str) -> bool {
    let suffix = volume.strip_prefix("ecs-").and_then(|rest| rest.rsplit_once('-')).map_or("", |(_, suffix)| suffix);
    suffix.len() == 20 && suffix.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Runs a short command to its end and returns its output. If it fails, prints the error and returns nothing.
async fn short_command(program: &str, arguments: &[String]) -> String {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).process_group(0).kill_on_drop(true);
    match timeout(END_LIMIT, command.output()).await {
        Ok(Ok(output)) if output.status.success() => String::from_utf8_lossy(&output.stdout).into_owned(),
        Ok(Ok(output)) => {
            print_error(&format!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim()));
            String::new()
        }
        Ok(Err(error)) => {
            print_error(&format!("{program}: {error}"));
            String::new()
        }
        Err(_) => {
            print_error(&format!("{program} took too long"));
            String::new()
        }
    }
}
