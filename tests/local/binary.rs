//! The `ecs-local` binary: `serve`, and `up` with this test binary in the place of the agent.

use super::agent::Agent;
use aws_credential_types::Credentials;
use serde_json::json;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;
use tokio::sync::{Mutex, MutexGuard};

pub(super) const LIMIT: Duration = Duration::from_secs(60);

/// A directory for `ecs-local`, removed at the end.
pub(super) struct Scratch(pub(super) PathBuf);

impl Scratch {
    pub(super) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("ecs-local-test-{}-{name}", std::process::id()));
        std::fs::create_dir_all(path.join("tmp")).unwrap();
        Self(path)
    }

    pub(super) fn file(&self, name: &str, text: &str, mode: u32) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    pub(super) fn left_behind(&self) -> usize {
        std::fs::read_dir(self.0.join("tmp")).unwrap().count()
    }

    pub(super) fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ecs-local"));
        command.env("TMPDIR", self.0.join("tmp")).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // A developer may have credentials for AWS itself, which must not be used with this control plane.
        let own = [("AWS_ACCESS_KEY_ID", "AKIAOWN"), ("AWS_SECRET_ACCESS_KEY", "own"), ("AWS_SESSION_TOKEN", "own")];
        command.envs(own).kill_on_drop(true);
        command
    }

    /// Runs `ecs-local` to its end. Returns exit code, output, error output.
    pub(super) async fn run(&self, arguments: &[&str]) -> (i32, String, String) {
        let mut command = self.command();
        let output =
            tokio::time::timeout(LIMIT, command.args(arguments).output()).await.expect("it ends in time").unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

/// Not a test: other tests here start it in a process of its own as their agent.
#[tokio::test]
#[ignore = "started by another test as its agent"]
async fn fake_agent() {
    let Ok(url) = std::env::var("ECS_BACKEND_HOST") else { return };
    assert!(std::env::var("ECS_DATADIR").is_ok_and(|path| std::path::Path::new(&path).is_dir()));
    let variable = |name: &str| std::env::var(name).unwrap();
    assert!(std::env::var("AWS_SESSION_TOKEN").is_err());
    let keys = [variable("AWS_ACCESS_KEY_ID"), variable("AWS_SECRET_ACCESS_KEY")];
    let keys = Credentials::new(&keys[0], &keys[1], None, None, "test");
    let target = "AmazonEC2ContainerServiceV20141113.ListClusters";
    assert_eq!(super::api(&url, target, &json!({}), Some(keys)).await.unwrap().0, 200, "its variables are those of up");
    let mut agent = Agent::at(url).await;
    let payload = agent.payload().await;
    agent.ack(&payload).await;
    let arn = payload["tasks"][0]["arn"].as_str().unwrap().to_owned();
    let mut running = json!({"containerName": "main", "status": "RUNNING"});
    if let Ok(image) = std::env::var("PLAYED_AGENT_IMAGE") {
        // A container that ends before the first report about the task.
        run_container(&arn, &image, "prepare", "echo words of preparation; echo words of warning >&2").await;
        let main = std::env::var("PLAYED_AGENT_MAIN").unwrap_or_else(|_| "echo words of the container".to_owned());
        running["runtimeId"] = json!(run_container(&arn, &image, "main", &main).await);
    }
    agent.submit(&arn, "RUNNING", running).await;
    if std::env::var("PLAYED_AGENT_WAITS").is_ok() {
        let stop = agent.payload().await;
        assert_eq!(stop["tasks"][0]["desiredStatus"], "STOPPED");
        agent.ack(&stop).await;
        if let Ok(path) = std::env::var("PLAYED_AGENT_MARK") {
            std::fs::write(path, "stopped").unwrap();
        }
    }
    agent.submit(&arn, "STOPPED", json!({"containerName": "main", "status": "STOPPED", "exitCode": 7})).await;
    std::future::pending().await
}

/// Runs a container of a task with this script, as an agent would. Returns its id.
async fn run_container(task: &str, image: &str, name: &str, script: &str) -> String {
    let labels = [format!("com.amazonaws.ecs.task-arn={task}"), format!("com.amazonaws.ecs.container-name={name}")];
    let volume = std::env::var("PLAYED_AGENT_VOLUME").map(|name| format!("--volume={name}:/shared")).ok();
    let mut run = vec!["run", "-d", "--label", &labels[0], "--label", &labels[1]];
    run.extend(volume.as_deref());
    run.extend([image, "/busybox", "sh", "-c", script]);
    docker(&run).await.expect("docker run")
}

/// Runs Docker and returns its output; `None` if it fails or is not there.
pub(super) async fn docker(arguments: &[&str]) -> Option<String> {
    let output = Command::new("docker").args(arguments).output().await.ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).unwrap().trim().to_owned())
}

