//! How long reading the counters of a container takes: `cargo bench --bench usage`. Needs Docker, and root where `/proc` is hidden.
//!
//! Starts containers of an image that is there already, reads the counters of all of them again and again, and prints the median
//! time for one container and the processor time of it. Removes the containers.

#![expect(clippy::print_stdout, reason = "a bench prints its numbers")]

use ecs_agent::cgroup::usage::{Outcome, Sampler, Target};
use ecs_core::model::usage::Process;
use std::process::Command;
use std::time::{Duration, Instant};

const CONTAINERS: usize = 20;
const ROUNDS: usize = 300;
/// The label of the containers.
const LABEL: &str = "ecs-agent-bench-usage";

fn docker(arguments: &[&str]) -> String {
    let output = Command::new("docker").args(arguments).output().expect("docker runs");
    assert!(output.status.success(), "docker {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Removes the containers, also if the bench fails.
struct Removed;

impl Drop for Removed {
    fn drop(&mut self) {
        let ids = docker(&["ps", "--all", "--quiet", "--filter", &format!("label={LABEL}")]);
        let ids: Vec<&str> = ids.lines().collect();
        docker(&[&["rm", "--force"][..], &ids].concat());
    }
}

/// The processor time of this thread.
fn used() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    Duration::from_nanos(text.split(' ').next().and_then(|nanos| nanos.parse().ok()).unwrap_or_default())
}

fn main() {
    let image = docker(&["images", "--quiet"]);
    let image = image.lines().next().expect("an image with a shell").to_owned();
    let _removed = Removed;
    let start = |_| {
        let id =
            docker(&["run", "--detach", "--label", LABEL, "--memory", "64m", "--entrypoint", "sleep", &image, "9999"]);
        let pid = docker(&["inspect", "--format", "{{.State.Pid}}", &id]).parse().expect("a number");
        Target { id: id.as_str().into(), process: Process { pid, started_at: "".into() }, has_networks: true }
    };
    let targets: Vec<_> = (0..CONTAINERS).map(start).collect();
    let mut sampler = Sampler::new(Instant::now());
    let mut times = Vec::new();
    let mut cpu = Duration::ZERO;
    for round in 0..=ROUNDS {
        let (began, used_before) = (Instant::now(), used());
        let outcomes = sampler.sample(&targets);
        assert!(outcomes.iter().all(|outcome| matches!(outcome, Outcome::Read(_))), "{outcomes:?}");
        // The first round opens the files.
        if round > 0 {
            times.push(began.elapsed());
            cpu += used() - used_before;
        } else {
            println!("opening and reading: {:?} a container", began.elapsed() / CONTAINERS as u32);
        }
    }
    times.sort_unstable();
    println!("reading: {:?} a container, median of {ROUNDS} rounds", times[ROUNDS / 2] / CONTAINERS as u32);
    println!("processor time: {:?} a container", cpu / (CONTAINERS * ROUNDS) as u32);
}
