//! `ecs-local` as a developer meets it first: a wrong setting, a pipe that ends, a container that is not healthy, volumes that stay, and
//! what `serve` leaves.

use super::rig::LIMIT;
use super::up::{Desk, PROGRAM, container, line_with};
use ecs_testing::docker::{TempDir, docker, unique};
use ecs_testing::wait::until;
use serde_json::{Value, json};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// A task of one container.
fn single(script: &str) -> Value {
    json!({"family": "f", "containerDefinitions": [container("main", true, script, &[])]})
}

async fn finished(child: Child) -> (Option<i32>, String) {
    let Output { status, stdout, stderr } =
        tokio::time::timeout(LIMIT, child.wait_with_output()).await.expect("it ends in time").unwrap();
    (status.code(), String::from_utf8([stdout, stderr].concat()).unwrap())
}

async fn interrupt(child: &Child) {
    let pid = child.id().unwrap().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().await.unwrap().success());
}

fn connects(address: &str) -> bool {
    TcpStream::connect((address, 51678)).is_ok()
}

/// All mistakes come at once, and nothing is started.
#[tokio::test(flavor = "multi_thread")]
async fn wrong_settings_after_the_dashes_end_with_code_2() {
    let Some(desk) = Desk::new("wrong settings").await else { return };
    let definition = desk.definition(single("true"));
    let wrong = ["ECS_LOGLEVL=debug", "ECS_IMAGE_PULL_BEHAVIOR=sometimes"];
    let (code, text) = finished(desk.command(&definition).arg("--").args(wrong).spawn().unwrap()).await;
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("ECS_LOGLEVL: ") && text.contains("did you mean ECS_LOGLEVEL?"), "{text}");
    let lists_names = format!("expected a name that `{} help` lists", env!("CARGO_BIN_EXE_ecs-agent"));
    assert!(text.contains(&lists_names), "{text}");
    assert!(text.contains("ECS_IMAGE_PULL_BEHAVIOR: `sometimes`"), "{text}");
    for wrong in ["ECS_LOGLEVEL", "=debug"] {
        let (code, text) = finished(desk.command(&definition).args(["--", wrong]).spawn().unwrap()).await;
        assert_eq!((code, text.contains("is not NAME=VALUE")), (Some(2), true), "{text}");
    }
    desk.is_empty("after wrong settings").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipe_to_head_ends_within_seconds() {
    let Some(desk) = Desk::new("head").await else { return };
    // It does not end with SIGTERM: without a limit of its own, the end would take the 30 seconds of the container.
    let definition = desk.definition(single("trap '' TERM; while :; do echo more; sleep 0.2; done"));
    let read = desk.directory.path().join("read");
    let script = format!(
        "'{PROGRAM}' up '{definition}' --agent '{}' | {{
            while read -r line; do case $line in 'main | more') break ;; esac; done
            touch '{}'
        }}",
        env!("CARGO_BIN_EXE_ecs-agent"),
        read.display()
    );
    let mut shell = Command::new("sh");
    shell.args(["-c", &script]).envs(desk.environment()).stdin(Stdio::null()).kill_on_drop(true);
    let mut shell = shell.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    until("the reader to end", LIMIT, async || read.exists().then_some(())).await;
    let begin = Instant::now();
    tokio::time::timeout(LIMIT, shell.wait()).await.expect("the pipe ends").unwrap();
    assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
    desk.is_empty("after the pipe").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unhealthy_container_is_shown_with_its_check() {
    let Some(desk) = Desk::new("unhealthy").await else { return };
    let mut definition = single("trap 'exit 0' TERM; sleep 600 & wait");
    definition["containerDefinitions"][0]["healthCheck"] =
        json!({"command": ["CMD-SHELL", "echo no heart; exit 3"], "interval": 5, "timeout": 2, "retries": 1});
    let mut up = desk.up(&desk.definition(definition));
    let wanted = "container main: UNHEALTHY: its health check ended with exit code 3: no heart";
    let _lines = line_with(&mut up, wanted).await;
    interrupt(&up).await;
    assert_eq!(up.wait().await.unwrap().code(), Some(0));
    desk.is_empty("after an unhealthy container").await;
}

/// The port of the agent is open to this machine alone.
#[tokio::test(flavor = "multi_thread")]
async fn the_agent_of_up_listens_on_loopback_only() {
    let Some(desk) = Desk::new("loopback").await else { return };
    let definition = desk.definition(single("trap 'exit 0' TERM; sleep 600 & wait"));
    for (settings, is_open) in [(&[][..], false), (&["--", "ECS_INTROSPECTION_LOOPBACK_ONLY=false"], true)] {
        let mut up = desk.command(&definition).args(settings).spawn().unwrap();
        let _lines = line_with(&mut up, "task: RUNNING").await;
        // Another address of this host: a socket for all addresses has it, too.
        assert_eq!((connects("127.0.0.1"), connects("127.0.0.2")), (true, is_open));
        interrupt(&up).await;
        assert_eq!(up.wait().await.unwrap().code(), Some(0));
        desk.is_empty("after a look at the port").await;
    }
}

