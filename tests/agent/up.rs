//! `ecs-local up` with the real agent and Docker: what a developer sees, and what is left when it ends or is killed.

use super::rig::LIMIT;
use ecs_testing::docker::{Image, TempDir, available, docker, one_agent, unique};
use ecs_testing::registry::container_ports;
use ecs_testing::wait::until;
use serde_json::{Value, json};
use std::fs::File;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_ecs-local");

/// A directory for sessions, and an image that no registry has.
pub(crate) struct Desk {
    pub(crate) directory: TempDir,
    pub(crate) image: Image,
    _one_agent: File,
}

impl Desk {
    /// `None` on a machine without Docker.
    pub(crate) async fn new(test: &str) -> Option<Self> {
        if !available(test) {
            return None;
        }
        let one_agent = tokio::task::spawn_blocking(one_agent).await.unwrap();
        let directory = TempDir::new("ecs-test-up");
        std::fs::create_dir(directory.path().join("tmp")).unwrap();
        std::fs::write(directory.path().join("ecs.config"), "").unwrap();
        // Nothing listens on port 9: an attempt to pull fails, again and again.
        let image = Image::make(&format!("127.0.0.1:9/{}:1", unique("up")), &[]);
        Some(Self { directory, image, _one_agent: one_agent })
    }

    pub(crate) fn environment(&self) -> Vec<(&'static str, String)> {
        let path = |name: &str| self.directory.path().join(name).to_string_lossy().into_owned();
        let mut environment = vec![
            ("TMPDIR", path("tmp")),
            ("ECS_CONFIG_FILE", path("ecs.config")),
            ("ECS_AGENT_CONFIG_FILE_PATH", "/dev/null".to_owned()),
            ("TERM", "xterm".to_owned()),
        ];
        environment.extend(container_ports().map(|range| ("ECS_DYNAMIC_HOST_PORT_RANGE", range)));
        environment
    }

    /// Writes a definition. Its images are replaced by the image of this desk.
    pub(crate) fn definition(&self, mut definition: Value) -> String {
        for container in definition["containerDefinitions"].as_array_mut().unwrap() {
            container["image"] = json!(self.image.reference);
        }
        let path = self.directory.path().join("task.json");
        std::fs::write(&path, definition.to_string()).unwrap();
        path.to_string_lossy().into_owned()
    }

    pub(crate) fn command(&self, definition: &str) -> Command {
        let mut command = Command::new(PROGRAM);
        command.args(["up", definition, "--agent", env!("CARGO_BIN_EXE_ecs-agent")]).envs(self.environment());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command
    }

    pub(crate) fn up(&self, definition: &str) -> Child {
        self.command(definition).spawn().unwrap()
    }

    /// Runs a task to its end. Returns exit code, output, error output.
    pub(crate) async fn run(&self, definition: Value) -> (i32, String, String) {
        let child = self.up(&self.definition(definition));
        let output = tokio::time::timeout(LIMIT, child.wait_with_output()).await.expect("it ends in time").unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
    }

    pub(crate) fn containers(&self) -> String {
        docker(&["ps", "-aq", "--filter", &format!("ancestor={}", self.image.reference)])
    }

    /// No container, directory or agent is left.
    pub(crate) async fn is_empty(&self, when: &str) {
        let left = || std::fs::read_dir(self.directory.path().join("tmp")).unwrap().count();
        let has_agent = || std::net::TcpStream::connect(("127.0.0.1", 51678)).is_ok();
        until(when, LIMIT, async || (left() == 0 && self.containers().is_empty() && !has_agent()).then_some(())).await;
    }
}

pub(crate) fn container(name: &str, is_essential: bool, script: &str, needed: &[&str]) -> Value {
    let needed: Vec<Value> = needed.iter().map(|name| json!({"containerName": name, "condition": "SUCCESS"})).collect();
    json!({
        "name": name, "image": "", "memory": 16, "essential": is_essential, "command": ["sh", "-c", script], "dependsOn": needed,
    })
}

/// Reads the output until a line contains this text. Returns the rest, which must stay open while the program runs.
pub(crate) async fn line_with(child: &mut Child, text: &str) -> Lines<BufReader<ChildStdout>> {
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let reading = async {
        while let Some(line) = lines.next_line().await.unwrap() {
            if line.contains(text) {
                return;
            }
        }
        panic!("no line with {text}");
    };
    tokio::time::timeout(LIMIT, reading).await.unwrap_or_else(|_| panic!("no line with {text} in time"));
    lines
}

