//! `ecs-local top` beside a session of `serve`, with a played agent that publishes metrics: on a terminal, in a pipe, and as JSON.

use super::agent::Agent;
use super::binary::{LIMIT, Scratch};
use ecs_testing::wait::until;
use serde_json::{Value, json};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::task::JoinSet;

/// A session of `serve` with its address and its token.
struct Served {
    child: Child,
    url: String,
    token: String,
}

impl Served {
    async fn start(scratch: &Scratch) -> Self {
        let mut child = scratch.command().args(["serve", "--quiet", "--listen", "127.0.0.1:0"]).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let url = lines.next_line().await.unwrap().unwrap();
        let token = lines.next_line().await.unwrap().unwrap();
        let served = Self { child, url, token };
        // Its address is noted after it is printed.
        let found = async || (scratch.run(&["top", "--once"]).await.0 == 0).then_some(());
        until("the session to be found", LIMIT, found).await;
        served
    }

    async fn end(mut self) {
        let pid = self.child.id().unwrap().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().await.unwrap().success());
        tokio::time::timeout(LIMIT, self.child.wait()).await.expect("it ends in time").unwrap();
    }

    /// Runs a task with one container, which its agent reports as running. Returns its ARN.
    async fn run(&self, agent: &mut Agent) -> String {
        let container = json!({"name": "main", "image": "busybox", "memory": 64});
        let definition = json!({"family": "greeter", "containerDefinitions": [container]});
        let user = aws_credential_types::Credentials::new("local", &self.token, None, None, "test");
        for (operation, body) in
            [("RegisterTaskDefinition", definition), ("RunTask", json!({"taskDefinition": "greeter"}))]
        {
            let target = format!("AmazonEC2ContainerServiceV20141113.{operation}");
            assert_eq!(super::api(&self.url, &target, &body, Some(user.clone())).await.unwrap().0, 200);
        }
        let payload = agent.payload().await;
        agent.ack(&payload).await;
        let arn = payload["tasks"][0]["arn"].as_str().unwrap().to_owned();
        agent.submit(&arn, "RUNNING", json!({"containerName": "main", "status": "RUNNING"})).await;
        arn
    }
}

/// The metrics of a task whose container uses this much of the CPU.
fn metrics(arn: &str, percent: f64) -> Value {
    let set = |value: f64| json!({"min": value, "max": value, "sum": value * 20.0, "sampleCount": 20});
    let counter = |value: u64| json!({"min": 0, "max": value, "sum": value, "sampleCount": 20});
    let container = json!({
        "containerName": "main", "cpuStatsSet": set(percent), "memoryStatsSet": set(12.0),
        "networkStatsSet": {"rxBytesPerSecond": set(2048.0), "txBytesPerSecond": set(10.0)},
        "storageStatsSet": {"readSizeBytes": counter(4096), "writeSizeBytes": counter(0)},
        "restartStatsSet": {"restartCount": 2},
    });
    json!([{"taskArn": arn, "taskDefinitionFamily": "greeter", "taskDefinitionVersion": "1", "containerMetrics": [container]}])
}

