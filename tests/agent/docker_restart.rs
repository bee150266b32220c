//! A real dockerd that is killed and started again, with and without live restore. It is a second one, with its own directories and
//! socket; the host's is left alone. Needs root; skips loudly without.

use super::rig::{LIMIT, Plan, Rig, shell};
use super::support::docker::TempDir;
use super::support::wait::until;
use ecs_agent::local::TaskStatus;
use serde_json::{Value, json};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Two daemons on a loaded machine.
const SLOW: Duration = Duration::from_secs(60);

/// A dockerd of the test's own.
struct Dockerd {
    directory: TempDir,
    live_restore: bool,
    process: Option<Child>,
}

impl Dockerd {
    /// Starts it; `None` where that is not allowed.
    #[expect(clippy::print_stderr, reason = "a skipped test must be seen")]
    async fn start(live_restore: bool) -> Option<Self> {
        let is_root = Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout == b"0\n");
        let is_there = Command::new("dockerd").arg("--version").stdout(Stdio::null()).status().is_ok();
        if !is_root || !is_there {
            eprintln!("SKIPPED a restart of dockerd: it takes root and a dockerd");
            return None;
        }
        let mut dockerd = Self { directory: TempDir::new("ecs-test-dockerd"), live_restore, process: None };
        dockerd.run().await;
        Some(dockerd)
    }

    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).to_string_lossy().into_owned()
    }

    fn endpoint(&self) -> String {
        format!("unix://{}", self.path("docker.sock"))
    }

    async fn run(&mut self) {
        let log = std::fs::File::options().create(true).append(true).open(self.path("log")).unwrap();
        let mut command = Command::new("dockerd");
        // The first daemon's bridge, which nothing here uses: told of none, a daemon takes that one away from the host.
        command.args(["--bridge=docker0", "--iptables=false", "--ip6tables=false", "-H", &self.endpoint()]);
        command.args(["--data-root", &self.path("data"), "--exec-root", &self.path("exec"), "-p", &self.path("pid")]);
        command.arg(format!("--live-restore={}", self.live_restore));
        self.process = Some(command.stdout(Stdio::null()).stderr(log).spawn().unwrap());
        until("the second dockerd", SLOW, async || self.docker(&["version"]).map(drop)).await;
    }

    /// `kill -9`; its containerd goes with it, the containers' processes do not.
    async fn kill(&mut self) {
        let mut process = self.process.take().unwrap();
        process.kill().unwrap();
        process.wait().unwrap();
        let pid_file = self.path("exec/containerd/containerd.pid");
        let containerd = std::fs::read_to_string(&pid_file).unwrap();
        until("containerd to end", LIMIT, async || has_ended(&containerd).then_some(())).await;
        // Whoever is first on this host may leave a dead process unreaped; the next daemons would take it for a living one.
        let _ = std::fs::remove_file(pid_file);
        let _ = std::fs::remove_file(self.path("pid"));
    }

    /// The docker command line against this daemon; `None` when it fails.
    fn docker(&self, arguments: &[&str]) -> Option<String> {
        let output = Command::new("docker").args(["-H", &self.endpoint()]).args(arguments).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    fn inspect(&self, id: &str) -> Value {
        let text = self.docker(&["inspect", id]).expect("the container is there");
        serde_json::from_str::<Value>(&text).unwrap()[0]["State"].clone()
    }
}

/// The process is not there, or dead and only not yet reaped: then it has no command line any more.
fn has_ended(pid: &str) -> bool {
    std::fs::read_to_string(format!("/proc/{}/cmdline", pid.trim())).map_or(true, |line| line.is_empty())
}

impl Drop for Dockerd {
    #[expect(clippy::print_stderr, reason = "a failed test shows what the daemon said")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.path("log")).unwrap_or_default();
            let tail: Vec<&str> = log.lines().rev().take(30).collect();
            eprintln!("the daemon's last lines:");
            tail.iter().rev().for_each(|line| eprintln!("  {line}"));
        }
        let ids = self.docker(&["ps", "-aq"]).unwrap_or_default();
        if !ids.is_empty() {
            let ids: Vec<&str> = ids.split_whitespace().collect();
            let _ = self.docker(&[&["rm", "-fv"], &ids[..]].concat());
        }
        let Some(mut process) = self.process.take() else { return };
        // Told to end it ends its containerd and unmounts what it has mounted.
        let _ = Command::new("kill").arg(process.id().to_string()).status();
        let _ = process.wait();
    }
}

