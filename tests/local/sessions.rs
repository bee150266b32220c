//! How sessions of `ecs-local` end: with their terminal, by SIGHUP, and by SIGKILL; and how later sessions find what is left.

use super::binary::{LIMIT, Scratch, TestImage, agent_script, docker, exit_code_example};
use ecs_testing::wait::until;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};

type Lines = tokio::io::Lines<BufReader<ChildStdout>>;

/// Reads lines until one begins like this.
async fn line(lines: &mut Lines, beginning: &str) -> String {
    let reading = async {
        while let Some(line) = lines.next_line().await.unwrap() {
            if line.starts_with(beginning) {
                return line;
            }
        }
        panic!("the output ended before {beginning}");
    };
    tokio::time::timeout(LIMIT, reading).await.unwrap_or_else(|_| panic!("no line {beginning} in time"))
}

async fn kill(signal: &str, pid: u32) {
    assert!(Command::new("kill").args([signal, &pid.to_string()]).status().await.unwrap().success());
}

/// The only directory of a session in the scratch directory.
fn session(scratch: &Scratch) -> PathBuf {
    let mut found = std::fs::read_dir(scratch.0.join("tmp")).unwrap().map(|entry| entry.unwrap().path());
    let session = found.next().expect("a session");
    assert!(found.next().is_none(), "one session");
    session
}

fn agent_pid(session: &Path) -> u32 {
    let text = std::fs::read_to_string(session.join("agent")).unwrap();
    text.split(' ').next().unwrap().parse().unwrap()
}

/// The process of the guard of a session, which is a child of `ecs-local up`. A search for the program, as by `pkill -f`, must
/// not find it.
fn guard_pid(up: u32) -> u32 {
    let pids = std::fs::read_dir("/proc").unwrap().flatten();
    let mut pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let read = |pid: &u32, file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let is_guard = |pid: &u32| {
        let parent = read(pid, "stat").rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1)?.parse().ok());
        parent == Some(up) && read(pid, "cmdline").starts_with("ecs-guard\0")
    };
    let pid = pids.find(is_guard).expect("a guard");
    assert!(!read(&pid, "cmdline").contains("ecs-local"), "{}", read(&pid, "cmdline"));
    pid
}

fn runs(pid: u32) -> bool {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    text.rsplit_once(')').is_some_and(|(_, state)| !state.trim_start().starts_with('Z'))
}

async fn ends(what: &str, pid: u32) {
    until(what, LIMIT, async || (!runs(pid)).then_some(())).await;
}

/// Starts `up` with an agent that waits for the stop of its task, and returns when the task runs.
async fn start_up(scratch: &Scratch, more: &[&str]) -> (Child, Lines) {
    let agent = agent_script(scratch);
    let (task, arguments) = (exit_code_example(), ["--agent", &agent, "--", "PLAYED_AGENT_WAITS=1"]);
    let mut command = scratch.command();
    command.args(["up", &task]).args(arguments).args(more).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    line(&mut lines, "task: RUNNING").await;
    (child, lines)
}

#[tokio::test]
async fn a_closed_terminal_stops_the_task_and_leaves_nothing() {
    if !Command::new("script").arg("--version").output().await.is_ok_and(|output| output.status.success()) {
        assert!(std::env::var_os("ECS_TEST_REQUIRE_DOCKER").is_none(), "there is no `script` to make a terminal");
        eprintln!("SKIPPED: there is no `script` to make a terminal");
        return;
    }
    let scratch = Scratch::new("terminal");
    let (agent, mark) = (agent_script(&scratch), scratch.0.join("stopped"));
    let program = env!("CARGO_BIN_EXE_ecs-local");
    let inner = format!(
        "exec '{program}' up '{}' --agent '{agent}' -- PLAYED_AGENT_WAITS=1 PLAYED_AGENT_MARK='{}'",
        exit_code_example(),
        mark.display()
    );
    let mut command = Command::new("script");
    command.args(["-q", "-f", "-c", &inner, "/dev/null"]).env("TMPDIR", scratch.0.join("tmp")).env("TERM", "xterm");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
    let mut terminal = command.spawn().unwrap();
    let mut lines = BufReader::new(terminal.stdout.take().unwrap()).lines();
    line(&mut lines, "task: RUNNING").await;
    let pid = agent_pid(&session(&scratch));
    assert!(runs(pid));
    // The terminal goes away without a word to its programs, as a closed window or a lost connection does.
    terminal.kill().await.unwrap();
    until("the session to end", LIMIT, async || (scratch.left_behind() == 0).then_some(())).await;
    assert!(mark.exists(), "the task was stopped, not abandoned");
    ends("the agent to end", pid).await;
}