#[tokio::test]
async fn top_shows_once_what_the_agent_published() {
    let scratch = Scratch::new("top");
    let (code, _, err) = scratch.run(&["top"]).await;
    assert!(code == 1 && err.contains("no ecs-local runs here. Start `ecs-local serve`"), "{code} {err}");
    let served = Served::start(&scratch).await;
    let (code, out, err) = scratch.run(&["top", "--once"]).await;
    assert!(code == 0 && out.starts_with("no agent is registered"), "{code} {out}{err}");

    let mut agent = Agent::at(served.url.clone()).await;
    let arn = served.run(&mut agent).await;
    let (_, out, _) = scratch.run(&["top", "--once"]).await;
    assert!(out.contains("telemetry comes every 20 s; waiting for the first message"), "{out}");
    assert!(out.contains("-/64 MiB") && out.contains("RUNNING"), "{out}");

    agent.publish_metrics(&metrics(&arn, 12.5)).await;
    let (code, out, err) = scratch.run(&["top", "--once", "--sort", "name"]).await;
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!((code, lines.len()), (0, 2), "{out}{err}");
    let words: Vec<&str> = lines[1].split_whitespace().collect();
    let id = &arn[arn.len() - 8..];
    let wanted = [
        "greeter:1",
        id,
        "main",
        "12.5",
        "12/64",
        "MiB",
        "2.0",
        "KiB",
        "10",
        "B",
        "4.0",
        "KiB",
        "0",
        "B",
        "2",
        "-",
        "RUNNING",
    ];
    assert_eq!(words, wanted, "{out}");

    let (code, out, _) = scratch.run(&["top", "--once", "--json"]).await;
    let shown: Value = serde_json::from_str(&out).unwrap();
    let container = &shown["containers"][0];
    assert_eq!((code, &container["taskArn"], &container["cpuPercent"]), (0, &json!(arn), &json!(12.5)));
    assert_eq!((&shown["instances"][0]["connected"], &container["restarts"]), (&json!(true), &json!(2)));

    // Elsewhere, the address and the token are needed.
    let other = Scratch::new("top-other");
    let file = other.file("token", &served.token, 0o600);
    let with = ["top", "--once", "--url", &served.url, "--token-file", file.to_str().unwrap()];
    let (code, out, err) = other.run(&with).await;
    assert!(code == 0 && out.contains("12.5"), "{out}{err}");
    for (arguments, wanted) in [
        (vec!["top", "--once", "--url", &served.url], "no session of yours on this machine is"),
        (
            vec!["top", "--once", "--url", &served.url, "--token", "of-another-server"],
            "the token is not that of this server",
        ),
        (vec!["top", "--once", "--url", "http://127.0.0.1:9", "--token", "of-another-server"], "cannot be reached"),
        (vec!["top", "--once", "--url", "ftp://x", "--token", "of-another-server"], "the URL is not http://HOST:PORT"),
        (vec!["top", "--once", "--url", &served.url, "--token-file", "/no/such/file"], "there is no such file"),
    ] {
        let (code, _, err) = other.run(&arguments).await;
        assert!(code == 1 && err.contains(wanted), "{arguments:?}: {code} {err}");
        assert!(!err.contains("of-another-server"), "{err}");
    }
    drop(agent);
    served.end().await;
    assert_eq!(scratch.run(&["top", "--once"]).await.0, 1, "it has ended");
}

/// A terminal with `ecs-local top`, made by `script`.
struct Terminal {
    child: Child,
    keys: ChildStdin,
    text: Arc<Mutex<String>>,
    _reading: JoinSet<()>,
}

impl Terminal {
    /// `None`: there is no `script` here.
    async fn start(scratch: &Scratch, variables: &[(&str, &str)]) -> Option<Self> {
        if !Command::new("script").arg("--version").output().await.is_ok_and(|output| output.status.success()) {
            assert!(std::env::var_os("ECS_TEST_REQUIRE_DOCKER").is_none(), "there is no `script` to make a terminal");
            eprintln!("SKIPPED: there is no `script` to make a terminal");
            return None;
        }
        // The shell shows afterwards how the terminal was left. Ctrl-C is for it, too, and would end some shells.
        let inner = format!(
            "trap : INT; stty rows 20 columns 100; '{}' top; echo \"ended with $?\"; stty -a",
            env!("CARGO_BIN_EXE_ecs-local")
        );
        let mut command = Command::new("script");
        command.args(["-q", "-f", "-c", &inner, "/dev/null"]).env("TMPDIR", scratch.0.join("tmp")).env("TERM", "xterm");
        command.env_remove("NO_COLOR").envs(variables.iter().copied());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let (keys, mut out) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let (text, mut reading) = (Arc::new(Mutex::new(String::new())), JoinSet::new());
        let read = Arc::clone(&text);
        reading.spawn(async move {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = out.read(&mut buffer).await {
                read.lock().unwrap().push_str(&String::from_utf8_lossy(&buffer[..length]));
            }
        });
        Some(Self { child, keys, text, _reading: reading })
    }