/// An image with busybox, removed at the end; `None` if there is no Docker. One test at a time has one: `clean --all` of a session removes
/// the containers of all other sessions that it cannot see.
pub(super) struct TestImage(pub(super) String, #[expect(dead_code, reason = "held")] MutexGuard<'static, ()>);

static ALONE: Mutex<()> = Mutex::const_new(());

impl TestImage {
    pub(super) async fn make(scratch: &Scratch) -> Option<Self> {
        let busybox = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| std::path::Path::new(path).exists());
        let (Some(busybox), Some(_)) = (busybox, docker(&["info"]).await) else {
            eprintln!("SKIPPED: no Docker, or no busybox-static to make an image from");
            return None;
        };
        let alone = ALONE.lock().await;
        let id = uuid::Uuid::new_v4().simple().to_string();
        let (tar, image) = (scratch.0.join("image.tar"), format!("ecs-local-test-{}", &id[..12]));
        let tar = tar.to_str().unwrap();
        let (directory, name) = busybox.rsplit_once('/').unwrap();
        assert!(Command::new("tar").args(["-C", directory, "-chf", tar, name]).status().await.unwrap().success());
        docker(&["import", tar, &image]).await.expect("docker import");
        Some(Self(image, alone))
    }

    /// The containers of this image, with and without those that have ended.
    pub(super) async fn containers(&self) -> String {
        docker(&["ps", "-aq", "--filter", &format!("ancestor={}", self.0)]).await.unwrap()
    }
}

impl Drop for TestImage {
    fn drop(&mut self) {
        let _removed = std::process::Command::new("docker").args(["rmi", "-f", &self.0]).output();
    }
}

#[tokio::test]
async fn up_shows_the_containers_output_and_removes_it() {
    let scratch = Scratch::new("output");
    let Some(image) = TestImage::make(&scratch).await else { return };
    let agent = agent_script(&scratch);
    let variable = format!("PLAYED_AGENT_IMAGE={}", image.0);
    // Docker leaves a last line without a line break out while it follows.
    let main = "PLAYED_AGENT_MAIN=echo words of the container; sleep 0.3; printf last";
    let (code, out, err) = scratch.run(&["up", &exit_code_example(), "--agent", &agent, "--", &variable, main]).await;
    assert_eq!(code, 7, "{out}{err}");
    for line in ["prepare | words of preparation", "main | words of the container", "main | last"] {
        assert!(out.matches(line).count() == 1 && !err.contains(line), "{line} in:\n{out}\n--\n{err}");
    }
    let warning = "prepare | words of warning";
    assert!(err.contains(warning) && !out.contains(warning), "{out}\n--\n{err}");
    assert_eq!(image.containers().await, "", "the containers are gone");
    assert_eq!(scratch.left_behind(), 0);
}

#[tokio::test]
async fn up_takes_what_describe_task_definition_prints() {
    let scratch = Scratch::new("described");
    let agent = agent_script(&scratch);
    let mut described: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(exit_code_example()).unwrap()).unwrap();
    for (member, value) in [
        ("taskDefinitionArn", json!("arn:aws:ecs:us-west-2:123456789012:task-definition/exit-code:3")),
        ("revision", json!(3)),
        ("status", json!("ACTIVE")),
        ("requiresAttributes", json!([])),
        ("compatibilities", json!(["EC2"])),
        ("registeredAt", json!(1.5)),
        ("registeredBy", json!("arn:aws:iam::123456789012:root")),
    ] {
        described[member] = value;
    }
    for (name, text) in
        [("tab.json", described.clone()), ("cli.json", json!({"taskDefinition": described, "tags": []}))]
    {
        let file = scratch.file(name, &text.to_string(), 0o600);
        let (code, out, err) = scratch.run(&["up", file.to_str().unwrap(), "--agent", &agent]).await;
        assert_eq!(code, 7, "{name}: {out}{err}");
    }
}

#[tokio::test]
async fn the_agents_log_is_shown_only_if_it_explains_something() {
    let scratch = Scratch::new("log");
    let this = agent_script(&scratch);
    let talking =
        scratch.file("talking.sh", &format!("#!/bin/sh\necho words of the agent >&2\nexec '{this}'\n"), 0o755);
    let definition = json!({"family": "f", "containerDefinitions": [{"name": "main", "image": "i", "memory": 8}],
        "placementConstraints": [{"type": "memberOf", "expression": "attribute:rack == r1"}]});
    let definition = scratch.file("rack.json", &definition.to_string(), 0o600);
    let line = ["up", definition.to_str().unwrap(), "--agent", talking.to_str().unwrap()];
    let (code, _, err) = scratch.run(&line).await;
    assert_eq!(code, 1, "{err}");
    assert!(err.contains("cannot be placed: MemberOf") && err.contains("ECS_INSTANCE_ATTRIBUTES"), "{err}");
    assert!(!err.contains("words of the agent"), "{err}");
}