#[tokio::test(flavor = "multi_thread")]
async fn the_examples_end_cleanly_and_leave_nothing() {
    let Some(desk) = Desk::new("examples").await else { return };
    let volumes = docker(&["volume", "ls", "-q"]);
    let mut seen = Vec::new();
    for entry in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/tasks")).unwrap() {
        let path = entry.unwrap().path();
        let definition: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        assert!(
            !definition["volumes"].to_string().contains("sourcePath"),
            "{}: a directory would stay",
            path.display()
        );
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let begin = Instant::now();
        if name == "web" {
            let mut child = desk.up(&desk.definition(definition));
            let _lines = line_with(&mut child, "container web: HEALTHY").await;
            let pid = child.id().unwrap().to_string();
            assert!(Command::new("kill").args(["-INT", &pid]).status().await.unwrap().success());
            assert_eq!(child.wait().await.unwrap().code(), Some(0), "{name}");
        } else {
            let (code, out, err) = desk.run(definition).await;
            assert_eq!(code, if name == "exit-code" { 42 } else { 0 }, "{name}: {out}{err}");
        }
        assert!(begin.elapsed() < Duration::from_secs(30), "{name}: an image of this machine is used without asking");
        desk.is_empty(&name).await;
        seen.push(name);
    }
    assert!(seen.len() >= 4, "{seen:?}");
    let left = docker(&["volume", "ls", "-q", "--filter", "name=ecs-depends-on"]);
    assert!(left.lines().all(|name| volumes.contains(name)), "{left}");
}