    async fn shows(&self, wanted: &str) {
        let shown = async || self.text.lock().unwrap().contains(wanted).then_some(());
        let limit = std::time::Duration::from_secs(30);
        if tokio::time::timeout(limit, until(wanted, LIMIT, shown)).await.is_err() {
            panic!("{wanted} is not shown: {:?}", self.text.lock().unwrap());
        }
    }

    /// Ends `top` by a key. Returns what was shown.
    async fn end(mut self, key: &[u8]) -> String {
        self.keys.write_all(key).await.unwrap();
        self.keys.flush().await.unwrap();
        self.shows("ended with ").await;
        tokio::time::timeout(LIMIT, self.child.wait()).await.expect("it ends in time").unwrap();
        while self._reading.join_next().await.is_some() {}
        let text = self.text.lock().unwrap();
        text.clone()
    }
}

#[tokio::test]
async fn top_draws_on_a_terminal_and_leaves_it_as_it_was() {
    let scratch = Scratch::new("top-terminal");
    let served = Served::start(&scratch).await;
    let mut agent = Agent::at(served.url.clone()).await;
    let arn = served.run(&mut agent).await;
    agent.publish_metrics(&metrics(&arn, 12.5)).await;
    let Some(terminal) = Terminal::start(&scratch, &[]).await else { return };
    terminal.shows("12.5").await;
    // New values are drawn over the old ones.
    agent.publish_metrics(&metrics(&arn, 33.3)).await;
    terminal.shows("33.3").await;
    let by_interrupt = terminal.end(&[3]).await;
    let without_colours = Terminal::start(&scratch, &[("NO_COLOR", "1")]).await.unwrap();
    without_colours.shows("33.3").await;
    let by_key = without_colours.end(b"q").await;
    for text in [&by_interrupt, &by_key] {
        let (drawn, after) = text.split_once("\x1b[?1049l").expect("the alternate screen ends");
        assert!(
            drawn.contains("\x1b[?1049h") && drawn.contains("ecs-local top ") && drawn.contains("cluster default"),
            "{text:?}"
        );
        assert!(drawn.contains("q ends") && drawn.contains("\x1b[?25l"), "{text:?}");
        assert!(drawn.ends_with("\x1b[?25h"), "the cursor is shown: {text:?}");
        assert!(after.contains("ended with 0"), "{text:?}");
        for mode in [" echo ", " icanon ", "susp = ^Z"] {
            assert!(after.contains(mode), "{mode}: {after}");
        }
        let wide = drawn.split("\x1b[K").map(|line| line.rsplit("\r\n").next().unwrap_or(line));
        assert!(wide.into_iter().all(|line| visible(line) < 100), "{drawn:?}");
    }
    assert!(by_interrupt.contains("\x1b[1m") && !by_key.contains("\x1b[1m"), "NO_COLOR is respected");
    drop(agent);
    served.end().await;
}

/// The number of characters of a line that take room.
fn visible(line: &str) -> usize {
    let (mut count, mut is_sequence) = (0, false);
    for letter in line.chars() {
        match (letter, is_sequence) {
            ('\x1b', _) => is_sequence = true,
            (letter, true) => is_sequence = !letter.is_ascii_alphabetic(),
            (letter, false) => count += usize::from(!letter.is_control()),
        }
    }
    count
}

#[tokio::test]
async fn top_ends_with_its_session() {
    let scratch = Scratch::new("top-end");
    let served = Served::start(&scratch).await;
    let Some(terminal) = Terminal::start(&scratch, &[]).await else { return };
    terminal.shows("no agent is registered").await;
    served.end().await;
    terminal.shows("ecs-local has ended").await;
    let text = terminal.end(b"").await;
    assert!(text.contains("ended with 0") && text.contains("\x1b[?1049l"), "{text:?}");
}
