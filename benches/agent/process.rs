//! The agent's process, and what it and the machine have used.

use ecs_local::Server;
use ecs_testing::docker::TempDir;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// The agent's program: `BENCH_AGENT`, such as that of an earlier version, or the one that Cargo has built with this bench.
pub(crate) fn program() -> String {
    std::env::var("BENCH_AGENT").unwrap_or_else(|_| env!("CARGO_BIN_EXE_ecs-agent").to_owned())
}

/// An agent, which is killed when this is dropped.
pub(crate) struct Agent {
    pub(crate) child: Child,
    _data: TempDir,
}

impl Agent {
    pub(crate) fn start(server: &Server) -> Self {
        Self::start_with(server, true, &[])
    }

    /// Starts it. `is_favoured`: a thread may take precedence over others, as the unit allows. `environment`: further variables.
    pub(crate) fn start_with(server: &Server, is_favoured: bool, environment: &[(&str, &str)]) -> Self {
        let data = TempDir::new("ecs-bench");
        // The other program takes a millisecond of the start, so it is left out where it would change nothing.
        let program = program();
        let mut command = Command::new(if is_favoured { &program } else { "setpriv" });
        if !is_favoured {
            command.args(["--bounding-set=-sys_nice", "--inh-caps=-sys_nice", &program]);
        }
        let child = command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .envs(server.environment())
            // The rules would stay on this machine, since the agent is killed.
            .env("ECS_MANAGE_FIREWALL", "false")
            .env("ECS_DATADIR", data.path())
            .env("ECS_AUDIT_LOGFILE", data.path().join("audit.log"))
            .env("ECS_CONFIG_FILE", "/dev/null")
            .env("ECS_LOGLEVEL", "error")
            .envs(environment.iter().copied())
            .stdout(Stdio::null())
            .spawn()
            .expect("the agent starts");
        Self { child, _data: data }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Proportional set size of a process.
pub(crate) fn pss_kib(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("the agent's memory map");
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:")).expect("a Pss line");
    line.trim().trim_end_matches("kB").trim().parse().expect("a number")
}

/// The unit of processor time in `/proc`, the same on all common architectures.
const TICK: Duration = Duration::from_millis(10);

/// Processor time a process has used, in user and kernel mode.
pub(crate) fn cpu(pid: u32) -> Duration {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("the agent's times");
    let after_name = text.rsplit_once(')').expect("a name").1;
    let ticks: u32 =
        after_name.split_whitespace().skip(11).take(2).map(|text| text.parse::<u32>().expect("a number")).sum();
    TICK * ticks
}

/// Processor time that the whole machine has used: all columns but idle and waiting for I/O.
pub(crate) fn busy() -> Duration {
    let text = std::fs::read_to_string("/proc/stat").expect("the machine's times");
    let columns = text.lines().next().expect("a line for all processors").split_whitespace().skip(1).take(7);
    let ticks = columns
        .enumerate()
        .filter(|(nth, _)| ![3, 4].contains(nth))
        .map(|(_, text)| text.parse::<u32>().expect("a number"));
    TICK * ticks.sum()
}