/// Volumes of scope `shared` are for later tasks. `up` says that they stay, or removes those that it made.
#[tokio::test(flavor = "multi_thread")]
async fn shared_volumes_are_named_or_removed_on_request() {
    let Some(desk) = Desk::new("shared volumes").await else { return };
    let (made, mine) = (unique("ecs-test-made"), unique("ecs-test-mine"));
    docker(&["volume", "create", &mine]);
    let volume =
        |name: &str| json!({"name": name, "dockerVolumeConfiguration": {"scope": "shared", "autoprovision": true}});
    let mount = |name: &str| json!({"sourceVolume": name, "containerPath": format!("/{name}")});
    let mut definition = single("exit 0");
    definition["volumes"] = json!([volume(&made), volume(&mine)]);
    definition["containerDefinitions"][0]["mountPoints"] = json!([mount(&made), mount(&mine)]);
    let volumes = || docker(&["volume", "ls", "--quiet", "--filter", "name=ecs-test-m"]);
    let has = |name: &str| volumes().lines().any(|line| line == name);
    let (code, out, err) = desk.run(definition.clone()).await;
    assert_eq!(code, 0, "{out}{err}");
    assert!(err.contains(&format!("the volume {made}. To remove it: docker volume rm {made} (")), "{err}");
    assert!(has(&made) && has(&mine), "{}", volumes());
    // It is not new any more.
    let (_, _, err) = desk.run(definition.clone()).await;
    assert!(!err.contains("docker volume rm"), "{err}");
    docker(&["volume", "rm", &made]);
    let file = desk.definition(definition);
    let (code, text) = finished(desk.command(&file).arg("--remove-volumes").spawn().unwrap()).await;
    assert_eq!((code, text.contains("docker volume rm")), (Some(0), false), "{text}");
    assert!(!has(&made) && has(&mine), "{}", volumes());
    docker(&["volume", "rm", &mine]);
    desk.is_empty("after shared volumes").await;
}

/// Starts `serve` and an agent for it. Returns both, and how to call `/_local/`.
async fn serve(desk: &Desk, data: &Path) -> (Child, Child, String) {
    let mut serve = Command::new(PROGRAM);
    serve.args(["serve", "--listen", "127.0.0.1:0", "--token", "t0ken", "--quiet"]).envs(desk.environment());
    serve.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut serve = serve.spawn().unwrap();
    let mut lines = BufReader::new(serve.stdout.take().unwrap()).lines();
    let url = tokio::time::timeout(LIMIT, lines.next_line()).await.unwrap().unwrap().unwrap();
    let mut agent = Command::new(env!("CARGO_BIN_EXE_ecs-agent"));
    let settings = [
        ("ECS_CLUSTER", "default"),
        ("ECS_BACKEND_HOST", &url),
        ("ECS_DATADIR", data.to_str().unwrap()),
        ("AWS_DEFAULT_REGION", "us-west-2"),
        ("AWS_EC2_METADATA_SERVICE_ENDPOINT", &url),
        ("AWS_ACCESS_KEY_ID", "local"),
        ("AWS_SECRET_ACCESS_KEY", "t0ken"),
        ("ECS_IMAGE_PULL_BEHAVIOR", "prefer-cached"),
    ];
    agent.envs(desk.environment()).envs(settings).stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true);
    let agent = agent.spawn().unwrap();
    (serve, agent, url)
}

#[tokio::test(flavor = "multi_thread")]
async fn clean_removes_the_tasks_that_serve_left() {
    let Some(desk) = Desk::new("clean after serve").await else { return };
    let data = TempDir::new("ecs-test-serve");
    let (serve, mut agent, url) = serve(&desk, data.path()).await;
    let image = &desk.image.reference;
    let task = json!({"family": "left", "version": "1", "desiredStatus": "RUNNING", "containers": [
        {"name": "main", "image": image, "essential": true, "cpu": 0, "memory": 16, "command": ["sleep", "600"]},
    ]});
    let (task, path) = (task.to_string(), format!("{url}/_local/tasks"));
    let run = async || {
        let mut post = Command::new("curl");
        post.args(["-sf", "--user", "local:t0ken", "-H", "Content-Type: application/json", "-d", &task, &path]);
        post.output().await.unwrap().status.success().then_some(())
    };
    until("the agent to register", LIMIT, run).await;
    until("the container", LIMIT, async || (!desk.containers().is_empty()).then_some(())).await;

    interrupt(&serve).await;
    let (code, text) = finished(serve).await;
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("1 task has not stopped.") && text.contains("`ecs-local clean` removes"), "{text}");
    let pid = agent.id().unwrap().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().await.unwrap().success());
    agent.wait().await.unwrap();
    assert!(!desk.containers().is_empty(), "the agent keeps what runs");

    let mut clean = Command::new(PROGRAM);
    clean.arg("clean").envs(desk.environment()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let (code, text) = finished(clean.spawn().unwrap()).await;
    assert_eq!((code, text.contains("containers: 1, directories: 1")), (Some(0), true), "{text}");
    desk.is_empty("after clean").await;
}