#[tokio::test]
async fn a_killed_session_leaves_nothing() {
    let scratch = Scratch::new("killed");
    let image = TestImage::make(&scratch).await;
    let variable = image.as_ref().map_or_else(|| "A=b".to_owned(), |image| format!("PLAYED_AGENT_IMAGE={}", image.0));
    let (mut child, _lines) = start_up(&scratch, &[&variable, "PLAYED_AGENT_MAIN=sleep 600"]).await;
    let pid = agent_pid(&session(&scratch));
    child.kill().await.unwrap();
    ends("the agent to end", pid).await;
    until("the guard to clean up", LIMIT, async || (scratch.left_behind() == 0).then_some(())).await;
    if let Some(image) = &image {
        assert_eq!(image.containers().await, "", "the containers are gone");
    }
    // The next session begins as if nothing had been there.
    let (code, out, err) = scratch.run(&["up", &exit_code_example(), "--agent", &agent_script(&scratch)]).await;
    assert_eq!(code, 7, "{out}{err}");
}

/// Also the guard is killed: the agent ends all the same, and a later session finds the rest.
#[tokio::test]
async fn what_a_killed_session_left_is_found_and_removed() {
    let scratch = Scratch::new("abandoned");
    let image = TestImage::make(&scratch).await;
    let variable = image.as_ref().map_or_else(|| "A=b".to_owned(), |image| format!("PLAYED_AGENT_IMAGE={}", image.0));
    for next in ["clean", "up"] {
        let (mut child, _lines) = start_up(&scratch, &[&variable, "PLAYED_AGENT_MAIN=sleep 600"]).await;
        let directory = session(&scratch);
        let pid = agent_pid(&directory);
        kill("-KILL", guard_pid(child.id().unwrap())).await;
        child.kill().await.unwrap();
        ends("the agent to end", pid).await;
        assert!(directory.exists(), "nobody has cleaned up");
        if image.is_some() {
            let printed = serve_error(&scratch).await;
            let id = directory.file_name().unwrap().to_str().unwrap().trim_start_matches("ecs-local-").to_owned();
            assert!(printed.contains("Earlier sessions") && printed.contains("ecs-local clean"), "{printed}");
            assert!(printed.contains(&format!("/{id}")) && printed.contains("(Up "), "{id}: {printed}");
        }
        let agent = agent_script(&scratch);
        let (task, mut arguments) = (exit_code_example(), vec![next]);
        if next == "up" {
            arguments.extend([task.as_str(), "--agent", agent.as_str()]);
        }
        let (code, out, err) = scratch.run(&arguments).await;
        assert_eq!(code, if next == "up" { 7 } else { 0 }, "{out}{err}");
        assert_eq!(scratch.left_behind(), 0, "{next}");
        if let Some(image) = &image {
            let removed = "containers: 2, directories: 1";
            assert!(next == "up" || out.contains(removed), "{out}{err}");
            assert_eq!(image.containers().await, "", "{next}: the containers are gone");
        }
    }
}