#[tokio::test(flavor = "multi_thread")]
async fn up_says_at_once_why_its_agent_is_not_ready() {
    let Some(desk) = Desk::new("no daemon").await else { return };
    let definition =
        desk.definition(json!({"family": "f", "containerDefinitions": [container("a", true, "true", &[])]}));
    // A `docker` command that is content, and no daemon for the agent.
    let command = desk.directory.path().join("docker");
    ecs_testing::program::write(&command, "#!/bin/sh\n");
    let path = format!("{}:{}", desk.directory.path().display(), std::env::var("PATH").unwrap());
    let environment = [("PATH", path.as_str()), ("DOCKER_HOST", "unix:///nonexistent/docker.sock")];
    let mut up = desk.command(&definition).envs(environment).spawn().unwrap();
    let mut errors = BufReader::new(up.stderr.take().unwrap()).lines();
    let first = tokio::time::timeout(LIMIT, errors.next_line()).await.unwrap().unwrap().unwrap();
    assert!(first.contains("the agent says: Could not connect to docker daemon"), "{first}");
    let pid = up.id().unwrap().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().await.unwrap().success());
    assert_eq!(up.wait().await.unwrap().code(), Some(1));
    let last = errors.next_line().await.unwrap().unwrap();
    assert!(last.contains("interrupted before the agent was ready: Could not connect to docker daemon"), "{last}");
    desk.is_empty("without a daemon").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn up_ends_at_once_without_docker() {
    let Some(desk) = Desk::new("no Docker").await else { return };
    let definition =
        desk.definition(json!({"family": "f", "containerDefinitions": [container("a", true, "true", &[])]}));
    for (name, value, remedy) in [
        ("DOCKER_HOST", "unix:///nonexistent/docker.sock", "start it, and look at DOCKER_HOST"),
        ("PATH", "/nonexistent", "install Docker"),
    ] {
        let up = desk.command(&definition).env(name, value).spawn().unwrap();
        let output = tokio::time::timeout(LIMIT, up.wait_with_output()).await.expect("it ends").unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(text.contains("the task needs Docker") && text.trim_end().ends_with(remedy), "{text}");
        assert_eq!((output.status.code(), text.lines().count()), (Some(1), 1), "{text}");
        desk.is_empty("without Docker").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn up_ends_when_nobody_reads_its_output() {
    let Some(desk) = Desk::new("no reader").await else { return };
    let definition = desk.definition(json!({"family": "f", "containerDefinitions": [
        container("a", true, "trap 'exit 0' TERM; while :; do echo more; sleep 0.2; done", &[]),
    ]}));
    let mut up = desk.up(&definition);
    drop(line_with(&mut up, "task: RUNNING").await);
    let ended = tokio::time::timeout(LIMIT, up.wait()).await.expect("it ends").unwrap();
    assert_eq!(ended.code(), Some(0), "the task was stopped");
    desk.is_empty("without a reader").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_up_at_a_time_says_so_before_it_starts_an_agent() {
    let Some(desk) = Desk::new("two ups").await else { return };
    let definition = desk.definition(json!({"family": "f", "containerDefinitions": [
        container("a", true, "trap 'exit 0' TERM; sleep 60 & wait", &[]),
    ]}));
    let mut first = desk.up(&definition);
    let _lines = line_with(&mut first, "task: RUNNING").await;
    let second = tokio::time::timeout(LIMIT, desk.up(&definition).wait_with_output()).await.unwrap().unwrap();
    let text = String::from_utf8(second.stderr).unwrap();
    assert!(text.contains("another `ecs-local up` runs (session 10ca1") && text.lines().count() == 1, "{text}");
    let pid = first.id().unwrap().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().await.unwrap().success());
    assert_eq!(first.wait().await.unwrap().code(), Some(0));
    desk.is_empty("two ups").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn up_shows_waits_and_output_and_returns_the_first_code() {
    let Some(desk) = Desk::new("waits and codes").await else { return };
    std::fs::write(desk.directory.path().join("ecs.config"), "ECS_CLUSTR=x\n").unwrap();
    let mut web = container("second", true, "trap 'exit 99' TERM; sleep 60 & wait", &["prepare"]);
    web["portMappings"] = json!([{"containerPort": 8080}]);
    let definition = json!({"family": "f", "containerDefinitions": [
        container("prepare", false, "echo one; echo careful >&2; sleep 4", &[]),
        container("first", true, "sleep 2; exit 5", &["prepare"]),
        web,
    ]});
    let (code, out, err) = desk.run(definition).await;
    assert_eq!(code, 5, "{out}{err}");
    let position = |line: &str| out.find(line).unwrap_or_else(|| panic!("{line} in:\n{out}{err}"));
    assert!(position("prepare | one") < position("task: RUNNING"), "{out}");
    position("container first: waits for prepare to be SUCCESS (it is RUNNING)");
    position("container second: RUNNING, http://localhost:");
    position("container second: STOPPED, exit code 99");
    assert!(err.contains("prepare | careful") && !out.contains("careful"), "{out}\n--\n{err}");
    assert!(err.contains("the agent's settings: ECS_CLUSTR") && err.contains("did you mean ECS_CLUSTER?"), "{err}");
    let definition = json!({"family": "f", "containerDefinitions": [
        container("prepare", false, "exit 3", &[]),
        container("main", true, "exit 0", &["prepare"]),
    ]});
    let (code, out, err) = desk.run(definition).await;
    assert_eq!(code, 3, "the container that main waited for has ended the task: {out}{err}");
    assert_eq!(err.matches("main did not start: prepare ended with exit code 3").count(), 1, "{err}");
    // The Go agent's words are for `describe-tasks`.
    assert!(!format!("{out}{err}").contains("ordering dependency"), "{out}{err}");
    assert!(out.contains("container main: STOPPED\n"), "it never ran: {out}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_terminal_or_sigkill_ends_agent_and_task() {
    let Some(desk) = Desk::new("lost terminal").await else { return };
    let forever = json!({"family": "f", "containerDefinitions": [
        container("main", true, "trap 'exit 0' TERM; echo ready; sleep 600 & wait", &[]),
    ]});
    let file = desk.definition(forever.clone());
    if Command::new("script").arg("--version").output().await.is_ok_and(|output| output.status.success()) {
        let inner = format!("exec '{PROGRAM}' up '{file}' --agent '{}'", env!("CARGO_BIN_EXE_ecs-agent"));
        let mut command = Command::new("script");
        command.args(["-q", "-f", "-c", &inner, "/dev/null"]).envs(desk.environment()).stdin(Stdio::piped());
        let mut terminal = command.stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
        let _lines = line_with(&mut terminal, "ready").await;
        assert_ne!(desk.containers(), "");
        terminal.kill().await.unwrap();
        desk.is_empty("nothing to be left after the terminal").await;
    } else {
        eprintln!("SKIPPED lost terminal: there is no `script` to make a terminal");
    }
    let mut child = desk.up(&file);
    let _lines = line_with(&mut child, "ready").await;
    assert_ne!(desk.containers(), "");
    child.kill().await.unwrap();
    // The next session waits for the clean-up of this one, and has nothing of it.
    let (code, out, err) = desk
        .run(json!({"family": "g", "containerDefinitions": [
            container("main", true, "exit 4", &[]),
        ]}))
        .await;
    assert_eq!(code, 4, "{out}{err}");
    assert!(!out.contains("ready"), "{out}");
    desk.is_empty("nothing to be left after SIGKILL").await;
}