pub(super) fn agent_script(scratch: &Scratch) -> String {
    let this = std::env::current_exe().unwrap();
    let text = format!("#!/bin/sh\nexec '{}' --exact binary::fake_agent --ignored --nocapture\n", this.display());
    scratch.file("agent.sh", &text, 0o755).to_str().unwrap().to_owned()
}

pub(super) fn exit_code_example() -> String {
    format!("{}/examples/tasks/exit-code.json", env!("CARGO_MANIFEST_DIR"))
}

#[tokio::test]
async fn up_ends_with_the_tasks_exit_code_and_leaves_nothing() {
    let scratch = Scratch::new("up");
    let agent = agent_script(&scratch);
    let (code, out, err) = scratch.run(&["up", &exit_code_example(), "--agent", &agent]).await;
    assert_eq!(code, 7, "{out}{err}");
    for line in [
        "task: RUNNING, desired RUNNING",
        "task: STOPPED, desired STOPPED (Essential container in task exited)",
        "exit code 7",
    ] {
        assert!(out.contains(line), "{line} in:\n{out}{err}");
    }
    // Its output may become the log of a CI, where nobody needs to know why the token is not in it.
    assert!(!out.contains("--token") && !out.contains("AWS_SECRET_ACCESS_KEY"), "{out}");
    assert_eq!(scratch.left_behind(), 0);
}

#[tokio::test]
async fn an_interrupt_stops_the_task_first() {
    let scratch = Scratch::new("interrupt");
    let agent = agent_script(&scratch);
    let mut command = scratch.command();
    let mut child = command
        .args(["up", &exit_code_example(), "--agent", &agent, "--", "PLAYED_AGENT_WAITS=1"])
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let ended = tokio::time::timeout(LIMIT, async {
        while let Some(line) = lines.next_line().await.unwrap() {
            if line.starts_with("task: RUNNING, desired RUNNING") {
                let pid = child.id().unwrap().to_string();
                // Two signals, as `timeout` of coreutils sends them: one to the process, one to its group.
                let both = format!("kill -INT {pid}; kill -TERM {pid}");
                assert!(Command::new("sh").args(["-c", &both]).status().await.unwrap().success());
            }
        }
        child.wait().await.unwrap()
    });
    assert_eq!(ended.await.expect("it ends in time").code(), Some(7), "the task was stopped, and waited for");
    assert_eq!(scratch.left_behind(), 0);
}

