//! A separate dockerd for a test, with its own directories and socket; the host's dockerd is left alone.
//!
//! It is in the network namespace of the test's process, so it reaches a registry only if that is the host's namespace. Needs
//! root.

use super::docker::TempDir;
use super::wait::until;
use serde_json::Value;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// The time limit for a daemon to start or to end, long enough for two daemons on a loaded machine.
const LIMIT: Duration = Duration::from_secs(60);

/// A separate dockerd for a test.
#[derive(Debug)]
pub struct Dockerd {
    directory: TempDir,
    live_restore: bool,
    process: Option<Child>,
}

impl Dockerd {
    /// Starts the daemon; `None`: the test is not root, or dockerd is not installed.
    #[expect(clippy::print_stderr, reason = "a skipped test must be seen")]
    pub async fn start(live_restore: bool) -> Option<Self> {
        let is_root = Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout == b"0\n");
        let is_there = Command::new("dockerd").arg("--version").stdout(Stdio::null()).status().is_ok();
        if !is_root || !is_there {
            eprintln!("SKIPPED what needs a dockerd of its own: it takes root and a dockerd");
            return None;
        }
        let mut dockerd = Self { directory: TempDir::new("ecs-test-dockerd"), live_restore, process: None };
        dockerd.run().await;
        Some(dockerd)
    }

    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).to_string_lossy().into_owned()
    }

    pub fn endpoint(&self) -> String {
        format!("unix://{}", self.path("docker.sock"))
    }

    pub async fn run(&mut self) {
        let log = std::fs::File::options().create(true).append(true).open(self.path("log")).unwrap();
        let mut command = Command::new("dockerd");
        // The first daemon's bridge, which nothing here uses. With `none`, a daemon would remove that bridge from the host.
        command.args(["--bridge=docker0", "--iptables=false", "--ip6tables=false", "-H", &self.endpoint()]);
        command.args(["--data-root", &self.path("data"), "--exec-root", &self.path("exec"), "-p", &self.path("pid")]);
        command.arg(format!("--live-restore={}", self.live_restore));
        // The containerd of this host, if it has one, has the first daemon's containers under the usual names.
        let namespace = self.directory.path().file_name().unwrap_or_default().to_string_lossy();
        command.arg(format!("--containerd-namespace={namespace}"));
        command.arg(format!("--containerd-plugins-namespace=plugins.{namespace}"));
        self.process = Some(command.stdout(Stdio::null()).stderr(log).spawn().unwrap());
        until("the second dockerd", LIMIT, async || self.docker(&["version"]).map(drop)).await;
    }

    /// Kills the daemon with SIGKILL. Its containerd ends as well, but the containers' processes do not.
    pub async fn kill(&mut self) {
        let mut process = self.process.take().unwrap();
        process.kill().unwrap();
        process.wait().unwrap();
        let pid_file = self.path("exec/containerd/containerd.pid");
        // There is none if the daemon uses the containerd of this host.
        if let Ok(containerd) = std::fs::read_to_string(&pid_file) {
            until("containerd to end", LIMIT, async || has_ended(&containerd).then_some(())).await;
        }
        // Process 1 of this host may not reap a dead process, and the next daemons would take it for a running one.
        let _ = std::fs::remove_file(pid_file);
        let _ = std::fs::remove_file(self.path("pid"));
    }

    /// Runs the docker command line against this daemon; `None`: it failed.
    pub fn docker(&self, arguments: &[&str]) -> Option<String> {
        let output = Command::new("docker").args(["-H", &self.endpoint()]).args(arguments).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    pub fn inspect(&self, id: &str) -> Value {
        let text = self.docker(&["inspect", id]).expect("the container is there");
        serde_json::from_str::<Value>(&text).unwrap()[0]["State"].clone()
    }
}

/// The process does not exist, or has ended and is not reaped yet; then its command line is empty.
pub fn has_ended(pid: &str) -> bool {
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
        // On SIGTERM the daemon ends its containerd and unmounts its file systems.
        let _ = Command::new("kill").arg(process.id().to_string()).status();
        let _ = process.wait();
    }
}