/// A volume with a name of its own holds data: no session removes it, but the next one says how. The guard cannot say it.
#[tokio::test]
async fn a_volume_that_a_killed_session_left_is_named() {
    let scratch = Scratch::new("volume");
    let Some(image) = TestImage::make(&scratch).await else { return };
    let name = format!("ecs-local-test-{}", uuid::Uuid::new_v4().simple());
    let variables = [format!("PLAYED_AGENT_IMAGE={}", image.0), format!("PLAYED_AGENT_VOLUME={name}")];
    let (agent, task) = (agent_script(&scratch), exit_code_example());
    for (guard_lives, next) in [(true, &["up", &task, "--agent", &agent][..]), (true, &["clean"]), (false, &["clean"])]
    {
        let (mut child, _lines) =
            start_up(&scratch, &[&variables[0], &variables[1], "PLAYED_AGENT_MAIN=sleep 600"]).await;
        let (pid, guard) = (agent_pid(&session(&scratch)), guard_pid(child.id().unwrap()));
        if !guard_lives {
            kill("-KILL", guard).await;
        }
        child.kill().await.unwrap();
        ends("the agent to end", pid).await;
        ends("the guard to end", guard).await;
        assert_eq!(image.containers().await.is_empty(), guard_lives);
        let remedy = format!("docker volume rm {name}");
        let printed = serve_error(&scratch).await;
        assert!(printed.contains(&remedy), "{printed}");
        let (code, out, err) = scratch.run(next).await;
        assert_eq!(code, if next[0] == "up" { 7 } else { 0 }, "{out}{err}");
        assert!(out.contains(&remedy) || err.contains(&remedy), "{out}{err}");
        assert_eq!((scratch.left_behind(), image.containers().await.as_str()), (0, ""));
        assert!(docker(&["volume", "inspect", &name]).await.is_some(), "it stays");
        let printed = serve_error(&scratch).await;
        assert!(!printed.contains(&remedy), "it has been said: {printed}");
    }
    docker(&["volume", "rm", &name]).await.expect("the words of the remedy");
}

/// What `serve` prints on standard error while it starts.
async fn serve_error(scratch: &Scratch) -> String {
    let mut child = scratch.command().args(["serve", "--quiet", "--listen", "127.0.0.1:0"]).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    lines.next_line().await.unwrap();
    // What it found is printed before it takes a signal.
    kill("-TERM", child.id().unwrap()).await;
    let output = tokio::time::timeout(LIMIT, child.wait_with_output()).await.unwrap().unwrap();
    String::from_utf8(output.stderr).unwrap()
}

#[tokio::test]
async fn a_session_that_runs_is_left_alone() {
    let scratch = Scratch::new("alone");
    let Some(image) = TestImage::make(&scratch).await else { return };
    let variable = format!("PLAYED_AGENT_IMAGE={}", image.0);
    let (mut child, mut lines) = start_up(&scratch, &[&variable, "PLAYED_AGENT_MAIN=sleep 600"]).await;
    let before = image.containers().await;
    assert_eq!(before.lines().count(), 2, "{before}");
    let printed = serve_error(&scratch).await;
    let id = session(&scratch).file_name().unwrap().to_str().unwrap().trim_start_matches("ecs-local-").to_owned();
    assert!(!printed.contains(&id), "{printed}");
    let (code, out, err) = scratch.run(&["clean", "--all"]).await;
    assert!(code == 0 && out.contains("containers: 0, directories: 0"), "{out}{err}");
    // A session with another TMPDIR cannot be seen from here. Only --all removes its containers.
    let elsewhere = Scratch::new("elsewhere");
    let (code, out, err) = elsewhere.run(&["clean"]).await;
    assert!(code == 0 && out.contains("without a directory here: 2."), "{out}{err}");
    let printed = serve_error(&elsewhere).await;
    assert!(printed.contains("may run with another TMPDIR") && printed.contains(&id), "{printed}");
    assert!(!printed.contains("do not run any more"), "{printed}");
    assert_eq!(image.containers().await, before, "`clean` has removed nothing of it");
    kill("-INT", child.id().unwrap()).await;
    while lines.next_line().await.unwrap().is_some() {}
    assert_eq!(child.wait().await.unwrap().code(), Some(7));
    assert_eq!(image.containers().await, "");
}