#[tokio::test]
async fn up_explains_what_went_wrong() {
    let scratch = Scratch::new("wrong");
    let bad = scratch.file("bad.json", r#"{"family": "x", "containerDefinitions": []}"#, 0o600);
    let dying = scratch.file("agent.sh", "#!/bin/sh\necho cannot go on >&2\nexit 5\n", 0o755);
    let typo = scratch.file("typo.json", r#"{"family": "x", "containerDefinitions": [{"memroy": 1}]}"#, 0o600);
    let broken = scratch.file("broken.json", r#"{"password": hunter2}"#, 0o600);
    let (typo, broken) = (typo.to_str().unwrap(), broken.to_str().unwrap());
    let (bad, dying, good) = (bad.to_str().unwrap(), dying.to_str().unwrap(), exit_code_example());
    for (wanted, arguments, expected) in [
        (1, vec!["up", bad], "Container list cannot be empty."),
        (2, vec!["up", "/no/such/file"], "/no/such/file: No such file"),
        (2, vec!["up", &good, "--secrets", "/no/such/directory"], "/no/such/directory: No such file"),
        (2, vec!["serve", "--secrets", "/no/such/directory"], "/no/such/directory: No such file"),
        (2, vec!["up", &good, "--agent", "/no/such/agent"], "cannot start the agent /no/such/agent"),
        (1, vec!["up", &good, "--agent", dying], "cannot go on"),
        (1, vec!["up", typo], "containerDefinitions[0].memroy: there is no member `memroy`. Did you mean `memory`?"),
        (1, vec!["up", broken], "broken.json is not JSON: line 1, column 14: there is no value"),
    ] {
        let (code, _, err) = scratch.run(&arguments).await;
        assert_eq!((code, err.contains(expected)), (wanted, true), "{arguments:?}: {err}");
        assert!(!err.contains("hunter2"), "{err}");
        assert_eq!(scratch.left_behind(), 0, "{arguments:?}");
    }
    assert_eq!(scratch.run(&["serve", "--no-such-option"]).await.0, 2);
    assert!(scratch.run(&["--help"]).await.1.contains("ecs-local up TASK.json"));
    let version = scratch.run(&["--version"]).await;
    assert_eq!((version.0, version.1.trim()), (0, concat!("ecs-local ", env!("CARGO_PKG_VERSION"))));
}

#[tokio::test]
async fn serve_prints_its_url_and_ends_on_sigterm() {
    let scratch = Scratch::new("serve");
    let mut child = scratch.command().args(["serve", "--quiet", "--listen", "127.0.0.1:0"]).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let url = lines.next_line().await.unwrap().unwrap();
    let token = lines.next_line().await.unwrap().unwrap();
    let look = async |password: &str| {
        let request = super::http().get(format!("{url}/_local/state")).basic_auth("local", Some(password));
        request.send().await.unwrap().status().as_u16()
    };
    assert_eq!((look(&token).await, look("local").await), (200, 401), "the second line is the token");
    let greeting = super::http().get(&url).send().await.unwrap().text().await.unwrap();
    assert!(greeting.contains("State is in memory only"), "{greeting}");
    let pid = child.id().unwrap().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().await.unwrap().success());
    let ended = tokio::time::timeout(LIMIT, child.wait()).await.expect("it ends in time").unwrap();
    assert_eq!(ended.code(), Some(0));
}

#[tokio::test]
async fn a_token_that_was_given_is_used_and_not_printed() {
    let scratch = Scratch::new("token");
    let file = scratch.0.join("token");
    let mut seen = Vec::new();
    for arguments in [["--token", "given-in-ci-0123456789"], ["--token-file", file.to_str().unwrap()]] {
        let mut command = scratch.command();
        let mut child = command.args(["serve", "--listen", "127.0.0.1:0"]).args(arguments).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let first = lines.next_line().await.unwrap().unwrap();
        let url = first.split_whitespace().nth(3).unwrap().trim_end_matches('.').to_owned();
        let token = match arguments {
            ["--token", value] => value.to_owned(),
            _ => std::fs::read_to_string(&file).unwrap().trim().to_owned(),
        };
        let request = super::http().get(format!("{url}/_local/state")).bearer_auth(&token);
        assert_eq!(request.send().await.unwrap().status(), 200, "{arguments:?}");
        let pid = child.id().unwrap().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().await.unwrap().success());
        let mut output = first;
        while let Some(line) = lines.next_line().await.unwrap() {
            output.push_str(&line);
        }
        assert!(!output.contains(&token), "{arguments:?}: {output}");
        seen.push(output);
    }
    assert!(seen[0].contains("AWS_SECRET_ACCESS_KEY=TOKEN"), "{}", seen[0]);
    let read = format!("AWS_SECRET_ACCESS_KEY=\"$(cat '{}')\"", file.display());
    assert!(seen[1].contains(&read), "{}", seen[1]);
    let (code, _, err) = scratch.run(&["serve", "--token", "two words"]).await;
    assert_eq!((code, err.contains("without spaces"), err.contains("two words")), (2, true, false), "{err}");
}

#[tokio::test]
async fn beyond_loopback_there_is_a_warning() {
    let scratch = Scratch::new("beyond");
    for (listen, warns) in [("0.0.0.0:0", true), ("[::ffff:127.0.0.1]:0", false), ("127.0.0.1:0", false)] {
        let mut child = scratch.command().args(["serve", "--quiet", "--listen", listen]).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        lines.next_line().await.unwrap().expect("it listens");
        let pid = child.id().unwrap().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().await.unwrap().success());
        let output = tokio::time::timeout(LIMIT, child.wait_with_output()).await.unwrap().unwrap();
        let err = String::from_utf8(output.stderr).unwrap();
        assert_eq!(err.contains("is not loopback") && err.contains("Nothing is encrypted"), warns, "{listen}: {err}");
        let example = exit_code_example();
        // It ends at once, as an agent that does not start.
        let (code, _, err) = scratch.run(&["up", &example, "--listen", listen, "--agent", "/bin/true"]).await;
        assert_eq!(err.contains("is not loopback") && err.contains("Nothing is encrypted"), warns, "{listen}: {err}");
        assert!(code != 0 && err.contains("the agent ended"), "{code} {err}");
    }
}