/// An agent with that daemon, and two tasks that run: one until a file is there, and one for ever.
async fn scene(dockerd: &Dockerd, test: &str) -> Option<(Rig, [(String, String); 2])> {
    let endpoint = dockerd.endpoint();
    let environment = [("DOCKER_HOST", endpoint.as_str()), ("ECS_CONTAINER_STOP_TIMEOUT", "5s")];
    let rig = Rig::start(test, Plan { environment: &environment, ..Plan::default() }).await?;
    let image = rig.image();
    let directory = rig.directory.path().join("shared");
    std::fs::create_dir(&directory).unwrap();
    let mut tasks = Vec::new();
    for command in ["while [ ! -e /shared/end ]; do sleep 0.1; done; exit 9", super::rig::FOREVER] {
        let mut container = shell("main", &image, command);
        container["mountPoints"] = json!([{"sourceVolume": "shared", "containerPath": "/shared"}]);
        let definition = json!({
            "family": "restart", "networkMode": "none", "containerDefinitions": [container],
            "volumes": [{"name": "shared", "host": {"sourcePath": directory}}],
        });
        let arn = rig.server.run_task(&definition).unwrap();
        let id = rig.task(&arn, TaskStatus::Running).await.container("main").unwrap().runtime_id.clone().unwrap();
        tasks.push((arn, id));
    }
    Some((rig, tasks.try_into().unwrap()))
}

const WHOLE_LIFE: [&str; 3] = ["PENDING", "RUNNING", "STOPPED"];

#[tokio::test(flavor = "multi_thread")]
async fn on_the_hosts_network_containers_that_die_with_their_daemon_are_reported_with_their_code() {
    let Some(mut dockerd) = Dockerd::start(false).await else { return };
    let Some((rig, tasks)) = scene(&dockerd, "dockerd killed").await else { return };
    dockerd.kill().await;
    rig.introspect("/v1/tasks").await;
    tasks.iter().for_each(|(arn, _)| assert_eq!(rig.statuses(arn), WHOLE_LIFE[..2], "nobody knows of an end"));
    dockerd.run().await;
    for (arn, id) in &tasks {
        let task = rig.task(arn, TaskStatus::Stopped).await;
        let state = dockerd.inspect(id);
        assert_eq!(state["Running"], false);
        assert_eq!(task.container("main").unwrap().exit_code, state["ExitCode"].as_i64(), "{state}");
        assert_eq!(rig.statuses(arn), WHOLE_LIFE);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn on_the_hosts_network_containers_that_outlive_their_daemon_stay_what_they_are() {
    let Some(mut dockerd) = Dockerd::start(true).await else { return };
    let Some((rig, [(ends, ends_id), (stays, stays_id)])) = scene(&dockerd, "live restore").await else { return };
    let pid = dockerd.inspect(&ends_id)["Pid"].to_string();
    dockerd.kill().await;
    std::fs::write(rig.directory.path().join("shared/end"), "").unwrap();
    until("the container to end without a daemon", LIMIT, async || has_ended(&pid).then_some(())).await;
    assert_eq!(rig.statuses(&ends), WHOLE_LIFE[..2], "nobody knows of its end");
    dockerd.run().await;
    let task = rig.task(&ends, TaskStatus::Stopped).await;
    let state = dockerd.inspect(&ends_id);
    assert_eq!(task.container("main").unwrap().exit_code, state["ExitCode"].as_i64(), "{state}");
    assert_eq!(dockerd.inspect(&stays_id)["Running"], true);
    assert_eq!(rig.statuses(&stays), WHOLE_LIFE[..2], "it runs all the time");
    rig.server.stop_task(&stays, "end of the test").unwrap();
    assert_eq!(rig.task(&stays, TaskStatus::Stopped).await.container("main").unwrap().exit_code, Some(0));
    assert_eq!(rig.statuses(&stays), WHOLE_LIFE);
}