/// The README's session: its task has stopped, and `serve` ends in order. The container is still there.
#[tokio::test]
async fn serve_keeps_its_directory_for_its_containers() {
    let scratch = Scratch::new("left");
    let Some(image) = TestImage::make(&scratch).await else { return };
    let mut child = scratch.command().args(["serve", "--quiet", "--listen", "127.0.0.1:0"]).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    lines.next_line().await.unwrap().expect("it listens");
    let id = session(&scratch).file_name().unwrap().to_str().unwrap().trim_start_matches("ecs-local-").to_owned();
    let label =
        format!("com.amazonaws.ecs.task-arn=arn:aws:ecs:us-west-2:123456789012:task/default/{id}{}", "0".repeat(22));
    docker(&["run", "--label", &label, &image.0, "/busybox", "true"]).await.expect("docker run");
    kill("-INT", child.id().unwrap()).await;
    let output = tokio::time::timeout(LIMIT, child.wait_with_output()).await.unwrap().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && text.contains("containers of this session are left:"), "{text}");
    assert!(text.contains("(Exited (0)") && text.trim_end().ends_with("ecs-local clean"), "{text}");
    let (code, out, err) = scratch.run(&["clean"]).await;
    assert!(code == 0 && out.contains("containers: 1, directories: 1"), "{out}{err}");
    assert_eq!((image.containers().await.as_str(), scratch.left_behind()), ("", 0));
}

#[tokio::test]
async fn each_session_has_a_cluster_and_a_directory_of_its_own() {
    let scratch = Scratch::new("clusters");
    let (agent, token) = (agent_script(&scratch), ["--token", "given-in-a-test-0123456789"]);
    let mut clusters = Vec::new();
    for _ in 0..2 {
        let (_, out, _) = scratch.run(&["up", &exit_code_example(), "--agent", &agent, token[0], token[1]]).await;
        let cluster = out.split("--cluster ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap_or_default();
        assert!(cluster.starts_with("up-") && out.contains(&format!(":task/{cluster}/{}", &cluster[3..])), "{out}");
        assert!(out.contains("AWS_SECRET_ACCESS_KEY=TOKEN") && out.contains("TOKEN is the value of --token."), "{out}");
        clusters.push(cluster.to_owned());
    }
    assert_ne!(clusters[0], clusters[1]);
    let own = ["up", &exit_code_example(), "--agent", &agent, "--cluster", "mine", token[0], token[1]];
    let (_, out, _) = scratch.run(&own).await;
    assert!(out.contains("--cluster mine "), "{out}");
}

#[tokio::test]
async fn serve_ends_with_its_terminal_unless_under_nohup() {
    let scratch = Scratch::new("hangup");
    let program = env!("CARGO_BIN_EXE_ecs-local");
    for (ignored, prefix) in [(false, ""), (true, "trap '' HUP; ")] {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("{prefix}exec '{program}' serve --quiet --listen 127.0.0.1:0")]);
        command.env("TMPDIR", scratch.0.join("tmp")).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        lines.next_line().await.unwrap().expect("it listens");
        kill("-HUP", child.id().unwrap()).await;
        let ended = tokio::time::timeout(std::time::Duration::from_secs(3), child.wait()).await;
        assert_eq!(ended.is_err(), ignored, "{prefix}");
        if let Ok(ended) = ended {
            assert_eq!(ended.unwrap().code(), Some(0), "an orderly end");
        } else {
            kill("-TERM", child.id().unwrap()).await;
            assert_eq!(child.wait().await.unwrap().code(), Some(0));
        }
        assert_eq!(scratch.left_behind(), 0, "{prefix}");
    }
}
